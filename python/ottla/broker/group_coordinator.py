"""The group coordinator of this broker: groups and their offsets, in the shards of `__consumer_offsets`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

import trio

from ottla._native import DataPlane
from ottla.broker.clock import now_ms
from ottla.broker.coordinated_topic import CoordinatedTopic
from ottla.broker.coordinator_runtime import CoordinatorRuntime
from ottla.broker.metadata_publisher import Published
from ottla.broker.standing_commits import Committing, StandingCommits
from ottla.broker.standing_heartbeats import Beating, StandingHeartbeats
from ottla.broker.together import Together
from ottla.common.config import BrokerConfig
from ottla.common.topics import CONSUMER_OFFSETS
from ottla.coordinator.group.config import ConsumerGroupConfig, GroupConfig, MigrationPolicy, ShareGroupConfig
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import EMPTY_IMAGE, MetadataImage
from ottla.protocol.messages.create_topics import CreateTopicsRequest, CreateTopicsResponse

if TYPE_CHECKING:
    from ottla._native import Request
    from ottla.broker.connection import Connection
    from ottla.broker.coordinator_runtime import AppendedElsewhere
    from ottla.coordinator.group.events import StatesInitializing
    from ottla.coordinator.group.machine import GroupMachine
    from ottla.coordinator.group.topic_metadata import Topics

GROUP_RESOURCE: Final = 32
"""The type of a group's configuration."""
TARGETS_QUIET_MS: Final = 2
"""Members that start together come within this of each other; one that comes alone is answered so much later."""
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
        self._image = image
        self._group_config = group_config(config, EMPTY_IMAGE)
        self._topics: Topics | None = None
        """The topics as the machines see them; None as long as there is no machine."""
        self._is_alone = is_alone
        self.serves_consumer_groups = _serves_consumer_groups(config)
        """Whether the configuration allows the protocol of KIP-848."""
        self.initialize_states: Callable[[int, StatesInitializing], None] | None = None
        """Has the share coordinator begin states for a partition's share groups; None: there are no share groups."""
        self.runtime: CoordinatorRuntime[GroupMachine] = CoordinatorRuntime(
            CONSUMER_OFFSETS,
            self._new_machine,
            write_timeout_ms=config.integer("offsets.commit.timeout.ms"),
            on_decided=self._hand_out,
            on_stopped=self._on_stopped,
            before_tick=self._before_tick,
            take_appended=self._take_appended,
            together=Together(plane),
        )
        self.standing = StandingHeartbeats(plane, self.runtime)
        self.topic = CoordinatedTopic(
            CONSUMER_OFFSETS,
            self.runtime,
            plane=plane,
            node_id=node_id,
            image=image,
            create_topics=create_topics,
        )
        self.commits = StandingCommits(
            self.runtime, self.topic.log_of, write_timeout_ms=config.integer("offsets.commit.timeout.ms")
        )

    def _new_machine(self) -> GroupMachine:
        # Imported here, as it takes a fifth of what a whole start takes: a fresh broker has no groups.
        from ottla.coordinator.group.machine import GroupMachine
        from ottla.coordinator.group.topic_metadata import Topics

        if self._topics is None:
            self._topics = Topics(self._image())
        return GroupMachine(self._group_config, self._topics)

    def _hand_out(self, partition: int, machine: GroupMachine) -> None:
        changed = machine.table.take_changed()
        if changed:
            self.standing.withdraw_groups(partition, changed)
            self.commits.withdraw_groups(partition, changed)
        for initializing in machine.share_heartbeats.take_initializations():
            if self.initialize_states is not None:
                self.initialize_states(partition, initializing)

    def _on_stopped(self, partition: int) -> None:
        self.standing.withdraw_partition(partition)
        self.commits.forget_partition(partition)

    def _before_tick(self, partition: int) -> None:
        self.standing.hear(partition)

    def _take_appended(self, partition: int) -> AppendedElsewhere | None:
        return self.commits.take_appended(partition)

    def let_stand(
        self, stands: Beating | Committing, connection: Connection, request: Request, response: bytes
    ) -> None:
        """Have the data plane deal with requests that are like this one, as far as it may."""
        if isinstance(stands, Beating):
            self.standing.let_stand(stands, connection, request, response)
        else:
            self.commits.let_stand(stands, connection, request, response)

    def _withdraw_all(self) -> None:
        self.standing.withdraw_all()
        self.commits.withdraw_all()

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
        before, after = published.delta.base, published.image
        has_group_configs = any(resource.type == GROUP_RESOURCE for resource in published.delta.changed_configs)
        self._configure(published.config, after, has_group_configs=has_group_configs)
        self._follow_topics(after)
        if before.features != after.features:
            self._withdraw_all()
        if before.topics is after.topics and not published.is_retry:
            return
        codec = CODECS[self._config.integer("offsets.topic.compression.codec")]
        self.topic.follow(after, compression=codec)
        deleted = {t.name: topic_id for topic_id, t in before.topics.items() if topic_id not in after.topics}
        if deleted:
            for partition in self.runtime.partitions():
                self.runtime.command(partition, lambda machine, _: machine.on_topics_deleted(deleted))

    def _configure(self, config: BrokerConfig, image: MetadataImage, *, has_group_configs: bool) -> None:
        if config is self._config and not has_group_configs:
            return
        self._config = config
        self._withdraw_all()
        self.serves_consumer_groups = _serves_consumer_groups(config)
        changed = group_config(config, image)
        if changed != self._group_config:
            self._group_config = changed
            self.runtime.for_each_machine(lambda machine: machine.configure(changed))
            self._withdraw_all()

    def _follow_topics(self, image: MetadataImage) -> None:
        """Let the groups know of topics that came, went or changed."""
        before = self._topics
        if before is None or (image.topics is before.image.topics and image.brokers is before.image.brokers):
            return
        topics = self._topics = type(before)(image, before)
        self.runtime.for_each_machine(lambda machine: machine.follow(topics))
        self._withdraw_all()

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


