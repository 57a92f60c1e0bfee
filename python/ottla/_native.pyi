"""The Rust core as Python sees it. This stub is the documentation of every native call and of its cost.

Cost classes: QUICK keeps the GIL and takes at most about 200 µs; SLOW releases it, may wait for a disk and is called
through `trio.to_thread`.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

MORE: Final = 1
"""The quantum of the call is used up and bytes may be waiting: yield to other tasks, then call `pump` again."""
WANT_WRITE: Final = 2
"""Output is left that the kernel would not take: wait until the socket is writable, then call `pump` again."""
CLOSED: Final = 4
"""The connection is over: call `close_session`, then close the socket. `close_reason` says why, if it was our doing."""
STALLED: Final = 8
"""Do not wait for readability: nothing more is taken in before `reply`, `poll` or `pump` returns flags without STALLED."""

Request: TypeAlias = tuple[int, int, int, int, str | None, bytes]
"""(request_id, api_key, api_version, correlation_id, client_id, body): a request that Python answers by `reply`.

`body` is everything behind the request header. At most one is outstanding a session: requests behind it are not even
decoded before its reply, and it is handed out only after every earlier request of the connection was answered.
"""

Pumped: TypeAlias = tuple[int, list[Request]]
"""(flags, requests that Python owes)."""

def build_info() -> dict[str, str]:
    """What was built: version and profile. QUICK."""

class DataPlane:
    """All connections, partitions and log directories of one broker, and the replies that wait for them.

    Everything except the calls marked SLOW is for the event loop's thread. `now_ms` is monotonic, `wall_ms` Unix time.
    """

    def __init__(self, *, broker_id: int, log_dirs: Sequence[str], options: Mapping[str, str]) -> None:
        """Make a data plane; `options` are broker configs by Kafka's names, those it does not need are ignored.

        Raises: ValueError (an option's value), OSError.
        """

    def wakeup_fileno(self) -> int:
        """A descriptor that is readable when `poll` has something to do. It is closed with the data plane. QUICK."""

    def open_session(self, fd: int, listener: str) -> int:
        """Serve a connected, non-blocking stream socket; returns the session's id, which is never reused. QUICK.

        The socket stays the caller's: it must stay open until `close_session`, and be closed after it.
        """

    def pump(self, session_id: int, now_ms: int, wall_ms: int) -> Pumped:
        """Receive what is there (up to a quantum), handle it, and send what can be sent. QUICK.

        Call it when the socket is readable; after MORE, WANT_WRITE (when writable) or STALLED as said there. An unneeded
        call does no harm. Raises: KeyError (no such session).
        """

    def reply(self, session_id: int, request_id: int, response: bytes | None, now_ms: int, wall_ms: int) -> Pumped:
        """Answer an owed request, then go on with what the connection has already sent. QUICK.

        `response` is response header and body without the size prefix; None: the request has no response.
        Raises: KeyError (no such session, or it does not owe this request).
        """

    def refuse(self, session_id: int, reason: str) -> int:
        """Close the connection once the replies made so far have left; returns flags. QUICK. Raises: KeyError."""

    def poll(self, now_ms: int, wall_ms: int) -> tuple[list[tuple[int, int, list[Request]]], list[tuple[str, int]]]:
        """Take in completions of the log directories and expired deadlines; send the replies that became ready.

        Call it when `wakeup_fileno` is readable and at `next_deadline_ms`. Returns (session_id, flags, requests) for
        every session whose state the caller must know, with flags as of `pump`; and the (topic, partition) of watched
        partitions whose high watermark moved. QUICK.
        """

    def next_deadline_ms(self) -> int | None:
        """When `poll` must be called next even without a wake-up; None: no deadline. QUICK."""

    def close_session(self, session_id: int) -> None:
        """Forget a connection and everything it waited for. An unknown id is ignored. QUICK."""

    def close_reason(self, session_id: int) -> str | None:
        """Why this side ended a session (kept for the last 1024 that were); None: the peer left. QUICK."""
