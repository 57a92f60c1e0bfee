"""The two clocks. Deadlines use `now_ms`; what is stored or compared with stored times uses `wall_ms`."""

from __future__ import annotations

import time

import trio


def now_ms() -> int:
    """Monotonic milliseconds."""
    return time.monotonic_ns() // 1_000_000


def wall_ms() -> int:
    """Unix milliseconds. May jump either way."""
    return time.time_ns() // 1_000_000


def trio_time(deadline_ms: int) -> float:
    """The moment `deadline_ms` on Trio's clock."""
    return trio.current_time() + deadline_ms / 1000 - time.monotonic()
