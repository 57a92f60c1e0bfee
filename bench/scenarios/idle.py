"""What a broker costs that has nothing to do, and what the load leaves behind."""

from __future__ import annotations

import shutil
import time

from bench.load import Tools
from bench.scenarios.model import Goal, Scenario
from bench.servers import Server
from bench.wire import first_acknowledged

IDLE_SECONDS = 20.0


def _idle(server: Server, tools: Tools) -> dict[str, float]:
    """On a fresh broker, so that start-up and idleness are its own."""
    del tools
    server.kill()
    shutil.rmtree(server.directory / "data", ignore_errors=True)
    start = server.start()
    first_acknowledged(server.port, "first")
    acknowledged = time.monotonic() - server.started_s
    time.sleep(5)
    before = server.cpu_seconds()
    resident = server.resident_bytes()
    time.sleep(IDLE_SECONDS)
    cpu = server.cpu_seconds() - before
    return {
        "start to listening s": start,
        "start to first acknowledged record s": acknowledged,
        "resident MiB": resident / 2**20,
        "CPU % of a core": cpu / IDLE_SECONDS * 100,
    }


def _after_load(server: Server, tools: Tools) -> dict[str, float]:
    """On the broker that took all the load before."""
    del tools
    return {"resident MiB": server.resident_bytes() / 2**20}


IDLE = Scenario(
    "idle",
    _idle,
    (
        Goal("start to first acknowledged record s", absolute_max=0.6),
        Goal("resident MiB", absolute_max=60),
        Goal("CPU % of a core", absolute_max=0.5),
    ),
)
AFTER_LOAD = Scenario("after the load", _after_load, (Goal("resident MiB", absolute_max=150),))
