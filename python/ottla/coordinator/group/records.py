"""The records of `__consumer_offsets`, in the versions that Kafka 4.3 writes.

A key starts with an int16 that names the kind of record; Kafka calls it the record's type, and formerly the key's
version. Values start with the int16 of their own version. Kinds beyond the classic ones (groups of KIP-848, share
and streams groups) are recognised and handed back undecoded.

Source: Apache Kafka's `OffsetCommitKey/Value`, `GroupMetadataKey/Value` schemas, `GroupCoordinatorRecordHelpers`
(which version is written when), and the files of a running 4.3.1 (tests/golden/consumer_offsets).
"""

import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from ottla.coordinator.shard import CoordinatorRecord
from ottla.protocol.codec import entity_reader, entity_writer
from ottla.protocol.errors import MalformedMessage


class RecordKind(IntEnum):
    """The int16 that a key starts with."""

    LEGACY_OFFSET_COMMIT = 0
    OFFSET_COMMIT = 1
    GROUP_METADATA = 2
    CONSUMER_GROUP_METADATA = 3
    CONSUMER_GROUP_PARTITION_METADATA = 4
    CONSUMER_GROUP_MEMBER_METADATA = 5
    CONSUMER_GROUP_TARGET_ASSIGNMENT_METADATA = 6
    CONSUMER_GROUP_TARGET_ASSIGNMENT_MEMBER = 7
    CONSUMER_GROUP_CURRENT_MEMBER_ASSIGNMENT = 8
    SHARE_GROUP_MEMBER_METADATA = 10
    SHARE_GROUP_METADATA = 11
    SHARE_GROUP_TARGET_ASSIGNMENT_METADATA = 12
    SHARE_GROUP_TARGET_ASSIGNMENT_MEMBER = 13
    SHARE_GROUP_CURRENT_MEMBER_ASSIGNMENT = 14
    SHARE_GROUP_STATE_PARTITION_METADATA = 15
    CONSUMER_GROUP_REGULAR_EXPRESSION = 16
    STREAMS_GROUP_METADATA = 17
    STREAMS_GROUP_MEMBER_METADATA = 19
    STREAMS_GROUP_TARGET_ASSIGNMENT_METADATA = 20
    STREAMS_GROUP_TARGET_ASSIGNMENT_MEMBER = 21
    STREAMS_GROUP_CURRENT_MEMBER_ASSIGNMENT = 22
    STREAMS_GROUP_TOPOLOGY = 23


class MalformedRecord(Exception):
    """Bytes that are no record of the kind and version that they claim."""


def _kafka(kafka_type: str, **rest: Any) -> Any:
    return field(metadata={"kafka_type": kafka_type, **rest})


def _optional(kafka_type: str, default: Any, **rest: Any) -> Any:
    return field(metadata={"kafka_type": kafka_type, **rest}, default=default)


class _Schema:
    """What the codec wants to know of an entity. The version stands in front of it and is ours to handle."""

    __flexible__: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetCommitKey(_Schema):
    group: str = _kafka("string")
    topic: str = _kafka("string")
    partition: int = _kafka("int32")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMetadataKey(_Schema):
    group: str = _kafka("string")


@dataclass(frozen=True, slots=True, kw_only=True)
class _OffsetCommitValue0(_Schema):
    offset: int = _kafka("int64")
    metadata: str = _kafka("string")
    commit_timestamp_ms: int = _kafka("int64")


@dataclass(frozen=True, slots=True, kw_only=True)
class _OffsetCommitValue1(_OffsetCommitValue0):
    expire_timestamp_ms: int = _kafka("int64")


@dataclass(frozen=True, slots=True, kw_only=True)
class _OffsetCommitValue3(_Schema):
    offset: int = _kafka("int64")
    leader_epoch: int = _kafka("int32")
    metadata: str = _kafka("string")
    commit_timestamp_ms: int = _kafka("int64")


