"""The Java share consumer (KIP-932)."""

from __future__ import annotations

import pytest

from ottla.testing.broker import BrokerProcess
from tests.compat.batteries import JAVA, run, survive
from tests.compat.test_java_clients import version

COMMAND = [*JAVA, "ShareGroups"]
CHECKS = [
    "implicit acknowledgement",
    "explicit acknowledgement",
    "release and delivery count",
    "reject",
    "renew",
    "two consumers, one partition",
    "administration",
]
CLIENT = ("Java share groups (KIP-932)", version)


@pytest.fixture(scope="module")
def outcomes(bootstrap: str) -> dict[str, str]:
    return run(*COMMAND, bootstrap)


@pytest.mark.parametrize("check", CHECKS)
def test_battery(outcomes: dict[str, str], check: str) -> None:
    assert outcomes.get(check, "not run") == "ok"


def test_broker_is_killed(mortal: BrokerProcess) -> None:
    """Every record arrives at least once when the broker is killed and comes back."""
    assert survive(mortal, *COMMAND) == "ok"
