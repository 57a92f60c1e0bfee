"""Dictionaries that remember what is not yet committed.

A coordinator applies a record to its state as soon as the record has an offset, so that the next write sees it,
while reads may only see what the high watermark covers, and a lost write must be taken back. `Timeline` is the undo
log that makes both cheap: one entry a change above the high watermark, none below it (so loading a log costs
nothing extra). It does the work of Kafka's `SnapshotRegistry` without taking snapshots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_ABSENT: Final[Any] = object()


class Timeline:
    """The undo log of any number of `TimelineDict`s that follow one partition."""

    __slots__ = ("_changes", "_high_watermark")

    def __init__(self) -> None:
        self._high_watermark = 0
        self._changes: deque[tuple[int, TimelineDict[Any, Any], Any]] = deque()

    @property
    def high_watermark(self) -> int:
        """Changes made by records below this offset are committed."""
        return self._high_watermark

    def commit(self, high_watermark: int) -> None:
        """Forget how to undo what lies below `high_watermark`. A lower value than before is ignored."""
        if high_watermark <= self._high_watermark:
            return
        self._high_watermark = high_watermark
        changes = self._changes
        while changes and changes[0][0] < high_watermark:
            _, owner, key = changes.popleft()
            owner._forget_oldest(key)

    def rollback(self, end_offset: int) -> None:
        """Undo every change made by a record at or above `end_offset`, newest first."""
        assert end_offset >= self._high_watermark, "what is committed cannot be taken back"
        changes = self._changes
        while changes and changes[-1][0] >= end_offset:
            _, owner, key = changes.pop()
            owner._undo_newest(key)

    def _record(self, offset: int, owner: TimelineDict[Any, Any], key: Any) -> bool:
        """Note a change. False when it is committed already and needs no undo."""
        if offset < self._high_watermark:
            return False
        assert not self._changes or self._changes[-1][0] <= offset, "records are replayed in order"
        self._changes.append((offset, owner, key))
        return True


class TimelineDict(Generic[K, V]):
    """A dictionary with a latest and a committed view. Values must not be None and must not be mutated."""

    __slots__ = ("_before", "_latest", "_timeline")

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._latest: dict[K, V] = {}
        self._before: dict[K, deque[Any]] = {}  # values overwritten by uncommitted records, oldest first

    def __len__(self) -> int:
        return len(self._latest)

    def __contains__(self, key: K) -> bool:
        return key in self._latest

    def get(self, key: K) -> V | None:
        return self._latest.get(key)

    def items(self) -> Iterator[tuple[K, V]]:
        return iter(self._latest.items())

    def put(self, key: K, value: V, *, offset: int) -> None:
        """Set `key` because of the record at `offset`."""
        if self._timeline._record(offset, self, key):
            self._before.setdefault(key, deque()).append(self._latest.get(key, _ABSENT))
        self._latest[key] = value

    def remove(self, key: K, *, offset: int) -> None:
        """Remove `key`, if it is there, because of the record at `offset`."""
        if key in self._latest:
            if self._timeline._record(offset, self, key):
                self._before.setdefault(key, deque()).append(self._latest[key])
            del self._latest[key]

    def get_committed(self, key: K) -> V | None:
        before = self._before.get(key)
        if before is None:
            return self._latest.get(key)
        return None if before[0] is _ABSENT else before[0]

    def committed_items(self) -> Iterator[tuple[K, V]]:
        if not self._before:
            yield from self._latest.items()
            return
        for key, value in self._latest.items():
            before = self._before.get(key)
            if before is None:
                yield key, value
        for key, before in self._before.items():
            if before[0] is not _ABSENT:
                yield key, before[0]

    @property
    def is_blank(self) -> bool:
        """Whether both views are empty and nothing can bring a value back."""
        return not self._latest and not self._before

    @property
    def has_committed(self) -> bool:
        """Whether the committed view holds anything."""
        return next(self.committed_items(), None) is not None

    def _forget_oldest(self, key: K) -> None:
        before = self._before[key]
        before.popleft()
        if not before:
            del self._before[key]

    def _undo_newest(self, key: K) -> None:
        before = self._before[key]
        value = before.pop()
        if value is _ABSENT:
            self._latest.pop(key, None)
        else:
            self._latest[key] = value
        if not before:
            del self._before[key]
