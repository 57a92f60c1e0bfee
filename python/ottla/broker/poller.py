"""The task that feeds the data plane what no socket brings: completed writes and expired deadlines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import trio

from ottla._native import DataPlane
from ottla.broker.clock import now_ms, trio_time, wall_ms
from ottla.broker.connection import Connection

HighWatermarkMoved = Callable[[str, int], None]


class Poller:
    """Waits for the data plane's descriptor and its next deadline, and passes on what `poll` says."""

    def __init__(
        self, plane: DataPlane, connections: Mapping[int, Connection], *, on_high_watermark: HighWatermarkMoved
    ) -> None:
        self._plane = plane
        self._connections = connections
        self._on_high_watermark = on_high_watermark
        self._scope = trio.CancelScope()
        self._armed_ms = 0

    def arm(self) -> None:
        """To call when a native call may have parked a reply: wakes the task in time for an earlier deadline."""
        deadline_ms = self._plane.next_deadline_ms()
        if deadline_ms is not None and deadline_ms < self._armed_ms:
            self._armed_ms = deadline_ms
            self._scope.deadline = trio_time(deadline_ms)

    async def run(self) -> None:
        wakeup_fd = self._plane.wakeup_fileno()
        while True:
            deadline_ms = self._plane.next_deadline_ms()
            # Far, but finite: `arm` compares against it.
            self._armed_ms = 2**62 if deadline_ms is None else deadline_ms
            self._scope = trio.CancelScope(deadline=math.inf if deadline_ms is None else trio_time(deadline_ms))
            with self._scope:
                await trio.lowlevel.wait_readable(wakeup_fd)
            self._armed_ms = 0
            sessions, moved = self._plane.poll(now_ms(), wall_ms())
            for session_id, flags, owed in sessions:
                connection = self._connections.get(session_id)
                if connection is not None:
                    connection.on_polled(flags, owed)
            for topic, partition in moved:
                self._on_high_watermark(topic, partition)
