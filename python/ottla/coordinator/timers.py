"""Deadlines by the thousand: moving one later costs an assignment.

Nearly every deadline of a coordinator is a session that is renewed long before it ends. A `Deadline` therefore
keeps its time in itself, and the heap holds at least one entry that is not later than it; an entry that comes up
early is put back at the true time. Renewing never touches the heap, and cancelling is an assignment too.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

E = TypeVar("E")


@dataclass(slots=True, eq=False)
class Deadline(Generic[E]):
    """A moment at which `event` is due. None: not set."""

    event: E
    at_ms: int | None = None
    _queued_ms: int | None = field(default=None, repr=False)  # time of its earliest live heap entry


class Timers(Generic[E]):
    """The deadlines of one machine, in monotonic milliseconds."""

    __slots__ = ("_heap", "_sequence")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Deadline[E]]] = []
        self._sequence = 0

    def schedule(self, deadline: Deadline[E], at_ms: int) -> None:
        """Set or move `deadline`."""
        deadline.at_ms = at_ms
        queued_ms = deadline._queued_ms
        if queued_ms is None or queued_ms > at_ms:
            self._push(deadline, at_ms)

    @staticmethod
    def extend(deadline: Deadline[E], at_ms: int) -> None:
        """Move `deadline` to a later time; one that is not set, or is later already, stays."""
        if deadline.at_ms is not None and deadline.at_ms < at_ms:
            deadline.at_ms = at_ms

    @staticmethod
    def cancel(deadline: Deadline[E]) -> None:
        deadline.at_ms = None

    def pop_due(self, now_ms: int) -> E | None:
        """Return one due event, earliest first, and unset its deadline. None: nothing is due."""
        if not self._settle() or self._heap[0][0] > now_ms:
            return None
        deadline = heapq.heappop(self._heap)[2]
        deadline._queued_ms = deadline.at_ms = None
        return deadline.event

    def next_deadline_ms(self) -> int | None:
        return self._heap[0][0] if self._settle() else None

    def _push(self, deadline: Deadline[E], at_ms: int) -> None:
        deadline._queued_ms = at_ms
        self._sequence += 1
        heapq.heappush(self._heap, (at_ms, self._sequence, deadline))

    def _settle(self) -> bool:
        """Bring the earliest true deadline to the top. False: there is none."""
        heap = self._heap
        while heap:
            queued_ms, _, deadline = heap[0]
            if deadline._queued_ms != queued_ms:
                heapq.heappop(heap)  # a duplicate: an earlier entry was pushed after this one
            elif deadline.at_ms is None:
                heapq.heappop(heap)
                deadline._queued_ms = None
            elif deadline.at_ms > queued_ms:
                heapq.heappop(heap)
                self._push(deadline, deadline.at_ms)
            else:
                return True
        return False
