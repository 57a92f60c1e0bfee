"""A transactional producer over one connection. As with the newest clients, producing to partitions adds them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ottla._native import build_batch, decode_batches
from ottla.errors import ErrorCode
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from ottla.protocol.versions import ApiKey
from tests.integration.wire import Wire

READ_COMMITTED = 1


@dataclass
class TransactionalProducer:
    wire: Wire
    name: str
    timeout_ms: int = 60_000
    producer_id: int = -1
    epoch: int = -1
    sequences: dict[tuple[str, int], int] = field(default_factory=dict)

    def init(self) -> TransactionalProducer:
        """Take the transactional id; whatever an earlier producer left open is aborted."""
        find = FindCoordinatorRequest(key_type=1, coordinator_keys=(self.name,))
        found = self.wire.ask(ApiKey.FIND_COORDINATOR, 4, find).coordinators[0]
        assert found.error_code is ErrorCode.NONE, found
        request = InitProducerIdRequest(
            transactional_id=self.name,
            transaction_timeout_ms=self.timeout_ms,
            producer_id=-1,
            producer_epoch=-1,
        )
        for _ in range(200):
            answer = self.wire.ask(ApiKey.INIT_PRODUCER_ID, 4, request)
            if answer.error_code is ErrorCode.NONE:
                self.producer_id, self.epoch = answer.producer_id, answer.producer_epoch
                self.sequences.clear()
                return self
            assert answer.error_code is ErrorCode.CONCURRENT_TRANSACTIONS, answer
            time.sleep(0.01)
        raise AssertionError("the transaction before does not end")

    def produce(self, topic: str, *values: bytes, partition: int = 0, version: int = 12) -> ErrorCode:
        at = (topic, partition)
        sequence = self.sequences.get(at, 0)
        batch = build_batch(
            [(None, value, round(time.time() * 1000), ()) for value in values],
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            base_sequence=sequence,
            transactional=True,
        )
        data = TopicProduceData(name=topic, partition_data=(PartitionProduceData(index=partition, records=batch),))
        request = ProduceRequest(transactional_id=self.name, acks=-1, timeout_ms=10_000, topic_data=(data,))
        answer = self.wire.ask(ApiKey.PRODUCE, version, request).responses[0].partition_responses[0]
        if answer.error_code is ErrorCode.NONE:
            self.sequences[at] = sequence + len(values)
        return answer.error_code  # type: ignore[no-any-return]

    def end(self, *, commit: bool) -> ErrorCode:
        request = EndTxnRequest(
            transactional_id=self.name, producer_id=self.producer_id, producer_epoch=self.epoch, committed=commit
        )
        answer = self.wire.ask(ApiKey.END_TXN, 5, request)
        if answer.error_code is ErrorCode.NONE:
            self.producer_id, self.epoch = answer.producer_id, answer.producer_epoch
            self.sequences.clear()
        return answer.error_code  # type: ignore[no-any-return]


def committed_values(wire: Wire, topic: str, *, until: int, partition: int = 0, timeout_s: float = 10) -> list[bytes]:
    """What a reader of committed records sees of a partition, once its last stable offset has reached `until`."""
    deadline = time.monotonic() + timeout_s
    while True:
        wanted = FetchPartition(partition=partition, fetch_offset=0, partition_max_bytes=1 << 20)
        request = FetchRequest(
            max_wait_ms=0,
            min_bytes=0,
            isolation_level=READ_COMMITTED,
            topics=(FetchTopic(topic=topic, partitions=(wanted,)),),
        )
        data = wire.ask(ApiKey.FETCH, 12, request).responses[0].partitions[0]
        assert data.error_code is ErrorCode.NONE, data
        if data.last_stable_offset >= until:
            break
        assert time.monotonic() < deadline, f"the last stable offset stays at {data.last_stable_offset}"
        time.sleep(0.01)
    aborted = [(a.producer_id, a.first_offset) for a in data.aborted_transactions or ()]
    batches = decode_batches(data.records or b"")
    markers = [(b.producer_id, b.base_offset) for b in batches if b.control]
    values = []
    for batch in batches:
        starts = [
            first for producer_id, first in aborted if producer_id == batch.producer_id and first <= batch.base_offset
        ]
        is_aborted = batch.transactional and any(
            not [
                at for producer_id, at in markers if producer_id == batch.producer_id and first < at < batch.base_offset
            ]
            for first in starts
        )
        if not batch.control and not is_aborted:
            values += [record[3] or b"" for record in batch.records]
    return values
