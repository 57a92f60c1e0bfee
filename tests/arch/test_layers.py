"""The import contracts of pyproject.toml hold, and a violation is noticed."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "ottla"
NATIVE_USERS = {"broker", "client", "offline", "testing"}
"""Subpackages that may import `ottla._native`."""


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", lint, "--config", str(ROOT / "pyproject.toml"), "--no-cache"],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copied_tree(tmp_path: Path) -> Path:
    shutil.copytree(PACKAGE, tmp_path / "ottla", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tmp_path


def test_contracts_hold(copied_tree: Path) -> None:
    result = lint_imports(copied_tree)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("errors.py", "from ottla.protocol import codec", "ottla.errors"),
        ("common/planted.py", "import ottla.protocol.versions", "ottla.common"),
        ("protocol/planted.py", "import time", "time"),
        ("protocol/planted.py", "import trio", "trio"),
    ],
)
def test_planted_violation_is_noticed(copied_tree: Path, module: str, source: str, complaint: str) -> None:
    with (copied_tree / "ottla" / module).open("a") as file:
        file.write(f"\n{source}\n")
    result = lint_imports(copied_tree)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout
    assert complaint in result.stdout


def native_importers() -> set[str]:
    """Top-level parts of the package that import `ottla._native` (an extension: import-linter cannot see it)."""
    users = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            if any(name == "ottla._native" or name.startswith("ottla._native.") for name in names):
                users.add(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    return users


def test_native_module_is_used_by_few() -> None:
    assert native_importers() <= NATIVE_USERS
