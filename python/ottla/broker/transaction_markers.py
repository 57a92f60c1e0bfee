"""Ends transactions in the partitions that this broker leads: writes their markers and waits until they count.

The transaction coordinator decides; what it decided is carried out here, whether it lives in this broker or asks
through WriteTxnMarkers. In a partition of `__consumer_offsets` the marker goes through the group coordinator, whose
machine commits or drops the offsets that are pending.

Source: Kafka's `KafkaApis.handleWriteTxnMarkersRequest`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from ottla.broker.clock import wall_ms
from ottla.broker.event_log import EventLog
from ottla.common.topics import CONSUMER_OFFSETS
from ottla.coordinator.shard import TransactionEnd
from ottla.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from ottla._native import DataPlane, Partition, PendingAppend
    from ottla.broker.metadata_publisher import Published

log = EventLog("transaction_markers")

TopicPartition: TypeAlias = tuple[str, int]
EndOffsets: TypeAlias = Callable[[int, TransactionEnd], Awaitable[None]]
"""Ends a transaction in a partition of `__consumer_offsets`. Raises: KafkaError."""

COMMIT_TIMEOUT_S: Final = 30
"""How long a marker may stay above the high watermark before its partition is answered with REQUEST_TIMED_OUT."""

_TO_BE_TRIED_AGAIN: Final = frozenset(
    {ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.NOT_COORDINATOR}
)
"""What a group coordinator says and transaction coordinators do not expect: they are to look for the leader again."""


class _Waiting:
    """A marker that is not known to be committed."""

    __slots__ = ("at", "error", "partition", "pending", "settled")

    def __init__(self, at: TopicPartition, partition: Partition, pending: PendingAppend) -> None:
        self.at = at
        self.partition = partition
        self.pending = pending
        self.settled = trio.Event()
        self.error = ErrorCode.REQUEST_TIMED_OUT
        """What to say of it now."""

    def settle(self, error: ErrorCode) -> None:
        self.error = error
        self.settled.set()

    def look(self) -> None:
        """Settle it if it is committed or lost by now."""
        try:
            if self.pending.is_committed():
                self.settle(ErrorCode.NONE)
        except KafkaError as error:
            self.settle(error.code)


class TransactionMarkers:
    """Writes markers. Call `on_high_watermark` when a watched partition moved, `on_published` when metadata changed."""

    def __init__(self, plane: DataPlane, end_offsets: EndOffsets) -> None:
        self._plane = plane
        self._end_offsets = end_offsets
        self._waiting: dict[TopicPartition, list[_Waiting]] = {}

    async def write(
        self,
        *,
        producer_id: int,
        producer_epoch: int,
        commit: bool,
        coordinator_epoch: int,
        transaction_version: int,
        partitions: Iterable[TopicPartition],
    ) -> Mapping[TopicPartition, ErrorCode]:
        """End a producer's transaction in each of these partitions; returns what became of each.

        NONE: the marker is below the high watermark, and for `__consumer_offsets` its offsets are committed or dropped.
        To be tried again: UNKNOWN_TOPIC_OR_PARTITION (unless the topic is gone), NOT_LEADER_OR_FOLLOWER,
        KAFKA_STORAGE_ERROR, REQUEST_TIMED_OUT. Final: INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED. A marker
        that is written again does no harm.
        """
        end = TransactionEnd(producer_id, producer_epoch, commit, coordinator_epoch, transaction_version)
        results: dict[TopicPartition, ErrorCode] = {}
        appended: list[_Waiting] = []
        of_groups: list[TopicPartition] = []
        try:
            # All at once: what is appended in one turn of the event loop is written, and committed, together.
            for at in dict.fromkeys(partitions):
                results[at] = self._append(at, end, appended, of_groups)
            with trio.move_on_after(COMMIT_TIMEOUT_S):
                await self._end_in_groups(of_groups, end, results)
                for waiting in appended:
                    await waiting.settled.wait()
        finally:
            for waiting in appended:
                self._forget(waiting)
        return results | {waiting.at: waiting.error for waiting in appended}

    def _append(
        self, at: TopicPartition, end: TransactionEnd, appended: list[_Waiting], of_groups: list[TopicPartition]
    ) -> ErrorCode:
        """Append one marker, or say why not; whatever must be waited for is added to one of the lists."""
        topic, index = at
        partition = self._plane.partition(topic, index)
        if partition is None:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        if topic == CONSUMER_OFFSETS:
            of_groups.append(at)
            return ErrorCode.REQUEST_TIMED_OUT
        partition.watch()
        try:
            pending = partition.append_marker(**end._asdict(), wall_ms=wall_ms())
        except KafkaError as error:
            partition.watch(False)
            return error.code
        waiting = _Waiting(at, partition, pending)
        self._waiting.setdefault(at, []).append(waiting)
        appended.append(waiting)
        waiting.look()
        return waiting.error

    def is_open(self, at: TopicPartition, producer_id: int, producer_epoch: int) -> bool:
        """Whether a transaction of a producer of at most this epoch is open in a partition, or may be."""
        partition = self._plane.partition(*at)
        try:
            known = () if partition is None else partition.producers()
        except KafkaError:
            return True
        return any(
            (found, start_offset >= 0) == (producer_id, True) and epoch <= producer_epoch
            for found, epoch, _, _, _, start_offset in known
        )

    async def _end_in_groups(
        self, partitions: Sequence[TopicPartition], end: TransactionEnd, results: dict[TopicPartition, ErrorCode]
    ) -> None:
        async def end_one(at: TopicPartition) -> None:
            try:
                await self._end_offsets(at[1], end)
                results[at] = ErrorCode.NONE
            except KafkaError as error:
                is_passing = error.code in _TO_BE_TRIED_AGAIN
                results[at] = ErrorCode.NOT_LEADER_OR_FOLLOWER if is_passing else error.code

        if len(partitions) == 1:
            await end_one(partitions[0])  # as nearly always: a task would cost more
            return
        async with trio.open_nursery() as nursery:
            for at in partitions:
                nursery.start_soon(end_one, at)

    def _forget(self, waiting: _Waiting) -> None:
        waiting.partition.watch(False)
        here = self._waiting[waiting.at]
        here.remove(waiting)
        if not here:
            del self._waiting[waiting.at]

    def on_high_watermark(self, topic: str, partition: int) -> None:
        """A watched partition has moved, or appends to it were lost."""
        for waiting in self._waiting.get((topic, partition), ()):
            waiting.look()

    def on_published(self, published: Published) -> None:
        """Markers of partitions that are not served any more will not be committed."""
        for at, here in self._waiting.items():
            if self._plane.partition(*at) is None:
                log.info("marker_abandoned", topic=at[0], partition=at[1])
                for waiting in here:
                    waiting.settle(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
