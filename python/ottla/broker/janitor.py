"""What must be looked after on connections that do nothing: idle ones, and ones whose client left while it waited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio

from ottla.broker.clock import now_ms
from ottla.broker.connection import Connection

INTERVAL_S: Final = 1.0
PARKED_MS_MIN: Final = 1000
"""A request that Python owes for longer than this may be waiting for other clients: see whether its own is there."""


async def look_after(connections: Mapping[int, Connection], idle_ms_max: int) -> None:
    """Close connections without traffic for `connections.max.idle.ms`, and parked ones whose peer is gone.

    Args:
        idle_ms_max: Negative: connections may idle for ever.
    """
    while True:
        await trio.sleep(INTERVAL_S)
        at_ms = now_ms()
        for connection in list(connections.values()):
            parked_ms = connection.parked_since_ms
            if parked_ms is not None:
                if at_ms - parked_ms >= PARKED_MS_MIN:
                    connection.check_peer()
            elif 0 <= idle_ms_max <= at_ms - connection.last_active_ms:
                connection.close("idle")
