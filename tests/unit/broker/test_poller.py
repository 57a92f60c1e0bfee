"""The data plane in Trio's idle time: what ends its wait, and what goes wrong in it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from ottla._native import DataPlane, build_batch
from ottla.broker.connection import Connection
from ottla.broker.poller import Poller
from ottla.protocol.versions import ApiKey
from tests.property.native_lab import NativeLab, now_ms, wall_ms

WAIT_S_MAX = 20
METADATA = struct.pack(">ihhihc", 11, ApiKey.METADATA, 1, 7, 1, b"c")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[NativeLab]:
    with NativeLab(tmp_path / "data", {"t": 1}) as lab:
        yield lab


class Told:
    """A connection that notes what it is told."""

    def __init__(self, then: Callable[[Any], None]) -> None:
        self._then = then

    def on_polled(self, *, is_over: bool, owed: list[Any]) -> None:
        self._then("over" if is_over else owed[0])


def poller(lab: NativeLab, then: Callable[[Any], None], moved: Callable[[str, int], None] | None = None) -> Poller:
    connections = cast("dict[int, Connection]", {lab.session_id: Told(then)})
    return Poller(lab.plane, connections, moved or (lambda _topic, _partition: None))


def answer(lab: NativeLab, request: Any) -> None:
    lab.plane.reply(lab.session_id, request[0], b"\0\0\0\7", now_ms(), wall_ms())


def test_a_task_that_a_request_wakes_runs_at_once(lab: NativeLab) -> None:
    async def main() -> None:
        told = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller(lab, lambda _request: told.set()).run)
            await trio.testing.wait_all_tasks_blocked()
            lab.client.sendall(METADATA)
            with trio.fail_after(WAIT_S_MAX):
                await told.wait()
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_request_that_is_answered_without_a_task_takes_no_turn_of_the_event_loop(lab: NativeLab) -> None:
    class Turns(trio.abc.Instrument):
        count = 0

        def after_io_wait(self, _timeout: float) -> None:
            self.count += 1

    turns = Turns()
    answered = 0

    def count(request: Any) -> None:
        nonlocal answered
        answered += 1
        answer(lab, request)

    def ask(times: int) -> None:
        for _ in range(times):
            lab.client.sendall(METADATA)
            assert lab.client.recv(100) == b"\0\0\0\4\0\0\0\7"

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller(lab, count).run)
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(turns)
            with trio.fail_after(WAIT_S_MAX):
                await trio.to_thread.run_sync(ask, 200)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert answered == 200
    assert turns.count < 100


def test_what_trio_waits_for_ends_the_wait(lab: NativeLab) -> None:
    async def main() -> None:
        here, there = socket.socketpair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller(lab, print).run)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(WAIT_S_MAX), here, there:
                assert await trio.to_thread.run_sync(lambda: 5) == 5
                await trio.to_thread.run_sync(there.send, b"x")
                await trio.lowlevel.wait_readable(here)
                began = trio.current_time()
                await trio.sleep(0.02)
                assert 0.02 <= trio.current_time() - began < 1
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_deadline_that_a_request_sets_is_kept(lab: NativeLab) -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:

            def hurry(_request: Any) -> None:
                scope.deadline = trio.current_time() + 0.01

            async with trio.open_nursery() as nursery:
                nursery.start_soon(poller(lab, hurry).run)
                await trio.testing.wait_all_tasks_blocked()
                with trio.fail_after(WAIT_S_MAX):
                    await trio.to_thread.run_sync(lab.client.sendall, METADATA)
                    await trio.sleep_forever()
        assert scope.cancelled_caught

    trio.run(main)


def test_moved_high_watermarks_are_told(lab: NativeLab) -> None:
    async def main() -> None:
        moved = trio.Event()
        partition = lab.partitions["t", 0]
        partition.watch()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller(lab, print, lambda _topic, _partition: moved.set()).run)
            await trio.testing.wait_all_tasks_blocked()
            partition.append_batch(build_batch([(None, b"x", wall_ms(), [])]), wall_ms=wall_ms())
            with trio.fail_after(WAIT_S_MAX):
                await moved.wait()
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_bug_in_what_is_told_ends_the_poller_and_only_that(lab: NativeLab, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_request: Any) -> None:
        raise RuntimeError("a bug")

    async def main() -> None:
        lab.client.sendall(METADATA)
        with trio.fail_after(WAIT_S_MAX):
            await poller(lab, fail).run()

    with pytest.raises(RuntimeError, match="a bug"):
        trio.run(main)
    assert not caplog.records, "Trio did not have to take it away"


def test_a_poller_that_is_cancelled_leaves_nothing_behind(lab: NativeLab) -> None:
    async def main() -> None:
        before = set(os.listdir("/proc/self/fd"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller(lab, print).run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        lab.client.sendall(METADATA)
        with trio.move_on_after(0.02):
            await trio.sleep_forever()
        assert lab.poll()[1], "nobody polled any more"
        assert set(os.listdir("/proc/self/fd")) <= before

    trio.run(main)


def test_a_wait_without_a_deadline_is_one_wait(lab: NativeLab) -> None:
    """Nothing in the event loop has a deadline, as far as a request had it looked at."""

    def ask() -> None:
        lab.client.sendall(METADATA)
        assert lab.client.recv(100)

    def ask_twice() -> float:
        ask()
        used_s = time.process_time()
        time.sleep(0.2)
        ask()
        return time.process_time() - used_s

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller(lab, partial(answer, lab)).run)
            await trio.testing.wait_all_tasks_blocked()
            assert await trio.to_thread.run_sync(ask_twice) < 0.1
            nursery.cancel_scope.cancel()

    trio.run(main)


class Noting:
    """A data plane that says one thing, and notes what is done while it is corked."""

    def __init__(self, notes: list[Any]) -> None:
        self._notes = notes
        self._said: list[Any] = [([(1, False, ["request"]), (2, True, [])], [("topic", 0)], [], True)]

    def wait_beside(self, _fd: int) -> None:
        pass

    def poll(self, *_times: float) -> Any:
        return self._said.pop() if self._said else ([], [], [], True)

    def cork(self) -> None:
        self._notes.append("cork")

    def uncork(self, now_ms: int, wall_ms: int) -> None:
        self._notes.append("uncork")


@pytest.mark.parametrize("fails", [False, True])
def test_what_one_poll_brings_is_written_together(fails: bool) -> None:
    notes: list[Any] = []

    def note(request: Any) -> None:
        notes.append(request)
        if fails:
            raise RuntimeError("a bug")

    async def main() -> None:
        plane = cast("DataPlane", Noting(notes))
        connections = cast("dict[int, Connection]", {1: Told(note)})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Poller(plane, connections, lambda *moved: notes.append(moved)).run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    if fails:
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug")):
            trio.run(main)
        assert notes == ["cork", ("topic", 0), "request", "uncork"]
    else:
        trio.run(main)
        # What has moved comes first: a request is not to see what was lost, or less than another client was told.
        assert notes == ["cork", ("topic", 0), "request", "uncork"]


def test_a_task_that_a_request_wakes_does_not_wait_for_what_it_waited_for_before(lab: NativeLab) -> None:
    """Trio's own descriptor was ready, and is not watched any more when the data plane lets go."""
    here, there = socket.socketpair()
    scope = trio.CancelScope()

    async def wait_for_input() -> None:
        with scope:
            await trio.lowlevel.wait_readable(here)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller(lab, lambda _request: scope.cancel()).run)
            async with trio.open_nursery() as waiting:
                waiting.start_soon(wait_for_input)
                await trio.testing.wait_all_tasks_blocked()
                there.send(b"x")
                lab.client.sendall(METADATA)
                began = trio.current_time()
                waiting.cancel_scope.deadline = began + WAIT_S_MAX
            assert trio.current_time() - began < WAIT_S_MAX / 2
            nursery.cancel_scope.cancel()

    with here, there:
        trio.run(main)


