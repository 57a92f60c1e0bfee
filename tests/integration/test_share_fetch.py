"""Members of share groups over sockets: what they have when others come, leave, are slow, or the broker is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.errors import ErrorCode
from ottla.protocol.messages.alter_share_group_offsets import (
    AlterShareGroupOffsetsRequest,
    AlterShareGroupOffsetsRequestPartition,
    AlterShareGroupOffsetsRequestTopic,
)
from ottla.protocol.messages.delete_records import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess
from tests.integration.sharer import ACCEPT, REJECT, RELEASE, Sharer, configure
from tests.integration.wire import Wire

GROUP = "sharers"
LOCK_MS = 1_000
SETTINGS = {
    "group.share.min.record.lock.duration.ms": str(LOCK_MS),
    "group.share.max.share.sessions": "3",
    "group.share.assignment.interval.ms": "0",
}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    broker = BrokerProcess(tmp_path / "data", settings=SETTINGS).start()
    with Wire(broker.port) as wire:
        wire.create("t")
        configure(wire, GROUP, share_auto_offset_reset="earliest")
    yield broker
    broker.kill()


def member(broker: BrokerProcess) -> Sharer:
    return Sharer(broker, GROUP, "t")


def produce(broker: BrokerProcess, *counts: int) -> None:
    """Batches of so many records."""
    with Wire(broker.port) as wire:
        for count in counts:
            assert wire.produce("t", *(b"%d" % i for i in range(count))).error_code is ErrorCode.NONE


def test_what_was_acknowledged_outlives_the_broker(broker: BrokerProcess) -> None:
    produce(broker, 10)
    with member(broker) as one:
        assert one.fetch() == [(0, 9, 1)]
        assert one.acknowledge(0, 3, ACCEPT) is ErrorCode.NONE
        assert one.acknowledge(5, 5, REJECT) is ErrorCode.NONE
        assert one.acknowledge(6, 7, RELEASE) is ErrorCode.NONE
        broker.kill()
    broker.start()
    with member(broker) as other:
        # Only what was acknowledged is known: 4, 8 and 9 were delivered, but nobody said so.
        assert other.fetch() == [(4, 4, 1), (6, 7, 2), (8, 9, 1)]
        assert other.acknowledge(4, 4, ACCEPT) is ErrorCode.NONE
        assert other.acknowledge(6, 9, ACCEPT) is ErrorCode.NONE
    broker.kill()
    broker.start()
    with member(broker) as third:
        assert third.fetch(max_wait_ms=200) == []
        produce(broker, 1)
        assert third.fetch() == [(10, 10, 1)]


def test_records_in_the_place_of_lost_ones_are_delivered(broker: BrokerProcess, tmp_path: Path) -> None:
    """A power failure has taken the end of the log and left what the group said of it."""
    produce(broker, *[1] * 10)
    with member(broker) as one:
        taken = one.fetch()
        assert (taken[0][0], taken[-1][1]) == (0, 9)
        assert one.acknowledge(0, 7, ACCEPT) is ErrorCode.NONE
        assert one.acknowledge(9, 9, ACCEPT) is ErrorCode.NONE
        broker.kill()
    (segment,) = (tmp_path / "data" / "t-0").glob("*.log")
    size = segment.stat().st_size
    os.truncate(segment, size // 10 * 4)
    (tmp_path / "data" / ".boot-id").unlink()
    broker.start()
    produce(broker, *[1] * 9)
    # The group has not been heard of since, and the log is longer than it was.
    broker.kill()
    broker.start()
    with member(broker) as other:
        assert other.fetch() == [(4, 12, 1)]
        assert other.acknowledge(4, 12, ACCEPT) is ErrorCode.NONE
    assert "share_state_cut" in broker.output_path.read_text()
    broker.kill()
    broker.start()
    with member(broker) as third:
        produce(broker, 1)
        assert third.fetch() == [(13, 13, 1)]


def test_records_that_are_deleted_hold_up_nobody_any_more(broker: BrokerProcess) -> None:
    with Wire(broker.port) as wire:
        configure(wire, GROUP, share_partition_max_record_locks="100", share_record_lock_duration_ms="30000")
        produce(broker, *[50] * 3)
        with member(broker) as one, member(broker) as other:
            assert sum(last - first + 1 for first, last, _ in one.fetch()) == 100
            other.begin_fetch()
            assert other.is_silent()
            partition = DeleteRecordsPartition(partition_index=0, offset=100)
            topics = (DeleteRecordsTopic(name="t", partitions=(partition,)),)
            wire.ask(ApiKey.DELETE_RECORDS, 2, DeleteRecordsRequest(topics=topics, timeout_ms=1_000))
            assert not other.is_silent(wait_s=2)
            assert other.end_fetch().acquired_records[0].first_offset == 100


def test_a_fetch_waits_for_records(broker: BrokerProcess) -> None:
    with member(broker) as one, member(broker) as other:
        one.begin_fetch()
        other.begin_fetch()
        produce(broker, 2)
        first, second = (one, other) if other.is_silent() else (other, one)
        assert first.end_fetch().acquired_records[0].last_offset == 1
        assert second.is_silent()
        produce(broker, 1)
        assert second.end_fetch().acquired_records[0].first_offset == 2


def test_who_leaves_without_a_word_has_nothing_any_more(broker: BrokerProcess) -> None:
    produce(broker, 4)
    with member(broker) as other:
        with member(broker) as one:
            assert one.fetch() == [(0, 3, 1)]
            other.begin_fetch()
        assert [(a.first_offset, a.last_offset, a.delivery_count) for a in other.end_fetch().acquired_records] == [
            (0, 3, 2)
        ]


def test_a_client_that_is_gone_takes_no_records_along(broker: BrokerProcess) -> None:
    """Its fetch was waiting."""
    with member(broker) as other:
        with member(broker) as one:
            one.begin_fetch(max_wait_ms=30_000)
        produce(broker, 3)
        assert other.fetch() == [(0, 2, 1)]


def test_a_broker_stops_cleanly_while_members_have_records_and_wait_for_others(broker: BrokerProcess) -> None:
    produce(broker, 2)
    with member(broker) as one, member(broker) as other:
        assert one.fetch() == [(0, 1, 1)]
        other.begin_fetch()
        assert broker.terminate() == 0
    broker.start()
    with member(broker) as one:
        assert one.fetch() == [(0, 1, 1)]


def test_locks_end(broker: BrokerProcess) -> None:
    with Wire(broker.port) as wire:
        configure(wire, GROUP, share_record_lock_duration_ms=str(LOCK_MS))
    produce(broker, 2)
    with member(broker) as one, member(broker) as other:
        assert one.fetch() == [(0, 1, 1)]
        assert one.acknowledge(0, 0, ACCEPT) is ErrorCode.NONE
        assert other.fetch() == [(1, 1, 2)]
        assert one.acknowledge(1, 1, ACCEPT) is ErrorCode.INVALID_RECORD_STATE
        assert other.acknowledge(1, 1, ACCEPT) is ErrorCode.NONE


def test_a_group_that_was_moved_begins_there(broker: BrokerProcess) -> None:
    produce(broker, 3, 3)
    with member(broker) as one:
        assert one.fetch() == [(0, 5, 1)]
        assert one.acknowledge(0, 5, ACCEPT) is ErrorCode.NONE
        one.leave()
        moved = AlterShareGroupOffsetsRequestPartition(partition_index=0, start_offset=4)
        topic = AlterShareGroupOffsetsRequestTopic(topic_name="t", partitions=(moved,))
        request = AlterShareGroupOffsetsRequest(group_id=GROUP, topics=(topic,))
        response = one.ask(ApiKey.ALTER_SHARE_GROUP_OFFSETS, 0, request)
        assert response.responses[0].partitions[0].error_code is ErrorCode.NONE
        with member(broker) as other:
            assert other.fetch() == [(4, 5, 1)]


def test_a_group_that_begins_at_the_end_misses_nothing_while_nobody_is_there(broker: BrokerProcess) -> None:
    with Wire(broker.port) as wire:
        configure(wire, GROUP, share_auto_offset_reset="latest")
    produce(broker, 2)
    with member(broker) as one:
        assert one.fetch(max_wait_ms=0) == []
    produce(broker, 3)
    with member(broker) as other:
        assert other.fetch() == [(2, 4, 1)]


def test_a_topic_that_is_deleted(broker: BrokerProcess) -> None:
    with member(broker) as one, Wire(broker.port) as wire:
        one.begin_fetch(max_wait_ms=30_000)
        request = DeleteTopicsRequest(topics=(DeleteTopicState(name="t"),), timeout_ms=10_000)
        assert wire.ask(ApiKey.DELETE_TOPICS, 6, request).responses[0].error_code is ErrorCode.NONE
        # Its log may go a moment before its name.
        assert one.end_fetch().error_code in (ErrorCode.UNKNOWN_TOPIC_ID, ErrorCode.KAFKA_STORAGE_ERROR)


def test_records_that_are_deleted_are_done_with(broker: BrokerProcess) -> None:
    produce(broker, 4, 4)
    with member(broker) as one, member(broker) as other, Wire(broker.port) as wire:
        assert one.fetch(max_records=1) == [(0, 3, 1)]
        wanted = DeleteRecordsPartition(partition_index=0, offset=6)
        request = DeleteRecordsRequest(topics=(DeleteRecordsTopic(name="t", partitions=(wanted,)),), timeout_ms=10_000)
        assert wire.ask(ApiKey.DELETE_RECORDS, 2, request).topics[0].partitions[0].error_code is ErrorCode.NONE
        assert other.fetch() == [(6, 7, 1)]
        assert one.acknowledge(0, 3, ACCEPT) is ErrorCode.NONE, "it is too late to matter"


def test_sessions_are_counted(broker: BrokerProcess) -> None:
    with member(broker) as one, member(broker) as two, member(broker) as four:
        with member(broker) as three:
            for sharer in (one, two, three):
                assert sharer.fetch(max_wait_ms=0) == []
            four.begin_fetch(max_wait_ms=0)
            response = four.receive(ApiKey.SHARE_FETCH, 2)
            assert response.error_code is ErrorCode.SHARE_SESSION_LIMIT_REACHED
            three.begin_fetch(epoch=-1)
            three.end_fetch()
        assert four.fetch(max_wait_ms=0) == []
