"""Something that comes once, and what everybody on its way makes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from ottla.broker.later import Later, finished


def fail() -> int:
    raise ValueError("wrong")


def counted(get: Callable[[], int]) -> int:
    try:
        return get() + 1
    except ValueError:
        return -1


@pytest.mark.parametrize(("begin", "expected"), [(lambda: 1, 2), (fail, -1)])
def test_what_is_there_at_once_is_finished_at_once(begin: Callable[[], int], expected: int) -> None:
    assert finished(begin, counted) == expected


@pytest.mark.parametrize(("begin", "expected"), [(lambda: 1, [3]), (fail, [0])])
def test_each_step_is_given_what_the_one_before_made(begin: Callable[[], int], expected: list[int]) -> None:
    came: list[int] = []
    later = Later(lambda: None)
    found = finished(lambda: later, counted)
    assert found is later
    later.then(counted).then(lambda get: came.append(get()))
    assert not came
    later.come(begin)
    assert came == expected


def test_who_waits_in_a_task_gets_it_there() -> None:
    async def wait_for(later: Later, into: list[object]) -> None:
        try:
            into.append(await later.wait())
        except ValueError as error:
            into.append(error)

    async def main() -> None:
        came: list[object] = []
        good, bad = Later(lambda: None), Later(lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for, good, came)
            await trio.testing.wait_all_tasks_blocked()
            good.come(lambda: 7)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for, bad, came)
            await trio.testing.wait_all_tasks_blocked()
            bad.come(fail)
        assert came[0] == 7
        assert isinstance(came[1], ValueError)

    trio.run(main)


def test_who_is_cancelled_does_not_want_it_any_more() -> None:
    dropped: list[str] = []

    async def main() -> None:
        with trio.move_on_after(1):
            await Later(lambda: dropped.append("it")).wait()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert dropped == ["it"]
