"""`make bench`: run scenarios on Apache Kafka and on Ottla in turn, print the table, draw the plot."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench.load import Tools
from bench.report import Figures, markdown, plot, rows
from bench.scenarios import SCENARIOS, Scenario
from bench.servers import ApacheKafka, Ottla, Server
from ottla import _native


def measure(server: Server, tools: Tools, scenarios: tuple[Scenario, ...]) -> Figures:
    found: Figures = {}
    with server:
        for scenario in scenarios:
            print(f"{server.name}: {scenario.name}", file=sys.stderr, flush=True)
            found[scenario.name] = scenario.run(server, tools)
            print(f"  {found[scenario.name]}", file=sys.stderr, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--jars", type=Path, required=True, help="directory with Apache Kafka's jars")
    parser.add_argument("--only", nargs="*", default=None, help="scenarios to run (default: all)")
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="where table, plot and JSON go")
    parser.add_argument("--without-kafka", action="store_true", help="measure Ottla alone")
    args = parser.parse_args()
    chosen = tuple(s for s in SCENARIOS if args.only is None or s.name in args.only)
    if not chosen:
        parser.error(f"--only takes names of: {', '.join(s.name for s in SCENARIOS)}")
    tools = Tools(args.jars)
    with tempfile.TemporaryDirectory(prefix="ottla-bench-") as directory:
        base = Path(directory)
        kafka: Figures = {}
        if not args.without_kafka:
            kafka = measure(ApacheKafka(base / "kafka", args.jars), tools, chosen)
        ottla = measure(Ottla(base / "ottla"), tools, chosen)
    build = _native.build_info()
    when = datetime.now(UTC).date().isoformat()
    header = (
        f"Measured {when} on {os.cpu_count()} cores of {platform.machine()}, {platform.system()}; Python "
        f"{platform.python_version()}, Ottla {build['version']} ({build['profile']} build). Load: Kafka's own perf "
        "tools on the same cores; CPU is the broker process's user and system time."
    )
    table = rows(chosen, kafka, ottla)
    text = markdown(table, header)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "report.md").write_text(text)
    (args.out / "figures.json").write_text(json.dumps({"kafka": kafka, "ottla": ottla}, indent=1))
    if kafka:
        plot(table, args.out / "ratios.png")
    print(text)
    return 1 if any(row.reached is False for row in table) else 0


if __name__ == "__main__":
    sys.exit(main())
