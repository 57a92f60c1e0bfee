"""What is measured. A scenario runs on one server and returns figures by name; the report sets the two side by side."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.load import Tools
from bench.servers import Server

GB = 1e9
IDLE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Goal:
    """`ratio_max` (or min): Ottla's figure over Kafka's. `absolute_max`: Ottla's own figure."""

    figure: str
    ratio_max: float | None = None
    ratio_min: float | None = None
    absolute_max: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    run: Callable[[Server, Tools], dict[str, float]]
    goals: tuple[Goal, ...]


def _produce(name: str, *, records: int, record_bytes: int, batch_bytes: int, compression: str = "none") -> Scenario:
    topic = name.replace(" ", "-")

    def run(server: Server, tools: Tools) -> dict[str, float]:
        properties = ["acks=all", f"batch.size={batch_bytes}", "linger.ms=5", f"compression.type={compression}"]
        tools.create_topic(server.bootstrap, topic, 6)
        # The JIT of a fresh broker compiles during the first load: it is not what a running one costs.
        tools.produce(server.bootstrap, topic, records=records // 5, record_bytes=record_bytes, properties=properties)
        before = server.cpu_seconds()
        rate = tools.produce(server.bootstrap, topic, records=records, record_bytes=record_bytes, properties=properties)
        cpu = server.cpu_seconds() - before
        figures = {
            "produce MiB/s": rate * record_bytes / 2**20,
            "produce CPU s/GB": cpu / (records * record_bytes / GB),
        }
        before = server.cpu_seconds()
        total = records + records // 5
        figures["consume MiB/s"] = tools.consume(server.bootstrap, topic, records=total)
        figures["consume CPU s/GB"] = (server.cpu_seconds() - before) / (total * record_bytes / GB)
        return figures

    produce_max = 0.12 if record_bytes == 100 else 0.22
    goals = (
        Goal("produce MiB/s", ratio_min=1.8),
        Goal("produce CPU s/GB", ratio_max=produce_max),
        Goal("consume MiB/s", ratio_min=1.0),
        Goal("consume CPU s/GB", ratio_max=0.6),
    )
    return Scenario(name, run, goals if compression == "none" else (Goal("produce MiB/s", ratio_min=1.0),))


def _end_to_end(server: Server, tools: Tools) -> dict[str, float]:
    records = 10_000
    tools.create_topic(server.bootstrap, "end-to-end", 1)
    tools.end_to_end(server.bootstrap, "end-to-end", records=records // 2)
    before = server.cpu_seconds()
    mean, p99, p999 = tools.end_to_end(server.bootstrap, "end-to-end", records=records)
    cpu = server.cpu_seconds() - before
    return {"mean ms": mean, "p99 ms": p99, "p99.9 ms": p999, "CPU µs a message": cpu / records * 1e6}


def _idle(server: Server, tools: Tools) -> dict[str, float]:
    """On a fresh broker, so that start-up and idleness are its own."""
    del tools
    server.kill()
    shutil.rmtree(server.directory / "data", ignore_errors=True)
    start = server.start()
    time.sleep(5)
    before = server.cpu_seconds()
    resident = server.resident_bytes()
    time.sleep(IDLE_SECONDS)
    cpu = server.cpu_seconds() - before
    return {
        "start s": start,
        "resident MiB": resident / 2**20,
        "CPU % of a core": cpu / IDLE_SECONDS * 100,
    }


def _after_load(server: Server, tools: Tools) -> dict[str, float]:
    """Runs last, on the broker that took all the load before."""
    del tools
    return {"resident MiB": server.resident_bytes() / 2**20}


SCENARIOS = (
    Scenario(
        "idle",
        _idle,
        (
            Goal("start s", absolute_max=0.6),
            Goal("resident MiB", absolute_max=60),
            Goal("CPU % of a core", absolute_max=0.5),
        ),
    ),
    _produce("100 B records", records=5_000_000, record_bytes=100, batch_bytes=65_536),
    _produce("1000 B records", records=1_000_000, record_bytes=1_000, batch_bytes=131_072),
    _produce("1000 B records lz4", records=1_000_000, record_bytes=1_000, batch_bytes=131_072, compression="lz4"),
    Scenario(
        "end to end",
        _end_to_end,
        (
            Goal("mean ms", ratio_max=0.5),
            Goal("p99 ms", ratio_max=0.5),
            Goal("CPU µs a message", ratio_max=0.3),
        ),
    ),
    Scenario("after the load", _after_load, (Goal("resident MiB", absolute_max=150),)),
)
