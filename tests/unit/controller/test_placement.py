"""Where replicas go."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.controller.placement import UsableBroker, place_replicas
from ottla.controller.result import Refused
from ottla.errors import ErrorCode


def brokers(*racks: str | None, fenced: frozenset[int] = frozenset()) -> list[UsableBroker]:
    """Brokers 0, 1, ... on these racks."""
    return [UsableBroker(broker_id=number, rack=rack, fenced=number in fenced) for number, rack in enumerate(racks)]


def place(usable: list[UsableBroker], partitions: int, replication_factor: int, seed: int = 0) -> list[tuple[int, ...]]:
    return place_replicas(usable, partitions=partitions, replication_factor=replication_factor, random=Random(seed))


def test_leaders_are_spread_evenly() -> None:
    leaders = Counter(replicas[0] for replicas in place(brokers(None, None, None), 30, 2))
    assert leaders == {0: 10, 1: 10, 2: 10}


def test_replicas_are_spread_evenly() -> None:
    placed = place(brokers(None, None, None, None), 40, 3)
    held = Counter(broker for replicas in placed for broker in replicas)
    assert set(held.values()) == {30}


def test_a_partition_is_on_every_rack_before_it_is_twice_on_one() -> None:
    racks = ("a", "a", "b", "b", "c", "c")
    for replicas in place(brokers(*racks), 60, 3):
        assert {racks[broker] for broker in replicas} == {"a", "b", "c"}
    for replicas in place(brokers(*racks), 60, 4):
        assert {racks[broker] for broker in replicas} == {"a", "b", "c"}


def test_uneven_racks_still_fill_every_replica() -> None:
    for replicas in place(brokers("a", "a", "a", "b"), 40, 4):
        assert sorted(replicas) == [0, 1, 2, 3]


def test_a_fenced_broker_holds_but_never_leads() -> None:
    placed = place(brokers(None, None, None, fenced=frozenset({0})), 30, 3)
    assert all(replicas[0] != 0 and 0 in replicas for replicas in placed)
    two = place(brokers(None, None, None, fenced=frozenset({0})), 30, 2)
    assert not any(0 in replicas for replicas in two), "the live ones come first"


def test_too_few_brokers_are_refused() -> None:
    with pytest.raises(Refused) as refused:
        place(brokers(None, None), 1, 3)
    assert refused.value.code is ErrorCode.INVALID_REPLICATION_FACTOR
    with pytest.raises(Refused):
        place(brokers(None, fenced=frozenset({0})), 1, 1)
    with pytest.raises(Refused):
        place([], 1, 1)


@given(
    racks=st.lists(st.none() | st.sampled_from("abc"), min_size=1, max_size=9),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_every_placement_is_sound(racks: list[str | None], seed: int, data: st.DataObject) -> None:
    fenced = frozenset(data.draw(st.sets(st.integers(0, len(racks) - 1), max_size=len(racks) - 1)))
    factor = data.draw(st.integers(1, len(racks)))
    placed = place(brokers(*racks, fenced=fenced), 25, factor, seed)
    assert placed == place(brokers(*racks, fenced=fenced), 25, factor, seed), "chance comes from the seed alone"
    for replicas in placed:
        assert len(replicas) == len(set(replicas)) == factor
        assert set(replicas) <= set(range(len(racks)))
        assert replicas[0] not in fenced
