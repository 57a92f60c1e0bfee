"""The records of consumer groups in `__consumer_offsets` (KIP-848), in the versions that Kafka 4.3 writes.

Source: Apache Kafka's `ConsumerGroup*Key/Value` schemas, `GroupCoordinatorRecordHelpers`, and the files of a running
4.3.1 (tests/golden/consumer_offsets).
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
class ConsumerGroupKey(Schema):
    """The group's epoch (kind 3)."""

    group: str = required("string")


@frozen
class PartitionMetadataKey(ConsumerGroupKey):
    """What Kafka 4.0 and before knew of the subscribed topics (kind 4)."""


@frozen
class MemberMetadataKey(Schema):
    """What a member said of itself (kind 5)."""

    group: str = required("string")
    member: str = required("string")


@frozen
class TargetMetadataKey(ConsumerGroupKey):
    """The epoch for which targets were computed (kind 6)."""


@frozen
class TargetMemberKey(MemberMetadataKey):
    """What a member shall have (kind 7)."""


@frozen
class CurrentAssignmentKey(MemberMetadataKey):
    """What a member has, and its epoch (kind 8)."""


@frozen
class RegularExpressionKey(Schema):
    """Which topics an expression means (kind 16)."""

    group: str = required("string")
    regular_expression: str = required("string")


class _Flexible(Schema):
    __flexible__: ClassVar[bool] = True


@frozen
class GroupEpochValue(_Flexible):
    epoch: int = required("int32")
    metadata_hash: int = optional("int64", 0, tag=0)
    """See `topic_metadata`. Signed, as Java has it."""


@frozen
class _PartitionRacks(_Flexible):
    partition: int = required("int32")
    racks: tuple[str, ...] = required("string")


@frozen
class _TopicMetadata(_Flexible):
    topic_id: uuid.UUID = field(metadata={"kafka_type": "uuid"})
    topic_name: str = required("string")
    num_partitions: int = required("int32")
    partition_metadata: tuple[_PartitionRacks, ...] = field()


@frozen
class PartitionMetadataValue(_Flexible):
    topics: tuple[_TopicMetadata, ...] = field()


@frozen
class ClassicProtocol(_Flexible):
    name: str = required("string")
    metadata: bytes = required("bytes")


@frozen
class ClassicMemberMetadata(_Flexible):
    """Of a member that speaks the classic protocol."""

    session_timeout_ms: int = required("int32")
    supported_protocols: tuple[ClassicProtocol, ...] = field()


@frozen
class MemberMetadataValue(_Flexible):
    instance_id: str | None = required("string")
    rack_id: str | None = required("string")
    client_id: str = required("string")
    client_host: str = required("string")
    subscribed_topic_names: tuple[str, ...] = required("string")
    """Sorted when written."""
    subscribed_topic_regex: str | None = required("string")
    rebalance_timeout_ms: int = optional("int32", -1)
    server_assignor: str | None = required("string")
    classic_member_metadata: ClassicMemberMetadata | None = field(
        metadata={"tag": 0}, default=ClassicMemberMetadata(session_timeout_ms=0, supported_protocols=())
    )
    """None, which is always written, of a member that speaks the consumer protocol."""


@frozen
class TargetMetadataValue(_Flexible):
    assignment_epoch: int = required("int32")
    assignment_timestamp_ms: int = optional("int64", 0, tag=0)
    """Unix milliseconds at which the assignment was computed; 0: not known."""


@frozen
class TargetPartitions(_Flexible):
    topic_id: uuid.UUID = field(metadata={"kafka_type": "uuid"})
    partitions: tuple[int, ...] = required("int32")


@frozen
class TargetMemberValue(_Flexible):
    topic_partitions: tuple[TargetPartitions, ...] = field()


@frozen
class AssignedPartitions(_Flexible):
    topic_id: uuid.UUID = field(metadata={"kafka_type": "uuid"})
    partitions: tuple[int, ...] = required("int32")
    assignment_epochs: tuple[int, ...] | None = optional("int32", None, tag=0)
    """For each partition the epoch at which the member got it (KIP-1251)."""


@frozen
class CurrentAssignmentValue(_Flexible):
    member_epoch: int = required("int32")
    previous_member_epoch: int = required("int32")
    state: int = required("int8")
    assigned_partitions: tuple[AssignedPartitions, ...] = field()
    partitions_pending_revocation: tuple[AssignedPartitions, ...] = field()


@frozen
class RegularExpressionValue(_Flexible):
    topics: tuple[str, ...] = required("string")
    """Sorted when written."""
    version: int = required("int64")
    """The metadata offset at which the topics were looked for."""
    timestamp_ms: int = required("int64")
    """Unix milliseconds at which they were looked for."""


ConsumerKey: TypeAlias = ConsumerGroupKey | MemberMetadataKey | RegularExpressionKey
ConsumerValue: TypeAlias = (
    GroupEpochValue
    | PartitionMetadataValue
    | MemberMetadataValue
    | TargetMetadataValue
    | TargetMemberValue
    | CurrentAssignmentValue
    | RegularExpressionValue
)

KEYS: Final[dict[int, type[ConsumerKey]]] = {
    RecordKind.CONSUMER_GROUP_METADATA: ConsumerGroupKey,
    RecordKind.CONSUMER_GROUP_PARTITION_METADATA: PartitionMetadataKey,
    RecordKind.CONSUMER_GROUP_MEMBER_METADATA: MemberMetadataKey,
    RecordKind.CONSUMER_GROUP_TARGET_ASSIGNMENT_METADATA: TargetMetadataKey,
    RecordKind.CONSUMER_GROUP_TARGET_ASSIGNMENT_MEMBER: TargetMemberKey,
    RecordKind.CONSUMER_GROUP_CURRENT_MEMBER_ASSIGNMENT: CurrentAssignmentKey,
    RecordKind.CONSUMER_GROUP_REGULAR_EXPRESSION: RegularExpressionKey,
}
"""The keys' schemas, by the kind in front."""

_KINDS: Final[dict[type, bytes]] = {schema: kind.to_bytes(2, "big") for kind, schema in KEYS.items()}
_VALUES: Final[dict[type, type[ConsumerValue]]] = {
    ConsumerGroupKey: GroupEpochValue,
    PartitionMetadataKey: PartitionMetadataValue,
    MemberMetadataKey: MemberMetadataValue,
    TargetMetadataKey: TargetMetadataValue,
    TargetMemberKey: TargetMemberValue,
    CurrentAssignmentKey: CurrentAssignmentValue,
    RegularExpressionKey: RegularExpressionValue,
}


def decode_value(key: ConsumerKey, value: bytes) -> ConsumerValue:
    """The value under a key of this module. Raises: MalformedRecord."""
    schema = _VALUES[type(key)]
    version = version_of(value)
    if version != 0:
        raise MalformedRecord(f"{schema.__name__} of version {version}")
    return read(schema, value)  # type: ignore[no-any-return]


def encode(key: ConsumerKey, value: ConsumerValue | None) -> tuple[bytes, bytes | None]:
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


def record(key: ConsumerKey, value: ConsumerValue | None) -> CoordinatorRecord:
    """A record to append. No value: a tombstone."""
    return CoordinatorRecord(*encode(key, value), RecordContent(key, value))
