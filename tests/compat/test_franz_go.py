"""franz-go, the client in Go: a battery of ours, and the tests that the client brings for itself."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from ottla.testing.broker import BrokerProcess
from tests.compat.batteries import GO, HERE, run, survive

CHECKS = [
    *(f"round trip {codec}" for codec in ("none", "gzip", "snappy", "lz4", "zstd")),
    "acks 0",
    "acks 1",
    "keys, headers and timestamps",
    "offsets and seeking",
    "commit and resume",
]
SKIPPED = "SCRAM"
"""Tests of SASL."""


def in_module(*command: str) -> str:
    result = subprocess.run(
        command, cwd=HERE / "go", capture_output=True, text=True, check=True, env=os.environ | {"PATH": go_path()}
    )
    return result.stdout.strip()


def go_path() -> str:
    return f"{HERE.parents[1]}/.tools/go/bin:{os.environ['PATH']}"


def version() -> str:
    return in_module("go", "list", "-m", "-f", "{{.Version}}", "github.com/twmb/franz-go").removeprefix("v")


CLIENT = ("franz-go", version)


@pytest.fixture(scope="module")
def outcomes(bootstrap: str) -> dict[str, str]:
    return run(GO / "battery", bootstrap)


@pytest.mark.parametrize("check", CHECKS)
def test_battery(outcomes: dict[str, str], check: str) -> None:
    assert outcomes.get(check, "not run") == "ok"


def test_broker_is_killed(mortal: BrokerProcess) -> None:
    """Nothing acknowledged is lost, doubled or reordered when the broker is killed and comes back."""
    assert survive(mortal, GO / "battery") == "ok"


def test_own_suite(bootstrap: str) -> None:
    """Passes its own test suite, transactions, KIP-848 and share groups included."""
    package = in_module("go", "list", "-f", "{{.Dir}}", "github.com/twmb/franz-go/pkg/kgo")
    settings = {
        "KGO_SEEDS": bootstrap,
        "KGO_TEST_RF": "1",
        "KGO_TEST_RECORDS": os.environ.get("KGO_TEST_RECORDS", "20000"),
        "KGO_TEST_MAX_TOPIC_PARTS": "11",
        "KGO_LOG_LEVEL": "error",
    }
    result = subprocess.run(
        [str(GO / "kgo.test"), "-test.v", "-test.timeout=240s", f"-test.skip={SKIPPED}"],
        cwd=package,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=260,
        check=False,
    )
    passed = len(re.findall(r"^\s*--- PASS", result.stdout, re.MULTILINE))
    failed = re.findall(r"^\s*--- FAIL: (\S+)", result.stdout, re.MULTILINE)
    telling = [line for line in result.stdout.splitlines() if not re.search("=== |--- PASS|: deleting ", line)]
    assert not failed, "\n".join(telling[-200:])
    assert result.returncode == 0, "\n".join(telling[-200:])
    assert passed > 100
