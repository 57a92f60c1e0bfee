"""The transaction coordinator's machine: one partition of `__transaction_state`, for `ottla.coordinator.shard.Shard`.

Each request takes a transactional id one step further (`transaction`), on top of whatever was decided before, committed
or not: the shard sends the reply when the step is committed. A decision to end a transaction is carried out once it is
committed: it appears in `take_endings`, whoever runs the machine has the markers written and calls `complete`.

A request for a transaction that is being ended waits for the end, shortly: that is mostly sooner than a client that is
told CONCURRENT_TRANSACTIONS would be back.

Source: Kafka's `TransactionCoordinator` and `TransactionStateManager` (KIP-98, KIP-360, KIP-664, KIP-890).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final, NamedTuple, assert_never

from ottla.coordinator.shard import CoordinatorRecord, Instant, LoadedRecord, Outcome, Reply, TransactionMarker
from ottla.coordinator.timeline import Timeline, TimelineDict
from ottla.coordinator.timers import Deadline, Timers
from ottla.coordinator.transaction import records
from ottla.coordinator.transaction.config import TransactionConfig
from ottla.coordinator.transaction.ending import Ending, check_end, is_of_next
from ottla.coordinator.transaction.events import (
    EndingDue,
    ExpiryCheckDue,
    PatienceEnds,
    Prepared,
    Settled,
    TimerEvent,
    TransactionTimesOut,
    WriteEvent,
)
from ottla.coordinator.transaction.records import MalformedRecord, RecordContent
from ottla.coordinator.transaction.transaction import (
    AT_REST,
    EPOCH_BUMPS_FROM,
    EPOCH_MAX,
    NO_EPOCH,
    NO_PRODUCER_ID,
    PREPARED,
    TopicPartition,
    Transaction,
    TransactionState,
)
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.end_txn import EndTxnRequest, EndTxnResponse
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

ENDING_RETRY_MS: Final = 500
"""How long after a lost write a transaction is looked at again."""
TRANSACTIONAL_ID_BYTES_MAX: Final = 0x7FFF
"""What a key of the log can hold."""


class _Waiting(NamedTuple):
    """A request that waits for its transactional id to be at rest."""

    token: int
    until_ms: int
    decide: Callable[[Instant], Outcome]
    refuse: Callable[[ErrorCode], object]


class TransactionMachine:
    """Transactional ids and their transactions."""

    def __init__(self, config: TransactionConfig) -> None:
        self.config = config
        self._timeline = Timeline()
        self._transactions: TimelineDict[str, Transaction] = TimelineDict(self._timeline)
        self._timers: Timers[TimerEvent] = Timers()
        self._timeouts: dict[str, Deadline[TimerEvent]] = {}
        """Of the transactions that are open."""
        self._expiry: Deadline[TimerEvent] = Deadline(ExpiryCheckDue())
        self._waiting: dict[str, list[_Waiting]] = {}
        self._endings: list[Ending] = []
        self._is_stale = False
        """Whether state was taken back, so that the timers may not fit it."""
        self._foreign_records = 0
        self._malformed_records = 0

    # The log

    def replay(self, record: LoadedRecord) -> None:
        content = record.content
        if content is None:
            try:
                content = records.decode(record.key, record.value)
            except MalformedRecord:
                self._malformed_records += 1  # passed over: the others must not suffer for it
                return
        if not isinstance(content, RecordContent):
            self._foreign_records += 1
            return
        if content.transaction is None:
            self._transactions.remove(content.transactional_id, offset=record.offset)
        else:
            self._transactions.put(content.transactional_id, content.transaction, offset=record.offset)

    def replay_marker(self, marker: TransactionMarker) -> None:
        """Nobody writes here within a transaction."""

    def commit(self, high_watermark: int) -> None:
        self._timeline.commit(high_watermark)

    def rollback(self, end_offset: int) -> None:
        self._timeline.rollback(end_offset)
        self._is_stale = True

    def on_loaded(self, now: Instant) -> Outcome:
        self._resume(now)
        self._schedule_expiry(now)
        return Outcome()

    def _resume(self, now: Instant) -> None:
        """Open transactions have the rest of their time, and those decided on are ended."""
        for transactional_id, transaction in self._transactions.committed_items():
            if transaction.state in PREPARED:
                self._endings.append(Ending.of(transactional_id, transaction))
        for transactional_id, transaction in self._transactions.items():
            if transaction.state is TransactionState.ONGOING and transactional_id not in self._timeouts:
                # The wall clock may have jumped, or be another machine's.
                passed_ms = max(now.wall_ms - transaction.start_timestamp_ms, 0)
                self._schedule_timeout(transactional_id, now.now_ms + max(transaction.timeout_ms - passed_ms, 0))

    def load_report(self) -> Mapping[str, object]:
        states = [t.state for _, t in self._transactions.items()]
        report: dict[str, object] = {
            "transactional_ids": len(states),
            "open": states.count(TransactionState.ONGOING),
            "to_be_ended": sum(state in PREPARED for state in states),
        }
        if self._foreign_records:
            report["ignored"] = self._foreign_records
        if self._malformed_records:
            report["malformed"] = self._malformed_records
        return report

    def _write(
        self,
        out: Outcome,
        transactional_id: str,
        transaction: Transaction,
        *replies: Reply,
        then: WriteEvent | None = None,
    ) -> Outcome:
        version = self.config.transaction_version
        return out.write(
            [records.record(transactional_id, transaction, transaction_version=version)], *replies, then=then
        )

    # Requests

    def needs_producer_id(self, transactional_id: str) -> bool:
        """Whether the next step of the id may need a producer id that nobody has: then `spare_producer_id` is one."""
        transaction = self._transactions.get(transactional_id)
        return transaction is None or transaction.is_exhausted

    def init_producer_id(
        self, request: InitProducerIdRequest, token: int, now: Instant, *, spare_producer_id: int | None
    ) -> Outcome:
        """A producer starts: give it the next epoch. What it, or another with its id, left open is aborted first."""
        transactional_id = request.transactional_id
        if not transactional_id or len(transactional_id.encode()) > TRANSACTIONAL_ID_BYTES_MAX:
            return Outcome().reply(token, init_error(ErrorCode.INVALID_REQUEST))
        if not 0 < request.transaction_timeout_ms <= self.config.transaction_max_timeout_ms:
            return Outcome().reply(token, init_error(ErrorCode.INVALID_TRANSACTION_TIMEOUT))
        found = self._transactions.get(transactional_id)
        if found is not None and not _knows_producer(found, request):
            return Outcome().reply(token, init_error(ErrorCode.PRODUCER_FENCED))

        def decide(now: Instant) -> Outcome:
            try:
                return self._initialise(transactional_id, request, token, now, spare_producer_id)
            except KafkaError as error:
                return Outcome().reply(token, init_error(error.code))

        return self._when_ended(transactional_id, _Waiting(token, self._patience_ends(now), decide, init_error), now)

    def _initialise(
        self, transactional_id: str, request: InitProducerIdRequest, token: int, now: Instant, spare: int | None
    ) -> Outcome:
        """Raises: KafkaError (PRODUCER_FENCED, CONCURRENT_TRANSACTIONS)."""
        timeout_ms = request.transaction_timeout_ms
        found = self._transactions.get(transactional_id)
        if found is None:
            if spare is None:
                raise KafkaError(ErrorCode.CONCURRENT_TRANSACTIONS)  # it has expired this very moment
            found = Transaction(spare, timeout_ms)
        has_producer = request.producer_id != NO_PRODUCER_ID
        expected_epoch = request.producer_epoch if has_producer else None
        if not _knows_producer(found, request):
            raise KafkaError(ErrorCode.PRODUCER_FENCED)
        if found.state is TransactionState.ONGOING:
            error = Reply(token, init_error(ErrorCode.CONCURRENT_TRANSACTIONS))
            return self._fence(Outcome(), transactional_id, found, now, error)
        # After the last epoch of all there is none that a repetition could be told.
        is_over = found.producer_epoch == EPOCH_MAX and expected_epoch == found.last_producer_epoch
        if found.is_exhausted and (expected_epoch in (None, found.producer_epoch) or is_over):
            if spare is None:
                raise KafkaError(ErrorCode.CONCURRENT_TRANSACTIONS)
            step = found.rotated(spare, keeps_epoch=has_producer, timeout_ms=timeout_ms, wall_ms=now.wall_ms)
        else:
            step = found.initialised(expected_epoch, timeout_ms, now.wall_ms)
        reply = InitProducerIdResponse(producer_id=step.producer_id, producer_epoch=step.producer_epoch)
        return self._write(Outcome(), transactional_id, step, Reply(token, reply))

    def add_partitions(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: Collection[TopicPartition],
        token: int,
        now: Instant,
        *,
        client_version: int,
    ) -> Outcome:
        """Have the transaction, begun if need be, reach these partitions. The reply is an `ErrorCode` for all of them.

        Args:
            client_version: The transaction.version by whose rules the client acts.
        """

        def decide(now: Instant) -> Outcome:
            found = self._transactions.get(transactional_id)
            error = _check_producer(found, producer_id, producer_epoch)
            if found is None or error is not ErrorCode.NONE:
                return Outcome().reply(token, error)
            added = frozenset(partitions)
            if found.state is TransactionState.ONGOING and added <= found.partitions:
                return Outcome().write((), Reply(token, ErrorCode.NONE))
            if found.state in AT_REST:
                self._schedule_timeout(transactional_id, now.now_ms + found.timeout_ms)
            step = found.with_partitions(added, client_version, now.wall_ms)
            return self._write(Outcome(), transactional_id, step, Reply(token, ErrorCode.NONE))

        error = _check_producer(self._transactions.get(transactional_id), producer_id, producer_epoch)
        if not transactional_id:
            error = ErrorCode.INVALID_REQUEST
        if error is not ErrorCode.NONE:
            return Outcome().reply(token, error)
        waiting = _Waiting(token, self._patience_ends(now), decide, lambda error: error)
        return self._when_ended(transactional_id, waiting, now)

    def verify_partitions(
        self, transactional_id: str, producer_id: int, producer_epoch: int, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, ErrorCode]:
        """Whether partitions are part of a transaction, by partition: of what is committed."""
        found = self._transactions.get_committed(transactional_id)
        error = _check_producer(found, producer_id, producer_epoch) if transactional_id else ErrorCode.INVALID_REQUEST
        if found is not None and error is ErrorCode.NONE and found.state in PREPARED:
            error = ErrorCode.CONCURRENT_TRANSACTIONS
        if found is None or error is not ErrorCode.NONE:
            return dict.fromkeys(partitions, error)
        known = found.partitions
        return {at: ErrorCode.NONE if at in known else ErrorCode.TRANSACTION_ABORTABLE for at in partitions}

    def end(
        self, request: EndTxnRequest, token: int, now: Instant, *, client_version: int, spare_producer_id: int | None
    ) -> Outcome:
        """Commit or abort: answered when the decision is committed, before the markers are written."""
        try:
            return self._end(request, token, now, client_version, spare_producer_id)
        except KafkaError as error:
            return Outcome().reply(token, end_error(error.code))

    def _end(self, request: EndTxnRequest, token: int, now: Instant, client_version: int, spare: int | None) -> Outcome:
        if not request.transactional_id:
            raise KafkaError(ErrorCode.INVALID_REQUEST)
        found = self._transactions.get(request.transactional_id)
        if found is None:
            raise KafkaError(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        if client_version >= EPOCH_BUMPS_FROM and is_of_next(found, request.producer_id, request.producer_epoch):

            def decide(now: Instant) -> Outcome:
                return self.end(request, token, now, client_version=client_version, spare_producer_id=spare)

            waiting = _Waiting(token, self._patience_ends(now), decide, end_error)
            return self._when_ended(request.transactional_id, waiting, now)
        is_new = check_end(
            found, request.producer_id, request.producer_epoch, commit=request.committed, client_version=client_version
        )
        if not is_new:
            bumps = client_version >= EPOCH_BUMPS_FROM
            done = EndTxnResponse(
                producer_id=found.producer_id if bumps else NO_PRODUCER_ID,
                producer_epoch=found.producer_epoch if bumps else NO_EPOCH,
            )
            return Outcome().write((), Reply(token, done))
        next_producer_id = NO_PRODUCER_ID
        if client_version >= EPOCH_BUMPS_FROM and found.is_exhausted:
            if spare is None:
                raise KafkaError(ErrorCode.CONCURRENT_TRANSACTIONS)
            next_producer_id = spare
        step = found.prepared(
            commit=request.committed,
            client_version=client_version,
            wall_ms=now.wall_ms,
            next_producer_id=next_producer_id,
        )
        ended = step.completed(now.wall_ms)
        reply = EndTxnResponse(producer_id=ended.producer_id, producer_epoch=ended.producer_epoch)
        return self._prepare(Outcome(), request.transactional_id, step, Reply(token, reply))

    def _fence(self, out: Outcome, transactional_id: str, found: Transaction, now: Instant, *replies: Reply) -> Outcome:
        """Abort an open transaction without its producer."""
        step = found.fenced(self.config.transaction_version, now.wall_ms)
        return self._prepare(out, transactional_id, step, *replies)

    def _prepare(self, out: Outcome, transactional_id: str, step: Transaction, *replies: Reply) -> Outcome:
        timeout = self._timeouts.pop(transactional_id, None)
        if timeout is not None:
            self._timers.cancel(timeout)
        return self._write(out, transactional_id, step, *replies, then=Prepared(transactional_id))

    # Endings

    def take_endings(self) -> list[Ending]:
        """Transactions whose markers are to be written now, since the last call. `complete` says that they were."""
        endings, self._endings = self._endings, []
        return endings

    def complete(self, ending: Ending, now: Instant) -> Outcome:
        """The markers of a transaction are written, everywhere. Of one that was ended already: nothing."""
        found = self._transactions.get(ending.transactional_id)
        if found is None or found.state not in PREPARED or Ending.of(ending.transactional_id, found) != ending:
            return Outcome()
        step = found.completed(now.wall_ms)
        return self._write(Outcome(), ending.transactional_id, step, then=Settled(ending.transactional_id))

    def on_committed(self, then: object, now: Instant) -> Outcome:
        event = _write_event(then)
        if isinstance(event, Prepared):
            self._look_at_ending(event.transactional_id, now)
            return Outcome()
        return self._release(event.transactional_id, now)

    def on_failed(self, then: object, error: ErrorCode, now: Instant) -> Outcome:
        # Either nothing is decided and the transaction is as open as before, or what was written may yet be committed.
        event = _write_event(then)
        self._timers.schedule(Deadline(EndingDue(event.transactional_id)), now.now_ms + ENDING_RETRY_MS)
        return Outcome()

    def _look_at_ending(self, transactional_id: str, now: Instant) -> None:
        """Have a transaction ended if that is decided; if the decision is not committed look again later."""
        committed, latest = self._transactions.get_committed(transactional_id), self._transactions.get(transactional_id)
        if committed is not None and committed.state in PREPARED and committed == latest:
            self._endings.append(Ending.of(transactional_id, committed))
        elif latest is not None and latest.state in PREPARED:
            self._timers.schedule(Deadline(EndingDue(transactional_id)), now.now_ms + ENDING_RETRY_MS)
        elif latest is not None and latest.state is TransactionState.ONGOING and transactional_id not in self._timeouts:
            self._schedule_timeout(transactional_id, now.now_ms + latest.timeout_ms)

    # Waiting

    def _patience_ends(self, now: Instant) -> int:
        return now.now_ms + self.config.add_partitions_to_txn_retry_backoff_max_ms

    def _when_ended(self, transactional_id: str, waiting: _Waiting, now: Instant) -> Outcome:
        """Decide now, or once the transaction that is being ended has ended."""
        found = self._transactions.get(transactional_id)
        if found is None or found.state not in PREPARED:
            return waiting.decide(now)
        self._waiting.setdefault(transactional_id, []).append(waiting)
        self._timers.schedule(Deadline(PatienceEnds(transactional_id)), waiting.until_ms)
        return Outcome()

    def _release(self, transactional_id: str, now: Instant) -> Outcome:
        """A transaction has ended: decide on those that wait for it, up to the first that writes something.

        The next step builds on what that one writes, so it is taken once that is written.
        """
        out = Outcome()
        waiting = self._waiting.pop(transactional_id, [])
        while waiting:
            decided = waiting.pop(0).decide(now)
            out.add(decided)
            written = next((write for write in decided.writes if write.records), None)
            if written is not None:
                written.then = written.then or Settled(transactional_id)
                break
        if waiting:
            self._waiting[transactional_id] = waiting
        return out

    def _lose_patience(self, transactional_id: str, now: Instant) -> Outcome:
        out, still = Outcome(), []
        for waiting in self._waiting.pop(transactional_id, []):
            if waiting.until_ms <= now.now_ms:
                out.reply(waiting.token, waiting.refuse(ErrorCode.CONCURRENT_TRANSACTIONS))
            else:
                still.append(waiting)
        if still:
            self._waiting[transactional_id] = still
        return out

    # Time

    def on_tick(self, now: Instant) -> Outcome:
        out = Outcome()
        if self._is_stale:
            self._is_stale = False
            self._resume(now)
        while (event := self._timers.pop_due(now.now_ms)) is not None:
            match event:
                case TransactionTimesOut(transactional_id):
                    self._timeouts.pop(transactional_id, None)
                    found = self._transactions.get(transactional_id)
                    if found is not None and found.state is TransactionState.ONGOING:
                        self._fence(out, transactional_id, found, now)
                case EndingDue(transactional_id):
                    self._look_at_ending(transactional_id, now)
                case PatienceEnds(transactional_id):
                    out.add(self._lose_patience(transactional_id, now))
                case ExpiryCheckDue():
                    self._schedule_expiry(now)
                    out.add(self._expire(now))
                case _:
                    assert_never(event)
        return out

    def next_deadline_ms(self) -> int | None:
        return 0 if self._is_stale else self._timers.next_deadline_ms()

    def _schedule_timeout(self, transactional_id: str, at_ms: int) -> None:
        deadline = self._timeouts.get(transactional_id)
        if deadline is None:
            deadline = self._timeouts[transactional_id] = Deadline(TransactionTimesOut(transactional_id))
        self._timers.schedule(deadline, at_ms)

    def _schedule_expiry(self, now: Instant) -> None:
        interval_ms = self.config.transaction_remove_expired_transaction_cleanup_interval_ms
        self._timers.schedule(self._expiry, now.now_ms + interval_ms)

    def _expire(self, now: Instant) -> Outcome:
        oldest_ms = now.wall_ms - self.config.transactional_id_expiration_ms
        tombstones: list[CoordinatorRecord] = [
            records.tombstone(transactional_id)
            for transactional_id, transaction in self._transactions.items()
            if transaction.state in AT_REST and transaction.last_update_timestamp_ms <= oldest_ms
        ]
        return Outcome().write_each(tombstones) if tombstones else Outcome()

    # What administrators ask

    def describe(self, transactional_id: str) -> Transaction | None:
        """What is committed of a transactional id."""
        return self._transactions.get_committed(transactional_id)

    def transactions(self) -> Iterator[tuple[str, Transaction]]:
        """All transactional ids with what is committed of them."""
        return self._transactions.committed_items()


def init_error(error: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=error, producer_id=NO_PRODUCER_ID, producer_epoch=NO_EPOCH)


def end_error(error: ErrorCode) -> EndTxnResponse:
    return EndTxnResponse(error_code=error, producer_id=NO_PRODUCER_ID, producer_epoch=NO_EPOCH)


def _knows_producer(found: Transaction, request: InitProducerIdRequest) -> bool:
    if request.producer_id == NO_PRODUCER_ID:
        return True
    return found.knows_producer(request.producer_id, request.producer_epoch)


def _check_producer(found: Transaction | None, producer_id: int, producer_epoch: int) -> ErrorCode:
    if found is None or found.producer_id != producer_id:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    return ErrorCode.NONE if found.producer_epoch == producer_epoch else ErrorCode.PRODUCER_FENCED


def _write_event(then: object) -> WriteEvent:
    assert isinstance(then, Prepared | Settled)
    return then
