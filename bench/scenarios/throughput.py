"""One fat producer, then one fat consumer: Kafka's own perf tools, as fast as they go."""

from __future__ import annotations

from bench.load import Tools
from bench.scenarios.model import GB, Goal, Scenario, no_worse
from bench.servers import Server

PRODUCED = "produce MiB/s"


def _produce_and_consume(
    name: str,
    *,
    records: int,
    record_bytes: int,
    batch_bytes: int,
    goals: tuple[Goal, ...],
    compression: str = "none",
) -> Scenario:
    properties = ["acks=all", f"batch.size={batch_bytes}", "linger.ms=5", f"compression.type={compression}"]

    def produce(server: Server, tools: Tools, topic: str) -> dict[str, float]:
        tools.create_topic(server.bootstrap, topic, 6)
        # The JIT of a fresh broker compiles during the first load: it is not what a running one costs.
        tools.produce(server.bootstrap, topic, records=records // 5, record_bytes=record_bytes, properties=properties)
        before = server.cpu_seconds()
        rate = tools.produce(server.bootstrap, topic, records=records, record_bytes=record_bytes, properties=properties)
        cpu = server.cpu_seconds() - before
        return {
            PRODUCED: rate * record_bytes / 2**20,
            "produce CPU s/GB": cpu / (records * record_bytes / GB),
        }

    def run(server: Server, tools: Tools) -> dict[str, float]:
        topic = server.fresh(name.replace(" ", "-"))
        figures = produce(server, tools, topic)
        before = server.cpu_seconds()
        total = records + records // 5
        figures["consume MiB/s"] = tools.consume(server.bootstrap, topic, records=total)
        figures["consume CPU s/GB"] = (server.cpu_seconds() - before) / (total * record_bytes / GB)
        return figures

    def unhindered(server: Server, tools: Tools) -> dict[str, float]:
        return {PRODUCED: produce(server, tools, server.fresh(name.replace(" ", "-")))[PRODUCED]}

    return Scenario(name, run, goals, rounds=3, unhindered=unhindered)


def _plain_goals(produce_cpu_max: float) -> tuple[Goal, ...]:
    return (
        Goal(PRODUCED, ratio_min=1.8),
        Goal("produce CPU s/GB", ratio_max=produce_cpu_max),
        Goal("consume MiB/s", ratio_min=1.0),
        Goal("consume CPU s/GB", ratio_max=0.6),
    )


_COMPRESSED_GOALS = (
    Goal(PRODUCED, ratio_min=1.0),
    Goal("consume MiB/s", ratio_min=1.0),
    *no_worse("produce CPU s/GB", "consume CPU s/GB"),
)

SCENARIOS = (
    _produce_and_consume(
        "100 B records", records=5_000_000, record_bytes=100, batch_bytes=65_536, goals=_plain_goals(0.12)
    ),
    _produce_and_consume(
        "1000 B records", records=1_000_000, record_bytes=1_000, batch_bytes=131_072, goals=_plain_goals(0.22)
    ),
    *(
        _produce_and_consume(
            f"1000 B records {codec}",
            records=records,
            record_bytes=1_000,
            batch_bytes=131_072,
            compression=codec,
            goals=_COMPRESSED_GOALS,
        )
        for codec, records in (("lz4", 500_000), ("gzip", 150_000), ("zstd", 300_000))
    ),
)
