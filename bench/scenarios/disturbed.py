"""A client that must not notice what others do: a probe beside a load."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import trio

from bench.load import Tools
from bench.scenarios.model import GB, Goal, Scenario, no_worse
from bench.servers import Server
from bench.wire import Client, create_topic, heartbeat_frame, percentile, produce_frame, repeat

PROBE_INTERVAL_S = 0.02


def _probe_beside(server: Server, frame: bytes, load: Callable[[], object]) -> list[float]:
    """Latencies in ms of a request that is sent fifty times a second until the load ends."""
    latencies: list[float] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            client = await Client.connect(server.port)
            nursery.start_soon(repeat, client, frame, latencies, PROBE_INTERVAL_S, 600.0, 0.0)
            await trio.to_thread.run_sync(load)
            nursery.cancel_scope.cancel()

    trio.run(main)
    return latencies


def _heartbeat_beside_gzip(server: Server, tools: Tools) -> dict[str, float]:
    tools.create_topic(server.bootstrap, "beside-gzip", 6)
    load = functools.partial(
        tools.produce, server.bootstrap, "beside-gzip", records=150_000, record_bytes=1_000,
        properties=["acks=all", "batch.size=131072", "linger.ms=5", "compression.type=gzip"],
    )  # fmt: skip
    latencies = _probe_beside(server, heartbeat_frame(server.port, "beside-gzip"), load)
    return {"heartbeat p99 ms": percentile(latencies, 0.99)}


def _drop_from_cache(directory: Path) -> None:
    """Have the kernel forget what it cached of all files below; what is dirty is written first."""
    for path in directory.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def _cold_replay(server: Server, tools: Tools) -> dict[str, float]:
    """A consumer reads a topic from the start that is in nobody's memory any more, and a producer goes on elsewhere."""
    records, record_bytes = 1_000_000, 1_000
    cold, probed = server.fresh("cold"), server.fresh("probe")
    tools.create_topic(server.bootstrap, cold, 6)
    properties = ["acks=all", "batch.size=131072", "linger.ms=5"]
    tools.produce(server.bootstrap, cold, records=records, record_bytes=record_bytes, properties=properties)
    create_topic(server.port, probed, partitions=1)
    _drop_from_cache(server.directory / "data")
    rates: list[float] = []
    before = server.cpu_seconds()
    latencies = _probe_beside(
        server,
        produce_frame(probed, 0, b"v" * 100),
        lambda: rates.append(tools.consume(server.bootstrap, cold, records=records)),
    )
    cpu = server.cpu_seconds() - before
    return {
        "consume MiB/s": rates[0],
        "CPU s/GB": cpu / (records * record_bytes / GB),
        "produce p99 ms": percentile(latencies, 0.99),
    }


SCENARIOS = (
    Scenario("heartbeat beside a gzip producer", _heartbeat_beside_gzip, no_worse("heartbeat p99 ms")),
    Scenario(
        "cold replay",
        _cold_replay,
        (Goal("consume MiB/s", ratio_min=1.0), *no_worse("CPU s/GB", "produce p99 ms")),
        rounds=3,
    ),
)
