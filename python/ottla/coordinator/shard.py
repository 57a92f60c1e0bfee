"""The shape of every coordinator: a pure machine, and the shard that commits what it decides.

A coordinator owns the partitions of an internal topic; a *shard* is one partition with its *machine*. The machine
turns requests into an `Outcome`: replies that may leave at once, and `Write`s, that is records with the replies that
rest on them. It changes its durable state in `replay` alone, on the active node and while loading alike. The shard
hands out one write at a time to be appended; once the write has offsets its records are replayed (later requests
see them, reads of committed state do not), and its replies stay parked until the high watermark covers it. If
the write is lost, its state is taken back and its replies turn into errors.

Nothing here appends, waits or holds a future. The caller (`ottla.broker.coordinator_runtime`) drives it so:

    replies = shard.submit(machine.join(...), now)
    while records := shard.next_append():
        replies += shard.on_appended(log.append(records), now)     # or shard.on_append_failed(error, now)

and again after `on_high_watermark`, `on_tick` and `on_rolled_back`, each of which may submit further writes. This is
Kafka's `CoordinatorRuntime` and `CoordinatorShard` with replies named by token instead of futures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from ottla.errors import ErrorCode

RECORDS_PER_BATCH_MAX: Final = 1_000
"""How many records that need not be atomic go into one batch: far below what message.max.bytes allows."""


class Instant(NamedTuple):
    """Both clocks at one moment: deadlines use the first, records the second."""

    now_ms: int
    """Monotonic milliseconds."""
    wall_ms: int
    """Unix milliseconds. May jump either way."""


class CoordinatorRecord(NamedTuple):
    """A record of an internal topic. No value: a tombstone."""

    key: bytes
    value: bytes | None
    content: object | None = None
    """What the bytes say, where the maker has it at hand, so that replaying need not decode them."""


class LoadedRecord(NamedTuple):
    """A record in the log, with what its batch says about it."""

    offset: int
    key: bytes
    value: bytes | None
    producer_id: int = -1
    content: object | None = None
    """As in `CoordinatorRecord`; nothing in records that were read back."""


class TransactionMarker(NamedTuple):
    """The end of a producer's transaction in this partition, read back from a control batch."""

    offset: int
    producer_id: int
    commit: bool


class TransactionEnd(NamedTuple):
    """What the transaction coordinator wants written into a partition."""

    producer_id: int
    producer_epoch: int
    """Under transaction version 2 already the one that follows the transaction's."""
    commit: bool
    coordinator_epoch: int
    transaction_version: int


class Producer(NamedTuple):
    """The producer in whose open transaction records are written."""

    producer_id: int
    producer_epoch: int
    guard: int | None = None
    """What the partition gave when the transaction was looked for (`ottla._native.Partition.begin_verification`)."""


class Reply(NamedTuple):
    """The answer to the request that `token` names: a response, or an error for the caller to put into one."""

    token: int
    response: object = None
    error: ErrorCode = ErrorCode.NONE


@dataclass(slots=True)
class Write:
    """Records to append as one batch, and what rests on them.

    Without records the replies wait for everything appended before: that is how a read of the latest state is made
    to wait until the state is committed.
    """

    records: Sequence[CoordinatorRecord] = ()
    replies: Sequence[Reply] = ()
    then: object | None = None
    """Handed to the machine's `on_committed` or `on_failed`."""
    producer: Producer | None = None
    """The records are part of its transaction; None: of none."""


@dataclass(slots=True)
class Outcome:
    """What a machine decided."""

    replies: list[Reply] = field(default_factory=list)
    """Replies that rest on nothing durable."""
    writes: list[Write] = field(default_factory=list)

    def reply(self, token: int, response: object) -> Outcome:
        self.replies.append(Reply(token, response))
        return self

    def write(
        self,
        records: Sequence[CoordinatorRecord],
        *replies: Reply,
        then: object | None = None,
        producer: Producer | None = None,
    ) -> Outcome:
        self.writes.append(Write(records, replies, then, producer))
        return self

    def write_each(self, records: Sequence[CoordinatorRecord], *replies: Reply) -> Outcome:
        """As `write`, for any number of records that need not be appended together: in batches of a bounded size."""
        for start in range(0, len(records) - RECORDS_PER_BATCH_MAX, RECORDS_PER_BATCH_MAX):
            self.writes.append(Write(records[start : start + RECORDS_PER_BATCH_MAX]))
        rest = len(records) % RECORDS_PER_BATCH_MAX or min(len(records), RECORDS_PER_BATCH_MAX)
        return self.write(records[len(records) - rest :], *replies)

    def add(self, other: Outcome) -> Outcome:
        self.replies.extend(other.replies)
        self.writes.extend(other.writes)
        return self


