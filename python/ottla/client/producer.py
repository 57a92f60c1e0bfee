"""SHELL. A producer: `send` puts a record into the accumulator, a task carries batches to the leaders."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Literal

import anyio

from ottla import _native
from ottla.client.connection import ConnectionLost
from ottla.client.core.accumulator import Accumulator, Batch, Header
from ottla.client.core.records import RecordMetadata
from ottla.client.network import RETRY_BACKOFF_MS, Network, parse_servers
from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from ottla.protocol.versions import ApiKey

PRODUCE_VERSION_MAX = 12
"""Topics by name; from 13 on they go by id."""

Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]


class Delivery:
    """A record on its way. `await delivery.wait()` gives where it went, or raises KafkaError."""

    __slots__ = ("_error", "_event", "_metadata")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._metadata: RecordMetadata | None = None
        self._error: KafkaError | None = None

    async def wait(self) -> RecordMetadata:
        await self._event.wait()
        if self._error is not None:
            raise self._error
        assert self._metadata is not None
        return self._metadata

    @property
    def is_done(self) -> bool:
        return self._event.is_set()

    def _finish(self, metadata: RecordMetadata | None, error: KafkaError | None) -> None:
        self._metadata, self._error = metadata, error
        self._event.set()


def now_ms() -> int:
    return int(anyio.current_time() * 1000)


class Producer:
    """`async with Producer("localhost:9092") as producer: await producer.send("topic", b"value", key=b"key")`.

    Idempotent unless told otherwise or acks is not "all": a retried batch is written once (KIP-98). Leaving the
    block flushes.
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        *,
        client_id: str = "ottla-producer",
        acks: Literal["all", 0, 1] = "all",
        enable_idempotence: bool | None = None,
        compression_type: Compression = "none",
        linger_ms: int = 5,
        batch_size: int = 256 * 1024,
        buffer_memory_bytes: int = 32 * 1024 * 1024,
        request_timeout_ms: int = 30_000,
        delivery_timeout_ms: int = 120_000,
    ) -> None:
        self._servers = parse_servers(bootstrap_servers)
        self._client_id = client_id
        self._acks = -1 if acks == "all" else acks
        if enable_idempotence and acks != "all":
            raise ValueError('an idempotent producer needs acks="all"')
        self._idempotent = acks == "all" if enable_idempotence is None else enable_idempotence
        self._compression = compression_type
        self._request_timeout_ms = request_timeout_ms
        self._delivery_timeout_ms = delivery_timeout_ms
        self._buffer_memory_bytes = buffer_memory_bytes
        self._accumulator = Accumulator(
            batch_bytes_max=batch_size, linger_ms=linger_ms, delivery_timeout_ms=delivery_timeout_ms
        )
        self._producer_id, self._producer_epoch = -1, -1
        self._sequences: dict[TopicPartition, int] = {}
        self._sticky: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        self._flushing = 0
        self._changed = anyio.Event()
        self._stack = AsyncExitStack()
        self._network: Network | None = None

    async def __aenter__(self) -> Producer:
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._network = Network(
            self._tasks, self._servers, client_id=self._client_id, request_timeout_ms=self._request_timeout_ms
        )
        self._tasks.start_soon(self._run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            if kind is None:
                await self.flush()
        finally:
            self._tasks.cancel_scope.cancel()
            await self._stack.aclose()
        return None

    @property
    def network(self) -> Network:
        if self._network is None:
            raise RuntimeError("the producer is used outside its `async with` block")
        return self._network

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[Header] = (),
        timestamp_ms: int | None = None,
    ) -> Delivery:
        """Take a record; waits only for metadata and for room in the buffer. Raises KafkaError."""
        network = self.network
        count = network.view.partition_count(topic)
        if count is None:
            await network.refresh_until_known([topic], auto_create=True, timeout_ms=self._request_timeout_ms)
            count = network.view.partition_count(topic)
            assert count is not None
        target = TopicPartition(topic, self._choose(topic, key, count) if partition is None else partition)
        if target.partition not in network.view.topics[topic].partitions:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"{target} does not exist")
        while self._accumulator.buffered_bytes > self._buffer_memory_bytes:
            await self._changed.wait()
        delivery = Delivery()
        stamp_ms = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
        record = (key, value, stamp_ms, tuple(headers))
        was_empty = self._accumulator.next_ready_ms(flush=False) is None
        full = self._accumulator.append(target, record, delivery, now_ms=now_ms())
        if full:
            self._sticky.pop(topic, None)
        if full or was_empty:
            self._wake()
        return delivery

    async def send_and_wait(self, topic: str, value: bytes | None, **how: object) -> RecordMetadata:
        """`send`, then wait until the record is acknowledged."""
        return await (await self.send(topic, value, **how)).wait()  # type: ignore[arg-type]

    def _choose(self, topic: str, key: bytes | None, count: int) -> int:
        if key is not None:
            return (_native.murmur2(key) & 0x7FFFFFFF) % count
        # Without a key a whole batch goes to one partition, then the next (KIP-480).
        sticky = self._sticky.get(topic)
        if sticky is None:
            self._turns[topic] = self._turns.get(topic, -1) + 1
            sticky = self._sticky[topic] = self._turns[topic] % count
        return sticky

    async def flush(self) -> None:
        """Send all that is there without lingering and wait until it is acknowledged or given up."""
        self._flushing += 1
        self._wake()
        try:
            while not self._accumulator.is_empty:
                await self._changed.wait()
        finally:
            self._flushing -= 1

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _run(self) -> None:
        while True:
            changed = self._changed
            for batch in self._accumulator.expire(now_ms=now_ms()):
                text = f"{batch.partition}: not sent within {self._delivery_timeout_ms} ms"
                self._finish_tokens(batch, None, KafkaError(ErrorCode.REQUEST_TIMED_OUT, text))
            waiting = self._accumulator.partitions()
            leaders = {p: leader for p in waiting if (leader := self.network.view.leader(p)) is not None}
            if len(leaders) < len(set(waiting)):
                await self._refresh({p.topic for p in waiting})
            drained = self._accumulator.drain(leaders, now_ms=now_ms(), flush=self._flushing > 0)
            for node_id, batches in drained.items():
                self._tasks.start_soon(self._send_batches, node_id, batches)
            due_ms = self._accumulator.next_ready_ms(flush=self._flushing > 0)
            if due_ms is None:
                await changed.wait()
            else:
                pause_ms = max(due_ms - now_ms(), 0 if drained else 1)
                if len(leaders) < len(set(waiting)):
                    pause_ms = max(pause_ms, RETRY_BACKOFF_MS)
                with anyio.move_on_after(pause_ms / 1000):
                    await changed.wait()

    async def _refresh(self, topics: set[str]) -> None:
        try:
            await self.network.refresh(topics)
        except KafkaError:
            # The brokers are away: what waits stays until its delivery timeout says otherwise.
            await anyio.sleep(RETRY_BACKOFF_MS / 1000)

    async def _send_batches(self, node_id: int, batches: list[Batch]) -> None:
        try:
            await self._ensure_producer_id()
            for batch in batches:
                self._stamp(batch)
            topics: dict[str, list[PartitionProduceData]] = {}
            for batch in batches:
                data = PartitionProduceData(index=batch.partition.partition, records=self._build(batch))
                topics.setdefault(batch.partition.topic, []).append(data)
            message = ProduceRequest(
                acks=self._acks,
                timeout_ms=self._request_timeout_ms,
                topic_data=tuple(TopicProduceData(name=t, partition_data=tuple(d)) for t, d in topics.items()),
            )
            if self._acks == 0:
                await self.network.send_unanswered(node_id, ApiKey.PRODUCE, message)
                for batch in batches:
                    self._finish(batch, PartitionProduceResponse(base_offset=-1), None)
                return
            response: ProduceResponse = await self.network.send(
                node_id, ApiKey.PRODUCE, message, version_max=PRODUCE_VERSION_MAX
            )
        except KafkaError as error:
            if isinstance(error, ConnectionLost):
                await self._refresh({b.partition.topic for b in batches})
            for batch in batches:
                self._retry_or_fail(batch, error)
            return
        finally:
            self._wake()
        answers = {(t.name, p.index): p for t in response.responses for p in t.partition_responses}
        for batch in batches:
            self._on_answer(batch, answers.get((batch.partition.topic, batch.partition.partition)))
        self._wake()

    async def _ensure_producer_id(self) -> None:
        if not self._idempotent or self._producer_id >= 0:
            return
        message = InitProducerIdRequest(transaction_timeout_ms=60_000, producer_id=-1, producer_epoch=-1)
        response: InitProducerIdResponse = await self.network.send_any(ApiKey.INIT_PRODUCER_ID, message)
        if response.error_code is not ErrorCode.NONE:
            raise KafkaError(response.error_code, "InitProducerId")
        if self._producer_id < 0:
            self._producer_id, self._producer_epoch = response.producer_id, response.producer_epoch
            self._sequences.clear()

    def _stamp(self, batch: Batch) -> None:
        if self._idempotent and batch.base_sequence < 0:
            batch.producer_id, batch.producer_epoch = self._producer_id, self._producer_epoch
            batch.base_sequence = self._sequences.get(batch.partition, 0)
            self._sequences[batch.partition] = (batch.base_sequence + len(batch.records)) & 0x7FFFFFFF

    def _build(self, batch: Batch) -> bytes:
        return _native.build_batch(
            batch.records,
            compression=self._compression,
            producer_id=batch.producer_id,
            producer_epoch=batch.producer_epoch,
            base_sequence=batch.base_sequence,
        )

    def _on_answer(self, batch: Batch, answer: PartitionProduceResponse | None) -> None:
        if answer is None:
            self._retry_or_fail(batch, ConnectionLost(f"{batch.partition} is missing from the response"))
        elif answer.error_code in (ErrorCode.NONE, ErrorCode.DUPLICATE_SEQUENCE_NUMBER):
            self._finish(batch, answer, None)
        else:
            details = "; ".join(r.batch_index_error_message or "" for r in answer.record_errors)
            text = f"{batch.partition}: {answer.error_message or answer.error_code.name} {details}".strip()
            self._retry_or_fail(batch, KafkaError(answer.error_code, text))
            if answer.error_code.retriable:
                self._tasks.start_soon(self._refresh, {batch.partition.topic})

    def _retry_or_fail(self, batch: Batch, error: KafkaError) -> None:
        if error.retriable:
            if self._accumulator.on_retriable(batch, now_ms=now_ms(), backoff_ms=RETRY_BACKOFF_MS):
                return
        else:
            self._accumulator.on_done(batch)
        self._finish_tokens(batch, None, error)
        if self._idempotent and self._acks == -1:
            # The sequence has a gap now: a new producer id starts all partitions at 0 again.
            self._producer_id = -1

    def _finish(self, batch: Batch, answer: PartitionProduceResponse | None, error: KafkaError | None) -> None:
        self._accumulator.on_done(batch)
        self._finish_tokens(batch, answer, error)

    def _finish_tokens(self, batch: Batch, answer: PartitionProduceResponse | None, error: KafkaError | None) -> None:
        topic, partition = batch.partition
        for i, (token, record) in enumerate(zip(batch.tokens, batch.records, strict=True)):
            assert isinstance(token, Delivery)
            metadata = None
            if answer is not None:
                offset = -1 if answer.base_offset < 0 else answer.base_offset + i
                stamp_ms = answer.log_append_time_ms if answer.log_append_time_ms >= 0 else record[2]
                metadata = RecordMetadata(topic=topic, partition=partition, offset=offset, timestamp_ms=stamp_ms)
            token._finish(metadata, error)
        self._wake()
