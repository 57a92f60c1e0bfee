"""A machine takes in what was appended without it before anything else is done with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from ottla.broker.coordinator_runtime import AppendedElsewhere
from ottla.coordinator.group.config import GroupConfig
from ottla.coordinator.shard import LoadedRecord, Outcome
from ottla.errors import ErrorCode
from tests.unit.broker.group_fakes import WALL_START_MS, FakeCoordinator
from tests.unit.broker.test_coordinator_runtime import GROUP, Shell, offset_commit

CHECK_MS = GroupConfig().offsets_retention_check_interval_ms


class Elsewhere(Shell):
    """A runtime with one partition, to which others append, too."""

    def __init__(self, nursery: trio.Nursery) -> None:
        config = GroupConfig(offsets_retention_ms=CHECK_MS)
        coordinator = FakeCoordinator(config, self.take)
        self.runtime, self.log, self.nursery = coordinator.runtime, coordinator.logs[0], nursery
        self.appended: list[LoadedRecord] = []

    def take(self, partition: int) -> AppendedElsewhere | None:
        if partition != 0:
            return None
        taken, self.appended = self.appended, []
        return AppendedElsewhere(self.log.high_watermark, taken)

    def append(self, offset: int, *, is_committed: bool = True) -> None:
        """Somebody commits an offset, and nobody is told."""
        record = offset_commit(offset)
        self.appended.append(LoadedRecord(len(self.log.records), record.key, record.value, content=record.content))
        self.log.records.append(record)
        if is_committed:
            self.log.high_watermark = len(self.log.records)

    def latest(self) -> int:
        def read(machine: Any, _: Any) -> int:
            ((_, value),) = machine.table.offsets.items(GROUP)
            return int(value.offset)

        return self.runtime.look(0, read)


def run(test: Callable[[Elsewhere], Awaitable[None]]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            shell = Elsewhere(nursery)
            await nursery.start(shell.runtime.run)
            await shell.serve()
            await test(shell)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_look_sees_it() -> None:
    async def test(shell: Elsewhere) -> None:
        await shell.commit(1)
        shell.append(2)
        assert shell.committed() == 2
        shell.append(3, is_committed=False)
        assert (shell.committed(), shell.latest()) == (2, 3)
        shell.log.commit()
        assert shell.committed() == 3

    run(test)


def test_what_is_decided_comes_behind_it() -> None:
    async def test(shell: Elsewhere) -> None:
        shell.append(1)
        await shell.commit(2)
        assert shell.committed() == 2
        seen = []

        def decide(machine: Any, now: Any) -> Outcome:
            ((_, value),) = machine.table.offsets.items(GROUP)
            seen.append(value.offset)
            return Outcome()

        shell.append(3)
        shell.runtime.command(0, decide)
        assert seen == [3]

    run(test)


def test_a_deadline_sees_it() -> None:
    async def test(shell: Elsewhere) -> None:
        await shell.commit(1)
        await trio.sleep(CHECK_MS / 1000 - 1)
        record = offset_commit(2)
        value: Any = record.content
        now_ms = trio.current_time() * 1000
        renewed = value._replace(value=value.value._replace(commit_timestamp_ms=WALL_START_MS + int(now_ms)))
        shell.appended.append(LoadedRecord(len(shell.log.records), record.key, record.value, content=renewed))
        shell.log.records.append(record)
        shell.log.high_watermark = len(shell.log.records)
        await trio.sleep(2)
        assert shell.committed() == 2, "it would have expired"
        await trio.sleep(2 * CHECK_MS / 1000)
        assert shell.committed() == -1

    run(test)


def test_whoever_waits_is_answered_by_the_high_watermark_that_is_heard_of_by_it() -> None:
    async def test(shell: Elsewhere) -> None:
        shell.log.holding = True
        result = shell.begin_commit(1)
        await trio.testing.wait_all_tasks_blocked()
        shell.append(2)
        shell.committed()
        await trio.testing.wait_all_tasks_blocked()
        assert result == [ErrorCode.NONE]

    run(test)


@pytest.mark.parametrize("is_seen", [False, True])
def test_what_was_lost_of_it_is_taken_back(*, is_seen: bool) -> None:
    async def test(shell: Elsewhere) -> None:
        shell.append(1)
        shell.append(2, is_committed=False)
        if is_seen:
            assert shell.latest() == 2
        else:
            shell.appended.pop()
        shell.log.cut(1)
        assert (shell.committed(), shell.latest()) == (1, 1)
        await shell.commit(3)
        assert shell.committed() == 3

    run(test)


def test_a_machine_that_breaks_by_it_is_loaded_again() -> None:
    async def test(shell: Elsewhere) -> None:
        await shell.commit(1)
        shell.append(2)
        shell.appended[0] = shell.appended[0]._replace(offset=0)
        assert shell.error() is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        await trio.testing.wait_all_tasks_blocked()
        assert shell.committed() == 2

    run(test)


def test_what_is_decided_as_the_high_watermark_moves_comes_behind_it() -> None:
    async def test(shell: Elsewhere) -> None:
        machines = []

        def decide(machine: Any, now: Any) -> Outcome:
            machine.on_committed = lambda then, now: Outcome().write([offset_commit(6)])
            machines.append(machine)
            return Outcome().write([offset_commit(5)], then=object())

        shell.log.holding = True
        shell.runtime.command(0, decide)
        shell.append(7, is_committed=False)
        shell.log.commit()
        assert shell.latest() == 6
        assert shell.runtime.look(0, lambda machine, _: machine) is machines[0]

    run(test)
