"""A directory of which every use fails, whoever asks, as with a disk that is dead."""

from __future__ import annotations

from pathlib import Path


def take_away(disk: Path) -> None:
    """As when it is not mounted; nothing is in its place."""
    disk.rename(disk.with_suffix(".away"))


def give_back(disk: Path) -> None:
    disk.with_suffix(".away").rename(disk)


def break_disk(disk: Path) -> None:
    take_away(disk)
    disk.symlink_to(disk)


def mend_disk(disk: Path) -> None:
    disk.unlink()
    give_back(disk)
