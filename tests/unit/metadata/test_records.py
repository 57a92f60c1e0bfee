"""The metadata records against a log that Apache Kafka 4.3.1 wrote."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.metadata.records import (
    RECORD_TYPES,
    BrokerRegistrationChangeRecord,
    ConfigRecord,
    MalformedRecord,
    NoOpRecord,
    PartitionRecord,
    TopicRecord,
    decode_record,
    encode_record,
)

KAFKAS_LOG = Path(__file__).parents[2] / "golden" / "metadata" / "kafka-4.3.1.log"


def _varint(data: bytes, at: int) -> tuple[int, int]:
    shift = value = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at


def values_in(log: bytes) -> Iterator[bytes]:
    """The values of the records in a log of uncompressed batches, control batches left out."""
    at = 0
    while at + 61 <= len(log):
        (length,) = struct.unpack_from(">i", log, at + 8)
        (attributes,) = struct.unpack_from(">h", log, at + 21)
        (count,) = struct.unpack_from(">i", log, at + 57)
        here = at + 61
        for _ in range(count if not attributes & 0x20 else 0):
            size, here = _varint(log, here)
            end = here + size
            _, here = _varint(log, here + 1)
            _, here = _varint(log, here)
            key_size, here = _varint(log, here)
            value_size, here = _varint(log, here + max(key_size, 0))
            yield log[here : here + value_size]
            here = end
        at += 12 + length


def test_kafkas_own_metadata_log_is_read_and_written_back_to_the_same_bytes() -> None:
    kinds = set()
    for value in values_in(KAFKAS_LOG.read_bytes()):
        record = decode_record(value)
        kinds.add(type(record).__name__)
        assert encode_record(record) == value, record
    assert kinds >= {
        "RegisterBrokerRecord",
        "RegisterControllerRecord",
        "BrokerRegistrationChangeRecord",
        "TopicRecord",
        "PartitionRecord",
        "PartitionChangeRecord",
        "RemoveTopicRecord",
        "ConfigRecord",
        "FeatureLevelRecord",
        "ProducerIdsRecord",
        "BeginTransactionRecord",
        "EndTransactionRecord",
        "NoOpRecord",
    }


def test_the_values_of_kafkas_log_are_understood() -> None:
    records = [decode_record(value) for value in values_in(KAFKAS_LOG.read_bytes())]
    topics = [record.name for record in records if isinstance(record, TopicRecord)]
    assert topics == ["a", "orders", "manual", "orders2", "manual2"]
    configs = [record for record in records if isinstance(record, ConfigRecord)]
    assert ConfigRecord(resource_type=2, resource_name="orders", name="cleanup.policy", value="compact") in configs
    assert ConfigRecord(resource_type=2, resource_name="a", name="retention.ms", value=None) in configs


def test_optional_fields_survive() -> None:
    partition = PartitionRecord(
        partition_id=3,
        topic_id=uuid.UUID(int=7),
        replicas=(1, 2, 3),
        isr=(1,),
        removing_replicas=(2,),
        adding_replicas=(3,),
        leader=1,
        leader_epoch=4,
        partition_epoch=9,
        directories=(None, uuid.UUID(int=1), uuid.UUID(int=2)),
        leader_recovery_state=1,
        eligible_leader_replicas=(2,),
        last_known_elr=(),
    )
    change = BrokerRegistrationChangeRecord(broker_id=1, broker_epoch=2, log_dirs=(uuid.UUID(int=9),))
    for record in (partition, change):
        assert decode_record(encode_record(record)) == record


def test_every_kind_has_its_own_key() -> None:
    assert all(cls.__api_key__ == key for key, cls in RECORD_TYPES.items())
    assert len(RECORD_TYPES) == 16


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x01",
        b"\x00\x14\x00\x00",
        b"\x01\x63\x00\x00",
        b"\x01\x14\x05\x00",
        b"\x01\x14\x00",
        b"\x01\x14\x00\x00\x00",
        b"\x01\x02\x00\xff\xff\xff\xff\xff\xff\xff",
        b"\x01\x80\x01\x00",
    ],
)
def test_other_bytes_are_refused(value: bytes) -> None:
    with pytest.raises(MalformedRecord):
        decode_record(value)


def test_damage_never_escapes_as_another_error() -> None:
    for value in values_in(KAFKAS_LOG.read_bytes()):
        for cut in range(len(value)):
            with pytest.raises(MalformedRecord):
                decode_record(value[:cut])
    assert decode_record(encode_record(NoOpRecord())) == NoOpRecord()
