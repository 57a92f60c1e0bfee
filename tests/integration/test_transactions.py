"""Transactions through a whole broker: deaths, timeouts, deleted topics and features."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ottla.errors import ErrorCode
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from ottla.protocol.messages.describe_transactions import DescribeTransactionsRequest
from ottla.protocol.messages.update_features import FeatureUpdateKey, UpdateFeaturesRequest
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess, EmbeddedBroker
from tests.integration.transactional import TransactionalProducer, committed_values
from tests.integration.wire import Wire

KILLS = 4


@pytest.fixture
def wire(data_dir: Path) -> Iterator[Wire]:
    with EmbeddedBroker(data_dir) as broker, Wire(broker.port) as connected:
        yield connected


def state(wire: Wire, name: str) -> str:
    (found,) = wire.ask(
        ApiKey.DESCRIBE_TRANSACTIONS, 0, DescribeTransactionsRequest(transactional_ids=(name,))
    ).transaction_states
    return found.transaction_state  # type: ignore[no-any-return]


def wait_for_state(wire: Wire, name: str, wanted: str) -> None:
    for _ in range(1_000):
        if state(wire, name) == wanted:
            return
        time.sleep(0.01)
    raise AssertionError(f"{name} stays {state(wire, name)}")


def test_committed_records_are_seen_and_aborted_ones_are_not(wire: Wire) -> None:
    wire.create("t")
    producer = TransactionalProducer(wire, "tx").init()
    for number in range(6):
        assert producer.produce("t", b"%d-a" % number, b"%d-b" % number) is ErrorCode.NONE
        assert producer.end(commit=number % 2 == 0) is ErrorCode.NONE
    values = committed_values(wire, "t", until=18)
    assert values == [b"%d-%s" % (number, part) for number in (0, 2, 4) for part in (b"a", b"b")]
    assert producer.epoch == 6, "each transaction has an epoch of its own"


def test_an_acknowledged_commit_outlives_the_broker(data_dir: Path) -> None:
    """Killed as soon as the decision is acknowledged: what is missing of its markers is written after the restart."""
    broker = BrokerProcess(data_dir).start()
    with Wire(broker.port) as wire:
        for topic in ("a", "b"):
            wire.create(topic)
        TransactionalProducer(wire, "tx").init()
    chance = random.Random(os.environ.get("OTTLA_SEED", "7"))
    expected: list[bytes] = []
    for number in range(KILLS):
        with Wire(broker.port) as wire:
            producer = TransactionalProducer(wire, "tx").init()
            value = b"%d" % number
            assert producer.produce("a", value) is ErrorCode.NONE
            assert producer.produce("b", value) is ErrorCode.NONE
            if commits := number % 2 == 0:
                assert producer.end(commit=True) is ErrorCode.NONE
                expected.append(value)
            time.sleep(chance.choice((0, 0, 0.002)))
        broker.kill()
        broker = BrokerProcess(data_dir).start()
        with Wire(broker.port) as wire:
            wait_for_state(wire, "tx", "CompleteCommit" if commits else "Ongoing")
    with Wire(broker.port) as wire:
        TransactionalProducer(wire, "tx").init()
        for topic in ("a", "b"):
            assert committed_values(wire, topic, until=2 * KILLS) == expected
    broker.terminate()


def test_a_silent_producer_keeps_readers_waiting_no_longer_than_its_timeout(wire: Wire) -> None:
    wire.create("t")
    silent = TransactionalProducer(wire, "silent", timeout_ms=300).init()
    assert silent.produce("t", b"lost") is ErrorCode.NONE
    other = TransactionalProducer(wire, "other").init()
    assert other.produce("t", b"kept") is ErrorCode.NONE
    assert other.end(commit=True) is ErrorCode.NONE
    assert committed_values(wire, "t", until=4) == [b"kept"]
    # Readers go on with the marker; that it is complete is written after that.
    wait_for_state(wire, "silent", "CompleteAbort")
    assert silent.produce("t", b"late") is ErrorCode.INVALID_PRODUCER_EPOCH
    assert silent.end(commit=True) is ErrorCode.INVALID_TXN_STATE


def test_a_topic_that_is_deleted_meanwhile_holds_nothing_up(wire: Wire) -> None:
    for topic in ("kept", "deleted"):
        wire.create(topic)
    producer = TransactionalProducer(wire, "tx").init()
    for topic in ("kept", "deleted"):
        assert producer.produce(topic, b"v") is ErrorCode.NONE
    gone = DeleteTopicsRequest(topics=(DeleteTopicState(name="deleted"),), timeout_ms=10_000)
    assert wire.ask(ApiKey.DELETE_TOPICS, 6, gone).responses[0].error_code is ErrorCode.NONE
    assert producer.end(commit=True) is ErrorCode.NONE
    assert committed_values(wire, "kept", until=2) == [b"v"]
    wait_for_state(wire, "tx", "CompleteCommit")


def write_marker(
    wire: Wire, topic: str, producer: TransactionalProducer, *, commit: bool, coordinator_epoch: int
) -> None:
    """As an administrator does by hand."""
    marker = WritableTxnMarker(
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        transaction_result=commit,
        topics=(WritableTxnMarkerTopic(name=topic, partition_indexes=(0,)),),
        coordinator_epoch=coordinator_epoch,
    )
    answer = wire.ask(ApiKey.WRITE_TXN_MARKERS, 1, WriteTxnMarkersRequest(markers=(marker,)))
    assert answer.markers[0].topics[0].partitions[0].error_code is ErrorCode.NONE, answer


def test_a_commit_is_complete_when_no_partition_has_it_open(wire: Wire) -> None:
    """A marker from a coordinator that there never was has the partition refuse the real one's."""
    wire.create("t")
    producer = TransactionalProducer(wire, "tx").init()
    assert producer.produce("t", b"a") is ErrorCode.NONE
    write_marker(wire, "t", producer, commit=False, coordinator_epoch=100)
    assert producer.end(commit=False) is ErrorCode.NONE
    wait_for_state(wire, "tx", "CompleteAbort")
    assert producer.produce("t", b"b") is ErrorCode.NONE
    written = replace(producer)
    assert producer.end(commit=True) is ErrorCode.NONE
    assert committed_values(wire, "t", until=2) == []
    assert state(wire, "tx") == "PrepareCommit"
    write_marker(wire, "t", written, commit=True, coordinator_epoch=101)
    wait_for_state(wire, "tx", "CompleteCommit")
    assert committed_values(wire, "t", until=4) == [b"b"]


