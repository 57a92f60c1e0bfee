"""The Java producer, consumer and admin client."""

from __future__ import annotations

import pytest

from ottla.testing.broker import BrokerProcess
from tests.compat.batteries import JAVA, TOOLS, run, survive

COMMAND = [*JAVA, "Battery"]
CHECKS = [
    *(f"round trip {codec}" for codec in ("none", "gzip", "snappy", "lz4", "zstd")),
    *(f"acks {acks}" for acks in ("0", "1", "all")),
    "keys, headers and timestamps",
    "automatic topics",
    "offsets and seeking",
    "commit and resume",
    *(f"group with {name}Assignor" for name in ("Range", "RoundRobin", "Sticky", "CooperativeSticky")),
    "static membership",
    "topics",
    "configs",
    "groups",
    "records are deleted",
    "cluster",
    "refused producers",
]


def version() -> str:
    return next((TOOLS / "java" / "lib").glob("kafka-clients-*.jar")).stem.removeprefix("kafka-clients-")


CLIENT = ("Java clients", version)


@pytest.fixture(scope="module")
def outcomes(bootstrap: str) -> dict[str, str]:
    return run(*COMMAND, bootstrap)


@pytest.mark.parametrize("check", CHECKS)
def test_battery(outcomes: dict[str, str], check: str) -> None:
    assert outcomes.get(check, "not run") == "ok"


def test_broker_is_killed(mortal: BrokerProcess) -> None:
    """Nothing acknowledged is lost, doubled or reordered when the broker is killed and comes back."""
    assert survive(mortal, *COMMAND) == "ok"
