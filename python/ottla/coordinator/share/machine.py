"""The share coordinator's machine: one partition of `__share_group_state`, for `ottla.coordinator.shard.Shard`.

The group coordinator initialises and deletes the states of share partitions, their leaders read and write them. A write
is an update on top of the last snapshot; after so many of them a snapshot is written instead, and what lies before the
oldest snapshot that counts can be pruned: it appears in `take_prunable`, for whoever runs the machine.

Each method serves one share partition and replies with that API's `PartitionResult`.

Source: Kafka's `ShareCoordinatorShard`, `ShareCoordinatorService` and `ShareCoordinatorOffsetsManager` (KIP-932).
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from ottla.coordinator.group.record_schema import MalformedRecord
from ottla.coordinator.shard import CoordinatorRecord, Instant, LoadedRecord, Outcome, Reply, TransactionMarker
from ottla.coordinator.share import records
from ottla.coordinator.share.config import ShareCoordinatorConfig
from ottla.coordinator.share.records import RecordContent
from ottla.coordinator.share.state import (
    NO_COUNT,
    NO_EPOCH,
    NO_OFFSET,
    SharePartition,
    ShareState,
    StateBatch,
    combine,
)
from ottla.coordinator.timeline import Timeline, TimelineDict
from ottla.coordinator.timers import Deadline, Timers
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import EMPTY_IMAGE, MetadataImage, TopicImage
from ottla.protocol.messages import (
    delete_share_group_state,
    initialize_share_group_state,
    read_share_group_state,
    read_share_group_state_summary,
    write_share_group_state,
)


@dataclass(frozen=True, slots=True)
class PruneDue:
    """It is time to look which records nobody needs any more."""


@dataclass(frozen=True, slots=True)
class ColdSnapshotDue:
    """It is time to look for snapshots so old that they keep others from being pruned."""


TimerEvent: TypeAlias = PruneDue | ColdSnapshotDue

R = TypeVar("R")

_UNINITIALISED: Final = "The share partition is not initialized."


class ShareCoordinatorMachine:
    """The states of share partitions, and who may change them."""

    def __init__(self, config: ShareCoordinatorConfig, image: MetadataImage = EMPTY_IMAGE) -> None:
        """
        Args:
            image: The metadata now; later ones come by `follow`.
        """
        self.config = config
        self._image = image
        self._timeline = Timeline()
        self._states: TimelineDict[SharePartition, ShareState] = TimelineDict(self._timeline)
        self._timers: Timers[TimerEvent] = Timers()
        self._pruning: Deadline[TimerEvent] = Deadline(PruneDue())
        self._cold_snapshots: Deadline[TimerEvent] = Deadline(ColdSnapshotDue())
        self._prunable: int | None = None
        self._foreign_records: Counter[int] = Counter()
        self._malformed_records = 0

    def follow(self, image: MetadataImage) -> None:
        """The cluster's topics are these from now on."""
        self._image = image

    # What the log says

    def replay(self, record: LoadedRecord) -> None:
        content: Any = record.content
        if content is None:
            try:
                content = records.decode(record.key, record.value)
            except MalformedRecord:
                self._malformed_records += 1
                return
        if isinstance(content, int):
            self._foreign_records[content] += 1
            return
        assert isinstance(content, RecordContent)
        before = self._states.get(content.key)
        if content.state is None:
            if content.kind == records.SNAPSHOT:
                self._states.remove(content.key, offset=record.offset)
        elif content.kind == records.SNAPSHOT:
            self._states.put(content.key, _snapshot_over(before, content.state, record.offset), offset=record.offset)
        else:
            self._states.put(content.key, _updated(before, content.state, record.offset), offset=record.offset)

    def replay_marker(self, marker: TransactionMarker) -> None:
        """Nobody writes here in transactions."""

    def on_loaded(self, now: Instant) -> Outcome:
        self._timers.schedule(self._pruning, now.now_ms + self.config.state_topic_prune_interval_ms)
        self._timers.schedule(self._cold_snapshots, now.now_ms + self.config.cold_partition_snapshot_interval_ms)
        return Outcome()

    def load_report(self) -> Mapping[str, object]:
        """How many share partitions there are; and how many records that are not known or not readable."""
        report: dict[str, object] = {"share_partitions": len(self._states)}
        if self._foreign_records:
            report["ignored"] = dict(self._foreign_records)
        if self._malformed_records:
            report["malformed"] = self._malformed_records
        return report

    def on_committed(self, then: object, now: Instant) -> Outcome:
        raise AssertionError(f"no write names {then}")

    def on_failed(self, then: object, error: ErrorCode, now: Instant) -> Outcome:
        raise AssertionError(f"no write names {then}")

    def commit(self, high_watermark: int) -> None:
        self._timeline.commit(high_watermark)

    def rollback(self, end_offset: int) -> None:
        self._timeline.rollback(end_offset)

    # Requests

    def initialize(
        self, key: SharePartition, data: initialize_share_group_state.PartitionData, token: int, now: Instant
    ) -> Outcome:
        """Begin a state, or begin it anew: without batches.

        Where it is to begin at an offset, it is a state of the partition's leader of that time; else of none.

        The error may be FENCED_STATE_EPOCH or UNKNOWN_TOPIC_OR_PARTITION.
        """
        result = initialize_share_group_state.PartitionResult(partition=key.partition)
        state = self._states.get(key)
        try:
            _check_partition(key)
            if state is not None and data.state_epoch != NO_EPOCH and state.state_epoch_max > data.state_epoch:
                raise KafkaError(ErrorCode.FENCED_STATE_EPOCH)
            topic = self._checked_topic(key)
        except KafkaError as error:
            return Outcome().reply(token, _refused(result, error))
        begun = ShareState(
            snapshot_epoch=0 if state is None else state.snapshot_epoch + 1,
            state_epoch=data.state_epoch,
            leader_epoch=0 if data.start_offset == NO_OFFSET else topic.partitions[key.partition].leader_epoch,
            start_offset=data.start_offset,
            delivery_complete_count=NO_COUNT if data.start_offset == NO_OFFSET else 0,
            batches=(),
            create_timestamp_ms=now.wall_ms,
            write_timestamp_ms=now.wall_ms,
        )
        return Outcome().write([records.snapshot(key, begun)], Reply(token, result))

    def read(
        self, key: SharePartition, data: read_share_group_state.PartitionData, token: int, now: Instant
    ) -> Outcome:
        """Tell a leader the state, and keep its epoch: leaders before it cannot write any more.

        The error may be INVALID_REQUEST (not initialised), FENCED_LEADER_EPOCH or UNKNOWN_TOPIC_OR_PARTITION.
        """
        result = read_share_group_state.PartitionResult(partition=key.partition)
        try:
            state = self._checked(key, data.leader_epoch)
            self._checked_topic(key)
        except KafkaError as error:
            return Outcome().reply(token, _refused(result, error))
        found = read_share_group_state.PartitionResult(
            partition=key.partition,
            state_epoch=state.state_epoch,
            start_offset=state.start_offset,
            state_batches=tuple(read_share_group_state.StateBatch(**batch._asdict()) for batch in state.batches),
        )
        if data.leader_epoch in (NO_EPOCH, state.leader_epoch_max):
            return Outcome().write((), Reply(token, found))
        record = self._next_record(
            key,
            state,
            start_offset=state.start_offset,
            leader_epoch=data.leader_epoch,
            delivery_complete_count=state.delivery_complete_count,
            batches=(),
            now=now,
        )
        return Outcome().write([record], Reply(token, found))

    def write(
        self, key: SharePartition, data: write_share_group_state.PartitionData, token: int, now: Instant
    ) -> Outcome:
        """Keep what a leader says of records: batches on top of those known, and where to begin (-1: as before).

        The error may be INVALID_REQUEST (not initialised), FENCED_LEADER_EPOCH, FENCED_STATE_EPOCH or
        UNKNOWN_TOPIC_OR_PARTITION.
        """
        result = write_share_group_state.PartitionResult(partition=key.partition)
        try:
            state = self._checked(key, data.leader_epoch)
            if data.state_epoch != NO_EPOCH and state.state_epoch_max > data.state_epoch:
                raise KafkaError(ErrorCode.FENCED_STATE_EPOCH)
            self._checked_topic(key)
        except KafkaError as error:
            return Outcome().reply(token, _refused(result, error))
        record = self._next_record(
            key,
            state,
            start_offset=data.start_offset,
            leader_epoch=state.leader_epoch,
            delivery_complete_count=data.delivery_complete_count,
            batches=tuple(
                StateBatch(b.first_offset, b.last_offset, b.delivery_state, b.delivery_count)
                for b in data.state_batches
            ),
            now=now,
        )
        return Outcome().write([record], Reply(token, result))

    def delete(
        self, key: SharePartition, data: delete_share_group_state.PartitionData, token: int, now: Instant
    ) -> Outcome:
        """Forget a state; one that is not there is no error. The error may be UNKNOWN_TOPIC_OR_PARTITION."""
        result = delete_share_group_state.PartitionResult(partition=key.partition)
        try:
            _check_partition(key)
            self._checked_topic(key)
        except KafkaError as error:
            return Outcome().reply(token, _refused(result, error))
        tombstones = [records.tombstone(key)] if key in self._states else []
        return Outcome().write(tombstones, Reply(token, result))

    def summarize(
        self, key: SharePartition, data: read_share_group_state_summary.PartitionData, token: int, now: Instant
    ) -> Outcome:
        """Tell where a share partition is; start offset -1 of one that is not known."""
        result = read_share_group_state_summary.PartitionResult(partition=key.partition)
        try:
            _check_partition(key)
            self._checked_topic(key)
        except KafkaError as error:
            return Outcome().reply(token, _refused(result, error))
        state = self._states.get(key)
        found = read_share_group_state_summary.PartitionResult(
            partition=key.partition,
            state_epoch=0 if state is None else state.state_epoch,
            leader_epoch=0 if state is None else state.leader_epoch,
            start_offset=NO_OFFSET if state is None else state.start_offset,
            delivery_complete_count=NO_COUNT if state is None else state.delivery_complete_count,
        )
        return Outcome().write((), Reply(token, found))

    def on_topics_deleted(self, topic_ids: Collection[uuid.UUID]) -> Outcome:
        """Forget the states of partitions that are no more."""
        gone: list[CoordinatorRecord] = [
            records.tombstone(key) for key, _ in self._states.items() if key.topic_id in topic_ids
        ]
        return Outcome().write_each(gone) if gone else Outcome()

    def _checked(self, key: SharePartition, leader_epoch: int) -> ShareState:
        """The state that a leader of this epoch asks for. Raises: KafkaError."""
        _check_partition(key)
        state = self._states.get(key)
        if state is None:
            raise KafkaError(ErrorCode.INVALID_REQUEST, _UNINITIALISED)
        if leader_epoch != NO_EPOCH and state.leader_epoch_max > leader_epoch:
            raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH)
        return state

    def _checked_topic(self, key: SharePartition) -> TopicImage:
        """Raises: KafkaError (UNKNOWN_TOPIC_OR_PARTITION)."""
        topic = None if key.topic_id is None else self._image.topics.get(key.topic_id)
        if topic is None or key.partition not in topic.partitions:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return topic

    def _next_record(
        self,
        key: SharePartition,
        state: ShareState,
        *,
        start_offset: int,
        leader_epoch: int,
        delivery_complete_count: int,
        batches: tuple[StateBatch, ...],
        now: Instant,
    ) -> CoordinatorRecord:
        """An update, or a snapshot where enough updates follow the last one."""
        if state.update_count < self.config.snapshot_update_records_per_snapshot:
            change = ShareState(
                snapshot_epoch=state.snapshot_epoch,
                state_epoch=0,
                leader_epoch=leader_epoch,
                start_offset=start_offset,
                delivery_complete_count=delivery_complete_count,
                batches=combine(batches, start_offset),
            )
            return records.update(key, change)
        start_offset = state.start_offset if start_offset == NO_OFFSET else start_offset
        whole = ShareState(
            snapshot_epoch=state.snapshot_epoch + 1,
            state_epoch=state.state_epoch,
            leader_epoch=leader_epoch,
            start_offset=start_offset,
            delivery_complete_count=delivery_complete_count,
            batches=combine((*state.batches, *batches), start_offset),
            create_timestamp_ms=now.wall_ms,
            write_timestamp_ms=now.wall_ms,
        )
        return records.snapshot(key, whole)

    # Time

    def on_tick(self, now: Instant) -> Outcome:
        out = Outcome()
        while (event := self._timers.pop_due(now.now_ms)) is not None:
            if isinstance(event, PruneDue):
                self._prunable = self.prunable()
                self._timers.schedule(self._pruning, now.now_ms + self.config.state_topic_prune_interval_ms)
            else:
                out.add(self._snapshot_cold(now))
                self._timers.schedule(
                    self._cold_snapshots, now.now_ms + self.config.cold_partition_snapshot_interval_ms
                )
        return out

    def next_deadline_ms(self) -> int | None:
        return self._timers.next_deadline_ms()

    def _snapshot_cold(self, now: Instant) -> Outcome:
        if all(state.create_timestamp_ms != state.write_timestamp_ms for _, state in self._states.items()):
            return Outcome()  # nothing has happened since they all were written anew
        oldest_ms = now.wall_ms - self.config.cold_partition_snapshot_interval_ms
        cold: list[CoordinatorRecord] = [
            records.snapshot(
                key, state._replace(snapshot_epoch=state.snapshot_epoch + 1, write_timestamp_ms=now.wall_ms)
            )
            for key, state in self._states.items()
            if state.write_timestamp_ms <= oldest_ms
        ]
        return Outcome().write_each(cold) if cold else Outcome()

    def prunable(self) -> int:
        """The offset before which no record says anything that counts: that of the oldest committed snapshot."""
        offsets = [state.snapshot_offset for _, state in self._states.committed_items()]
        return min(offsets, default=self._timeline.high_watermark)

    def take_prunable(self) -> int | None:
        """The offset up to which records may be deleted now; None: it is not the time for it."""
        prunable, self._prunable = self._prunable, None
        return prunable