def test_trio_is_not_kept_waiting_by_however_many_connections(lab: NativeLab) -> None:
    connections = 300
    answered = 0
    here, there = socket.socketpair()

    class Answers:
        def __init__(self, session_id: int) -> None:
            self.session_id = session_id

        def on_polled(self, *, is_over: bool, owed: list[Any]) -> None:
            nonlocal answered
            answered += 1
            lab.plane.reply(self.session_id, owed[0][0], b"\0\0\0\7", now_ms(), wall_ms())

    async def main(clients: list[socket.socket], answers: dict[int, Connection]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Poller(lab.plane, answers, print).run)
            await trio.testing.wait_all_tasks_blocked()
            for client in clients:
                client.sendall(METADATA)
            there.send(b"x")
            with trio.fail_after(WAIT_S_MAX):
                await trio.lowlevel.wait_readable(here)
            assert 0 < answered < connections / 2
            nursery.cancel_scope.cancel()

    with contextlib.ExitStack() as stack:
        stack.enter_context(here)
        stack.enter_context(there)
        clients, answers = [], {}
        for _ in range(connections):
            client, server = map(stack.enter_context, socket.socketpair())
            server.setblocking(False)
            clients.append(client)
            session_id = lab.plane.open_session(server.fileno(), now_ms())
            answers[session_id] = cast("Connection", Answers(session_id))
        trio.run(main, clients, answers)
        for session_id in answers:
            lab.plane.close_session(session_id)


