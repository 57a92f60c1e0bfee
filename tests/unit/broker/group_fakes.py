"""A group coordinator's shell without a data plane: logs in lists, Trio's mock clock, handlers called directly."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import trio

from ottla.broker.coordinator_runtime import AppendedElsewhere, CoordinatorRuntime, Cut
from ottla.broker.handlers import handler_of, respond
from ottla.common.topics import CONSUMER_OFFSETS
from ottla.coordinator.group.config import GroupConfig
from ottla.coordinator.group.machine import GroupMachine
from ottla.coordinator.partitioning import partition_of
from ottla.coordinator.shard import CoordinatorRecord, Instant, Producer, TransactionEnd
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import MetadataImage, PartitionRegistration, TopicImage, frozen
from ottla.protocol.codec import decode_request, decode_response, encode_request, encode_response
from ottla.protocol.versions import ApiKey

WALL_START_MS = 1_750_000_000_000
NODE_ID = 1
PARTITIONS = 5
MARKER_KEYS = {False: b"\0\0\0\0", True: b"\0\0\0\1"}
"""Keys of control records, by whether they commit."""


def instant() -> Instant:
    now_ms = round(trio.current_time() * 1000)
    return Instant(now_ms, WALL_START_MS + now_ms)


@dataclass
class FakeBatch:
    """What a read of a log in a list returns: one batch a record."""

    base_offset: int
    records: list[tuple[int, int, bytes | None, bytes | None, tuple[()]]]
    control: bool = False
    transactional: bool = False
    producer_id: int = -1

    @property
    def last_offset(self) -> int:
        return self.base_offset + len(self.records) - 1


@dataclass
class FakeLog:
    """A partition's log. It commits at once, or when told to."""

    records: list[CoordinatorRecord] = field(default_factory=list)
    high_watermark: int = 0
    holding: bool = False
    error: ErrorCode | None = None
    read_error: Exception | None = None
    on_moved: Any = None
    batches: list[FakeBatch] | None = None
    """Read instead of `records`."""
    read_delay_s: float = 0
    lost: Cut | None = None

    def append(self, records: Sequence[CoordinatorRecord], *, wall_ms: int, producer: Producer | None = None) -> int:
        if self.error is not None:
            raise KafkaError(self.error)
        if self.lost is not None:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)
        base_offset = len(self.records)
        self.records += records
        if not self.holding:
            # As in the broker, the high watermark moves after the append has returned.
            trio.lowlevel.current_trio_token().run_sync_soon(self.commit)
        return base_offset

    def append_marker(self, end: TransactionEnd, *, wall_ms: int) -> int:
        return self.append([CoordinatorRecord(MARKER_KEYS[end.commit], b"")], wall_ms=wall_ms)

    def commit(self) -> None:
        self.high_watermark = len(self.records)
        self.on_moved()

    def cut(self, end_offset: int) -> None:
        self.lose(end_offset)
        self.on_moved()

    def lose(self, end_offset: int, *, is_reloaded: bool = False) -> None:
        """Lose what lies behind, before anybody is told."""
        del self.records[end_offset:]
        self.lost = Cut(end_offset, is_reloaded)

    def take_cut(self) -> Cut | None:
        lost, self.lost = self.lost, None
        return lost

    async def read(self, offset: int, *, bytes_max: int) -> Sequence[FakeBatch]:
        await trio.sleep(self.read_delay_s)
        if self.read_error is not None:
            raise self.read_error
        if self.batches is not None:
            return [b for b in self.batches if b.last_offset >= offset][:1]
        found = self.records[offset : min(offset + 2, self.high_watermark)]
        return [FakeBatch(offset + i, [(offset + i, 0, r.key, r.value, ())]) for i, r in enumerate(found)]

    def offsets(self) -> tuple[int, int, int]:
        return 0, self.high_watermark, len(self.records)


class FakeCoordinator:
    """As `GroupCoordinator`, over such logs."""

    topic = SimpleNamespace(name=CONSUMER_OFFSETS)

    def __init__(
        self,
        config: GroupConfig | None = None,
        take_appended: Callable[[int], AppendedElsewhere | None] = lambda _: None,
    ) -> None:
        self.logs = [FakeLog() for _ in range(PARTITIONS)]
        self.runtime: CoordinatorRuntime[GroupMachine] = CoordinatorRuntime(
            CONSUMER_OFFSETS,
            lambda: GroupMachine(config or GroupConfig()),
            write_timeout_ms=5_000,
            take_appended=take_appended,
            clock=instant,
            to_trio_time=lambda deadline_ms: deadline_ms / 1000,
        )
        for i, each in enumerate(self.logs):
            each.on_moved = lambda i=i: self.runtime.on_partition_moved(i)

    def start_all(self) -> None:
        for i, each in enumerate(self.logs):
            self.runtime.start(i, each)

    async def ensure_topic(self) -> None:
        return

    def partition_for(self, group_id: str) -> int:
        return partition_of(group_id, PARTITIONS)

    def leader_of(self, partition: int) -> int:
        return NODE_ID


def image_of(topics: Mapping[str, tuple[uuid.UUID, int]]) -> MetadataImage:
    """An image with these topics: name to id and number of partitions, all led by this broker."""
    images = {
        topic_id: TopicImage(
            name=name,
            topic_id=topic_id,
            partitions={
                i: PartitionRegistration(
                    replicas=(NODE_ID,), isr=(NODE_ID,), leader=NODE_ID, leader_epoch=0, partition_epoch=0
                )
                for i in range(count)
            },
        )
        for name, (topic_id, count) in topics.items()
    }
    return MetadataImage(topics=frozen(images), topic_ids=frozen({t.name: i for i, t in images.items()}))


class FakeBroker:
    """Calls the handlers as dispatch does, through the wire's encoding of each version."""

    def __init__(self, image: MetadataImage, config: GroupConfig | None = None) -> None:
        self.coordinator = FakeCoordinator(config)
        self.transactions = None
        self.metadata = SimpleNamespace(image=image, out_of_reach={})
        self.node_id = NODE_ID

    async def call(self, api: ApiKey, version: int, message: Any, *, client_id: str | None = "client") -> Any:
        context = SimpleNamespace(
            broker=self,
            version=version,
            client_id=client_id,
            connection=SimpleNamespace(peer=("127.0.0.1", 4242)),
            advertised_endpoint=lambda: ("127.0.0.1", 9092),
        )
        request = decode_request(api, version, encode_request(api, version, message))
        try:
            response = await respond(handler_of(api), context, request)
        except KafkaError as error:
            from ottla.broker.dispatch import failure

            response = failure(api, error.code, error.message)
        return decode_response(api, version, encode_response(api, version, response))
