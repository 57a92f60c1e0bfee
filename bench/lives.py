"""Many connections driven by one plain loop: where time is measured, a client's own tasks would be half of it."""

from __future__ import annotations

import heapq
import select
import socket
import time
from collections.abc import Callable, Generator, Sequence
from typing import TypeAlias

from bench.wire import framed
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.versions import ApiKey

Life: TypeAlias = Generator[bytes | float, bytes, None]
"""What a client does, without I/O: it yields a frame and is sent the answer, or yields seconds that it waits."""

RECEIVE_BYTES = 65_536


def live(port: int, lives: Sequence[Life], is_over: Callable[[], bool], *, seconds_max: float) -> float:
    """Lead all lives at once, each with a connection of its own, over which the broker has answered before.

    Args:
        is_over: Asked after every few steps.
    Returns:
        The seconds from the first request until it was over.
    Raises: RuntimeError (a connection was closed, or the time is up).
    """
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in lives]
    try:
        for connection in sockets:
            _introduce(connection)
        return _lead({s.fileno(): (s, life) for s, life in zip(sockets, lives, strict=True)}, is_over, seconds_max)
    finally:
        for life in lives:
            life.close()
        for connection in sockets:
            connection.close()


def _introduce(connection: socket.socket) -> None:
    """Ask for ApiVersions, as every client does first: by then the broker has accepted the connection."""
    connection.sendall(framed(ApiKey.API_VERSIONS, 0, ApiVersionsRequest()))
    answer = b""
    while len(answer) < 4 or len(answer) < 4 + int.from_bytes(answer[:4]):
        chunk = connection.recv(RECEIVE_BYTES)
        if not chunk:
            raise RuntimeError("the broker closed the connection")
        answer += chunk


def _lead(clients: dict[int, tuple[socket.socket, Life]], is_over: Callable[[], bool], seconds_max: float) -> float:
    sleepers: list[tuple[float, int]] = []
    received = {fd: bytearray() for fd in clients}

    def act(fd: int, wish: bytes | float) -> None:
        if isinstance(wish, float):
            heapq.heappush(sleepers, (time.monotonic() + wish, fd))
        else:
            clients[fd][0].sendall(wish)

    with select.epoll() as epoll:
        for fd, (connection, _) in clients.items():
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            epoll.register(fd, select.EPOLLIN)
        # Made before: what is asked first comes at once.
        first = {fd: next(life) for fd, (_, life) in clients.items()}
        began_s = time.monotonic()
        for fd, wish in first.items():
            act(fd, wish)
        while not is_over():
            now_s = time.monotonic()
            if now_s - began_s > seconds_max:
                raise RuntimeError(f"not over after {seconds_max:g} s")
            while sleepers and sleepers[0][0] <= now_s:
                _, fd = heapq.heappop(sleepers)
                act(fd, next(clients[fd][1]))
            timeout_s = min(sleepers[0][0] - now_s, 1.0) if sleepers else 1.0
            # What is asked next is sent together, as clients would that do not wait for each other: a broker is woken
            # by the first.
            next_wishes = []
            for fd, _ in epoll.poll(max(timeout_s, 0.0)):
                connection, life = clients[fd]
                chunk = connection.recv(RECEIVE_BYTES)
                if not chunk:
                    raise RuntimeError("the broker closed the connection")
                buffer = received[fd]
                buffer += chunk
                if len(buffer) >= 4 and len(buffer) == 4 + int.from_bytes(buffer[:4]):
                    answer = bytes(buffer[4:])
                    buffer.clear()
                    next_wishes.append((fd, life.send(answer)))
            for fd, wish in next_wishes:
                act(fd, wish)
        return time.monotonic() - began_s