def test_a_bug_is_told_of_also_by_a_poller_that_is_cancelled_meanwhile(lab: NativeLab) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:

            def fail(_request: Any) -> None:
                nursery.cancel_scope.cancel()
                raise RuntimeError("a bug")

            nursery.start_soon(poller(lab, fail).run)
            lab.client.sendall(METADATA)

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug")):
        trio.run(main)


def test_only_a_set_that_watches_a_descriptor_is_waited_for(lab: NativeLab) -> None:
    here, there = socket.socketpair()
    with here, there, select.epoll() as other:
        other.register(here, select.EPOLLIN)
        with pytest.raises(OSError, match="no epoll set"):
            lab.plane.wait_beside(there.fileno())
        lab.plane.wait_beside(here.fileno())
        assert not lab.plane.poll(now_ms(), wall_ms())[3]
        there.send(b"x")
        assert lab.plane.poll(now_ms(), wall_ms(), WAIT_S_MAX)[3]


def test_answers_of_one_round_leave_together_and_requests_behind_them_follow(lab: NativeLab) -> None:
    lab.client.sendall(METADATA * 2)
    (first,) = lab.turn()
    lab.plane.cork()
    lab.plane.cork()
    assert lab.plane.reply(lab.session_id, first[0], b"\0\0\0\7", now_ms(), wall_ms()) == (False, [])
    lab.plane.uncork(now_ms(), wall_ms())
    assert not select.select([lab.client], [], [], 0)[0]
    lab.plane.uncork(now_ms(), wall_ms())
    assert lab.client.recv(100) == b"\0\0\0\4\0\0\0\7"
    _, (second,) = lab.poll()
    assert lab.plane.reply(lab.session_id, second[0], b"\0\0\0\7", now_ms(), wall_ms()) == (False, [])
    assert lab.client.recv(100) == b"\0\0\0\4\0\0\0\7", "nothing is put off any more"


def test_a_connection_may_end_between_its_answer_and_the_round(lab: NativeLab) -> None:
    lab.client.sendall(METADATA)
    (request,) = lab.turn()
    lab.plane.cork()
    answer(lab, request)
    lab.plane.close_session(lab.session_id)
    lab.plane.uncork(now_ms(), wall_ms())
    assert lab.plane.poll(now_ms(), wall_ms())[0] == []
