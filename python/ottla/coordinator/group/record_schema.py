"""How records of `__consumer_offsets` are put into bytes: what their codecs have in common.

A key starts with an int16 that names the kind of record; Kafka calls it the record's type, and formerly the key's
version. Values start with the int16 of their own version.
"""

from dataclasses import field
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple

from ottla.protocol.codec import entity_reader
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


class RecordContent(NamedTuple):
    """A record decoded: dataclasses of `records` or `consumer_records`. No value: a tombstone."""

    key: object
    value: object


def required(kafka_type: str, **rest: Any) -> Any:
    """A field that its maker gives."""
    return field(metadata={"kafka_type": kafka_type, **rest})


def optional(kafka_type: str, default: Any, **rest: Any) -> Any:
    """A field with a default; with `tag` one that is not written while it has it."""
    return field(metadata={"kafka_type": kafka_type, **rest}, default=default)


class Schema:
    """What the codec wants to know of an entity. The version stands in front of it and is ours to handle."""

    __flexible__: ClassVar[bool] = False


def read(schema: type, data: bytes) -> Any:
    """Read what stands behind the int16. Bytes that follow are ignored, as Kafka does. Raises: MalformedRecord."""
    try:
        return entity_reader(schema)(data, 2)[0]
    except MalformedMessage as error:
        raise MalformedRecord(f"{schema.__name__.strip('_')}: {error}") from error


def version_of(data: bytes) -> int:
    """The int16 in front. Raises: MalformedRecord."""
    if len(data) < 2:
        raise MalformedRecord(f"{len(data)} bytes")
    return data[1] if data[0] == 0 else int.from_bytes(data[:2], "big", signed=True)


def short_bytes(data: bytes) -> bytes:
    """Behind their length as an int16."""
    return len(data).to_bytes(2, "big") + data
