"""What is measured, in this order, each on one server after the other."""

from __future__ import annotations

from bench.scenarios import disturbed, groups, idle, requests, restart, share, throughput, transactions
from bench.scenarios.model import Goal, Scenario

SCENARIOS = (
    idle.IDLE,
    *throughput.SCENARIOS,
    *transactions.SCENARIOS,
    *share.SCENARIOS,
    *requests.SCENARIOS,
    *groups.SCENARIOS,
    *disturbed.SCENARIOS,
    idle.AFTER_LOAD,
    *restart.SCENARIOS,
)

__all__ = ["SCENARIOS", "Goal", "Scenario"]
