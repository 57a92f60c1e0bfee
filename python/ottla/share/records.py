"""Runs of neighbouring records in the same state, one after the other without a gap."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class RecordState(IntEnum):
    """What a share group has done with a record, by the numbers that the share coordinator keeps."""

    AVAILABLE = 0
    ACQUIRED = 1
    """Never kept: after a restart it is available."""
    ACKNOWLEDGED = 2
    ARCHIVED = 4
    """Given up: rejected, or delivered as often as a record may be."""

    @property
    def is_final(self) -> bool:
        return self >= RecordState.ACKNOWLEDGED


class Change(NamedTuple):
    """A state that counts when the share coordinator has it."""

    write: int
    """Which write takes it there."""
    state: RecordState


class Run(NamedTuple):
    """Records from one offset to another, both included."""

    first_offset: int
    last_offset: int
    state: RecordState
    delivery_count: int = 0
    batch_size: int = 0
    """Of how many records the acquisition was in which they came first; 0: they never came."""
    member_id: str = ""
    """Who has acquired them."""
    deadline_ms: int = 0
    """When the lock of the acquired ends, in monotonic milliseconds."""
    change: Change | None = None

    @property
    def size(self) -> int:
        """How many offsets."""
        return self.last_offset - self.first_offset + 1

    @property
    def is_free(self) -> bool:
        return self.state is RecordState.AVAILABLE and self.change is None

    @property
    def is_fresh(self) -> bool:
        """Free, and never delivered."""
        return self.is_free and self.delivery_count == 0

    def cut(self, first_offset: int, last_offset: int) -> Run:
        """The same of other offsets."""
        return Run(first_offset, last_offset, *self[2:])

    def is_held_by(self, member_id: str) -> bool:
        return self.state is RecordState.ACQUIRED and self.change is None and self.member_id == member_id

    def ends_by(self, write: int) -> bool:
        """Whether the records are done with once that write is through."""
        change = self.change
        return self.state.is_final or (change is not None and change.write <= write and change.state.is_final)


class Runs:
    """Runs from `start_offset` to `end_offset` (not included), as few as can be."""

    def __init__(self, start_offset: int, runs: Sequence[Run] = ()) -> None:
        """Args: runs: Without gaps, from the start offset on."""
        self.start_offset = start_offset
        self._runs: list[Run] = list(runs)

    @property
    def end_offset(self) -> int:
        return self._runs[-1].last_offset + 1 if self._runs else self.start_offset

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def between(self, first_offset: int, last_offset: int) -> list[Run]:
        """The runs that have offsets of a range, cut to it."""
        found = []
        for i in range(self._index(first_offset), len(self._runs)):
            run = self._runs[i]
            if run.first_offset > last_offset:
                break
            first, last = max(run.first_offset, first_offset), min(run.last_offset, last_offset)
            found.append(run._replace(first_offset=first, last_offset=last))
        return found

    def put(self, run: Run) -> None:
        """Let the records of a run be as it says; it may begin at the end, and end behind it."""
        assert self.start_offset <= run.first_offset <= self.end_offset
        begin = self._index(run.first_offset)
        end = self._index(run.last_offset)
        rest: list[Run] = []
        if end < len(self._runs):
            behind = self._runs[end]
            if behind.first_offset <= run.last_offset:
                end += 1
                if behind.last_offset > run.last_offset:
                    rest.append(behind._replace(first_offset=run.last_offset + 1))
        if begin < len(self._runs) and self._runs[begin].first_offset < run.first_offset:
            rest.insert(0, self._runs[begin]._replace(last_offset=run.first_offset - 1))
            rest.insert(1, run)
        else:
            rest.insert(0, run)
        before = [self._runs[begin - 1]] if begin > 0 else []
        after = [self._runs[end]] if end < len(self._runs) else []
        self._runs[begin - len(before) : end + len(after)] = _joined(before + rest + after)

    def within(self, ranges: Iterable[tuple[int, int, T]]) -> Iterator[tuple[Run, int, int, T]]:
        """As `between`, of many ranges that ascend and do not overlap, with what is said of each.

        Yields: the run as it is, the first and the last offset that a range has of it, and what is said.
        """
        runs, i = self._runs, -1
        for first, last, said in ranges:
            if first > last:
                continue
            # Mostly it is this run or the next.
            if i < 0 or (i + 1 < len(runs) and runs[i + 1].last_offset < first):
                i = self._index(first)
            elif i < len(runs) and runs[i].last_offset < first:
                i += 1
            while i < len(runs) and (run := runs[i]).first_offset <= last:
                yield run, max(run.first_offset, first), min(run.last_offset, last), said
                if run.last_offset > last:
                    break
                i += 1

    def put_all(self, runs: Sequence[Run]) -> None:
        """`put` many that are in order, do not overlap, and lie between start and end."""
        if not runs:
            return
        begin, end = self._index(runs[0].first_offset), self._index(runs[-1].last_offset) + 1
        merged: list[Run] = self._runs[max(0, begin - 1) : begin]
        at, n = self.start_offset, 0
        for old in self._runs[begin:end]:
            at = max(at, old.first_offset)
            while n < len(runs) and runs[n].first_offset <= old.last_offset:
                if runs[n].first_offset > at:
                    merged.append(old.cut(at, runs[n].first_offset - 1))
                merged.append(runs[n])
                at = runs[n].last_offset + 1
                n += 1
            if at <= old.last_offset:
                merged.append(old.cut(at, old.last_offset))
        merged += self._runs[end : end + 1]
        self._runs[max(0, begin - 1) : end + 1] = _joined(merged)

    def rewrite(self, rewritten: Callable[[Run], Run]) -> None:
        """Let each run be what a function makes of it; its offsets stay."""
        self._runs = _joined([rewritten(run) for run in self._runs])

    def forget_before(self, offset: int) -> None:
        """Begin at an offset, which may be behind the end."""
        if offset <= self.start_offset:
            return
        cut = self._index(offset)
        del self._runs[:cut]
        if self._runs:
            self._runs[0] = self._runs[0]._replace(first_offset=offset)
        self.start_offset = offset

    def forget_fresh_end(self) -> None:
        """End before records that nobody has had."""
        while self._runs and self._runs[-1].is_fresh:
            self._runs.pop()

    def _index(self, offset: int) -> int:
        """Of the run that holds an offset; how many there are for one behind the end."""
        return bisect_left(self._runs, offset, key=lambda run: run.last_offset)


def _joined(runs: list[Run]) -> list[Run]:
    """Neighbours that differ in nothing but their place made one."""
    found = runs[:1]
    for run in runs[1:]:
        last = found[-1]
        if run[2:] == last[2:]:
            found[-1] = last._replace(last_offset=run.last_offset)
        else:
            found.append(run)
    return found