def _serves_consumer_groups(config: BrokerConfig) -> bool:
    return "consumer" in config.names("group.coordinator.rebalance.protocols")


_CONSUMER_KEYS: Final = {
    "session_timeout_ms": (
        "group.consumer.session.timeout.ms",
        "group.consumer.min.session.timeout.ms",
        "group.consumer.max.session.timeout.ms",
    ),
    "heartbeat_interval_ms": (
        "group.consumer.heartbeat.interval.ms",
        "group.consumer.min.heartbeat.interval.ms",
        "group.consumer.max.heartbeat.interval.ms",
    ),
    "assignment_interval_ms": (
        "group.consumer.assignment.interval.ms",
        "group.consumer.min.assignment.interval.ms",
        "group.consumer.max.assignment.interval.ms",
    ),
}
_SHARE_KEYS: Final = {
    "session_timeout_ms": (
        "group.share.session.timeout.ms",
        "group.share.min.session.timeout.ms",
        "group.share.max.session.timeout.ms",
    ),
    "heartbeat_interval_ms": (
        "group.share.heartbeat.interval.ms",
        "group.share.min.heartbeat.interval.ms",
        "group.share.max.heartbeat.interval.ms",
    ),
    "assignment_interval_ms": (
        "group.share.assignment.interval.ms",
        "group.share.min.assignment.interval.ms",
        "group.share.max.assignment.interval.ms",
    ),
}
"""What may be set for one group: its field, the broker's key, and the keys of what the broker allows groups to set."""


def group_config(config: BrokerConfig, image: MetadataImage) -> GroupConfig:
    """The machine's settings out of the broker's and those of single groups."""
    of_groups = {resource.name: texts for resource, texts in image.configs.items() if resource.type == GROUP_RESOURCE}
    return GroupConfig(
        group_min_session_timeout_ms=config.integer("group.min.session.timeout.ms"),
        group_max_session_timeout_ms=config.integer("group.max.session.timeout.ms"),
        group_initial_rebalance_delay_ms=config.integer("group.initial.rebalance.delay.ms"),
        group_max_size=config.integer("group.max.size"),
        offset_metadata_max_bytes=config.integer("offset.metadata.max.bytes"),
        offsets_retention_ms=config.integer("offsets.retention.minutes") * 60_000,
        offsets_retention_check_interval_ms=config.integer("offsets.retention.check.interval.ms"),
        consumer_defaults=ConsumerGroupConfig(**group_settings(config, _CONSUMER_KEYS, {})),
        consumer_overrides={
            name: ConsumerGroupConfig(**group_settings(config, _CONSUMER_KEYS, texts))
            for name, texts in of_groups.items()
        },
        consumer_group_max_size=config.integer("group.consumer.max.size"),
        targets_quiet_ms=TARGETS_QUIET_MS,
        consumer_assignors=config.names("group.consumer.assignors"),
        migration_policy=MigrationPolicy(config.string("group.consumer.migration.policy").lower()),
        consumer_regex_refresh_interval_ms=config.integer("group.consumer.regex.refresh.interval.ms"),
        share_defaults=ShareGroupConfig(**group_settings(config, _SHARE_KEYS, {})),
        share_overrides={
            name: ShareGroupConfig(**group_settings(config, _SHARE_KEYS, texts)) for name, texts in of_groups.items()
        },
        share_group_max_size=config.integer("group.share.max.size"),
        share_initialize_retry_interval_ms=config.integer("group.share.initialize.retry.interval.ms"),
    )


def group_settings(
    config: BrokerConfig, keys: Mapping[str, tuple[str, str, str]], texts: Mapping[str, str]
) -> dict[str, int]:
    """A group's settings by field. The bounds may have been moved since they were set: they count."""
    fields = {}
    for field, (key, low, high) in keys.items():
        text = texts.get(key.removeprefix("group."))
        value = config.integer(key)
        if text is not None:
            value = min(max(int(text), config.integer(low)), config.integer(high))
        fields[field] = value
    return fields
