"""The records of `__consumer_offsets`, in the versions that Kafka 4.3 writes.

Offsets and classic groups are read here, the records of KIP-848's groups in `consumer_records` and of share groups in
`share_records`. Other kinds (streams groups) are recognised and handed back undecoded.

Source: Apache Kafka's `OffsetCommitKey/Value`, `GroupMetadataKey/Value` schemas, `GroupCoordinatorRecordHelpers`
(which version is written when), and the files of a running 4.3.1 (tests/golden/consumer_offsets).
"""

import struct
import uuid
from dataclasses import field
from typing import ClassVar, Final, NamedTuple, TypeAlias

from ottla.common.frozen import frozen
from ottla.coordinator.group import consumer_records, share_records
from ottla.coordinator.group.consumer_records import ConsumerKey
from ottla.coordinator.group.record_schema import (
    MalformedRecord,
    RecordContent,
    Schema,
    optional,
    read,
    required,
    short_bytes,
    version_of,
)
from ottla.coordinator.group.share_records import ShareKey
from ottla.coordinator.shard import CoordinatorRecord
from ottla.protocol.codec import entity_writer


@frozen
class OffsetCommitKey(Schema):
    group: str = required("string")
    topic: str = required("string")
    partition: int = required("int32")


@frozen
class GroupMetadataKey(Schema):
    group: str = required("string")


@frozen
class _OffsetCommitValue0(Schema):
    offset: int = required("int64")
    metadata: str = required("string")
    commit_timestamp_ms: int = required("int64")


@frozen
class _OffsetCommitValue1(_OffsetCommitValue0):
    expire_timestamp_ms: int = required("int64")


@frozen
class _OffsetCommitValue3(Schema):
    offset: int = required("int64")
    leader_epoch: int = required("int32")
    metadata: str = required("string")
    commit_timestamp_ms: int = required("int64")


@frozen
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


@frozen
class _Member0(Schema):
    member_id: str = required("string")
    client_id: str = required("string")
    client_host: str = required("string")
    session_timeout_ms: int = required("int32")
    subscription: bytes = required("bytes")
    assignment: bytes = required("bytes")


@frozen
class _Member1(Schema):
    member_id: str = required("string")
    client_id: str = required("string")
    client_host: str = required("string")
    rebalance_timeout_ms: int = required("int32")
    session_timeout_ms: int = required("int32")
    subscription: bytes = required("bytes")
    assignment: bytes = required("bytes")


@frozen
class MemberMetadata(Schema):
    """A member of a classic group as of version 3."""

    member_id: str = required("string")
    group_instance_id: str | None = optional("string", None)
    client_id: str = required("string")
    client_host: str = required("string")
    rebalance_timeout_ms: int = optional("int32", -1)
    session_timeout_ms: int = required("int32")
    subscription: bytes = required("bytes")
    assignment: bytes = required("bytes")


@frozen
class _MemberFlexible(MemberMetadata):
    __flexible__: ClassVar[bool] = True


@frozen
class _GroupMetadataValue0(Schema):
    protocol_type: str = required("string")
    generation: int = required("int32")
    protocol: str | None = required("string")
    leader: str | None = required("string")
    members: tuple[_Member0, ...] = field()


@frozen
class _GroupMetadataValue1(Schema):
    protocol_type: str = required("string")
    generation: int = required("int32")
    protocol: str | None = required("string")
    leader: str | None = required("string")
    members: tuple[_Member1, ...] = field()


@frozen
class _GroupMetadataValue2(Schema):
    protocol_type: str = required("string")
    generation: int = required("int32")
    protocol: str | None = required("string")
    leader: str | None = required("string")
    current_state_timestamp_ms: int = required("int64")
    members: tuple[_Member1, ...] = field()


@frozen
class GroupMetadataValue(Schema):
    """A classic group as it was last committed: empty, or stable with an assignment for each member (version 3)."""

    protocol_type: str = required("string")
    generation: int = required("int32")
    protocol: str | None = required("string")
    leader: str | None = required("string")
    current_state_timestamp_ms: int = optional("int64", -1)
    members: tuple[MemberMetadata, ...] = field()


