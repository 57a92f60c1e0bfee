"""Work in threads that a stop waits for, but not for ever: the disk that it waits for may not answer any more."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, TypeVar, cast

import trio

from ottla.broker.event_log import EventLog

log = EventLog("worker")

PATIENCE_S: Final = 3.0
"""How long who is cancelled waits for a thread."""

Result = TypeVar("Result")

_left_behind: Final[list[_Call[Any]]] = []


def has_left_threads() -> bool:
    """Whether a thread that was left to itself is still at work. The interpreter may not end before it does."""
    return any(not call.is_done for call in _left_behind)


def not_closed() -> list[str]:
    """What `close_in_thread` was to close and is still not closed."""
    return [call.closes for call in _left_behind if call.closes and not call.is_done]


def _leave_behind(call: _Call[Any], what: str, waited_s: float) -> None:
    _left_behind[:] = [*(other for other in _left_behind if not other.is_done), call]
    log.error("thread_left_behind", doing=what, waited_s=waited_s, reason="the disk does not answer")


async def in_thread(
    work: Callable[[], Result], *, limiter: trio.CapacityLimiter | None = None, patience_s: float = PATIENCE_S
) -> Result:
    """Do work in a thread, as `trio.to_thread.run_sync`.

    Whoever is cancelled meanwhile still gets the result, so that nothing is done by halves; only after `patience_s` the
    thread is left to itself. Raises: what `work` raises.
    """
    call = _Call(work)
    try:
        await trio.to_thread.run_sync(call.run, limiter=limiter, abandon_on_cancel=True)
    except trio.Cancelled:
        if call.withdraw():
            raise
        with trio.move_on_after(patience_s, shield=True):
            await call.wait_done()
        if not call.is_done:
            _leave_behind(call, _name(work), patience_s)
            raise
    return call.result()


async def close_in_thread(what: str, close: Callable[[], None], *, patience_s: float = PATIENCE_S) -> None:
    """Close something on a disk, for which a stop waits no longer than `patience_s`. Raises: what `close` does."""
    call = _Call(close, closes=what)
    with trio.move_on_after(patience_s):
        await trio.to_thread.run_sync(call.run, abandon_on_cancel=True)
    if call.is_done:
        call.result()
    else:
        _leave_behind(call, f"closing {what}", patience_s)


def _name(work: Callable[..., object]) -> str:
    while isinstance(work, partial):
        work = work.func
    return getattr(work, "__qualname__", repr(work))


class _Call(Generic[Result]):
    """One piece of work, seen from the thread that does it and from the task that asked for it."""

    def __init__(self, work: Callable[[], Result], *, closes: str = "") -> None:
        """Args: closes: What the work is to close."""
        self.closes = closes
        self._work = work
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._is_begun = False
        self._is_withdrawn = False
        self._waiter: trio.Event | None = None
        self._value: Result | None = None
        self._error: BaseException | None = None
        self.is_done = False

    def run(self) -> None:
        """In the thread."""
        with self._lock:
            if self._is_withdrawn:
                return
            self._is_begun = True
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error
        with self._lock:
            self.is_done = True
            waiter = self._waiter
        if waiter is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(waiter.set)

    def withdraw(self) -> bool:
        """Have it not done at all. False: too late."""
        with self._lock:
            self._is_withdrawn = not self._is_begun
            return self._is_withdrawn

    async def wait_done(self) -> None:
        with self._lock:
            if self.is_done:
                return
            self._waiter = trio.Event()
        await self._waiter.wait()

    def result(self) -> Result:
        if self._error is not None:
            raise self._error
        return cast("Result", self._value)
