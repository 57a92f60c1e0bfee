"""What clients do to a broker that may be killed at any moment, and what they may expect to find afterwards.

Each thread keeps what it was promised; `check` compares that with what a broker serves.
"""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from ottla._native import build_batch, decode_batches
from ottla.errors import ErrorCode
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.metadata import MetadataRequest
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess
from tests.integration.wire import Closed, Wire

CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
LOST: Final = (Closed, OSError)
AGAIN: Final = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,  # it is not served yet
    ErrorCode.LEADER_NOT_AVAILABLE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_COORDINATOR,
}


class Client(threading.Thread, ABC):
    """One that comes back after each crash."""

    def __init__(self, broker: BrokerProcess, name: str) -> None:
        super().__init__(daemon=True, name=name)
        self.broker = broker
        self.failure: str | None = None
        self.promises = 0
        """How often something was acknowledged."""
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set() and self.failure is None:
            try:
                with Wire(self.broker.port) as wire:
                    while not self._stopping.is_set() and self.failure is None:
                        if self.step(wire):
                            self.promises += 1
                        else:
                            time.sleep(0.01)
            except LOST:
                time.sleep(0.01)
            except Exception as error:
                self.failure = f"{self.name}: {error!r}"

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    @abstractmethod
    def prepare(self, wire: Wire) -> None:
        """Make what is needed, before anything is killed."""

    @abstractmethod
    def step(self, wire: Wire) -> bool:
        """Ask for one thing; False: not now."""

    @abstractmethod
    def check(self, wire: Wire) -> None:
        """Compare what is served with what was promised, after `stop`."""


class Appender(Client):
    """Appends numbers to a topic of its own, each batch until it is acknowledged if idempotent, else once."""

    def __init__(
        self, broker: BrokerProcess, topic: str, *, codec: str = "none", idempotent: bool = False, **configs: str
    ) -> None:
        super().__init__(broker, topic)
        self.codec = codec
        self.idempotent = idempotent
        self.configs = configs
        self.acknowledged: list[int] = []
        self._chance = random.Random(topic)
        self._sent = 0
        self._producer: tuple[int, int] | None = None
        self._batch: tuple[list[int], bytes] | None = None

    def prepare(self, wire: Wire) -> None:
        wire.create_with(self.name, **self.configs)
        if self.idempotent:
            request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
            answer = wire.ask(ApiKey.INIT_PRODUCER_ID, 4, request)
            assert answer.error_code is ErrorCode.NONE
            self._producer = (answer.producer_id, answer.producer_epoch)

    def key(self, number: int) -> bytes | None:
        return None

    def _next_batch(self) -> tuple[list[int], bytes]:
        numbers = list(range(self._sent, self._sent + self._chance.randint(1, 5)))
        self._sent = numbers[-1] + 1
        now_ms = int(time.time() * 1000)
        records = [
            (self.key(n), b"%d:" % n + self._chance.randbytes(self._chance.choice((1, 100, 2000))), now_ms, ())
            for n in numbers
        ]
        producer_id, producer_epoch = self._producer or (-1, -1)
        batch = build_batch(
            records,
            compression=self.codec,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=numbers[0] if self.idempotent else -1,
        )
        return numbers, batch

    def step(self, wire: Wire) -> bool:
        if self._batch is None or not self.idempotent:
            self._batch = self._next_batch()
        numbers, batch = self._batch
        code = wire.produce_batch(self.name, batch).error_code
        if code in AGAIN:
            return False
        if code not in (ErrorCode.NONE, ErrorCode.DUPLICATE_SEQUENCE_NUMBER):
            self.failure = f"{self.name}: {code.name} for {numbers}"
            return False
        self.acknowledged += numbers
        self._batch = None
        return True

    def found(self, wire: Wire) -> list[tuple[int, int]]:
        """(offset, number) of every record."""
        found: list[tuple[int, int]] = []
        offset = 0
        while True:
            data = wire.fetch(self.name, offset)
            if data.error_code is ErrorCode.OFFSET_OUT_OF_RANGE and data.log_start_offset > offset:
                offset = data.log_start_offset
                continue
            if data.error_code is ErrorCode.OFFSET_OUT_OF_RANGE:
                offset += 1  # retention: from wherever the log starts
                continue
            assert data.error_code is ErrorCode.NONE, (self.name, data.error_code)
            batches = decode_batches(data.records or b"")
            if not batches:
                return found
            found += [
                (record[0], int((record[3] or b"").split(b":", 1)[0])) for batch in batches for record in batch.records
            ]
            offset = batches[-1].last_offset + 1

    def check(self, wire: Wire) -> None:
        numbers = [number for _, number in self.found(wire)]
        if self.idempotent:
            wanted = range(len(self.acknowledged))
            assert numbers[: len(wanted)] == list(wanted), f"{self.name}: every record once and in order"
            assert len(numbers) - len(wanted) <= 5, f"{self.name}: more than the batch that was not acknowledged"
        else:
            assert numbers == sorted(set(numbers)), f"{self.name}: in order"
            lost = set(self.acknowledged) - set(numbers)
            assert not lost, f"{self.name}: lost {sorted(lost)[:10]}"


