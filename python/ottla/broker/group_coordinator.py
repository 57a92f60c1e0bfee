"""The group coordinator of this broker: which partition a group lives in, the topic behind it, and its shards.

`__consumer_offsets` is made when somebody first asks for a coordinator, and the answer waits until it is served: a
client that then sends JoinGroup does not meet an error. Kafka answers COORDINATOR_NOT_AVAILABLE instead, and clients
sleep.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

import trio

from ottla._native import DataPlane, Partition, RecordBatch, build_batch, decode_batches
from ottla.broker.clock import now_ms
from ottla.broker.coordinator_runtime import CoordinatorRuntime
from ottla.broker.event_log import EventLog
from ottla.broker.metadata_publisher import Published
from ottla.common.config import BrokerConfig
from ottla.common.topics import CONSUMER_OFFSETS
from ottla.coordinator.group.config import GroupConfig
from ottla.coordinator.group.partitioning import partition_of
from ottla.coordinator.shard import CoordinatorRecord, Producer, TransactionEnd
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import MetadataImage
from ottla.protocol.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)

if TYPE_CHECKING:
    from ottla.coordinator.group.machine import GroupMachine

log = EventLog("group_coordinator")

CREATE_TIMEOUT_MS: Final = 30_000
CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
"""By the numbers of `offsets.topic.compression.codec`."""


class NativePartitionLog:
    """A native partition as a shard's log."""

    def __init__(self, partition: Partition, *, compression: str, leader_epoch: int) -> None:
        self._partition = partition
        self._compression = compression
        self._leader_epoch = leader_epoch

    def append(self, records: Sequence[CoordinatorRecord], *, wall_ms: int, producer: Producer | None = None) -> int:
        rows = [(r.key, r.value, wall_ms, ()) for r in records]
        if producer is None:
            batch, guard = build_batch(rows, compression=self._compression), None
        else:
            guard = producer.guard
            batch = build_batch(
                rows,
                compression=self._compression,
                producer_id=producer.producer_id,
                producer_epoch=producer.producer_epoch,
                transactional=True,
            )
        base_offset, _ = self._partition.append_batch(
            batch, wall_ms=wall_ms, leader_epoch=self._leader_epoch, guard=guard
        )
        return base_offset

    def append_marker(self, end: TransactionEnd, *, wall_ms: int) -> int:
        appended = self._partition.append_marker(**end._asdict(), wall_ms=wall_ms, leader_epoch=self._leader_epoch)
        return appended.offset

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
        config: BrokerConfig,
        is_alone: bool,
    ) -> None:
        """
        Args:
            image: The metadata now.
            create_topics: Has topics made; returns when they are served.
            config: This broker's; later changes come with `configure`.
            is_alone: The node was formatted as a lone broker, so that one replica is all there can be.
        """
        self._plane = plane
        self._node_id = node_id
        self._image = image
        self._create_topics = create_topics
        self._config = config
        self._group_config = group_config(config)
        self._is_alone = is_alone
        self._creating = trio.Lock()
        self._led: dict[int, tuple[uuid.UUID, int]] = {}
        """Topic id and leader epoch of the partitions that this broker leads."""
        self._partition_count = 0
        self.runtime: CoordinatorRuntime[GroupMachine] = CoordinatorRuntime(
            CONSUMER_OFFSETS,
            self._new_machine,
            write_timeout_ms=config.integer("offsets.commit.timeout.ms"),
        )

    def _new_machine(self) -> GroupMachine:
        # Imported here, as it takes a fifth of what a whole start takes: a fresh broker has no groups.
        from ottla.coordinator.group.machine import GroupMachine

        return GroupMachine(self._group_config)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.runtime.run(task_status=task_status)

    async def wait_loaded(self) -> None:
        """Return when no group is being loaded."""
        await self.runtime.wait_loaded()

    def on_high_watermark(self, topic: str, partition: int) -> None:
        """A watched partition has moved."""
        if topic == CONSUMER_OFFSETS:
            self.runtime.on_partition_moved(partition)

    def on_published(self, published: Published) -> None:
        """Follow the metadata, once its partitions are served: lead, resign, forget what is deleted, take settings."""
        self._configure(published.config)
        before, after = published.delta.base, published.image
        if before.topics is after.topics and not published.is_retry:
            return
        self._follow_leadership(after)
        deleted = {t.name: topic_id for topic_id, t in before.topics.items() if topic_id not in after.topics}
        if deleted:
            for partition in self.runtime.partitions():
                self.runtime.command(partition, lambda machine, _: machine.on_topics_deleted(deleted))

    def _configure(self, config: BrokerConfig) -> None:
        if config is self._config:
            return
        self._config = config
        changed = group_config(config)
        if changed != self._group_config:
            self._group_config = changed
            self.runtime.for_each_machine(lambda machine: machine.configure(changed))

    def _follow_leadership(self, image: MetadataImage) -> None:
        topic = image.topic(CONSUMER_OFFSETS)
        led: dict[int, tuple[uuid.UUID, int]] = {}
        if topic is not None:
            led = {
                i: (topic.topic_id, p.leader_epoch) for i, p in topic.partitions.items() if p.leader == self._node_id
            }
        self._partition_count = 0 if topic is None else len(topic.partitions)
        for partition in self._led.keys() - led.keys():
            self.runtime.stop(partition)
        for partition, lead in list(led.items()):
            if self._led.get(partition) != lead and not self._start(partition, leader_epoch=lead[1]):
                del led[partition]
        self._led = led

    def _start(self, partition: int, *, leader_epoch: int) -> bool:
        """Coordinate what lives in a partition; False if it is not served."""
        native = self._plane.partition(CONSUMER_OFFSETS, partition)
        if native is None:
            # It could not be opened, and whoever tried has said why: its groups have no coordinator until it can.
            self.runtime.stop(partition)
            return False
        native.watch()
        codec = CODECS[self._config.integer("offsets.topic.compression.codec")]
        self.runtime.start(partition, NativePartitionLog(native, compression=codec, leader_epoch=leader_epoch))
        return True

    # Finding the way

    def partition_for(self, group_id: str) -> int:
        """Where a group lives. Raises: KafkaError (NOT_COORDINATOR: there is no topic yet, so nobody is)."""
        if not self._partition_count:
            raise KafkaError(ErrorCode.NOT_COORDINATOR)
        return partition_of(group_id, self._partition_count)

    def begin_verification(
        self, partition: int, producer_id: int, producer_epoch: int, *, supports_epoch_bump: bool
    ) -> int:
        """Find out whether a producer's transaction is open in a partition of groups: as the native partition does it.

        Raises: KafkaError (NOT_COORDINATOR, INVALID_PRODUCER_EPOCH).
        """
        native = self._plane.partition(CONSUMER_OFFSETS, partition)
        if native is None:
            raise KafkaError(ErrorCode.NOT_COORDINATOR)
        return native.begin_verification(
            producer_id, producer_epoch, supports_epoch_bump=supports_epoch_bump, now_ms=now_ms()
        )

    async def ensure_topic(self) -> None:
        """Make `__consumer_offsets` unless it is there. Raises: KafkaError (COORDINATOR_NOT_AVAILABLE)."""
        if self._partition_count:
            return
        async with self._creating:
            if self._partition_count:
                return
            config = self._config
            topic = CreatableTopic(
                name=CONSUMER_OFFSETS,
                num_partitions=config.integer("offsets.topic.num.partitions"),
                replication_factor=1 if self._is_alone else config.integer("offsets.topic.replication.factor"),
                configs=tuple(
                    CreatableTopicConfig(name=name, value=value)
                    for name, value in {
                        "cleanup.policy": "compact",
                        "compression.type": "producer",
                        "segment.bytes": str(config.integer("offsets.topic.segment.bytes")),
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


def group_config(config: BrokerConfig) -> GroupConfig:
    """The machine's settings out of the broker's."""
    return GroupConfig(
        group_min_session_timeout_ms=config.integer("group.min.session.timeout.ms"),
        group_max_session_timeout_ms=config.integer("group.max.session.timeout.ms"),
        group_initial_rebalance_delay_ms=config.integer("group.initial.rebalance.delay.ms"),
        group_max_size=config.integer("group.max.size"),
        offset_metadata_max_bytes=config.integer("offset.metadata.max.bytes"),
        offsets_retention_ms=config.integer("offsets.retention.minutes") * 60_000,
        offsets_retention_check_interval_ms=config.integer("offsets.retention.check.interval.ms"),
    )
