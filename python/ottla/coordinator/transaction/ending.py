"""Ending transactions: what EndTxn may ask for, and what has to be written into the partitions.

Source: Kafka's `TransactionCoordinator.endTransaction` (KIP-890 for the epochs).
"""

from __future__ import annotations

from typing import NamedTuple

from ottla.coordinator.transaction.transaction import (
    EPOCH_BUMPS_FROM,
    LAST_EPOCH,
    PREPARED,
    TopicPartition,
    Transaction,
    TransactionState,
)
from ottla.errors import ErrorCode, KafkaError


class Ending(NamedTuple):
    """A transaction that is decided on: the markers to write."""

    transactional_id: str
    producer_id: int
    producer_epoch: int
    """Of the markers: under transaction version 2 already the one that follows the transaction's."""
    commit: bool
    transaction_version: int
    partitions: frozenset[TopicPartition]
    decided_timestamp_ms: int
    """Tells apart transactions of a client that keeps its epoch."""

    @classmethod
    def of(cls, transactional_id: str, transaction: Transaction) -> Ending:
        """Args: transaction: One whose end is decided."""
        assert transaction.state in PREPARED
        return cls(
            transactional_id,
            transaction.producer_id,
            transaction.producer_epoch,
            transaction.is_commit,
            transaction.client_version,
            transaction.partitions,
            transaction.last_update_timestamp_ms,
        )


def is_of_next(found: Transaction, producer_id: int, epoch: int) -> bool:
    """Whether an EndTxn is of the transaction after one whose markers are still being written.

    The answer to the last EndTxn has told the client the epoch to go on with. Where it gives up before any record
    arrived, its abort may come at once: Kafka fences it (`TransactionCoordinator.endTransaction`), here it waits.
    """
    return found.state in PREPARED and found.producer_id == producer_id and found.producer_epoch == epoch


def check_end(found: Transaction, producer_id: int, epoch: int, *, commit: bool, client_version: int) -> bool:
    """Whether a client's EndTxn begins the end of a transaction; False: it repeats one that has been carried out.

    Raises: KafkaError (INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS, INVALID_TXN_STATE).
    """
    if client_version >= EPOCH_BUMPS_FROM:
        # The answer to the last transaction of a producer id, with the id to go on with, may have been lost.
        is_rotated = found.previous_producer_id == producer_id and epoch == LAST_EPOCH and found.producer_epoch == 0
        is_repeated = is_rotated or found.producer_epoch == epoch + 1
        if found.producer_id != producer_id and not is_rotated:
            raise KafkaError(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        is_current = found.producer_epoch == epoch and found.state not in PREPARED
        may_repeat = is_repeated and found.state not in (TransactionState.ONGOING, TransactionState.EMPTY)
        if not is_current and not may_repeat:
            raise KafkaError(ErrorCode.PRODUCER_FENCED)
        # An abort ends nothing and still raises the epoch: a producer may not know whether its records have arrived.
        is_new = not is_repeated and (not commit or found.state is TransactionState.ONGOING)
    else:
        if found.producer_id != producer_id:
            raise KafkaError(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        if found.producer_epoch != epoch:
            raise KafkaError(ErrorCode.PRODUCER_FENCED)
        is_repeated = True
        is_new = found.state is TransactionState.ONGOING
    if is_new:
        return True
    repeats = TransactionState.COMPLETE_COMMIT if commit else TransactionState.COMPLETE_ABORT
    if found.state in PREPARED and found.is_commit == commit:
        raise KafkaError(ErrorCode.CONCURRENT_TRANSACTIONS)
    if found.state is not repeats or not is_repeated:
        raise KafkaError(ErrorCode.INVALID_TXN_STATE)
    return False