class Machine(Protocol):
    """What a coordinator must be able to do to live in a `Shard`. Its requests are methods of its own."""

    def replay(self, record: LoadedRecord) -> None:
        """Apply one record to the durable state. The only way that state ever changes."""

    def replay_marker(self, marker: TransactionMarker) -> None:
        """Keep or drop what the transaction wrote here."""

    def on_loaded(self, now: Instant) -> Outcome:
        """The whole log was replayed: build what lives in memory alone (sessions, timers)."""

    def load_report(self) -> Mapping[str, object]:
        """What the log held, in a few words for the operator. Called when loading is over."""

    def on_committed(self, then: object, now: Instant) -> Outcome:
        """A write that named `then` is committed."""

    def on_failed(self, then: object, error: ErrorCode, now: Instant) -> Outcome:
        """A write that named `then` was lost, or is not known to be committed in time."""

    def commit(self, high_watermark: int) -> None:
        """Records below `high_watermark` are committed."""

    def rollback(self, end_offset: int) -> None:
        """Records at and above `end_offset` are gone: take back what they did."""

    def on_tick(self, now: Instant) -> Outcome:
        """Carry out what is due."""

    def next_deadline_ms(self) -> int | None:
        """When `on_tick` must run next."""


M = TypeVar("M", bound=Machine)


@dataclass(slots=True)
class _Parked:
    end_offset: int
    """One past the last offset that the high watermark must cover."""
    deadline_ms: int
    write: Write