class Forgetting(Appender):
    """Its topic keeps the newest records only."""

    def check(self, wire: Wire) -> None:
        numbers = [number for _, number in self.found(wire)]
        assert numbers == sorted(set(numbers)), f"{self.name}: in order"
        lost = {number for number in self.acknowledged if numbers and number >= numbers[0]} - set(numbers)
        assert not lost, f"{self.name}: lost {sorted(lost)[:10]}"
        assert numbers or not self.acknowledged


class Compacted(Appender):
    """Its topic keeps the newest record of each of a few keys."""

    KEYS = 50

    def key(self, number: int) -> bytes:
        return b"%d" % (number % self.KEYS)

    def check(self, wire: Wire) -> None:
        found = self.found(wire)
        offsets = [offset for offset, _ in found]
        assert offsets == sorted(set(offsets))
        numbers = [number for _, number in found]
        assert numbers == sorted(set(numbers)), f"{self.name}: in order"
        newest = {number % self.KEYS: number for number in numbers}
        for number in self.acknowledged:
            assert newest.get(number % self.KEYS, -1) >= number, f"{self.name}: {number} is lost"


class Churn(Client):
    """Makes topics, writes to them and deletes them."""

    def __init__(self, broker: BrokerProcess) -> None:
        super().__init__(broker, "churn")
        self.count = 0
        self.kept: dict[str, bytes] = {}
        self.deleted: set[str] = set()

    def prepare(self, wire: Wire) -> None:
        pass

    def step(self, wire: Wire) -> bool:
        self.count += 1
        topic, value = f"churn-{self.count}", b"value %d" % self.count
        wire.create(topic)
        batch = build_batch([(None, value, int(time.time() * 1000), ())])  # of today, or retention takes it
        if wire.produce_batch(topic, batch).error_code is not ErrorCode.NONE:
            self.failure = f"{topic} is not served right after its creation was answered"
            return False
        if self.count % 4 == 0:
            self.kept[topic] = value
            return True
        request = DeleteTopicsRequest(topics=(DeleteTopicState(name=topic),), timeout_ms=10_000)
        code = wire.ask(ApiKey.DELETE_TOPICS, 6, request).responses[0].error_code
        assert code is ErrorCode.NONE, code
        self.deleted.add(topic)
        return True

    def check(self, wire: Wire) -> None:
        served = {topic.name for topic in wire.ask(ApiKey.METADATA, 9, MetadataRequest(topics=None)).topics}
        assert not served & self.deleted, "a topic came back"
        for topic, value in self.kept.items():
            assert wire.values(topic) == [value]


class Committer(Client):
    """Commits rising offsets of a group without members."""

    def __init__(self, broker: BrokerProcess, group_id: str) -> None:
        super().__init__(broker, group_id)
        self.sent = -1
        self.acknowledged = -1

    def prepare(self, wire: Wire) -> None:
        wire.create("committed")
        wire.ask(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=(self.name,)))

    def step(self, wire: Wire) -> bool:
        self.sent += 1
        wanted = OffsetCommitRequestPartition(partition_index=0, committed_offset=self.sent)
        request = OffsetCommitRequest(
            group_id=self.name, topics=(OffsetCommitRequestTopic(name="committed", partitions=(wanted,)),)
        )
        code = wire.ask(ApiKey.OFFSET_COMMIT, 8, request).topics[0].partitions[0].error_code
        if code is ErrorCode.NONE:
            self.acknowledged = self.sent
        elif code not in AGAIN:
            self.failure = f"{self.name}: {code.name}"
        return code is ErrorCode.NONE

    def check(self, wire: Wire) -> None:
        request = OffsetFetchRequest(groups=(OffsetFetchRequestGroup(group_id=self.name, topics=None),))
        deadline_s = time.monotonic() + 10
        while (group := wire.ask(ApiKey.OFFSET_FETCH, 8, request).groups[0]).error_code in AGAIN:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        found = group.topics[0].partitions[0].committed_offset if group.topics else -1
        assert self.acknowledged <= found <= self.sent


SETTINGS: Final = {
    "log.cleaner.backoff.ms": "50",
    "log.retention.check.interval.ms": "100",
    "log.flush.offset.checkpoint.interval.ms": "200",
    "offsets.topic.num.partitions": "3",
    "ottla.log.dir.tail.max.bytes": "1000000",
}
"""Everything that happens behind clients' backs, often."""


def clients(broker: BrokerProcess) -> list[Client]:
    """All kinds of them."""
    rolling = {"segment_ms": "150"}
    return [
        *(Appender(broker, f"plain-{codec}", codec=codec, **rolling) for codec in CODECS),
        *(Appender(broker, f"idempotent-{codec}", codec=codec, idempotent=True, **rolling) for codec in CODECS),
        Appender(broker, "flushed", idempotent=True, flush_messages="1"),
        Forgetting(broker, "forgetting", segment_ms="100", retention_bytes="20000", file_delete_delay_ms="0"),
        Compacted(
            broker,
            "compacted",
            idempotent=True,
            cleanup_policy="compact",
            min_cleanable_dirty_ratio="0.01",
            segment_ms="100",
            file_delete_delay_ms="0",
        ),
        Churn(broker),
        Committer(broker, "committer"),
    ]


def leftover_directories(data_dir: Path, topics: set[str]) -> list[str]:
    """Partition directories of topics that were deleted."""
    return [path.name for path in data_dir.iterdir() if path.is_dir() and path.name.rsplit("-", 1)[0] in topics]
