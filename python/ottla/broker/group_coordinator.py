"""The group coordinator of this broker: groups and their offsets, in the shards of `__consumer_offsets`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import trio

from ottla._native import DataPlane
from ottla.broker.clock import now_ms
from ottla.broker.coordinated_topic import CoordinatedTopic
from ottla.broker.coordinator_runtime import CoordinatorRuntime
from ottla.broker.metadata_publisher import Published
from ottla.common.config import BrokerConfig
from ottla.common.topics import CONSUMER_OFFSETS
from ottla.coordinator.group.config import GroupConfig
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import MetadataImage
from ottla.protocol.messages.create_topics import CreateTopicsRequest, CreateTopicsResponse

if TYPE_CHECKING:
    from ottla.coordinator.group.machine import GroupMachine

CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
"""By the numbers of `offsets.topic.compression.codec`."""


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
        self._config = config
        self._group_config = group_config(config)
        self._is_alone = is_alone
        self.runtime: CoordinatorRuntime[GroupMachine] = CoordinatorRuntime(
            CONSUMER_OFFSETS,
            self._new_machine,
            write_timeout_ms=config.integer("offsets.commit.timeout.ms"),
        )
        self.topic = CoordinatedTopic(
            CONSUMER_OFFSETS,
            self.runtime,
            plane=plane,
            node_id=node_id,
            image=image,
            create_topics=create_topics,
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
        codec = CODECS[self._config.integer("offsets.topic.compression.codec")]
        self.topic.follow(after, compression=codec)
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

    # Finding the way

    def partition_for(self, group_id: str) -> int:
        """Where a group lives. Raises: KafkaError (NOT_COORDINATOR: there is no topic yet, so nobody is)."""
        return self.topic.partition_for(group_id)

    def leader_of(self, partition: int) -> int:
        """The broker that coordinates a partition of groups; -1: none."""
        return self.topic.leader_of(partition)

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
        config = self._config
        await self.topic.ensure(
            partitions=config.integer("offsets.topic.num.partitions"),
            replication_factor=1 if self._is_alone else config.integer("offsets.topic.replication.factor"),
            configs={
                "cleanup.policy": "compact",
                "compression.type": "producer",
                "segment.bytes": str(config.integer("offsets.topic.segment.bytes")),
            },
        )


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
