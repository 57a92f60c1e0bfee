"""The partitions that a consumer reads: positions, what has been fetched and not handed out, and what to fetch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ottla.client.core.records import ConsumerRecord
from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic


class OffsetReset(Enum):
    """Where to start without a committed offset (Kafka: auto.offset.reset)."""

    EARLIEST = "earliest"
    LATEST = "latest"
    NONE = "none"


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
        self, partition: TopicPartition, *, fetch_offset: int, batches: list[Any], high_watermark: int
    ) -> None:
        """Take fetched batches in. An answer to a position that was left since is dropped."""
        state = self.partitions.get(partition)
        if state is None or state.fetch_offset != fetch_offset or state.reset is not None:
            return
        state.high_watermark = high_watermark
        for batch in batches:
            # Offsets vanish by compaction: the batch's last offset counts, not its records.
            state.fetch_offset = max(state.fetch_offset, batch.last_offset + 1)
            if batch.is_control:
                continue
            for record in batch.records:
                if record.offset >= fetch_offset:
                    state.buffered.append(
                        ConsumerRecord(
                            topic=partition.topic,
                            partition=partition.partition,
                            offset=record.offset,
                            timestamp_ms=record.timestamp,
                            key=record.key,
                            value=record.value,
                            headers=tuple(record.headers),
                            leader_epoch=batch.leader_epoch,
                        )
                    )
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
