"""`ottla demo`: what it proves, and that what it says to try next works when it is typed as it stands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from ottla.testing.broker import BrokerProcess

SMALL = ("--clicks", "2000", "--payments", "1000")
BIN = Path(sys.executable).parent


def demo(*options: str, path: str | None = None) -> str:
    command = [sys.executable, "-c", "from ottla.cli.main import main; main()", "demo", *SMALL, *options]
    environment = os.environ | ({} if path is None else {"PATH": path})
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def next_steps(printed: str) -> list[str]:
    return [line.removeprefix("  ") for line in printed.partition("Try next:\n")[2].splitlines()]


def test_both_groups_are_proven_to_have_read_everything() -> None:
    summary = json.loads(demo("--json"))
    assert summary["written"] == 3000
    assert summary["groups"] == {
        group: {"records": 3000, "out_of_order": 0, "proven": True, "fault": None}
        for group in ("recommendations", "billing")
    }


def test_what_to_try_next_can_be_typed_as_it_stands(data_dir: Path) -> None:
    printed = demo(path="/usr/bin:/bin")
    assert len(re.findall(r"^proven .* 3,000 of 3,000 records read, each once", printed, re.MULTILINE)) == 2
    activate, serve, kcat, consume, *python = next_steps(printed)
    assert Path(activate.removeprefix(". ")).absolute() == BIN / "activate"
    assert serve.startswith("ottla serve --data-dir ./data  ")
    assert kcat.startswith("kcat -b localhost:9092 -t hello -P <<< 'hello'  ")
    assert consume.startswith("ottla consume hello --from-beginning  ")
    with BrokerProcess(data_dir) as broker:
        address = f"localhost:{broker.port}"
        script = "\n".join([activate, *python]).replace("localhost:9092", address)
        told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30, check=False)
        assert (told.returncode, told.stderr) == (0, "")
        assert "offset=0" in told.stdout
        words = f"{activate}\n{' '.join(consume.split()[:4])} -n 1 -b {address}"
        read = subprocess.run(["bash", "-c", words], capture_output=True, timeout=30, check=False)
        assert (read.returncode, read.stdout) == (0, b"from Python\n")


def test_a_shell_that_finds_the_command_is_not_told_how_to(data_dir: Path) -> None:
    printed = demo("--data-dir", str(data_dir), path=f"{BIN}:/usr/bin:/bin")
    assert next_steps(printed)[0].startswith("ottla serve")
