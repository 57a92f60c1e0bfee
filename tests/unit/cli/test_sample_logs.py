from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

from ottla.cli.sample_logs import click_lines, payment_lines, write_sample_logs


def test_lines_are_the_same_everywhere() -> None:
    lines = [line for source in (click_lines(count=1000), payment_lines(count=1000)) for _, line in source]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert digest == "b0021228cbfa3e038e6b433c351b5a7845df161fb50a8fbdbff88b8737e844b0"


def test_every_user_counts_from_zero() -> None:
    seen: Counter[str] = Counter()
    for user, line in click_lines(count=5000):
        event = json.loads(line)
        assert (event["user"], event["sequence"]) == (user, seen[user])
        seen[user] += 1


def test_existing_files_stay(tmp_path: Path) -> None:
    (tmp_path / "clicks.jsonl").write_text("mine\n")
    clicks, payments = write_sample_logs(tmp_path, clicks=10, payments=20)
    assert clicks.read_text() == "mine\n"
    assert len(payments.read_text().splitlines()) == 20
