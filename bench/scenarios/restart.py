"""Broker processes that are killed, and topics of many partitions."""

from __future__ import annotations

import time

from bench.load import Tools
from bench.scenarios.model import Goal, Scenario, no_worse
from bench.servers import Server
from bench.wire import create_topic, first_acknowledged, record_to_each

PARTITIONS = 5_000


def _hot_segment(server: Server, tools: Tools) -> dict[str, float]:
    """Kill -9 with nearly 1 GiB in one segment; back is who acknowledges a record for it."""
    create_topic(server.port, "hot", partitions=1)
    properties = ["acks=all", "batch.size=131072", "linger.ms=5"]
    tools.produce(server.bootstrap, "hot", records=1_000_000, record_bytes=1_000, properties=properties)
    server.kill()
    began = time.monotonic()
    server.start()
    first_acknowledged(server.port, "hot")
    return {"kill -9 to acknowledged s": time.monotonic() - began}


def _many_partitions(server: Server, tools: Tools) -> dict[str, float]:
    """Times are from the request that creates the topic, and from the start after kill -9."""
    del tools
    began = time.monotonic()
    create_topic(server.port, "five-thousand", partitions=PARTITIONS)
    created = time.monotonic() - began
    record_to_each(server.port, "five-thousand", PARTITIONS)
    produced = time.monotonic() - began
    server.kill()
    began = time.monotonic()
    server.start()
    record_to_each(server.port, "five-thousand", PARTITIONS)
    return {
        "created s": created,
        "a record to each s": produced,
        "kill -9 to a record to each s": time.monotonic() - began,
        "resident MiB": server.resident_bytes() / 2**20,
    }


SCENARIOS = (
    Scenario("1 GiB in a hot segment", _hot_segment, no_worse("kill -9 to acknowledged s")),
    Scenario(
        "5000 partitions",
        _many_partitions,
        (
            Goal("a record to each s", absolute_max=3.0),
            Goal("kill -9 to a record to each s", absolute_max=3.0),
            *no_worse("resident MiB"),
        ),
    ),
)
