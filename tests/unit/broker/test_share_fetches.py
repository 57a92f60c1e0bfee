"""Fetches of share groups: what is read while the world moves on, and acknowledgements whose answers wait."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from ottla.broker.clock import now_ms
from ottla.broker.metrics import ShareCounters
from ottla.broker.share_fetches import Fetched, ShareFetches, Wanted
from ottla.errors import ErrorCode
from ottla.share.acknowledgement import Acknowledgement, AcknowledgeType
from ottla.share.sessions import SessionKey, ShareSession
from tests.unit.broker.share_fakes import SETTINGS, TOPIC, World, run

MEMBER = SessionKey("g", "m")
AT = (TOPIC, 0)


class Member:
    """A member with a session, whose fetches wait for a minute."""

    def __init__(self, world: World, *, beside: Member | None = None) -> None:
        """Args: beside: Another member of the group."""
        self.key = MEMBER if beside is None else beside.key._replace(member_id=f"{beside.key.member_id}m")
        if beside is not None:
            self.settings, self.fetches = beside.settings, beside.fetches
            self.session = self.begin()
            return
        self.counters = ShareCounters()
        self.settings = SETTINGS
        self.fetches = ShareFetches(
            world.partitions,
            settings=cast(Any, SimpleNamespace(of=lambda _group_id: self.settings)),
            disk_threads=[trio.CapacityLimiter(1)],
            sessions_max=100,
            fetch_bytes_max=lambda: 1 << 20,
            counters=self.counters,
        )
        self.session = self.begin()

    def begin(self) -> ShareSession:
        return self.fetches.sessions.fetch(
            self.key, 0, connection_id=1, wanted=[AT], forgotten=(), acknowledges=False, partitions_max=10
        )

    async def fetch(self, *, min_bytes: int = 1) -> dict[Any, Fetched]:
        wanted = Wanted(
            max_wait_ms=60_000,
            min_bytes=min_bytes,
            max_bytes=1 << 20,
            max_records=3,
            batch_size=3,
            is_limit_strict=False,
        )
        return await self.fetches.fetch(self.key, self.session, wanted)

    async def acquire(self, into: Acquired, **fields: Any) -> None:
        """Fetch, and tell of the offsets that it acquired."""
        found = await self.fetch(**fields)
        into.add(at for one in found[AT].acquired for at in range(one.first_offset, one.last_offset + 1))


class Acquired:
    """What fetches have acquired. They read in threads, so that it takes them a moment."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self._added = trio.Event()

    def add(self, offsets: Iterable[int]) -> None:
        self.offsets += offsets
        self._added.set()

    async def wait(self, *offsets: int) -> None:
        """Return when it is these."""
        with trio.fail_after(10):
            while len(self.offsets) < len(offsets):
                self._added = trio.Event()
                await self._added.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(self.offsets) == list(offsets)


def members(world: World, count: int) -> list[Member]:
    found = [Member(world)]
    while len(found) < count:
        found.append(Member(world, beside=found[-1]))
    return found


def produce(world: World, count: int) -> None:
    world.native.high_watermark += count
    world.partitions.on_high_watermark("t", 0)


def test_a_log_that_loses_its_beginning_while_it_is_read_loses_no_more() -> None:
    async def test(world: World) -> None:
        world.start_offset = 0
        member = Member(world)

        def lose() -> None:
            world.native.log_start_offset = 2

        world.native.before_read = lose
        found = (await member.fetch())[AT]
        assert [(one.first_offset, one.last_offset) for one in found.acquired] == [(2, 4)]
        assert world.native.reads == 2

    run(test)


def test_records_that_are_deleted_hold_up_no_fetch_any_more() -> None:
    """Somebody had them, and nobody got any further while they had."""

    async def test(world: World) -> None:
        world.start_offset, world.native.high_watermark = 0, 4
        first, second = members(world, 2)
        limited = SETTINGS._replace(partitions=SETTINGS.partitions._replace(partition_max_record_locks=3))
        first.settings = second.settings = limited
        acquired = Acquired()
        await first.acquire(acquired)
        await acquired.wait(0, 1, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.acquire, acquired)
            await trio.testing.wait_all_tasks_blocked()
            world.native.log_start_offset = 2
            world.partitions.on_log_start("t", 0)
            await acquired.wait(0, 1, 2, 3)

    run(test)


def test_a_fetch_of_a_session_that_has_begun_anew_ends() -> None:
    async def test(world: World) -> None:
        member = Member(world)
        async with trio.open_nursery() as nursery:
            answers: list[Any] = []

            async def fetch() -> None:
                answers.append(await member.fetch())

            nursery.start_soon(fetch)
            await trio.testing.wait_all_tasks_blocked()
            member.begin()
            world.native.high_watermark = 6
            world.partitions.on_high_watermark("t", 0)
        assert answers == [{}]
        assert world.native.reads == 0, "the records are not its own"

    run(test)


