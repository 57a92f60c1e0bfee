"""The data plane's place in the event loop: it runs while the loop has nothing to do.

Before Trio waits for its own descriptors it calls `Poller.before_io_wait`, which lets the data plane wait in its place:
for sockets, completed writes and deadlines of the data plane, for Trio's own descriptors (which the kernel watches as
one, Trio's epoll set), and no longer than Trio would have waited. Requests that are answered without waiting for
anything, a heartbeat for example, are answered there. So a turn of the event loop, which costs more than all of a small
request, is taken only where a task has to run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import trio

from ottla._native import DataPlane
from ottla.broker.clock import now_ms, wall_ms
from ottla.broker.connection import Connection
from ottla.broker.pace import Pace
from ottla.broker.together import Together

if TYPE_CHECKING:
    from ottla._native import Request, Unverified

HighWatermarkMoved = Callable[[str, int], None]
Verify = Callable[["list[Unverified]"], None]


class Poller(trio.abc.Instrument):
    """Drives one data plane from within one event loop."""

    def __init__(
        self,
        plane: DataPlane,
        connections: Mapping[int, Connection],
        on_high_watermark: HighWatermarkMoved,
        verify: Verify | None = None,
        pace: Pace | None = None,
    ) -> None:
        """
        Args:
            verify: Has the transaction coordinator asked, and calls `DataPlane.verified`.
            pace: Told of every turn.
        """
        self._plane = plane
        self._together = Together(plane)
        self._connections = connections
        self._on_high_watermark = on_high_watermark
        self._verify = verify
        self._pace = pace or Pace()
        self._token: trio.lowlevel.TrioToken
        self._failed = -1
        """An eventfd for which `run` waits."""
        self._is_beside = False
        """The data plane knows Trio's epoll set."""
        self._error: BaseException | None = None

    async def run(self) -> None:
        """Run the data plane until cancelled. Raises: whatever the callbacks raise; OSError."""
        self._token = trio.lowlevel.current_trio_token()
        self._failed = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            trio.lowlevel.add_instrument(self)
            await trio.lowlevel.wait_readable(self._failed)
        finally:
            trio.lowlevel.notify_closing(self._failed)
            os.close(self._failed)
            if self._error is not None:
                # Also if the task was cancelled in the same moment.
                raise self._error
            trio.lowlevel.remove_instrument(self)

    def before_io_wait(self, timeout: float) -> None:
        """Run the data plane for as long as Trio would wait."""
        try:
            if not self._is_beside:
                # The first call comes when `run` waits for its descriptor.
                self._plane.wait_beside(self._failed)
                self._is_beside = True
            if not self._run_for(timeout) and timeout > 0:
                self._end_wait()
            self._pace.begin()
        except BaseException as error:
            # Trio would log it and go on without us: it is `run` that fails.
            self._error = error
            trio.lowlevel.remove_instrument(self)
            os.eventfd_write(self._failed, 1)
            self._end_wait()

    def _end_wait(self) -> None:
        """Have Trio's own wait end at once, whoever was cancelled meanwhile, be it `run`."""
        self._token.run_sync_soon(_do_nothing, idempotent=True)

    def _run_for(self, timeout: float) -> bool:
        """Run until Trio has something to do: a task, one of its descriptors, a deadline.

        Returns: Whether Trio's own wait ends at once.
        """
        ends = time.monotonic() + timeout
        left = timeout
        while True:
            sessions, moved, unverified, is_due = self._plane.poll(now_ms(), wall_ms(), left)
            if sessions or moved or unverified:
                self._pass_on(sessions, moved, unverified)
                if timeout <= 0:
                    return True
                # Trio decided how long to wait before it knew of what has come of this.
                statistics = trio.lowlevel.current_statistics()
                if statistics.tasks_runnable:
                    return False
                left = statistics.seconds_to_next_deadline
                ends = time.monotonic() + left
            else:
                left = ends - time.monotonic()
            if is_due:
                return True
            if left <= 0:
                return False

    def _pass_on(
        self,
        sessions: list[tuple[int, bool, list[Request]]],
        moved: list[tuple[str, int]],
        unverified: list[Unverified],
    ) -> None:
        with self._together:
            # In this order: what a request sees must be neither older than what its client was told, nor lost.
            for topic, partition in moved:
                self._on_high_watermark(topic, partition)
            for session_id, is_over, owed in sessions:
                connection = self._connections.get(session_id)
                if connection is not None:
                    connection.on_polled(is_over=is_over, owed=owed)
        if unverified:
            assert self._verify is not None, "whoever calls verify_transactions answers"
            self._verify(unverified)


def _do_nothing() -> None:
    """The event loop turns once for it."""
