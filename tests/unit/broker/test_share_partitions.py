"""The share partitions that a broker leads: loaded once, written one write at a time, forgotten at the right time."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from ottla.broker.share_partitions import LedSharePartition
from ottla.broker.share_settings import EARLIEST, LATEST
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import MetadataImage
from ottla.protocol.messages.read_share_group_state import StateBatch
from ottla.share.records import RecordState
from tests.unit.broker.share_fakes import KEY, SETTINGS, TOPIC, World, run


def test_is_read_once_for_all_who_want_it() -> None:
    async def test(world: World) -> None:
        world.stall()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(world.load)
            await trio.testing.wait_all_tasks_blocked()
            world.may_answer.set()
        assert [read.leader_epoch for read in world.reads] == [3]
        assert (await world.load()).machine.start_offset == 5

    run(test)


def test_offsets_that_move_while_they_are_read_are_read_again() -> None:
    async def test(world: World) -> None:
        world.stall()
        found: list[LedSharePartition] = []

        async def load() -> None:
            found.append(await world.load())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            await trio.testing.wait_all_tasks_blocked()
            world.partitions.forget_moved("g", [TOPIC])
            world.start_offset = 9
            world.may_answer.set()
        assert len(world.reads) == 2
        assert (found[0].machine.start_offset, found[0].state_epoch) == (9, 2)

    run(test)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (ErrorCode.INVALID_REQUEST, ErrorCode.UNKNOWN_SERVER_ERROR),
        (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.FENCED_LEADER_EPOCH),
    ],
)
def test_members_are_told_what_they_understand(said: ErrorCode, told: ErrorCode) -> None:
    async def test(world: World) -> None:
        world.read_error = said
        with pytest.raises(KafkaError) as refused:
            await world.load()
        assert refused.value.code is told
        world.read_error = ErrorCode.NONE
        await world.load()

    run(test)


def test_what_is_said_during_a_write_goes_with_the_next() -> None:
    async def test(world: World) -> None:
        led = await world.load()
        world.acquire(led, 4)
        world.stall()
        outcomes = [world.accept(led, 5)]
        await trio.testing.wait_all_tasks_blocked()
        outcomes += [world.accept(led, 6), world.accept(led, 7)]
        await trio.testing.wait_all_tasks_blocked()
        assert [write.start_offset for write in world.writes] == [6]
        world.may_answer.set()
        assert [await outcome.wait() for outcome in outcomes] == [ErrorCode.NONE] * 3
        assert [write.start_offset for write in world.writes] == [6, 8]
        assert {(write.state_epoch, write.leader_epoch) for write in world.writes} == {(1, 3)}

    run(test)


def test_a_write_that_fails_for_a_while_leaves_the_records_with_their_member() -> None:
    async def test(world: World) -> None:
        led = await world.load()
        world.acquire(led, 1)
        world.write_error = ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert await world.accept(led, 5).wait() is ErrorCode.COORDINATOR_NOT_AVAILABLE
        world.write_error = ErrorCode.NONE
        assert await world.accept(led, 5).wait() is ErrorCode.NONE
        assert led.machine.start_offset == 6

    run(test)


def test_a_state_that_others_have_taken_over_is_read_again() -> None:
    async def test(world: World) -> None:
        led = await world.load()
        world.acquire(led, 2)
        waiting = trio.Event()
        led.add_waiting(waiting, is_choosy=False)
        assert world.native.watchers == 1
        world.write_error = ErrorCode.FENCED_STATE_EPOCH
        first = world.accept(led, 5)
        world.accept(led, 6)
        assert await first.wait() is ErrorCode.FENCED_STATE_EPOCH
        assert waiting.is_set(), "who waits for records looks again"
        led.remove_waiting(waiting)
        assert world.native.watchers == 0
        assert world.partitions.get(KEY) is None
        assert await world.load() is not led

    run(test)


def test_is_forgotten_when_nobody_reads_it() -> None:
    async def test(world: World) -> None:
        await world.load()
        world.partitions.retire("other")
        assert len(world.partitions) == 1
        world.partitions.retire("g")
        assert len(world.partitions) == 0
        led = await world.load()
        world.acquire(led, 1)
        world.partitions.retire("g")
        assert len(world.partitions) == 1, "somebody has records of it"

    run(test)


@pytest.mark.parametrize(("start", "told"), [(LATEST, [5]), (EARLIEST, [])])
def test_where_a_group_begins_is_kept_unless_it_is_where_the_log_does(start: int, told: list[int]) -> None:
    """Who comes back is not to begin behind what was produced meanwhile."""

    async def test(world: World) -> None:
        world.start_offset = -1
        await world.load(SETTINGS._replace(start=start))
        await trio.testing.wait_all_tasks_blocked()
        assert [write.start_offset for write in world.writes] == told

    run(test)


def test_a_state_of_records_that_the_log_has_lost_is_cut() -> None:
    """What is appended in their place is not taken for done with, however much it is."""

    async def test(world: World) -> None:
        world.written_by, world.start_offset, world.native.high_watermark = 1, 4, 50
        world.native.epoch_ends[1] = 8
        lost = StateBatch(first_offset=9, last_offset=20, delivery_state=2, delivery_count=1)
        partly = StateBatch(first_offset=6, last_offset=8, delivery_state=2, delivery_count=1)
        world.batches = (partly, lost)
        led = await world.load()
        assert [data.start_offset for data in world.begun_anew] == [4]
        (write,) = world.writes
        assert (write.start_offset, write.delivery_complete_count, write.leader_epoch) == (4, 2, 3)
        assert [(run.first_offset, run.last_offset, run.state) for run in led.machine.runs()] == [
            (4, 5, RecordState.AVAILABLE),
            (6, 7, RecordState.ACKNOWLEDGED),
        ]

    run(test)


@pytest.mark.parametrize("ends", [{1: 3}, {}])
def test_a_group_that_was_further_than_the_log_goes_begins_at_its_end(ends: dict[int, int]) -> None:
    async def test(world: World) -> None:
        world.written_by, world.start_offset, world.native.high_watermark = 1, 5, 3
        world.native.epoch_ends |= ends
        led = await world.load()
        assert led.machine.start_offset == 3
        assert [data.start_offset for data in world.begun_anew] == [3]

    run(test)


@pytest.mark.parametrize(("written_by", "end"), [(1, 5), (1, 9), (3, 2)])
def test_a_state_that_the_log_reaches_or_of_this_leader_stays(written_by: int, end: int) -> None:
    async def test(world: World) -> None:
        world.written_by = written_by
        world.native.epoch_ends[written_by] = end
        assert (await world.load()).machine.start_offset == 5
        assert world.begun_anew == []
        assert [read.leader_epoch for read in world.reads][-1] == 3

    run(test)


def test_is_forgotten_once_it_is_written_if_nobody_reads_it_then() -> None:
    async def test(world: World) -> None:
        world.start_offset = -1
        world.partitions.has_readers = lambda _group_id: False
        await world.load()
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.writes) == 1
        assert len(world.partitions) == 0

    run(test)


def test_a_topic_that_has_taken_the_place_of_another_of_its_name() -> None:
    """The metadata does not tell yet."""

    async def test(world: World) -> None:
        world.native.topic_id = bytes(16)
        with pytest.raises(KafkaError) as refused:
            await world.load()
        assert refused.value.code is ErrorCode.NOT_LEADER_OR_FOLLOWER

    run(test)


def test_a_topic_that_is_not_there() -> None:
    async def test(world: World) -> None:
        world.image = MetadataImage()
        with pytest.raises(KafkaError) as refused:
            await world.load()
        assert refused.value.code is ErrorCode.UNKNOWN_TOPIC_ID
        assert world.reads == []

    run(test)


def test_a_partition_that_is_not_there() -> None:
    async def test(world: World) -> None:
        with pytest.raises(KafkaError) as refused:
            await world.partitions.load(KEY._replace(partition=1), SETTINGS)
        assert refused.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    run(test)


def test_members_that_leave_once_the_broker_stops() -> None:
    """Their connections are closed when nothing can be written any more."""

    async def main() -> None:
        world = World()
        async with trio.open_nursery() as nursery:
            await nursery.start(world.partitions.run)
            led = await world.load()
            world.acquire(led, 1)
            nursery.cancel_scope.cancel()
        assert led.machine.release("m") is not None
        world.partitions.write(led)
        assert world.writes == []

    trio.run(main)
