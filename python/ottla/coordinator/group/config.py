"""The settings of the group coordinator, by Kafka's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from ottla.common.frozen import frozen

SEVEN_DAYS_MS = 7 * 24 * 60 * 60 * 1000


class MigrationPolicy(StrEnum):
    """`group.consumer.migration.policy`."""

    DISABLED = "disabled"
    UPGRADE = "upgrade"
    DOWNGRADE = "downgrade"
    BIDIRECTIONAL = "bidirectional"

    @property
    def may_upgrade(self) -> bool:
        return self in (MigrationPolicy.UPGRADE, MigrationPolicy.BIDIRECTIONAL)

    @property
    def may_downgrade(self) -> bool:
        return self in (MigrationPolicy.DOWNGRADE, MigrationPolicy.BIDIRECTIONAL)


@frozen
class ConsumerGroupConfig:
    """What may be set for one consumer group."""

    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 5_000
    assignment_interval_ms: int = 1_000
    """Shortest time between two computations of targets."""


@frozen
class ShareGroupConfig:
    """What may be set for one share group."""

    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 5_000
    assignment_interval_ms: int = 1_000
    """Shortest time between two computations of targets."""


@frozen
class GroupConfig:
    """Read by the machine on each use, so that a dynamic change is a new object.

    Defaults are Kafka's, but for the initial delay: Kafka waits 3 s for more members, which a development
    broker's users only feel as slowness.
    """

    group_min_session_timeout_ms: int = 6_000
    group_max_session_timeout_ms: int = 1_800_000
    group_initial_rebalance_delay_ms: int = 0
    group_max_size: int = 2**31 - 1
    offset_metadata_max_bytes: int = 4096
    offsets_retention_ms: int = SEVEN_DAYS_MS
    """`offsets.retention.minutes`."""
    offsets_retention_check_interval_ms: int = 600_000
    new_member_join_timeout_ms: int = 300_000
    """How long a first JoinGroup may stay parked; no setting in Kafka either."""
    consumer_defaults: ConsumerGroupConfig = ConsumerGroupConfig()
    """`group.consumer.*` of the names there."""
    consumer_overrides: Mapping[str, ConsumerGroupConfig] = field(default_factory=dict)
    """Of groups that have configs of their own."""
    consumer_group_max_size: int = 2**31 - 1
    targets_quiet_ms: int = 0
    """How long no other member must have come to a consumer group until targets are computed; no setting in Kafka."""
    consumer_assignors: tuple[str, ...] = ("uniform", "range")
    """The first is the default."""
    consumer_regex_refresh_interval_ms: int = 600_000
    migration_policy: MigrationPolicy = MigrationPolicy.BIDIRECTIONAL
    share_defaults: ShareGroupConfig = ShareGroupConfig()
    """`group.share.*` of the names there."""
    share_overrides: Mapping[str, ShareGroupConfig] = field(default_factory=dict)
    """Of groups that have configs of their own."""
    share_group_max_size: int = 200
    share_initialize_retry_interval_ms: int = 30_000
    """How long the share coordinator may take to begin a state before it is asked again."""

    def consumer_group(self, group_id: str) -> ConsumerGroupConfig:
        return self.consumer_overrides.get(group_id, self.consumer_defaults)

    def share_group(self, group_id: str) -> ShareGroupConfig:
        return self.share_overrides.get(group_id, self.share_defaults)
