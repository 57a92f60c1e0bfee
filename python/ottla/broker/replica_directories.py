"""In which log directories this broker's replicas are, and which of them are out of reach (KIP-858).

The metadata names a directory for each replica. A broker with one directory is given it; where there are several the
broker chooses, and says so afterwards. So a start knows what lies on a disk that is dead, not mounted or gone: such
partitions are not made anew, empty, in a directory that works.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

import trio

from ottla.broker.data_dirs import DataDirs
from ottla.broker.event_log import EventLog
from ottla.broker.held_partitions import HeldPartitions
from ottla.controller.directory_control import Replica
from ottla.errors import KafkaError
from ottla.metadata.image import MetadataImage, PartitionRegistration, TopicImage
from ottla.metadata.records import DIRECTORY_MIGRATING, DIRECTORY_UNASSIGNED

if TYPE_CHECKING:
    from ottla._native import DataPlane
    from ottla.broker.metadata_publisher import Published

log = EventLog("directories")

_NOT_TOLD: Final = frozenset({DIRECTORY_UNASSIGNED, DIRECTORY_MIGRATING})
ASSIGNMENTS_MAX: Final = 2000
"""Replicas in one request to the controller."""
RETRY_S: Final = 0.5


class OfflineReplicas:
    """The partitions that are in no directory which is online, though they must be somewhere."""

    def __init__(self, node_id: int, dirs: DataDirs, held: HeldPartitions) -> None:
        """Args: held: What the directories which are online held at the start."""
        self._node_id = node_id
        self._online = frozenset(dirs.directory_ids.values())
        self._is_any_offline = bool(dirs.offline)
        self._held = held
        self._uncertain: dict[tuple[str, int], bytes] = {}
        self._found: dict[tuple[str, int], bytes] = {}
        self._news: list[str] = []

    def on_start(self, image: MetadataImage) -> None:
        """Take in what the metadata has when the broker starts, before it registers.

        What is in it and was never assigned may be in a directory that is away: it may have been made there just before
        the end of the last run. It stays so, however often its leadership changes. Of the next starts the controller
        takes care (`DirectoryControl.on_broker_registered`).
        """
        registered = image.brokers.get(self._node_id)
        had = () if registered is None else registered.log_dirs
        if self._is_any_offline or not self._online.issuperset(had):
            self._uncertain = {
                (topic.name, index): topic.topic_id.bytes
                for topic in image.topics.values()
                for index, partition in topic.partitions.items()
                if self._node_id in partition.replicas and partition.directory_of(self._node_id) in _NOT_TOLD
            }

    def is_offline(self, topic: TopicImage, index: int) -> bool:
        """Whether a partition that this broker leads must not be made here; it is remembered then."""
        at, topic_id = (topic.name, index), topic.topic_id.bytes
        directory = topic.partitions[index].directory_of(self._node_id)
        if directory in self._online or self._held.holds(*at, topic_id):
            return False
        if directory in _NOT_TOLD and self._uncertain.get(at) != topic_id:
            return False
        if self._found.get(at) != topic_id:
            self._found[at] = topic_id
            self._news.append(f"{topic.name}-{index}")
        return True

    def take_news(self) -> list[str]:
        """What was found since the last call."""
        news, self._news = self._news, []
        return news

    def left(self, image: MetadataImage) -> Mapping[tuple[str, int], bytes]:
        """Topic ids of those that the metadata still has."""
        for (name, index), topic_id in list(self._found.items()):
            topic = image.topic(name)
            if topic is None or topic.topic_id.bytes != topic_id:
                del self._found[name, index]
        return self._found


class DirectoryAssignments:
    """Tells the controller where replicas are."""

    def __init__(
        self,
        plane: DataPlane,
        assign: Callable[[Mapping[Replica, uuid.UUID]], Awaitable[None]],
        *,
        node_id: int,
        directory_ids: Mapping[str, uuid.UUID],
    ) -> None:
        """Args:
        assign: Gets directories by replica, `ASSIGNMENTS_MAX` at most. Raises: KafkaError.
        directory_ids: In the order of the data plane's directories.
        """
        self._plane = plane
        self._assign = assign
        self._node_id = node_id
        self._directory_ids = tuple(directory_ids.values())
        self._pending: dict[Replica, uuid.UUID] = {}
        self._woken = trio.Event()

    def on_published(self, published: Published) -> None:
        image = published.image
        changed: Mapping[uuid.UUID, Collection[int]] = published.delta.changed_partitions
        if published.is_retry:
            changed = {topic.topic_id: topic.partitions.keys() for topic in image.topics.values()}
        for topic_id, indexes in changed.items():
            topic = image.topics[topic_id]
            for index in indexes:
                directory = self._moved_to(topic, index, topic.partitions[index])
                if directory is not None:
                    self._pending[topic_id, index] = directory
        if self._pending:
            self._woken.set()

    def _moved_to(self, topic: TopicImage, index: int, registration: PartitionRegistration) -> uuid.UUID | None:
        """Where a partition is, unless the metadata knows."""
        if self._node_id not in registration.replicas:
            return None
        known = registration.directory_of(self._node_id)
        if self._directory_ids == (known,):
            return None
        partition = self._plane.partition(topic.name, index)
        if partition is None or partition.topic_id != topic.topic_id.bytes:
            return None
        directory = self._directory_ids[partition.log_dir]
        return None if directory == known else directory

    async def run(self) -> None:
        """Tell of what comes until cancelled."""
        while True:
            await self._woken.wait()
            self._woken = trio.Event()
            while batch := dict(islice(self._pending.items(), ASSIGNMENTS_MAX)):
                try:
                    await self._assign(batch)
                except KafkaError as error:
                    log.info("assignments_put_off", count=len(self._pending), reason=str(error))
                    await trio.sleep(RETRY_S)
                else:
                    self._pending = {at: to for at, to in self._pending.items() if batch.get(at) != to}
