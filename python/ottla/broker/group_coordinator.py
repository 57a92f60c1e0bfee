"""The group coordinator of this broker: which partition a group lives in, the topic behind it, and its shards.

`__consumer_offsets` is made when somebody first asks for a coordinator, and the answer waits until it is served: a
client that then sends JoinGroup does not meet an error. Kafka answers COORDINATOR_NOT_AVAILABLE instead, and clients
sleep.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio

from ottla._native import DataPlane, Partition, RecordBatch, build_batch, decode_batches
from ottla.broker.coordinator_runtime import CoordinatorRuntime
from ottla.broker.event_log import EventLog
from ottla.common.topics import CONSUMER_OFFSETS
from ottla.coordinator.group.config import GroupConfig
from ottla.coordinator.group.machine import GroupMachine
from ottla.coordinator.group.partitioning import partition_of
from ottla.coordinator.shard import CoordinatorRecord
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import MetadataImage
from ottla.protocol.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)

log = EventLog("group_coordinator")

CREATE_TIMEOUT_MS: Final = 30_000
CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
"""By the numbers of `offsets.topic.compression.codec`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetsTopicConfig:
    """How `__consumer_offsets` is made and written, by Kafka's names without `offsets.topic.`."""

    num_partitions: int = 50
    replication_factor: int = 3
    segment_bytes: int = 104_857_600
    compression_codec: int = 0
    commit_timeout_ms: int = 5_000
    """`offsets.commit.timeout.ms`."""


class NativePartitionLog:
    """A native partition as a shard's log."""

    def __init__(self, partition: Partition, *, compression: str, leader_epoch: int) -> None:
        self._partition = partition
        self._compression = compression
        self._leader_epoch = leader_epoch

    def append(self, records: Sequence[CoordinatorRecord], *, wall_ms: int) -> int:
        batch = build_batch([(r.key, r.value, wall_ms, ()) for r in records], compression=self._compression)
        base_offset, _ = self._partition.append_batch(batch, wall_ms=wall_ms, leader_epoch=self._leader_epoch)
        return base_offset

    async def read(self, offset: int, *, bytes_max: int) -> Sequence[RecordBatch]:
        data = await trio.to_thread.run_sync(
            functools.partial(self._partition.read_records, offset, max_bytes=bytes_max)
        )
        return decode_batches(data)

    def offsets(self) -> tuple[int, int, int]:
        found = self._partition.offsets()
        return found.log_start_offset, found.high_watermark, found.log_end_offset