def test_no_downgrade_goes_upwards(wire: Wire) -> None:
    def update(level: int, kind: int) -> ErrorCode:
        wanted = FeatureUpdateKey(feature="transaction.version", max_version_level=level, upgrade_type=kind)
        request = UpdateFeaturesRequest(timeout_ms=10_000, feature_updates=(wanted,))
        return wire.ask(ApiKey.UPDATE_FEATURES, 2, request).error_code  # type: ignore[no-any-return]

    assert update(0, kind=2) is ErrorCode.NONE
    for kind in (2, 3):
        assert update(1, kind) is ErrorCode.INVALID_UPDATE_VERSION
    assert update(1, kind=1) is ErrorCode.NONE


def test_the_level_of_the_feature_is_followed(wire: Wire) -> None:
    wire.create("t")
    old = FeatureUpdateKey(feature="transaction.version", max_version_level=0, upgrade_type=2)
    lowered = wire.ask(ApiKey.UPDATE_FEATURES, 1, UpdateFeaturesRequest(timeout_ms=10_000, feature_updates=(old,)))
    assert lowered.error_code is ErrorCode.NONE, lowered
    silent = TransactionalProducer(wire, "tx", timeout_ms=200).init()
    assert silent.produce("t", b"v") is ErrorCode.NONE
    assert not committed_values(wire, "t", until=2)
    assert TransactionalProducer(wire, "tx").init().epoch == 2, "one to fence, one to begin"
    again = FeatureUpdateKey(feature="transaction.version", max_version_level=2, upgrade_type=1)
    raised = wire.ask(ApiKey.UPDATE_FEATURES, 1, UpdateFeaturesRequest(timeout_ms=10_000, feature_updates=(again,)))
    assert raised.error_code is ErrorCode.NONE, raised
    producer = TransactionalProducer(wire, "tx").init()
    assert producer.produce("t", b"w") is ErrorCode.NONE
    assert producer.end(commit=True) is ErrorCode.NONE
    assert committed_values(wire, "t", until=4) == [b"w"]