def test_what_became_of_an_acknowledgement_is_told_however_late() -> None:
    async def test(world: World) -> None:
        world.native.high_watermark = 8
        member = Member(world)
        assert (await member.fetch())[AT].acquired
        accept = (int(AcknowledgeType.ACCEPT),)

        def acknowledge(offset: int) -> Any:
            said = {AT: [Acknowledgement(offset, offset, accept)]}
            return member.fetches.begin_acknowledging(MEMBER, said, may_renew=False)

        world.write_error = ErrorCode.COORDINATOR_NOT_AVAILABLE
        begun = acknowledge(5)
        for _ in range(200):
            await trio.testing.wait_all_tasks_blocked()
            later = acknowledge(6)
        await trio.testing.wait_all_tasks_blocked()
        world.write_error = ErrorCode.NONE
        found = await member.fetches.finish_acknowledging(begun)
        error = found[AT]
        assert error is not None
        assert error.code is ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert (await member.fetches.finish_acknowledging(later))[AT] is not None
        assert member.counters.acknowledgements == 201

    run(test)


def test_settings_that_change_while_a_fetch_waits_count() -> None:
    async def test(world: World) -> None:
        member = Member(world)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(member.fetch)
            await trio.testing.wait_all_tasks_blocked()
            member.settings = SETTINGS._replace(partitions=SETTINGS.partitions._replace(record_lock_duration_ms=1))
            world.native.high_watermark = 6
            world.partitions.on_high_watermark("t", 0)
        (led,) = world.partitions.of_group("g")
        deadline_ms = led.machine.next_deadline_ms()
        assert deadline_ms is None or deadline_ms < now_ms() + 1_000, "as long a lock as is configured now"

    run(test)


def test_records_that_come_just_before_a_fetch_watches_are_not_waited_for() -> None:
    async def test(world: World) -> None:
        member = Member(world)

        def come() -> None:
            world.native.high_watermark = 8

        world.native.before_watch = come
        with trio.fail_after(5):
            found = (await member.fetch(min_bytes=3))[AT]
        assert [(one.first_offset, one.last_offset) for one in found.acquired] == [(5, 7)]

    run(test)


def test_of_many_fetches_that_wait_one_looks_for_a_record() -> None:
    async def test(world: World) -> None:
        acquired = Acquired()
        async with trio.open_nursery() as nursery:
            for member in members(world, 100):
                nursery.start_soon(member.acquire, acquired)
            await trio.testing.wait_all_tasks_blocked()
            world.native.looks = 0
            produce(world, 1)
            await acquired.wait(5)
            assert world.native.looks < 30
            nursery.cancel_scope.cancel()

    run(test)


def test_what_one_fetch_leaves_is_for_the_next() -> None:
    async def test(world: World) -> None:
        acquired = Acquired()
        async with trio.open_nursery() as nursery:
            for member in members(world, 4):
                nursery.start_soon(member.acquire, acquired)
            await trio.testing.wait_all_tasks_blocked()
            produce(world, 7)
            await acquired.wait(5, 6, 7, 8, 9, 10, 11)
            nursery.cancel_scope.cancel()

    run(test)


@pytest.mark.parametrize("leaving", range(4))
def test_a_fetch_that_is_told_of_records_and_ends_leaves_them_to_others(leaving: int) -> None:
    async def test(world: World) -> None:
        acquired = Acquired()
        scopes = [trio.CancelScope() for _ in range(4)]

        async def fetch(member: Member, scope: trio.CancelScope) -> None:
            with scope:
                await member.acquire(acquired)

        async with trio.open_nursery() as nursery:
            for member, scope in zip(members(world, 4), scopes, strict=True):
                nursery.start_soon(fetch, member, scope)
            await trio.testing.wait_all_tasks_blocked()
            produce(world, 1)
            for scope in scopes[:leaving] + scopes[leaving + 1 :]:
                scope.cancel()
        assert acquired.offsets == [5]

    run(test)


@pytest.mark.parametrize("first", [0, 1])
def test_who_waits_for_many_records_keeps_none_from_others(first: int) -> None:
    async def test(world: World) -> None:
        acquired = Acquired()
        async with trio.open_nursery() as nursery:
            for index, member in enumerate(members(world, 2)):
                nursery.start_soon(partial(member.acquire, acquired, min_bytes=1 if index == first else 3))
                await trio.testing.wait_all_tasks_blocked()
            produce(world, 1)
            await acquired.wait(5)
            produce(world, 3)
            await acquired.wait(5, 6, 7, 8)

    run(test)


def test_the_end_of_a_session_is_not_that_of_the_next() -> None:
    """Its last request waited for a write while the client came back on another connection."""

    async def test(world: World) -> None:
        member = Member(world)
        before, after = member.session, member.begin()
        world.native.high_watermark = 8
        member.session = after
        assert (await member.fetch())[AT].acquired
        await member.fetches.end_session(MEMBER, before)
        assert member.fetches.sessions.get(MEMBER) is after
        (led,) = world.partitions.of_group("g")
        assert led.machine.next_write() is None, "nothing is released"
        await member.fetches.end_session(MEMBER, after)
        assert not member.fetches.sessions.has_group("g")

    run(test)


def test_a_client_that_leaves_while_its_fetch_reads_leaves_nothing_in_memory() -> None:
    async def test(world: World) -> None:
        world.start_offset = 0
        member = Member(world)
        world.native.before_read = partial(member.fetches.on_connection_closed, 1)
        assert await member.fetch() == {}
        assert len(world.partitions) == 0

    run(test)
