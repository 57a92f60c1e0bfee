"""The offsets that groups have committed, and those of transactions that are still open.

Source: Kafka's `OffsetMetadataManager`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from ottla.coordinator.group.records import OffsetCommitKey, OffsetCommitValue
from ottla.coordinator.timeline import Timeline, TimelineDict

TopicPartition: TypeAlias = tuple[str, int]


class _Pending(NamedTuple):
    """What one transaction wants to commit for one partition of one group."""

    producer_id: int
    group_id: str
    topic: str
    partition: int


class OffsetStore:
    """Offsets by group, topic and partition, with a committed and a latest view."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._groups: dict[str, TimelineDict[TopicPartition, OffsetCommitValue]] = {}
        self._pending: TimelineDict[_Pending, OffsetCommitValue] = TimelineDict(timeline)

    def put(self, key: OffsetCommitKey, value: OffsetCommitValue, *, producer_id: int, offset: int) -> None:
        """Replay an offset commit; with a producer id it is part of a transaction and pends until its end."""
        if producer_id >= 0:
            self._pending.put(_Pending(producer_id, key.group, key.topic, key.partition), value, offset=offset)
            return
        group = self._groups.get(key.group)
        if group is None:
            group = self._groups[key.group] = TimelineDict(self._timeline)
        group.put((key.topic, key.partition), value, offset=offset)

    def remove(self, key: OffsetCommitKey, *, offset: int) -> None:
        """Replay a tombstone: it ends what open transactions want for the partition, too."""
        group = self._groups.get(key.group)
        if group is not None:
            group.remove((key.topic, key.partition), offset=offset)
            if group.is_blank:
                del self._groups[key.group]
        if len(self._pending):
            for pending in [p for p, _ in self._pending.items() if p[1:] == (key.group, key.topic, key.partition)]:
                self._pending.remove(pending, offset=offset)

    def end_transaction(self, producer_id: int, *, commit: bool, offset: int) -> None:
        """Replay a marker. An offset committed later outside of the transaction wins over one from inside."""
        for pending, value in [item for item in self._pending.items() if item[0].producer_id == producer_id]:
            self._pending.remove(pending, offset=offset)
            existing = self.get(pending.group_id, pending.topic, pending.partition)
            if commit and (existing is None or existing.record_offset < value.record_offset):
                key = OffsetCommitKey(group=pending.group_id, topic=pending.topic, partition=pending.partition)
                self.put(key, value, producer_id=-1, offset=offset)

    def sweep(self) -> None:
        """Forget groups whose last offset is gone for good."""
        for group_id in [group_id for group_id, offsets in self._groups.items() if offsets.is_blank]:
            del self._groups[group_id]

    # The latest view, for writes

    def get(self, group_id: str, topic: str, partition: int) -> OffsetCommitValue | None:
        group = self._groups.get(group_id)
        return None if group is None else group.get((topic, partition))

    def items(self, group_id: str) -> list[tuple[TopicPartition, OffsetCommitValue]]:
        group = self._groups.get(group_id)
        return [] if group is None else list(group.items())

    def pending_partitions(self, group_id: str) -> set[TopicPartition]:
        """Partitions for which an open transaction wants to commit."""
        return {(p.topic, p.partition) for p, _ in self._pending.items() if p.group_id == group_id}

    def group_ids(self) -> set[str]:
        """Groups with offsets, pending ones included."""
        ids = {group_id for group_id, offsets in self._groups.items() if len(offsets)}
        return ids | {p.group_id for p, _ in self._pending.items()}

    def has_group(self, group_id: str) -> bool:
        group = self._groups.get(group_id)
        return bool(group) or any(p.group_id == group_id for p, _ in self._pending.items())

    # The committed view, for reads

    def get_committed(self, group_id: str, topic: str, partition: int) -> OffsetCommitValue | None:
        group = self._groups.get(group_id)
        return None if group is None else group.get_committed((topic, partition))

    def committed_items(self, group_id: str) -> Iterator[tuple[TopicPartition, OffsetCommitValue]]:
        group = self._groups.get(group_id)
        return iter(()) if group is None else group.committed_items()

    def has_committed_group(self, group_id: str) -> bool:
        group = self._groups.get(group_id)
        return group is not None and group.has_committed
