"""The quorum's tasks over a real directory, on a clock of the test's own."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from ottla._native import QuorumDamagedError, QuorumNotLeaderError
from ottla.broker.quorum_runtime import CommittedBatch, QuorumRuntime, QuorumSettings, Snapshot


class Recorder:
    """A listener that keeps what it hears, and whose state is the list of records."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.heard: list[str] = []
        self.snapshots = 0

    def on_snapshot(self, snapshot: Snapshot) -> None:
        self.records = list(snapshot.records)
        self.snapshots += 1

    def on_committed(self, batches: Sequence[CommittedBatch]) -> None:
        for batch in batches:
            self.records.extend(batch.records)

    def on_leader(self, leader_id: int, epoch: int) -> None:
        self.heard.append(f"leader {leader_id}")

    def on_claimed(self, epoch: int) -> None:
        self.heard.append(f"claimed {epoch}")

    def on_resigned(self, epoch: int) -> None:
        self.heard.append(f"resigned {epoch}")

    def snapshot_records(self) -> Iterable[bytes]:
        return tuple(self.records)


def lone_settings(directory: Path, *, snapshot_bytes: int = 20 << 20) -> QuorumSettings:
    return QuorumSettings(directory=str(directory), node_id=1, voters=[1], snapshot_bytes=snapshot_bytes)


def with_quorum(settings: QuorumSettings, listener: Recorder, work: Callable[[QuorumRuntime], Awaitable[None]]) -> None:
    async def main() -> None:
        runtime = QuorumRuntime(settings, listener, wall_clock=lambda: 1_000)
        async with trio.open_nursery() as nursery:
            await nursery.start(runtime.run)
            await work(runtime)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock())


def test_a_lone_voter_leads_when_it_has_started_and_proposals_return_once_delivered(tmp_path: Path) -> None:
    listener = Recorder()

    async def work(runtime: QuorumRuntime) -> None:
        assert listener.heard == ["leader 1", "claimed 1"]
        assert runtime.status().is_active
        assert await runtime.propose([b"a", b"b"]) == 1
        assert listener.records == [b"a", b"b"]
        assert await runtime.propose([b"c"]) == 3

    with_quorum(lone_settings(tmp_path), listener, work)


def test_proposals_made_together_keep_their_order_and_share_syncs(tmp_path: Path) -> None:
    listener = Recorder()

    async def work(runtime: QuorumRuntime) -> None:
        async def one(number: int) -> None:
            await runtime.propose([b"%d" % number])

        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(one, number)
        assert sorted(listener.records, key=int) == [b"%d" % number for number in range(500)]

    with_quorum(lone_settings(tmp_path), listener, work)


def test_a_restart_delivers_everything_before_it_reports_started(tmp_path: Path) -> None:
    async def write(runtime: QuorumRuntime) -> None:
        for number in range(5):
            await runtime.propose([b"%d" % number])

    with_quorum(lone_settings(tmp_path), Recorder(), write)
    listener = Recorder()

    async def read(runtime: QuorumRuntime) -> None:
        assert listener.records == [b"0", b"1", b"2", b"3", b"4"]
        assert listener.heard == ["leader 1", "claimed 2"]

    with_quorum(lone_settings(tmp_path), listener, read)


def test_snapshots_are_made_after_enough_bytes_and_start_the_next_run(tmp_path: Path) -> None:
    settings = lone_settings(tmp_path, snapshot_bytes=1000)
    listener = Recorder()

    async def write(runtime: QuorumRuntime) -> None:
        for number in range(100):
            await runtime.propose([b"%100d" % number])

    with_quorum(settings, listener, write)
    checkpoints = [name for name in os.listdir(tmp_path) if name.endswith(".checkpoint")]
    assert 2 <= len(checkpoints) <= 3  # stopping may come between a new snapshot and the deletion of an old one
    restarted = Recorder()

    async def read(runtime: QuorumRuntime) -> None:
        assert restarted.snapshots == 1
        assert restarted.records == listener.records

    with_quorum(settings, restarted, read)


