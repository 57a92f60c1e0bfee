"""The batches of a share partition against a model that knows each offset by itself; a machine against one by key."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinator.share.state import StateBatch, combine

Offsets = dict[int, tuple[int, int]]


@st.composite
def batches(draw: st.DrawFn) -> list[StateBatch]:
    found = []
    for _ in range(draw(st.integers(0, 8))):
        first = draw(st.integers(0, 30))
        last = first + draw(st.integers(0, 10))
        found.append(StateBatch(first, last, draw(st.sampled_from([0, 2, 4])), draw(st.integers(0, 3))))
    return found


def by_offset(given_batches: list[StateBatch] | tuple[StateBatch, ...], start_offset: int) -> Offsets:
    found: Offsets = {}
    for batch in given_batches:
        for offset in range(max(batch.first_offset, start_offset), batch.last_offset + 1):
            has = (batch.delivery_count, batch.delivery_state)
            found[offset] = max(found.get(offset, has), has)
    return found


@given(batches(), st.integers(-1, 35))
def test_the_furthest_delivery_of_each_offset_counts(given_batches: list[StateBatch], start_offset: int) -> None:
    combined = combine(given_batches, start_offset)
    assert by_offset(combined, start_offset) == by_offset(given_batches, start_offset)
    for before, after in itertools.pairwise(combined):
        assert before.last_offset < after.first_offset
        touches = before.last_offset + 1 == after.first_offset
        assert not (touches and before[2:] == after[2:]), "as few batches as can be"


@given(st.lists(batches(), max_size=5), st.integers(-1, 35))
def test_it_does_not_matter_in_how_many_steps(steps: list[list[StateBatch]], start_offset: int) -> None:
    so_far: tuple[StateBatch, ...] = ()
    for step in steps:
        so_far = combine((*so_far, *step), start_offset)
    assert so_far == combine([batch for step in steps for batch in step], start_offset)
