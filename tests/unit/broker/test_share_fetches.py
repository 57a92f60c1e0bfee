"""Fetches of share groups: what is read while the world moves on, and acknowledgements whose answers wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

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

    def __init__(self, world: World) -> None:
        self.counters = ShareCounters()
        self.settings = SETTINGS
        self.fetches = ShareFetches(
            world.partitions,
            settings=cast(Any, SimpleNamespace(of=lambda _group_id: self.settings)),
            disk_threads=[trio.CapacityLimiter(1)],
            sessions_max=10,
            fetch_bytes_max=lambda: 1 << 20,
            counters=self.counters,
        )
        self.session = self.begin()

    def begin(self) -> ShareSession:
        return self.fetches.sessions.fetch(
            MEMBER, 0, connection_id=1, wanted=[AT], forgotten=(), acknowledges=False, partitions_max=10
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
        return await self.fetches.fetch(MEMBER, self.session, wanted)


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

        def produce() -> None:
            world.native.high_watermark = 8

        world.native.before_watch = produce
        with trio.fail_after(5):
            found = (await member.fetch(min_bytes=3))[AT]
        assert [(one.first_offset, one.last_offset) for one in found.acquired] == [(5, 7)]

    run(test)
