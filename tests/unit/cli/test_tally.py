"""The demonstration's proof finds what it is there to find."""

from __future__ import annotations

from ottla.cli.tally import GroupTally
from ottla.common.topic_partition import TopicPartition

P = TopicPartition("clicks", 0)
WRITTEN = {P: 3, TopicPartition("clicks", 1): 0}


def read(*records: tuple[int, str, int]) -> GroupTally:
    tally = GroupTally("g")
    for offset, user, sequence in records:
        tally.on_record(P, offset, user=user, sequence=sequence)
    return tally


def test_each_record_once_and_in_order_is_proven() -> None:
    assert read((0, "u", 0), (1, "v", 0), (2, "u", 1)).is_proven(WRITTEN)


def test_a_lost_record_is_no_proof() -> None:
    assert not read((0, "u", 0), (1, "v", 0)).is_proven(WRITTEN)


def test_a_record_read_twice_is_no_proof() -> None:
    tally = read((0, "u", 0), (1, "v", 0), (1, "v", 0), (2, "u", 1))
    assert not tally.is_proven(WRITTEN)
    assert tally.first_fault == "clicks-0: offset 1 where 2 was due"


def test_a_user_out_of_order_is_no_proof() -> None:
    tally = read((0, "u", 1), (1, "v", 0), (2, "u", 0))
    assert not tally.is_proven(WRITTEN)
    assert "u came with sequence 1 where 0 was due" in (tally.first_fault or "")
