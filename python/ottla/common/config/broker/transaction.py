"""Transactions and idempotent producers."""

from __future__ import annotations

from typing import Final

from ottla.common.config.broker.row import BOOLEAN, CLUSTER_WIDE, HIGH, INT, LOW, SHORT, internal, key, unused
from ottla.common.config.definition import ConfigKey, at_least

TRANSACTION_KEYS: Final[tuple[ConfigKey, ...]] = (
    key(
        "add.partitions.to.txn.retry.backoff.max.ms",
        INT,
        "100",
        HIGH,
        "Longest time for which the server retries to add a partition to a transaction.",
        valid=at_least(0),
    ),
    key("add.partitions.to.txn.retry.backoff.ms", INT, "20", HIGH, "Pause between such retries.", valid=at_least(1)),
    internal("producer.id.expiration.check.interval.ms", INT, "600000", valid=at_least(1), honoured=True),
    key(
        "producer.id.expiration.ms",
        INT,
        "86400000",
        LOW,
        "How long a partition remembers an idempotent producer that writes no more.",
        valid=at_least(1),
        mode=CLUSTER_WIDE,
    ),
    unused(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        INT,
        "10000",
        LOW,
        "How often transactions past their timeout are looked for.",
        valid=at_least(1),
    ),
    key(
        "transaction.max.timeout.ms",
        INT,
        "900000",
        HIGH,
        "Longest timeout that a producer may ask for its transactions.",
        valid=at_least(1),
    ),
    key(
        "transaction.partition.verification.enable",
        BOOLEAN,
        "true",
        LOW,
        "Whether a transactional write is checked against the coordinator before it is appended.",
        mode=CLUSTER_WIDE,
    ),
    key(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        INT,
        "3600000",
        LOW,
        "How often expired transactional ids are looked for.",
        valid=at_least(1),
    ),
    unused(
        "transaction.state.log.load.buffer.size",
        INT,
        "5242880",
        HIGH,
        "Bytes read at a time when a coordinator loads its transactions.",
        valid=at_least(1),
    ),
    key(
        "transaction.state.log.min.isr",
        INT,
        "2",
        HIGH,
        "In-sync replicas that a write to the transaction topic needs.",
        valid=at_least(1),
    ),
    key(
        "transaction.state.log.num.partitions",
        INT,
        "50",
        HIGH,
        "Partitions of the transaction topic; cannot change once it exists.",
        valid=at_least(1),
    ),
    key(
        "transaction.state.log.replication.factor",
        SHORT,
        "3",
        HIGH,
        "Replicas of the transaction topic.",
        valid=at_least(1),
    ),
    key(
        "transaction.state.log.segment.bytes",
        INT,
        "104857600",
        HIGH,
        "Segment size of the transaction topic.",
        valid=at_least(1),
    ),
    unused(
        "transaction.two.phase.commit.enable",
        BOOLEAN,
        "false",
        LOW,
        "Whether a transaction may be prepared and finished from outside (KIP-939).",
    ),
    key(
        "transactional.id.expiration.ms",
        INT,
        "604800000",
        HIGH,
        "How long an unused transactional id is remembered.",
        valid=at_least(1),
    ),
)
