"""A share partition against a naive model: what each record of a small log has been through, record by record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ottla.coordinator.share.state import StateBatch, combine
from ottla.errors import KafkaError
from ottla.share.acknowledgement import Acknowledgement, AcknowledgeType
from ottla.share.partition import FetchedBatch, KeptBatch, SharePartition, ShareSettings, StateWrite
from ottla.share.records import RecordState

MEMBERS = ("a", "b", "c")
SETTINGS = ShareSettings(record_lock_duration_ms=100, delivery_count_limit=4, partition_max_record_locks=12)
BATCH_MAX = 5

GAP, ACCEPT, RELEASE, REJECT, RENEW = AcknowledgeType


@dataclass
class Held:
    member: str
    deadline_ms: int


@dataclass
class Coordinator:
    """What the share coordinator keeps."""

    start_offset: int
    batches: tuple[StateBatch, ...] = ()

    def keep(self, write: StateWrite) -> None:
        self.start_offset = write.start_offset
        added = (StateBatch(b.first_offset, b.last_offset, b.state, b.delivery_count) for b in write.batches)
        self.batches = combine((*self.batches, *added), self.start_offset)

    def load(self) -> SharePartition:
        kept = [KeptBatch(b[0], b[1], RecordState(b[2]), b[3]) for b in self.batches]
        return SharePartition(SETTINGS, self.start_offset, kept)


class SharePartitions(RuleBasedStateMachine):
    """One leader after the other; a log that grows, and loses its beginning; writes that succeed, fail or are lost."""

    @initialize(start=st.integers(0, 3))
    def begin(self, start: int) -> None:
        self.coordinator = Coordinator(start)
        self.machine = self.coordinator.load()
        self.now_ms = 0
        self.batches: list[FetchedBatch] = []
        self.log_start = start
        self.log_end = start
        self.held: dict[int, Held] = {}
        """Who has what, and may still say so."""
        self.deciding: dict[int, tuple[int, AcknowledgeType]] = {}
        """By which write what shall become of a record."""
        self.counts: dict[int, int] = {}
        """Deliveries that the leader of now knows of."""
        self.final: set[int] = set()
        """What the coordinator knows to be done with."""
        self.under_way: StateWrite | None = None
        self.is_coordinator_ahead = False
        """A write that failed for all that its leader knows was kept nevertheless."""

    # The log

    @rule(
        sizes=st.lists(st.integers(1, BATCH_MAX), min_size=1, max_size=4),
        gap=st.integers(0, 2),
        is_aborted=st.sampled_from((False, False, False, True)),
    )
    def append(self, sizes: list[int], gap: int, is_aborted: bool) -> None:
        self.log_end += gap
        for size in sizes:
            self.batches.append(FetchedBatch(self.log_end, self.log_end + size - 1, is_aborted))
            self.log_end += size
            is_aborted = False

    @rule(records=st.integers(1, 8))
    def lose_beginning(self, records: int) -> None:
        self.log_start = min(self.log_start + records, self.log_end)
        self.machine.forget_before(self.log_start)
        for offset in [offset for offset in self.held if offset < self.log_start]:
            del self.held[offset]
        for offset in [offset for offset in self.deciding if offset < self.log_start]:
            del self.deciding[offset]

    # Members

    @rule(
        member=st.sampled_from(MEMBERS),
        max_records=st.integers(1, 10),
        batch_size=st.integers(1, 10),
        is_limit_strict=st.booleans(),
        batches_read=st.integers(1, 6),
    )
    def fetch(self, member: str, max_records: int, batch_size: int, is_limit_strict: bool, batches_read: int) -> None:
        offset = self.machine.next_fetch_offset()
        fresh_end = self.machine.start_offset + SETTINGS.partition_max_record_locks
        if offset is None:
            assert self.machine.end_offset >= fresh_end
            assert not any(run.is_free and not run.is_fresh for run in self.machine.runs())
            return
        found = [batch for batch in self.batches if batch.last_offset >= offset][:batches_read]
        acquired = self.machine.acquire(
            member,
            offset,
            found,
            max_records=max_records,
            batch_size=batch_size,
            is_limit_strict=is_limit_strict,
            now_ms=self.now_ms,
        )
        taken = [(at, count) for first, last, count in acquired for at in range(first, last + 1)]
        readable = {at for b in found if not b.is_aborted for at in range(b.base_offset, b.last_offset + 1)}
        for at, count in taken:
            assert at in readable, "only what was read, and was not aborted, is given out"
            assert at not in self.held, "nobody else has it"
            assert at not in self.deciding, "and nothing is being decided about it"
            assert at not in self.final, "what is done with never comes again"
            assert count == self.counts.get(at, 0) + 1 <= SETTINGS.delivery_count_limit
            assert at in self.counts or at < fresh_end + BATCH_MAX - 1, "only so far ahead of what is not done with"
            self.counts[at] = count
            self.held[at] = Held(member, self.now_ms + SETTINGS.record_lock_duration_ms)
        assert [at for at, _ in taken] == sorted({at for at, _ in taken})
        assert len(taken) <= max_records + (0 if is_limit_strict else BATCH_MAX - 1)
        if taken:
            suspicious = [at for at, count in taken if count >= SETTINGS.delivery_count_limit]
            assert not suspicious or len(taken) == 1, "a record's last delivery is a lonely one"

    @precondition(lambda self: self.held)
    @rule(data=st.data(), kinds=st.lists(st.sampled_from(AcknowledgeType), min_size=1, max_size=4))
    def acknowledge(self, data: Any, kinds: list[AcknowledgeType]) -> None:
        """Something is said of a range that begins with a record of a member; whether it has all of it will be seen."""
        first = data.draw(st.sampled_from(sorted(self.held)))
        member = self.held[first].member
        said = Acknowledgement(first, first + len(kinds) - 1, kinds)
        if len(set(kinds)) == 1 and data.draw(st.booleans()):
            said = said._replace(types=kinds[:1])
        before = [*self.machine.runs()]
        offsets = range(said.first_offset, said.last_offset + 1)
        if any(at not in self.held or self.held[at].member != member for at in offsets):
            with pytest.raises(KafkaError):
                self.machine.acknowledge(member, [said], self.now_ms)
            assert [*self.machine.runs()] == before, "nothing of it happened"
            return
        number = self.machine.acknowledge(member, [said], self.now_ms)
        for at, kind in zip(offsets, kinds, strict=True):
            if kind is RENEW:
                self.held[at].deadline_ms = self.now_ms + SETTINGS.record_lock_duration_ms
            else:
                assert number is not None
                del self.held[at]
                self.deciding[at] = (number, kind)

    @rule(member=st.sampled_from(MEMBERS), first=st.integers(0, 40))
    def acknowledge_of_others(self, member: str, first: int) -> None:
        """What is not a member's own it cannot acknowledge."""
        if first < self.machine.start_offset or (first in self.held and self.held[first].member == member):
            return
        with pytest.raises(KafkaError):
            self.machine.acknowledge(member, [Acknowledgement(first, first, (ACCEPT,))], self.now_ms)

    @rule(member=st.sampled_from(MEMBERS))
    def leave(self, member: str) -> None:
        number = self.machine.release(member)
        self.give_back([at for at, held in self.held.items() if held.member == member], number)

    def give_back(self, offsets: list[int], number: int | None) -> None:
        assert bool(offsets) == (number is not None)
        for at in offsets:
            del self.held[at]
            assert number is not None
            self.deciding[at] = (number, RELEASE)

    # Time

    @rule(milliseconds=st.integers(1, 120))
    def let_time_pass(self, milliseconds: int) -> None:
        self.now_ms += milliseconds
        self.machine.on_tick(self.now_ms)
        over = [at for at, held in self.held.items() if held.deadline_ms <= self.now_ms]
        for at in over:
            run = next(run for run in self.machine.runs() if run.last_offset >= at)
            assert run.change is not None
            self.deciding[at] = (run.change.write, RELEASE)
            del self.held[at]
        deadline_ms = self.machine.next_deadline_ms()
        assert deadline_ms is None or deadline_ms > self.now_ms
        if self.held:
            assert deadline_ms is not None
            assert deadline_ms <= min(held.deadline_ms for held in self.held.values())

    # The share coordinator

    @rule()
    def begin_writing(self) -> None:
        write = self.machine.next_write()
        if write is not None:
            assert self.under_way is None
            self.under_way = write
        elif self.under_way is None:
            assert not self.deciding

    @precondition(lambda self: self.under_way is not None)
    @rule(outcome=st.sampled_from(("kept", "kept", "failed", "kept and failed")))
    def end_writing(self, outcome: str) -> None:
        write = self.under_way
        assert write is not None
        self.under_way = None
        if outcome != "failed":
            self.coordinator.keep(write)
        is_kept = outcome == "kept"
        self.is_coordinator_ahead |= outcome == "kept and failed"
        holders = {
            at: run.member_id
            for run in self.machine.runs()
            for at in range(run.first_offset, run.last_offset + 1)
            if run.change is not None and run.change.write == write.number
        }
        self.machine.on_written(write, is_kept=is_kept, now_ms=self.now_ms)
        for at, (number, kind) in list(self.deciding.items()):
            if number != write.number:
                continue
            del self.deciding[at]
            if not is_kept:
                run = next(run for run in self.machine.runs() if run.last_offset >= at)
                assert run.deadline_ms > self.now_ms
                self.held[at] = Held(holders[at], run.deadline_ms)
            elif kind is not RELEASE or self.counts[at] >= SETTINGS.delivery_count_limit:
                self.final.add(at)

    @rule()
    def crash(self) -> None:
        """Another leader goes on from what was kept."""
        self.under_way = None
        self.is_coordinator_ahead = False
        self.machine = self.coordinator.load()
        self.machine.forget_before(self.log_start)
        self.held.clear()
        self.deciding.clear()
        self.counts = {
            at: run.delivery_count
            for run in self.machine.runs()
            for at in range(run.first_offset, run.last_offset + 1)
            if run.delivery_count
        }

    # What always holds

    @invariant()
    def runs_are_as_the_model_says(self) -> None:
        if not hasattr(self, "machine"):
            return
        at = self.machine.start_offset
        before = None
        for run in self.machine.runs():
            assert run.first_offset == at
            assert run.last_offset >= at
            assert before is None or run[2:] != before[2:], "as few as can be"
            before = run
            for offset in range(run.first_offset, run.last_offset + 1):
                assert (run.state is RecordState.ACQUIRED and run.change is None) == (offset in self.held)
                assert (run.change is not None) == (offset in self.deciding)
                if offset in self.held:
                    assert run.member_id == self.held[offset].member
                    assert run.deadline_ms == self.held[offset].deadline_ms
                if offset in self.final:
                    assert run.state.is_final
            at = run.last_offset + 1
        assert at == self.machine.end_offset
        assert all(offset >= self.machine.start_offset for offset in (*self.held, *self.deciding))
        if not self.is_coordinator_ahead:
            assert self.coordinator.start_offset <= max(self.machine.start_offset, self.log_start)

    def teardown(self) -> None:
        """One member that works, and a coordinator that keeps what it is told, come to the end of everything."""
        if not hasattr(self, "machine"):
            return
        self.end_writing("kept") if self.under_way is not None else None
        for _ in range(300):
            self.let_time_pass(SETTINGS.record_lock_duration_ms)
            self.fetch("a", 10, 10, False, 6)
            for at in [at for at, held in self.held.items() if held.member == "a"]:
                number = self.machine.acknowledge("a", [Acknowledgement(at, at, (ACCEPT,))], self.now_ms)
                assert number is not None
                del self.held[at]
                self.deciding[at] = (number, ACCEPT)
            self.begin_writing()
            if self.under_way is not None:
                self.end_writing("kept")
            if not self.batches or self.machine.start_offset > self.batches[-1].last_offset:
                break
        else:
            raise AssertionError("there is always more to do")


TestSharePartitions = SharePartitions.TestCase
