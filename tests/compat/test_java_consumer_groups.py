"""The Java consumer in groups of KIP-848."""

from __future__ import annotations

import pytest

from ottla.testing.broker import BrokerProcess
from tests.compat.batteries import JAVA, run, survive
from tests.compat.test_java_clients import version

COMMAND = [*JAVA, "ConsumerGroups"]
CHECKS = [
    "group with uniform",
    "group with range",
    "static membership",
    "regular expressions",
    "new partitions",
    "commit and resume",
    "administration",
    "group configs",
]
CLIENT = ("Java consumer groups (KIP-848)", version)


@pytest.fixture(scope="module")
def outcomes(bootstrap: str) -> dict[str, str]:
    return run(*COMMAND, bootstrap)


@pytest.mark.parametrize("check", CHECKS)
def test_battery(outcomes: dict[str, str], check: str) -> None:
    assert outcomes.get(check, "not run") == "ok"


def test_broker_is_killed(mortal: BrokerProcess) -> None:
    """Nothing acknowledged is lost, doubled or reordered when the broker is killed and comes back."""
    assert survive(mortal, *COMMAND) == "ok"
