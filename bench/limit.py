"""The machine's own limit, by `rust/ottla-core/examples/limit.rs`: what no broker can do for less."""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path

RUNS = 3
COMMAND = ["cargo", "run", "--quiet", "--release", "--package", "ottla-core", "--example", "limit", "--"]


def measure(directory: Path) -> dict[str, float]:
    """CPU seconds of one thread per GB, by what it does; the median of a few runs."""
    runs: list[dict[str, float]] = []
    for _ in range(RUNS):
        done = subprocess.run([*COMMAND, str(directory)], check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout))
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}
