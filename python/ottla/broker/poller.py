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
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from ottla._native import DataPlane
from ottla.broker.clock import now_ms, wall_ms
from ottla.broker.connection import Connection

if TYPE_CHECKING:
    from ottla._native import Request, Unverified

HighWatermarkMoved = Callable[[str, int], None]
Verify = Callable[["list[Unverified]"], None]

ANSWERING_MAX_S: Final = 0.005
"""How long requests may be answered before the event loop looks after everything else."""


class Poller(trio.abc.Instrument):
    """Drives one data plane from within one event loop."""

    def __init__(
        self,
        plane: DataPlane,
        connections: Mapping[int, Connection],
        on_high_watermark: HighWatermarkMoved,
        verify: Verify | None = None,
    ) -> None:
        """Args: verify: Has the transaction coordinator asked, and calls `DataPlane.verified`."""
        self._plane = plane
        self._connections = connections
        self._on_high_watermark = on_high_watermark
        self._verify = verify
        self._wakeup = -1
        """Ends Trio's wait at once: an eventfd for which `run` waits."""
        self._is_beside = False
        """The data plane knows Trio's epoll set."""
        self._error: BaseException | None = None

    async def run(self) -> None:
        """Run the data plane until cancelled. Raises: whatever the callbacks raise; OSError."""
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            trio.lowlevel.add_instrument(self)
            try:
                while self._error is None:
                    await trio.lowlevel.wait_readable(self._wakeup)
                    os.eventfd_read(self._wakeup)
                raise self._error
            finally:
                if self._error is None:
                    trio.lowlevel.remove_instrument(self)
        finally:
            trio.lowlevel.notify_closing(self._wakeup)
            os.close(self._wakeup)

    def before_io_wait(self, timeout: float) -> None:
        """Run the data plane for as long as Trio would wait."""
        try:
            if not self._is_beside:
                # The first call comes when `run` waits for its descriptor.
                self._plane.wait_beside(epoll_that_watches(self._wakeup))
                self._is_beside = True
            if not self._run_for(timeout) and timeout > 0:
                os.eventfd_write(self._wakeup, 1)
        except BaseException as error:
            # Trio would log it and go on without us: it is `run` that fails.
            self._error = error
            trio.lowlevel.remove_instrument(self)
            os.eventfd_write(self._wakeup, 1)

    def _run_for(self, timeout: float) -> bool:
        """Returns whether Trio's own wait ends at once."""
        began = time.monotonic()
        ends = began + timeout
        left = timeout
        while True:
            sessions, moved, unverified, is_due = self._plane.poll(now_ms(), wall_ms(), left)
            if sessions or moved or unverified:
                self._pass_on(sessions, moved, unverified)
                if is_due:
                    return True
                if timeout <= 0:
                    return False
                statistics = trio.lowlevel.current_statistics()
                now = time.monotonic()
                if statistics.tasks_runnable or now - began >= ANSWERING_MAX_S:
                    return False
                ends = now + statistics.seconds_to_next_deadline
                left = ends - now
            else:
                if is_due:
                    return True
                left = ends - time.monotonic()
            if left <= 0:
                return False

    def _pass_on(
        self,
        sessions: list[tuple[int, bool, list[Request]]],
        moved: list[tuple[str, int]],
        unverified: list[Unverified],
    ) -> None:
        # What is appended for all of these is written together: else a writer is woken for each, and often takes the
        # CPU from this very thread.
        self._plane.cork(True)
        try:
            for session_id, is_over, owed in sessions:
                connection = self._connections.get(session_id)
                if connection is not None:
                    connection.on_polled(is_over=is_over, owed=owed)
            for topic, partition in moved:
                self._on_high_watermark(topic, partition)
        finally:
            self._plane.cork(False)
        if unverified:
            assert self._verify is not None, "whoever calls verify_transactions answers"
            self._verify(unverified)


def epoll_that_watches(fd: int) -> int:
    """The descriptor of the epoll set of this process that watches `fd`: Trio's, if Trio waits for it.

    Trio tells it to nobody, the kernel does (`proc_pid_fdinfo(5)`). Raises: OSError (no /proc), LookupError.
    """
    for entry in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = entry.read_text().splitlines()
        except OSError:
            continue  # closed meanwhile
        if any(line.startswith("tfd:") and int(line.split()[1]) == fd for line in lines):
            return int(entry.name)
    raise LookupError(f"no epoll set watches descriptor {fd}")
