"""The settings of the transaction coordinator's machine."""

from __future__ import annotations

from typing import NamedTuple


class TransactionConfig(NamedTuple):
    """Kafka's keys with dots as underscores, and the finalised transaction.version."""

    transaction_max_timeout_ms: int = 900_000
    transactional_id_expiration_ms: int = 604_800_000
    transaction_remove_expired_transaction_cleanup_interval_ms: int = 3_600_000
    add_partitions_to_txn_retry_backoff_max_ms: int = 100
    """How long a request may wait for the transaction before it to be ended."""
    transaction_version: int = 2
