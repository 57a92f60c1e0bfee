"""Records as an application meets them."""

from __future__ import annotations

from dataclasses import dataclass

Header = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerRecord:
    """One record as it was read. `timestamp_ms` is Unix time."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    leader_epoch: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordMetadata:
    """Where a record went. `offset` is -1 under acks=0."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class OffsetAndMetadata:
    """A committed position: the offset of the next record to read."""

    offset: int
    leader_epoch: int = -1
    metadata: str = ""
