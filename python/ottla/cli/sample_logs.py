"""The click log and the payment log of the demonstration: the same lines for the same seed, everywhere.

Every line is a JSON object with the user it belongs to (the record key) and `sequence`, that user's own count from 0
within the log, so that a reader can tell a lost, doubled or reordered record of one key.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

CLICK_COUNT = 240_000
PAYMENT_COUNT = 80_000
SEED = 20_260_101
_USER_COUNT = 5_000
_START_MS = 1_767_225_600_000  # 2026-01-01 00:00 UTC
_REFERRERS = ("search", "mail", "direct", "partner", "newsletter")
_METHODS = ("card", "transfer", "invoice", "wallet")
_CURRENCIES = ("EUR", "SEK", "USD", "GBP")


def click_lines(*, count: int = CLICK_COUNT, seed: int = SEED) -> Iterator[tuple[str, str]]:
    """Yield (user, JSON line without newline) of a shop's click log, in the order of time."""
    chance = Random(seed).random
    at_ms = _START_MS
    sequences = [0] * _USER_COUNT
    for _ in range(count):
        number = int(_USER_COUNT * chance() ** 2)  # few users click much, many click little
        sequence = sequences[number]
        sequences[number] = sequence + 1
        at_ms += int(250 * chance())
        user = f"user-{number:04d}"
        referrer = _REFERRERS[int(len(_REFERRERS) * chance())]
        yield (
            user,
            (
                f'{{"user": "{user}", "sequence": {sequence}, "at_ms": {at_ms}, '
                f'"path": "/products/{int(900 * chance())}", "referrer": "{referrer}"}}'
            ),
        )


def payment_lines(*, count: int = PAYMENT_COUNT, seed: int = SEED + 1) -> Iterator[tuple[str, str]]:
    """Yield (user, JSON line without newline) of the same shop's payment log, in the order of time."""
    chance = Random(seed).random
    at_ms = _START_MS
    sequences = [0] * _USER_COUNT
    for _ in range(count):
        number = int(_USER_COUNT * chance() ** 2)
        sequence = sequences[number]
        sequences[number] = sequence + 1
        at_ms += int(750 * chance())
        user = f"user-{number:04d}"
        cents = 199 + int(50_000 * chance() ** 3)
        currency = _CURRENCIES[int(len(_CURRENCIES) * chance() ** 2)]
        yield (
            user,
            (
                f'{{"user": "{user}", "sequence": {sequence}, "at_ms": {at_ms}, '
                f'"amount": "{cents // 100}.{cents % 100:02d}", '
                f'"currency": "{currency}", "method": "{_METHODS[int(len(_METHODS) * chance())]}"}}'
            ),
        )


def write_sample_logs(
    directory: Path, *, clicks: int = CLICK_COUNT, payments: int = PAYMENT_COUNT
) -> tuple[Path, Path]:
    """Write `clicks.jsonl` and `payments.jsonl` into `directory` unless they are there; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = (directory / "clicks.jsonl", directory / "payments.jsonl")
    for path, lines in zip(paths, (click_lines(count=clicks), payment_lines(count=payments)), strict=True):
        if not path.exists():
            partial = path.with_suffix(".partial")
            with partial.open("w") as file:
                file.writelines(line + "\n" for _, line in lines)
            partial.rename(path)
    return paths
