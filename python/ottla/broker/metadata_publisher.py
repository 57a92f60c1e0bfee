"""The one place where committed metadata becomes the state of this broker's partitions.

Committed records come in by plain calls in the order of the log and are replayed into a delta. A task takes the delta
that has gathered, makes the next image of it and applies what changed: partitions are opened, led, configured and
deleted in the data plane. Requests see the new image only when its partitions are being served, and see deleted
topics gone before their files are. Opening and deleting touch the disk, so they run in worker threads and a stalled
disk holds up metadata, never the event loop.

Nothing else changes leadership in the data plane.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

import trio

from ottla.broker.clock import now_ms, wall_ms
from ottla.broker.event_log import EventLog
from ottla.broker.strays import make_way
from ottla.common.config import BrokerConfig, LogConfig, ResourceType
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.image import EMPTY_IMAGE, MetadataImage, TopicImage
from ottla.metadata.records import MetadataRecord

if TYPE_CHECKING:
    from ottla._native import DataPlane

log = EventLog("metadata")

RETRY_S: Final = 10.0
"""Between attempts to open partitions that could not be opened."""
WORKERS: Final = 4
"""Threads that open partitions: after a crash each reads what it must recover."""
PARTITIONS_PER_CALL: Final = 64
"""Partitions that one thread opens before it looks for more work: a thread's start costs as much as a few of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What one publication changed, for who follows the metadata (coordinators, limits)."""

    image: MetadataImage
    delta: MetadataDelta
    config: BrokerConfig
    """This broker's configuration under the image's dynamic settings."""
    is_retry: bool = False
    """Nothing changed but that partitions which could not be opened before now are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opening:
    topic: str
    partition: int
    topic_id: bytes
    leader_epoch: int
    config: dict[str, str]


class MetadataPublisher:
    """Holds the image that requests are answered from, and brings the data plane in line with it."""

    def __init__(
        self,
        plane: DataPlane,
        *,
        node_id: int,
        config: BrokerConfig,
        held: Collection[tuple[str, int]] = (),
    ) -> None:
        """
        Args:
            config: What the broker was started with; dynamic settings come with the metadata.
            held: (topic, partition) that the log directories held at the start.
        """
        self.image: MetadataImage = EMPTY_IMAGE
        self.config = config
        self._plane = plane
        self._node_id = node_id
        self._held = frozenset(held)
        self._delta = MetadataDelta(EMPTY_IMAGE)
        self._offset = -1
        self._epoch = -1
        self._gathered = trio.Event()
        self._published_offset = -1
        self._unopened: list[_Opening] = []
        self._unavailable: dict[tuple[str, int], bytes] = {}
        """Topic ids of what is unopened, as the data plane knows it."""
        self._waiters: list[tuple[int, int, trio.Event]] = []
        self._waiter_count = 0
        self._followers: list[Callable[[Published], None]] = []

    def follow(self, follower: Callable[[Published], None]) -> None:
        """Have `follower` called after each publication, on the event loop; it must not block or fail."""
        self._followers.append(follower)

    def on_committed(self, records: Iterable[MetadataRecord], *, last_offset: int, epoch: int) -> None:
        """Take in committed records that end at `last_offset`. Raises: InconsistentMetadata."""
        self._delta.replay_all(records)
        self._offset, self._epoch = last_offset, epoch
        self._gathered.set()

    def topic(self, name: str) -> TopicImage | None:
        """A topic of the metadata as far as it is known, published or not."""
        return self._delta.topic(name)

    async def wait_published(self, offset: int) -> None:
        """Return when everything up to and including `offset` is applied here."""
        if self._published_offset >= offset:
            return
        event = trio.Event()
        self._waiter_count += 1
        heapq.heappush(self._waiters, (offset, self._waiter_count, event))
        await event.wait()

    async def run(self) -> None:
        """Publish what is committed, until cancelled."""
        while True:
            with trio.move_on_after(RETRY_S if self._unopened else math.inf):
                await self._gathered.wait()
            if not self._gathered.is_set():
                await self._retry()
                continue
            self._gathered = trio.Event()
            if self._delta.is_in_transaction:
                continue
            delta = self._delta
            image = delta.image(offset=self._offset, epoch=self._epoch)
            self._delta = MetadataDelta(image)
            await self._publish(image, delta)

    async def _retry(self) -> None:
        """Try once more to open what could not be opened: the disk may have been full."""
        unopened, self._unopened = self._unopened, []
        wanted = [o for o in unopened if self._is_wanted(o)]
        await self._open(wanted)
        self._tell_unavailable()
        if len(self._unopened) < len(wanted):
            log.info("partitions_opened_late", count=len(wanted) - len(self._unopened))
            nothing = MetadataDelta(self.image)
            for follower in self._followers:
                follower(Published(image=self.image, delta=nothing, config=self.config, is_retry=True))

    def _is_wanted(self, opening: _Opening) -> bool:
        topic = self.image.topic(opening.topic)
        registration = None if topic is None else topic.partitions.get(opening.partition)
        return (
            topic is not None
            and topic.topic_id.bytes == opening.topic_id
            and registration is not None
            and registration.leader == self._node_id
            and registration.leader_epoch == opening.leader_epoch
            and self._plane.partition(opening.topic, opening.partition) is None
        )

    async def _publish(self, image: MetadataImage, delta: MetadataDelta) -> None:
        config = self._config_of(image)
        reconfigured = self._reconfigured(image, delta, changed=config != self.config)
        self.config = config
        removed = list(delta.removed_topics.values())
        # A name that is taken again cannot be served before the old topic is out of its way.
        await self._delete([topic for topic in removed if topic.name in image.topic_ids])
        await self._open(list(self._to_open(image, delta)))
        for topic in reconfigured:
            self._configure(image, topic)
        self.image = image
        published = Published(image=image, delta=delta, config=config)
        for follower in self._followers:
            follower(published)
        await self._delete([topic for topic in removed if topic.name not in image.topic_ids])
        self._tell_unavailable()
        # Whoever waited may now rely on what it asked for: new partitions serve, deleted ones do not.
        self._published_offset = image.offset
        while self._waiters and self._waiters[0][0] <= image.offset:
            heapq.heappop(self._waiters)[2].set()

    @property
    def broker_config(self) -> BrokerConfig:
        """This broker's configuration with the dynamic settings of the image that is being served."""
        return self._config_of(self.image)

    def _config_of(self, image: MetadataImage) -> BrokerConfig:
        return self.config.with_dynamic(
            default=image.config(ResourceType.BROKER, ""), broker=image.config(ResourceType.BROKER, str(self._node_id))
        )

    def _reconfigured(self, image: MetadataImage, delta: MetadataDelta, *, changed: bool) -> list[TopicImage]:
        """Topics whose logs have other settings than before: all of them, if the broker's own changed."""
        if changed:
            return list(image.topics.values())
        names = (resource.name for resource in delta.changed_configs if resource.type == ResourceType.TOPIC)
        return [topic for name in names if (topic := image.topic(name)) is not None]

    def _log_config(self, image: MetadataImage, topic: str) -> dict[str, str]:
        return LogConfig.resolve(image.config(ResourceType.TOPIC, topic), self.config).texts()

    def _to_open(self, image: MetadataImage, delta: MetadataDelta) -> Iterator[_Opening]:
        """Lead the open partitions whose leadership changed; yield the ones that must be opened first."""
        for topic_id, indexes in delta.changed_partitions.items():
            topic = image.topics[topic_id]
            config: dict[str, str] | None = None
            for index in sorted(indexes):
                registration = topic.partitions[index]
                if registration.leader != self._node_id:
                    continue
                partition = self._plane.partition(topic.name, index)
                if partition is not None and partition.topic_id == topic_id.bytes:
                    if partition.offsets().leader_epoch != registration.leader_epoch:
                        self._plane.set_leadership(topic.name, index, registration.leader_epoch, now_ms(), wall_ms())
                    continue
                config = self._log_config(image, topic.name) if config is None else config
                yield _Opening(
                    topic=topic.name,
                    partition=index,
                    topic_id=topic_id.bytes,
                    leader_epoch=registration.leader_epoch,
                    config=config,
                )

    def missing_error(self, topic: str, partition: int) -> ErrorCode:
        """What to answer for a partition that the data plane does not serve."""
        if (topic, partition) in self._unavailable:
            return ErrorCode.KAFKA_STORAGE_ERROR
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def _tell_unavailable(self) -> None:
        """Have requests for what could not be opened answered as such, until it is opened or not wanted any more."""
        self._unopened = [o for o in self._unopened if self._is_wanted(o)]
        unavailable = {(o.topic, o.partition): o.topic_id for o in self._unopened}
        if unavailable != self._unavailable:
            self._unavailable = unavailable
            self._plane.set_unavailable([(*at, topic_id) for at, topic_id in unavailable.items()])

    async def _open(self, openings: Sequence[_Opening]) -> None:
        if not openings:
            return
        rest = iter(openings)

        async def worker() -> None:
            while chunk := list(islice(rest, PARTITIONS_PER_CALL)):
                await trio.to_thread.run_sync(self._open_chunk, chunk)

        async with trio.open_nursery() as nursery:
            for _ in range(min(WORKERS, len(openings) // PARTITIONS_PER_CALL + 1)):
                nursery.start_soon(worker)

    def _open_chunk(self, openings: Iterable[_Opening]) -> None:
        """Open partitions. In a worker thread. One that cannot be opened stays away; the others are served."""
        for opening in openings:
            try:
                self._open_one(opening)
                # Every start raises the epoch: above 0 it was led before, and whatever it held was in a directory.
                if opening.leader_epoch > 0 and (opening.topic, opening.partition) not in self._held:
                    log.error(
                        "partition_made_anew",
                        topic=opening.topic,
                        partition=opening.partition,
                        reason="no log directory held it: if it had records, they are gone",
                    )
            except (KafkaError, OSError) as error:
                self._unopened.append(opening)
                log.error("partition_not_opened", topic=opening.topic, partition=opening.partition, reason=str(error))

    def _open_one(self, opening: _Opening) -> None:
        create = partial(
            self._plane.create_partition,
            opening.topic,
            opening.partition,
            topic_id=opening.topic_id,
            config=opening.config,
            leader_epoch=opening.leader_epoch,
            wall_ms=wall_ms(),
        )
        try:
            create()
        except KafkaError as error:
            if error.code is not ErrorCode.INCONSISTENT_TOPIC_ID:
                raise
            make_way(self._plane, opening.topic, opening.partition)
            create()

    def _configure(self, image: MetadataImage, topic: TopicImage) -> None:
        config = self._log_config(image, topic.name)
        for index in topic.partitions:
            if self._plane.partition(topic.name, index) is not None:
                self._plane.update_config(topic.name, index, config)

    async def _delete(self, topics: Iterable[TopicImage]) -> None:
        doomed = [
            (topic.name, index)
            for topic in topics
            for index in topic.partitions
            if (partition := self._plane.partition(topic.name, index)) is not None
            and partition.topic_id == topic.topic_id.bytes
        ]
        if doomed:
            await trio.to_thread.run_sync(self._delete_all, doomed)

    def _delete_all(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Delete partitions. In a worker thread."""
        for topic, index in partitions:
            try:
                self._plane.delete_partition(topic, index, now_ms(), wall_ms())
            except (KafkaError, OSError) as error:
                log.error("partition_not_deleted", topic=topic, partition=index, reason=str(error))
