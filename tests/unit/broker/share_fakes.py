"""Fakes around the share partitions that a broker leads: a partition, and a share coordinator that answers when let."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import trio

from ottla.broker.clock import now_ms
from ottla.broker.share_partitions import LedSharePartition, ShareKey, SharePartitions, WriteOutcome
from ottla.broker.share_settings import EARLIEST, LATEST, ShareGroupSettings
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import MetadataImage, PartitionRegistration, TopicImage
from ottla.protocol.messages import (
    initialize_share_group_state,
    read_share_group_state,
    read_share_group_state_summary,
    write_share_group_state,
)
from ottla.share.acknowledgement import Acknowledgement
from ottla.share.partition import FetchedBatch, ShareSettings

TOPIC = uuid.UUID(int=7)
KEY = ShareKey("g", TOPIC, 0)
SETTINGS = ShareGroupSettings(ShareSettings(record_lock_duration_ms=3_600_000))
ACCEPT = (1,)


class FakeNative:
    """A partition with a leader, a batch for each offset, and somebody who watches it, or not."""

    log_dir = 0

    def __init__(self) -> None:
        self.topic_id = TOPIC.bytes
        self.watchers = 0
        self.before_watch: Callable[[], None] = lambda: None
        self.log_start_offset, self.high_watermark = 0, 5
        self.epoch_ends: dict[int, int] = {}
        """Where leader epochs have ended; others are not known."""
        self.before_read: Callable[[], None] = lambda: None
        self.reads = 0
        self.looks = 0
        """How often somebody asked for the offsets."""

    def offsets(self) -> Any:
        self.looks += 1
        return SimpleNamespace(
            leader_epoch=3,
            log_start_offset=self.log_start_offset,
            high_watermark=self.high_watermark,
            log_end_offset=self.high_watermark,
        )

    def end_offset_for_epoch(self, leader_epoch: int) -> tuple[int, int]:
        end_offset = self.epoch_ends.get(leader_epoch, -1)
        return (-1 if end_offset < 0 else leader_epoch), end_offset

    def read_batches(
        self, offset: int, *, max_bytes: int, committed_only: bool
    ) -> tuple[bytes, list[tuple[int, int, int, bool]]]:
        assert max_bytes > 0
        assert not committed_only
        self.reads += 1
        self.before_read()
        if offset < self.log_start_offset:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
        offsets = range(offset, self.high_watermark)
        return bytes(len(offsets)), [(at, at, at - offset, False) for at in offsets]

    def bytes_available(self, offset: int, *, committed_only: bool) -> int:
        assert not committed_only
        return max(0, self.high_watermark - offset)

    def list_offset(self, timestamp: int, *, isolation_level: int) -> tuple[int, int, int]:
        """(timestamp, offset, leader epoch) of the log's ends."""
        assert isolation_level == 0
        return -1, {LATEST: self.high_watermark, EARLIEST: self.log_start_offset}[timestamp], 3

    def watch(self, is_watched: bool = True) -> None:
        self.before_watch()
        self.watchers += 1 if is_watched else -1