@dataclass(frozen=True, slots=True, kw_only=True)
class _OffsetCommitValue4(_OffsetCommitValue3):
    __flexible__: ClassVar[bool] = True
    topic_id: uuid.UUID | None = field(metadata={"kafka_type": "uuid", "tag": 0}, default=None)


class OffsetCommitValue(NamedTuple):
    """A committed offset: the union of versions 0 to 4. A tuple, as a coordinator may hold a million of them."""

    offset: int
    leader_epoch: int = -1
    metadata: str = ""
    commit_timestamp_ms: int = -1
    """Unix milliseconds."""
    expire_timestamp_ms: int = -1
    """Unix milliseconds, from clients that ask for a retention of their own (OffsetCommit 2 to 4)."""
    topic_id: uuid.UUID | None = None
    record_offset: int = -1
    """Where its record stands in the log; not a part of the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member0(_Schema):
    member_id: str = _kafka("string")
    client_id: str = _kafka("string")
    client_host: str = _kafka("string")
    session_timeout_ms: int = _kafka("int32")
    subscription: bytes = _kafka("bytes")
    assignment: bytes = _kafka("bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member1(_Schema):
    member_id: str = _kafka("string")
    client_id: str = _kafka("string")
    client_host: str = _kafka("string")
    rebalance_timeout_ms: int = _kafka("int32")
    session_timeout_ms: int = _kafka("int32")
    subscription: bytes = _kafka("bytes")
    assignment: bytes = _kafka("bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberMetadata(_Schema):
    """A member of a classic group as of version 3."""

    member_id: str = _kafka("string")
    group_instance_id: str | None = _optional("string", None)
    client_id: str = _kafka("string")
    client_host: str = _kafka("string")
    rebalance_timeout_ms: int = _optional("int32", -1)
    session_timeout_ms: int = _kafka("int32")
    subscription: bytes = _kafka("bytes")
    assignment: bytes = _kafka("bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class _MemberFlexible(MemberMetadata):
    __flexible__: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroupMetadataValue0(_Schema):
    protocol_type: str = _kafka("string")
    generation: int = _kafka("int32")
    protocol: str | None = _kafka("string")
    leader: str | None = _kafka("string")
    members: tuple[_Member0, ...] = field()


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroupMetadataValue1(_Schema):
    protocol_type: str = _kafka("string")
    generation: int = _kafka("int32")
    protocol: str | None = _kafka("string")
    leader: str | None = _kafka("string")
    members: tuple[_Member1, ...] = field()


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroupMetadataValue2(_Schema):
    protocol_type: str = _kafka("string")
    generation: int = _kafka("int32")
    protocol: str | None = _kafka("string")
    leader: str | None = _kafka("string")
    current_state_timestamp_ms: int = _kafka("int64")
    members: tuple[_Member1, ...] = field()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMetadataValue(_Schema):
    """A classic group as it was last committed: empty, or stable with an assignment for each member (version 3)."""

    protocol_type: str = _kafka("string")
    generation: int = _kafka("int32")
    protocol: str | None = _kafka("string")
    leader: str | None = _kafka("string")
    current_state_timestamp_ms: int = _optional("int64", -1)
    members: tuple[MemberMetadata, ...] = field()


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroupMetadataValue4(_Schema):
    __flexible__: ClassVar[bool] = True
    protocol_type: str = _kafka("string")
    generation: int = _kafka("int32")
    protocol: str | None = _kafka("string")
    leader: str | None = _kafka("string")
    current_state_timestamp_ms: int = _optional("int64", -1)
    members: tuple[_MemberFlexible, ...] = field()


Key: TypeAlias = OffsetCommitKey | GroupMetadataKey | int
"""A decoded key; of a kind that is not ours, its number alone."""


class RecordContent(NamedTuple):
    """A record decoded. No value: a tombstone."""

    key: OffsetCommitKey | GroupMetadataKey
    value: OffsetCommitValue | GroupMetadataValue | None


def decode_key(key: bytes) -> Key:
    """Raises: MalformedRecord."""
    kind = _version(key)
    # Kind 0 is the offset commit of Kafka 0.8: the same fields.
    if kind in (1, 0):
        return _read(OffsetCommitKey, key)  # type: ignore[no-any-return]
    if kind == 2:
        return _read(GroupMetadataKey, key)  # type: ignore[no-any-return]
    return kind


def decode_offset_commit_value(value: bytes, *, record_offset: int = -1) -> OffsetCommitValue:
    """Raises: MalformedRecord."""
    version = _version(value)
    if version == 4:
        v = _read(_OffsetCommitValue4, value)
        return OffsetCommitValue(
            v.offset, v.leader_epoch, v.metadata, v.commit_timestamp_ms, -1, v.topic_id, record_offset
        )
    if version == 3:
        v = _read(_OffsetCommitValue3, value)
        return OffsetCommitValue(v.offset, v.leader_epoch, v.metadata, v.commit_timestamp_ms, -1, None, record_offset)
    if version == 1:
        v = _read(_OffsetCommitValue1, value)
        return OffsetCommitValue(
            v.offset, -1, v.metadata, v.commit_timestamp_ms, v.expire_timestamp_ms, None, record_offset
        )
    if version in (0, 2):
        v = _read(_OffsetCommitValue0, value)
        return OffsetCommitValue(v.offset, -1, v.metadata, v.commit_timestamp_ms, -1, None, record_offset)
    raise MalformedRecord(f"an offset commit of version {version}")


def decode_group_metadata_value(value: bytes) -> GroupMetadataValue:
    """Raises: MalformedRecord."""
    version = _version(value)
    schema = _GROUP_METADATA_SCHEMAS.get(version)
    if schema is None:
        raise MalformedRecord(f"group metadata of version {version}")
    v = _read(schema, value)
    if version == 3:
        return v  # type: ignore[no-any-return]
    return GroupMetadataValue(
        protocol_type=v.protocol_type,
        generation=v.generation,
        protocol=v.protocol,
        leader=v.leader,
        current_state_timestamp_ms=getattr(v, "current_state_timestamp_ms", -1),
        members=tuple(
            MemberMetadata(
                member_id=m.member_id,
                group_instance_id=getattr(m, "group_instance_id", None),
                client_id=m.client_id,
                client_host=m.client_host,
                rebalance_timeout_ms=getattr(m, "rebalance_timeout_ms", -1),
                session_timeout_ms=m.session_timeout_ms,
                subscription=m.subscription,
                assignment=m.assignment,
            )
            for m in v.members
        ),
    )


def offset_commit(group_id: str, topic: str, partition: int, value: OffsetCommitValue) -> CoordinatorRecord:
    """A committed offset: version 4, or 1 when it carries an expiry of its own, as Kafka writes them."""
    # By hand: a commit of many partitions spends most of its time here.
    metadata = value.metadata.encode()
    if value.expire_timestamp_ms != -1:
        body = b"".join(
            (
                _SHORT_LONG.pack(1, value.offset),
                _short_bytes(metadata),
                _TWO_LONGS.pack(value.commit_timestamp_ms, value.expire_timestamp_ms),
            )
        )
        # Version 1 has no place for these.
        value = value._replace(leader_epoch=-1, topic_id=None)
    else:
        body = b"".join(
            (
                _SHORT_LONG_INT.pack(4, value.offset, value.leader_epoch),
                _unsigned_varint(len(metadata) + 1),
                metadata,
                _LONG.pack(value.commit_timestamp_ms),
                # Tagged fields: none, or tag 0 with 16 bytes.
                b"\0" if value.topic_id is None else b"\1\0\x10" + value.topic_id.bytes,
            )
        )
    key = OffsetCommitKey(group=group_id, topic=topic, partition=partition)
    return CoordinatorRecord(_offset_commit_key(group_id, topic, partition), body, RecordContent(key, value))


def offset_commit_tombstone(group_id: str, topic: str, partition: int) -> CoordinatorRecord:
    key = OffsetCommitKey(group=group_id, topic=topic, partition=partition)
    return CoordinatorRecord(_offset_commit_key(group_id, topic, partition), None, RecordContent(key, None))


def group_metadata(group_id: str, value: GroupMetadataValue) -> CoordinatorRecord:
    """The state of a classic group, in version 3."""
    out = bytearray(b"\0\3")
    _write_group_metadata(out, value)
    content = RecordContent(GroupMetadataKey(group=group_id), value)
    return CoordinatorRecord(_group_metadata_key(group_id), bytes(out), content)


def empty_group_metadata(group_id: str, *, wall_ms: int) -> CoordinatorRecord:
    """A group that has just been created and has no generation yet."""
    return group_metadata(
        group_id,
        GroupMetadataValue(
            protocol_type="", generation=0, protocol=None, leader=None, current_state_timestamp_ms=wall_ms, members=()
        ),
    )


def group_metadata_tombstone(group_id: str) -> CoordinatorRecord:
    content = RecordContent(GroupMetadataKey(group=group_id), None)
    return CoordinatorRecord(_group_metadata_key(group_id), None, content)


def decode(key: bytes, value: bytes | None, *, record_offset: int = -1) -> RecordContent | int:
    """A whole record; of a kind that is not ours, its number alone. Raises: MalformedRecord."""
    decoded_key = decode_key(key)
    if isinstance(decoded_key, int):
        return decoded_key
    if value is None:
        return RecordContent(decoded_key, None)
    if isinstance(decoded_key, OffsetCommitKey):
        return RecordContent(decoded_key, decode_offset_commit_value(value, record_offset=record_offset))
    return RecordContent(decoded_key, decode_group_metadata_value(value))


_SHORT_LONG: Final = struct.Struct(">hq")
_SHORT_LONG_INT: Final = struct.Struct(">hqi")
_TWO_LONGS: Final = struct.Struct(">qq")
_LONG: Final = struct.Struct(">q")
_INT: Final = struct.Struct(">i")

_READERS: Final[dict[type, Callable[[bytes, int], tuple[Any, int]]]] = {
    schema: entity_reader(schema)
    for schema in (
        OffsetCommitKey,
        GroupMetadataKey,
        _OffsetCommitValue0,
        _OffsetCommitValue1,
        _OffsetCommitValue3,
        _OffsetCommitValue4,
        _GroupMetadataValue0,
        _GroupMetadataValue1,
        _GroupMetadataValue2,
        GroupMetadataValue,
        _GroupMetadataValue4,
    )
}
_GROUP_METADATA_SCHEMAS: Final[dict[int, type]] = {
    0: _GroupMetadataValue0,
    1: _GroupMetadataValue1,
    2: _GroupMetadataValue2,
    3: GroupMetadataValue,
    4: _GroupMetadataValue4,
}
_write_group_metadata: Final = entity_writer(GroupMetadataValue)


def _read(schema: type, data: bytes) -> Any:
    """Read what stands behind the int16. Bytes that follow are ignored, as Kafka does."""
    try:
        return _READERS[schema](data, 2)[0]
    except MalformedMessage as error:
        raise MalformedRecord(f"{schema.__name__.strip('_')}: {error}") from error


def _version(data: bytes) -> int:
    """The int16 in front."""
    if len(data) < 2:
        raise MalformedRecord(f"{len(data)} bytes")
    return data[1] if data[0] == 0 else int.from_bytes(data[:2], "big", signed=True)


def _short_bytes(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _unsigned_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _offset_commit_key(group_id: str, topic: str, partition: int) -> bytes:
    return b"".join((b"\0\1", _short_bytes(group_id.encode()), _short_bytes(topic.encode()), _INT.pack(partition)))


def _group_metadata_key(group_id: str) -> bytes:
    return b"\0\2" + _short_bytes(group_id.encode())
