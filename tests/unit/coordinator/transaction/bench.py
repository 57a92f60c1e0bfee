"""A shard of transactions over a log in a list; the high watermark follows at once unless it is held."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ottla.coordinator.shard import CoordinatorRecord, Instant, LoadedRecord, Outcome, Reply, Shard
from ottla.coordinator.transaction import records
from ottla.coordinator.transaction.config import TransactionConfig
from ottla.coordinator.transaction.ending import Ending
from ottla.coordinator.transaction.machine import TransactionMachine
from ottla.coordinator.transaction.records import RecordContent
from ottla.coordinator.transaction.transaction import TopicPartition, Transaction
from ottla.errors import ErrorCode
from ottla.protocol.messages.end_txn import EndTxnRequest, EndTxnResponse
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

WRITE_TIMEOUT_MS = 5_000
WALL_MS = 1_700_000_000_000
TIMEOUT_MS = 60_000
A, B = ("a", 0), ("b", 1)


class TransactionBench:
    """One partition's coordinator. Requests return a token; `replies` has what was answered, by token."""

    def __init__(
        self, log: Iterable[CoordinatorRecord] = (), *, config: TransactionConfig | None = None, now_ms: int = 1_000
    ) -> None:
        self.log = list(log)
        self.now = Instant(now_ms, WALL_MS + now_ms)
        self.machine = TransactionMachine(config or TransactionConfig())
        self.shard = Shard(self.machine, write_timeout_ms=WRITE_TIMEOUT_MS)
        self.replies: dict[int, Reply] = {}
        self.endings: list[Ending] = []
        self.holding = False
        self.high_watermark = len(self.log)
        self.append_error: ErrorCode | None = None
        self.next_producer_id = 100
        self._last_token = 0
        loaded = [LoadedRecord(i, record.key, record.value) for i, record in enumerate(self.log)]
        self.shard.load(loaded, end_offset=len(loaded), high_watermark=len(loaded))
        self._take(self.shard.finish_loading(self.now))

    def again(self) -> TransactionBench:
        """A broker that loads what is committed."""
        loaded = TransactionBench(self.log[: self.high_watermark], config=self.machine.config, now_ms=self.now.now_ms)
        loaded.next_producer_id, loaded._last_token = self.next_producer_id, self._last_token
        return loaded

    def _take(self, replies: list[Reply]) -> None:
        while True:
            for reply in replies:
                assert reply.token not in self.replies, "answered twice"
                self.replies[reply.token] = reply
            wanted = self.shard.next_append()
            if wanted is None:
                break
            if self.append_error is not None:
                replies = self.shard.on_append_failed(self.append_error, self.now)
                continue
            base_offset = len(self.log)
            self.log += wanted
            replies = self.shard.on_appended(base_offset, self.now)
            if not self.holding:
                self.high_watermark = len(self.log)
                replies += self.shard.on_high_watermark(self.high_watermark, self.now)
        self.endings += self.machine.take_endings()

    def _submit(self, outcome: Outcome) -> None:
        self._take(self.shard.submit(outcome, self.now))

    def _token(self) -> int:
        self._last_token += 1
        return self._last_token

    def let_go(self, high_watermark: int | None = None) -> None:
        """Commit up to an offset, or all."""
        self.high_watermark = len(self.log) if high_watermark is None else high_watermark
        self._take(self.shard.on_high_watermark(self.high_watermark, self.now))

    def lose(self) -> None:
        """What is not committed is gone from the log."""
        del self.log[self.high_watermark :]
        self._take(self.shard.on_rolled_back(self.high_watermark, ErrorCode.KAFKA_STORAGE_ERROR, self.now))

    def advance(self, milliseconds: int) -> None:
        """Time passes, deadline by deadline."""
        until_ms = self.now.now_ms + milliseconds
        while (deadline_ms := self.shard.next_deadline_ms()) is not None and deadline_ms <= until_ms:
            self._at(max(deadline_ms, self.now.now_ms))
            self._take(self.shard.on_tick(self.now))
        self._at(until_ms)

    def _at(self, now_ms: int) -> None:
        self.now = Instant(now_ms, WALL_MS + now_ms)

    def send_init(self, name: str = "tx", producer: tuple[int, int] = (-1, -1), timeout_ms: int = TIMEOUT_MS) -> int:
        token, spare = self._token(), None
        if self.machine.needs_producer_id(name):
            spare, self.next_producer_id = self.next_producer_id, self.next_producer_id + 1
        request = InitProducerIdRequest(
            transactional_id=name,
            transaction_timeout_ms=timeout_ms,
            producer_id=producer[0],
            producer_epoch=producer[1],
        )
        self._submit(self.machine.init_producer_id(request, token, self.now, spare_producer_id=spare))
        return token

    def send_add(
        self, producer: tuple[int, int], *partitions: TopicPartition, name: str = "tx", client_version: int = 2
    ) -> int:
        token = self._token()
        outcome = self.machine.add_partitions(
            name, *producer, partitions or (A,), token, self.now, client_version=client_version
        )
        self._submit(outcome)
        return token

    def send_end(self, producer: tuple[int, int], *, commit: bool, name: str = "tx", client_version: int = 2) -> int:
        token, spare = self._token(), None
        if self.machine.needs_producer_id(name):
            spare, self.next_producer_id = self.next_producer_id, self.next_producer_id + 1
        request = EndTxnRequest(
            transactional_id=name, producer_id=producer[0], producer_epoch=producer[1], committed=commit
        )
        outcome = self.machine.end(request, token, self.now, client_version=client_version, spare_producer_id=spare)
        self._submit(outcome)
        return token

    def complete(self, ending: Ending) -> None:
        """The markers are written."""
        if ending in self.endings:
            self.endings.remove(ending)
        self._submit(self.machine.complete(ending, self.now))

    # The same, for a request that is answered at once

    def init(self, name: str = "tx", producer: tuple[int, int] = (-1, -1)) -> tuple[ErrorCode, int, int]:
        return self.initialised(self.send_init(name, producer))

    def initialised(self, token: int) -> tuple[ErrorCode, int, int]:
        response = self.replies[token].response
        assert isinstance(response, InitProducerIdResponse)
        return response.error_code, response.producer_id, response.producer_epoch

    def add(self, producer: tuple[int, int], *partitions: TopicPartition, client_version: int = 2) -> ErrorCode:
        return self.added(self.send_add(producer, *partitions, client_version=client_version))

    def added(self, token: int) -> ErrorCode:
        response = self.replies[token].response
        assert isinstance(response, ErrorCode)
        return response

    def end(self, producer: tuple[int, int], *, commit: bool, client_version: int = 2) -> tuple[ErrorCode, int, int]:
        return self.ended(self.send_end(producer, commit=commit, client_version=client_version))

    def ended(self, token: int) -> tuple[ErrorCode, int, int]:
        response = self.replies[token].response
        assert isinstance(response, EndTxnResponse)
        return response.error_code, response.producer_id, response.producer_epoch

    def state(self, name: str = "tx") -> Transaction:
        found = self.machine.describe(name)
        assert found is not None
        return found

    def verify(self, producer: tuple[int, int], *partitions: TopicPartition) -> Collection[ErrorCode]:
        return list(self.machine.verify_partitions("tx", *producer, partitions).values())


def with_epoch(epoch: int, **fields: object) -> TransactionBench:
    """A coordinator that has loaded a transactional id `tx` with this epoch of producer 7."""
    transaction = Transaction(7, TIMEOUT_MS, producer_epoch=epoch, last_update_timestamp_ms=WALL_MS)
    record = records.record("tx", transaction._replace(**fields), transaction_version=2)
    assert isinstance(record.content, RecordContent)
    return TransactionBench([record])
