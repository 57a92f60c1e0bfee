"""Transactions: a producer that commits ten times a second, and one that copies what it consumes, exactly once."""

from __future__ import annotations

from bench.load import Tools
from bench.scenarios.model import GB, Goal, Scenario
from bench.servers import Server

RECORD_BYTES = 1_000
PROPERTIES = ["acks=all", "batch.size=131072", "linger.ms=5"]
TRANSACTION_MS = 100
COPIED_RECORDS = 60_000
TRANSACTION_RECORDS = 200
WARM = 5
"""A fifth of the load goes before, for the JIT of a fresh broker."""


def _produce(server: Server, tools: Tools) -> dict[str, float]:
    records = 500_000
    tools.create_topic(server.bootstrap, "transactions", 6)

    def produce(count: int) -> float:
        return tools.produce(
            server.bootstrap, "transactions", records=count, record_bytes=RECORD_BYTES, properties=PROPERTIES,
            transaction_ms=TRANSACTION_MS,
        )  # fmt: skip

    produce(records // WARM)
    before = server.cpu_seconds()
    rate = produce(records)
    cpu = server.cpu_seconds() - before
    return {
        "produce MiB/s": rate * RECORD_BYTES / 2**20,
        "CPU s": cpu,
        "CPU s/GB": cpu / (records * RECORD_BYTES / GB),
    }


def _consume_transform_produce(server: Server, tools: Tools) -> dict[str, float]:
    """Transactions of up to 200 records, each with the offset of its group."""
    tools.create_topic(server.bootstrap, "copy-from", 1)
    tools.create_topic(server.bootstrap, "copy-to", 6)
    # A transaction is not cut short where enough was copied: there must be some records more.
    records = COPIED_RECORDS + COPIED_RECORDS // WARM + 10 * TRANSACTION_RECORDS
    tools.produce(server.bootstrap, "copy-from", records=records, record_bytes=RECORD_BYTES, properties=PROPERTIES)

    def copy(count: int) -> tuple[float, int]:
        return tools.copy(
            server.bootstrap, "copy-from", "copy-to", records=count, transaction_records=TRANSACTION_RECORDS,
            name="copier",
        )  # fmt: skip

    copy(COPIED_RECORDS // WARM)
    before = server.cpu_seconds()
    rate, transactions = copy(COPIED_RECORDS)
    cpu = server.cpu_seconds() - before
    return {"records/s": rate, "CPU s": cpu, "CPU ms a transaction": cpu / transactions * 1e3}


SCENARIOS = (
    Scenario(
        "transactional produce",
        _produce,
        (Goal("produce MiB/s", ratio_min=1.5), Goal("CPU s/GB", ratio_max=0.35)),
    ),
    Scenario(
        "consume-transform-produce",
        _consume_transform_produce,
        (Goal("records/s", ratio_min=1.5), Goal("CPU ms a transaction", ratio_max=0.35)),
    ),
)
