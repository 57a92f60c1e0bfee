"""Shards on a loop: loading, parking, losing, breaking, and the clock."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from ottla.broker.coordinator_runtime import LOAD_RETRY_S, CoordinatorRuntime
from ottla.broker.later import Later
from ottla.coordinator.group import records
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.machine import GroupMachine
from ottla.coordinator.group.records import OffsetCommitValue
from ottla.coordinator.shard import Outcome
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from ottla.protocol.messages.offset_fetch import OffsetFetchRequestGroup
from tests.unit.broker.group_fakes import FakeBatch, FakeCoordinator, FakeLog

GROUP = "group"


class Shell:
    """A runtime under test, with one partition."""

    def __init__(self, nursery: trio.Nursery) -> None:
        coordinator = FakeCoordinator()
        self.runtime: CoordinatorRuntime[GroupMachine] = coordinator.runtime
        self.log: FakeLog = coordinator.logs[0]
        self.nursery = nursery

    async def serve(self) -> None:
        self.runtime.start(0, self.log)
        await trio.testing.wait_all_tasks_blocked()
        assert self.runtime.is_ready(0)

    async def commit(self, offset: int) -> Any:
        return await self.runtime.ask(0, self.committing(offset))

    @staticmethod
    def committing(offset: int) -> Callable[[GroupMachine, int, Any], Outcome]:
        def decide(machine: GroupMachine, token: int, now: Any) -> Outcome:
            request = OffsetCommitRequest(
                group_id=GROUP,
                topics=(
                    OffsetCommitRequestTopic(
                        name="topic",
                        partitions=(OffsetCommitRequestPartition(partition_index=0, committed_offset=offset),),
                    ),
                ),
            )
            return machine.offsets.commit(request, caller(token), now)

        return decide

    def begin_commit(self, offset: int) -> list[ErrorCode]:
        """Commit in a task of its own; the list has the result once it is there."""
        result: list[ErrorCode] = []

        async def run() -> None:
            try:
                await self.commit(offset)
                result.append(ErrorCode.NONE)
            except KafkaError as error:
                result.append(error.code)

        self.nursery.start_soon(run)
        return result

    def committed(self) -> int:
        request = OffsetFetchRequestGroup(group_id=GROUP, topics=None)
        group = self.runtime.look(0, lambda machine, _: machine.offsets.fetch(request))
        return group.topics[0].partitions[0].committed_offset if group.topics else -1

    def error(self) -> ErrorCode:
        try:
            self.committed()
        except KafkaError as error:
            return error.code
        return ErrorCode.NONE


def caller(token: int) -> Caller:
    return Caller(token=token, api_version=9, client_id="c", client_host="/h", unique_id="u")


def run(test: Callable[[Shell], Awaitable[None]]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            shell = Shell(nursery)
            await nursery.start(shell.runtime.run)
            await test(shell)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def offset_commit(offset: int) -> records.CoordinatorRecord:
    return records.offset_commit(GROUP, "topic", 0, OffsetCommitValue(offset))


def test_requests_are_refused_until_the_log_is_loaded() -> None:
    async def test(shell: Shell) -> None:
        shell.log.records = [offset_commit(i) for i in range(5)]
        shell.log.high_watermark = 5
        shell.log.read_delay_s = 1
        assert shell.error() is ErrorCode.NOT_COORDINATOR
        shell.runtime.start(0, shell.log)
        await trio.sleep(0.5)
        assert shell.error() is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        await trio.sleep(5)
        assert shell.committed() == 4

    run(test)


def test_loading_waits_for_what_is_not_yet_committed() -> None:
    async def test(shell: Shell) -> None:
        shell.log.records = [offset_commit(1), offset_commit(2)]
        shell.log.high_watermark = 1
        shell.runtime.start(0, shell.log)
        await trio.sleep(1)
        assert shell.error() is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        shell.log.commit()
        await trio.sleep(1)
        assert shell.committed() == 2

    run(test)


def test_loading_passes_over_gaps_control_records_and_transactions() -> None:
    async def test(shell: Shell) -> None:
        record = offset_commit(7)
        aborted = offset_commit(8)
        shell.log.records = [record] * 12
        shell.log.high_watermark = 12
        shell.log.batches = [
            # Compaction has taken offsets 0 to 3, and all but one record of the next batch.
            FakeBatch(4, [(6, 0, record.key, offset_commit(6).value, ()), (7, 0, b"\0\x03", b"\0\0", ())]),
            FakeBatch(8, [(8, 0, record.key, record.value, ())], transactional=True, producer_id=1),
            FakeBatch(9, [(9, 0, aborted.key, aborted.value, ())], transactional=True, producer_id=2),
            FakeBatch(10, [(10, 0, b"\0\0\0\1", b"\0\0\0\0\0\0", ())], control=True, producer_id=1),
            FakeBatch(11, [(11, 0, b"\0\0\0\0", b"\0\0\0\0\0\0", ())], control=True, producer_id=2),
        ]
        await shell.serve()
        assert shell.committed() == 7

    run(test)


@pytest.mark.parametrize(("is_deleted", "committed"), [(False, 38), (True, -1)])
def test_loading_takes_the_last_of_what_was_written_again_and_again(is_deleted: bool, committed: int) -> None:
    async def test(shell: Shell) -> None:
        key = offset_commit(0).key
        shell.log.records = [offset_commit(0)] * 40
        shell.log.high_watermark = 40
        shell.log.batches = [
            *(FakeBatch(n, [(n, 0, key, offset_commit(n).value, ())]) for n in range(20)),
            FakeBatch(20, [(20, 0, key, offset_commit(90).value, ())], transactional=True, producer_id=1),
            *(FakeBatch(n, [(n, 0, key, offset_commit(n).value, ())]) for n in range(21, 38)),
            FakeBatch(38, [(38, 0, key, None if is_deleted else offset_commit(38).value, ())]),
            FakeBatch(39, [(39, 0, b"\0\0\0\0", b"\0\0\0\0\0\0", ())], control=True, producer_id=1),
        ]
        await shell.serve()
        assert shell.committed() == committed

    run(test)


@pytest.mark.parametrize("error", [KafkaError(ErrorCode.KAFKA_STORAGE_ERROR), OSError("dead"), ValueError("bad crc")])
def test_a_log_that_cannot_be_read_is_not_coordinated_until_it_can(error: Exception) -> None:
    async def test(shell: Shell) -> None:
        shell.log.records = [offset_commit(1)]
        shell.log.high_watermark = 1
        shell.log.read_error = error
        shell.runtime.start(0, shell.log)
        await trio.sleep(1)
        assert shell.error() is ErrorCode.COORDINATOR_NOT_AVAILABLE
        shell.log.read_error = None
        await trio.sleep(LOAD_RETRY_S)
        is_damaged = isinstance(error, ValueError)
        assert shell.error() is (ErrorCode.COORDINATOR_NOT_AVAILABLE if is_damaged else ErrorCode.NONE)
        if not is_damaged:
            assert shell.committed() == 1

    run(test)


def test_a_disk_that_does_not_let_a_log_be_read_is_asked_less_and_less_often() -> None:
    async def test(shell: Shell) -> None:
        shell.log.records = [offset_commit(1)]
        shell.log.high_watermark = 1
        shell.log.read_error = OSError("dead")
        shell.runtime.start(0, shell.log)
        await shell.runtime.wait_loaded()
        await trio.sleep(3 * LOAD_RETRY_S + 1)  # two attempts more
        shell.log.read_error = None
        await trio.sleep(4 * LOAD_RETRY_S - 2)
        assert shell.error() is ErrorCode.COORDINATOR_NOT_AVAILABLE
        await trio.sleep(2)
        assert shell.committed() == 1

    run(test)


def test_a_reply_waits_for_the_high_watermark() -> None:
    async def test(shell: Shell) -> None:
        await shell.serve()
        shell.log.holding = True
        result = shell.begin_commit(5)
        await trio.sleep(1)
        assert result == []
        assert shell.committed() == -1
        shell.log.commit()
        await trio.lowlevel.checkpoint()
        assert shell.committed() == 5
        await trio.testing.wait_all_tasks_blocked()
        assert result == [ErrorCode.NONE]

    run(test)


def test_who_asks_quickly_has_the_reply_at_once_or_what_waits_for_it() -> None:
    async def test(shell: Shell) -> None:
        await shell.serve()
        reply = shell.runtime.ask_quickly(0, lambda _machine, token, _now: Outcome().reply(token, "reply"))
        assert reply == "reply"
        with pytest.raises(KafkaError, match="NOT_COORDINATOR"):
            shell.runtime.ask_quickly(1, shell.committing(5))
        shell.log.holding = True
        waited, called_back, dropped = (shell.runtime.ask_quickly(0, shell.committing(offset)) for offset in (5, 6, 7))
        assert isinstance(waited, Later)
        assert isinstance(called_back, Later)
        assert isinstance(dropped, Later)
        came: list[object] = []
        called_back.then(lambda get: came.append(get()))
        dropped.then(lambda get: came.append(get()))
        dropped.drop()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waited.wait)
            await trio.testing.wait_all_tasks_blocked()
            shell.log.commit()
            assert [type(reply) for reply in came] == [OffsetCommitResponse]
        assert shell.committed() == 7
        assert not shell.runtime._parked

    run(test)


def test_who_is_called_back_may_ask_again() -> None:
    """A shard is done with one request, whoever is told of it, before it sees the next."""

    async def test(shell: Shell) -> None:
        await shell.serve()
        shell.log.holding = True
        came: list[str] = []

        def ask_again(get: Callable[[], object]) -> None:
            get()
            came.append("first")
            again = shell.runtime.ask_quickly(0, shell.committing(6))
            assert isinstance(again, Later)
            again.then(lambda get: came.append(type(get()).__name__))

        for name in ("ask_again", "note"):
            found = shell.runtime.ask_quickly(0, shell.committing(5))
            assert isinstance(found, Later)
            found.then(ask_again if name == "ask_again" else lambda _get: came.append("second"))
        shell.log.commit()
        assert came == ["first", "second"]
        shell.log.commit()
        assert came == ["first", "second", "OffsetCommitResponse"]
        assert shell.committed() == 6

    run(test)


def test_stopping_calls_back_whoever_waits() -> None:
    async def test(shell: Shell) -> None:
        await shell.serve()
        shell.log.holding = True
        found = shell.runtime.ask_quickly(0, shell.committing(5))
        assert isinstance(found, Later)
        came: list[ErrorCode] = []

        def note(get: Callable[[], object]) -> None:
            with pytest.raises(KafkaError) as stopped:
                get()
            came.append(stopped.value.code)

        found.then(note)
        shell.runtime.stop(0)
        assert came == [ErrorCode.NOT_COORDINATOR]
        assert not shell.runtime._parked

    run(test)


def test_waiting_ends_with_the_timeout() -> None:
    async def test(shell: Shell) -> None:
        await shell.serve()
        shell.log.holding = True
        result = shell.begin_commit(5)
        await trio.sleep(4.99)
        assert result == []
        await trio.sleep(0.02)
        assert result == [ErrorCode.COORDINATOR_NOT_AVAILABLE]

    run(test)


def test_a_refused_append_and_a_lost_one_are_told_to_the_client() -> None:
    async def test(shell: Shell) -> None:
        await shell.serve()
        shell.log.error = ErrorCode.KAFKA_STORAGE_ERROR
        with pytest.raises(KafkaError) as refused:
            await shell.commit(5)
        assert refused.value.code is ErrorCode.NOT_COORDINATOR
        shell.log.error = None
        await shell.commit(6)
        shell.log.holding = True
        result = shell.begin_commit(7)
        await trio.testing.wait_all_tasks_blocked()
        shell.log.cut(1)
        await trio.testing.wait_all_tasks_blocked()
        assert result == [ErrorCode.NOT_COORDINATOR]
        assert shell.committed() == 6
        shell.log.holding = False
        await shell.commit(8)
        assert shell.committed() == 8

    run(test)


def test_what_was_lost_with_an_io_error_is_never_acknowledged() -> None:
    """Even if the log has grown to the same end again before anybody looked."""

    async def test(shell: Shell) -> None:
        await shell.serve()
        await shell.commit(5)
        shell.log.holding = True
        lost = shell.begin_commit(6)
        await trio.testing.wait_all_tasks_blocked()
        shell.log.holding = False
        shell.log.lose(1, is_reloaded=True)
        refused = shell.begin_commit(7)
        await trio.testing.wait_all_tasks_blocked()
        assert (lost, refused) == ([], [ErrorCode.NOT_COORDINATOR]), "it would rest on what is lost"
        shell.log.on_moved()
        await shell.runtime.wait_loaded()
        await trio.testing.wait_all_tasks_blocked()
        assert lost == [ErrorCode.NOT_COORDINATOR]
        assert shell.committed() == 5
        await shell.commit(8)
        assert shell.committed() == 8
        assert shell.log.high_watermark == 2

    run(test)


def test_what_recovery_kept_of_a_write_counts_though_its_client_was_told_that_it_is_lost() -> None:
    async def test(shell: Shell) -> None:
        await shell.serve()
        await shell.commit(5)
        shell.log.holding = True
        lost = shell.begin_commit(6)
        await trio.testing.wait_all_tasks_blocked()
        shell.log.lose(2, is_reloaded=True)
        shell.log.commit()
        await shell.runtime.wait_loaded()
        await trio.testing.wait_all_tasks_blocked()
        assert lost == [ErrorCode.NOT_COORDINATOR]
        assert shell.committed() == 6

    run(test)


def test_a_machine_that_does_not_take_in_what_is_in_the_log_is_loaded_anew() -> None:
    async def test(shell: Shell) -> None:
        await shell.serve()
        await shell.commit(5)
        shell.log.lose(0)
        shell.log.lost = None  # whoever cut it did not say so
        with pytest.raises(KafkaError) as refused:
            await shell.commit(6)
        assert refused.value.code is ErrorCode.NOT_COORDINATOR
        await shell.runtime.wait_loaded()
        await trio.testing.wait_all_tasks_blocked()
        assert shell.committed() == 6
        await shell.commit(7)
        assert shell.committed() == 7

    run(test)


def test_a_bug_in_the_log_fails_that_write_alone() -> None:
    async def test(shell: Shell) -> None:
        await shell.serve()
        append = shell.log.append

        def fails(_records: Any, *, wall_ms: int) -> int:
            raise RuntimeError("a bug")

        shell.log.append = fails  # type: ignore[method-assign]
        with pytest.raises(KafkaError) as failed:
            await shell.commit(5)
        assert failed.value.code is ErrorCode.UNKNOWN_SERVER_ERROR
        shell.log.append = append  # type: ignore[method-assign]
        await shell.commit(6)
        assert shell.committed() == 6

    run(test)


def test_stopping_answers_whoever_waits() -> None:
    async def test(shell: Shell) -> None:
        await shell.serve()
        shell.log.holding = True
        result = shell.begin_commit(5)
        await trio.testing.wait_all_tasks_blocked()
        shell.runtime.stop(0)
        await trio.testing.wait_all_tasks_blocked()
        assert result == [ErrorCode.NOT_COORDINATOR]
        assert shell.error() is ErrorCode.NOT_COORDINATOR
        shell.runtime.on_partition_moved(0)

    run(test)


def test_stopping_ends_the_loading() -> None:
    async def test(shell: Shell) -> None:
        shell.log.records = [offset_commit(1)]
        shell.runtime.start(0, shell.log)
        await trio.testing.wait_all_tasks_blocked()
        shell.runtime.stop(0)
        shell.log.commit()
        await trio.sleep(1)
        assert shell.error() is ErrorCode.NOT_COORDINATOR

    run(test)


def test_a_client_that_is_gone_leaves_nothing_behind() -> None:
    async def test(shell: Shell) -> None:
        await shell.serve()
        shell.log.holding = True
        with trio.move_on_after(1):
            await shell.commit(5)
        assert not shell.runtime._parked
        shell.log.commit()
        assert shell.committed() == 5

    run(test)


def test_deadlines_pass_by_themselves() -> None:
    async def test(shell: Shell) -> None:
        await shell.serve()

        def join(machine: GroupMachine, token: int, now: Any) -> Outcome:
            request = JoinGroupRequest(
                group_id=GROUP,
                session_timeout_ms=10_000,
                rebalance_timeout_ms=10_000,
                protocol_type="consumer",
                protocols=(JoinGroupRequestProtocol(name="range"),),
                group_instance_id="i",
            )
            return machine.membership.join(request, caller(token), now)

        def state() -> str:
            return shell.runtime.look(0, lambda m, _: m.directory.describe(GROUP, api_version=5).group_state)

        joined: Any = await shell.runtime.ask(0, join)
        assert joined.generation_id == 1
        await trio.sleep(9.9)
        assert state() == "CompletingRebalance"
        await trio.sleep(0.2)
        assert state() == "Empty"

    run(test)


def test_a_bug_in_one_shard_costs_that_shard_a_reload() -> None:
    async def test(shell: Shell) -> None:
        await shell.serve()
        await shell.commit(5)
        shell.log.holding = True
        result = shell.begin_commit(6)
        await trio.testing.wait_all_tasks_blocked()
        machine = shell.runtime.look(0, lambda machine, _: machine)

        def fails(_high_watermark: int) -> None:
            raise RuntimeError("a bug")

        machine.commit = fails  # type: ignore[method-assign]
        shell.log.commit()
        await trio.testing.wait_all_tasks_blocked()
        assert result == [ErrorCode.NOT_COORDINATOR]
        assert shell.committed() == 6
        assert shell.runtime.look(0, lambda machine, _: machine) is not machine

    run(test)


def test_a_bug_at_a_deadline_costs_that_shard_a_reload() -> None:
    async def test(shell: Shell) -> None:
        await shell.serve()
        await shell.commit(5)
        machine = shell.runtime.look(0, lambda machine, _: machine)

        def fails(_now: Any) -> Outcome:
            raise RuntimeError("a bug")

        machine.on_tick = fails  # type: ignore[method-assign]
        await trio.sleep(601)
        assert shell.committed() == 5
        assert shell.runtime.look(0, lambda machine, _: machine) is not machine

    run(test)


def forget_topic(machine: GroupMachine, _now: Any) -> Outcome:
    return machine.on_topics_deleted({"topic": uuid.UUID(int=1)})


def test_commands_reach_served_shards_only() -> None:
    async def test(shell: Shell) -> None:
        shell.runtime.command(0, forget_topic)
        await shell.serve()
        await shell.commit(5)
        shell.runtime.command(0, forget_topic)
        await trio.sleep(1)
        assert shell.committed() == -1

    run(test)


def test_commands_wait_until_loading_is_over() -> None:
    async def test(shell: Shell) -> None:
        shell.log.records = [offset_commit(1)]
        shell.log.high_watermark = 1
        shell.log.read_delay_s = 1
        shell.runtime.start(0, shell.log)
        shell.runtime.command(0, forget_topic)
        await trio.sleep(5)
        assert shell.committed() == -1

    run(test)


def test_one_can_wait_until_everything_is_loaded() -> None:
    async def test(shell: Shell) -> None:
        shell.log.records = [offset_commit(1)]
        shell.log.high_watermark = 1
        shell.log.read_delay_s = 3
        shell.runtime.start(0, shell.log)
        started = trio.current_time()
        await shell.runtime.wait_loaded()
        assert trio.current_time() - started == pytest.approx(3)
        assert shell.committed() == 1

    run(test)
