"""Connections that do nothing for too long are closed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio

from ottla._native import DataPlane
from ottla.broker.clock import now_ms
from ottla.broker.connection import Connection

INTERVAL_S: Final = 1.0


async def close_idle_connections(plane: DataPlane, connections: Mapping[int, Connection], idle_ms_max: int) -> None:
    """Close connections without traffic for `connections.max.idle.ms` that wait for no answer; for ever if negative."""
    while True:
        await trio.sleep(INTERVAL_S)
        if idle_ms_max < 0:
            continue
        for session_id in plane.idle_sessions(now_ms() - idle_ms_max):
            if session_id in connections:
                connections[session_id].close("idle")
