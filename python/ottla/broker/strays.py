"""Partition directories that the metadata does not know: left by a topic whose deletion a crash interrupted, or which
was deleted while their disk was away.

They would stand in the way of a new topic of their name. As in Kafka they are set aside under another name, with their
records, not deleted: a disk may also have been put into the wrong machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ottla.broker.data_dirs import InvalidDataDirectory
from ottla.broker.event_log import EventLog
from ottla.broker.held_partitions import HeldPartitions
from ottla.common.topics import METADATA_TOPIC
from ottla.metadata.image import TopicImage

if TYPE_CHECKING:
    from ottla._native import DataPlane

log = EventLog("logs")

Find = Callable[[str], TopicImage | None]


def set_strays_aside(plane: DataPlane, find: Find, held: HeldPartitions) -> None:
    """Rename what is no partition of a topic that `find` finds. SLOW; before anything is served.

    Raises: OSError; InvalidDataDirectory (a partition is in two directories).
    """
    holders: dict[tuple[str, int], str] = {}
    for log_dir, info in enumerate(plane.log_dirs()):
        for name, index in info["partitions"]:
            if name == METADATA_TOPIC:
                continue  # the quorum's own log, which the metadata does not name
            topic = find(name)
            path = info["path"]
            if (
                topic is None
                or index not in topic.partitions
                or not held.is_of(topic.topic_id.bytes, path, name, index)
            ):
                _set_aside(plane, log_dir, name, index)
            elif other := holders.get((name, index)):
                said = f"{name}-{index} is in two log directories, {other} and {path}: take one away"
                raise InvalidDataDirectory(said)
            else:
                holders[name, index] = path


def make_way(plane: DataPlane, topic: str, partition: int) -> None:
    """Rename the directory of an earlier topic of this name. SLOW. Raises: OSError."""
    for log_dir, info in enumerate(plane.log_dirs()):
        if (topic, partition) in info["partitions"]:
            _set_aside(plane, log_dir, topic, partition)


def _set_aside(plane: DataPlane, log_dir: int, topic: str, partition: int) -> None:
    path = plane.set_partition_aside(log_dir, topic, partition)
    log.warning("stray_partition_set_aside", topic=topic, partition=partition, directory=str(path))
