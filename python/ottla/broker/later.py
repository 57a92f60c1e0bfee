"""What a request has instead of its answer where that comes later, without a task that waits for it.

A task costs more than most of what is waited for: the next member, a write, a deadline. So whoever knows when the
reply is there (`coordinator_runtime`) hands out a `Later` and calls back; on its way to the connection everybody adds
what is to be done with what comes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, TypeVar

import trio

R = TypeVar("R")

Get: TypeAlias = Callable[[], Any]
"""Returns what came, or raises what went wrong."""


class Later:
    """Something that comes once, unless nobody wants it any more before."""

    __slots__ = ("_on_dropped", "_steps")

    def __init__(self, on_dropped: Callable[[], object]) -> None:
        """
        Args:
            on_dropped: Called when nobody wants it any more: `come` must not be called after that.
        """
        self._on_dropped = on_dropped
        self._steps: list[Callable[[Get], Any]] = []

    def then(self, step: Callable[[Get], Any]) -> Later:
        """Make something else of what comes: `step` is given it and returns (or raises) what the next one is given."""
        self._steps.append(step)
        return self

    def come(self, get: Get) -> None:
        """It is there. Only what the last step raises is raised."""
        for step in self._steps:
            get = partial(step, get)
        get()

    def drop(self) -> None:
        """Nobody wants it any more: no step is taken."""
        self._on_dropped()

    async def wait(self) -> Any:
        """Wait for it in a task, and return or raise it there; who is cancelled does not want it any more."""
        came: list[Get] = []
        is_there = trio.Event()

        def keep(get: Get) -> None:
            came.append(get)
            is_there.set()

        self.then(keep)
        try:
            await is_there.wait()
        finally:
            if not came:
                self.drop()
        return came[0]()


def finished(begin: Get, finish: Callable[[Get], R]) -> R | Later:
    """What `finish` makes of what `begin` returns or raises: at once, or later where that is a `Later`."""
    try:
        found = begin()
    except Exception as error:
        return finish(partial(_raise, error))
    return found.then(finish) if isinstance(found, Later) else finish(lambda: found)


def _raise(error: Exception) -> None:
    raise error
