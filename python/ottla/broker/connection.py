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
from ottla.protocol.versions import ApiKey

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

PARKING: Final = frozenset({ApiKey.JOIN_GROUP, ApiKey.SYNC_GROUP})
"""Requests that wait for other clients, perhaps for minutes: given up when their own client leaves."""
UNKNOWN_SOFTWARE: Final = ("unknown", "unknown")


class Connection:
    """A client's connection; `run` serves it until it ends.

    An idle one is kept small: one task, few frames on its stack, no scope of its own unless a handler is at work.
    """

    __slots__ = (
        "_after_pump",
        "_dispatch",
        "_flags",
        "_on_closed",
        "_owed",
        "_plane",
        "_resumed",
        "_sock",
        "_work",
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
        on_closed: Callable[[Connection], None],
    ) -> None:
        """Take over a connected socket.

        Args:
            after_pump: Called after native calls that may have parked a reply.
            on_closed: Called once, when the socket is closed.
        """
        self._plane = plane
        self._on_closed = on_closed
        self._after_pump = after_pump
        self._sock = sock
        self._dispatch = dispatch
        self._flags = 0
        self._owed: list[Request] | None = None
        self._work: trio.CancelScope | None = None
        """Around a handler that may have to wait for other clients."""
        self._resumed: trio.Event | None = None
        """What the task waits for while the session takes in nothing."""
        self.peer = peer
        self.local: tuple[str, int] = sock.getsockname()[:2]
        """The address that the client connected to."""
        self.listener_name = listener_name
        self.session_id = plane.open_session(sock.fileno(), listener_name)
        self.software: tuple[str, str] = UNKNOWN_SOFTWARE
        """Name and version of the client's software (KIP-511)."""
        self.last_active_ms = now_ms()
        self.parked_since_ms: int | None = None
        """Since when Python owes the current request; None: it owes none."""
        self.closed_because: str | None = None

    async def run(self) -> None:
        """Serve until the peer leaves or something ends the connection. A bug of ours ends this connection only."""
        plane, session_id = self._plane, self.session_id
        try:
            while not self._flags & CLOSED:
                if not self._flags & WANT_WRITE and self._owed:
                    await self._answer(self._owed.pop(0))
                    continue
                try:
                    if self._flags & WANT_WRITE:
                        await trio.lowlevel.wait_writable(self._sock)
                    elif self._flags & MORE:
                        await trio.lowlevel.checkpoint()
                    elif self._flags & STALLED:
                        self._resumed = trio.Event()
                        await self._resumed.wait()
                        self._resumed = None
                    else:
                        await trio.lowlevel.wait_readable(self._sock)
                except trio.ClosedResourceError:  # woken by `_wake`
                    if self._flags & CLOSED:
                        break
                self.last_active_ms = at_ms = now_ms()
                self._flags, owed = plane.pump(session_id, at_ms, wall_ms())
                if owed:
                    self._owe(owed)
                self._after_pump()
        except Exception as error:
            self.closed_because = "internal error"
            log.error("connection_failed", peer=f"{self.peer[0]}:{self.peer[1]}", error=error)
        finally:
            reason = self.closed_because or plane.close_reason(session_id)
            plane.close_session(session_id)
            self._sock.close()
            self._on_closed(self)
            if reason is not None:
                log.info("connection_closed", peer=f"{self.peer[0]}:{self.peer[1]}", reason=reason)

    def close(self, reason: str) -> None:
        """End the connection from outside its task."""
        self.closed_because = reason
        self._end()

    def on_polled(self, flags: int, owed: list[Request]) -> None:
        """Take what `DataPlane.poll` said about this session and end the wait of its task."""
        self._flags = flags
        if owed:
            self._owe(owed)
        self._wake()

    def check_peer(self) -> None:
        """End the connection if its client left while Python owes it a reply: nothing else looks at the socket then."""
        flags, owed = self._plane.pump(self.session_id, now_ms(), wall_ms())
        assert not owed, "a session hands out one request at a time"
        if flags & CLOSED:
            self._end()

    def _end(self) -> None:
        self._flags |= CLOSED
        if self._work is not None:
            self._work.cancel()
        self._wake()

    def _wake(self) -> None:
        """End what the task waits for, unless it is a handler."""
        if self.parked_since_ms is not None:
            return
        if self._resumed is not None:
            self._resumed.set()
        else:
            # Ends `wait_readable` and `wait_writable` with ClosedResourceError; nothing is closed.
            trio.lowlevel.notify_closing(self._sock)

    def _owe(self, requests: list[Request]) -> None:
        if self._owed is None:
            self._owed = requests
        else:
            self._owed += requests

    async def _answer(self, request: Request) -> None:
        answer: Answer = None
        self.parked_since_ms = now_ms()
        if request[1] in PARKING:
            with trio.CancelScope() as self._work:
                answer = await self._dispatch(self, request)
            self._work = None
        else:
            answer = await self._dispatch(self, request)
        self.parked_since_ms = None
        if self._flags & CLOSED:
            return
        self.last_active_ms = at_ms = now_ms()
        if isinstance(answer, Refuse):
            self.closed_because = answer.reason
            self._flags = self._plane.refuse(self.session_id, answer.reason)
            return
        self._flags, owed = self._plane.reply(self.session_id, request[0], answer, at_ms, wall_ms())
        if owed:
            self._owe(owed)
        self._after_pump()
