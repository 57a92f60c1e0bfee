"""How long the event loop has been at it without a look at its sockets."""

from __future__ import annotations

import time
from typing import Final

import trio

TURN_S: Final = 0.001
"""What tasks that find one request behind the other may take together before everybody else has a turn."""


class Pace:
    """Shared by the tasks that answer requests; the data plane says when it has had its turn."""

    __slots__ = ("_began_s",)

    def __init__(self) -> None:
        self._began_s = 0.0

    def begin(self) -> None:
        """Another turn of the event loop begins."""
        self._began_s = time.monotonic()

    async def keep(self) -> None:
        """Let the others go on, if this turn has lasted. A checkpoint only then: it costs as much as some requests."""
        if time.monotonic() - self._began_s > TURN_S:
            await trio.lowlevel.checkpoint()
