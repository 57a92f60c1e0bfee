"""The records of `__share_group_state`: snapshots of a share partition's state, and updates of it.

A key is the int16 of its kind and the share partition; a value the int16 of its version and the state.

Source: Apache Kafka's `ShareSnapshotKey/Value` and `ShareUpdateKey/Value` schemas and `ShareCoordinatorRecordHelpers`.
"""

import uuid
from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, Final, NamedTuple

from ottla.common.frozen import frozen
from ottla.coordinator.group.record_schema import MalformedRecord, Schema, optional, read, required, version_of
from ottla.coordinator.shard import CoordinatorRecord
from ottla.coordinator.share.state import NO_COUNT, SharePartition, ShareState, StateBatch
from ottla.protocol.codec import entity_writer

SNAPSHOT: Final = 0
UPDATE: Final = 1


class RecordContent(NamedTuple):
    """A decoded record."""

    kind: int
    """`SNAPSHOT` or `UPDATE`."""
    key: SharePartition
    state: ShareState | None
    """Of an update only what an update has. None: the share partition is forgotten."""


@frozen
class _Key(Schema):
    group_id: str = required("string")
    topic_id: uuid.UUID | None = field(metadata={"kafka_type": "uuid"})
    partition: int = required("int32")


@frozen
class _StateBatch(Schema):
    __flexible__: ClassVar[bool] = True
    first_offset: int = required("int64")
    last_offset: int = required("int64")
    delivery_state: int = required("int8")
    delivery_count: int = required("int16")


@frozen
class _SnapshotValue(Schema):
    __flexible__: ClassVar[bool] = True
    snapshot_epoch: int = required("int32")
    state_epoch: int = required("int32")
    leader_epoch: int = required("int32")
    start_offset: int = required("int64")
    create_timestamp_ms: int = required("int64")
    write_timestamp_ms: int = required("int64")
    state_batches: tuple[_StateBatch, ...] = field()
    delivery_complete_count: int = optional("int32", NO_COUNT, tag=0)


@frozen
class _UpdateValue(Schema):
    __flexible__: ClassVar[bool] = True
    snapshot_epoch: int = required("int32")
    leader_epoch: int = required("int32")
    start_offset: int = required("int64")
    state_batches: tuple[_StateBatch, ...] = field()
    delivery_complete_count: int = optional("int32", NO_COUNT, tag=0)


_write_key: Final = entity_writer(_Key)
_write_snapshot: Final = entity_writer(_SnapshotValue)
_write_update: Final = entity_writer(_UpdateValue)


def snapshot(key: SharePartition, state: ShareState) -> CoordinatorRecord:
    """The whole state of a share partition."""
    out = bytearray(b"\0\0")
    value = _SnapshotValue(
        snapshot_epoch=state.snapshot_epoch,
        state_epoch=state.state_epoch,
        leader_epoch=state.leader_epoch,
        start_offset=state.start_offset,
        create_timestamp_ms=state.create_timestamp_ms,
        write_timestamp_ms=state.write_timestamp_ms,
        state_batches=_written(state.batches),
        delivery_complete_count=state.delivery_complete_count,
    )
    _write_snapshot(out, value)
    return CoordinatorRecord(_key(SNAPSHOT, key), bytes(out), RecordContent(SNAPSHOT, key, state))


def update(key: SharePartition, state: ShareState) -> CoordinatorRecord:
    """What has changed since the snapshot: the start offset (-1: not), the epoch, and batches."""
    out = bytearray(b"\0\0")
    value = _UpdateValue(
        snapshot_epoch=state.snapshot_epoch,
        leader_epoch=state.leader_epoch,
        start_offset=state.start_offset,
        state_batches=_written(state.batches),
        delivery_complete_count=state.delivery_complete_count,
    )
    _write_update(out, value)
    return CoordinatorRecord(_key(UPDATE, key), bytes(out), RecordContent(UPDATE, key, state))


def tombstone(key: SharePartition) -> CoordinatorRecord:
    """The share partition is forgotten."""
    return CoordinatorRecord(_key(SNAPSHOT, key), None, RecordContent(SNAPSHOT, key, None))


def decode(key: bytes, value: bytes | None) -> RecordContent | int:
    """A whole record; of a kind that is not known, its number alone. Raises: MalformedRecord."""
    kind = version_of(key)
    if kind not in (SNAPSHOT, UPDATE):
        return kind
    found = read(_Key, key)
    share_partition = SharePartition(found.group_id, found.topic_id, found.partition)
    if value is None:
        return RecordContent(kind, share_partition, None)
    version = version_of(value)
    if version != 0:
        raise MalformedRecord(f"share state of version {version}")
    if kind == SNAPSHOT:
        return RecordContent(kind, share_partition, _snapshot_state(read(_SnapshotValue, value)))
    return RecordContent(kind, share_partition, _update_state(read(_UpdateValue, value)))


def _snapshot_state(value: _SnapshotValue) -> ShareState:
    return ShareState(
        snapshot_epoch=value.snapshot_epoch,
        state_epoch=value.state_epoch,
        leader_epoch=value.leader_epoch,
        start_offset=value.start_offset,
        delivery_complete_count=value.delivery_complete_count,
        batches=_read_batches(value.state_batches),
        create_timestamp_ms=value.create_timestamp_ms,
        write_timestamp_ms=value.write_timestamp_ms,
    )


def _update_state(value: _UpdateValue) -> ShareState:
    return ShareState(
        snapshot_epoch=value.snapshot_epoch,
        state_epoch=0,
        leader_epoch=value.leader_epoch,
        start_offset=value.start_offset,
        delivery_complete_count=value.delivery_complete_count,
        batches=_read_batches(value.state_batches),
    )


def _read_batches(batches: Sequence[_StateBatch]) -> tuple[StateBatch, ...]:
    return tuple(StateBatch(b.first_offset, b.last_offset, b.delivery_state, b.delivery_count) for b in batches)


def _written(batches: Sequence[StateBatch]) -> tuple[_StateBatch, ...]:
    return tuple(_StateBatch(**batch._asdict()) for batch in batches)


def _key(kind: int, key: SharePartition) -> bytes:
    out = bytearray(kind.to_bytes(2, "big"))
    _write_key(out, _Key(**key._asdict()))
    return bytes(out)
