"""A connection's task against a data plane that follows a script."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from ottla._native import CLOSED, MORE, STALLED, WANT_WRITE
from ottla.broker.connection import Answer, Connection, Refuse
from ottla.protocol.versions import ApiKey

REQUEST = (1, ApiKey.METADATA, 9, 77, "client", b"")
JOIN = (1, ApiKey.JOIN_GROUP, 9, 77, "client", b"")


class ScriptedPlane:
    """Answers `pump` and `reply` with what the test put in, and notes the calls."""

    def __init__(self, *pumped: tuple[int, list[Any]]) -> None:
        self.script = list(pumped)
        self.calls: list[Any] = []

    def open_session(self, fd: int, listener: str) -> int:
        self._fd = fd
        self.calls.append(("open", listener))
        return 5

    def pump(self, _session_id: int, _now_ms: int, _wall_ms: int) -> tuple[int, list[Any]]:
        self.calls.append("pump")
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 100)
        return self.script.pop(0)

    def reply(self, _session_id: int, request_id: int, response: bytes | None, *_now: int) -> tuple[int, list[Any]]:
        self.calls.append(("reply", request_id, response))
        return self.script.pop(0)

    def refuse(self, _session_id: int, reason: str, *_now: int) -> int:
        self.calls.append(("refuse", reason))
        return CLOSED

    def close_session(self, _session_id: int) -> None:
        self.calls.append("close")

    def close_reason(self, _session_id: int) -> None:
        return None


async def answer_ok(_connection: Connection, _request: Any) -> Answer:
    return b"ok"


def run(
    plane: Any,
    scenario: Callable[[Connection, socket.socket], Awaitable[None]] | None = None,
    dispatch: Callable[[Connection, Any], Awaitable[Answer]] = answer_ok,
) -> Connection:
    """Run a connection's task beside `scenario`, which has the client's end; both must end."""

    async def main() -> Connection:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs, trio.socket.from_stdlib_socket(ours) as sock, trio.fail_after(5):
            connection = Connection(
                plane,
                sock,
                peer=("127.0.0.1", 1),
                listener_name="PLAINTEXT",
                dispatch=dispatch,
                after_pump=lambda: None,
                on_closed=lambda _connection: None,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.run)
                theirs.send(b"request")
                if scenario is not None:
                    await trio.testing.wait_all_tasks_blocked()
                    await scenario(connection, theirs)
        return connection

    return trio.run(main)


def test_owed_requests_are_answered_in_turn() -> None:
    plane = ScriptedPlane((STALLED, [REQUEST]), (STALLED, [(2, *REQUEST[1:])]), (CLOSED, []))
    run(plane)
    assert plane.calls == [("open", "PLAINTEXT"), "pump", ("reply", 1, b"ok"), ("reply", 2, b"ok"), "close"]


def test_output_leaves_before_an_owed_request_is_worked_on() -> None:
    plane = ScriptedPlane((WANT_WRITE, [REQUEST]), (STALLED, []), (CLOSED, []))
    run(plane)
    assert plane.calls[1:] == ["pump", "pump", ("reply", 1, b"ok"), "close"]


def test_more_is_pumped_after_others_had_their_turn() -> None:
    plane = ScriptedPlane((MORE, []), (CLOSED, []))
    run(plane)
    assert plane.calls[1:] == ["pump", "pump", "close"]


def test_a_readable_socket_is_pumped() -> None:
    async def scenario(_connection: Connection, client: socket.socket) -> None:
        client.send(b"x")

    plane = ScriptedPlane((0, []), (CLOSED, []))
    run(plane, scenario)
    assert plane.calls[1:] == ["pump", "pump", "close"]


@pytest.mark.parametrize("waiting", [0, STALLED])
def test_a_poll_ends_the_wait_and_brings_a_request(waiting: int) -> None:
    async def scenario(connection: Connection, _client: socket.socket) -> None:
        connection.on_polled(STALLED, [REQUEST])

    plane = ScriptedPlane((waiting, []), (STALLED, []), (CLOSED, []))
    run(plane, scenario)
    assert plane.calls[1:] == ["pump", "pump", ("reply", 1, b"ok"), "close"]


def test_a_poll_that_left_output_behind_makes_the_task_write() -> None:
    async def scenario(connection: Connection, _client: socket.socket) -> None:
        connection.on_polled(WANT_WRITE, [])

    plane = ScriptedPlane((0, []), (WANT_WRITE, []), (CLOSED, []))
    run(plane, scenario)
    assert plane.calls[1:] == ["pump", "pump", "pump", "close"]


def test_a_refusal_ends_the_connection() -> None:
    async def refuse(_connection: Connection, _request: Any) -> Answer:
        return Refuse("no")

    plane = ScriptedPlane((STALLED, [REQUEST]))
    connection = run(plane, dispatch=refuse)
    assert plane.calls[1:] == ["pump", ("refuse", "no"), "close"]
    assert connection.closed_because == "no"


def test_a_peer_that_leaves_while_it_waits_ends_the_work_for_it() -> None:
    async def wait_for_ever(_connection: Connection, _request: Any) -> Answer:
        await trio.sleep_forever()

    async def scenario(connection: Connection, _client: socket.socket) -> None:
        assert connection.parked_since_ms is not None
        connection.check_peer()
        await trio.testing.wait_all_tasks_blocked()
        assert "close" not in plane.calls
        connection.check_peer()

    plane = ScriptedPlane((STALLED, [JOIN]), (STALLED, []), (CLOSED, []))
    run(plane, scenario, wait_for_ever)
    assert plane.calls[-1] == "close"


def test_closing_from_outside_ends_the_task() -> None:
    async def scenario(connection: Connection, _client: socket.socket) -> None:
        connection.close("idle")

    plane = ScriptedPlane((0, []))
    assert run(plane, scenario).closed_because == "idle"
    assert plane.calls[-1] == "close"


def test_a_bug_ends_one_connection_and_not_the_broker() -> None:
    async def fail(_connection: Connection, _request: Any) -> Answer:
        raise RuntimeError("a bug")

    plane = ScriptedPlane((STALLED, [REQUEST]))
    assert run(plane, dispatch=fail).closed_because == "internal error"
    assert plane.calls[-1] == "close"