class World:
    """A topic of one partition, and a share coordinator that answers when it is let."""

    def __init__(self) -> None:
        led = PartitionRegistration(replicas=(1,), isr=(1,), leader=1, leader_epoch=3, partition_epoch=0)
        topic = TopicImage(name="t", topic_id=TOPIC, partitions={0: led})
        self.image = MetadataImage(topics={TOPIC: topic}, topic_ids={"t": TOPIC})
        self.native = FakeNative()
        self.start_offset = 5
        self.batches: tuple[read_share_group_state.StateBatch, ...] = ()
        self.written_by = 3
        """The epoch of the leader that has written the state."""
        self.begun_anew: list[initialize_share_group_state.PartitionData] = []
        self.read_error = self.write_error = ErrorCode.NONE
        self.reads: list[read_share_group_state.PartitionData] = []
        self.writes: list[write_share_group_state.PartitionData] = []
        self.may_answer = trio.Event()
        self.may_answer.set()
        self.partitions = SharePartitions(cast(Any, self), cast(Any, self), image=lambda: self.image)

    def partition(self, topic: str, index: int) -> FakeNative | None:
        assert (topic, index) == ("t", 0)
        return self.native

    async def read_share_group_state_summary(self, request: Any) -> Any:
        assert request.topics[0].partitions[0].partition == 0
        found = read_share_group_state_summary.PartitionResult(
            partition=0, leader_epoch=self.written_by, start_offset=self.start_offset
        )
        result = read_share_group_state_summary.ReadStateSummaryResult(topic_id=TOPIC, partitions=(found,))
        return read_share_group_state_summary.ReadShareGroupStateSummaryResponse(results=(result,))

    async def initialize_share_group_state(
        self, request: initialize_share_group_state.InitializeShareGroupStateRequest
    ) -> Any:
        (data,) = request.topics[0].partitions
        self.begun_anew.append(data)
        self.start_offset, self.batches, self.written_by = data.start_offset, (), 3
        found = initialize_share_group_state.PartitionResult(partition=0)
        result = initialize_share_group_state.InitializeStateResult(topic_id=TOPIC, partitions=(found,))
        return initialize_share_group_state.InitializeShareGroupStateResponse(results=(result,))

    async def read_share_group_state(self, request: read_share_group_state.ReadShareGroupStateRequest) -> Any:
        self.reads.append(request.topics[0].partitions[0])
        found = read_share_group_state.PartitionResult(
            partition=0,
            error_code=self.read_error,
            start_offset=self.start_offset,
            state_epoch=len(self.reads),
            state_batches=self.batches,
        )
        await self.may_answer.wait()
        result = read_share_group_state.ReadStateResult(topic_id=TOPIC, partitions=(found,))
        return read_share_group_state.ReadShareGroupStateResponse(results=(result,))

    async def write_share_group_state(self, request: write_share_group_state.WriteShareGroupStateRequest) -> Any:
        self.writes.append(request.topics[0].partitions[0])
        self.batches += tuple(
            read_share_group_state.StateBatch(
                first_offset=one.first_offset,
                last_offset=one.last_offset,
                delivery_state=one.delivery_state,
                delivery_count=one.delivery_count,
            )
            for one in self.writes[-1].state_batches
        )
        await self.may_answer.wait()
        found = write_share_group_state.PartitionResult(partition=0, error_code=self.write_error)
        result = write_share_group_state.WriteStateResult(topic_id=TOPIC, partitions=(found,))
        return write_share_group_state.WriteShareGroupStateResponse(results=(result,))

    def stall(self) -> None:
        """Let the share coordinator answer only when `may_answer` is set."""
        self.may_answer = trio.Event()

    async def load(self, settings: ShareGroupSettings = SETTINGS) -> LedSharePartition:
        return await self.partitions.load(KEY, settings)

    def acquire(self, led: LedSharePartition, count: int) -> None:
        """Give member m so many records, each a batch."""
        at = led.machine.end_offset
        batches = [FetchedBatch(offset, offset) for offset in range(at, at + count)]
        assert led.machine.acquire(
            "m", at, batches, max_records=count, batch_size=1, is_limit_strict=False, now_ms=now_ms()
        )
        self.partitions.lock_begins(led)

    def accept(self, led: LedSharePartition, offset: int) -> WriteOutcome:
        number = led.machine.acknowledge("m", [Acknowledgement(offset, offset, ACCEPT)], now_ms())
        assert number is not None
        outcome = led.outcome(number)
        self.partitions.write(led)
        return outcome


def run(test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World()
        async with trio.open_nursery() as nursery:
            await nursery.start(world.partitions.run)
            await test(world)
            nursery.cancel_scope.cancel()

    trio.run(main)
