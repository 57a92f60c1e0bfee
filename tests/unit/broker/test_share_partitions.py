"""The share partitions that a broker leads: loaded once, written one write at a time, forgotten at the right time."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from ottla.broker.clock import now_ms
from ottla.broker.share_partitions import LedSharePartition, ShareKey, SharePartitions
from ottla.broker.share_settings import ShareGroupSettings
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import MetadataImage, PartitionRegistration, TopicImage
from ottla.protocol.messages import read_share_group_state, write_share_group_state
from ottla.share.acknowledgement import Acknowledgement
from ottla.share.partition import FetchedBatch, ShareSettings

TOPIC = uuid.UUID(int=7)
KEY = ShareKey("g", TOPIC, 0)
SETTINGS = ShareGroupSettings(ShareSettings(record_lock_duration_ms=3_600_000))
ACCEPT = (1,)


class FakeNative:
    """A partition with a leader and somebody who watches it, or not."""

    def __init__(self) -> None:
        self.watchers = 0

    def offsets(self) -> Any:
        return SimpleNamespace(leader_epoch=3)

    def watch(self, is_watched: bool = True) -> None:
        self.watchers += 1 if is_watched else -1


class World:
    """A topic of one partition, and a share coordinator that answers when it is let."""

    def __init__(self) -> None:
        led = PartitionRegistration(replicas=(1,), isr=(1,), leader=1, leader_epoch=3, partition_epoch=0)
        topic = TopicImage(name="t", topic_id=TOPIC, partitions={0: led})
        self.image = MetadataImage(topics={TOPIC: topic}, topic_ids={"t": TOPIC})
        self.native = FakeNative()
        self.start_offset = 5
        self.read_error = self.write_error = ErrorCode.NONE
        self.reads: list[read_share_group_state.PartitionData] = []
        self.writes: list[write_share_group_state.PartitionData] = []
        self.may_answer = trio.Event()
        self.may_answer.set()
        self.partitions = SharePartitions(cast(Any, self), cast(Any, self), image=lambda: self.image)

    def partition(self, topic: str, index: int) -> FakeNative | None:
        assert (topic, index) == ("t", 0)
        return self.native

    async def read_share_group_state(self, request: read_share_group_state.ReadShareGroupStateRequest) -> Any:
        self.reads.append(request.topics[0].partitions[0])
        found = read_share_group_state.PartitionResult(
            partition=0, error_code=self.read_error, start_offset=self.start_offset, state_epoch=len(self.reads)
        )
        await self.may_answer.wait()
        result = read_share_group_state.ReadStateResult(topic_id=TOPIC, partitions=(found,))
        return read_share_group_state.ReadShareGroupStateResponse(results=(result,))

    async def write_share_group_state(self, request: write_share_group_state.WriteShareGroupStateRequest) -> Any:
        self.writes.append(request.topics[0].partitions[0])
        await self.may_answer.wait()
        found = write_share_group_state.PartitionResult(partition=0, error_code=self.write_error)
        result = write_share_group_state.WriteStateResult(topic_id=TOPIC, partitions=(found,))
        return write_share_group_state.WriteShareGroupStateResponse(results=(result,))

    def stall(self) -> None:
        """Let the share coordinator answer only when `may_answer` is set."""
        self.may_answer = trio.Event()

    async def load(self) -> LedSharePartition:
        return await self.partitions.load(KEY, SETTINGS)

    def acquire(self, led: LedSharePartition, count: int) -> None:
        """Give member m so many records, each a batch."""
        at = led.machine.end_offset
        batches = [FetchedBatch(offset, offset) for offset in range(at, at + count)]
        assert led.machine.acquire(
            "m", at, batches, max_records=count, batch_size=1, is_limit_strict=False, now_ms=now_ms()
        )
        self.partitions.lock_begins(led)

    def accept(self, led: LedSharePartition, offset: int) -> int:
        number = led.machine.acknowledge("m", [Acknowledgement(offset, offset, ACCEPT)], now_ms())
        assert number is not None
        self.partitions.write(led)
        return number


def run(test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World()
        async with trio.open_nursery() as nursery:
            await nursery.start(world.partitions.run)
            await test(world)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_is_read_once_for_all_who_want_it() -> None:
    async def test(world: World) -> None:
        world.stall()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(world.load)
            await trio.testing.wait_all_tasks_blocked()
            world.may_answer.set()
        assert [read.leader_epoch for read in world.reads] == [3]
        assert (await world.load()).machine.start_offset == 5

    run(test)


def test_offsets_that_move_while_they_are_read_are_read_again() -> None:
    async def test(world: World) -> None:
        world.stall()
        found: list[LedSharePartition] = []

        async def load() -> None:
            found.append(await world.load())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            await trio.testing.wait_all_tasks_blocked()
            world.partitions.forget_moved("g", [TOPIC])
            world.start_offset = 9
            world.may_answer.set()
        assert len(world.reads) == 2
        assert (found[0].machine.start_offset, found[0].state_epoch) == (9, 2)

    run(test)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (ErrorCode.INVALID_REQUEST, ErrorCode.UNKNOWN_SERVER_ERROR),
        (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.FENCED_LEADER_EPOCH),
    ],
)
def test_members_are_told_what_they_understand(said: ErrorCode, told: ErrorCode) -> None:
    async def test(world: World) -> None:
        world.read_error = said
        with pytest.raises(KafkaError) as refused:
            await world.load()
        assert refused.value.code is told
        world.read_error = ErrorCode.NONE
        await world.load()

    run(test)


def test_what_is_said_during_a_write_goes_with_the_next() -> None:
    async def test(world: World) -> None:
        led = await world.load()
        world.acquire(led, 4)
        world.stall()
        numbers = [world.accept(led, 5)]
        await trio.testing.wait_all_tasks_blocked()
        numbers += [world.accept(led, 6), world.accept(led, 7)]
        await trio.testing.wait_all_tasks_blocked()
        assert [write.start_offset for write in world.writes] == [6]
        world.may_answer.set()
        assert [await led.wait_written(number) for number in numbers] == [ErrorCode.NONE] * 3
        assert [write.start_offset for write in world.writes] == [6, 8]
        assert {(write.state_epoch, write.leader_epoch) for write in world.writes} == {(1, 3)}

    run(test)


def test_a_write_that_fails_for_a_while_leaves_the_records_with_their_member() -> None:
    async def test(world: World) -> None:
        led = await world.load()
        world.acquire(led, 1)
        world.write_error = ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert await led.wait_written(world.accept(led, 5)) is ErrorCode.COORDINATOR_NOT_AVAILABLE
        world.write_error = ErrorCode.NONE
        assert await led.wait_written(world.accept(led, 5)) is ErrorCode.NONE
        assert led.machine.start_offset == 6

    run(test)


def test_a_state_that_others_have_taken_over_is_read_again() -> None:
    async def test(world: World) -> None:
        led = await world.load()
        world.acquire(led, 2)
        waiting = trio.Event()
        led.add_waiting(waiting)
        assert world.native.watchers == 1
        world.write_error = ErrorCode.FENCED_STATE_EPOCH
        first = world.accept(led, 5)
        world.accept(led, 6)
        assert await led.wait_written(first) is ErrorCode.FENCED_STATE_EPOCH
        assert waiting.is_set(), "who waits for records looks again"
        led.remove_waiting(waiting)
        assert world.native.watchers == 0
        assert world.partitions.get(KEY) is None
        assert await world.load() is not led

    run(test)


def test_is_forgotten_when_nobody_reads_it() -> None:
    async def test(world: World) -> None:
        await world.load()
        world.partitions.retire("other")
        assert len(world.partitions) == 1
        world.partitions.retire("g")
        assert len(world.partitions) == 0
        led = await world.load()
        world.acquire(led, 1)
        world.partitions.retire("g")
        assert len(world.partitions) == 1, "somebody has records of it"

    run(test)


def test_a_topic_that_is_not_there() -> None:
    async def test(world: World) -> None:
        world.image = MetadataImage()
        with pytest.raises(KafkaError) as refused:
            await world.load()
        assert refused.value.code is ErrorCode.UNKNOWN_TOPIC_ID
        assert world.reads == []

    run(test)


def test_a_partition_that_is_not_there() -> None:
    async def test(world: World) -> None:
        with pytest.raises(KafkaError) as refused:
            await world.partitions.load(KEY._replace(partition=1), SETTINGS)
        assert refused.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    run(test)
