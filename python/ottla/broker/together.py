"""What is done together, so that whoever it wakes is woken once."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from ottla.broker.clock import now_ms, wall_ms

if TYPE_CHECKING:
    from ottla._native import DataPlane


class Together:
    """A context in which appends and answers come together, to be written and sent at its end; it may be nested.

    Else a writer or a client is woken for each, which costs more than most of them, and often takes the CPU from this
    very thread.
    """

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    def __enter__(self) -> None:
        self._plane.cork()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._plane.uncork(now_ms(), wall_ms())
