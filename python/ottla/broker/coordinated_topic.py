"""An internal topic that a coordinator keeps its state in: making it, and coordinating where this broker leads it.

The topic is made when somebody first asks for a coordinator, and the answer waits until it is served: a client that
then goes on does not meet an error. Kafka answers COORDINATOR_NOT_AVAILABLE instead, and clients sleep.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import trio

from ottla._native import DataPlane, Partition, RecordBatch, build_batch, decode_batches
from ottla.broker.coordinator_runtime import Cut
from ottla.broker.event_log import EventLog
from ottla.broker.worker import in_thread
from ottla.coordinator.partitioning import partition_of
from ottla.coordinator.shard import CoordinatorRecord, Producer, TransactionEnd
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import MetadataImage
from ottla.protocol.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)

if TYPE_CHECKING:
    from ottla._native import Request, Written
    from ottla.broker.coordinator_runtime import CoordinatorRuntime

log = EventLog("coordinated_topic")

CREATE_TIMEOUT_MS: Final = 30_000


class NativePartitionLog:
    """A native partition as a shard's log."""

    def __init__(self, partition: Partition, *, compression: str, leader_epoch: int) -> None:
        self._partition = partition
        self._compression = compression
        self._leader_epoch = leader_epoch

    @property
    def is_compressed(self) -> bool:
        """Whether what is appended is compressed."""
        return self._compression != "none"

    def build(self, records: Sequence[CoordinatorRecord], *, wall_ms: int) -> bytes:
        """The batch that `append` appends outside of transactions."""
        return build_batch([(r.key, r.value, wall_ms, ()) for r in records], compression=self._compression)

    def append(self, records: Sequence[CoordinatorRecord], *, wall_ms: int, producer: Producer | None = None) -> int:
        if producer is None:
            batch, guard = self.build(records, wall_ms=wall_ms), None
        else:
            rows = [(r.key, r.value, wall_ms, ()) for r in records]
            guard = producer.guard
            batch = build_batch(
                rows,
                compression=self._compression,
                producer_id=producer.producer_id,
                producer_epoch=producer.producer_epoch,
                transactional=True,
            )
        base_offset, _ = self._partition.append_batch(
            batch, wall_ms=wall_ms, leader_epoch=self._leader_epoch, guard=guard
        )
        return base_offset

    def append_marker(self, end: TransactionEnd, *, wall_ms: int) -> int:
        appended = self._partition.append_marker(**end._asdict(), wall_ms=wall_ms, leader_epoch=self._leader_epoch)
        return appended.offset

    def let_write_stand(
        self,
        session_id: int,
        standing_id: int,
        request: Request,
        response: bytes,
        *,
        batch: bytes,
        holes: list[tuple[int, int, int]],
        clocks: list[int],
        timeout_ms: int,
    ) -> None:
        """As `ottla._native.Partition.let_write_stand`, in the epoch in which the shard was loaded."""
        self._partition.let_write_stand(
            session_id,
            standing_id,
            request,
            response,
            batch=batch,
            holes=holes,
            clocks=clocks,
            leader_epoch=self._leader_epoch,
            timeout_ms=timeout_ms,
        )

    def withdraw_writes(self, standing_ids: list[int]) -> None:
        """As `ottla._native.Partition.withdraw_writes`."""
        self._partition.withdraw_writes(standing_ids)

    def take_written(self) -> tuple[int, list[Written]]:
        """As `ottla._native.Partition.take_written`."""
        return self._partition.take_written()

    async def read(self, offset: int, *, bytes_max: int) -> Sequence[RecordBatch]:
        data = await in_thread(functools.partial(self._partition.read_records, offset, max_bytes=bytes_max))
        return decode_batches(data)

    def offsets(self) -> tuple[int, int, int]:
        found = self._partition.offsets()
        return found.log_start_offset, found.high_watermark, found.log_end_offset

    def take_cut(self) -> Cut | None:
        cut = self._partition.take_cut()
        return None if cut is None else Cut(*cut)


