"""The consumer groups of one shard (KIP-848)."""

from __future__ import annotations

from collections.abc import Iterator

from ottla.coordinator.group import consumer_records
from ottla.coordinator.group.consumer import ConsumerGroup
from ottla.coordinator.group.consumer_records import (
    ConsumerGroupKey,
    ConsumerKey,
    ConsumerValue,
    CurrentAssignmentKey,
    MemberMetadataKey,
    PartitionMetadataKey,
    RegularExpressionKey,
    TargetMemberKey,
    TargetMetadataKey,
)
from ottla.coordinator.shard import CoordinatorRecord
from ottla.coordinator.timeline import Timeline


class ConsumerTable:
    """Groups by their ids; `replay` alone changes what is durable of them."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._groups: dict[str, ConsumerGroup] = {}

    def get(self, group_id: str) -> ConsumerGroup | None:
        """A group that exists, be it only by records that are not yet committed."""
        group = self._groups.get(group_id)
        return group if group is not None and group.exists else None

    def get_committed(self, group_id: str) -> ConsumerGroup | None:
        """A group of which committed records tell."""
        group = self._groups.get(group_id)
        return group if group is not None and group.is_committed else None

    def get_or_blank(self, group_id: str) -> ConsumerGroup:
        """A group as it is, or as it begins; it exists once its first records are replayed."""
        group = self._groups.get(group_id)
        if group is None:
            group = self._groups[group_id] = ConsumerGroup(group_id, self._timeline)
        return group

    def __iter__(self) -> Iterator[ConsumerGroup]:
        """Those that exist."""
        return (group for group in list(self._groups.values()) if group.exists)

    def committed(self) -> Iterator[ConsumerGroup]:
        """Those of which committed records tell."""
        return (group for group in list(self._groups.values()) if group.is_committed)

    def replay(self, key: ConsumerKey, value: ConsumerValue | None, *, offset: int) -> None:
        if value is not None or key.group in self._groups:
            self.get_or_blank(key.group).replay(key, value, offset=offset)

    def rebuild(self) -> None:
        """Records were taken back."""
        for group in self._groups.values():
            group.rebuild()

    def sweep(self) -> None:
        """Forget groups of which nothing is left for good."""
        for group_id in [group_id for group_id, group in self._groups.items() if group.is_blank]:
            del self._groups[group_id]


def tombstones_of(group: ConsumerGroup) -> list[CoordinatorRecord]:
    """What takes a whole group away."""
    group_id = group.group_id
    keys: list[ConsumerKey] = []
    for kind in (CurrentAssignmentKey, TargetMemberKey):
        keys += [kind(group=group_id, member=member_id) for member_id, _ in group.members.items()]
    keys.append(TargetMetadataKey(group=group_id))
    keys += [MemberMetadataKey(group=group_id, member=member_id) for member_id, _ in group.members.items()]
    keys += [RegularExpressionKey(group=group_id, regular_expression=regex) for regex, _ in group.regexes.items()]
    keys += [PartitionMetadataKey(group=group_id), ConsumerGroupKey(group=group_id)]
    return [consumer_records.record(key, None) for key in keys]
