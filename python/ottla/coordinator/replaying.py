"""What of a coordinator's log has to be replayed when it is loaded.

Where only the last record of a key counts, most of a log that was not compacted lately is records that later ones stand
for: a group commits the same offsets again and again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from ottla.coordinator.shard import LoadedRecord, TransactionMarker

Record: TypeAlias = tuple[int, int, bytes | None, bytes | None, object]
"""(offset, timestamp_ms, key, value, headers)."""


class RecordBatch(Protocol):
    """What must be known of a batch."""

    @property
    def control(self) -> bool: ...
    @property
    def transactional(self) -> bool: ...
    @property
    def producer_id(self) -> int: ...


def latest_offsets(read: Iterable[tuple[RecordBatch, Sequence[Record]]]) -> dict[bytes, int]:
    """The last offset of each key among records that belong to no transaction: compaction would leave no other."""
    return {
        key or b"": offset
        for batch, records in read
        if not (batch.control or batch.transactional)
        for offset, _, key, _, _ in records
    }


def to_replay(
    batch: RecordBatch, records: Iterable[Record], latest: Mapping[bytes, int]
) -> Iterable[LoadedRecord | TransactionMarker]:
    """What is to be replayed of a batch, without what records of a later offset in `latest` stand for."""
    if batch.control:
        # A control record's key: version and type, both int16 (0 abort, 1 commit).
        return [
            TransactionMarker(offset, batch.producer_id, key[2:4] == b"\0\1")
            for offset, _, key, _, _ in records
            if key is not None and key[2:4] in (b"\0\0", b"\0\1")
        ]
    if batch.transactional:
        return [LoadedRecord(offset, key or b"", value, batch.producer_id) for offset, _, key, value, _ in records]
    return [
        LoadedRecord(offset, key or b"", value, -1)
        for offset, _, key, value, _ in records
        if latest.get(key or b"", offset) <= offset
    ]
