"""Which partitions the log directories hold when the broker starts, and of which topics.

A name does not tell where there are several directories: a topic may have been deleted, and made again, while one of
them was away.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ottla._native import LogDirInfo

PARTITION_METADATA: Final = "partition.metadata"


class HeldPartitions:
    """What was found. An id that is not known is None, and could be any."""

    def __init__(self, held: Mapping[tuple[str, int], Mapping[str, bytes | None]]) -> None:
        """Args: held: By (topic, partition), and path of the log directory, the id of the topic."""
        self._held = held

    @classmethod
    def look(cls, log_dirs: Sequence[LogDirInfo]) -> HeldPartitions:
        """Read the topics' ids where there are several directories. SLOW."""
        held: dict[tuple[str, int], dict[str, bytes | None]] = {}
        for log_dir in log_dirs:
            path = log_dir["path"]
            for at in log_dir["partitions"]:
                held.setdefault(at, {})[path] = _stored_topic_id(path, *at) if len(log_dirs) > 1 else None
        return cls(held)

    def holds(self, topic: str, partition: int, topic_id: bytes) -> bool:
        """Whether there is that partition of that topic, as far as is known."""
        return any(found in (topic_id, None) for found in self._held.get((topic, partition), {}).values())

    def is_of(self, topic_id: bytes, log_dir: str, topic: str, partition: int) -> bool:
        """Whether what a log directory held under that name belongs to that topic, as far as is known."""
        return self._held[topic, partition][log_dir] in (topic_id, None)


def _stored_topic_id(log_dir: str, topic: str, partition: int) -> bytes | None:
    """The id of a partition's topic as its directory has it; None if that does not say, or cannot be read. SLOW."""
    with contextlib.suppress(OSError, ValueError):
        for line in (Path(log_dir) / f"{topic}-{partition}" / PARTITION_METADATA).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "topic_id":
                found = base64.urlsafe_b64decode(value.strip() + "==")
                return found if len(found) == 16 else None
    return None
