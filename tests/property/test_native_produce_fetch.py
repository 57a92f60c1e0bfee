"""Produce and Fetch of the native core in every version, encoded by kio's schemas, against a model of one log."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ottla._native import build_batch, decode_batches
from ottla.errors import ErrorCode
from ottla.protocol.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchTopic,
    ForgottenTopic,
    PartitionData,
)
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    TopicProduceData,
)
from ottla.protocol.versions import API_VERSIONS, PRODUCE_VERSION_MIN, ApiKey
from tests.property.native_lab import NativeLab, wall_ms

TOPICS = {"a": 2, "b": 1}
TOPIC_IDS_FROM = 13
PRODUCE_VERSIONS = range(PRODUCE_VERSION_MIN, API_VERSIONS[ApiKey.PRODUCE][1] + 1)
FETCH_VERSIONS = range(API_VERSIONS[ApiKey.FETCH][0], API_VERSIONS[ApiKey.FETCH][1] + 1)
SEEDS = st.integers(0, 2**32 - 1)
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[NativeLab]:
    with NativeLab(tmp_path / "data", TOPICS) as lab:
        yield lab


def topic_fields(lab: NativeLab, topic: str, version: int) -> dict[str, Any]:
    if version >= TOPIC_IDS_FROM:
        return {"topic_id": lab.topic_ids.get(topic) or uuid.uuid5(uuid.NAMESPACE_DNS, topic)}
    return {"name": topic}


def name_of(lab: NativeLab, entry: Any, version: int) -> str:
    if version < TOPIC_IDS_FROM:
        return str(getattr(entry, "name", None) or getattr(entry, "topic", ""))
    known = {topic_id: topic for topic, topic_id in lab.topic_ids.items()}
    return known.get(entry.topic_id, "absent")


class Sent:
    """A batch and what is to be answered for it, apart from the partition."""

    def __init__(self, rng: Random) -> None:
        self.count = rng.choice((1, 1, 2, 5))
        values = [rng.randbytes(rng.choice((0, 1, 100, 3000))) for _ in range(self.count)]
        batch = build_batch([(None, value, wall_ms(), []) for value in values])
        self.error = ErrorCode.NONE
        match rng.randrange(8):
            case 0:
                self.records: bytes | None = None
                self.error = ErrorCode.INVALID_RECORD
            case 1:
                self.records = b""
                self.error = ErrorCode.INVALID_RECORD
            case 2:
                self.records = batch[:17] + bytes([batch[17] ^ 1]) + batch[18:]
                self.error = ErrorCode.CORRUPT_MESSAGE
            case _:
                self.records = batch


@given(seed=SEEDS)
@SETTINGS
def test_produce_is_answered_for_each_partition(lab: NativeLab, seed: int) -> None:
    rng = Random(seed)
    version = rng.choice(PRODUCE_VERSIONS)
    ends = {key: partition.offsets().log_end_offset for key, partition in lab.partitions.items()}
    wanted, expected = [], []
    for topic in rng.sample(["a", "b", "absent"], rng.randint(0, 3)):
        data = []
        for index in rng.sample([-1, 0, 1, 2], rng.randint(0, 3)):
            sent = Sent(rng)
            data.append(PartitionProduceData(index=index, records=sent.records))
            code, base_offset = sent.error, -1
            if topic == "absent" and version >= TOPIC_IDS_FROM:
                code = ErrorCode.UNKNOWN_TOPIC_ID
            elif (topic, index) not in ends:
                code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            elif code is ErrorCode.NONE:
                base_offset = ends[topic, index]
                ends[topic, index] += sent.count
            expected.append((topic, index, code, base_offset))
        wanted.append(TopicProduceData(**topic_fields(lab, topic, version), partition_data=tuple(data)))
    request = ProduceRequest(acks=rng.choice((1, -1)), timeout_ms=30_000, topic_data=tuple(wanted))
    response = lab.ask(ApiKey.PRODUCE, version, request)
    assert response.throttle_time_ms == 0
    answered = [
        (name_of(lab, topic, version), partition.index, partition.error_code, partition.base_offset)
        for topic in response.responses
        for partition in topic.partition_responses
    ]
    assert answered == expected
    for topic in response.responses:
        for partition in topic.partition_responses:
            check_success(partition, version)
    assert {key: partition.offsets().high_watermark for key, partition in lab.partitions.items()} == ends


def check_success(partition: PartitionProduceResponse, version: int) -> None:
    if partition.error_code is ErrorCode.NONE:
        assert partition.log_append_time_ms == -1
        assert partition.log_start_offset == (0 if version >= 5 else -1)
        assert partition.record_errors == ()
        assert partition.error_message is None


@pytest.mark.parametrize("version", PRODUCE_VERSIONS)
def test_the_records_to_blame_are_named_from_version_8_on(lab: NativeLab, version: int) -> None:
    lab.plane.update_config("b", 0, {"cleanup.policy": "compact"})
    batch = build_batch([(key, b"v", wall_ms(), []) for key in (b"k", None, b"k", None)])
    data = TopicProduceData(
        **topic_fields(lab, "b", version), partition_data=(PartitionProduceData(index=0, records=batch),)
    )
    response = lab.ask(ApiKey.PRODUCE, version, ProduceRequest(acks=-1, timeout_ms=1000, topic_data=(data,)))
    (partition,) = response.responses[0].partition_responses
    assert partition.error_code is ErrorCode.INVALID_RECORD
    assert [error.batch_index for error in partition.record_errors] == ([1, 3] if version >= 8 else [])
    assert (partition.error_message is not None) == (version >= 8)


class Log:
    """What was written to one partition: (base offset, last offset, bytes) of each batch."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, bytes]] = []

    @property
    def end_offset(self) -> int:
        return self.batches[-1][1] + 1 if self.batches else 0

    def from_offset(self, offset: int) -> list[bytes]:
        return [batch for _, last_offset, batch in self.batches if last_offset >= offset]