class CoordinatedTopic:
    """One internal topic, as its coordinator on this broker sees it."""

    def __init__(
        self,
        name: str,
        runtime: CoordinatorRuntime[Any],
        *,
        plane: DataPlane,
        node_id: int,
        image: Callable[[], MetadataImage],
        create_topics: Callable[[CreateTopicsRequest], Awaitable[CreateTopicsResponse]],
    ) -> None:
        """
        Args:
            runtime: Where the shards of the partitions that this broker leads are to run.
            image: The metadata now.
            create_topics: Has topics made; returns when they are served.
        """
        self.name = name
        self._runtime = runtime
        self._plane = plane
        self._node_id = node_id
        self._image = image
        self._create_topics = create_topics
        self._creating = trio.Lock()
        self._led: dict[int, tuple[uuid.UUID, int]] = {}
        """Topic id and leader epoch of the partitions that this broker leads."""
        self._logs: dict[int, NativePartitionLog] = {}
        """Of these partitions."""
        self._partition_count = 0

    def follow(self, image: MetadataImage, *, compression: str) -> None:
        """Lead and resign as the metadata says, once its partitions are served.

        Args:
            compression: Codec of what the shards that start now will append.
        """
        topic = image.topic(self.name)
        led: dict[int, tuple[uuid.UUID, int]] = {}
        if topic is not None:
            led = {
                i: (topic.topic_id, p.leader_epoch) for i, p in topic.partitions.items() if p.leader == self._node_id
            }
        self._partition_count = 0 if topic is None else len(topic.partitions)
        for partition in self._led.keys() - led.keys():
            self._stop(partition)
        for partition, lead in list(led.items()):
            if self._led.get(partition) != lead and not self._start(partition, lead[1], compression):
                del led[partition]
        self._led = led

    def _start(self, partition: int, leader_epoch: int, compression: str) -> bool:
        """Coordinate what lives in a partition; False if it is not served."""
        native = self._plane.partition(self.name, partition)
        if native is None:
            # It could not be opened, and whoever tried has said why: nobody coordinates what is in it until it can.
            self._stop(partition)
            return False
        native.watch()
        partition_log = self._logs[partition] = NativePartitionLog(
            native, compression=compression, leader_epoch=leader_epoch
        )
        self._runtime.start(partition, partition_log)
        return True

    def _stop(self, partition: int) -> None:
        self._logs.pop(partition, None)
        self._runtime.stop(partition)

    def log_of(self, partition: int) -> NativePartitionLog | None:
        """The log of a partition that this broker leads."""
        return self._logs.get(partition)

    def leader_epoch(self, partition: int) -> int | None:
        """The epoch in which this broker leads a partition; None: it does not."""
        lead = self._led.get(partition)
        return None if lead is None else lead[1]

    def partition_for(self, key: str) -> int:
        """Where an id lives. Raises: KafkaError (NOT_COORDINATOR: there is no topic yet, so nobody is)."""
        if not self._partition_count:
            raise KafkaError(ErrorCode.NOT_COORDINATOR)
        return partition_of(key, self._partition_count)

    def leader_of(self, partition: int) -> int:
        """The broker that coordinates what is in a partition; -1: none."""
        found = self._image().partition(self.name, partition)
        return -1 if found is None else found.leader

    async def ensure(self, *, partitions: int, replication_factor: int, configs: Mapping[str, str]) -> None:
        """Make the topic unless it is there. Raises: KafkaError (COORDINATOR_NOT_AVAILABLE)."""
        if self._partition_count:
            return
        async with self._creating:
            if self._partition_count:
                return
            topic = CreatableTopic(
                name=self.name,
                num_partitions=partitions,
                replication_factor=replication_factor,
                configs=tuple([CreatableTopicConfig(name=name, value=value) for name, value in configs.items()]),
            )
            response = await self._create_topics(CreateTopicsRequest(topics=(topic,), timeout_ms=CREATE_TIMEOUT_MS))
            (result,) = response.topics
            if result.error_code not in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS) or not self._partition_count:
                code, reason = result.error_code.name, result.error_message
                log.warning("internal_topic_not_created", topic=self.name, error=code, reason=reason)
                raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE)
