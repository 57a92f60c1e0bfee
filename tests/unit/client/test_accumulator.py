"""The accumulator says what is sent when; one batch a partition is under way at a time."""

from __future__ import annotations

from ottla.client.core.accumulator import Accumulator, Batch, Record
from ottla.common.topic_partition import TopicPartition

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)
LEADERS = {P0: 1, P1: 2}


def record(value: bytes = b"v") -> Record:
    return (None, value, 0, ())


def accumulator(*, linger_ms: int = 10) -> Accumulator:
    return Accumulator(batch_bytes_max=1_000, linger_ms=linger_ms, delivery_timeout_ms=1_000)


def only(ready: dict[int, list[Batch]]) -> Batch:
    ((batch,),) = ready.values()
    return batch


def test_a_batch_waits_until_it_has_lingered() -> None:
    out = accumulator()
    out.append(P0, record(), "a", now_ms=100)
    assert out.next_ready_ms(flush=False) == 110
    assert out.drain(LEADERS, now_ms=109, flush=False) == {}
    batch = only(out.drain(LEADERS, now_ms=110, flush=False))
    assert batch.tokens == ["a"]


def test_a_full_batch_and_a_flush_do_not_linger() -> None:
    out = accumulator()
    assert not out.append(P0, record(bytes(900)), "a", now_ms=0)
    assert out.append(P0, record(bytes(900)), "b", now_ms=0)
    assert only(out.drain(LEADERS, now_ms=0, flush=False)).tokens == ["a"]
    out.append(P1, record(), "c", now_ms=0)
    assert [b.tokens for b in out.drain(LEADERS, now_ms=0, flush=True).get(2, [])] == [["c"]]


def test_one_batch_of_a_partition_is_in_flight_and_order_survives_a_retry() -> None:
    out = accumulator(linger_ms=0)
    out.append(P0, record(), "a", now_ms=0)
    first = only(out.drain(LEADERS, now_ms=0, flush=False))
    out.append(P0, record(), "b", now_ms=1)
    assert out.drain(LEADERS, now_ms=1, flush=False) == {}
    assert out.on_retriable(first, now_ms=2, backoff_ms=100)
    assert out.next_ready_ms(flush=False) == 102
    again = only(out.drain(LEADERS, now_ms=102, flush=False))
    assert again is first
    assert again.tokens == ["a"]
    out.on_done(again)
    assert only(out.drain(LEADERS, now_ms=102, flush=False)).tokens == ["b"]


def test_a_batch_that_has_its_sequence_takes_no_more_records() -> None:
    out = accumulator(linger_ms=0)
    out.append(P0, record(), "a", now_ms=0)
    first = only(out.drain(LEADERS, now_ms=0, flush=False))
    assert out.on_retriable(first, now_ms=1, backoff_ms=0)
    out.append(P0, record(), "b", now_ms=1)
    assert only(out.drain(LEADERS, now_ms=1, flush=False)).tokens == ["a"]


def test_without_a_leader_a_batch_expires_after_the_delivery_timeout() -> None:
    out = accumulator(linger_ms=0)
    out.append(P0, record(), "a", now_ms=0)
    assert out.drain({}, now_ms=500, flush=True) == {}
    assert out.expire(now_ms=999) == []
    (batch,) = out.expire(now_ms=1_000)
    assert batch.tokens == ["a"]
    assert out.is_empty
    assert out.buffered_bytes == 0


def test_a_retry_after_the_delivery_timeout_is_given_up() -> None:
    out = accumulator(linger_ms=0)
    out.append(P0, record(), "a", now_ms=0)
    batch = only(out.drain(LEADERS, now_ms=0, flush=False))
    assert not out.on_retriable(batch, now_ms=1_000, backoff_ms=100)
    assert out.is_empty
    assert out.buffered_bytes == 0
