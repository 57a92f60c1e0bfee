"""The partitions that a consumer reads: positions, what has been fetched and not handed out, and what to fetch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from ottla.client.core.records import ConsumerRecord, Header
from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.fetch import AbortedTransaction, FetchPartition, FetchRequest, FetchTopic

ABORT_MARKER: Final = b"\x00\x00"
"""The type in an abort marker's key, behind its version."""


class OffsetReset(Enum):
    """Where to start without a committed offset (Kafka: auto.offset.reset)."""

    EARLIEST = "earliest"
    LATEST = "latest"
    NONE = "none"


class FetchedBatch(Protocol):
    """What is needed of a decoded batch (`ottla._native.RecordBatch`)."""

    @property
    def last_offset(self) -> int: ...
    @property
    def partition_leader_epoch(self) -> int: ...
    @property
    def producer_id(self) -> int: ...
    @property
    def transactional(self) -> bool: ...
    @property
    def control(self) -> bool: ...
    @property
    def records(self) -> Sequence[tuple[int, int, bytes | None, bytes | None, Sequence[Header]]]: ...


def _visible(batches: Sequence[FetchedBatch], aborted: Sequence[AbortedTransaction]) -> Iterator[FetchedBatch]:
    """Leave out control batches and what belongs to an aborted transaction (KIP-98).

    `aborted` is sorted by first offset; a producer's transaction ends at its abort marker.
    """
    waiting = deque(aborted)
    open_producers: set[int] = set()
    for batch in batches:
        while waiting and waiting[0].first_offset <= batch.last_offset:
            open_producers.add(waiting.popleft().producer_id)
        if batch.control:
            if any(key is not None and key[2:4] == ABORT_MARKER for _, _, key, _, _ in batch.records):
                open_producers.discard(batch.producer_id)
        elif not (batch.transactional and batch.producer_id in open_producers):
            yield batch


@dataclass(slots=True, eq=False)
class PartitionState:
    """`position` is the next offset to hand out; None until it is known. `fetch_offset` runs ahead of it."""

    position: int | None = None
    fetch_offset: int = 0
    leader_epoch: int = -1
    high_watermark: int = -1
    buffered: deque[ConsumerRecord] = field(default_factory=deque)
    reset: OffsetReset | None = None
    paused: bool = False


@dataclass(slots=True)
class Subscription:
    """All partitions assigned now. A partition that is assigned anew starts without a position."""

    partitions: dict[TopicPartition, PartitionState] = field(default_factory=dict)
    _turn: int = 0

    def assign(self, partitions: list[TopicPartition]) -> None:
        """Replace the assignment; partitions that stay keep position and buffer."""
        self.partitions = {p: self.partitions.get(p) or PartitionState() for p in partitions}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Raises KeyError for a partition that is not assigned."""
        state = self.partitions[partition]
        state.position = state.fetch_offset = offset
        state.reset = None
        state.buffered.clear()

    def without_position(self) -> list[TopicPartition]:
        return [p for p, s in self.partitions.items() if s.position is None and s.reset is None]

    def to_reset(self) -> dict[TopicPartition, OffsetReset]:
        return {p: s.reset for p, s in self.partitions.items() if s.reset is not None}

    def fetchable(self) -> list[TopicPartition]:
        """Partitions with a position and nothing left in the buffer, in turn so that none starves."""
        found = [
            p
            for p, s in self.partitions.items()
            if s.position is not None and s.reset is None and not s.buffered and not s.paused
        ]
        if found:
            self._turn = (self._turn + 1) % len(found)
            found = found[self._turn :] + found[: self._turn]
        return found

    def fetch_request(
        self, partitions: list[TopicPartition], *, max_wait_ms: int, min_bytes: int, max_bytes: int,
        partition_bytes_max: int, read_committed: bool,
    ) -> FetchRequest:  # fmt: skip
        topics: dict[str, list[FetchPartition]] = {}
        for p in partitions:
            state = self.partitions[p]
            topics.setdefault(p.topic, []).append(
                FetchPartition(
                    partition=p.partition,
                    current_leader_epoch=-1,
                    fetch_offset=state.fetch_offset,
                    last_fetched_epoch=-1,
                    log_start_offset=-1,
                    partition_max_bytes=partition_bytes_max,
                )
            )
        return FetchRequest(
            replica_id=-1,
            max_wait_ms=max_wait_ms,
            min_bytes=min_bytes,
            max_bytes=max_bytes,
            isolation_level=int(read_committed),
            session_id=0,
            session_epoch=-1,
            topics=tuple(FetchTopic(topic=t, partitions=tuple(ps)) for t, ps in topics.items()),
        )

    def on_records(
        self,
        partition: TopicPartition,
        *,
        fetch_offset: int,
        batches: Sequence[FetchedBatch],
        aborted: Sequence[AbortedTransaction] = (),
        high_watermark: int,
    ) -> None:
        """Take fetched batches in. An answer to a position that was left since is dropped."""
        state = self.partitions.get(partition)
        if state is None or state.fetch_offset != fetch_offset or state.reset is not None:
            return
        state.high_watermark = high_watermark
        for batch in _visible(batches, aborted):
            for offset, timestamp_ms, key, value, headers in batch.records:
                if offset >= fetch_offset:
                    state.buffered.append(
                        ConsumerRecord(
                            topic=partition.topic,
                            partition=partition.partition,
                            offset=offset,
                            timestamp_ms=timestamp_ms,
                            key=key,
                            value=value,
                            headers=tuple(headers),
                            leader_epoch=batch.partition_leader_epoch,
                        )
                    )
        # Offsets vanish by compaction: the last batch's last offset counts, not its records.
        for batch in batches[-1:]:
            state.fetch_offset = max(state.fetch_offset, batch.last_offset + 1)
        if not state.buffered:
            state.position = state.fetch_offset

    def on_fetch_error(self, partition: TopicPartition, code: ErrorCode, reset: OffsetReset) -> bool:
        """Returns whether metadata is stale. Raises KafkaError for what no retry mends."""
        state = self.partitions.get(partition)
        if state is None:
            return False
        if code is ErrorCode.OFFSET_OUT_OF_RANGE:
            if reset is OffsetReset.NONE:
                raise KafkaError(code, f"{partition}: offset {state.fetch_offset} is out of range")
            state.reset = reset
            return False
        if code.retriable or code in (ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.UNKNOWN_TOPIC_ID):
            return True
        raise KafkaError(code, f"{partition}: {code.name}")

    def take(self, *, records_max: int) -> list[ConsumerRecord]:
        """Hand buffered records out and move the positions behind them."""
        out: list[ConsumerRecord] = []
        for state in self.partitions.values():
            while state.buffered and len(out) < records_max and not state.paused:
                record = state.buffered.popleft()
                state.position = record.offset + 1
                state.leader_epoch = record.leader_epoch
                out.append(record)
            if not state.buffered and state.position is not None:
                state.position = max(state.position, state.fetch_offset)
        return out
