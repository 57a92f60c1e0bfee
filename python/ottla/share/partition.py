"""One partition as one share group reads it: which records are whose, until when, and what became of the others.

A pure machine of the partition's leader. Members *acquire* records that nobody has, for the time of a lock, and
acknowledge them. What is to outlive the leader is a `StateWrite` for the share coordinator; one is under way at a time,
and takes everything along that was decided since the last. A record that was acknowledged stays its member's until the
write with it is through, and again if the write fails: nobody is told of a state that may be lost.

Records that were delivered in vain come in smaller and smaller parts and in the end alone, so that one that kills
whoever reads it does not take its neighbours along.

Source: Kafka's `SharePartition` (KIP-932, KIP-1206, KIP-1222). It keeps batches of a request where this keeps runs of
records in the same state, and lets its start offset follow one write later.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ottla.errors import ErrorCode, KafkaError
from ottla.share.acknowledgement import Acknowledgement, AcknowledgeType
from ottla.share.records import Change, RecordState, Run, Runs

THROTTLED_COUNT_MIN: Final = 2
"""Fewer deliveries than this never make records suspicious."""
DELIVERY_COUNT_MAX: Final = 2**15 - 1
WHOLE_BATCH_MAX: Final = 10_000
"""Larger batches are given out in parts: what becomes of each record must fit into one record of the coordinator."""
RETRY_MS: Final = 1_000
"""How long a lock that has ended is left to its member after the share coordinator could not be told."""


class ShareSettings(NamedTuple):
    """What is configured for the group, by Kafka's names without `group.share.`."""

    record_lock_duration_ms: int = 30_000
    delivery_count_limit: int = 5
    partition_max_record_locks: int = 2_000
    renew_acknowledge_enable: bool = True


class FetchedBatch(NamedTuple):
    """A record batch that was read from the log."""

    base_offset: int
    last_offset: int
    is_aborted: bool = False


class Acquired(NamedTuple):
    """Records that are a member's now; both ends included."""

    first_offset: int
    last_offset: int
    delivery_count: int

    @property
    def size(self) -> int:
        """How many offsets."""
        return self.last_offset - self.first_offset + 1


class KeptBatch(NamedTuple):
    """Records with the state that the share coordinator keeps; both ends included."""

    first_offset: int
    last_offset: int
    state: RecordState
    delivery_count: int


class StateWrite(NamedTuple):
    """What the share coordinator shall keep."""

    number: int
    start_offset: int
    delivery_complete_count: int
    """Records from the start offset on that are done with."""
    batches: tuple[KeptBatch, ...]