def fill(lab: NativeLab, rng: Random) -> dict[tuple[str, int], Log]:
    logs = {key: Log() for key in lab.partitions}
    for _ in range(rng.randint(0, 20)):
        key = rng.choice(sorted(logs))
        count = rng.choice((1, 3))
        values = [rng.randbytes(rng.choice((1, 50, 2000))) for _ in range(count)]
        base_offset = logs[key].end_offset
        batch = build_batch([(b"k", value, wall_ms(), []) for value in values])
        lab.partitions[key].append_batch(batch, wall_ms=wall_ms(), leader_epoch=0)
        stamped = struct.pack(">q", base_offset) + batch[8:12] + struct.pack(">i", 0) + batch[16:]
        logs[key].batches.append((base_offset, base_offset + count - 1, stamped))
    while any(lab.partitions[key].offsets().high_watermark < log.end_offset for key, log in logs.items()):
        lab.turn()
    return logs


def expected_error(
    logs: dict[tuple[str, int], Log], topic: str, wanted: FetchPartition, version: int
) -> ErrorCode | None:
    log = logs.get((topic, wanted.partition))
    if topic == "absent" and version >= TOPIC_IDS_FROM:
        return ErrorCode.UNKNOWN_TOPIC_ID
    if log is None:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if version >= 9 and wanted.current_leader_epoch > 0:
        return ErrorCode.UNKNOWN_LEADER_EPOCH
    if wanted.fetch_offset < 0 or (wanted.fetch_offset > log.end_offset and not diverges(log, wanted, version)):
        return ErrorCode.OFFSET_OUT_OF_RANGE
    if wanted.partition_max_bytes < 0 and wanted.fetch_offset < log.end_offset:
        return ErrorCode.UNKNOWN_SERVER_ERROR
    return None


def diverges(log: Log, wanted: FetchPartition, version: int) -> bool:
    """A reader that says what it read last is told where that epoch ended, if it is beyond (KIP-595)."""
    return version >= 12 and wanted.last_fetched_epoch == 0 and wanted.fetch_offset > log.end_offset


