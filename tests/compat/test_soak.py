"""Long runs of what foreign clients bring (`make soak`)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from ottla.testing.broker import BrokerProcess
from tests.compat.batteries import GO
from tests.compat.test_franz_go import SKIPPED, in_module

SECONDS = int(os.environ.get("SOAK_SECONDS", "300"))


@pytest.mark.soak
def test_own_suite_of_franz_go_at_full_size(tmp_path: Path) -> None:
    """The tests of groups and transactions of the client with half a million records, as its author runs them."""
    package = in_module("go", "list", "-f", "{{.Dir}}", "github.com/twmb/franz-go/pkg/kgo")
    with BrokerProcess(tmp_path / "data") as broker:
        settings = {"KGO_SEEDS": broker.bootstrap_servers, "KGO_TEST_RF": "1", "KGO_LOG_LEVEL": "error"}
        command = [str(GO / "kgo.test"), "-test.v", f"-test.timeout={SECONDS + 240}s", f"-test.skip={SKIPPED}"]
        result = subprocess.run(
            [*command, "-test.run=TestGroupETL|TestTxnEtl|TestClient_Produce|TestIssue"],
            cwd=package,
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS + 260,
            check=False,
        )
    failed = re.findall(r"^\s*--- FAIL: (\S+)", result.stdout, re.MULTILINE)
    assert result.returncode == 0, f"{failed}\n" + "\n".join(result.stdout.splitlines()[-100:])
