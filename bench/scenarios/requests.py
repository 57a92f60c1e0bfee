"""Many small requests: what real clusters look like. The load is bounded, and the same for both brokers."""

from __future__ import annotations

from itertools import count

import trio

from bench.load import Tools
from bench.paced import SECONDS, WARM_SECONDS, Paced, paced
from bench.scenarios.model import Goal, Scenario, no_worse
from bench.servers import Server
from bench.wire import (
    Client,
    commit_frame,
    create_topic,
    fetch_deliveries,
    find_coordinator,
    heartbeat_frame,
    percentile,
    produce_frame,
    stamped_value,
)

PRODUCERS = 500
CONSUMERS = 50
PARTITIONS = 10


def _end_to_end(server: Server, tools: Tools) -> dict[str, float]:
    records = 10_000
    topic = server.fresh("end-to-end")
    tools.create_topic(server.bootstrap, topic, 1)
    tools.end_to_end(server.bootstrap, topic, records=records // 2)
    before = server.cpu_seconds()
    mean, p99, p999 = tools.end_to_end(server.bootstrap, topic, records=records)
    cpu = server.cpu_seconds() - before
    return {"mean ms": mean, "p99 ms": p99, "p99.9 ms": p999, "CPU µs a message": cpu / records * 1e6}


def _many_producers(server: Server, tools: Tools) -> dict[str, float]:
    """Two records of 100 B a second from each connection."""
    del tools
    create_topic(server.port, "many-producers", partitions=PARTITIONS)
    frames = [produce_frame("many-producers", i % PARTITIONS, b"v" * 100) for i in range(PRODUCERS)]
    return _answers(paced(server, frames, interval_s=0.5))


def _answers(found: Paced) -> dict[str, float]:
    latencies = found.latencies_ms
    return {
        "mean ms": sum(latencies) / len(latencies),
        "p99 ms": percentile(latencies, 0.99),
        "CPU µs a request": found.cpu_s / len(latencies) * 1e6,
    }


def _commits(server: Server, tools: Tools) -> dict[str, float]:
    """Ten groups commit one offset after the other, each waiting for its answer."""
    del tools
    topic = server.fresh("commits")
    create_topic(server.port, topic, partitions=1)
    groups = [f"{topic}-{i}" for i in range(10)]
    for group in groups:
        find_coordinator(server.port, group)
    found = _answers(paced(server, [commit_frame(group, topic) for group in groups], interval_s=0.0))
    return {"commits/s": 1e3 / found["mean ms"] * len(groups), "CPU µs a commit": found["CPU µs a request"]}


def _heartbeats(server: Server, tools: Tools) -> dict[str, float]:
    """A hundred groups of one member, each with ten heartbeats a second."""
    del tools
    frames = [heartbeat_frame(server.port, f"beating-{i}") for i in range(100)]
    found = _answers(paced(server, frames, interval_s=0.1))
    return {"p99 ms": found["p99 ms"], "CPU µs a heartbeat": found["CPU µs a request"]}


def _waiting_consumers(server: Server, tools: Tools) -> dict[str, float]:
    """Twenty records a second, each for fifty consumers whose fetches wait for it."""
    del tools
    create_topic(server.port, "waiting", partitions=1)
    deliveries: list[float] = []

    async def main() -> float:
        async with trio.open_nursery() as nursery:
            for _ in range(CONSUMERS):
                client = await Client.connect(server.port)
                nursery.start_soon(fetch_deliveries, client, "waiting", deliveries)
            producer = await Client.connect(server.port)
            before = 0.0
            for number in count():
                if number == WARM_SECONDS * 20:
                    deliveries.clear()
                    before = server.cpu_seconds()
                elif number >= (WARM_SECONDS + SECONDS) * 20:
                    break
                await producer.ask(produce_frame("waiting", 0, stamped_value()))
                await trio.sleep(0.05)
            cpu = server.cpu_seconds() - before
            nursery.cancel_scope.cancel()
        return cpu

    cpu = trio.run(main)
    return {
        "mean ms": sum(deliveries) / len(deliveries),
        "p99 ms": percentile(deliveries, 0.99),
        "CPU µs a delivery": cpu / len(deliveries) * 1e6,
    }


SCENARIOS = (
    Scenario(
        "end to end",
        _end_to_end,
        (
            Goal("mean ms", ratio_max=0.5),
            Goal("p99 ms", ratio_max=0.5),
            Goal("CPU µs a message", ratio_max=0.3),
        ),
        rounds=3,
    ),
    Scenario("500 small producers", _many_producers, no_worse("mean ms", "p99 ms", "CPU µs a request")),
    Scenario("50 waiting consumers", _waiting_consumers, no_worse("mean ms", "p99 ms", "CPU µs a delivery")),
    Scenario("offset commits", _commits, (Goal("commits/s", ratio_min=1.0), *no_worse("CPU µs a commit")), rounds=3),
    Scenario("heartbeats", _heartbeats, no_worse("p99 ms", "CPU µs a heartbeat")),
)
