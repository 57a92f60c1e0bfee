"""Many changes of runs at once are what they are one by one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ottla.share.acknowledgement import Acknowledgement
from ottla.share.records import RecordState, Run, Runs

START, SIZE = 100, 30

states = st.sampled_from((RecordState.AVAILABLE, RecordState.ACQUIRED, RecordState.ARCHIVED))


@st.composite
def runs_of_states(draw: st.DrawFn) -> Runs:
    runs = Runs(START)
    for offset in range(START, START + SIZE):
        runs.put(Run(offset, offset, draw(states), draw(st.integers(0, 1))))
    return runs


@st.composite
def ascending_ranges(draw: st.DrawFn) -> list[tuple[int, int]]:
    edges = draw(st.lists(st.integers(START, START + SIZE - 1), unique=True, max_size=SIZE).map(sorted))
    if draw(st.booleans()):
        return [(edge, edge) for edge in edges]
    return list(zip(edges[::2], edges[1::2], strict=False))


def copied(runs: Runs) -> Runs:
    return Runs(runs.start_offset, list(runs))


@given(runs_of_states(), ascending_ranges())
def test_runs_within_ranges(runs: Runs, ranges: Sequence[tuple[int, int]]) -> None:
    found = runs.within((first, last, number) for number, (first, last) in enumerate(ranges))
    cut = [(run.cut(first, last), number) for run, first, last, number in found]
    assert cut == [(run, number) for number, (first, last) in enumerate(ranges) for run in runs.between(first, last)]


@given(runs_of_states(), ascending_ranges(), st.data())
def test_runs_put_all_at_once(runs: Runs, ranges: Sequence[tuple[int, int]], data: st.DataObject) -> None:
    new = [Run(first, last, data.draw(states)) for first, last in ranges]
    one_by_one = copied(runs)
    for run in new:
        one_by_one.put(run)
    runs.put_all(new)
    assert list(runs) == list(one_by_one)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.integers(0, 30))
def test_an_acknowledgement_in_parts_and_in_counts(types: list[int], start_offset: int) -> None:
    one = Acknowledgement(5, 4 + len(types), types)
    parts = list(one.parts())
    assert [kind for first, last, kind in parts for _ in range(first, last + 1)] == types
    assert (parts[0][0], parts[-1][1]) == (5, one.last_offset)
    assert all(before[1] + 1 == after[0] for before, after in pairwise(parts))
    expected = [kind for offset, kind in enumerate(types, 5) if offset >= start_offset]
    counted = [kind for kind, count in one.counts(start_offset) for _ in range(count)]
    assert sorted(counted) == sorted(expected)
