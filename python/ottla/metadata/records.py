"""The records of the metadata log (`__cluster_metadata-0`), byte for byte as Apache Kafka 4.3 writes them.

The value of a log record is a frame: the frame version, the record's key and its version, each an unsigned varint,
then the fields in the flexible encoding (KIP-482). Each class below holds the newest layout of its record and is
written in the version that Kafka writes at metadata.version 30: the newest, but for BrokerRegistrationChangeRecord,
which takes the lowest that holds what it says. A null directory id stands for the all-zero one.

Source of keys and layouts: the schemas in Apache Kafka 4.3.1; KIP-631 for the meaning.
"""

import uuid
from collections.abc import Mapping
from dataclasses import MISSING, field
from typing import Any, ClassVar, Final

from ottla.common.frozen import frozen
from ottla.protocol.codec import entity_reader, entity_writer
from ottla.protocol.errors import MalformedMessage

_FRAME_VERSION: Final = 1

NO_LEADER: Final = -1
"""Leader of a partition that nobody leads."""
NO_LEADER_CHANGE: Final = -2
"""In a PartitionChangeRecord: leader and leader epoch stay as they are."""

DIRECTORY_MIGRATING: Final = uuid.UUID(int=0)
DIRECTORY_UNASSIGNED: Final = uuid.UUID(int=1)
DIRECTORY_LOST: Final = uuid.UUID(int=2)
"""Ids that are no directory's."""


class MalformedRecord(Exception):
    """A value in the metadata log that is no record of this version of the software."""


def _of(kafka_type: str, default: Any = MISSING, *, tag: int | None = None) -> Any:
    metadata: dict[str, Any] = {"kafka_type": kafka_type}
    if tag is not None:
        metadata["tag"] = tag
    return field(metadata=metadata, default=default)


class _Flexible:
    """What the codec reads a class's encoding from; the fields are the subclass's."""

    __slots__ = ()
    __flexible__: ClassVar = True


class MetadataRecord(_Flexible):
    """A record of the metadata log."""

    __slots__ = ()
    __api_key__: ClassVar[int]
    __lowest__: ClassVar = 0
    """The lowest version with the untagged fields of the class: what can be read."""
    __highest__: ClassVar = 0


@frozen
class Endpoint(_Flexible):
    """A listener of a broker or controller. security_protocol: 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL."""

    name: str = _of("string")
    host: str = _of("string")
    port: int = _of("uint16")
    security_protocol: int = _of("int16", 0)


@frozen
class FeatureRange(_Flexible):
    """The levels of one feature that a broker or controller can run at."""

    name: str = _of("string")
    min_supported_version: int = _of("int16")
    max_supported_version: int = _of("int16")


@frozen
class RegisterBrokerRecord(MetadataRecord):
    """A broker has started. Its epoch is the offset of this record."""

    __api_key__: ClassVar = 0
    __lowest__: ClassVar = 2
    __highest__: ClassVar = 4
    broker_id: int = _of("int32")
    is_migrating_zk_broker: bool = _of("bool", False)
    incarnation_id: uuid.UUID = _of("uuid")
    broker_epoch: int = _of("int64")
    end_points: tuple[Endpoint, ...] = _of("struct")
    features: tuple[FeatureRange, ...] = _of("struct")
    rack: str | None = _of("string")
    fenced: bool = _of("bool", True)
    in_controlled_shutdown: bool = _of("bool", False)
    log_dirs: tuple[uuid.UUID | None, ...] = _of("uuid", (), tag=0)
    cordoned_log_dirs: tuple[uuid.UUID | None, ...] | None = _of("uuid", None, tag=1)


@frozen
class UnregisterBrokerRecord(MetadataRecord):
    """A broker is gone for good."""

    __api_key__: ClassVar = 1
    broker_id: int = _of("int32")
    broker_epoch: int = _of("int64")


@frozen
class TopicRecord(MetadataRecord):
    """A topic exists; its partitions follow."""

    __api_key__: ClassVar = 2
    name: str = _of("string")
    topic_id: uuid.UUID = _of("uuid")


@frozen
class PartitionRecord(MetadataRecord):
    """A partition in full: at its creation, and in snapshots."""

    __api_key__: ClassVar = 3
    __lowest__: ClassVar = 1
    __highest__: ClassVar = 2
    partition_id: int = _of("int32")
    topic_id: uuid.UUID = _of("uuid")
    replicas: tuple[int, ...] = _of("int32")
    isr: tuple[int, ...] = _of("int32")
    removing_replicas: tuple[int, ...] = _of("int32", ())
    adding_replicas: tuple[int, ...] = _of("int32", ())
    leader: int = _of("int32")
    leader_epoch: int = _of("int32")
    partition_epoch: int = _of("int32")
    directories: tuple[uuid.UUID | None, ...] = _of("uuid", ())
    leader_recovery_state: int = _of("int8", 0, tag=0)
    eligible_leader_replicas: tuple[int, ...] | None = _of("int32", None, tag=1)
    last_known_elr: tuple[int, ...] | None = _of("int32", None, tag=2)


@frozen
class ConfigRecord(MetadataRecord):
    """One configuration key of one resource; a null value removes it."""

    __api_key__: ClassVar = 4
    resource_type: int = _of("int8")
    resource_name: str = _of("string")
    name: str = _of("string")
    value: str | None = _of("string")


