"""What a consumer group has read of the demonstration, checked as it comes: once each, in order per partition."""

from __future__ import annotations

from dataclasses import dataclass, field

from ottla.common.topic_partition import TopicPartition


@dataclass(slots=True)
class GroupTally:
    """Offsets of a partition must rise by one from record to record, and so must a user's own sequence in a topic.

    A record that was read twice, or read late, is out of order; a gap is out of order at the record behind it.
    """

    group_id: str
    records: int = 0
    out_of_order: int = 0
    first_fault: str | None = None
    next_offsets: dict[TopicPartition, int] = field(default_factory=dict)
    _next_sequences: dict[tuple[str, str], int] = field(default_factory=dict)

    def on_record(self, partition: TopicPartition, offset: int, *, user: str, sequence: int) -> None:
        self.records += 1
        expected = self.next_offsets.get(partition, 0)
        if offset != expected:
            self._fault(f"{partition}: offset {offset} where {expected} was due")
        self.next_offsets[partition] = offset + 1
        key = (partition.topic, user)
        due = self._next_sequences.get(key, 0)
        if sequence != due:
            self._fault(f"{partition}: {user} came with sequence {sequence} where {due} was due")
        self._next_sequences[key] = sequence + 1

    def _fault(self, text: str) -> None:
        self.out_of_order += 1
        self.first_fault = self.first_fault or text

    def read_of(self, topic: str) -> int:
        return sum(offset for partition, offset in self.next_offsets.items() if partition.topic == topic)

    def is_proven(self, written: dict[TopicPartition, int]) -> bool:
        """Whether exactly what was written (records by partition) was read, each once and in order."""
        return self.out_of_order == 0 and self.next_offsets == {p: n for p, n in written.items() if n}
