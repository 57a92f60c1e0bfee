"""The one place where committed metadata becomes the state of this broker's partitions.

Committed records come in by plain calls in the order of the log and are replayed into a delta. A task takes the delta
that has gathered, makes the next image of it and applies what changed: partitions are opened, led, configured and
deleted in the data plane. Requests see the new image only when its partitions are being served, and see deleted
topics gone before their files are. Opening and deleting touch the disk, so they run in worker threads. Where a disk
stalls, the metadata goes on without its partitions: until they are served, requests for them are told to try again, and
whoever made or deleted them waits. What became of them is taken in between two publications, as all else.

Nothing else changes leadership in the data plane.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import trio

from ottla.broker.clock import now_ms, wall_ms
from ottla.broker.event_log import EventLog
from ottla.broker.held_partitions import HeldPartitions
from ottla.broker.replica_directories import OfflineReplicas
from ottla.broker.strays import make_way
from ottla.broker.worker import in_thread
from ottla.common.config import BrokerConfig, LogConfig, ResourceType
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.image import EMPTY_IMAGE, MetadataImage, TopicImage
from ottla.metadata.records import MetadataRecord

if TYPE_CHECKING:
    from ottla._native import DataPlane

log = EventLog("metadata")

PRODUCER_KEYS: Final = ("producer.id.expiration.ms", "producer.id.expiration.check.interval.ms")
"""Of the broker, and used by each log."""
PATIENCE_S: Final = 2.0
"""For disks that stall."""
RETRY_S: Final = 10.0
"""Between attempts to open partitions that could not be opened."""
WORKERS: Final = 4
"""Threads that open the partitions of one publication: after a crash each reads what it must recover."""
THREADS_MAX: Final = 32
"""Threads for all publications: those that wait for a stalled disk take none from other users."""
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


@dataclass(slots=True, eq=False, kw_only=True)
class _Work:
    """What one publication has to do on disks: delete partitions, then open others."""

    doomed: Sequence[tuple[str, int]] = ()
    openings: Sequence[_Opening] = ()
    steps: int = 0
    """Partitions dealt with so far: a disk on which this grows is slow, and does not stall."""
    failed: list[_Opening] = field(default_factory=list)
    done: trio.Event = field(default_factory=trio.Event)
    settled: trio.Event = field(default_factory=trio.Event)
    """What became of it is taken in."""
    settles: list[_Work] = field(default_factory=list)
    """Late work of which this is the rest."""


class MetadataPublisher:
    """Holds the image that requests are answered from, and brings the data plane in line with it."""

    def __init__(
        self,
        plane: DataPlane,
        *,
        node_id: int,
        config: BrokerConfig,
        held: HeldPartitions | None = None,
        offline: OfflineReplicas | None = None,
        was_clean: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """
        Args:
            config: What the broker was started with; dynamic settings come with the metadata.
            held: What the log directories held at the start; None: nothing.
            offline: Knows what is in log directories that are not online.
            was_clean: The last stop was, so that they held all that was ever made.
            patience_s: How long the metadata waits for a disk that opens or deletes no partition at all meanwhile.
        """
        self.image: MetadataImage = EMPTY_IMAGE
        self.config = config
        self.out_of_reach: Mapping[tuple[str, int], bytes] = {}
        """Topic ids of the partitions that are in log directories which are not online: nobody leads them meanwhile."""
        self._plane = plane
        self._node_id = node_id
        self._held = held or HeldPartitions({})
        self._offline = offline
        self._was_clean = was_clean
        self._patience_s = patience_s
        self._delta = MetadataDelta(EMPTY_IMAGE)
        self._offset = -1
        self._epoch = -1
        self._has_gathered = False
        self._woken = trio.Event()
        self._is_started = False
        self._nursery: trio.Nursery | None = None
        self._threads = trio.CapacityLimiter(THREADS_MAX)
        self._busy: dict[tuple[str, int], _Work] = {}
        """By partition: nobody else may touch its directory meanwhile."""
        self._late: list[_Work] = []
        """The metadata went on without them."""
        self._held_up: list[tuple[int, int, Sequence[_Work]]] = []
        """First and last offset of publications, and what of them is late."""
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
        self._has_gathered = True
        self._woken.set()

    def topic(self, name: str) -> TopicImage | None:
        """A topic of the metadata as far as it is known, published or not."""
        return self._delta.topic(name)

    async def wait_published(self, offset: int) -> None:
        """Return when everything up to and including `offset` is applied here, and what the change at that offset asked
        of disks is done.
        """
        if self._published_offset < offset:
            event = trio.Event()
            self._waiter_count += 1
            heapq.heappush(self._waiters, (offset, self._waiter_count, event))
            await event.wait()
        for first, last, late in list(self._held_up):
            if first <= offset <= last:
                for work in late:
                    await work.settled.wait()

    async def run(self) -> None:
        """Publish what is committed, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            while True:
                with trio.move_on_after(RETRY_S if self._unopened else math.inf):
                    await self._woken.wait()
                is_woken = self._woken.is_set()
                self._woken = trio.Event()
                settled = await self._take_in_late()
                if settled or not is_woken:
                    await self._retry()
                for work in settled:
                    work.settled.set()
                if self._has_gathered and not self._delta.is_in_transaction:
                    self._has_gathered = False
                    delta = self._delta
                    image = delta.image(offset=self._offset, epoch=self._epoch)
                    self._delta = MetadataDelta(image)
                    await self._publish(image, delta)

    async def _retry(self) -> None:
        """Try once more to open what could not be opened: the disk may have been full, or the partition under way."""
        unopened, self._unopened = self._unopened, []
        wanted = [o for o in unopened if self._is_wanted(o)]
        self._unopened = [o for o in wanted if self._is_in_the_way(o)]
        await self._carry_out(_Work(openings=[o for o in wanted if not self._is_in_the_way(o)]))
        self._tell_unavailable()
        self._tell_of_late([o for o in wanted if self._is_served(o)])

    def _tell_of_late(self, opened: Sequence[_Opening]) -> None:
        if opened:
            log.info("partitions_opened_late", count=len(opened))
            nothing = MetadataDelta(self.image)
            for follower in self._followers:
                follower(Published(image=self.image, delta=nothing, config=self.config, is_retry=True))

    async def _carry_out(self, work: _Work) -> bool:
        """Have it done; False if a disk stalls, so that it will be taken in later."""
        # What the log directories hold at the start may take its time: nobody is served before it is recovered.
        patience_s = self._patience_s if self._is_started else math.inf
        if not work.doomed and not work.openings:
            return True
        assert self._nursery is not None
        for partition in (*work.doomed, *((o.topic, o.partition) for o in work.openings)):
            self._busy[partition] = work
        self._nursery.start_soon(self._do, work)
        steps = -1
        while not work.done.is_set() and steps < work.steps:
            steps = work.steps
            with trio.move_on_after(patience_s):
                await work.done.wait()
        if work.done.is_set():
            self._leave(work)
            return True
        partitions = [f"{topic}-{index}" for topic, index in self._busy if self._busy[topic, index] is work]
        log.error("disk_stalls", waiting_for=partitions[:10], count=len(partitions))
        self._late.append(work)
        return False

    async def _do(self, work: _Work) -> None:
        if work.doomed:
            await in_thread(partial(self._delete_all, work), limiter=self._threads)
        await self._open(work)
        work.done.set()
        if work in self._late:
            self._woken.set()

    def _leave(self, work: _Work) -> None:
        self._busy = {partition: other for partition, other in self._busy.items() if other is not work}
        self._unopened += work.failed

    async def _take_in_late(self) -> list[_Work]:
        """Bring what a stalled disk has finished in line with the metadata, which went on. Returns what is over now."""
        settled: list[_Work] = []
        for work in [work for work in self._late if work.done.is_set()]:
            self._late.remove(work)
            self._leave(work)
            opened = [o for o in work.openings if self._is_served(o)]
            wanted = [o for o in opened if self._leads(o)]
            unwanted = [(o.topic, o.partition) for o in opened if o not in wanted]
            for opening in wanted:
                self._catch_up(opening)
            self._tell_unavailable()
            self._tell_of_late(wanted)
            if await self._carry_out(_Work(doomed=unwanted, settles=[work, *work.settles])):
                settled += [work, *work.settles]
        self._held_up = [held for held in self._held_up if not all(work.settled.is_set() for work in held[2])]
        return settled

    def _leads(self, opening: _Opening) -> bool:
        """Whether the image has the partition, led here, whatever the epoch."""
        topic = self.image.topic(opening.topic)
        registration = None if topic is None else topic.partitions.get(opening.partition)
        return (
            topic is not None
            and topic.topic_id.bytes == opening.topic_id
            and registration is not None
            and registration.leader == self._node_id
        )

    def _catch_up(self, opening: _Opening) -> None:
        """Leadership and settings may have changed while it was being opened."""
        topic = self.image.topic(opening.topic)
        assert topic is not None
        leader_epoch = topic.partitions[opening.partition].leader_epoch
        if leader_epoch != opening.leader_epoch:
            self._plane.set_leadership(opening.topic, opening.partition, leader_epoch, now_ms(), wall_ms())
        config = self._log_config(self.image, opening.topic)
        if config != opening.config:
            self._plane.update_config(opening.topic, opening.partition, config)

    def _is_wanted(self, opening: _Opening) -> bool:
        topic = self.image.topic(opening.topic)
        return (
            topic is not None
            and self._leads(opening)
            and topic.partitions[opening.partition].leader_epoch == opening.leader_epoch
            and not self._is_served(opening)
        )

    def _is_served(self, opening: _Opening) -> bool:
        partition = self._plane.partition(opening.topic, opening.partition)
        return partition is not None and partition.topic_id == opening.topic_id

    def _is_in_the_way(self, opening: _Opening) -> bool:
        """Whether the partition, or one of the same name before it, is still to be taken in or removed."""
        at = (opening.topic, opening.partition)
        return at in self._busy or self._plane.partition(*at) is not None

    async def _publish(self, image: MetadataImage, delta: MetadataDelta) -> None:
        config = self._config_of(image)
        reconfigured = self._reconfigured(image, delta, changed=config != self.config)
        self.config = config
        if self._offline is not None and not self._is_started:
            self._offline.on_start(image)
        removed = list(delta.removed_topics.values())
        # A name that is taken again cannot be served before the old topic is out of its way.
        doomed = self._doomed(topic for topic in removed if topic.name in image.topic_ids)
        openings = list(self._to_open(image, delta))
        under_way = [o for o in openings if (o.topic, o.partition) in self._busy]
        self._unopened += under_way
        work = _Work(doomed=doomed, openings=[o for o in openings if o not in under_way])
        is_late = not await self._carry_out(work)
        self._is_started = True
        for topic in reconfigured:
            self._configure(image, topic)
        self.image = image
        self._tell_unavailable()
        published = Published(image=image, delta=delta, config=config)
        for follower in self._followers:
            follower(published)
        deleting = _Work(doomed=self._doomed(topic for topic in removed if topic.name not in image.topic_ids))
        is_late_too = not await self._carry_out(deleting)
        self._tell_unavailable()
        late = [work] * is_late + [deleting] * is_late_too
        late += {id(busy): busy for o in under_way if (busy := self._busy.get((o.topic, o.partition)))}.values()
        if late:
            self._held_up.append((self._published_offset + 1, image.offset, late))
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
        of_topic = LogConfig.resolve(image.config(ResourceType.TOPIC, topic), self.config).texts()
        return of_topic | {key: str(self.config.integer(key)) for key in PRODUCER_KEYS}

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
                if self._offline is not None and self._offline.is_offline(topic, index):
                    continue
                config = self._log_config(image, topic.name) if config is None else config
                yield _Opening(
                    topic=topic.name,
                    partition=index,
                    topic_id=topic_id.bytes,
                    leader_epoch=registration.leader_epoch,
                    config=config,
                )
        if self._offline is not None and (out_of_reach := self._offline.take_news()):
            reason = "they are in a log directory that is not online"
            log.error("partitions_offline", partitions=out_of_reach[:10], count=len(out_of_reach), reason=reason)

    def missing_error(self, topic: str, partition: int) -> ErrorCode:
        """What to answer for a partition that the data plane does not serve."""
        if (topic, partition) in self._unavailable:
            return ErrorCode.KAFKA_STORAGE_ERROR
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def _tell_unavailable(self) -> None:
        """Have requests for what could not be opened answered as such, until it is opened or not wanted any more."""
        self._unopened = [o for o in self._unopened if self._is_wanted(o)]
        late = [o for work in self._late for o in work.openings if self._is_wanted(o)]
        unavailable = {(o.topic, o.partition): o.topic_id for o in (*late, *self._unopened)}
        if self._offline is not None:
            self.out_of_reach = dict(self._offline.left(self.image))
            unavailable |= self.out_of_reach
        if unavailable != self._unavailable:
            self._unavailable = unavailable
            self._plane.set_unavailable([(*at, topic_id) for at, topic_id in unavailable.items()])

    async def _open(self, work: _Work) -> None:
        rest = iter(work.openings)

        async def worker() -> None:
            while chunk := list(islice(rest, PARTITIONS_PER_CALL)):
                await in_thread(partial(self._open_chunk, work, chunk), limiter=self._threads)

        async with trio.open_nursery() as nursery:
            for _ in range(min(WORKERS, len(work.openings) // PARTITIONS_PER_CALL + 1)):
                nursery.start_soon(worker)

    def _open_chunk(self, work: _Work, openings: Iterable[_Opening]) -> None:
        """Open partitions. In a worker thread. One that cannot be opened stays away; the others are served."""
        for opening in openings:
            work.steps += 1
            try:
                self._open_one(opening)
                self._tell_of_loss(opening)
            except (KafkaError, OSError) as error:
                work.failed.append(opening)
                log.error("partition_not_opened", topic=opening.topic, partition=opening.partition, reason=str(error))

    def _tell_of_loss(self, opening: _Opening) -> None:
        """A partition was opened that may have been made anew."""
        if self._held.holds(opening.topic, opening.partition, opening.topic_id):
            return
        at: dict[str, Any] = {"topic": opening.topic, "partition": opening.partition}
        # Every start raises the epoch: above 0 it was led before, and whatever it held was in a directory.
        if opening.leader_epoch > 0 or (self._was_clean and not self._is_started):
            reason = "no log directory held it: if it had records, they are gone"
            log.error("partition_made_anew", **at, reason=reason)
        elif not self._is_started:
            reason = "no log directory held it: it was about to be made when the broker ended, or is gone"
            log.warning("partition_not_found", **at, reason=reason)

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

    def _doomed(self, topics: Iterable[TopicImage]) -> list[tuple[str, int]]:
        """The partitions of removed topics that are served."""
        return [
            (topic.name, index)
            for topic in topics
            for index in topic.partitions
            if (partition := self._plane.partition(topic.name, index)) is not None
            and partition.topic_id == topic.topic_id.bytes
        ]

    def _delete_all(self, work: _Work) -> None:
        """Delete partitions. In a worker thread."""
        for topic, index in work.doomed:
            work.steps += 1
            try:
                self._plane.delete_partition(topic, index, now_ms(), wall_ms())
            except (KafkaError, OSError) as error:
                log.error("partition_not_deleted", topic=topic, partition=index, reason=str(error))