@frozen
class PartitionChangeRecord(MetadataRecord):
    """What changed in a partition. A set `leader` raises the leader epoch, even if it names the same broker."""

    __api_key__: ClassVar = 5
    __highest__: ClassVar = 2
    partition_id: int = _of("int32")
    topic_id: uuid.UUID = _of("uuid")
    isr: tuple[int, ...] | None = _of("int32", None, tag=0)
    leader: int = _of("int32", NO_LEADER_CHANGE, tag=1)
    replicas: tuple[int, ...] | None = _of("int32", None, tag=2)
    removing_replicas: tuple[int, ...] | None = _of("int32", None, tag=3)
    adding_replicas: tuple[int, ...] | None = _of("int32", None, tag=4)
    leader_recovery_state: int = _of("int8", -1, tag=5)
    eligible_leader_replicas: tuple[int, ...] | None = _of("int32", None, tag=6)
    last_known_elr: tuple[int, ...] | None = _of("int32", None, tag=7)
    directories: tuple[uuid.UUID | None, ...] | None = _of("uuid", None, tag=8)


@frozen
class RemoveTopicRecord(MetadataRecord):
    """A topic and its partitions are gone."""

    __api_key__: ClassVar = 9
    topic_id: uuid.UUID = _of("uuid")


@frozen
class FeatureLevelRecord(MetadataRecord):
    """A feature is finalised at a level; 0 removes it."""

    __api_key__: ClassVar = 12
    name: str = _of("string")
    feature_level: int = _of("int16")


@frozen
class ProducerIdsRecord(MetadataRecord):
    """A block of producer ids was given to a broker; `next_producer_id` is the first that was not."""

    __api_key__: ClassVar = 15
    broker_id: int = _of("int32")
    broker_epoch: int = _of("int64")
    next_producer_id: int = _of("int64")


@frozen
class BrokerRegistrationChangeRecord(MetadataRecord):
    """A broker was fenced (1), unfenced (-1), or began its controlled shutdown (1); 0 is no change."""

    __api_key__: ClassVar = 17
    __highest__: ClassVar = 3
    broker_id: int = _of("int32")
    broker_epoch: int = _of("int64")
    fenced: int = _of("int8", 0, tag=0)
    in_controlled_shutdown: int = _of("int8", 0, tag=1)
    log_dirs: tuple[uuid.UUID | None, ...] = _of("uuid", (), tag=2)
    cordoned_log_dirs: tuple[uuid.UUID | None, ...] | None = _of("uuid", None, tag=3)


@frozen
class NoOpRecord(MetadataRecord):
    """Nothing; moves the end of the log."""

    __api_key__: ClassVar = 20


@frozen
class BeginTransactionRecord(MetadataRecord):
    """The records up to the end of the metadata transaction take effect together (KIP-868)."""

    __api_key__: ClassVar = 23
    name: str | None = _of("string", None, tag=0)


@frozen
class EndTransactionRecord(MetadataRecord):
    """The metadata transaction takes effect."""

    __api_key__: ClassVar = 24


@frozen
class AbortTransactionRecord(MetadataRecord):
    """The metadata transaction never happened."""

    __api_key__: ClassVar = 25
    reason: str | None = _of("string", None, tag=0)


@frozen
class RegisterControllerRecord(MetadataRecord):
    """A controller has started."""

    __api_key__: ClassVar = 27
    controller_id: int = _of("int32")
    incarnation_id: uuid.UUID = _of("uuid")
    zk_migration_ready: bool = _of("bool", False)
    end_points: tuple[Endpoint, ...] = _of("struct")
    features: tuple[FeatureRange, ...] = _of("struct")


@frozen
class ClearElrRecord(MetadataRecord):
    """The eligible leader replicas of one topic, or of all (empty name), are forgotten."""

    __api_key__: ClassVar = 28
    topic_name: str = _of("string")


RECORD_TYPES: Final[Mapping[int, type[MetadataRecord]]] = {
    cls.__api_key__: cls
    for cls in (
        RegisterBrokerRecord,
        UnregisterBrokerRecord,
        TopicRecord,
        PartitionRecord,
        ConfigRecord,
        PartitionChangeRecord,
        RemoveTopicRecord,
        FeatureLevelRecord,
        ProducerIdsRecord,
        BrokerRegistrationChangeRecord,
        NoOpRecord,
        BeginTransactionRecord,
        EndTransactionRecord,
        AbortTransactionRecord,
        RegisterControllerRecord,
        ClearElrRecord,
    )
}


def version_of(record: MetadataRecord) -> int:
    """The version that a record is written in."""
    if not isinstance(record, BrokerRegistrationChangeRecord):
        return record.__highest__
    if record.cordoned_log_dirs is not None:
        return 3
    return 2 if record.log_dirs else 1 if record.in_controlled_shutdown else 0


def encode_record(record: MetadataRecord) -> bytes:
    """Return the value that this record has in the log."""
    cls = type(record)
    out = bytearray((_FRAME_VERSION, cls.__api_key__, version_of(record)))
    entity_writer(cls)(out, record)
    return bytes(out)


def decode_record(value: bytes) -> MetadataRecord:
    """Return the record in a value of the log. Raises MalformedRecord (also for a kind or version unknown here)."""
    if len(value) < 3 or value[0] != _FRAME_VERSION or max(value[1], value[2]) > 0x7F:
        raise MalformedRecord(f"no metadata record: frame {value[:3].hex()!r}, expected version {_FRAME_VERSION}")
    cls = RECORD_TYPES.get(value[1])
    if cls is None:
        raise MalformedRecord(f"metadata record of unknown kind {value[1]}")
    if not cls.__lowest__ <= value[2] <= cls.__highest__:
        raise MalformedRecord(f"{cls.__name__} version {value[2]} is outside {cls.__lowest__} to {cls.__highest__}")
    try:
        record, size = entity_reader(cls)(value, 3)
    except MalformedMessage as error:
        raise MalformedRecord(f"{cls.__name__} version {value[2]}: {error}") from error
    if size != len(value) - 3:
        raise MalformedRecord(f"{cls.__name__} version {value[2]} takes {size} of {len(value) - 3} bytes")
    return record
