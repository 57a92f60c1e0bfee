"""Clients that find a broker soon, or say that there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ottla.client import Admin

REACH_TIMEOUT_MS = 5_000
"""How long a command tries to find a broker before it says that there is none."""


@asynccontextmanager
async def open_admin(servers: str) -> AsyncIterator[Admin]:
    """An administrator's client that has found a broker. Raises ConnectionLost."""
    async with Admin(servers) as admin:
        await admin.network.reach(timeout_ms=REACH_TIMEOUT_MS)
        yield admin
