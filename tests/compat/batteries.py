"""Programs in other languages that check their client and print a line for each check: name, tab, outcome."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

from ottla.testing.broker import BrokerProcess

HERE = Path(__file__).parent
TOOLS = HERE.parents[1] / ".tools"
JAVA = [
    "java",
    "-Xmx256m",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=off",
    "-cp",
    f"{TOOLS}/java/classes:{TOOLS}/java/lib/*",
]
GO = TOOLS / "go-programs"


def run(*command: str | Path, timeout_s: float = 180) -> dict[str, str]:
    """Run a battery to its end and return the outcome of every check."""
    result = subprocess.run(
        list(map(str, command)),
        env=os.environ | {"NODE_PATH": f"{TOOLS}/js/node_modules"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    outcomes = dict(line.split("\t", 1) for line in result.stdout.splitlines() if "\t" in line)
    assert result.returncode == 0, f"exit status {result.returncode} after {list(outcomes)}"
    return outcomes


def survive(broker: BrokerProcess, *command: str | Path, timeout_s: float = 150) -> str:
    """Run a battery that says "now" when the broker is to be killed and started again; return its one outcome."""
    with subprocess.Popen(
        [*map(str, command), broker.bootstrap_servers, "survive"],
        env=os.environ | {"NODE_PATH": f"{TOOLS}/js/node_modules"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        guard = threading.Timer(timeout_s, process.kill)
        guard.start()
        outcome = "no outcome"
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == "now":
                    broker.kill()
                    broker.start()
                elif "\t" in line:
                    outcome = line.split("\t", 1)[1].strip()
        finally:
            guard.cancel()
            process.kill()
    return outcome
