"""Our records against those that Apache Kafka 4.3.1 wrote, and against its own decoder's reading of them."""

from __future__ import annotations

import base64
import dataclasses
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinator.group import consumer_records, records, share_records
from ottla.coordinator.group.consumer_records import KEYS, ConsumerKey
from ottla.coordinator.group.record_schema import MalformedRecord, RecordKind
from ottla.coordinator.group.records import GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue
from ottla.coordinator.group.share_records import ShareKey
from ottla.coordinator.group.subscription import subscribed_topics
from ottla.coordinator.shard import CoordinatorRecord
from tests.unit.coordinator.group.context import GroupContext

GOLDEN = json.loads((Path(__file__).parents[3] / "golden/consumer_offsets/kafka-4.3.1.json").read_text())


def of_kind(*kinds: RecordKind) -> list[tuple[bytes, bytes | None, Any, Any]]:
    """(key, value, Kafka's reading of the key, of the value) of records of these kinds."""
    found = []
    for record in GOLDEN:
        key = bytes.fromhex(record["key"])
        if int.from_bytes(key[:2], "big") in kinds:
            value = None if record["value"] is None else bytes.fromhex(record["value"])
            reading = None if value is None else json.loads(record["kafka_value"])
            found.append((key, value, json.loads(record["kafka_key"])["data"], reading))
    assert found
    return found


@pytest.mark.parametrize(("key", "value", "kafka_key", "kafka_value"), of_kind(RecordKind.OFFSET_COMMIT))
def test_offset_commits_are_kafkas_byte_for_byte(
    key: bytes, value: bytes | None, kafka_key: Any, kafka_value: Any
) -> None:
    decoded_key = records.decode_key(key)
    assert isinstance(decoded_key, OffsetCommitKey)
    at = (decoded_key.group, decoded_key.topic, decoded_key.partition)
    assert at == (kafka_key["group"], kafka_key["topic"], kafka_key["partition"])
    if value is None:
        assert records.offset_commit_tombstone(*at)[:2] == (key, None)
        return
    decoded = records.decode_offset_commit_value(value)
    assert records.offset_commit(*at, decoded)[:2] == (key, value)
    data = kafka_value["data"]
    assert (decoded.offset, decoded.metadata, decoded.commit_timestamp_ms) == (
        data["offset"],
        data["metadata"],
        data["commitTimestamp"],
    )
    if kafka_value["version"] == "1":
        assert decoded.expire_timestamp_ms == data["expireTimestamp"]
    else:
        assert decoded.leader_epoch == data["leaderEpoch"]
        encoded = base64.urlsafe_b64encode(decoded.topic_id.bytes).decode().rstrip("=") if decoded.topic_id else None
        assert encoded == data.get("topicId")


@pytest.mark.parametrize(("key", "value", "kafka_key", "kafka_value"), of_kind(RecordKind.GROUP_METADATA))
def test_group_metadata_is_kafkas_byte_for_byte(
    key: bytes, value: bytes | None, kafka_key: Any, kafka_value: Any
) -> None:
    assert records.decode_key(key) == GroupMetadataKey(group=kafka_key["group"])
    if value is None:
        assert records.group_metadata_tombstone(kafka_key["group"])[:2] == (key, None)
        return
    decoded = records.decode_group_metadata_value(value)
    assert records.group_metadata(kafka_key["group"], decoded)[:2] == (key, value)
    data = kafka_value["data"]
    assert (decoded.protocol_type, decoded.generation, decoded.protocol, decoded.leader) == (
        data["protocolType"],
        data["generation"],
        data["protocol"],
        data["leader"],
    )
    assert decoded.current_state_timestamp_ms == data["currentStateTimestamp"]
    for ours, kafkas in zip(decoded.members, data["members"], strict=True):
        assert (ours.member_id, ours.group_instance_id, ours.client_id, ours.client_host) == (
            kafkas["memberId"],
            kafkas["groupInstanceId"],
            kafkas["clientId"],
            kafkas["clientHost"],
        )
        assert (ours.rebalance_timeout_ms, ours.session_timeout_ms) == (
            kafkas["rebalanceTimeout"],
            kafkas["sessionTimeout"],
        )
        if isinstance(kafkas["subscription"], dict):
            assert subscribed_topics(ours.subscription) == set(kafkas["subscription"]["topics"])


@pytest.mark.parametrize("kind", set(RecordKind) - {RecordKind.LEGACY_OFFSET_COMMIT, RecordKind.OFFSET_COMMIT})
def test_records_of_kinds_that_are_not_served_are_recognised(kind: RecordKind) -> None:
    served = {RecordKind.GROUP_METADATA, *KEYS, *share_records.KEYS}
    key = kind.to_bytes(2, "big") + b"\0\1g\0\1m"
    assert isinstance(records.decode_key(key), int) == (kind not in served)


@pytest.mark.parametrize(("key", "value", "kafka_key", "kafka_value"), of_kind(*map(RecordKind, share_records.KEYS)))
def test_records_of_share_groups_are_kafkas_byte_for_byte(
    key: bytes, value: bytes | None, kafka_key: Any, kafka_value: Any
) -> None:
    content = records.decode(key, value)
    assert not isinstance(content, int)
    assert isinstance(content.key, ShareKey)
    assert share_records.record(content.key, content.value) == (key, value, content)  # type: ignore[arg-type]
    assert comparable(content.key) == list(kafka_key.values())
    if content.value is not None:
        assert comparable(content.value) == as_kafka_reads(kafka_value["data"])


