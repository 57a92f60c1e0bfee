"""Offsets in an open transaction over a restart: they pend in the log, and markers over the wire decide on them.

They are put into the log as Kafka's own tools write to internal topics, so that no transaction coordinator is needed.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ottla._native import build_batch
from ottla.common.topics import CONSUMER_OFFSETS
from ottla.coordinator.group import records
from ottla.coordinator.group.records import OffsetCommitValue
from ottla.coordinator.partitioning import partition_of
from ottla.errors import ErrorCode
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from ottla.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)
from ottla.protocol.versions import ApiKey
from tests.integration.test_transactional_writes import PRODUCER, Table, serving
from tests.integration.wire import Wire

GROUP = "consumers"
INDEX = partition_of(GROUP, 50)


def put(wire: Wire, offset: int) -> None:
    """Have an offset of the group pend in the log."""
    now_ms = round(time.time() * 1000)
    record = records.offset_commit(GROUP, "t", 0, OffsetCommitValue(offset, commit_timestamp_ms=now_ms))
    batch = build_batch(
        [(record.key, record.value, now_ms, ())],
        producer_id=PRODUCER,
        producer_epoch=0,
        base_sequence=0,
        transactional=True,
    )
    data = TopicProduceData(name=CONSUMER_OFFSETS, partition_data=(PartitionProduceData(index=INDEX, records=batch),))
    request = ProduceRequest(transactional_id="tx", acks=-1, timeout_ms=5_000, topic_data=(data,))
    answer = wire.ask(ApiKey.PRODUCE, 12, request, client_id="__admin_client")
    assert answer.responses[0].partition_responses[0].error_code is ErrorCode.NONE, answer


def end(wire: Wire, *, commit: bool) -> None:
    marker = WritableTxnMarker(
        producer_id=PRODUCER,
        producer_epoch=0,
        transaction_result=commit,
        topics=(WritableTxnMarkerTopic(name=CONSUMER_OFFSETS, partition_indexes=(INDEX,)),),
        coordinator_epoch=1,
    )
    answer = wire.ask(ApiKey.WRITE_TXN_MARKERS, 1, WriteTxnMarkersRequest(markers=(marker,)))
    assert answer.markers[0].topics[0].partitions[0].error_code is ErrorCode.NONE, answer


def fetched(wire: Wire, *, stable: bool) -> ErrorCode | int:
    wanted = OffsetFetchRequestGroup(
        group_id=GROUP, topics=(OffsetFetchRequestTopics(name="t", partition_indexes=(0,)),)
    )
    answer = wire.ask(ApiKey.OFFSET_FETCH, 9, OffsetFetchRequest(groups=(wanted,), require_stable=stable))
    (found,) = answer.groups[0].topics[0].partitions
    offset: int = found.committed_offset
    return found.error_code or offset


@pytest.mark.parametrize(("commit", "expected"), [(True, 5), (False, -1)])
def test_a_marker_decides_on_what_an_earlier_life_left_pending(data_dir: Path, commit: bool, expected: int) -> None:
    with serving(data_dir, Table()) as broker, Wire(broker.port) as wire:
        wire.create("t")
        wire.ask(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=(GROUP,)))
        put(wire, 5)
    with serving(data_dir, Table()) as broker, Wire(broker.port) as wire:
        assert (fetched(wire, stable=False), fetched(wire, stable=True)) == (-1, ErrorCode.UNSTABLE_OFFSET_COMMIT)
        end(wire, commit=commit)
        assert fetched(wire, stable=False) == fetched(wire, stable=True) == expected
    with serving(data_dir, Table()) as broker, Wire(broker.port) as wire:
        assert fetched(wire, stable=False) == fetched(wire, stable=True) == expected