class SharePartition:
    """The records of a partition between those that all are done with and those that nobody has seen."""

    def __init__(
        self, settings: ShareSettings, start_offset: int, kept: Sequence[KeptBatch] = (), *, is_start_new: bool = False
    ) -> None:
        """
        Args:
            start_offset: Everything before it is done with.
            kept: What the share coordinator knows of records from there on: in order, none overlapping.
            is_start_new: The share coordinator does not know the start offset yet, and is to be told.
        """
        self.settings = settings
        self._runs = Runs(start_offset)
        for batch in kept:
            if batch.first_offset > self._runs.end_offset:
                # What it was not told of was not done: nobody need have seen it.
                gap = Run(self._runs.end_offset, batch.first_offset - 1, RecordState.AVAILABLE)
                self._runs.put(gap)
            size = batch.last_offset - batch.first_offset + 1
            self._runs.put(
                Run(batch.first_offset, batch.last_offset, batch.state, batch.delivery_count, batch_size=size)
            )
        self._deadline_ms: int | None = None
        self._write_number = 1
        self._has_changes = is_start_new
        self._is_kept_known = True
        """What the share coordinator keeps is what it was told; else the last write may have been kept or not."""
        self.is_writing = False
        """A write is under way."""
        self._tidy()

    @property
    def start_offset(self) -> int:
        return self._runs.start_offset

    @property
    def end_offset(self) -> int:
        """Nobody has had what lies from here on."""
        return self._runs.end_offset

    def runs(self) -> Iterator[Run]:
        """All records between start and end, in order."""
        return iter(self._runs)

    @property
    def _fresh_end(self) -> int:
        """Records from there on are not given out before earlier ones are done with: who keeps one record for long does
        not make everything behind it be remembered.
        """
        return self.start_offset + self.settings.partition_max_record_locks

    def _tidy(self) -> None:
        """Begin behind what is done with, and end before what nobody has had."""
        start = self.start_offset
        for run in self._runs:
            if not run.state.is_final:
                break
            start = run.last_offset + 1
        self._runs.forget_before(start)
        self._runs.forget_fresh_end()

    # Acquiring

    def next_fetch_offset(self) -> int | None:
        """Where there may be records to acquire; None: nowhere for the moment."""
        for run in self._runs:
            if run.is_free and (not run.is_fresh or run.first_offset < self._fresh_end):
                return run.first_offset
        return self.end_offset if self.end_offset < self._fresh_end else None

    def acquire(
        self,
        member_id: str,
        fetch_offset: int,
        batches: Sequence[FetchedBatch],
        *,
        max_records: int,
        batch_size: int,
        is_limit_strict: bool,
        now_ms: int,
    ) -> list[Acquired]:
        """Give a member records of batches that were read from an offset on.

        Args:
            batches: In order, the first with the offset or behind it: what lies between is not in the log any more.
            max_records: At most so many; more where a batch would be cut, unless `is_limit_strict` (KIP-1206).
            batch_size: A range of the answer ends with the batch in which it reaches this size.
        """
        if not batches or max_records <= 0:
            return []
        self._pass_over_absent(fetch_offset, batches)
        taken: list[Acquired] = []
        left = max_records
        for run in self._runs.between(max(fetch_offset, self.start_offset), batches[-1].last_offset):
            if not run.is_free:
                continue
            limit = left
            part = self._suspicious_part(run)
            if part is not None:
                if taken:
                    break
                limit = min(limit, part)
            elif run.is_fresh:
                if run.first_offset >= self._fresh_end:
                    continue
                limit = min(limit, self._fresh_end - run.first_offset)
            last = min(run.first_offset + limit - 1, run.last_offset)
            if part is None and not is_limit_strict:
                whole = min(_end_of_batch(batches, last), run.first_offset + WHOLE_BATCH_MAX - 1)
                last = min(max(last, whole), run.last_offset)
            count = last - run.first_offset + 1
            left -= count
            for first, end in _ranges(batches, run.first_offset, last, batch_size):
                taken.append(self._take(run._replace(first_offset=first, last_offset=end), member_id, now_ms))
            if left <= 0 or part is not None:
                break
        self._tidy()
        return taken

    def pass_over(self, first_offset: int, end_offset: int) -> None:
        """Be done with offsets at which the log has no records."""
        if end_offset > first_offset:
            nothing = FetchedBatch(end_offset - 1, end_offset - 1, is_aborted=True)
            self._pass_over_absent(first_offset, (nothing,))
            self._tidy()

    def _pass_over_absent(self, fetch_offset: int, batches: Sequence[FetchedBatch]) -> None:
        """Make room for what was read, and be done with offsets at which nobody will ever see a record."""
        at = max(fetch_offset, self.start_offset)
        if self.end_offset <= batches[-1].last_offset:
            self._runs.put(Run(self.end_offset, batches[-1].last_offset, RecordState.AVAILABLE))
        for batch in batches:
            if batch.base_offset > at:
                self._archive(at, batch.base_offset - 1)
            at = max(at, batch.base_offset)
            if batch.is_aborted:
                self._archive(at, batch.last_offset)
            at = max(at, batch.last_offset + 1)

    def _archive(self, first_offset: int, last_offset: int) -> None:
        for run in self._runs.between(first_offset, last_offset):
            if run.is_free:
                self._runs.put(Run(run.first_offset, run.last_offset, RecordState.ARCHIVED, run.delivery_count))

    def _suspicious_part(self, run: Run) -> int | None:
        """How many records may be taken at once of a run that was delivered in vain too often; None: it was not."""
        limit = self.settings.delivery_count_limit
        tolerated = max(THROTTLED_COUNT_MIN, (limit + 1) // 2)
        if run.delivery_count < tolerated:
            return None
        if run.delivery_count >= limit - 1:
            return 1
        return max(1, run.batch_size >> (run.delivery_count - tolerated + 1))

    def _take(self, run: Run, member_id: str, now_ms: int) -> Acquired:
        deadline_ms = self._lock(now_ms)
        taken = Run(
            run.first_offset,
            run.last_offset,
            RecordState.ACQUIRED,
            min(run.delivery_count + 1, DELIVERY_COUNT_MAX),
            run.batch_size or run.size,
            member_id,
            deadline_ms,
        )
        self._runs.put(taken)
        return Acquired(taken.first_offset, taken.last_offset, taken.delivery_count)

    def _lock(self, now_ms: int) -> int:
        deadline_ms = now_ms + self.settings.record_lock_duration_ms
        self._deadline_ms = deadline_ms if self._deadline_ms is None else min(self._deadline_ms, deadline_ms)
        return deadline_ms

    # What becomes of the acquired

    def acknowledge(self, member_id: str, acknowledgements: Sequence[Acknowledgement], now_ms: int) -> int | None:
        """Take what a member says of its records: all of it or nothing. What lies before the start is passed over.

        Args:
            acknowledgements: As `check_acknowledgements` lets them pass.
        Returns: the number of the write that the answer has to wait for; None: of none.
        Raises: KafkaError (INVALID_REQUEST: nobody has had such offsets; INVALID_RECORD_STATE: not the member's).
        """
        renewed: list[Run] = []
        changed: list[tuple[Run, int, int, RecordState]] = []
        # The first that makes no sense decides on the error.
        for run, first, last, kind in self._runs.within(self._said(acknowledgements)):
            if not run.is_held_by(member_id):
                raise KafkaError(ErrorCode.INVALID_RECORD_STATE, "The member does not have these records.")
            if kind is AcknowledgeType.RENEW:
                if not self.settings.renew_acknowledge_enable:
                    raise KafkaError(ErrorCode.INVALID_RECORD_STATE, "Locks are not renewed for this group.")
                renewed.append(run.cut(first, last))
            elif kind is AcknowledgeType.ACCEPT:
                changed.append((run, first, last, RecordState.ACKNOWLEDGED))
            elif kind is AcknowledgeType.RELEASE:
                changed.append((run, first, last, self._state_after_release(run)))
            else:
                changed.append((run, first, last, RecordState.ARCHIVED))
        if renewed:
            deadline_ms = self._lock(now_ms)
            self._runs.put_all([run._replace(deadline_ms=deadline_ms) for run in renewed])
        return self._change(changed)

    def _said(self, acknowledgements: Sequence[Acknowledgement]) -> Iterator[tuple[int, int, AcknowledgeType]]:
        """(first offset, last offset, type) from the start on. Raises: KafkaError, as `acknowledge`."""
        start, end = self.start_offset, self.end_offset
        # What was said last: a record whose lock is renewed is still the member's, so the next one may name it again.
        last_said: tuple[int, int, AcknowledgeType] | None = None
        for one in acknowledgements:
            if one.last_offset < start:
                continue
            is_twice = False
            if last_said is not None:
                begun, ended, kind = last_said
                is_twice = one.first_offset <= ended and kind is not AcknowledgeType.RENEW
                yield begun, min(ended, one.first_offset - 1), kind
            if start == end:
                raise KafkaError(ErrorCode.INVALID_RECORD_STATE, "No records are acquired.")
            if one.last_offset >= end:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "There are offsets that were not acquired.")
            if is_twice:
                raise KafkaError(ErrorCode.INVALID_RECORD_STATE, "An offset is acknowledged twice.")
            *parts, (first, last, kind) = one.parts()
            yield from ((max(first, start), last, kind) for first, last, kind in parts)
            last_said = max(first, start), last, kind
        if last_said is not None:
            yield last_said

    def release(self, member_id: str) -> int | None:
        """Let others have what a member has; returns the number of the write that says so."""
        return self._release([run for run in self._runs if run.is_held_by(member_id)])

    def _release(self, runs: Sequence[Run]) -> int | None:
        return self._change([(run, run.first_offset, run.last_offset, self._state_after_release(run)) for run in runs])

    def _state_after_release(self, run: Run) -> RecordState:
        is_over = run.delivery_count >= self.settings.delivery_count_limit
        return RecordState.ARCHIVED if is_over else RecordState.AVAILABLE

    def _change(self, decided: Sequence[tuple[Run, int, int, RecordState]]) -> int | None:
        """Let offsets of runs, in order, come into states; returns the number of the write that says so."""
        if not decided:
            return None
        number = self._write_number
        changes = {state: Change(number, state) for state in RecordState}
        self._runs.put_all([Run(first, last, *run[2:-1], changes[state]) for run, first, last, state in decided])
        self._has_changes = True
        return number

    def forget_before(self, log_start_offset: int) -> None:
        """The log begins there now."""
        self._runs.forget_before(log_start_offset)
        self._tidy()

    # Time

    def next_deadline_ms(self) -> int | None:
        """When `on_tick` may have something to do."""
        return self._deadline_ms

    def on_tick(self, now_ms: int) -> None:
        """Release the records whose locks have ended."""
        if self._deadline_ms is None or now_ms < self._deadline_ms:
            return
        self._has_changes |= not self._is_kept_known
        held = [run for run in self._runs if run.state is RecordState.ACQUIRED and run.change is None]
        self._release([run for run in held if run.deadline_ms <= now_ms])
        self._deadline_ms = min((run.deadline_ms for run in held if run.deadline_ms > now_ms), default=None)

    # What the share coordinator is told

    def next_write(self) -> StateWrite | None:
        """What is to be kept now; None: nothing, or the write before is not through."""
        if self.is_writing or not self._has_changes:
            return None
        number = self._write_number
        self._write_number += 1
        self._has_changes, self.is_writing = False, True
        is_whole, self._is_kept_known = not self._is_kept_known, True
        start = self.start_offset
        done = 0
        batches: list[KeptBatch] = []
        for run in self._runs:
            is_done = run.ends_by(number)
            if is_done and run.first_offset == start:
                start = run.last_offset + 1
                continue
            done += run.size * is_done
            if is_whole or (run.change is not None and run.change.write == number):
                batches += _kept(run)
        return StateWrite(number, start, done, tuple(_merged(batches)))

    def on_written(self, write: StateWrite, *, is_kept: bool, now_ms: int) -> None:
        """The share coordinator has kept a write, or has not: then all is as before."""
        self.is_writing = False
        retry_ms = now_ms + RETRY_MS
        if not is_kept:
            # It may have been kept all the same, and what it made the share coordinator forget may count again.
            self._is_kept_known = False
            self._deadline_ms = retry_ms if self._deadline_ms is None else min(retry_ms, self._deadline_ms)

        def settled(run: Run) -> Run:
            if run.change is None or run.change.write != write.number:
                return run
            if is_kept:
                return run._replace(state=run.change.state, member_id="", deadline_ms=0, change=None)
            return run._replace(deadline_ms=max(run.deadline_ms, retry_ms), change=None)

        self._runs.rewrite(settled)
        self._tidy()


