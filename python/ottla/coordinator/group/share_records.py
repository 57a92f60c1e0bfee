"""The records of share groups in `__consumer_offsets` (KIP-932), in the versions that Kafka 4.3 writes.

Source: Apache Kafka's `ShareGroup*Key/Value` schemas and `GroupCoordinatorRecordHelpers`.
"""

import uuid
from dataclasses import field
from typing import Any, ClassVar, Final, TypeAlias

from ottla.common.frozen import frozen
from ottla.coordinator.group.record_schema import (
    MalformedRecord,
    RecordContent,
    RecordKind,
    Schema,
    optional,
    read,
    required,
    version_of,
)
from ottla.coordinator.shard import CoordinatorRecord
from ottla.protocol.codec import entity_writer


@frozen
class ShareGroupKey(Schema):
    """The group's epoch (kind 11)."""

    group: str = required("string")


@frozen
class ShareTargetMetadataKey(ShareGroupKey):
    """The epoch for which targets were computed (kind 12)."""


@frozen
class ShareStatePartitionsKey(ShareGroupKey):
    """Which partitions have a state with the share coordinator (kind 15)."""


@frozen
class ShareMemberMetadataKey(Schema):
    """What a member said of itself (kind 10)."""

    group: str = required("string")
    member: str = required("string")


@frozen
class ShareTargetMemberKey(ShareMemberMetadataKey):
    """What a member shall have (kind 13)."""


@frozen
class ShareCurrentAssignmentKey(ShareMemberMetadataKey):
    """What a member has, and its epoch (kind 14)."""


class _Flexible(Schema):
    __flexible__: ClassVar[bool] = True


@frozen
class ShareGroupEpochValue(_Flexible):
    epoch: int = required("int32")
    metadata_hash: int = required("int64")
    """See `topic_metadata`. Signed, as Java has it."""


@frozen
class ShareMemberMetadataValue(_Flexible):
    rack_id: str | None = required("string")
    client_id: str = required("string")
    client_host: str = required("string")
    subscribed_topic_names: tuple[str, ...] = required("string")
    """Sorted when written."""


@frozen
class ShareTargetMetadataValue(_Flexible):
    assignment_epoch: int = required("int32")
    assignment_timestamp_ms: int = optional("int64", 0, tag=0)
    """Unix milliseconds at which the assignment was computed; 0: not known."""


@frozen
class SharePartitions(_Flexible):
    topic_id: uuid.UUID = field(metadata={"kafka_type": "uuid"})
    partitions: tuple[int, ...] = required("int32")


@frozen
class ShareTargetMemberValue(_Flexible):
    topic_partitions: tuple[SharePartitions, ...] = field()


@frozen
class ShareCurrentAssignmentValue(_Flexible):
    member_epoch: int = required("int32")
    previous_member_epoch: int = required("int32")
    state: int = required("int8")
    assigned_partitions: tuple[SharePartitions, ...] = field()


@frozen
class NamedPartitions(_Flexible):
    topic_id: uuid.UUID = field(metadata={"kafka_type": "uuid"})
    topic_name: str = required("string")
    partitions: tuple[int, ...] = required("int32")


@frozen
class NamedTopic(_Flexible):
    topic_id: uuid.UUID = field(metadata={"kafka_type": "uuid"})
    topic_name: str = required("string")


@frozen
class ShareStatePartitionsValue(_Flexible):
    initializing_topics: tuple[NamedPartitions, ...] = field(default=())
    """The share coordinator was, or is to be, asked to begin their states."""
    initialized_topics: tuple[NamedPartitions, ...] = field(default=())
    deleting_topics: tuple[NamedTopic, ...] = field(default=())
    """The share coordinator was, or is to be, asked to forget their states."""


ShareKey: TypeAlias = ShareGroupKey | ShareMemberMetadataKey
ShareValue: TypeAlias = (
    ShareGroupEpochValue
    | ShareMemberMetadataValue
    | ShareTargetMetadataValue
    | ShareTargetMemberValue
    | ShareCurrentAssignmentValue
    | ShareStatePartitionsValue
)

KEYS: Final[dict[int, type[ShareKey]]] = {
    RecordKind.SHARE_GROUP_MEMBER_METADATA: ShareMemberMetadataKey,
    RecordKind.SHARE_GROUP_METADATA: ShareGroupKey,
    RecordKind.SHARE_GROUP_TARGET_ASSIGNMENT_METADATA: ShareTargetMetadataKey,
    RecordKind.SHARE_GROUP_TARGET_ASSIGNMENT_MEMBER: ShareTargetMemberKey,
    RecordKind.SHARE_GROUP_CURRENT_MEMBER_ASSIGNMENT: ShareCurrentAssignmentKey,
    RecordKind.SHARE_GROUP_STATE_PARTITION_METADATA: ShareStatePartitionsKey,
}
"""The keys' schemas, by the kind in front."""

_KINDS: Final[dict[type, bytes]] = {schema: kind.to_bytes(2, "big") for kind, schema in KEYS.items()}
_VALUES: Final[dict[type, type[ShareValue]]] = {
    ShareMemberMetadataKey: ShareMemberMetadataValue,
    ShareGroupKey: ShareGroupEpochValue,
    ShareTargetMetadataKey: ShareTargetMetadataValue,
    ShareTargetMemberKey: ShareTargetMemberValue,
    ShareCurrentAssignmentKey: ShareCurrentAssignmentValue,
    ShareStatePartitionsKey: ShareStatePartitionsValue,
}


def decode_value(key: ShareKey, value: bytes) -> ShareValue:
    """The value under a key of this module. Raises: MalformedRecord."""
    schema = _VALUES[type(key)]
    version = version_of(value)
    if version != 0:
        raise MalformedRecord(f"{schema.__name__} of version {version}")
    return read(schema, value)  # type: ignore[no-any-return]


def encode(key: ShareKey, value: ShareValue | None) -> tuple[bytes, bytes | None]:
    """Key and value as they stand in the log. No value: a tombstone."""
    out_key = bytearray(_KINDS[type(key)])
    writer: Any = entity_writer(type(key))
    writer(out_key, key)
    if value is None:
        return bytes(out_key), None
    assert type(value) is _VALUES[type(key)]
    out_value = bytearray(b"\0\0")
    writer = entity_writer(type(value))
    writer(out_value, value)
    return bytes(out_key), bytes(out_value)


def record(key: ShareKey, value: ShareValue | None) -> CoordinatorRecord:
    """A record to append. No value: a tombstone."""
    return CoordinatorRecord(*encode(key, value), RecordContent(key, value))
