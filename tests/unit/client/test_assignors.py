"""The assignors deal every partition of a wanted topic to exactly one member that wants it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.client.core.assignors import (
    RANGE,
    ROUND_ROBIN,
    Assignor,
    MalformedSubscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from ottla.common.topic_partition import TopicPartition

topics = st.sampled_from(["a", "b", "c", "d"])
subscriptions = st.dictionaries(st.text(min_size=1, max_size=4), st.lists(topics, unique=True), min_size=1, max_size=6)
counts = st.fixed_dictionaries({t: st.integers(0, 9) for t in "abcd"})


@pytest.mark.parametrize("assignor", [RANGE, ROUND_ROBIN], ids=lambda a: a.name)
@given(subscriptions=subscriptions, counts=counts)
def test_each_partition_has_one_owner_that_wants_it(
    assignor: Assignor, subscriptions: dict[str, list[str]], counts: dict[str, int]
) -> None:
    assignment = assignor.assign(subscriptions, counts)
    dealt = [p for partitions in assignment.values() for p in partitions]
    wanted = {t for wants in subscriptions.values() for t in wants}
    assert sorted(dealt) == sorted(TopicPartition(t, p) for t in wanted for p in range(counts[t]))
    assert all(p.topic in subscriptions[member] for member, partitions in assignment.items() for p in partitions)


def test_range_gives_consecutive_partitions_as_kafka_documents_it() -> None:
    assignment = RANGE.assign({"m0": ["t0", "t1"], "m1": ["t0", "t1"]}, {"t0": 3, "t1": 3})
    assert assignment["m0"] == [*(TopicPartition("t0", p) for p in (0, 1)), *(TopicPartition("t1", p) for p in (0, 1))]
    assert assignment["m1"] == [TopicPartition("t0", 2), TopicPartition("t1", 2)]


@given(st.lists(topics, unique=True), st.lists(st.builds(TopicPartition, topics, st.integers(0, 99)), unique=True))
def test_formats_round_trip(names: list[str], partitions: list[TopicPartition]) -> None:
    assert decode_subscription(encode_subscription(names, partitions)) == sorted(names)
    assert decode_assignment(encode_assignment(partitions)) == sorted(partitions)


@pytest.mark.parametrize(
    "data",
    [b"\x00", b"\x00\x01\x00\x00\x00\x01", b"\x00\x01\x00\x00\x00\x01\xff\xff", b"\x00\x01\x00\x00\x00\x01\x00\x09ab"],
)
def test_foreign_bytes_give_a_clear_error(data: bytes) -> None:
    with pytest.raises(MalformedSubscription):
        decode_assignment(data)
    with pytest.raises(MalformedSubscription):
        decode_subscription(data)


@given(st.binary(max_size=40))
def test_foreign_bytes_never_raise_anything_else(data: bytes) -> None:
    for decode in (decode_subscription, decode_assignment):
        with contextlib.suppress(MalformedSubscription):
            decode(data)
