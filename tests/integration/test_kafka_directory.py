"""A partition directory that Apache Kafka wrote (`tests.golden.directory`) opens here and serves the same records."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ottla._native import RecordBatch, decode_batches
from ottla.errors import ErrorCode
from ottla.offline.check import Summary, check_directory
from ottla.offline.finding import Severity
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess
from tests.golden.batch import T0_MS
from tests.golden.lab import Lab

WRITTEN_BY_KAFKA = Path(__file__).parents[1] / "golden" / "directory"
CONFIGS = {"plain": {"segment_ms": "60000"}, "compact": {"segment_ms": "1000", "cleanup_policy": "compact"}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A broker whose topics of these names lie on Kafka's files."""
    data_dir = tmp_path_factory.mktemp("adopted") / "data"
    broker = BrokerProcess(data_dir)
    with broker, closing(Lab(("127.0.0.1", broker.port))) as lab:
        if ApiKey.CREATE_TOPICS not in lab.advertised:
            pytest.skip("CREATE_TOPICS is not advertised")
        for topic, configs in CONFIGS.items():
            lab.topic(topic, **configs)
    for topic in CONFIGS:
        ours = data_dir / f"{lab.name(topic)}-0"
        for file in ours.iterdir():
            if file.name != "partition.metadata":  # the topic's id is the cluster's own
                file.unlink()
        for file in (WRITTEN_BY_KAFKA / f"{topic}-0").iterdir():
            if file.name != "partition.metadata":
                shutil.copy(file, ours)
    with broker, closing(lab):
        for topic in CONFIGS:
            lab.wait_for_topic(lab.name(topic))
        yield lab


def fetch_all(lab: Lab, topic: str) -> list[RecordBatch]:
    batches: list[RecordBatch] = []
    end = lab.end_offset(topic)
    while not batches or batches[-1].last_offset + 1 < end:
        offset = batches[-1].last_offset + 1 if batches else 0
        partition = FetchPartition(fetch_offset=offset, partition_max_bytes=2000)
        request = FetchRequest(max_wait_ms=100, topics=(FetchTopic(topic=topic, partitions=(partition,)),))
        answer = lab.call(ApiKey.FETCH, request, version=12).responses[0].partitions[0]
        assert answer.error_code is ErrorCode.NONE
        found = decode_batches(answer.records or b"")
        assert found, f"nothing at offset {offset} of {end}"
        batches += found
    return batches


def expected(topic: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((WRITTEN_BY_KAFKA / f"{topic}.json").read_text())
    return found


@pytest.mark.parametrize("topic", CONFIGS)
def test_serves_the_same_records(lab: Lab, topic: str) -> None:
    found = []
    for batch in fetch_all(lab, lab.name(topic)):
        for offset, time, key, value, headers in batch.records:
            record = {"offset": offset, "time": time, "key": (key or b"").decode()}
            record["value"] = None if value is None else value.decode()
            if headers:
                record["headers"] = [[name, None if data is None else data.decode()] for name, data in headers]
            found.append(record)
    assert found == expected(topic)


@pytest.mark.parametrize("topic", CONFIGS)
def test_ends_where_kafka_ended(lab: Lab, topic: str) -> None:
    assert lab.end_offset(lab.name(topic)) == {"plain": 300, "compact": 60}[topic]


@pytest.mark.parametrize("after_ms", [0, 5, 99_999, 100_019, 100_020, 200_001, 250_000, 360_019])
def test_finds_offsets_by_time(lab: Lab, after_ms: int) -> None:
    wanted = ListOffsetsPartition(partition_index=0, timestamp=T0_MS + after_ms)
    request = ListOffsetsRequest(
        replica_id=-1, topics=(ListOffsetsTopic(name=lab.name("plain"), partitions=(wanted,)),)
    )
    answer = lab.call(ApiKey.LIST_OFFSETS, request).topics[0].partitions[0]
    first = next(record for record in expected("plain") if record["time"] >= T0_MS + after_ms)
    assert (answer.offset, answer.timestamp) == (first["offset"], first["time"])


@pytest.mark.parametrize("topic", CONFIGS)
def test_offline_check_finds_nothing(topic: str) -> None:
    summary = Summary()
    findings = list(check_directory(WRITTEN_BY_KAFKA / f"{topic}-0", summary))
    assert [finding for finding in findings if finding.severity is Severity.DAMAGE] == []
    assert summary.records == len(expected(topic))