class GroupCoordinator:
    """Groups on this broker."""

    def __init__(
        self,
        plane: DataPlane,
        *,
        node_id: int,
        image: Callable[[], MetadataImage],
        create_topics: Callable[[CreateTopicsRequest], Awaitable[CreateTopicsResponse]],
        group_config: GroupConfig,
        topic_config: OffsetsTopicConfig,
        is_alone: bool,
    ) -> None:
        """
        Args:
            image: The metadata now.
            create_topics: Has topics made; returns when they are served.
            is_alone: The node was formatted as a lone broker, so that one replica is all there can be.
        """
        self._plane = plane
        self._node_id = node_id
        self._image = image
        self._create_topics = create_topics
        self._group_config = group_config
        self._topic_config = topic_config
        self._is_alone = is_alone
        self._creating = trio.Lock()
        self._leader_epochs: dict[int, int] = {}
        self._partition_count = 0
        self.runtime: CoordinatorRuntime[GroupMachine] = CoordinatorRuntime(
            CONSUMER_OFFSETS,
            lambda: GroupMachine(self._group_config),
            write_timeout_ms=topic_config.commit_timeout_ms,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.runtime.run(task_status=task_status)

    def on_high_watermark(self, topic: str, partition: int) -> None:
        """A watched partition has moved."""
        if topic == CONSUMER_OFFSETS:
            self.runtime.on_partition_moved(partition)

    def on_metadata(self, before: MetadataImage, after: MetadataImage) -> None:
        """Follow the metadata, once the partitions of `after` are served: lead, resign, forget what is deleted."""
        if before.topics is after.topics:
            return
        self._follow_leadership(after)
        deleted = [
            (topic.name, index)
            for topic_id, topic in before.topics.items()
            if topic_id not in after.topics
            for index in topic.partitions
        ]
        if deleted:
            for partition in self.runtime.partitions():
                self.runtime.command(partition, lambda machine, _: machine.on_partitions_deleted(deleted))

    def _follow_leadership(self, image: MetadataImage) -> None:
        topic = image.topic(CONSUMER_OFFSETS)
        partitions = {} if topic is None else topic.partitions
        self._partition_count = len(partitions)
        led = {i: p.leader_epoch for i, p in partitions.items() if p.leader == self._node_id}
        for partition in self._leader_epochs.keys() - led.keys():
            self.runtime.stop(partition)
        for partition, leader_epoch in led.items():
            if self._leader_epochs.get(partition) != leader_epoch:
                native = self._plane.partition(CONSUMER_OFFSETS, partition)
                if native is None:
                    continue  # it could not be opened: nobody coordinates its groups
                native.watch()
                codec = CODECS[self._topic_config.compression_codec]
                self.runtime.start(partition, NativePartitionLog(native, compression=codec, leader_epoch=leader_epoch))
        self._leader_epochs = led

    # Finding the way

    def partition_for(self, group_id: str) -> int:
        """Where a group lives. Raises: KafkaError (NOT_COORDINATOR: there is no topic yet, so nobody is)."""
        if not self._partition_count:
            raise KafkaError(ErrorCode.NOT_COORDINATOR)
        return partition_of(group_id, self._partition_count)

    async def ensure_topic(self) -> None:
        """Make `__consumer_offsets` unless it is there. Raises: KafkaError (COORDINATOR_NOT_AVAILABLE)."""
        if self._partition_count:
            return
        async with self._creating:
            if self._partition_count:
                return
            config = self._topic_config
            topic = CreatableTopic(
                name=CONSUMER_OFFSETS,
                num_partitions=config.num_partitions,
                replication_factor=1 if self._is_alone else config.replication_factor,
                configs=tuple(
                    CreatableTopicConfig(name=name, value=value)
                    for name, value in {
                        "cleanup.policy": "compact",
                        "compression.type": "producer",
                        "segment.bytes": str(config.segment_bytes),
                    }.items()
                ),
            )
            request = CreateTopicsRequest(topics=(topic,), timeout_ms=CREATE_TIMEOUT_MS)
            response = await self._create_topics(request)
            (result,) = response.topics
            if result.error_code not in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS) or not self._partition_count:
                log.warning("offsets_topic_not_created", error=result.error_code.name, reason=result.error_message)
                raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE)

    def leader_of(self, partition: int) -> int:
        """The broker that coordinates a partition of groups; -1: none."""
        found = self._image().partition(CONSUMER_OFFSETS, partition)
        return -1 if found is None else found.leader


def group_config(settings: Mapping[str, Any]) -> GroupConfig:
    """Read the group settings, given by Kafka's keys; what is missing has its default."""
    default = GroupConfig()

    def get(key: str, otherwise: int) -> int:
        return int(settings.get(key, otherwise))

    return GroupConfig(
        group_min_session_timeout_ms=get("group.min.session.timeout.ms", default.group_min_session_timeout_ms),
        group_max_session_timeout_ms=get("group.max.session.timeout.ms", default.group_max_session_timeout_ms),
        group_initial_rebalance_delay_ms=get(
            "group.initial.rebalance.delay.ms", default.group_initial_rebalance_delay_ms
        ),
        group_max_size=get("group.max.size", default.group_max_size),
        offset_metadata_max_bytes=get("offset.metadata.max.bytes", default.offset_metadata_max_bytes),
        offsets_retention_ms=get("offsets.retention.minutes", default.offsets_retention_ms // 60_000) * 60_000,
        offsets_retention_check_interval_ms=get(
            "offsets.retention.check.interval.ms", default.offsets_retention_check_interval_ms
        ),
    )


def offsets_topic_config(settings: Mapping[str, Any]) -> OffsetsTopicConfig:
    """Read the settings of `__consumer_offsets`, as `group_config` does."""
    default = OffsetsTopicConfig()

    def get(key: str, otherwise: int) -> int:
        return int(settings.get(key, otherwise))

    return OffsetsTopicConfig(
        num_partitions=get("offsets.topic.num.partitions", default.num_partitions),
        replication_factor=get("offsets.topic.replication.factor", default.replication_factor),
        segment_bytes=get("offsets.topic.segment.bytes", default.segment_bytes),
        compression_codec=get("offsets.topic.compression.codec", default.compression_codec),
        commit_timeout_ms=get("offsets.commit.timeout.ms", default.commit_timeout_ms),
    )
