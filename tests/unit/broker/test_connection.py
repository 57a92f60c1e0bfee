"""A connection against a data plane that follows a script."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio
import trio.testing

from ottla.broker.connection import NEEDS_TASK, Answer, Connection, NeedsTask, Refuse
from ottla.broker.later import Later
from ottla.broker.pace import Pace
from ottla.protocol.versions import ApiKey

REQUEST = (1, ApiKey.METADATA, 9, 77, "client", b"")
NEXT = (2, *REQUEST[1:])
JOIN = (1, ApiKey.JOIN_GROUP, 9, 77, "client", b"")


class ScriptedPlane:
    """Answers `reply` with what the test put in, and notes the calls."""

    def __init__(self, *replied: tuple[bool, list[Any]], refused: bool = True) -> None:
        self.script = list(replied)
        self.refused = refused
        self.calls: list[Any] = []

    def open_session(self, _fd: int, _now_ms: int) -> int:
        return 5

    def reply(self, session_id: int, request_id: int, response: bytes | None, *_now: int) -> tuple[bool, list[Any]]:
        self.calls.append(("reply", session_id, request_id, response))
        return self.script.pop(0)

    def refuse(self, _session_id: int, reason: str, *_now: int) -> bool:
        self.calls.append(("refuse", reason))
        return self.refused

    def close_session(self, _session_id: int) -> None:
        self.calls.append("close")

    def close_reason(self, _session_id: int) -> None:
        return None


class Dispatching:
    """Answers every request in a task, and those that `at_once` has an answer for without one."""

    def __init__(
        self,
        answer: Callable[[Connection, Any], Awaitable[Answer]],
        at_once: Callable[[Any], Answer | Later | NeedsTask] | None = None,
    ) -> None:
        self._answer = answer
        self._at_once = at_once

    def begin(self, _connection: Connection, request: Any) -> Answer | Later | NeedsTask:
        return NEEDS_TASK if self._at_once is None else self._at_once(request)

    async def __call__(self, connection: Connection, request: Any) -> Answer:
        return await self._answer(connection, request)


async def answer_ok(_connection: Connection, _request: Any) -> Answer:
    return b"ok"


def run(
    plane: Any,
    scenario: Callable[[Connection, trio.Nursery], Awaitable[None]],
    dispatch: Callable[[Connection, Any], Awaitable[Answer]] = answer_ok,
    at_once: Callable[[Any], Answer | Later | NeedsTask] | None = None,
) -> list[Connection]:
    """Run `scenario` with a connection; returns the connections that were closed."""
    closed: list[Connection] = []

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs, ours as sock, trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                connection = Connection(
                    plane,
                    sock,
                    peer=("127.0.0.1", 1),
                    listener_name="PLAINTEXT",
                    dispatch=Dispatching(dispatch, at_once),
                    start=nursery.start_soon,
                    on_closed=closed.append,
                    pace=Pace(),
                )
                await scenario(connection, nursery)
                await trio.testing.wait_all_tasks_blocked()
            is_open = sock.fileno() >= 0
            assert is_open != bool(closed)

    trio.run(main)
    return closed


async def owe(connection: Connection, *requests: Any) -> None:
    connection.on_polled(is_over=False, owed=list(requests))
    await trio.testing.wait_all_tasks_blocked()


def test_a_connection_that_is_owed_nothing_has_no_task() -> None:
    async def scenario(connection: Connection, nursery: trio.Nursery) -> None:
        connection.on_polled(is_over=False, owed=[])
        assert not nursery.child_tasks

    plane = ScriptedPlane()
    assert run(plane, scenario) == []
    assert plane.calls == []


def test_owed_requests_are_answered_in_turn() -> None:
    async def scenario(connection: Connection, _nursery: trio.Nursery) -> None:
        await owe(connection, REQUEST)

    plane = ScriptedPlane((False, [NEXT]), (False, []))
    run(plane, scenario)
    assert plane.calls == [("reply", 5, 1, b"ok"), ("reply", 5, 2, b"ok")]


def test_what_can_be_answered_at_once_has_no_task() -> None:
    async def scenario(connection: Connection, nursery: trio.Nursery) -> None:
        connection.on_polled(is_over=False, owed=[REQUEST])
        assert not nursery.child_tasks
        assert plane.calls == [("reply", 5, 1, b"now")]

    plane = ScriptedPlane((False, []))
    run(plane, scenario, at_once=lambda _request: b"now")


def test_what_follows_an_answer_at_once_lets_others_have_their_turn() -> None:
    async def scenario(connection: Connection, nursery: trio.Nursery) -> None:
        connection.on_polled(is_over=False, owed=[REQUEST])
        assert len(plane.calls) == 1
        await trio.testing.wait_all_tasks_blocked()

    plane = ScriptedPlane((False, [NEXT]), (False, []))
    run(plane, scenario, at_once=lambda _request: b"now")
    assert plane.calls == [("reply", 5, 1, b"now"), ("reply", 5, 2, b"ok")]


def test_a_refusal_or_a_bug_at_once_ends_the_connection() -> None:
    async def scenario(connection: Connection, _nursery: trio.Nursery) -> None:
        connection.on_polled(is_over=False, owed=[REQUEST])

    def bug(_request: Any) -> Answer:
        raise RuntimeError("a bug")

    refusing, broken = ScriptedPlane(), ScriptedPlane()
    assert len(run(refusing, scenario, at_once=lambda _request: Refuse("no"))) == 1
    assert refusing.calls == [("refuse", "no"), "close"]
    assert len(run(broken, scenario, at_once=bug)) == 1
    assert broken.calls == ["close"]


def test_an_answer_that_comes_later_has_no_task() -> None:
    later = Later(lambda: None)

    async def scenario(connection: Connection, nursery: trio.Nursery) -> None:
        connection.on_polled(is_over=False, owed=[JOIN])
        assert not nursery.child_tasks
        assert plane.calls == []
        later.come(lambda: b"later")
        assert plane.calls == [("reply", 5, 1, b"later")]
        await trio.testing.wait_all_tasks_blocked()

    plane = ScriptedPlane((False, [NEXT]), (False, []))
    run(plane, scenario, at_once=lambda _request: later)
    assert plane.calls == [("reply", 5, 1, b"later"), ("reply", 5, 2, b"ok")]


def test_a_client_that_leaves_does_not_want_its_answer_any_more() -> None:
    dropped: list[str] = []

    async def scenario(connection: Connection, _nursery: trio.Nursery) -> None:
        connection.on_polled(is_over=False, owed=[JOIN])
        connection.on_polled(is_over=True, owed=[])

    plane = ScriptedPlane()
    assert len(run(plane, scenario, at_once=lambda _request: Later(lambda: dropped.append("answer")))) == 1
    assert dropped == ["answer"]
    assert plane.calls == ["close"]


def test_an_answer_that_has_come_is_not_dropped_with_its_connection() -> None:
    later = Later(lambda: dropped.append("answer"))
    dropped: list[str] = []

    async def scenario(connection: Connection, _nursery: trio.Nursery) -> None:
        connection.on_polled(is_over=False, owed=[JOIN])
        later.come(lambda: b"later")

    plane = ScriptedPlane((True, []))
    assert len(run(plane, scenario, at_once=lambda _request: later)) == 1
    assert plane.calls == [("reply", 5, 1, b"later"), "close"]
    assert not dropped


def test_a_bug_in_what_comes_later_ends_one_connection_and_not_who_brings_it() -> None:
    later = Later(lambda: None)

    def bug() -> Answer:
        raise RuntimeError("a bug")

    async def scenario(connection: Connection, _nursery: trio.Nursery) -> None:
        connection.on_polled(is_over=False, owed=[JOIN])
        later.come(bug)

    plane = ScriptedPlane()
    assert len(run(plane, scenario, at_once=lambda _request: later)) == 1
    assert plane.calls == ["close"]


def test_a_connection_ends_when_the_data_plane_says_so() -> None:
    async def polled(connection: Connection, _nursery: trio.Nursery) -> None:
        connection.on_polled(is_over=True, owed=[])

    async def replied(connection: Connection, _nursery: trio.Nursery) -> None:
        await owe(connection, REQUEST)

    for scenario in (polled, replied):
        plane = ScriptedPlane((True, []))
        (connection,) = run(plane, scenario)
        connection.close("twice is once")
        assert plane.calls.count("close") == 1


def test_a_refusal_ends_the_connection_once_the_answers_before_it_have_left() -> None:
    async def refuse(_connection: Connection, _request: Any) -> Answer:
        return Refuse("no")

    async def scenario(connection: Connection, _nursery: trio.Nursery) -> None:
        await owe(connection, REQUEST)

    plane = ScriptedPlane()
    assert len(run(plane, scenario, refuse)) == 1
    assert plane.calls == [("refuse", "no"), "close"]
    waiting = ScriptedPlane(refused=False)
    assert run(waiting, scenario, refuse) == []
    assert waiting.calls == [("refuse", "no")]


def test_a_client_that_leaves_ends_what_waits_for_others_on_its_behalf() -> None:
    async def wait_for_ever(_connection: Connection, _request: Any) -> Answer:
        await trio.sleep_forever()

    async def scenario(connection: Connection, nursery: trio.Nursery) -> None:
        await owe(connection, JOIN)
        assert len(nursery.child_tasks) == 1
        connection.on_polled(is_over=True, owed=[])

    plane = ScriptedPlane()
    run(plane, scenario, wait_for_ever)
    assert plane.calls == ["close"]


def test_a_client_that_leaves_does_not_end_work_that_was_begun_for_it() -> None:
    done: list[str] = []
    go_on = trio.Event()

    async def work(_connection: Connection, _request: Any) -> Answer:
        await go_on.wait()
        done.append("work")
        return b"nobody reads this"

    async def scenario(connection: Connection, _nursery: trio.Nursery) -> None:
        await owe(connection, REQUEST)
        connection.on_polled(is_over=True, owed=[])
        go_on.set()

    plane = ScriptedPlane()
    run(plane, scenario, work)
    assert done == ["work"]
    assert plane.calls == ["close"]


def test_a_bug_ends_one_connection_and_not_the_broker() -> None:
    async def fail(_connection: Connection, _request: Any) -> Answer:
        raise RuntimeError("a bug")

    async def scenario(connection: Connection, _nursery: trio.Nursery) -> None:
        await owe(connection, REQUEST)

    plane = ScriptedPlane()
    assert len(run(plane, scenario, fail)) == 1
    assert plane.calls == ["close"]
