"""One connection: a task that waits for its socket and lets the native session do the rest.

Bytes never pass through here. `pump` receives, handles Produce and Fetch and sends, all in one native call, and hands
back at most one request that Python owes (every other API). While that one is worked on the session takes in
nothing, which is what keeps replies in order and bounds what a client can make us hold.

A session can change while its task waits: its parked fetch is answered from `DataPlane.poll`, which may leave output
behind or uncover the request that stood behind the fetch. `on_polled` then ends the task's wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import trio

from ottla._native import CLOSED, MORE, STALLED, WANT_WRITE
from ottla.broker.clock import now_ms, wall_ms
from ottla.broker.event_log import EventLog

if TYPE_CHECKING:
    from ottla._native import DataPlane, Request

log = EventLog("connection")

Dispatch = Callable[["Connection", "Request"], Awaitable["Answer"]]


class Refuse:
    """An answer that ends the connection: no response can be encoded, or none may be given."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


Answer = bytes | Refuse | None
"""Response header and body; None: the request has no response."""

_READABLE: Final = 1
_WRITABLE: Final = 2
_RESUMED: Final = 3


class Connection:
    """A client's connection; `run` serves it until it ends."""

    __slots__ = (
        "_after_pump",
        "_dispatch",
        "_flags",
        "_owed",
        "_plane",
        "_resumed",
        "_scope",
        "_sock",
        "_waits_for",
        "closed_because",
        "last_active_ms",
        "listener_name",
        "local",
        "parked_since_ms",
        "peer",
        "session_id",
        "software",
    )

    def __init__(
        self,
        plane: DataPlane,
        sock: trio.socket.SocketType,
        *,
        peer: tuple[str, int],
        listener_name: str,
        dispatch: Dispatch,
        after_pump: Callable[[], None],
    ) -> None:
        self._plane = plane
        self._after_pump = after_pump
        self._sock = sock
        self._dispatch = dispatch
        self._flags = 0
        self._owed: list[Request] = []
        self._scope = trio.CancelScope()
        self._resumed: trio.Event | None = None
        self._waits_for = 0
        self.peer = peer
        self.local: tuple[str, int] = sock.getsockname()[:2]
        """The address that the client connected to."""
        self.listener_name = listener_name
        self.session_id = plane.open_session(sock.fileno(), listener_name)
        self.software = ("unknown", "unknown")
        """Name and version of the client's software (KIP-511)."""
        self.last_active_ms = now_ms()
        self.parked_since_ms: int | None = None
        """Since when Python owes the current request; None: it owes none."""
        self.closed_because: str | None = None

    async def run(self) -> None:
        """Serve until the peer leaves or something ends the connection. Raises nothing but bugs and cancellation."""
        try:
            with self._scope:
                await self._serve()
        finally:
            reason = self.closed_because or self._plane.close_reason(self.session_id)
            self._plane.close_session(self.session_id)
            if reason is not None:
                log.info("connection_closed", peer=f"{self.peer[0]}:{self.peer[1]}", reason=reason)

    def close(self, reason: str) -> None:
        """End the connection from outside its task."""
        self.closed_because = reason
        self._scope.cancel()

    def on_polled(self, flags: int, owed: list[Request]) -> None:
        """Take what `DataPlane.poll` said about this session and end the wait of its task."""
        self._flags = flags
        self._owed += owed
        if self._waits_for == _RESUMED and self._resumed is not None:
            self._resumed.set()
        elif self._waits_for:
            # Ends `wait_readable` and `wait_writable` with ClosedResourceError; nothing is closed.
            trio.lowlevel.notify_closing(self._sock)

    def check_peer(self) -> None:
        """End the connection if its client left while Python owes it a reply: nothing else looks at the socket then."""
        flags, owed = self._plane.pump(self.session_id, now_ms(), wall_ms())
        assert not owed, "a session hands out one request at a time"
        if flags & CLOSED:
            self._scope.cancel()

    async def _serve(self) -> None:
        plane, session_id = self._plane, self.session_id
        while True:
            flags = self._flags
            if flags & CLOSED:
                return
            if flags & WANT_WRITE:
                await self._wait(_WRITABLE)
            elif self._owed:
                await self._answer()
                continue
            elif flags & MORE:
                await trio.lowlevel.checkpoint()
            elif flags & STALLED:
                await self._wait(_RESUMED)
            else:
                await self._wait(_READABLE)
            self.last_active_ms = at_ms = now_ms()
            self._flags, owed = plane.pump(session_id, at_ms, wall_ms())
            self._owed += owed
            self._after_pump()

    async def _answer(self) -> None:
        request = self._owed.pop(0)
        self.parked_since_ms = now_ms()
        answer = await self._dispatch(self, request)
        self.parked_since_ms = None
        if isinstance(answer, Refuse):
            self.closed_because = answer.reason
            self._flags = self._plane.refuse(self.session_id, answer.reason)
            return
        self.last_active_ms = at_ms = now_ms()
        self._flags, owed = self._plane.reply(self.session_id, request[0], answer, at_ms, wall_ms())
        self._owed += owed
        self._after_pump()

    async def _wait(self, event: int) -> None:
        self._waits_for = event
        try:
            if event == _READABLE:
                await trio.lowlevel.wait_readable(self._sock)
            elif event == _WRITABLE:
                await trio.lowlevel.wait_writable(self._sock)
            else:
                self._resumed = trio.Event()
                await self._resumed.wait()
        except trio.ClosedResourceError:
            return  # woken by `on_polled`
        finally:
            self._waits_for = 0
