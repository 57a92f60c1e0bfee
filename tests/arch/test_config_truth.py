"""A key that the documentation calls effective is read somewhere, and one that it calls ineffective nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ottla.common.config import BROKER_KEYS, TOPIC_KEYS

ROOT: Final = Path(__file__).parents[2]
TABLES: Final = ROOT / "python" / "ottla" / "common" / "config"
SOURCES: Final = "\n".join(
    path.read_text()
    for folder, pattern in (("python/ottla", "*.py"), ("rust", "*.rs"))
    for path in (ROOT / folder).rglob(pattern)
    if not path.is_relative_to(TABLES) and "target" not in path.parts
)
STAND_INS: Final = {name for key in TOPIC_KEYS.values() if key.honoured for name, _ in key.synonyms}
"""Broker keys that are read through the topic key that they stand in for."""


def is_read(name: str) -> bool:
    return f'"{name}"' in SOURCES


def test_keys_that_are_said_to_have_an_effect_are_read() -> None:
    names = [name for name, key in BROKER_KEYS.items() if key.honoured and name not in STAND_INS]
    idle = [name for name in names if not is_read(name)]
    assert not idle, f"nobody reads these: say so in the tables (`unused` instead of `key`): {idle}"


def test_keys_that_are_said_to_have_no_effect_are_not_read() -> None:
    read = [name for name, key in BROKER_KEYS.items() if not key.honoured and is_read(name)]
    assert not read, f"somebody reads these: say so in the tables (`key` instead of `unused`): {read}"
