"""Records on their way out: batches by partition, ready when full or when they have lingered.

One batch a partition is in flight at a time, so that the sequences of an idempotent producer stay in order
whatever is retried (Kafka allows five; the accumulator trades that for simplicity, batches make up for it).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from ottla.common.topic_partition import TopicPartition

Header = tuple[str, bytes | None]
Record = tuple[bytes | None, bytes | None, int, tuple[Header, ...]]
"""key, value, timestamp in Unix milliseconds, headers"""

RECORD_OVERHEAD_BYTES = 24
"""More than the varints of a record need; a batch's size is an estimate until it is built."""


@dataclass(slots=True, eq=False)
class Batch:
    """Records of one partition that are sent together; `tokens` belong to the records, in order."""

    partition: TopicPartition
    created_ms: int
    records: list[Record] = field(default_factory=list)
    tokens: list[object] = field(default_factory=list)
    size_bytes: int = 0
    attempts: int = 0
    not_before_ms: int = 0
    base_sequence: int = -1
    producer_id: int = -1
    producer_epoch: int = -1


@dataclass(slots=True, kw_only=True)
class Accumulator:
    """Collects records and says what to send when. `linger_ms` 0 sends whatever is there at once."""

    batch_bytes_max: int
    linger_ms: int
    delivery_timeout_ms: int
    _queues: dict[TopicPartition, deque[Batch]] = field(default_factory=dict)
    _in_flight: set[TopicPartition] = field(default_factory=set)
    buffered_bytes: int = 0

    def append(self, partition: TopicPartition, record: Record, token: object, *, now_ms: int) -> bool:
        """Add a record; returns whether a batch is full now."""
        key, value, _, headers = record
        size = RECORD_OVERHEAD_BYTES + len(key or b"") + len(value or b"")
        size += sum(len(name) + len(content or b"") + 4 for name, content in headers)
        queue = self._queues.setdefault(partition, deque())
        # A batch that was sent once has its sequence: nothing may be added to it.
        if not queue or queue[-1].attempts or queue[-1].size_bytes + size > self.batch_bytes_max:
            queue.append(Batch(partition, now_ms))
        batch = queue[-1]
        batch.records.append(record)
        batch.tokens.append(token)
        batch.size_bytes += size
        self.buffered_bytes += size
        return batch.size_bytes >= self.batch_bytes_max or len(queue) > 1

    def drain(self, leaders: dict[TopicPartition, int], *, now_ms: int, flush: bool) -> dict[int, list[Batch]]:
        """Take what is ready out, by the node that leads. A partition without a leader keeps its batches."""
        ready: dict[int, list[Batch]] = {}
        for partition, queue in self._queues.items():
            leader = leaders.get(partition)
            if leader is None or not queue or partition in self._in_flight:
                continue
            if self._ready_ms(queue, flush=flush) <= now_ms:
                batch = queue.popleft()
                batch.attempts += 1
                self._in_flight.add(partition)
                ready.setdefault(leader, []).append(batch)
        return ready

    def _ready_ms(self, queue: deque[Batch], *, flush: bool) -> int:
        batch = queue[0]
        full = len(queue) > 1 or batch.size_bytes >= self.batch_bytes_max
        lingered_ms = 0 if full or flush or batch.attempts else batch.created_ms + self.linger_ms
        return max(lingered_ms, batch.not_before_ms)

    def next_ready_ms(self, *, flush: bool) -> int | None:
        """When `drain` may have something next, leaders permitting. None: nothing is waiting."""
        times = [
            self._ready_ms(queue, flush=flush)
            for partition, queue in self._queues.items()
            if queue and partition not in self._in_flight
        ]
        return min(times, default=None)

    def on_done(self, batch: Batch) -> None:
        """The batch was acknowledged, or given up."""
        self._in_flight.discard(batch.partition)
        self.buffered_bytes -= batch.size_bytes

    def on_retriable(self, batch: Batch, *, now_ms: int, backoff_ms: int) -> bool:
        """Put a batch back in front. Returns False once its delivery timeout has passed: it is given up then."""
        if now_ms - batch.created_ms >= self.delivery_timeout_ms:
            self.on_done(batch)
            return False
        batch.not_before_ms = now_ms + backoff_ms
        self._in_flight.discard(batch.partition)
        self._queues[batch.partition].appendleft(batch)
        return True

    def expire(self, *, now_ms: int) -> list[Batch]:
        """Take out the batches that waited longer than the delivery timeout without having been sent."""
        expired: list[Batch] = []
        for partition, queue in self._queues.items():
            while queue and partition not in self._in_flight:
                if now_ms - queue[0].created_ms < self.delivery_timeout_ms:
                    break
                batch = queue.popleft()
                self.on_done(batch)
                expired.append(batch)
        return expired

    def partitions(self) -> Iterable[TopicPartition]:
        """Partitions with something waiting."""
        return [partition for partition, queue in self._queues.items() if queue]

    @property
    def is_empty(self) -> bool:
        return not self._in_flight and not any(self._queues.values())
