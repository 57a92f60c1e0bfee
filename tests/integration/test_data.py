"""Records through real sockets: produced, fetched, deleted, and still there after a stop, a kill and a full restart."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from ottla._native import build_batch
from ottla.errors import ErrorCode
from ottla.protocol.messages.delete_records import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic
from ottla.protocol.messages.describe_log_dirs import DescribeLogDirsRequest
from ottla.protocol.messages.describe_producers import DescribeProducersRequest, TopicRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess, EmbeddedBroker
from tests.integration.wire import Closed, Wire


def list_offset(wire: Wire, topic: str, timestamp: int) -> tuple[ErrorCode, int]:
    partition = ListOffsetsPartition(partition_index=0, timestamp=timestamp)
    request = ListOffsetsRequest(replica_id=-1, topics=(ListOffsetsTopic(name=topic, partitions=(partition,)),))
    found = wire.ask(ApiKey.LIST_OFFSETS, 7, request).topics[0].partitions[0]
    return found.error_code, found.offset


def producer_id(wire: Wire) -> int:
    response = wire.ask(ApiKey.INIT_PRODUCER_ID, 4, InitProducerIdRequest(transaction_timeout_ms=1000))
    assert response.error_code is ErrorCode.NONE
    return int(response.producer_id)


def test_what_is_produced_is_fetched(wire: Wire) -> None:
    wire.create("there-and-back")
    answers = [wire.produce("there-and-back", b"%d" % n, b"again") for n in range(3)]
    assert [(a.error_code, a.base_offset) for a in answers] == [(ErrorCode.NONE, 2 * n) for n in range(3)]
    assert wire.values("there-and-back") == [b"0", b"again", b"1", b"again", b"2", b"again"]


def test_a_waiting_fetch_is_answered_by_another_connections_produce(broker: EmbeddedBroker, wire: Wire) -> None:
    wire.create("waited-for")
    with Wire(broker.port) as other:
        found: list[bytes | None] = []
        reader = threading.Thread(
            target=lambda: found.append(other.fetch("waited-for", 0, max_wait_ms=8000).records), daemon=True
        )
        reader.start()
        assert wire.produce("waited-for", b"now").error_code is ErrorCode.NONE
        reader.join(timeout=4)  # half of what the fetch would wait
        assert found
        assert found[0]


def test_requests_behind_a_waiting_fetch_are_answered_after_it(broker: EmbeddedBroker, wire: Wire) -> None:
    wire.create("in-order")
    with Wire(broker.port) as other:
        done = threading.Event()
        answers: list[object] = []

        def read_then_ask() -> None:
            answers.append(other.fetch("in-order", 0, max_wait_ms=300).error_code)
            answers.append(other.ask(ApiKey.METADATA, 9, MetadataRequest(topics=())).error_code)
            done.set()

        threading.Thread(target=read_then_ask, daemon=True).start()
        assert done.wait(5)
    assert answers == [ErrorCode.NONE, ErrorCode.NONE]


def test_unknown_topics_are_refused_by_produce_and_fetch(wire: Wire) -> None:
    assert wire.produce("absent", b"x").error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert wire.fetch("absent").error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_topics_are_not_made_where_that_is_off(data_dir: Path) -> None:
    request = MetadataRequest(topics=(MetadataRequestTopic(name="wanted"),))
    with EmbeddedBroker(data_dir, settings={"auto.create.topics.enable": "false"}) as broker, Wire(broker.port) as wire:
        (topic,) = wire.ask(ApiKey.METADATA, 9, request).topics
        assert topic.error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_new_topics_have_the_configured_number_of_partitions(data_dir: Path) -> None:
    request = MetadataRequest(topics=(MetadataRequestTopic(name="wide"),))
    with EmbeddedBroker(data_dir, settings={"num.partitions": "5"}) as broker, Wire(broker.port) as wire:
        (topic,) = wire.ask(ApiKey.METADATA, 9, request).topics
        assert sorted(p.partition_index for p in topic.partitions) == [0, 1, 2, 3, 4]
        assert wire.produce("wide", b"x", partition=4).error_code is ErrorCode.NONE


def test_deleted_records_are_gone(wire: Wire) -> None:
    wire.create("shortened")
    wire.produce("shortened", *(b"%d" % n for n in range(10)))
    partition = DeleteRecordsPartition(partition_index=0, offset=4)
    request = DeleteRecordsRequest(
        topics=(DeleteRecordsTopic(name="shortened", partitions=(partition,)),), timeout_ms=1000
    )
    (answer,) = wire.ask(ApiKey.DELETE_RECORDS, 2, request).topics[0].partitions
    assert (answer.error_code, answer.low_watermark) == (ErrorCode.NONE, 4)
    assert list_offset(wire, "shortened", -2) == (ErrorCode.NONE, 4)
    assert wire.fetch("shortened", 3).error_code is ErrorCode.OFFSET_OUT_OF_RANGE
    assert list_offset(wire, "shortened", -1) == (ErrorCode.NONE, 10)


def test_log_directories_are_described_with_their_partitions(broker: EmbeddedBroker, wire: Wire) -> None:
    wire.create("sized")
    wire.produce("sized", b"x" * 1000)
    (described,) = wire.ask(ApiKey.DESCRIBE_LOG_DIRS, 4, DescribeLogDirsRequest(topics=None)).results
    sizes = {topic.name: topic.partitions[0].partition_size for topic in described.topics}
    assert sizes["sized"] > 1000
    assert described.total_bytes >= described.usable_bytes > 0


@pytest.mark.parametrize("ending", ["terminate", "kill"])
def test_a_broker_comes_back_with_everything(data_dir: Path, ending: str) -> None:
    broker = BrokerProcess(data_dir).start()
    with Wire(broker.port) as wire:
        wire.create("kept")
        wire.produce("kept", b"a", b"b")
        first_id = producer_id(wire)
        (topic,) = wire.ask(ApiKey.METADATA, 12, MetadataRequest(topics=(MetadataRequestTopic(name="kept"),))).topics
    getattr(broker, ending)()
    with broker, Wire(broker.port) as wire:
        assert wire.values("kept") == [b"a", b"b"]
        assert wire.produce("kept", b"c").base_offset == 2
        assert producer_id(wire) > first_id
        (again,) = wire.ask(ApiKey.METADATA, 12, MetadataRequest(topics=(MetadataRequestTopic(name="kept"),))).topics
        assert again.topic_id == topic.topic_id
        assert again.partitions[0].leader_epoch > topic.partitions[0].leader_epoch


@pytest.mark.parametrize("ending", ["terminate", "kill"])
def test_nothing_acknowledged_is_lost_when_the_broker_ends_under_load(data_dir: Path, ending: str) -> None:
    broker = BrokerProcess(data_dir).start()
    acknowledged: list[bytes] = []
    started = threading.Event()

    def produce() -> None:
        with Wire(broker.port) as wire:
            wire.create("loaded")
            try:
                for n in range(1_000_000):
                    value = b"%d" % n
                    if wire.produce("loaded", value).error_code is not ErrorCode.NONE:
                        return
                    acknowledged.append(value)
                    if n == 200:
                        started.set()
            except (Closed, OSError):
                started.set()

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    assert started.wait(10)
    getattr(broker, ending)()
    producer.join(timeout=10)
    assert len(acknowledged) > 200
    with broker, Wire(broker.port) as wire:
        found = wire.values("loaded")
    # The one after the last acknowledged was perhaps written and never answered.
    assert found[: len(acknowledged)] == acknowledged
    assert len(found) <= len(acknowledged) + 1


def test_a_directory_that_the_metadata_does_not_know_is_set_aside(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir) as broker, Wire(broker.port) as wire:
        wire.create("known")
        wire.produce("known", b"kept")
    ghost = data_dir / "ghost-0"
    ghost.mkdir()
    (ghost / "partition.metadata").write_text("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAKg\n")
    with EmbeddedBroker(data_dir) as broker, Wire(broker.port) as wire:
        wire.create("ghost")
        assert wire.produce("ghost", b"new").base_offset == 0
        assert wire.values("known") == [b"kept"]
    with EmbeddedBroker(data_dir) as broker, Wire(broker.port) as wire:
        assert wire.values("known") == [b"kept"]
        assert wire.values("ghost") == [b"new"]
    assert (data_dir / "__cluster_metadata-0").is_dir()
    (aside,) = data_dir.glob("ghost-0.*-stray")
    assert "AAAAAAAAAAAAAAAAAAAAKg" in (aside / "partition.metadata").read_text()


def test_a_partition_of_a_deleted_namesake_is_set_aside(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir) as broker, Wire(broker.port) as wire:
        wire.create("reborn")
        wire.produce("reborn", b"old")
    metadata = data_dir / "reborn-0" / "partition.metadata"
    metadata.write_text("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAKg\n")
    with EmbeddedBroker(data_dir) as broker, Wire(broker.port) as wire:
        assert wire.values("reborn") == []
    assert list(data_dir.glob("reborn-0.*-stray"))


def test_producers_are_forgotten_after_their_time(data_dir: Path) -> None:
    settings = {"producer.id.expiration.ms": "1", "producer.id.expiration.check.interval.ms": "1"}
    with EmbeddedBroker(data_dir, settings=settings) as broker, Wire(broker.port) as wire:
        wire.create("topic")
        records = [(None, b"value", 1_700_000_000_000, ())]
        batch = build_batch(records, producer_id=7, producer_epoch=0, base_sequence=0)
        assert wire.produce_batch("topic", batch).error_code is ErrorCode.NONE
        wanted = DescribeProducersRequest(topics=(TopicRequest(name="topic", partition_indexes=(0,)),))

        def known() -> list[int]:
            found = wire.ask(ApiKey.DESCRIBE_PRODUCERS, 0, wanted).topics[0].partitions[0]
            return [producer.producer_id for producer in found.active_producers]

        for _ in range(1_000):
            if not known():
                break
            time.sleep(0.01)
        assert known() == []
        assert wire.produce_batch("topic", batch).base_offset == 1, "nobody knows that it is a repeat"