def test_a_snapshot_is_due_after_an_hour_if_anything_changed(tmp_path: Path) -> None:
    listener = Recorder()

    async def work(runtime: QuorumRuntime) -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        await runtime.propose([b"a"])
        for _ in range(2):
            clock.jump(3_600)
            while runtime.status().snapshot_end_offset == 0:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()

    with_quorum(lone_settings(tmp_path), listener, work)
    assert len(list(tmp_path.glob("*.checkpoint"))) == 1  # in the second hour nothing changed


def test_nothing_is_proposed_without_a_running_quorum(tmp_path: Path) -> None:
    runtime = QuorumRuntime(lone_settings(tmp_path), Recorder())
    with pytest.raises(QuorumNotLeaderError):
        runtime.propose_nowait([b"a"])


def test_a_listener_may_propose_from_within_a_call(tmp_path: Path) -> None:
    class Proposer(Recorder):
        def on_claimed(self, epoch: int) -> None:
            super().on_claimed(epoch)
            runtime.propose_nowait([b"first words"])

    listener = Proposer()
    runtime = QuorumRuntime(lone_settings(tmp_path), listener)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(runtime.run)
            await runtime.propose([b"then"])
            assert listener.records == [b"first words", b"then"]
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock())


def test_a_damaged_log_refuses_to_start_and_says_where(tmp_path: Path) -> None:
    async def write(runtime: QuorumRuntime) -> None:
        await runtime.propose([b"a"])
        await runtime.propose([b"b"])

    with_quorum(lone_settings(tmp_path), Recorder(), write)
    log = tmp_path / "00000000000000000000.log"
    content = bytearray(log.read_bytes())
    content[120] ^= 1
    log.write_bytes(content)
    expected = pytest.RaisesExc(QuorumDamagedError, match=r"00000000000000000000\.log is damaged at byte 91")
    with pytest.RaisesGroup(expected):
        with_quorum(lone_settings(tmp_path), Recorder(), write)


def test_three_voters_elect_one_commit_everywhere_and_go_on_without_the_leader(tmp_path: Path) -> None:
    listeners = {node: Recorder() for node in (1, 2, 3)}
    runtimes: dict[int, QuorumRuntime] = {}
    stopped: set[int] = set()

    def make(node: int) -> QuorumRuntime:
        def send(voter: int, message: bytes) -> None:
            if voter not in stopped and node not in stopped:
                trio.lowlevel.current_trio_token().run_sync_soon(runtimes[voter].receive, message)

        settings = QuorumSettings(directory=str(tmp_path / str(node)), node_id=node, voters=[1, 2, 3])
        return QuorumRuntime(settings, listeners[node], send=send, wall_clock=lambda: 1_000)

    async def wait_leader(nodes: set[int]) -> int:
        while True:
            active = [node for node in nodes if runtimes[node].status().is_active]
            if active:
                assert len(active) == 1
                return active[0]
            await trio.sleep(0.1)

    async def wait_records(nodes: set[int], records: list[bytes]) -> None:
        while True:
            if all(listeners[node].records == records for node in nodes):
                return
            await trio.sleep(0.1)

    async def main() -> None:
        scopes: dict[int, trio.CancelScope] = {}

        async def run(node: int, *, task_status: trio.TaskStatus[None]) -> None:
            with trio.CancelScope() as scopes[node]:
                await runtimes[node].run(task_status=task_status)

        async with trio.open_nursery() as nursery:
            for node in (1, 2, 3):
                runtimes[node] = make(node)
                await nursery.start(run, node)
            with trio.fail_after(1_000):
                first = await wait_leader({1, 2, 3})
                await runtimes[first].propose([b"a"])
                await wait_records({1, 2, 3}, [b"a"])
                stopped.add(first)
                scopes[first].cancel()
                rest = {1, 2, 3} - {first}
                second = await wait_leader(rest)
                await runtimes[second].propose([b"b"])
                await wait_records(rest, [b"a", b"b"])
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.005))
