"""What an assignor is given."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import field
from typing import Protocol, TypeAlias

from ottla.common.frozen import frozen

Target: TypeAlias = Mapping[uuid.UUID, frozenset[int]]
"""Partitions by topic id; no topic without one."""


@frozen
class MemberSpec:
    """A member as an assignor sees it."""

    subscribed: frozenset[uuid.UUID]
    """Topics that exist."""
    current: Target = field(default_factory=dict)
    """What it was given last. May name topics and partitions that are gone."""
    instance_id: str | None = None
    rack_id: str | None = None


class TopicDescriber(Protocol):
    """What an assignor asks of topics (`topic_metadata.Topics`)."""

    def partition_count(self, topic_id: uuid.UUID) -> int:
        """How many partitions a topic has, from 0 on."""

    def racks_of(self, topic_id: uuid.UUID, partition: int) -> frozenset[str]:
        """The racks in which replicas of a partition are; none where racks are not known."""
