"""A share coordinator's machine over a log in a list, with verbs to talk to it."""

from __future__ import annotations

import uuid
from base64 import urlsafe_b64decode
from typing import Any, Final

from ottla.coordinator.shard import Instant, LoadedRecord, Shard
from ottla.coordinator.share.config import ShareCoordinatorConfig
from ottla.coordinator.share.machine import ShareCoordinatorMachine
from ottla.coordinator.share.state import SharePartition
from ottla.errors import ErrorCode
from ottla.metadata.image import MetadataImage, PartitionRegistration, TopicImage
from ottla.protocol.messages import (
    delete_share_group_state,
    initialize_share_group_state,
    read_share_group_state,
    read_share_group_state_summary,
    write_share_group_state,
)

TOPIC: Final = uuid.UUID(bytes=urlsafe_b64decode("MkU3OEVBNTcwNTJENDM2Qg=="))
KEY: Final = SharePartition("g", TOPIC, 0)
NOW: Final = Instant(1_000, 1_700_000_000_000)


def image_of(partitions: int = 2, *, leader_epoch: int = 0) -> MetadataImage:
    led = PartitionRegistration(replicas=(1,), isr=(1,), leader=1, leader_epoch=leader_epoch, partition_epoch=0)
    topic = TopicImage(name="t", topic_id=TOPIC, partitions=dict.fromkeys(range(partitions), led))
    return MetadataImage(topics={TOPIC: topic}, topic_ids={"t": TOPIC})


class ShareLab:
    """A machine in its shard, with a log that commits at once."""

    def __init__(self, config: ShareCoordinatorConfig | None = None) -> None:
        self.config = config or ShareCoordinatorConfig()
        self.log: list[tuple[bytes, bytes | None]] = []
        self.log_start_offset = 0
        self.now_ms = NOW.now_ms
        self.begin()

    def begin(self) -> None:
        """Start over from the log."""
        self.machine = ShareCoordinatorMachine(self.config, image_of())
        self.shard = Shard(self.machine, write_timeout_ms=5_000)
        end = self.log_end_offset
        loaded = [LoadedRecord(at, key, value) for at, (key, value) in enumerate(self.log, self.log_start_offset)]
        self.shard.load((), end_offset=self.log_start_offset, high_watermark=self.log_start_offset)
        self.shard.load(loaded, end_offset=end, high_watermark=end)
        self.shard.finish_loading(self.now)

    @property
    def log_end_offset(self) -> int:
        return self.log_start_offset + len(self.log)

    @property
    def now(self) -> Instant:
        return Instant(self.now_ms, NOW.wall_ms + self.now_ms - NOW.now_ms)

    def prune(self, offset: int) -> None:
        """Delete the records before an offset, and start over from what is left."""
        del self.log[: offset - self.log_start_offset]
        self.log_start_offset = offset
        self.begin()

    def drain(self, replies: list[Any], now: Instant) -> list[Any]:
        while (found := self.shard.next_append()) is not None:
            base = self.log_end_offset
            self.log += [(record.key, record.value) for record in found]
            replies = replies + self.shard.on_appended(base, now)
            replies += self.shard.on_high_watermark(self.log_end_offset, now)
        return replies

    def ask(self, outcome: Any) -> Any:
        (reply,) = self.drain(self.shard.submit(outcome, self.now), self.now)
        assert reply.error is ErrorCode.NONE
        return reply.response

    def tick(self, now_ms: int) -> None:
        """Let the clock come to a moment, and what is due then happen."""
        self.now_ms = now_ms
        assert self.drain(self.shard.on_tick(self.now), self.now) == []

    def initialize(self, start_offset: int = 0, *, state_epoch: int = 0, key: SharePartition = KEY) -> Any:
        data = initialize_share_group_state.PartitionData(
            partition=key.partition, state_epoch=state_epoch, start_offset=start_offset
        )
        return self.ask(self.machine.initialize(key, data, 1, self.now))

    def read(self, leader_epoch: int = -1, key: SharePartition = KEY) -> Any:
        data = read_share_group_state.PartitionData(partition=key.partition, leader_epoch=leader_epoch)
        return self.ask(self.machine.read(key, data, 1, self.now))

    def write(
        self,
        *batches: tuple[int, int, int, int],
        start_offset: int = -1,
        state_epoch: int = 0,
        leader_epoch: int = -1,
        complete: int = 0,
        key: SharePartition = KEY,
    ) -> Any:
        data = write_share_group_state.PartitionData(
            partition=key.partition,
            state_epoch=state_epoch,
            leader_epoch=leader_epoch,
            start_offset=start_offset,
            delivery_complete_count=complete,
            state_batches=tuple(
                write_share_group_state.StateBatch(
                    first_offset=first, last_offset=last, delivery_state=state, delivery_count=count
                )
                for first, last, state, count in batches
            ),
        )
        return self.ask(self.machine.write(key, data, 1, self.now))

    def delete(self, key: SharePartition = KEY) -> Any:
        data = delete_share_group_state.PartitionData(partition=key.partition)
        return self.ask(self.machine.delete(key, data, 1, self.now))

    def summary(self, key: SharePartition = KEY) -> Any:
        data = read_share_group_state_summary.PartitionData(partition=key.partition)
        return self.ask(self.machine.summarize(key, data, 1, self.now))