@frozen
class _GroupMetadataValue4(Schema):
    __flexible__: ClassVar[bool] = True
    protocol_type: str = required("string")
    generation: int = required("int32")
    protocol: str | None = required("string")
    leader: str | None = required("string")
    current_state_timestamp_ms: int = optional("int64", -1)
    members: tuple[_MemberFlexible, ...] = field()


KnownKey: TypeAlias = OffsetCommitKey | GroupMetadataKey | ConsumerKey | ShareKey
Key: TypeAlias = KnownKey | int
"""A decoded key; of a kind that is not ours, its number alone."""


def decode_key(key: bytes) -> Key:
    """Raises: MalformedRecord."""
    kind = version_of(key)
    # Kind 0 is the offset commit of Kafka 0.8: the same fields.
    if kind in (1, 0):
        return read(OffsetCommitKey, key)  # type: ignore[no-any-return]
    if kind == 2:
        return read(GroupMetadataKey, key)  # type: ignore[no-any-return]
    schema: type[ConsumerKey | ShareKey] | None = consumer_records.KEYS.get(kind) or share_records.KEYS.get(kind)
    return kind if schema is None else read(schema, key)


def decode_offset_commit_value(value: bytes, *, record_offset: int = -1) -> OffsetCommitValue:
    """Raises: MalformedRecord."""
    version = version_of(value)
    if version == 4:
        v = read(_OffsetCommitValue4, value)
        return OffsetCommitValue(
            v.offset, v.leader_epoch, v.metadata, v.commit_timestamp_ms, -1, v.topic_id, record_offset
        )
    if version == 3:
        v = read(_OffsetCommitValue3, value)
        return OffsetCommitValue(v.offset, v.leader_epoch, v.metadata, v.commit_timestamp_ms, -1, None, record_offset)
    if version == 1:
        v = read(_OffsetCommitValue1, value)
        return OffsetCommitValue(
            v.offset, -1, v.metadata, v.commit_timestamp_ms, v.expire_timestamp_ms, None, record_offset
        )
    if version in (0, 2):
        v = read(_OffsetCommitValue0, value)
        return OffsetCommitValue(v.offset, -1, v.metadata, v.commit_timestamp_ms, -1, None, record_offset)
    raise MalformedRecord(f"an offset commit of version {version}")


def decode_group_metadata_value(value: bytes) -> GroupMetadataValue:
    """Raises: MalformedRecord."""
    version = version_of(value)
    schema = _GROUP_METADATA_SCHEMAS.get(version)
    if schema is None:
        raise MalformedRecord(f"group metadata of version {version}")
    v = read(schema, value)
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
                short_bytes(metadata),
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
    if isinstance(decoded_key, GroupMetadataKey):
        return RecordContent(decoded_key, decode_group_metadata_value(value))
    if isinstance(decoded_key, ShareKey):
        return RecordContent(decoded_key, share_records.decode_value(decoded_key, value))
    return RecordContent(decoded_key, consumer_records.decode_value(decoded_key, value))


_SHORT_LONG: Final = struct.Struct(">hq")
_SHORT_LONG_INT: Final = struct.Struct(">hqi")
_TWO_LONGS: Final = struct.Struct(">qq")
_LONG: Final = struct.Struct(">q")
_INT: Final = struct.Struct(">i")

_GROUP_METADATA_SCHEMAS: Final[dict[int, type]] = {
    0: _GroupMetadataValue0,
    1: _GroupMetadataValue1,
    2: _GroupMetadataValue2,
    3: GroupMetadataValue,
    4: _GroupMetadataValue4,
}
_write_group_metadata: Final = entity_writer(GroupMetadataValue)


def _unsigned_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _offset_commit_key(group_id: str, topic: str, partition: int) -> bytes:
    return b"".join((b"\0\1", short_bytes(group_id.encode()), short_bytes(topic.encode()), _INT.pack(partition)))


def _group_metadata_key(group_id: str) -> bytes:
    return b"\0\2" + short_bytes(group_id.encode())
