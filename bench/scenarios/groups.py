"""Groups with many members, in both protocols: how long a rebalance takes, and what it costs that they stay."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from bench.load import Tools
from bench.members import ClassicMember, ConsumerMember, Member, gather
from bench.paced import paced
from bench.scenarios.model import Goal, Scenario
from bench.servers import Server
from bench.wire import create_topic, find_coordinator, percentile

MEMBERS = 50
PARTITIONS = 100
REBALANCES = 5
"""Those that count in a round, of a new group each, after as many for the JIT of a fresh broker."""
ROUNDS = 9
"""Short ones, so that the brokers take turns within seconds: as often does the speed of a machine change."""
BEATING_GROUPS = 20
"""With 50 members each."""
BEATING_SECONDS = 15.0


def _together(kind: type[Member]) -> Callable[[Server, Tools], dict[str, float]]:
    def run(server: Server, tools: Tools) -> dict[str, float]:
        del tools
        topic = server.fresh(f"together-{kind.protocol}")
        create_topic(server.port, topic, partitions=PARTITIONS)
        took_s, cpu_s = [], []
        for number in range(2 * REBALANCES):
            group = f"{topic}-{number}"
            find_coordinator(server.port, group)
            before = server.cpu_seconds()
            seconds, members = gather(kind, server.port, group, topic, count=MEMBERS, partitions=PARTITIONS)
            if number >= REBALANCES:
                took_s.append(seconds)
                cpu_s.append(server.cpu_seconds() - before)
            kind.leave(server.port, members)
        return {
            "all assigned ms": statistics.median(took_s) * 1e3,
            "slowest ms": max(took_s) * 1e3,
            "CPU s": sum(cpu_s),
            "CPU ms a rebalance": statistics.mean(cpu_s) * 1e3,
        }

    return run


def _beating(kind: type[Member], interval_s: float) -> Callable[[Server, Tools], dict[str, float]]:
    """A thousand members send heartbeats in the interval that is the default of real consumers."""

    def run(server: Server, tools: Tools) -> dict[str, float]:
        del tools
        topic = f"beating-{kind.protocol}"
        create_topic(server.port, topic, partitions=PARTITIONS)
        groups = []
        for number in range(BEATING_GROUPS):
            group = f"{topic}-{number}"
            find_coordinator(server.port, group)
            groups.append(gather(kind, server.port, group, topic, count=MEMBERS, partitions=PARTITIONS)[1])
        frames = [member.beat() for members in groups for member in members]
        found = paced(server, frames, interval_s=interval_s, warm_seconds=interval_s, seconds=BEATING_SECONDS)
        for members in groups:
            kind.leave(server.port, members)
        return {
            "p99 ms": percentile(found.latencies_ms, 0.99),
            "CPU s": found.cpu_s,
            "CPU % of a core": found.cpu_s / found.seconds * 100,
        }

    return run


SCENARIOS = (
    *(
        Scenario(
            f"{MEMBERS} members join at once, {kind.protocol}",
            _together(kind),
            (Goal("all assigned ms", ratio_max=0.5),),
            rounds=ROUNDS,
        )
        for kind in (ClassicMember, ConsumerMember)
    ),
    *(
        Scenario(
            f"heartbeats of {MEMBERS * BEATING_GROUPS} members, {kind.protocol}",
            _beating(kind, interval_s),
            (Goal("CPU % of a core", absolute_max=5),),
        )
        for kind, interval_s in ((ClassicMember, 3.0), (ConsumerMember, 5.0))
    ),
)
