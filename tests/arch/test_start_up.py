"""What importing the broker may not drag in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "python" / "ottla"
ENTRY_POINTS = [name for name in ("broker/__main__.py", "cli/main.py") if (PACKAGE / name).exists()]


@pytest.mark.parametrize("entry_point", ["protocol/codec.py", *ENTRY_POINTS])
def test_no_schema_is_imported_before_it_is_needed(entry_point: str) -> None:
    """All requests and responses of kio at once cost 0.7 s and 30 MiB; each is to be imported on first use."""
    module = "ottla." + entry_point.removesuffix(".py").replace("/", ".")
    code = f"import sys, {module}; print(*[m for m in sys.modules if m.startswith('kio.schema.')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in found if name.split(".")[-1] in {"request", "response"}] == []
