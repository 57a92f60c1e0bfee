"""What is measured, in this order, on one server after the other."""

from __future__ import annotations

from bench.scenarios import disturbed, idle, requests, restart, throughput
from bench.scenarios.model import Goal, Scenario

SCENARIOS = (
    idle.IDLE,
    *throughput.SCENARIOS,
    *requests.SCENARIOS,
    *disturbed.SCENARIOS,
    idle.AFTER_LOAD,
    *restart.SCENARIOS,
)

__all__ = ["SCENARIOS", "Goal", "Scenario"]
