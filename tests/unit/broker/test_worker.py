"""Work in threads, and what becomes of it when who asked for it is cancelled."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
import trio

from ottla.broker.worker import close_in_thread, in_thread, not_closed

WAIT_S_MAX = 20


class Held:
    """Work that is done when it is let go."""

    def __init__(self) -> None:
        self.began = trio.Event()
        self.let_go = threading.Event()
        self.is_done = False
        self._token = trio.lowlevel.current_trio_token()

    def __call__(self) -> str:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.began.set)
        assert self.let_go.wait(WAIT_S_MAX)
        self.is_done = True
        return "done"


def test_what_work_returns_or_raises_is_handed_on() -> None:
    async def main() -> None:
        assert await in_thread(lambda: 5) == 5
        with pytest.raises(ZeroDivisionError):
            await in_thread(lambda: 1 // 0)

    trio.run(main)


def test_who_is_cancelled_still_gets_the_result() -> None:
    async def main() -> None:
        work, got = Held(), ""
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def cancel() -> None:
                    await work.began.wait()
                    scope.cancel()
                    work.let_go.set()

                got = await in_thread(work, patience_s=WAIT_S_MAX)
        assert got == "done"

    trio.run(main)


def test_a_thread_that_does_not_come_back_is_left_behind() -> None:
    async def main() -> None:
        work, is_left = Held(), True
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def cancel() -> None:
                    await work.began.wait()
                    scope.cancel()

                with trio.fail_after(WAIT_S_MAX):
                    await in_thread(work, patience_s=0.01)
                is_left = False
        assert is_left
        assert not work.is_done
        work.let_go.set()

    trio.run(main)


def test_what_is_not_closed_is_known_until_it_is() -> None:
    async def main() -> None:
        close, quick = Held(), Held()
        quick.let_go.set()
        await close_in_thread("one", quick, patience_s=WAIT_S_MAX)
        await close_in_thread("other", close, patience_s=0.01)
        assert not_closed() == ["other"]
        close.let_go.set()

    trio.run(main)
    deadline_s = time.monotonic() + WAIT_S_MAX
    while not_closed():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def test_work_that_waits_for_a_thread_is_not_begun_any_more() -> None:
    async def main() -> None:
        work, threads = Held(), trio.CapacityLimiter(1)
        threads.acquire_on_behalf_of_nowait("somebody")
        with trio.move_on_after(0.01) as scope:
            await in_thread(work, limiter=threads)
        assert scope.cancelled_caught
        threads.release_on_behalf_of("somebody")
        assert await in_thread(lambda: 5, limiter=threads) == 5
        assert not work.began.is_set()

    trio.run(main)
