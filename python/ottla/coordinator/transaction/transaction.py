"""What the coordinator knows of one transactional id, and each step that it can take.

A step returns a new value and is applied once its record has an offset (`records`, `machine`). Nothing here knows of
time, logs or requests.

Source: Kafka's `TransactionMetadata` and `TransactionState` (KIP-98, KIP-360, KIP-890).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from ottla.errors import ErrorCode, KafkaError

TopicPartition: TypeAlias = tuple[str, int]

NO_PRODUCER_ID: Final = -1
NO_EPOCH: Final = -1
EPOCH_MAX: Final = 0x7FFF
LAST_EPOCH: Final = EPOCH_MAX - 1
"""The highest epoch that a producer is given: one more is left, so that it can always be fenced."""
EPOCH_BUMPS_FROM: Final = 2
"""The transaction.version from which on each end of a transaction raises the producer's epoch (KIP-890)."""


class TransactionState(IntEnum):
    """By the numbers of the log. What is being fenced (7) is never in the log, nor what is removed (6)."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5

    @property
    def label(self) -> str:
        """As DescribeTransactions and ListTransactions spell it."""
        return "".join(word.capitalize() for word in self.name.split("_"))


STATE_LABELS: Final = {state.label: state for state in TransactionState}
NEVER_LISTED: Final = frozenset({"Dead", "PrepareEpochFence"})
"""States that Kafka knows by name and that no transactional id here is ever seen in."""

PREPARED: Final = frozenset({TransactionState.PREPARE_COMMIT, TransactionState.PREPARE_ABORT})
AT_REST: Final = frozenset({TransactionState.EMPTY, TransactionState.COMPLETE_COMMIT, TransactionState.COMPLETE_ABORT})
"""No transaction is open or being ended."""


class Transaction(NamedTuple):
    """One transactional id: its producer and its latest transaction. A tuple, as there may be a million of them."""

    producer_id: int
    timeout_ms: int
    producer_epoch: int = NO_EPOCH
    state: TransactionState = TransactionState.EMPTY
    partitions: frozenset[TopicPartition] = frozenset()
    """Those of the transaction that is open or being ended."""
    start_timestamp_ms: int = -1
    """When the first partition was added, in Unix milliseconds."""
    last_update_timestamp_ms: int = -1
    client_version: int = 0
    """The transaction.version by whose rules the client has acted last."""
    previous_producer_id: int = NO_PRODUCER_ID
    """The one before the latest step."""
    next_producer_id: int = NO_PRODUCER_ID
    """The one to go on with once this transaction has ended, as its epochs are used up."""
    last_producer_epoch: int = NO_EPOCH
    """The epoch that the client may still name in a repeated request. Not in the log."""

    @property
    def is_exhausted(self) -> bool:
        """Whether the next epoch needs a new producer id."""
        return self.producer_epoch >= LAST_EPOCH

    @property
    def is_commit(self) -> bool:
        return self.state is TransactionState.PREPARE_COMMIT

    def _step(self, state: TransactionState) -> Transaction:
        return self._replace(state=state, previous_producer_id=self.producer_id)

    def knows_producer(self, producer_id: int, epoch: int) -> bool:
        """Whether a producer that names an id and an epoch when it initialises is, or may have been, this one."""
        return (
            self.producer_epoch == NO_EPOCH
            or producer_id == self.producer_id
            # Its request may be a repetition: the answer with the new id was lost.
            or (producer_id == self.previous_producer_id and epoch >= LAST_EPOCH)
        )

    def initialised(self, expected_epoch: int | None, timeout_ms: int, wall_ms: int) -> Transaction:
        """The producer starts, or starts again, with the next epoch.

        Args:
            expected_epoch: The one that the client holds and wants to go on from (KIP-360); None: it has none.
        Raises: KafkaError (PRODUCER_FENCED).
        """
        epoch, last_epoch = self.producer_epoch + 1, NO_EPOCH
        if expected_epoch is not None:
            if self.producer_epoch in (NO_EPOCH, expected_epoch):
                last_epoch = self.producer_epoch
            elif expected_epoch == self.last_producer_epoch:
                # A repetition. Any other producer that initialised since would have cleared the last epoch.
                epoch, last_epoch = self.producer_epoch, self.last_producer_epoch
            else:
                raise KafkaError(ErrorCode.PRODUCER_FENCED)
        return self._anew(self.producer_id, epoch, last_epoch, timeout_ms, wall_ms)

    def rotated(self, producer_id: int, *, keeps_epoch: bool, timeout_ms: int, wall_ms: int) -> Transaction:
        """As `initialised`, under a new producer id because the epochs of this one are used up."""
        last_epoch = self.producer_epoch if keeps_epoch else NO_EPOCH
        return self._anew(producer_id, 0, last_epoch, timeout_ms, wall_ms)

    def _anew(self, producer_id: int, epoch: int, last_epoch: int, timeout_ms: int, wall_ms: int) -> Transaction:
        return self._step(TransactionState.EMPTY)._replace(
            producer_id=producer_id,
            producer_epoch=epoch,
            last_producer_epoch=last_epoch,
            timeout_ms=timeout_ms,
            partitions=frozenset(),
            start_timestamp_ms=-1,
            last_update_timestamp_ms=wall_ms,
        )

    def with_partitions(self, partitions: frozenset[TopicPartition], client_version: int, wall_ms: int) -> Transaction:
        """The transaction, begun if none is open, reaches these partitions too."""
        return self._step(TransactionState.ONGOING)._replace(
            partitions=self.partitions | partitions,
            start_timestamp_ms=wall_ms if self.state in AT_REST else self.start_timestamp_ms,
            last_update_timestamp_ms=wall_ms,
            client_version=client_version,
        )

    def prepared(
        self, *, commit: bool, client_version: int, wall_ms: int, next_producer_id: int = NO_PRODUCER_ID
    ) -> Transaction:
        """The decision to end the transaction: from here on only markers are missing."""
        step = self._step(TransactionState.PREPARE_COMMIT if commit else TransactionState.PREPARE_ABORT)
        if client_version >= EPOCH_BUMPS_FROM:
            step = step._replace(
                producer_epoch=min(self.producer_epoch + 1, EPOCH_MAX), last_producer_epoch=self.producer_epoch
            )
        return step._replace(
            start_timestamp_ms=wall_ms if self.state in AT_REST else self.start_timestamp_ms,
            last_update_timestamp_ms=wall_ms,
            client_version=client_version,
            next_producer_id=next_producer_id,
        )

    def fenced(self, transaction_version: int, wall_ms: int) -> Transaction:
        """The transaction is aborted behind its producer's back, whose epoch is then a past one."""
        if transaction_version >= EPOCH_BUMPS_FROM:
            return self.prepared(commit=False, client_version=transaction_version, wall_ms=wall_ms)
        bumped = self._replace(producer_epoch=min(self.producer_epoch + 1, EPOCH_MAX), last_producer_epoch=NO_EPOCH)
        return bumped.prepared(commit=False, client_version=0, wall_ms=wall_ms)

    def completed(self, wall_ms: int) -> Transaction:
        """All markers are written."""
        is_rotated = self.client_version >= EPOCH_BUMPS_FROM and self.next_producer_id != NO_PRODUCER_ID
        state = TransactionState.COMPLETE_COMMIT if self.is_commit else TransactionState.COMPLETE_ABORT
        return self._step(state)._replace(
            producer_id=self.next_producer_id if is_rotated else self.producer_id,
            producer_epoch=0 if is_rotated else self.producer_epoch,
            next_producer_id=NO_PRODUCER_ID,
            partitions=frozenset(),
            last_update_timestamp_ms=wall_ms,
        )
