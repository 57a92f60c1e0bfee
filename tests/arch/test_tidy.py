"""Rules on source text that no formatter knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES_MAX = 600
LONGER: dict[str, int] = {}
"""Files above the cap and the length each may have: entries may shrink and go, not grow and come."""

SOURCES = sorted(
    path
    for folder in ("python", "rust", "tests", "bench", "examples")
    for suffix in ("py", "pyi", "rs", "go", "js", "java", "sh")
    for path in (ROOT / folder).rglob(f"*.{suffix}")
    if not {"node_modules", "target"} & set(path.parts)
)


def is_generated(text: str) -> bool:
    return "do not edit" in text[:400]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_files_are_cut_by_noun() -> None:
    lengths = {name(path): len(text.splitlines()) for path in SOURCES if not is_generated(text := path.read_text())}
    too_long = {file: lines for file, lines in lengths.items() if lines > LONGER.get(file, LINES_MAX)}
    assert not too_long, f"longer than {LINES_MAX} lines; cut by noun: {too_long}"
    settled = {file for file in LONGER if lengths.get(file, 0) <= LINES_MAX}
    assert not settled, f"short enough now; take them off the list: {settled}"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b", "do it or leave it, and say why in a sentence"),
        (r"except[^:\n]*:\s*(#[^\n]*)?\n\s*pass\b", "an error is handled or goes on; contextlib.suppress names it"),
    ],
)
def test_no(pattern: str, reason: str) -> None:
    found = [
        f"{name(path)}:{text.count(chr(10), 0, match.start()) + 1}"
        for path in SOURCES
        for text in [path.read_text()]
        for match in re.finditer(pattern, text)
    ]
    assert not found, f"{reason}: {found}"
