"""A few read-only pages over HTTP/1.1: `/metrics`, `/livez`, `/readyz`. One request a connection, no library."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Final

import trio

from ottla.broker.event_log import EventLog

log = EventLog("http")

HEAD_BYTES_MAX: Final = 8192
REQUEST_TIMEOUT_S: Final = 10.0

Page = Callable[[], tuple[int, str]]
"""Returns status and text."""

_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


async def serve_pages(listening: socket.socket, pages: Mapping[str, Page]) -> None:
    """Serve until cancelled, then close."""

    async def serve(stream: trio.SocketStream) -> None:
        await _serve(stream, pages)

    await trio.serve_listeners(serve, [trio.SocketListener(trio.socket.from_stdlib_socket(listening))])


async def _serve(stream: trio.SocketStream, pages: Mapping[str, Page]) -> None:
    with trio.move_on_after(REQUEST_TIMEOUT_S):
        try:
            status, text, with_body = _answer(await _head(stream), pages)
            body = text.encode()
            head = (
                f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            await stream.send_all(head.encode() + (body if with_body else b""))
            await stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("peer_left")


async def _head(stream: trio.SocketStream) -> bytes:
    """Receive up to the empty line; b"" when there is none in time or in bounds."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) <= HEAD_BYTES_MAX:
        chunk = await stream.receive_some(4096)
        if not chunk:
            break
        head += chunk
    return head if b"\r\n\r\n" in head else b""


def _answer(head: bytes, pages: Mapping[str, Page]) -> tuple[int, str, bool]:
    parts = head.split(b"\r\n", 1)[0].split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
        return 400, "bad request\n", True
    with_body = parts[0] == b"GET"
    if not with_body and parts[0] != b"HEAD":
        return 405, "method not allowed\n", True
    page = pages.get(parts[1].split(b"?", 1)[0].decode("latin-1"))
    if page is None:
        return 404, "not found\n", with_body
    try:
        status, text = page()
    except Exception as error:
        log.error("page_failed", path=parts[1].decode("latin-1"), error=error)
        status, text = 500, "internal error\n"
    return status, text, with_body
