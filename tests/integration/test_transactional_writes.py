"""Transactional records through a whole broker, over sockets, with a table for a transaction coordinator.

The table is as simple as can be: which partitions are in whose transaction. What partitions make of its answers, of
markers and of a restart is what is looked at here.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ottla._native import build_batch, decode_batches
from ottla.errors import ErrorCode
from ottla.protocol.messages.describe_producers import DescribeProducersRequest, TopicRequest
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from ottla.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import EmbeddedBroker
from tests.integration.wire import Wire

PRODUCER = 4_000
TopicPartition = tuple[str, int]


class Table:
    """Partitions by transactional id."""

    def __init__(self) -> None:
        self.members: dict[str, set[TopicPartition]] = {}
        self.asked: list[tuple[str, list[TopicPartition], bool]] = []
        self.errors: list[ErrorCode] = []
        """Answered once each, before anything else."""

    async def __call__(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: Collection[TopicPartition],
        *,
        verify_only: bool,
    ) -> Mapping[TopicPartition, ErrorCode]:
        self.asked.append((transactional_id, list(partitions), verify_only))
        if self.errors:
            return dict.fromkeys(partitions, self.errors.pop(0))
        members = self.members.setdefault(transactional_id, set())
        if not verify_only:
            members.update(partitions)
        return {at: ErrorCode.NONE if at in members else ErrorCode.TRANSACTION_ABORTABLE for at in partitions}


@pytest.fixture
def table() -> Table:
    return Table()


def serving(data_dir: Path, table: Table) -> EmbeddedBroker:
    broker = EmbeddedBroker(data_dir, settings={"num.partitions": "2"})
    broker.server.add_partitions = table
    return broker


@pytest.fixture
def wire(data_dir: Path, table: Table) -> Iterator[Wire]:
    with serving(data_dir, table) as broker, Wire(broker.port) as connected:
        connected.create("t")
        yield connected


def batch(sequence: int, *, epoch: int = 0, value: bytes = b"v") -> bytes:
    return build_batch(
        [(None, value, round(time.time() * 1000), ())],
        producer_id=PRODUCER,
        producer_epoch=epoch,
        base_sequence=sequence,
        transactional=True,
    )


def request(*batches: bytes, transactional_id: str = "tx") -> ProduceRequest:
    data = tuple(PartitionProduceData(index=i, records=each) for i, each in enumerate(batches))
    return ProduceRequest(
        transactional_id=transactional_id,
        acks=-1,
        timeout_ms=5_000,
        topic_data=(TopicProduceData(name="t", partition_data=data),),
    )


def results(response: Any) -> list[tuple[ErrorCode, int]]:
    return [(p.error_code, p.base_offset) for t in response.responses for p in t.partition_responses]


def produce(wire: Wire, *batches: bytes, version: int = 12) -> list[tuple[ErrorCode, int]]:
    return results(wire.ask(ApiKey.PRODUCE, version, request(*batches)))


def end(wire: Wire, *, commit: bool, epoch: int = 0, transaction_version: int = 0) -> list[ErrorCode]:
    marker = WritableTxnMarker(
        producer_id=PRODUCER,
        producer_epoch=epoch,
        transaction_result=commit,
        topics=(WritableTxnMarkerTopic(name="t", partition_indexes=(0,)),),
        coordinator_epoch=1,
        transaction_version=transaction_version,
    )
    answer = wire.ask(ApiKey.WRITE_TXN_MARKERS, 2, WriteTxnMarkersRequest(markers=(marker,)))
    return [p.error_code for m in answer.markers for t in m.topics for p in t.partitions]


def committed(wire: Wire) -> tuple[int, list[bytes], list[tuple[int, int]]]:
    """What a reader of committed records sees of partition 0: last stable offset, values, aborted transactions."""
    wanted = FetchTopic(
        topic="t", partitions=(FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20),)
    )
    answer = wire.ask(
        ApiKey.FETCH,
        12,
        FetchRequest(max_wait_ms=0, min_bytes=0, max_bytes=1 << 20, isolation_level=1, topics=(wanted,)),
    )
    (partition,) = answer.responses[0].partitions
    values = [
        value or b""
        for b in decode_batches(partition.records or b"")
        if not b.control
        for _, _, _, value, _ in b.records
    ]
    aborted = [(txn.producer_id, txn.first_offset) for txn in partition.aborted_transactions or ()]
    return partition.last_stable_offset, values, aborted


def latest(wire: Wire, isolation_level: int) -> int:
    wanted = ListOffsetsTopic(name="t", partitions=(ListOffsetsPartition(partition_index=0, timestamp=-1),))
    answer = wire.ask(
        ApiKey.LIST_OFFSETS, 7, ListOffsetsRequest(replica_id=-1, isolation_level=isolation_level, topics=(wanted,))
    )
    offset: int = answer.topics[0].partitions[0].offset
    return offset


def test_newer_clients_have_their_partitions_added(wire: Wire, table: Table) -> None:
    assert produce(wire, batch(0), batch(0)) == [(ErrorCode.NONE, 0)] * 2
    assert produce(wire, batch(1)) == [(ErrorCode.NONE, 1)]
    assert table.asked == [("tx", [("t", 0), ("t", 1)], False)]


def test_older_clients_are_looked_up(wire: Wire, table: Table) -> None:
    table.members["tx"] = {("t", 1)}
    assert produce(wire, batch(0), batch(0), version=11) == [(ErrorCode.TRANSACTION_ABORTABLE, -1), (ErrorCode.NONE, 0)]
    assert produce(wire, batch(0), version=9) == [(ErrorCode.INVALID_TXN_STATE, -1)]
    assert [verify_only for _, _, verify_only in table.asked] == [True, True]


@pytest.mark.parametrize(
    ("answered", "version", "told"),
    [
        (ErrorCode.PRODUCER_FENCED, 12, ErrorCode.INVALID_PRODUCER_EPOCH),
        (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, 12, ErrorCode.NOT_ENOUGH_REPLICAS),
        (ErrorCode.NOT_COORDINATOR, 11, ErrorCode.NOT_ENOUGH_REPLICAS),
        (ErrorCode.CONCURRENT_TRANSACTIONS, 11, ErrorCode.NOT_ENOUGH_REPLICAS),
        (ErrorCode.CONCURRENT_TRANSACTIONS, 12, ErrorCode.NONE),
        (ErrorCode.INVALID_PRODUCER_ID_MAPPING, 12, ErrorCode.INVALID_PRODUCER_ID_MAPPING),
    ],
)
def test_the_coordinators_errors_are_put_as_producers_know_them(
    wire: Wire, table: Table, answered: ErrorCode, version: int, told: ErrorCode
) -> None:
    table.errors = [answered]
    assert produce(wire, batch(0), version=version)[0][0] is told


def test_requests_that_were_sent_at_once_keep_their_order(wire: Wire, table: Table) -> None:
    for sequence in range(5):
        wire.send(ApiKey.PRODUCE, 12, request(batch(sequence)))
    answers = [results(wire.receive(ApiKey.PRODUCE, 12)) for _ in range(5)]
    assert answers == [[(ErrorCode.NONE, i)] for i in range(5)]
    assert len(table.asked) == 1


def test_readers_of_committed_records_see_what_is_decided(wire: Wire) -> None:
    produce(wire, batch(0, value=b"first"))
    assert committed(wire) == (0, [], [])
    assert (latest(wire, 0), latest(wire, 1)) == (1, 0)
    assert end(wire, commit=True) == [ErrorCode.NONE]
    assert committed(wire) == (2, [b"first"], [])
    produce(wire, batch(1, value=b"second"))
    assert end(wire, commit=False) == [ErrorCode.NONE]
    assert committed(wire) == (4, [b"first", b"second"], [(PRODUCER, 2)])
    assert (latest(wire, 0), latest(wire, 1)) == (4, 4)


def test_a_transaction_that_is_open_when_the_broker_stops_is_open_when_it_is_back(data_dir: Path, table: Table) -> None:
    with serving(data_dir, table) as broker, Wire(broker.port) as wire:
        wire.create("t")
        produce(wire, batch(0, value=b"open"))
        assert end(wire, commit=True, epoch=1, transaction_version=2) == [ErrorCode.NONE]
        produce(wire, batch(0, epoch=1, value=b"again"))
    table.asked.clear()
    with serving(data_dir, table) as broker, Wire(broker.port) as wire:
        assert committed(wire) == (2, [b"open"], [])
        wanted = DescribeProducersRequest(topics=(TopicRequest(name="t", partition_indexes=(0,)),))
        (partition,) = wire.ask(ApiKey.DESCRIBE_PRODUCERS, 0, wanted).topics[0].partitions
        assert [(p.producer_epoch, p.current_txn_start_offset) for p in partition.active_producers] == [(1, 2)]
        assert produce(wire, batch(1, epoch=1)) == [(ErrorCode.NONE, 3)]
        assert table.asked == [], "it is open: nobody needs to be asked"
        assert end(wire, commit=True, epoch=1, transaction_version=2) == [ErrorCode.INVALID_PRODUCER_EPOCH]
        assert end(wire, commit=False, epoch=2, transaction_version=2) == [ErrorCode.NONE]
        assert committed(wire) == (5, [b"open", b"again", b"v"], [(PRODUCER, 2)])


def test_metrics_tell_of_open_and_late_transactions(data_dir: Path, table: Table) -> None:
    broker = EmbeddedBroker(data_dir, settings={"ottla.http.listeners": "HTTP://127.0.0.1:0"})
    broker.server.add_partitions = table

    def metrics() -> dict[str, float]:
        assert broker.ready.http is not None
        url = f"http://127.0.0.1:{broker.ready.http.port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as page:
            lines = page.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def transactions() -> tuple[float, float, bool]:
        found = metrics()
        age_s = found["ottla_oldest_transaction_age_seconds"]
        open_count = found["ottla_partitions_with_open_transactions"]
        return open_count, found["ottla_partitions_with_late_transactions"], age_s > 3600

    with broker, Wire(broker.port) as wire:
        wire.create("t")
        assert transactions() == (0, 0, False)
        produce(wire, batch(0))
        assert transactions() == (1, 0, False)
        assert end(wire, commit=True) == [ErrorCode.NONE]
        assert transactions() == (0, 0, False)
        long_ago = build_batch(
            [(None, b"v", round(time.time() * 1000) - 7_200_000, ())],
            producer_id=PRODUCER,
            producer_epoch=0,
            base_sequence=1,
            transactional=True,
        )
        produce(wire, long_ago)
        assert transactions() == (1, 1, True)
