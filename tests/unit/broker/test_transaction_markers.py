"""Ending transactions in partitions: what is waited for, and what becomes of a marker that cannot be committed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import pytest
import trio
import trio.testing

from ottla.broker.transaction_markers import COMMIT_TIMEOUT_S, TransactionMarkers
from ottla.coordinator.shard import TransactionEnd
from ottla.errors import ErrorCode, KafkaError

GROUPS = ("__consumer_offsets", 3)
A, B = ("a", 0), ("b", 0)


class FakePending:
    def __init__(self) -> None:
        self.committed = False
        self.error: ErrorCode | None = None

    def is_committed(self) -> bool:
        if self.error is not None:
            raise KafkaError(self.error)
        return self.committed


class FakePartition:
    def __init__(self) -> None:
        self.watchers = 0
        self.markers: list[dict[str, Any]] = []
        self.pending: list[FakePending] = []
        self.error: ErrorCode | None = None
        self.open_producers: list[tuple[int, int]] = []

    def producers(self) -> list[tuple[int, int, int, int, int, int]]:
        if self.error is not None:
            raise KafkaError(self.error)
        opened = [(producer_id, epoch, 0, 0, 0, 10) for producer_id, epoch in self.open_producers]
        return [(7, 2, 0, 0, 0, -1), *opened]

    def watch(self, is_watched: bool = True) -> None:
        self.watchers += 1 if is_watched else -1

    def append_marker(self, *, wall_ms: int, **marker: Any) -> FakePending:
        assert wall_ms > 0
        if self.error is not None:
            raise KafkaError(self.error)
        self.markers.append(marker)
        self.pending.append(FakePending())
        return self.pending[-1]


class World:
    """Partitions by name, and a group coordinator that answers when it is let."""

    def __init__(self) -> None:
        self.partitions = {at: FakePartition() for at in (A, B, GROUPS)}
        self.groups_answer = trio.Event()
        self.groups_error: ErrorCode | None = None
        self.ended: list[tuple[int, TransactionEnd]] = []
        self.markers = TransactionMarkers(cast(Any, self), self.end_offsets)

    def partition(self, topic: str, index: int) -> FakePartition | None:
        return self.partitions.get((topic, index))

    async def end_offsets(self, partition: int, end: TransactionEnd) -> None:
        await self.groups_answer.wait()
        if self.groups_error is not None:
            raise KafkaError(self.groups_error)
        self.ended.append((partition, end))

    async def write(self, *partitions: tuple[str, int]) -> Mapping[tuple[str, int], ErrorCode]:
        return await self.markers.write(
            producer_id=7,
            producer_epoch=2,
            commit=True,
            coordinator_epoch=5,
            transaction_version=2,
            partitions=partitions,
        )

    def commit(self, at: tuple[str, int]) -> None:
        for pending in self.partitions[at].pending:
            pending.committed = True
        self.markers.on_high_watermark(*at)

    @property
    def is_at_rest(self) -> bool:
        return not self.markers._waiting and not any(p.watchers for p in self.partitions.values())


def run(test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World()
        await test(world)
        assert world.is_at_rest

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_it_returns_when_every_marker_is_committed() -> None:
    async def test(world: World) -> None:
        world.groups_answer.set()
        results: list[Mapping[tuple[str, int], ErrorCode]] = []
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                results.append(await world.write(A, GROUPS, B, A))

            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            assert [len(world.partitions[at].markers) for at in (A, B, GROUPS)] == [1, 1, 0]
            world.commit(A)
            await trio.testing.wait_all_tasks_blocked()
            assert not results
            world.commit(B)
        assert results == [dict.fromkeys((A, GROUPS, B), ErrorCode.NONE)]
        end = TransactionEnd(7, 2, True, 5, 2)
        assert world.partitions[A].markers == [end._asdict()]
        assert world.ended == [(3, end)]

    run(test)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (ErrorCode.NOT_COORDINATOR, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (ErrorCode.TRANSACTION_COORDINATOR_FENCED, ErrorCode.TRANSACTION_COORDINATOR_FENCED),
    ],
)
def test_what_groups_say_is_put_as_coordinators_expect_it(said: ErrorCode, told: ErrorCode) -> None:
    async def test(world: World) -> None:
        world.groups_error = said
        world.groups_answer.set()
        assert await world.write(GROUPS) == {GROUPS: told}

    run(test)


def test_each_partition_answers_for_itself() -> None:
    async def test(world: World) -> None:
        world.partitions[A].error = ErrorCode.INVALID_PRODUCER_EPOCH
        with trio.move_on_after(1):
            world.groups_answer.set()
            results = await world.write(A, ("absent", 0), GROUPS)
        assert results == {
            A: ErrorCode.INVALID_PRODUCER_EPOCH,
            ("absent", 0): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            GROUPS: ErrorCode.NONE,
        }

    run(test)


def test_a_lost_marker_and_a_deleted_partition_are_not_waited_for() -> None:
    async def test(world: World) -> None:
        results: list[Mapping[tuple[str, int], ErrorCode]] = []
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                results.append(await world.write(A, B))

            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            world.partitions[A].pending[0].error = ErrorCode.KAFKA_STORAGE_ERROR
            world.markers.on_high_watermark(*A)
            gone = world.partitions.pop(B)
            world.markers.on_published(cast(Any, None))
        assert results == [{A: ErrorCode.KAFKA_STORAGE_ERROR, B: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}]
        assert gone.watchers == 0

    run(test)


def test_a_disk_that_stalls_is_not_waited_for_for_ever() -> None:
    async def test(world: World) -> None:
        started_s = trio.current_time()
        assert await world.write(A, GROUPS) == dict.fromkeys((A, GROUPS), ErrorCode.REQUEST_TIMED_OUT)
        assert trio.current_time() - started_s == pytest.approx(COMMIT_TIMEOUT_S)

    run(test)


def test_who_gives_up_leaves_nothing_behind() -> None:
    async def test(world: World) -> None:
        with trio.move_on_after(1):
            await world.write(A, B)
        world.commit(A)

    run(test)


def test_who_refuses_a_marker_may_have_the_transaction_open() -> None:
    async def test(world: World) -> None:
        await trio.lowlevel.checkpoint()
        partition = world.partitions[A]
        assert not world.markers.is_open(A, 7, 2)
        partition.open_producers = [(8, 0), (7, 3)]
        assert not world.markers.is_open(A, 7, 2), "somebody else's, and a later one"
        partition.open_producers.append((7, 1))
        assert world.markers.is_open(A, 7, 2)
        assert not world.markers.is_open(("absent", 0), 7, 2)
        partition.open_producers.clear()
        partition.error = ErrorCode.KAFKA_STORAGE_ERROR
        assert world.markers.is_open(A, 7, 2), "nobody knows"

    run(test)
