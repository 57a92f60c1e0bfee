"""Accepting connections from a socket that is really there."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from ottla.broker import listener as module
from ottla.broker.listener import ACCEPTS_A_TURN, ConnectionLimits, open_listener, serve_listener
from ottla.common.endpoints import Endpoint


def run(
    scenario: Callable[[socket.socket, list[socket.socket], ConnectionLimits], Awaitable[None]],
    listening: Any = None,
) -> None:
    """Run `scenario` with a listener that is served, and the connections that it has accepted."""

    async def main() -> None:
        accepted: list[socket.socket] = []
        limits = ConnectionLimits()
        real = open_listener(Endpoint(name="PLAINTEXT", host="127.0.0.1", port=0))
        served = real if listening is None else listening(real)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_listener, served, lambda sock, _peer: accepted.append(sock), limits)
                await scenario(real, accepted, limits)
                nursery.cancel_scope.cancel()
        assert real.fileno() == -1
        for sock in accepted:
            sock.close()

    trio.run(main)


def connect(listening: socket.socket, count: int) -> list[socket.socket]:
    return [socket.create_connection(listening.getsockname()) for _ in range(count)]


def test_all_who_wait_are_accepted_and_none_blocks() -> None:
    count = 2 * ACCEPTS_A_TURN + 1

    async def scenario(listening: socket.socket, accepted: list[socket.socket], limits: ConnectionLimits) -> None:
        clients = connect(listening, count)
        while len(accepted) < count:
            await trio.testing.wait_all_tasks_blocked()
        assert limits.open_count == count
        assert not any(sock.getblocking() for sock in accepted)
        with pytest.raises(BlockingIOError):
            accepted[0].recv(1)
        for client in clients:
            client.close()

    run(scenario)


def test_others_have_their_turn_between_connections() -> None:
    async def scenario(listening: socket.socket, accepted: list[socket.socket], _limits: ConnectionLimits) -> None:
        clients = connect(listening, 6 * ACCEPTS_A_TURN)
        seen = []
        while len(accepted) < len(clients):
            await trio.lowlevel.checkpoint()
            seen.append(len(accepted))
        # Trio may run the listener last in one turn and first in the next.
        steps = [after - before for before, after in zip([0, *seen], seen, strict=False)]
        assert max(steps) <= 2 * ACCEPTS_A_TURN
        for client in clients:
            client.close()

    run(scenario)


class Failing:
    """A listening socket of which the first accept fails."""

    def __init__(self, real: socket.socket, error: int) -> None:
        self._real = real
        self._errors = [error]
        self.fileno = real.fileno

    def accept(self) -> Any:
        if self._errors:
            raise OSError(self._errors.pop(), "failed")
        return self._real.accept()

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *_: object) -> None:
        self._real.close()


@pytest.mark.parametrize("error", [errno.ECONNABORTED, errno.EMFILE])
def test_who_comes_after_a_failure_is_accepted(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACCEPT_BACKOFF_S", 0)

    async def scenario(listening: socket.socket, accepted: list[socket.socket], _limits: ConnectionLimits) -> None:
        (client,) = connect(listening, 1)
        while not accepted:
            await trio.lowlevel.checkpoint()
        client.close()

    run(scenario, lambda real: Failing(real, error))


def test_the_end_of_the_socket_is_told() -> None:
    async def main() -> None:
        real = open_listener(Endpoint(name="PLAINTEXT", host="127.0.0.1", port=0))
        (client,) = connect(real, 1)
        failing: Any = Failing(real, errno.EBADF)
        with client, pytest.raises(OSError, match="failed"):
            await serve_listener(failing, lambda _sock, _peer: None, ConnectionLimits())

    trio.run(main)
