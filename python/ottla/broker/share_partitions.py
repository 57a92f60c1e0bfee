"""The share partitions that this broker leads: their states are read, written and forgotten here (KIP-932).

A share partition is loaded when it is first fetched, from what the share coordinator keeps. A task a partition that has
something to say writes it, one write at a time; who acknowledged waits for the write that took the acknowledgement
along. A partition whose state somebody else has taken over (a later leader, offsets that were moved) is forgotten, and
read anew when it is fetched again.

Source: Kafka's `SharePartitionManager` and `SharePartition`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Final, NamedTuple

import trio

from ottla._native import DataPlane, Partition
from ottla.broker.clock import now_ms, trio_time, wall_ms
from ottla.broker.event_log import EventLog
from ottla.broker.metadata_publisher import Published
from ottla.broker.share_coordinator import ShareCoordinator
from ottla.broker.share_settings import EARLIEST, LATEST, ShareGroupSettings
from ottla.broker.share_truncation import read_state
from ottla.broker.worker import in_thread
from ottla.coordinator.share.state import NO_OFFSET
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import MetadataImage
from ottla.share.partition import KeptBatch, SharePartition, StateWrite
from ottla.share.records import RecordState

log = EventLog("share_partitions")

LATEST_TIMESTAMP: Final = -1
TICK_S: Final = 0.02
"""How long locks that are about to end wait for others, as each time all share partitions are looked at."""
_FOR_A_WHILE: Final = frozenset(
    {
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.REQUEST_TIMED_OUT,
    }
)
"""What the share coordinator says while it cannot answer; members know no such error of a partition."""


class ShareKey(NamedTuple):
    """A partition as one share group reads it."""

    group_id: str
    topic_id: uuid.UUID
    partition: int


class WriteOutcome:
    """What becomes of a write, for all whose acknowledgements it takes along, whenever they ask."""

    __slots__ = ("_error", "_settled")

    def __init__(self) -> None:
        self._settled = trio.Event()
        self._error = ErrorCode.NONE

    def settle(self, error: ErrorCode) -> None:
        self._error = error
        self._settled.set()

    async def wait(self) -> ErrorCode:
        await self._settled.wait()
        return self._error


class LedSharePartition:
    """A share partition in the memory of its leader."""

    def __init__(
        self,
        key: ShareKey,
        topic: str,
        native: Partition,
        machine: SharePartition,
        *,
        state_epoch: int,
        leader_epoch: int,
    ) -> None:
        self.key = key
        self.topic = topic
        self.native = native
        self.machine = machine
        self.state_epoch = state_epoch
        self.leader_epoch = leader_epoch
        self.is_being_read = False
        """Somebody reads records of it; others would read the same."""
        self.error: ErrorCode | None = None
        """Why it is led no more."""
        self._outcomes: dict[int, WriteOutcome] = {}
        """Of writes that are not through, where somebody asked."""
        self._waiting: dict[trio.Event, None] = {}
        """Fetches that wait for records of it, longest first."""
        self._choosy: dict[trio.Event, None] = {}
        """Fetches that wait for many records of it."""

    # Fetches that wait

    def add_waiting(self, event: trio.Event, *, is_choosy: bool) -> None:
        """Set an event when there may be records to acquire.

        Args:
            is_choosy: A few may not be enough. Others acquire what there is, and have the next one look when they end.
        """
        if not self._waiting and not self._choosy:
            self.native.watch()
        (self._choosy if is_choosy else self._waiting)[event] = None

    def remove_waiting(self, event: trio.Event) -> None:
        waiting = self._choosy if event in self._choosy else self._waiting
        if event in waiting:
            del waiting[event]
            if not self._waiting and not self._choosy:
                self.native.watch(False)

    def wake(self) -> None:
        """Have a fetch look again: all would find the same records."""
        for event in self._choosy:
            event.set()
        if self._waiting:
            next(iter(self._waiting)).set()

    def wake_all(self) -> None:
        """Have all fetches look again."""
        for event in (*self._waiting, *self._choosy):
            event.set()

    # Acknowledgements that wait

    def is_idle(self) -> bool:
        return not (self.machine.is_writing or self.is_being_read or self._waiting or self._choosy)

    def outcome(self, number: int) -> WriteOutcome:
        """What will become of a write that the machine has just named."""
        return self._outcomes.setdefault(number, WriteOutcome())

    def on_written(self, write: StateWrite, error: ErrorCode) -> None:
        """A write is through, or has failed."""
        self.machine.on_written(write, is_kept=error is ErrorCode.NONE, now_ms=now_ms())
        outcome = self._outcomes.pop(write.number, None)
        if outcome is not None:
            outcome.settle(error)

    def give_up(self, error: ErrorCode) -> None:
        """It is led no more: whoever waits is told."""
        self.error = error
        while self._outcomes:
            self._outcomes.popitem()[1].settle(error)
        self.wake_all()


class _Loading:
    """A share partition that is being read from the share coordinator."""

    __slots__ = ("done", "is_void")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.is_void = False
        """What is read is not true any more."""


class SharePartitions:
    """The share partitions in memory. Call `on_high_watermark` when a watched partition moved."""

    def __init__(
        self,
        plane: DataPlane,
        states: ShareCoordinator,
        *,
        image: Callable[[], MetadataImage],
    ) -> None:
        """
        Args:
            states: The share coordinator.
            image: The metadata now.
        """
        self._plane = plane
        self._states = states
        self._image = image
        self.has_readers: Callable[[str], bool] = lambda _group_id: True
        """Whether anybody fetches for a group; whoever serves fetches says so."""
        self.partition_count = 0
        """Partitions in the cluster."""
        self._led: dict[ShareKey, LedSharePartition] = {}
        self._of_partitions: dict[tuple[str, int], dict[ShareKey, LedSharePartition]] = {}
        self._loading: dict[ShareKey, _Loading] = {}
        self._nursery: trio.Nursery | None = None
        self._timer = trio.CancelScope()
        self._timer_deadline_ms: int | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep time, and write, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                while True:
                    with trio.CancelScope() as self._timer:
                        deadlines = [led.machine.next_deadline_ms() for led in self._led.values()]
                        self._timer_deadline_ms = min((at for at in deadlines if at is not None), default=None)
                        if self._timer_deadline_ms is None:
                            await trio.sleep_forever()
                        await trio.sleep_until(trio_time(self._timer_deadline_ms))
                    self._timer_deadline_ms = 0  # nobody need wake this task: it is about to look for itself
                    self._tick(now_ms())
                    await trio.sleep(TICK_S)
        finally:
            self._nursery = None  # connections are closed after this: what their members had is free without a word

    def _tick(self, now: int) -> None:
        """Let the locks end that are due."""
        for led in list(self._led.values()):
            deadline_ms = led.machine.next_deadline_ms()
            if deadline_ms is not None and deadline_ms <= now:
                led.machine.on_tick(now)
                self.write(led)
                if not self.has_readers(led.key.group_id):
                    self._retire((led,))

    def __len__(self) -> int:
        return len(self._led)

    def get(self, key: ShareKey) -> LedSharePartition | None:
        """A share partition that is in memory."""
        return self._led.get(key)

    def of_group(self, group_id: str) -> list[LedSharePartition]:
        return [led for led in self._led.values() if led.key.group_id == group_id]

    def on_high_watermark(self, topic: str, partition: int) -> None:
        """There are more records."""
        for led in self._of_partitions.get((topic, partition), {}).values():
            led.wake()

    def on_log_start(self, topic: str, partition: int) -> None:
        """The log has lost its beginning: what its members had there keeps others from nothing any more."""
        for led in self._of_partitions.get((topic, partition), {}).values():
            led.wake()

    def on_published(self, published: Published) -> None:
        """Follow the metadata: topics that are gone, and how many partitions there are."""
        if published.delta.base.topics is published.image.topics:
            return
        self.partition_count = sum(len(topic.partitions) for topic in published.image.topics.values())
        gone = published.delta.base.topics.keys() - published.image.topics.keys()
        if gone:
            self.forget((key for key in self._known() if key.topic_id in gone), ErrorCode.UNKNOWN_TOPIC_ID)

    def lock_begins(self, led: LedSharePartition) -> None:
        """A lock may end before all others: the timer must know."""
        deadline_ms = led.machine.next_deadline_ms()
        if deadline_ms is not None and (self._timer_deadline_ms is None or deadline_ms < self._timer_deadline_ms):
            self._timer.cancel()

    def forget(self, keys: Iterable[ShareKey], error: ErrorCode) -> None:
        """Lead share partitions no more; they are read anew when they are fetched again."""
        for key in list(keys):
            if key in self._loading:
                self._loading[key].is_void = True
            led = self._led.pop(key, None)
            if led is None:
                continue
            of_partition = self._of_partitions[led.topic, key.partition]
            del of_partition[key]
            if not of_partition:
                del self._of_partitions[led.topic, key.partition]
            led.give_up(error)

    def forget_moved(self, group_id: str, topic_ids: Collection[uuid.UUID]) -> None:
        """The states of a group in these topics are others now."""
        keys = [key for key in self._known() if key.group_id == group_id and key.topic_id in topic_ids]
        self.forget(keys, ErrorCode.FENCED_STATE_EPOCH)

    def _known(self) -> list[ShareKey]:
        """In memory, or about to be."""
        return [*self._led, *self._loading]

    def retire(self, group_id: str) -> None:
        """Nobody fetches for a group any more: what is written of it need not be in memory."""
        self._retire(self.of_group(group_id))

    def _retire(self, candidates: Iterable[LedSharePartition]) -> None:
        """Forget those of which nothing is to be written and no lock is to end; the others when the last one has."""
        self.forget(
            [led.key for led in candidates if led.is_idle() and led.machine.next_deadline_ms() is None],
            ErrorCode.NOT_LEADER_OR_FOLLOWER,
        )

    # Loading

    async def load(self, key: ShareKey, settings: ShareGroupSettings) -> LedSharePartition:
        """A share partition, read from the share coordinator if it is not in memory.

        Raises: KafkaError (UNKNOWN_TOPIC_ID, UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, KAFKA_STORAGE_ERROR,
        UNKNOWN_SERVER_ERROR: the group has no state there, so it was not told to read there).
        """
        while (led := self._led.get(key)) is None:
            loading = self._loading.get(key)
            if loading is not None:
                await loading.done.wait()
                continue
            loading = self._loading[key] = _Loading()
            try:
                found = await self._load(key, settings)
                if not loading.is_void:
                    self._add(found)
                    self.write(found)
            finally:
                del self._loading[key]
                loading.done.set()
        return led

    def _add(self, led: LedSharePartition) -> None:
        self._led[led.key] = led
        self._of_partitions.setdefault((led.topic, led.key.partition), {})[led.key] = led

    async def _load(self, key: ShareKey, settings: ShareGroupSettings) -> LedSharePartition:
        topic, native = self.find(key)
        leader_epoch = native.offsets().leader_epoch
        try:
            state = await read_state(self._states, key, native, leader_epoch=leader_epoch)
        except KafkaError as error:
            if error.code in _FOR_A_WHILE:
                raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, error.message) from None
            if error.code is ErrorCode.INVALID_REQUEST:
                raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, error.message) from None
            raise
        start = state.start_offset
        is_new = start == NO_OFFSET
        if is_new:
            start = await in_thread(partial(_first_offset, native, settings.start))
        kept = [
            KeptBatch(b.first_offset, b.last_offset, RecordState(b.delivery_state), b.delivery_count)
            for b in state.state_batches
        ]
        # The beginning of the log is where it is; any other start would be another one if it were looked for anew, and
        # what lies between them would never be delivered.
        machine = SharePartition(settings.partitions, start, kept, is_start_new=is_new and settings.start != EARLIEST)
        log.debug("share_partition_loaded", group=key.group_id, topic=topic, partition=key.partition, start=start)
        return LedSharePartition(key, topic, native, machine, state_epoch=state.state_epoch, leader_epoch=leader_epoch)

    def find(self, key: ShareKey) -> tuple[str, Partition]:
        """The topic's name, and the partition of this broker. Raises: KafkaError, as `load`."""
        topic = self._image().topics.get(key.topic_id)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID)
        if not 0 <= key.partition < len(topic.partitions):
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        native = self._plane.partition(topic.name, key.partition)
        # One of the same name may have taken its place already, of which the metadata does not tell yet.
        if native is None or native.topic_id != key.topic_id.bytes:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        return topic.name, native

    # Writing

    def write(self, led: LedSharePartition) -> None:
        """Have what was decided of a share partition written."""
        if led.error is not None or self._nursery is None:
            return
        write = led.machine.next_write()
        if write is not None:
            self._nursery.start_soon(self._write_on, led, write)

    async def _write_on(self, led: LedSharePartition, write: StateWrite | None) -> None:
        """Write as long as there is something to write."""
        while write is not None and led.error is None:
            error = await self._write(led, write)
            led.on_written(write, error)
            self.lock_begins(led)
            led.wake()
            if error is not ErrorCode.NONE:
                log.warning(
                    "share_state_not_written",
                    group=led.key.group_id,
                    topic=led.topic,
                    partition=led.key.partition,
                    error=error.name,
                )
                if error not in _FOR_A_WHILE:
                    self.forget((led.key,), error)
            write = led.machine.next_write()
        if led.error is None and not self.has_readers(led.key.group_id):
            self._retire((led,))

    async def _write(self, led: LedSharePartition, write: StateWrite) -> ErrorCode:
        from ottla.protocol.messages.write_share_group_state import (
            PartitionData,
            StateBatch,
            WriteShareGroupStateRequest,
            WriteStateData,
        )

        batches = tuple(
            StateBatch(
                first_offset=batch.first_offset,
                last_offset=batch.last_offset,
                delivery_state=batch.state,
                delivery_count=batch.delivery_count,
            )
            for batch in write.batches
        )
        data = PartitionData(
            partition=led.key.partition,
            state_epoch=led.state_epoch,
            leader_epoch=led.leader_epoch,
            start_offset=write.start_offset,
            delivery_complete_count=write.delivery_complete_count,
            state_batches=batches,
        )
        topic = WriteStateData(topic_id=led.key.topic_id, partitions=(data,))
        request = WriteShareGroupStateRequest(group_id=led.key.group_id, topics=(topic,))
        try:
            response = await self._states.write_share_group_state(request)
        except KafkaError as error:
            return error.code
        except Exception as error:
            # A bug of ours: this share partition is read anew, and the others are not touched.
            log.error("share_state_write_failed", group=led.key.group_id, topic=led.topic, error=error)
            return ErrorCode.UNKNOWN_SERVER_ERROR
        return response.results[0].partitions[0].error_code


def _first_offset(native: Partition, start: int) -> int:
    """Where a group begins in a partition that is new to it. SLOW."""
    if start in (LATEST, EARLIEST):
        return native.list_offset(start, isolation_level=0)[1]
    _, offset, _ = native.list_offset(wall_ms() - start, isolation_level=0)
    return offset if offset >= 0 else native.list_offset(LATEST_TIMESTAMP, isolation_level=0)[1]
