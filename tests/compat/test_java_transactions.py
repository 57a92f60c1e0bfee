"""Transactions of the Java producer: partitions are added by producing to them, and the epoch rises with each."""

from __future__ import annotations

import pytest

from ottla.testing.broker import BrokerProcess
from tests.compat.batteries import JAVA, run, survive
from tests.compat.test_java_clients import CLIENT
from tests.compat.transactions import needs_transactions

__all__ = ["CLIENT"]

pytestmark = needs_transactions

COMMAND = [*JAVA, "Transactions"]
CHECKS = [
    "commit and abort",
    "many partitions",
    "open transactions are waited for",
    "fencing",
    "consume, transform, produce",
    "members of the past cannot commit",
    "pending offsets are unstable",
]


@pytest.fixture(scope="module")
def outcomes(bootstrap: str) -> dict[str, str]:
    return run(*COMMAND, bootstrap)


@pytest.mark.parametrize("check", CHECKS)
def test_battery(outcomes: dict[str, str], check: str) -> None:
    assert outcomes.get(check, "not run") == "ok"


def test_broker_is_killed(mortal: BrokerProcess) -> None:
    """A killed broker loses no committed transaction, shows none before its end, and no aborted one ever."""
    assert survive(mortal, *COMMAND) == "ok"
