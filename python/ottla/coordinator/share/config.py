"""The settings of the share coordinator's machine."""

from __future__ import annotations

from typing import NamedTuple


class ShareCoordinatorConfig(NamedTuple):
    """Kafka's keys behind `share.coordinator.`, with dots as underscores."""

    snapshot_update_records_per_snapshot: int = 500
    """After so many updates the state of a share partition is written in full."""
    state_topic_prune_interval_ms: int = 300_000
    cold_partition_snapshot_interval_ms: int = 300_000
    """How old a snapshot may become before it is written anew, so that what lies behind it can be pruned."""