def _end_of_batch(batches: Sequence[FetchedBatch], offset: int) -> int:
    """The last offset of the batch that holds an offset; the offset itself between batches."""
    index = bisect_left(batches, offset, key=lambda batch: batch.last_offset)
    return batches[index].last_offset if index < len(batches) and batches[index].base_offset <= offset else offset


def _ranges(
    batches: Sequence[FetchedBatch], first_offset: int, last_offset: int, batch_size: int
) -> Iterator[tuple[int, int]]:
    """Cut a range of offsets where a batch begins and at least so many records lie before it."""
    first = first_offset
    for batch in batches:
        if batch.base_offset > last_offset:
            break
        if batch.base_offset - first >= batch_size:
            yield first, batch.base_offset - 1
            first = batch.base_offset
    yield first, last_offset


def _kept(run: Run) -> Iterator[KeptBatch]:
    """What the share coordinator is to know of a run; of records that nobody has had, nothing."""
    if run.change is not None:
        yield KeptBatch(run.first_offset, run.last_offset, run.change.state, run.delivery_count)
    elif run.state is not RecordState.ACQUIRED:
        if not run.is_fresh:
            yield KeptBatch(run.first_offset, run.last_offset, run.state, run.delivery_count)
    elif run.delivery_count > 1:
        # Were it delivered anew after a restart, it would be this time again.
        yield KeptBatch(run.first_offset, run.last_offset, RecordState.AVAILABLE, run.delivery_count - 1)


def _merged(batches: Sequence[KeptBatch]) -> Iterator[KeptBatch]:
    """Neighbours in the same state as one."""
    open_batch: KeptBatch | None = None
    for batch in batches:
        if open_batch is not None and open_batch.last_offset + 1 == batch.first_offset and open_batch[2:] == batch[2:]:
            open_batch = open_batch._replace(last_offset=batch.last_offset)
            continue
        if open_batch is not None:
            yield open_batch
        open_batch = batch
    if open_batch is not None:
        yield open_batch
