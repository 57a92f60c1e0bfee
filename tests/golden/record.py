"""Ask a broker all probes and keep its answers: `python -m tests.golden.record HOST:PORT [AREA...]`.

The tables in tests/golden/answers were recorded from a fresh Apache Kafka 4.3.1: one node with both roles, replication
factors of 1 and group.initial.rebalance.delay.ms=0, all else as it comes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tests.golden.lab import Answer, Lab, Probe, all_probes

ANSWERS = Path(__file__).parent / "answers"


def load(area: str) -> dict[str, Answer]:
    path = ANSWERS / f"{area}.json"
    found: dict[str, Answer] = json.loads(path.read_text()) if path.exists() else {}
    return found


def expected(probe: Probe) -> Answer:
    """The recorded answer; that of a probe with variants as a dictionary."""
    return probe.loaded(load(probe.area)[probe.name])


def as_stored(answer: Answer) -> Answer:
    return json.loads(json.dumps(answer))


def main(bootstrap: str, *areas: str) -> None:
    host, _, port = bootstrap.rpartition(":")
    lab = Lab((host, int(port)), settle_seconds=0.15)
    lab.wait_for_coordinators()
    time.sleep(3)  # until all partitions of the offsets topic are loaded
    tables: dict[str, dict[str, Answer]] = {}
    for probe in all_probes().values():
        if not areas or probe.area in areas:
            tables.setdefault(probe.area, {})[probe.name] = probe.stored(probe.run(lab))
    ANSWERS.mkdir(exist_ok=True)
    for area, table in tables.items():
        (ANSWERS / f"{area}.json").write_text(json.dumps(table, indent=1, sort_keys=False) + "\n")
        print(f"{area}: {len(table)} probes")


if __name__ == "__main__":
    main(*sys.argv[1:])
