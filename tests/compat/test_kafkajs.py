"""kafkajs, the client in JavaScript."""

from __future__ import annotations

import json

import pytest

from ottla.testing.broker import BrokerProcess
from tests.compat.batteries import HERE, TOOLS, run, survive

COMMAND = ["node", HERE / "js" / "battery.js"]
CHECKS = [
    "round trip None",
    "round trip GZIP",
    "round trip Snappy",
    'acknowledgements {"acks":0}',
    'acknowledgements {"acks":1}',
    'acknowledgements {"acks":-1}',
    'acknowledgements {"idempotent":true}',
    "keys, headers and timestamps",
    "offsets and seeking",
    "commit and resume",
    "group",
    "administration",
]


def version() -> str:
    found: str = json.loads((TOOLS / "js" / "node_modules" / "kafkajs" / "package.json").read_text())["version"]
    return found


CLIENT = ("kafkajs", version)


@pytest.fixture(scope="module")
def outcomes(bootstrap: str) -> dict[str, str]:
    return run(*COMMAND, bootstrap)


@pytest.mark.parametrize("check", CHECKS)
def test_battery(outcomes: dict[str, str], check: str) -> None:
    assert outcomes.get(check, "not run") == "ok"


def test_broker_is_killed(mortal: BrokerProcess) -> None:
    """Nothing acknowledged is lost or reordered when the broker is killed and comes back."""
    assert survive(mortal, *COMMAND) == "ok"
