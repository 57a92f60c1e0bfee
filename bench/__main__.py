"""`make bench`: run scenarios on Apache Kafka and on Ottla in turn, print the tables, draw the plot."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import limit, memory, report
from bench.load import Tools
from bench.report import Figures
from bench.scenarios import SCENARIOS, Scenario
from bench.servers import ApacheKafka, KeepsNothing, Ottla, Server
from ottla import _native

Load = Callable[[Server, Tools], dict[str, float]]
Rounds = dict[str, list[dict[str, float]]]
"""scenario -> its figures, round by round"""

PERFORMANCE_HEAD = """\
# Performance

Written by `make bench BENCH_ARGS=--publish`, which runs both brokers on the same machine and puts each load on Ottla
and then at once on Apache Kafka, while the other one is stopped (SIGSTOP). Figures are worth something as ratios of
one run: machines differ, and so do their minutes: the same load on the same broker took twice as long at times.
Free memory is touched before they start and before each load: the host of a virtual machine finds a page when it is
first used, which would count as CPU time of whoever writes to it. Of short loads and of those whose figures change
most from minute to minute, the medians of three or nine rounds are shown.
The loads are in `bench/scenarios`: Kafka's own perf tools where it has one, else frames that are encoded once.
"""
PERFORMANCE_FOOT = """\
![Ottla over Apache Kafka, by load and figure](performance.png)

Where the time goes under each load: flame graphs in [profiles](profiles), written by `make profile`.
"""
SETTLE_SECONDS = 2.0
"""For what a broker does first when it was stopped for a minute."""
README_LOADS = (
    "idle",
    "100 B records",
    "1000 B records",
    "transactional produce",
    "consume-transform-produce",
    "end to end",
    "500 small producers",
    "5000 partitions",
)


def measure(
    servers: Sequence[Server], nothing: Server, tools: Tools, scenarios: Sequence[Scenario]
) -> tuple[list[Figures], Figures]:
    """Put each load on one server after the other, so that all meet the same minute of the machine.

    Args:
        nothing: Keeps nothing, and has its turn where a load tells what it is without a broker that does.
    Returns: The figures of each server, and those of the last.
    """
    found: dict[Server, Rounds] = {server: {} for server in (*servers, nothing)}
    memory.touch_free_memory()
    with contextlib.ExitStack() as running:
        for server in found:
            running.enter_context(server).pause()
        for scenario in scenarios:
            for _ in range(scenario.rounds):
                for server in servers:
                    _put_on(server, scenario.name, scenario.run, tools, found[server])
                if scenario.unhindered is not None:
                    _put_on(nothing, scenario.name, scenario.unhindered, tools, found[nothing])
    *medians, of_nothing = (
        {name: report.median(figures) for name, figures in rounds.items()} for rounds in found.values()
    )
    return medians, of_nothing


def _put_on(server: Server, name: str, load: Load, tools: Tools, rounds: Rounds) -> None:
    """Run a load on a server that waits, and have it wait again."""
    os.sync()  # what the one before has left to the kernel is not this one's to write
    server.resume()
    settled = time.monotonic() + SETTLE_SECONDS
    memory.touch_free_memory(memory.LOAD_BYTES)
    time.sleep(max(0.0, settled - time.monotonic()))
    print(f"{server.name}: {name}", file=sys.stderr, flush=True)
    figures = load(server, tools)
    print(f"  {figures}", file=sys.stderr, flush=True)
    rounds.setdefault(name, []).append(figures)
    server.pause()


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--jars", type=Path, required=True, help="directory with Apache Kafka's jars")
    parser.add_argument("--only", nargs="*", default=None, help="scenarios to run (default: all)")
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="where tables, plot and JSON go")
    parser.add_argument("--without-kafka", action="store_true", help="measure Ottla alone")
    parser.add_argument("--publish", action="store_true", help="also write README.md and docs/performance.*")
    args = parser.parse_args()
    chosen = tuple(s for s in SCENARIOS if args.only is None or s.name in args.only)
    if not chosen:
        parser.error(f"--only takes names of: {', '.join(s.name for s in SCENARIOS)}")
    if args.publish and (args.only is not None or args.without_kafka):
        parser.error("only a whole run with both brokers is published")
    tools = Tools(args.jars)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers end with whoever started them
    with tempfile.TemporaryDirectory(prefix="ottla-bench-") as directory:
        base = Path(directory)
        memory.touch_free_memory()
        bare = limit.measure(base)
        servers: list[Server] = [Ottla(base / "ottla")]
        if not args.without_kafka:
            servers.append(ApacheKafka(base / "kafka", args.jars))
        (ottla, *others), nothing = measure(servers, KeepsNothing(base / "nothing"), tools, chosen)
    kafka = others[0] if others else {}
    table = report.rows(chosen, kafka, ottla)
    text = page(table, bare, nothing, kafka, ottla)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "report.md").write_text(text)
    (args.out / "figures.json").write_text(
        json.dumps({"limit": bare, "nothing": nothing, "kafka": kafka, "ottla": ottla}, indent=1)
    )
    if kafka:
        report.plot(table, args.out / "ratios.png")
    if args.publish:
        publish(table, text, args.out / "ratios.png")
    print(text)
    return 1 if any(row.reached is False for row in table) else 0


def circumstances() -> str:
    """When, on what and with which build."""
    build = _native.build_info()
    return (
        f"Measured {datetime.now(UTC).date().isoformat()} on {os.cpu_count()} cores of {platform.machine()}, "
        f"{platform.system()}; Python {platform.python_version()}, Ottla {build['version']} ({build['profile']}), "
        "Apache Kafka 4.3.1 with 1 GiB of heap. Both have group.initial.rebalance.delay.ms and "
        "group.consumer.assignment.interval.ms at 0. Load and broker share the cores; CPU is the broker process's user "
        "and system time."
    )


def page(table: list[report.Row], bare: dict[str, float], nothing: Figures, kafka: Figures, ottla: Figures) -> str:
    return "\n".join(
        [
            circumstances() + "\n",
            report.table(table),
            "What is left to gain, the farthest from its goal first:\n",
            report.left_to_gain(table),
            "How far it is to what one thread of this machine can do that only does the work itself:\n",
            report.distance_from_limit(bare, ottla),
            "How far it is to what the load can do here, with a broker that answers at once and keeps nothing:\n",
            report.distance_from_load(nothing, kafka, ottla),
        ]
    )


def publish(table: list[report.Row], text: str, picture: Path) -> None:
    """Put the figures where readers look for them."""
    docs = Path("docs")
    (docs / "performance.png").write_bytes(picture.read_bytes())
    (docs / "performance.md").write_text(f"{PERFORMANCE_HEAD}\n{text}\n{PERFORMANCE_FOOT}")
    readme = Path("README.md")
    shown = [row for row in table if row.scenario in README_LOADS and row.goal]
    content = f"{circumstances()}\n\n{report.table(shown)}"
    readme.write_text(report.replaced(readme.read_text(), "figures", content))


if __name__ == "__main__":
    sys.exit(main())