def _check_partition(key: SharePartition) -> None:
    if key.partition < 0:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"There is no partition {key.partition}.")


def _refused(result: R, error: KafkaError) -> R:
    return type(result)(partition=result.partition, error_code=error.code, error_message=str(error))  # type: ignore


def _snapshot_over(before: ShareState | None, state: ShareState, offset: int) -> ShareState:
    return state._replace(
        # Kafka never counts from 0 again but after as many as make it write a snapshot; a fresh one has none behind it.
        update_count=0,
        leader_epoch_max=max(state.leader_epoch, 0 if before is None else before.leader_epoch_max),
        state_epoch_max=max(state.state_epoch, 0 if before is None else before.state_epoch_max),
        snapshot_offset=offset,
    )


def _updated(before: ShareState | None, change: ShareState, offset: int) -> ShareState:
    if before is None:
        # Its snapshot is gone, which nobody but a foreign hand does: what there is counts.
        return change._replace(update_count=1, leader_epoch_max=change.leader_epoch, snapshot_offset=offset)
    start_offset = before.start_offset if change.start_offset == NO_OFFSET else change.start_offset
    return before._replace(
        leader_epoch=before.leader_epoch if change.leader_epoch == NO_EPOCH else change.leader_epoch,
        start_offset=start_offset,
        delivery_complete_count=change.delivery_complete_count,
        batches=combine((*before.batches, *change.batches), start_offset),
        update_count=before.update_count + 1,
        leader_epoch_max=max(before.leader_epoch_max, change.leader_epoch),
    )
