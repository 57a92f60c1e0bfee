"""A share partition, where a single history says more than the property tests do."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ottla.coordinator.share.state import StateBatch, combine
from ottla.errors import ErrorCode, KafkaError
from ottla.share.acknowledgement import Acknowledgement, AcknowledgeType, check_acknowledgements
from ottla.share.partition import (
    WHOLE_BATCH_MAX,
    Acquired,
    FetchedBatch,
    KeptBatch,
    SharePartition,
    ShareSettings,
    StateWrite,
)
from ottla.share.records import RecordState

SETTINGS = ShareSettings(record_lock_duration_ms=100, delivery_count_limit=5, partition_max_record_locks=10)


class Coordinator:
    """Keeps what it is told, as the share coordinator does."""

    def __init__(self) -> None:
        self.start_offset = 0
        self.batches: tuple[StateBatch, ...] = ()

    def keep(self, write: StateWrite) -> None:
        self.start_offset = write.start_offset
        added = (StateBatch(b.first_offset, b.last_offset, b.state, b.delivery_count) for b in write.batches)
        self.batches = combine((*self.batches, *added), self.start_offset)

    def load(self) -> SharePartition:
        kept = [KeptBatch(b[0], b[1], RecordState(b[2]), b[3]) for b in self.batches]
        return SharePartition(SETTINGS, self.start_offset, kept)


def acquire(machine: SharePartition, offsets: Iterable[int], *, now_ms: int = 0) -> list[int]:
    """Acquire all that can be of a log with a batch for each offset."""
    at = machine.next_fetch_offset()
    if at is None:
        return []
    batches = [FetchedBatch(offset, offset) for offset in offsets if offset >= at]
    acquired = machine.acquire("m", at, batches, max_records=100, batch_size=100, is_limit_strict=False, now_ms=now_ms)
    return [offset for one in acquired for offset in range(one.first_offset, one.last_offset + 1)]


def say(machine: SharePartition, kind: AcknowledgeType, first_offset: int, last_offset: int) -> None:
    machine.acknowledge("m", [Acknowledgement(first_offset, last_offset, (kind,))], 0)


def write(machine: SharePartition) -> StateWrite:
    found = machine.next_write()
    assert found is not None
    return found


def test_a_write_that_was_kept_although_it_failed_brings_nothing_back() -> None:
    """It told of a later start, and the share coordinator forgot what lay before."""
    coordinator = Coordinator()
    machine = coordinator.load()
    assert acquire(machine, range(5)) == [0, 1, 2, 3, 4]
    say(machine, AcknowledgeType.ACCEPT, 1, 3)
    kept = write(machine)
    coordinator.keep(kept)
    machine.on_written(kept, is_kept=True, now_ms=0)
    say(machine, AcknowledgeType.ACCEPT, 0, 0)
    unsure = write(machine)
    assert unsure.start_offset == 4
    coordinator.keep(unsure)
    machine.on_written(unsure, is_kept=False, now_ms=0)
    say(machine, AcknowledgeType.RELEASE, 4, 4)
    after = write(machine)
    assert after.start_offset == 0
    coordinator.keep(after)
    assert not {1, 2, 3} & set(acquire(coordinator.load(), range(5))), "they were accepted"


def test_a_start_that_the_coordinator_does_not_know_is_told() -> None:
    assert SharePartition(SETTINGS, 7).next_write() is None
    machine = SharePartition(SETTINGS, 7, is_start_new=True)
    told = write(machine)
    assert (told.start_offset, told.batches) == (7, ())
    machine.on_written(told, is_kept=False, now_ms=0)
    assert machine.next_write() is None, "not at once"
    deadline_ms = machine.next_deadline_ms()
    assert deadline_ms is not None
    machine.on_tick(deadline_ms)
    assert write(machine).start_offset == 7


def test_one_record_that_is_kept_for_long_does_not_make_all_behind_it_be_remembered() -> None:
    machine = Coordinator().load()
    acquired: list[int] = []
    while found := acquire(machine, range(100)):
        acquired += found
        for at in found:
            if at:
                say(machine, AcknowledgeType.ACCEPT if at % 2 else AcknowledgeType.REJECT, at, at)
        machine.on_written(write(machine), is_kept=True, now_ms=0)
    assert acquired == list(range(10)), "as many as may be locked"
    say(machine, AcknowledgeType.ACCEPT, 0, 0)
    machine.on_written(write(machine), is_kept=True, now_ms=0)
    assert acquire(machine, range(100)) == list(range(10, 20))


def test_a_batch_that_is_very_large_is_given_out_in_parts() -> None:
    machine = Coordinator().load()
    batch = FetchedBatch(0, WHOLE_BATCH_MAX + 9)
    found: list[Acquired] = []
    for member_id in ("a", "b"):
        found += machine.acquire(member_id, 0, [batch], max_records=5, batch_size=5, is_limit_strict=False, now_ms=0)
    assert found == [(0, WHOLE_BATCH_MAX - 1, 1)], "the rest waits until some of it is done with"
    machine.acknowledge("a", [Acknowledgement(0, WHOLE_BATCH_MAX - 1, (AcknowledgeType.ACCEPT,))], 0)
    machine.on_written(write(machine), is_kept=True, now_ms=0)
    rest = machine.acquire("b", WHOLE_BATCH_MAX, [batch], max_records=5, batch_size=5, is_limit_strict=False, now_ms=0)
    assert rest == [(WHOLE_BATCH_MAX, WHOLE_BATCH_MAX + 9, 1)]


def test_of_acknowledgements_the_first_that_makes_no_sense_decides() -> None:
    machine = SharePartition(SETTINGS, 0)
    acquire(machine, range(5))
    say(machine, AcknowledgeType.ACCEPT, 2, 2)
    before = list(machine.runs())
    done, beyond, own = (Acknowledgement(at, at, (AcknowledgeType.ACCEPT,)) for at in (2, 5, 1))
    for said, error in (
        ((done, beyond), ErrorCode.INVALID_RECORD_STATE),
        ((own, beyond), ErrorCode.INVALID_REQUEST),
        ((own, own), ErrorCode.INVALID_RECORD_STATE),
    ):
        with pytest.raises(KafkaError) as refused:
            machine.acknowledge("m", said, 0)
        assert refused.value.code is error
        assert list(machine.runs()) == before, "all of it or nothing"


def test_a_record_whose_lock_is_renewed_may_be_named_again() -> None:
    """As in Kafka 4.3.1, where each acknowledgement sees what those before it did."""
    machine = SharePartition(SETTINGS, 0)
    acquire(machine, range(5))
    renewed = Acknowledgement(0, 2, (AcknowledgeType.RENEW,))
    machine.acknowledge("m", (renewed, Acknowledgement(2, 2, (AcknowledgeType.RENEW,))), 7)
    machine.acknowledge("m", (renewed, Acknowledgement(2, 3, (AcknowledgeType.RELEASE, AcknowledgeType.ACCEPT))), 9)
    machine.on_written(write(machine), is_kept=True, now_ms=9)
    states = {at: run.state for run in machine.runs() for at in range(run.first_offset, run.last_offset + 1)}
    acquired, available, acknowledged = RecordState.ACQUIRED, RecordState.AVAILABLE, RecordState.ACKNOWLEDGED
    assert states == {0: acquired, 1: acquired, 2: available, 3: acknowledged, 4: acquired}
    deadlines = {run.deadline_ms - SETTINGS.record_lock_duration_ms for run in machine.runs() if run.last_offset < 2}
    assert deadlines == {9}
    accepted = Acknowledgement(0, 1, (AcknowledgeType.RENEW, AcknowledgeType.ACCEPT))
    with pytest.raises(KafkaError) as refused:
        machine.acknowledge("m", (accepted, Acknowledgement(1, 1, (AcknowledgeType.RENEW,))), 9)
    assert refused.value.code is ErrorCode.INVALID_RECORD_STATE


def test_nothing_can_be_said_where_nothing_was_acquired() -> None:
    """As in Kafka 4.3.1: not beyond the end, but of records that nobody has."""
    with pytest.raises(KafkaError) as refused:
        SharePartition(SETTINGS, 3).acknowledge("m", (Acknowledgement(3, 3, (AcknowledgeType.ACCEPT,)),), 0)
    assert refused.value.code is ErrorCode.INVALID_RECORD_STATE


def test_what_lies_below_the_start_may_be_acknowledged_again_and_again() -> None:
    """As in Kafka 4.3.1."""
    machine = SharePartition(SETTINGS, 0)
    acquire(machine, range(3))
    say(machine, AcknowledgeType.ACCEPT, 0, 1)
    machine.on_written(write(machine), is_kept=True, now_ms=0)
    assert machine.start_offset == 2
    below = Acknowledgement(0, 0, (AcknowledgeType.ACCEPT,))
    assert machine.acknowledge("m", (below, below), 0) is None


@pytest.mark.parametrize(
    ("ranges", "is_refused"),
    [
        (((0, 1), (2, 3)), False),
        (((0, 1), (1, 2)), False),  # the partition finds out about that
        (((0, 0), (0, 0)), False),
        (((0, 1), (0, 1)), True),
        (((0, 3), (2, 4)), True),
        (((2, 3), (0, 1)), True),
        (((1, 0),), True),
    ],
)
def test_acknowledgements_of_a_request_go_forwards(ranges: tuple[tuple[int, int], ...], *, is_refused: bool) -> None:
    """As in Kafka 4.3.1: none begins below the end of the one before it."""
    said = [Acknowledgement(first, last, (AcknowledgeType.ACCEPT,)) for first, last in ranges]
    if not is_refused:
        check_acknowledgements(said, may_renew=False)
        return
    with pytest.raises(KafkaError) as refused:
        check_acknowledgements(said, may_renew=False)
    assert refused.value.code is ErrorCode.INVALID_REQUEST


def test_what_is_said_of_each_of_thousands_of_records() -> None:
    count = 10_000
    machine = SharePartition(ShareSettings(partition_max_record_locks=count), 0)
    machine.acquire(
        "m",
        0,
        [FetchedBatch(0, count - 1)],
        max_records=count,
        batch_size=count,
        is_limit_strict=False,
        now_ms=0,
    )
    types = [AcknowledgeType.RELEASE, AcknowledgeType.ACCEPT, AcknowledgeType.RENEW, AcknowledgeType.REJECT]
    assert machine.acknowledge("m", [Acknowledgement(0, count - 1, types * (count // 4))], 7) == 1
    said = write(machine)
    assert len(said.batches) == count * 3 // 4
    machine.on_written(said, is_kept=True, now_ms=7)
    states = [RecordState.AVAILABLE, RecordState.ACKNOWLEDGED, RecordState.ACQUIRED, RecordState.ARCHIVED]
    assert [run.state for run in machine.runs()] == states * (count // 4)
