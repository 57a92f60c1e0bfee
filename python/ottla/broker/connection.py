"""One connection: the answers that Python owes it, and its end.

Bytes never pass through here. The native data plane waits for all sockets at once, receives, handles Produce and Fetch
and sends; `Poller` hands on what it says about this connection: a request of another API, at most one at a time, or
that the connection is over. So an idle connection has no task, and costs the event loop nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from ottla.broker.clock import now_ms, wall_ms
from ottla.broker.event_log import EventLog
from ottla.broker.later import Later
from ottla.broker.pace import Pace
from ottla.protocol.versions import ApiKey

if TYPE_CHECKING:
    from ottla._native import DataPlane, Request

log = EventLog("connection")


class Dispatch(Protocol):
    """Where requests are answered (`dispatch`)."""

    def begin(self, connection: Connection, request: Request) -> Answer | Later | NeedsTask:
        """Answer a request as far as that goes without a task."""

    async def __call__(self, connection: Connection, request: Request) -> Answer:
        """Answer a request, whatever it takes."""


Start = Callable[..., Any]
"""`Nursery.start_soon` of the nursery in which requests are answered."""


class Refuse:
    """An answer that ends the connection: no response can be encoded, or none may be given."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class NeedsTask:
    """A request can only be answered by a task."""


NEEDS_TASK: Final = NeedsTask()

Answer = bytes | Refuse | None
"""Response header and body; None: the request has no response."""

PARKING: Final = frozenset({ApiKey.JOIN_GROUP, ApiKey.SYNC_GROUP, ApiKey.SHARE_FETCH})
"""Requests that wait for other clients, perhaps for minutes: their tasks are given up when their own client leaves."""
UNKNOWN_SOFTWARE: Final = ("unknown", "unknown")


class Connection:
    """A client's connection, from the moment its socket is accepted until `close`."""

    __slots__ = (
        "_dispatch",
        "_is_closed",
        "_on_closed",
        "_pace",
        "_parked",
        "_plane",
        "_sock",
        "_start",
        "_work",
        "committed_shape",
        "listener_name",
        "local",
        "peer",
        "session_id",
        "software",
        "standing",
        "standing_commit",
    )

    def __init__(
        self,
        plane: DataPlane,
        sock: socket.socket,
        *,
        peer: tuple[str, int],
        listener_name: str,
        dispatch: Dispatch,
        start: Start,
        on_closed: Callable[[Connection], None],
        pace: Pace,
    ) -> None:
        """Take over a connected socket.

        Args:
            on_closed: Called once, when the socket is closed.
            pace: Of the event loop.
        """
        self._plane = plane
        self._sock = sock
        self._dispatch = dispatch
        self._start = start
        self._on_closed = on_closed
        self._pace = pace
        self._is_closed = False
        self._parked: Later | None = None
        """The answer that is to come without a task."""
        self._work: trio.CancelScope | None = None
        """Around a handler that may have to wait for other clients."""
        self.peer = peer
        self.local: tuple[str, int] = sock.getsockname()[:2]
        """The address that the client connected to."""
        self.listener_name = listener_name
        self.session_id = plane.open_session(sock.fileno(), now_ms())
        self.software: tuple[str, str] = UNKNOWN_SOFTWARE
        """Name and version of the client's software (KIP-511)."""
        self.standing: Callable[[], None] | None = None
        """Withdraws the answer that the data plane gives to this client without asking."""
        self.standing_commit: Callable[[], None] | None = None
        """Has the data plane carry out no more of this client's commits."""
        self.committed_shape: int | None = None
        """Tells whether a commit is like the one before it."""

    def on_polled(self, *, is_over: bool, owed: list[Request]) -> None:
        """Take what the data plane said about this session."""
        if is_over:
            self.close()
        elif owed:
            self._begin(owed[0])

    def close(self, reason: str | None = None) -> None:
        """End the connection now. A handler at work goes on, unless it waits for other clients, for nobody.

        Args:
            reason: Why, if it is the caller's doing.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._work is not None:
            self._work.cancel()
        if self._parked is not None:
            self._parked.drop()
        self.end_standing()
        self.end_standing_commit()
        reason = reason or self._plane.close_reason(self.session_id)
        self._plane.close_session(self.session_id)
        self._sock.close()
        if reason is not None:
            log.info("connection_closed", peer=f"{self.peer[0]}:{self.peer[1]}", reason=reason)
        self._on_closed(self)

    def end_standing(self) -> None:
        """No answer stands any more."""
        withdraw, self.standing = self.standing, None
        if withdraw is not None:
            withdraw()

    def end_standing_commit(self) -> None:
        """Commits are carried out in Python again."""
        withdraw, self.standing_commit = self.standing_commit, None
        if withdraw is not None:
            withdraw()

    def _begin(self, request: Request) -> None:
        """Answer a request now, or see to it that it will be. A bug of ours ends this connection only."""
        try:
            answer = self._dispatch.begin(self, request)
            if isinstance(answer, Later):
                self._parked = answer.then(partial(self._answer_parked, request))
            elif isinstance(answer, NeedsTask):
                self._start(self._answer, [request])
            else:
                self._go_on(self._send(request, answer))
        except Exception as error:
            self._fail(error)

    def _answer_parked(self, request: Request, get: Callable[[], Answer]) -> None:
        self._parked = None
        try:
            self._go_on(self._send(request, get()))
        except Exception as error:
            self._fail(error)

    def _go_on(self, owed: list[Request]) -> None:
        if owed:
            # One after the other in a task: others are to have their turn between them.
            self._start(self._answer, owed)

    async def _answer(self, owed: list[Request]) -> None:
        """Answer requests as long as one follows the other. A bug of ours ends this connection only."""
        try:
            while owed and not self._is_closed:
                owed = await self._answer_one(owed[0])
                # A client may send as fast as it is answered.
                await self._pace.keep()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        log.error("connection_failed", peer=f"{self.peer[0]}:{self.peer[1]}", error=error)
        self.close("internal error")

    async def _answer_one(self, request: Request) -> list[Request]:
        """Answer one request; returns what is owed next."""
        answer: Answer = None
        if request[1] in PARKING:
            with trio.CancelScope() as self._work:
                answer = await self._dispatch(self, request)
            self._work = None
        else:
            answer = await self._dispatch(self, request)
        return self._send(request, answer)

    def _send(self, request: Request, answer: Answer) -> list[Request]:
        """Hand an answer over; returns what is owed next."""
        if self._is_closed:
            return []
        next_owed: list[Request] = []
        if isinstance(answer, Refuse):
            is_over = self._plane.refuse(self.session_id, answer.reason, now_ms(), wall_ms())
        else:
            is_over, next_owed = self._plane.reply(self.session_id, request[0], answer, now_ms(), wall_ms())
        if is_over:
            self.close()
        return next_owed
