"""What importing the broker may not drag in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "python" / "ottla"
ENTRY_POINTS = [name for name in ("broker/__main__.py", "cli/entry.py", "cli/main.py") if (PACKAGE / name).exists()]


@pytest.mark.parametrize("entry_point", ["protocol/codec.py", *ENTRY_POINTS])
def test_kio_is_not_imported(entry_point: str) -> None:
    """kio is where our messages are generated from; importing it costs more than all else that a broker imports."""
    module = "ottla." + entry_point.removesuffix(".py").replace("/", ".")
    code = f"import sys, {module}; print(*[m for m in sys.modules if m.split('.')[0] == 'kio'])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found == []


def test_a_broker_starts_without_the_libraries_that_explain_a_command_line() -> None:
    """They take a third of what a start takes; nor are groups imported before there are any."""
    heavy = ("typer", "rich", "pydantic", "ottla.coordinator.group.machine")
    code = (
        "import sys, ottla.cli.entry, ottla.broker.foreground; from ottla.broker.command_line import parse; "
        f"parse(['--port', '0']); print(*[m for m in {heavy} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found == []