@pytest.mark.parametrize(("key", "value", "kafka_key", "kafka_value"), of_kind(*map(RecordKind, KEYS)))
def test_records_of_consumer_groups_are_kafkas_byte_for_byte(
    key: bytes, value: bytes | None, kafka_key: Any, kafka_value: Any
) -> None:
    content = records.decode(key, value)
    assert not isinstance(content, int)
    assert isinstance(content.key, ConsumerKey)
    assert consumer_records.record(content.key, content.value) == (key, value, content)  # type: ignore[arg-type]
    assert comparable(content.key) == list(kafka_key.values())
    if content.value is not None:
        assert comparable(content.value) == as_kafka_reads(kafka_value["data"])


def comparable(entity: Any) -> list[Any]:
    """The values of an entity in the order of its fields, nested ones likewise; those that are left out at the end."""
    found = []
    for f in dataclasses.fields(entity):
        value = getattr(entity, f.name)
        if isinstance(value, tuple):
            value = [comparable(item) if dataclasses.is_dataclass(item) else item for item in value]
        elif dataclasses.is_dataclass(value):
            value = comparable(value)
        elif isinstance(value, uuid.UUID):
            value = base64.urlsafe_b64encode(value.bytes).decode().rstrip("=")
        elif isinstance(value, bytes):
            value = base64.b64encode(value).decode()
        if "tag" not in f.metadata or value != f.default:
            found.append(value)
    return found


def as_kafka_reads(data: Any) -> Any:
    if isinstance(data, dict):
        return [as_kafka_reads(value) for value in data.values()]
    return [as_kafka_reads(item) for item in data] if isinstance(data, list) else data


def test_values_of_older_kafkas_are_read() -> None:
    # Hand-made after the schemas: a 4.3 broker does not write these any more.
    legacy = b"\0\0" + (7).to_bytes(8, "big") + b"\0\1m" + (9).to_bytes(8, "big")
    assert records.decode_offset_commit_value(legacy) == OffsetCommitValue(7, -1, "m", 9)
    version_3 = b"\0\3" + (7).to_bytes(8, "big") + (2).to_bytes(4, "big") + b"\0\1m" + (9).to_bytes(8, "big")
    assert records.decode_offset_commit_value(version_3) == OffsetCommitValue(7, 2, "m", 9)
    member = b"\0\1m\0\1c\0\1h" + (10).to_bytes(4, "big") + b"\0\0\0\1s\0\0\0\1a"
    group_0 = b"\0\0\0\1t\0\0\0\5\0\1p\0\1m" + b"\0\0\0\1" + member
    decoded = records.decode_group_metadata_value(group_0)
    assert (decoded.generation, decoded.current_state_timestamp_ms) == (5, -1)
    assert (decoded.members[0].rebalance_timeout_ms, decoded.members[0].assignment) == (-1, b"a")


@given(
    st.text(max_size=20),
    st.text(max_size=20),
    st.integers(0, 2**31 - 1),
    st.builds(
        OffsetCommitValue,
        st.integers(-(2**63), 2**63 - 1),
        st.integers(-1, 2**31 - 1),
        st.text(max_size=300),
        st.integers(-1, 2**63 - 1),
        st.just(-1),
        st.none() | st.uuids().filter(lambda u: u != uuid.UUID(int=0)),
        st.just(-1),
    ),
)
def test_offset_commits_survive_the_round_trip(
    group: str, topic: str, partition: int, value: OffsetCommitValue
) -> None:
    record = records.offset_commit(group, topic, partition, value)
    assert records.decode_key(record.key) == OffsetCommitKey(group=group, topic=topic, partition=partition)
    assert record.value is not None
    assert records.decode_offset_commit_value(record.value) == value


@given(st.binary(max_size=80), st.sampled_from(GOLDEN), st.data())
def test_broken_bytes_are_malformed_and_nothing_worse(noise: bytes, golden: Any, data: st.DataObject) -> None:
    def attempt(key: bytes, value: bytes) -> None:
        for decode, given_bytes in (
            (lambda key: records.decode(key, value), key),
            (records.decode_key, key),
            (records.decode_offset_commit_value, value),
            (records.decode_group_metadata_value, value),
        ):
            try:
                decode(given_bytes)
            except MalformedRecord:
                continue

    attempt(noise, noise)
    key, value = bytes.fromhex(golden["key"]), bytes.fromhex(golden["value"] or "")
    attempt(key[: data.draw(st.integers(0, len(key)))], value[: data.draw(st.integers(0, len(value)))])


@given(st.binary(max_size=40))
def test_any_bytes_may_stand_for_a_subscription(noise: bytes) -> None:
    subscribed_topics(noise)
    subscribed_topics(b"\0\0" + noise)


def test_a_subscription_that_promises_more_than_it_holds_is_none() -> None:
    assert subscribed_topics(b"\0\1\0\0\0\2\0\1a\0\1b") == {"a", "b"}
    assert subscribed_topics(b"\0\1\0\0\0\2\0\1a") is None
    assert subscribed_topics(b"\xff\xff\0\0\0\0") is None


def test_an_empty_group_has_no_protocol() -> None:
    value = records.empty_group_metadata("g", wall_ms=5).value
    assert value is not None
    assert records.decode_group_metadata_value(value) == GroupMetadataValue(
        protocol_type="", generation=0, protocol=None, leader=None, current_state_timestamp_ms=5, members=()
    )


def test_a_log_written_by_kafka_makes_its_groups() -> None:
    group = GroupContext(
        [
            CoordinatorRecord(bytes.fromhex(r["key"]), None if r["value"] is None else bytes.fromhex(r["value"]))
            for r in GOLDEN
        ]
    )
    assert set(group.list().values()) == {"Empty", "Stable"}
    assert group.machine.table.malformed_records == 0
    assert not group.machine.table.foreign_records
    group.advance(60_000)
    assert set(group.list().values()) == {"Empty"}
    assert group.restarted().durable() == group.durable()