@given(seed=SEEDS)
@SETTINGS
def test_fetch_returns_what_was_written_within_its_limits(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = Random(seed)
    with NativeLab(tmp_path_factory.mktemp("data"), TOPICS) as lab:
        logs = fill(lab, rng)
        for _ in range(5):
            version = rng.choice(FETCH_VERSIONS)
            check_fetch(lab, logs, rng, version)


def check_fetch(lab: NativeLab, logs: dict[tuple[str, int], Log], rng: Random, version: int) -> None:
    sizes = (-1, 0, 1, 70, 500, 5000, 1 << 20)
    wanted = {
        topic: tuple(
            FetchPartition(
                partition=index,
                fetch_offset=rng.choice((-1, 0, 0, 1, 2, 3, 10, 100)),
                partition_max_bytes=rng.choice(sizes),
                current_leader_epoch=rng.choice((-1, 0, 0, 3)),
                last_fetched_epoch=rng.choice((-1, 0)),
                high_watermark=rng.choice((0, 2**63 - 1)),
                replica_directory_id=uuid.UUID(int=rng.getrandbits(128)),
            )
            for index in rng.sample([0, 1, 2], rng.randint(1, 3))
        )
        for topic in rng.sample(["a", "b", "absent"], rng.randint(0, 3))
    }
    names = {
        topic: ({"topic_id": fields["topic_id"]} if "topic_id" in fields else {"topic": topic})
        for topic in wanted
        for fields in [topic_fields(lab, topic, version)]
    }
    max_bytes = rng.choice((0, 1, 500, 5000, 1 << 20))
    isolation_level = rng.choice((0, 1))
    forgotten = tuple(ForgottenTopic(**names[topic], partitions=(0, 7)) for topic in [*wanted][:1] if version >= 7)
    request = FetchRequest(
        max_wait_ms=rng.choice((0, 2)),
        min_bytes=rng.choice((0, 1, 1 << 20)),
        max_bytes=max_bytes,
        isolation_level=isolation_level,
        topics=tuple(FetchTopic(**names[topic], partitions=partitions) for topic, partitions in wanted.items()),
        forgotten_topics_data=forgotten,
        rack_id="rack",
        cluster_id=rng.choice((None, "cluster")),
        session_id=0,
        session_epoch=-1,
    )
    response = lab.ask(ApiKey.FETCH, version, request)
    assert (response.throttle_time_ms, response.error_code, response.session_id) == (0, ErrorCode.NONE, 0)
    assert [name_of(lab, topic, version) for topic in response.responses] == [*wanted]
    left_bytes, is_first = max_bytes, True
    for topic in response.responses:
        name = name_of(lab, topic, version)
        assert [partition.partition_index for partition in topic.partitions] == [p.partition for p in wanted[name]]
        for asked, partition in zip(wanted[name], topic.partitions, strict=True):
            error = expected_error(logs, name, asked, version)
            if error is not None:
                assert (partition.error_code, partition.high_watermark, partition.records) == (error, -1, b"")
                continue
            log = logs[name, asked.partition]
            limit = min(asked.partition_max_bytes, left_bytes)
            check_records(log.from_offset(asked.fetch_offset), partition.records or b"", limit, is_first)
            left_bytes = max(0, left_bytes - len(partition.records or b""))
            is_first = is_first and not partition.records
            check_offsets(log, partition, version, isolation_level)
            told = partition.diverging_epoch.end_offset
            assert told == (log.end_offset if diverges(log, asked, version) else -1)


INDEX_INTERVAL_BYTES = 4096


def check_records(batches: list[bytes], records: bytes, limit: int, is_first: bool) -> None:
    """Whole batches as written; the first of all comes however large it is (KIP-74).

    A long read may end at an entry of the offset index rather than at the last batch that fits.
    """
    assert b"".join(batches).startswith(records)
    whole, size = 0, 0
    for batch in batches:
        if size + len(batch) > limit and not (is_first and whole == 0):
            break
        whole, size = whole + 1, size + len(batch)
    returned = len(decode_batches(records))
    assert len(records) == sum(map(len, batches[:returned]))
    assert min(whole, 1) <= returned <= whole
    if returned < whole:
        assert len(records) > size - INDEX_INTERVAL_BYTES - 2 * max(map(len, batches))


def check_offsets(log: Log, partition: PartitionData, version: int, isolation_level: int) -> None:
    assert partition.error_code is ErrorCode.NONE
    assert (partition.high_watermark, partition.last_stable_offset) == (log.end_offset, log.end_offset)
    assert partition.log_start_offset == (0 if version >= 5 else -1)
    assert partition.aborted_transactions == (() if isolation_level else None)
    assert partition.preferred_read_replica == -1


@pytest.mark.parametrize("version", [version for version in FETCH_VERSIONS if version >= 12])
def test_a_diverging_epoch_is_told_from_version_12_on(lab: NativeLab, version: int) -> None:
    logs = fill(lab, Random(1))
    end_offset = logs["a", 0].end_offset
    lab.plane.set_leadership("a", 0, 4, 0, 0)
    wanted = FetchPartition(
        partition=0, fetch_offset=end_offset + 1, last_fetched_epoch=0, partition_max_bytes=100, current_leader_epoch=4
    )
    lab.partitions["a", 0].append_batch(build_batch([(b"k", b"v", wall_ms(), [])] * 3), wall_ms=wall_ms())
    fields = topic_fields(lab, "a", version)
    topic = FetchTopic(**({"topic": "a"} if "name" in fields else fields), partitions=(wanted,))
    response = lab.ask(ApiKey.FETCH, version, FetchRequest(max_wait_ms=0, topics=(topic,)))
    (partition,) = response.responses[0].partitions
    assert (partition.error_code, partition.records) == (ErrorCode.NONE, b"")
    assert (partition.diverging_epoch.epoch, partition.diverging_epoch.end_offset) == (0, end_offset)


@pytest.mark.parametrize("version", [12, 15, 16, 18])
def test_an_old_leader_epoch_is_told_the_leader_from_version_16_on(lab: NativeLab, version: int) -> None:
    lab.plane.set_leadership("a", 0, 4, 0, 0)
    fields = topic_fields(lab, "a", version)
    wanted = FetchPartition(partition=0, current_leader_epoch=2, partition_max_bytes=100)
    topic = FetchTopic(**({"topic": "a"} if "name" in fields else fields), partitions=(wanted,))
    response = lab.ask(ApiKey.FETCH, version, FetchRequest(max_wait_ms=0, topics=(topic,)))
    (partition,) = response.responses[0].partitions
    assert partition.error_code is ErrorCode.FENCED_LEADER_EPOCH
    leader = partition.current_leader
    assert (leader.leader_id, leader.leader_epoch) == ((1, 4) if version >= 16 else (-1, -1))