class Shard(Generic[M]):
    """One partition of a coordinator, from loading to unloading."""

    def __init__(self, machine: M, *, write_timeout_ms: int) -> None:
        """
        Args:
            machine: An empty machine, for records from the start of the log.
            write_timeout_ms: How long a write may stay uncommitted before its replies say so
                (Kafka: `offsets.commit.timeout.ms`).
        """
        self.machine = machine
        self.loaded = False
        self._write_timeout_ms = write_timeout_ms
        self._queue: deque[Write] = deque()
        self._parked: deque[_Parked] = deque()
        self._end_offset = 0  # one past the last record replayed
        self._high_watermark = 0

    @property
    def end_offset(self) -> int:
        """One past the last record that was replayed: where loading continues."""
        return self._end_offset

    @property
    def high_watermark(self) -> int:
        """What is known of it."""
        return self._high_watermark

    # Loading

    def load(
        self, records: Iterable[LoadedRecord | TransactionMarker], *, end_offset: int, high_watermark: int
    ) -> None:
        """Replay records read from the log; `end_offset` follows the last batch read, compacted away or not."""
        assert not self.loaded
        self._high_watermark = max(self._high_watermark, high_watermark)
        self.machine.commit(high_watermark)
        machine = self.machine
        for record in records:
            if isinstance(record, LoadedRecord):
                machine.replay(record)
            else:
                machine.replay_marker(record)
        self._end_offset = end_offset

    def finish_loading(self, now: Instant) -> list[Reply]:
        assert not self.loaded
        self.loaded = True
        return self.submit(self.machine.on_loaded(now), now)

    # Writing

    def submit(self, outcome: Outcome, now: Instant) -> list[Reply]:
        """Take an outcome; return what may leave at once. Then `next_append` must be drained."""
        replies = outcome.replies
        for write in outcome.writes:
            if write.records or self._queue or self._end_offset > self._high_watermark:
                self._queue.append(write)
            else:
                replies += write.replies
                assert write.then is None, "only records can be committed"
        self._park_recordless(now)
        return replies

    def next_append(self) -> Sequence[CoordinatorRecord] | None:
        """The records to append now, in one batch. None: nothing to do."""
        return self._queue[0].records if self._queue else None

    def next_producer(self) -> Producer | None:
        """In whose transaction the records of `next_append` are to be appended; None: in none."""
        return self._queue[0].producer if self._queue else None

    def on_appended(self, base_offset: int, now: Instant) -> list[Reply]:
        """The records of `next_append` have the offsets from `base_offset` on."""
        write = self._queue.popleft()
        assert base_offset >= self._end_offset, "offsets only rise"
        producer_id = -1 if write.producer is None else write.producer.producer_id
        for offset, record in enumerate(write.records, base_offset):
            self.machine.replay(LoadedRecord(offset, record.key, record.value, producer_id, record.content))
        self._end_offset = base_offset + len(write.records)
        self._park(write, now)
        self._park_recordless(now)
        return self._release(now)

    def on_appended_elsewhere(self, records: Sequence[LoadedRecord]) -> None:
        """Somebody has appended records, by rising offset, as this machine would have; there may be others between them
        that they have overtaken. `on_high_watermark` follows."""
        assert not self._queue, "what was decided before is appended before"
        for record in records:
            assert record.offset >= self._end_offset, "offsets only rise"
            self.machine.replay(record)
            self._end_offset = record.offset + 1

    def on_append_failed(self, error: ErrorCode, now: Instant) -> list[Reply]:
        """The records of `next_append` were refused: nothing of them is in the log."""
        write = self._queue.popleft()
        replies = self._fail(write, error, now)
        self._park_recordless(now)
        return replies

    def on_marker_appended(self, marker: TransactionMarker, reply: Reply, now: Instant) -> list[Reply]:
        """A transaction has ended in this partition: its marker has an offset. `reply` waits until it is committed."""
        assert not self._queue, "what was decided before is appended before"
        assert marker.offset >= self._end_offset, "offsets only rise"
        self.machine.replay_marker(marker)
        self._end_offset = marker.offset + 1
        self._park(Write((), (reply,)), now)
        return self._release(now)

    # Committing

    def on_high_watermark(self, high_watermark: int, now: Instant) -> list[Reply]:
        """Release what is covered. `next_append` must be drained afterwards."""
        if high_watermark <= self._high_watermark:
            return []
        self._high_watermark = high_watermark
        return self._release(now)

    def on_rolled_back(self, end_offset: int, error: ErrorCode, now: Instant) -> list[Reply]:
        """The log was cut back to `end_offset`: writes at and above it are lost."""
        lost: list[_Parked] = []
        while self._parked and self._parked[-1].end_offset > end_offset:
            lost.append(self._parked.pop())
        if end_offset < self._end_offset:
            self.machine.rollback(end_offset)
            self._end_offset = end_offset
        replies: list[Reply] = []
        for parked in reversed(lost):
            replies += self._fail(parked.write, error, now)
        return replies

    # Time

    def on_tick(self, now: Instant) -> list[Reply]:
        replies: list[Reply] = []
        while self._parked and self._parked[0].deadline_ms <= now.now_ms:
            # The write may still be committed later: only the wait for it ends (as in Kafka).
            replies += self._fail(self._parked.popleft().write, ErrorCode.REQUEST_TIMED_OUT, now)
        return replies + self.submit(self.machine.on_tick(now), now)

    def next_deadline_ms(self) -> int | None:
        deadline_ms = self.machine.next_deadline_ms()
        if self._parked and (deadline_ms is None or self._parked[0].deadline_ms < deadline_ms):
            return self._parked[0].deadline_ms
        return deadline_ms

    def _park(self, write: Write, now: Instant) -> None:
        if write.replies or write.then is not None:
            self._parked.append(_Parked(self._end_offset, now.now_ms + self._write_timeout_ms, write))

    def _park_recordless(self, now: Instant) -> None:
        while self._queue and not self._queue[0].records:
            self._park(self._queue.popleft(), now)

    def _release(self, now: Instant) -> list[Reply]:
        self.machine.commit(self._high_watermark)
        replies: list[Reply] = []
        while self._parked and self._parked[0].end_offset <= self._high_watermark:
            write = self._parked.popleft().write
            replies += write.replies
            if write.then is not None:
                replies += self.submit(self.machine.on_committed(write.then, now), now)
        return replies

    def _fail(self, write: Write, error: ErrorCode, now: Instant) -> list[Reply]:
        replies = [Reply(r.token, None, error) for r in write.replies]
        if write.then is not None:
            replies += self.submit(self.machine.on_failed(write.then, error, now), now)
        return replies


_COORDINATOR_ERRORS = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.REQUEST_TIMED_OUT: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER: ErrorCode.NOT_COORDINATOR,
    ErrorCode.KAFKA_STORAGE_ERROR: ErrorCode.NOT_COORDINATOR,
    ErrorCode.MESSAGE_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
    ErrorCode.RECORD_LIST_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
    ErrorCode.INVALID_FETCH_SIZE: ErrorCode.UNKNOWN_SERVER_ERROR,
}


def coordinator_error(error: ErrorCode) -> ErrorCode:
    """What a client of the coordinator is told of an error of the partition under it.

    Source: Kafka's `CoordinatorOperationExceptionHelper`.
    """
    return _COORDINATOR_ERRORS.get(error, error)
