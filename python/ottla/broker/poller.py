"""The task through which everything native reaches Python: ready sockets, completed writes, expired deadlines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import trio

from ottla._native import DataPlane
from ottla.broker.clock import now_ms, wall_ms
from ottla.broker.connection import Connection

if TYPE_CHECKING:
    from ottla._native import Unverified

HighWatermarkMoved = Callable[[str, int], None]
Verify = Callable[["list[Unverified]"], None]


async def poll_data_plane(
    plane: DataPlane,
    connections: Mapping[int, Connection],
    on_high_watermark: HighWatermarkMoved,
    verify: Verify | None = None,
) -> None:
    """Wait for the data plane's one descriptor, and pass on what `poll` says, until cancelled."""
    wakeup_fd = plane.wakeup_fileno()
    while True:
        await trio.lowlevel.wait_readable(wakeup_fd)
        sessions, moved, unverified = plane.poll(now_ms(), wall_ms())
        for session_id, is_over, owed in sessions:
            connection = connections.get(session_id)
            if connection is not None:
                connection.on_polled(is_over=is_over, owed=owed)
        for topic, partition in moved:
            on_high_watermark(topic, partition)
        if unverified:
            assert verify is not None, "whoever calls verify_transactions answers"
            verify(unverified)
