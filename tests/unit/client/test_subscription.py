"""Positions and buffers of a consumer, as answers come in."""

from __future__ import annotations

import pytest

from ottla import _native
from ottla.client.core.subscription import OffsetReset, Subscription
from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.fetch import AbortedTransaction

P = TopicPartition("t", 0)


def batch(base_offset: int, count: int, **how: object) -> _native.RecordBatch:
    records = [(None, b"v%d" % (base_offset + i), 0, ()) for i in range(count)]
    (built,) = _native.decode_batches(_native.build_batch(records, base_offset=base_offset, **how))  # type: ignore[arg-type]
    return built


def reading(offset: int) -> Subscription:
    subscription = Subscription()
    subscription.assign([P])
    subscription.seek(P, offset)
    return subscription


def offsets(subscription: Subscription, records_max: int = 100) -> list[int]:
    return [r.offset for r in subscription.take(records_max=records_max)]


def test_records_below_the_position_are_skipped() -> None:
    subscription = reading(3)
    subscription.on_records(P, fetch_offset=3, batches=[batch(0, 5), batch(5, 2)], high_watermark=7)
    assert subscription.fetchable() == []
    assert offsets(subscription, 2) == [3, 4]
    assert subscription.partitions[P].position == 5
    assert offsets(subscription) == [5, 6]
    assert subscription.fetchable() == [P]
    assert subscription.partitions[P].fetch_offset == 7


def test_an_answer_to_a_position_that_was_left_is_dropped() -> None:
    subscription = reading(0)
    subscription.seek(P, 9)
    subscription.on_records(P, fetch_offset=0, batches=[batch(0, 5)], high_watermark=20)
    assert offsets(subscription) == []
    assert subscription.partitions[P].position == 9


def test_aborted_records_are_left_out_until_their_marker() -> None:
    subscription = reading(0)
    transactional = {"producer_id": 7, "producer_epoch": 0, "base_sequence": 0, "transactional": True}
    subscription.on_records(
        P,
        fetch_offset=0,
        batches=[batch(0, 2), batch(2, 2, **transactional), batch(4, 1)],
        aborted=[AbortedTransaction(producer_id=7, first_offset=2)],
        high_watermark=5,
    )
    assert offsets(subscription) == [0, 1, 4]
    assert subscription.partitions[P].position == 5


def test_out_of_range_resets_or_raises() -> None:
    subscription = reading(0)
    with pytest.raises(KafkaError, match="out of range"):
        subscription.on_fetch_error(P, ErrorCode.OFFSET_OUT_OF_RANGE, OffsetReset.NONE)
    assert not subscription.on_fetch_error(P, ErrorCode.OFFSET_OUT_OF_RANGE, OffsetReset.EARLIEST)
    assert subscription.to_reset() == {P: OffsetReset.EARLIEST}
    assert subscription.on_fetch_error(P, ErrorCode.NOT_LEADER_OR_FOLLOWER, OffsetReset.EARLIEST)


def test_a_paused_partition_is_neither_fetched_nor_handed_out() -> None:
    subscription = reading(0)
    subscription.on_records(P, fetch_offset=0, batches=[batch(0, 2)], high_watermark=2)
    subscription.partitions[P].paused = True
    assert offsets(subscription) == []
    subscription.partitions[P].paused = False
    assert offsets(subscription) == [0, 1]
