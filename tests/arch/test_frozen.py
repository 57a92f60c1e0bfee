"""What `frozen` makes is held unchanged by the type checker: a planted change is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ottla.common.frozen import frozen

ROOT = Path(__file__).parents[2]
PLANTED = """
from dataclasses import replace

from ottla.common.frozen import frozen


@frozen
class Pair:
    left: int = 0
    right: int = 0


pair = replace(Pair(left=1), right=2)
"""


def mypy(tmp_path: Path, text: str) -> tuple[int, str]:
    (tmp_path / "planted.py").write_text(text)
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "planted.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout


def test_a_planted_change_is_noticed(tmp_path: Path) -> None:
    assert mypy(tmp_path, PLANTED) == (0, "Success: no issues found in 1 source file\n")
    status, said = mypy(tmp_path, PLANTED + "pair.left = 3\n")
    assert status == 1
    assert 'Property "left" defined in "Pair" is read-only' in said


def test_no_positional_arguments(tmp_path: Path) -> None:
    assert "Too many positional arguments" in mypy(tmp_path, PLANTED + "Pair(1)\n")[1]


@frozen
class Point:
    x: int = 0
    y: int = 0


def test_equal_and_hashed_by_fields() -> None:
    assert Point(x=1, y=2) == replace(Point(x=1), y=2) != Point(x=2, y=1)
    assert len({Point(x=1), Point(x=1), Point(y=1)}) == 2
    with pytest.raises(AttributeError):
        Point().z = 3  # type: ignore[attr-defined]
