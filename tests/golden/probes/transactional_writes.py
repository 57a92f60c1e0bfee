"""What partitions and groups say to producers in transactions."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from ottla._native import build_batch
from ottla.errors import ErrorCode
from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from ottla.protocol.messages.add_partitions_to_txn import AddPartitionsToTxnRequest, AddPartitionsToTxnTopic
from ottla.protocol.messages.describe_producers import DescribeProducersRequest, TopicRequest
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from ottla.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe, versions

TIMESTAMP_MS = 1_700_000_000_000
RETRIED = {
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.CONCURRENT_TRANSACTIONS,
    ErrorCode.NOT_COORDINATOR,
}


@dataclasses.dataclass
class Transactional:
    """A producer with a transactional id, as the coordinator knows it."""

    lab: Lab
    transactional_id: str
    producer_id: int = -1
    epoch: int = -1

    def init(self) -> Transactional:
        """Take the transactional id (once more): another epoch."""
        self.lab.need(ApiKey.ADD_PARTITIONS_TO_TXN)
        self.lab.need(ApiKey.TXN_OFFSET_COMMIT)
        find = FindCoordinatorRequest(key_type=1, coordinator_keys=(self.transactional_id,))
        request = InitProducerIdRequest(transactional_id=self.transactional_id, transaction_timeout_ms=60_000)
        for _ in range(300):
            found = self.lab.call(ApiKey.FIND_COORDINATOR, find).coordinators[0]
            if found.error_code is ErrorCode.NONE:
                answer = self.lab.call(ApiKey.INIT_PRODUCER_ID, request, version=4)
                if answer.error_code is ErrorCode.NONE:
                    self.producer_id, self.epoch = answer.producer_id, answer.producer_epoch
                    return self
                assert answer.error_code in RETRIED, answer
            time.sleep(0.05)
        raise AssertionError("no transaction coordinator after 15 s")

    def add(self, topic: str, *partitions: int) -> None:
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=self.transactional_id,
            v3_and_below_producer_id=self.producer_id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=(AddPartitionsToTxnTopic(name=topic, partitions=partitions),),
        )
        for _ in range(100):
            answer = self.lab.call(ApiKey.ADD_PARTITIONS_TO_TXN, request, version=3)
            (result,) = answer.results_by_topic_v3_and_below
            errors = {p.partition_error_code for p in result.results_by_partition}
            if errors == {ErrorCode.NONE}:
                return
            assert errors <= RETRIED, answer
            time.sleep(0.05)
        raise AssertionError(errors)

    def end(self, *, commit: bool) -> None:
        """End the transaction as clients without transaction.version 2 do, and wait until its markers are written."""
        request = EndTxnRequest(
            transactional_id=self.transactional_id,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            committed=commit,
        )
        for _ in range(100):
            error = self.lab.call(ApiKey.END_TXN, request, version=3).error_code
            if error is ErrorCode.NONE:
                self.lab.wait_for_markers(self.transactional_id)
                return
            assert error in RETRIED, error
            time.sleep(0.05)
        raise AssertionError(error)

    def batch(self, sequence: int, *, epoch: int | None = None, transactional: bool = True, **fields: int) -> bytes:
        options: dict[str, Any] = {"producer_id": self.producer_id, **fields}
        return build_batch(
            [(b"k", b"v", TIMESTAMP_MS, ())],
            producer_epoch=self.epoch if epoch is None else epoch,
            base_sequence=sequence,
            transactional=transactional,
            **options,
        )

    def produce(
        self, version: int, topic: str, *batches: bytes, transactional_id: str | None = "its own", first: int = 0
    ) -> Answer:
        """Produce a batch to each of the topic's partitions from `first` on; returns errors and offsets."""
        its_own = self.transactional_id if transactional_id == "its own" else transactional_id
        named = {"topic_id": self.lab.topic_id(topic)} if version >= 13 else {"name": topic}
        data = tuple(PartitionProduceData(index=i, records=batch) for i, batch in enumerate(batches, first))
        request = ProduceRequest(
            transactional_id=its_own,
            acks=-1,
            timeout_ms=5_000,
            topic_data=(TopicProduceData(partition_data=data, **named),),
        )
        answer = self.lab.call(ApiKey.PRODUCE, request, version=version)
        found = [p for t in answer.responses for p in t.partition_responses]
        return [(p.error_code.name, p.base_offset) for p in sorted(found, key=lambda p: p.index)]


@probe(each=[3, 8, 9, 10, 11, 12, 13])
def produce(lab: Lab, version: int) -> Answer:
    """One transaction's whole life, with everything done wrong on the way."""
    topic = lab.topic(f"written-{version}", partitions=3)
    one = Transactional(lab, lab.name(f"producer-{version}")).init()
    other = Transactional(lab, lab.name(f"other-{version}")).init()
    adds = version >= 12
    answers: dict[str, Answer] = {}
    if not adds:
        answers["not added"] = one.produce(version, topic, one.batch(0))
        one.add(topic, 0)
        answers["one of two added"] = one.produce(version, topic, one.batch(0), one.batch(0))
    else:
        answers["unknown producer from 5 on"] = one.produce(version, topic, one.batch(5))
        answers["not added"] = one.produce(version, topic, one.batch(0))
    answers |= {
        "next": one.produce(version, topic, one.batch(1)),
        "again": one.produce(version, topic, one.batch(1)),
        "gap": one.produce(version, topic, one.batch(7)),
        "not transactional": one.produce(version, topic, one.batch(2, transactional=False)),
        "no transactional id": one.produce(version, topic, one.batch(2), transactional_id=None),
        "no transactional id, plain": other.produce(
            version, topic, other.batch(0, transactional=False), transactional_id=None
        ),
        "id without transactional records": one.produce(version, topic, build_batch([(b"k", b"v", TIMESTAMP_MS, ())])),
        "two producers": one.produce(version, topic, one.batch(2), other.batch(0)),
        "another's id, open": one.produce(version, topic, one.batch(2), transactional_id=other.transactional_id),
        "another's id, new": one.produce(
            version, topic, one.batch(3), one.batch(0), transactional_id=other.transactional_id
        ),
        "an id that nobody has": one.produce(
            version, topic, one.batch(4), one.batch(0), transactional_id=lab.name("nobody")
        ),
        "epoch that does not exist yet": one.produce(version, topic, one.batch(0, epoch=one.epoch + 5)),
    }
    one.end(commit=True)
    answers["after the end"] = one.produce(version, topic, one.batch(5))
    before = one.epoch
    one.init()
    answers["fenced, where it wrote"] = one.produce(version, topic, one.batch(5, epoch=before))
    answers["fenced, elsewhere"] = one.produce(version, topic, one.batch(0, epoch=before), first=2)
    return answers


def write(lab: Lab, version: int, topic: str, producer: Transactional, **fields: Any) -> Answer:
    """Write a marker into partitions 0 and 1 of a topic; returns the errors."""
    values: dict[str, Any] = {
        "producer_id": producer.producer_id,
        "producer_epoch": producer.epoch,
        "coordinator_epoch": 100,
        "transaction_result": True,
        "partitions": (0,),
        "transaction_version": 0,
        **fields,
    }
    partitions = values.pop("partitions")
    marker = WritableTxnMarker(topics=(WritableTxnMarkerTopic(name=topic, partition_indexes=partitions),), **values)
    answer = lab.call(ApiKey.WRITE_TXN_MARKERS, WriteTxnMarkersRequest(markers=(marker,)), version=version)
    found = [p for m in answer.markers for t in m.topics for p in t.partitions]
    return [p.error_code.name for p in sorted(found, key=lambda p: p.partition_index)]


def producers(lab: Lab, topic: str, *partitions: int) -> Answer:
    request = DescribeProducersRequest(topics=(TopicRequest(name=topic, partition_indexes=partitions),))
    answer = lab.call(ApiKey.DESCRIBE_PRODUCERS, request)
    return [
        {
            "partition": p.partition_index,
            "error": p.error_code.name,
            "producers": [
                {
                    "epoch": s.producer_epoch,
                    "last_sequence": s.last_sequence,
                    "coordinator_epoch": s.coordinator_epoch,
                    "current_txn_start_offset": s.current_txn_start_offset,
                }
                for s in p.active_producers
            ],
        }
        for t in answer.topics
        for p in t.partitions
    ]


@probe(each=[1, 2])
def markers(lab: Lab, version: int) -> Answer:
    """Markers from a client: right ones, late ones, and ones about nothing. Under transaction.version 0 and 2."""
    answers: dict[str, Answer] = {}
    for transaction_version in (0, 2) if version >= 2 else (0,):
        topic = lab.topic(f"marked-{version}-{transaction_version}", partitions=2)
        producer = Transactional(lab, lab.name(f"marked-{version}-{transaction_version}"), epoch=5)
        producer.producer_id = 700_000 + 10 * version + transaction_version
        first = build_batch(
            [(b"k", b"v", TIMESTAMP_MS, ())], producer_id=producer.producer_id, producer_epoch=5, base_sequence=0
        )
        producer.produce(9, topic, first, transactional_id=None)
        fields = {"transaction_version": transaction_version} if version >= 2 else {}
        answers[f"version {transaction_version}"] = [
            write(lab, version, topic, producer, producer_epoch=4, **fields),
            write(lab, version, topic, producer, producer_epoch=5, **fields),
            write(lab, version, topic, producer, producer_epoch=6, **fields),
            write(lab, version, topic, producer, producer_epoch=6, **fields),
            write(lab, version, topic, producer, producer_epoch=5, **fields),
            write(lab, version, topic, producer, producer_epoch=7, coordinator_epoch=99, **fields),
            write(lab, version, topic, producer, producer_epoch=7, coordinator_epoch=101, **fields),
            write(lab, version, topic, producer, producer_epoch=7, transaction_result=False, **fields),
            write(lab, version, topic, producer, partitions=(1, 2), **fields),
            write(lab, version, lab.name("absent"), producer, **fields),
            producers(lab, topic, 0, 1, 2),
            lab.end_offset(topic),
        ]
    answers["none"] = lab.ask(ApiKey.WRITE_TXN_MARKERS, WriteTxnMarkersRequest(), version=version)
    return answers


@probe()
def producers_in_transactions(lab: Lab) -> Answer:
    topic = lab.topic("described", partitions=2)
    one = Transactional(lab, lab.name("described")).init()
    one.add(topic, 0)
    answers = [one.produce(11, topic, one.batch(0)), producers(lab, topic, 0, 1, 7)]
    one.end(commit=False)
    after = producers(lab, topic, 0)
    for state in after[0]["producers"]:
        state["coordinator_epoch"] = state["coordinator_epoch"] >= 0
    return [*answers, after, producers(lab, lab.name("absent"), 0)]


def commit(lab: Lab, version: int, producer: Transactional, group: str, topic: str, **fields: Any) -> Answer:
    """Commit offset 5 of partition 0 in the producer's transaction; returns the errors."""
    partitions = fields.pop("partitions", (0,))
    metadata = fields.pop("metadata", "note")
    values: dict[str, Any] = {
        "transactional_id": producer.transactional_id,
        "group_id": group,
        "producer_id": producer.producer_id,
        "producer_epoch": producer.epoch,
        **fields,
    }
    wanted = tuple(
        TxnOffsetCommitRequestPartition(partition_index=p, committed_offset=5, committed_metadata=metadata)
        for p in partitions
    )
    request = TxnOffsetCommitRequest(topics=(TxnOffsetCommitRequestTopic(name=topic, partitions=wanted),), **values)
    answer = lab.call(ApiKey.TXN_OFFSET_COMMIT, request, version=version)
    found = [p for t in answer.topics for p in t.partitions]
    return [p.error_code.name for p in sorted(found, key=lambda p: p.partition_index)]


def fetched(lab: Lab, group: str, topic: str, *, stable: bool) -> Answer:
    wanted = OffsetFetchRequestGroup(
        group_id=group, topics=(OffsetFetchRequestTopics(name=topic, partition_indexes=(0,)),)
    )
    answer = lab.call(ApiKey.OFFSET_FETCH, OffsetFetchRequest(groups=(wanted,), require_stable=stable), version=9)
    return [(p.error_code.name, p.committed_offset) for t in answer.groups[0].topics for p in t.partitions]


@probe(each=versions(ApiKey.TXN_OFFSET_COMMIT))
def offsets(lab: Lab, version: int) -> Answer:
    topic = lab.topic("consumed", partitions=1)
    group = lab.name(f"consumers-{version}")
    one = Transactional(lab, lab.name(f"consumer-{version}")).init()
    other = Transactional(lab, lab.name(f"nobody-{version}"), producer_id=one.producer_id + 900, epoch=0)
    answers: dict[str, Answer] = {}
    if version < 5:
        answers["not added"] = commit(lab, version, one, group, topic)
        request = AddOffsetsToTxnRequest(
            transactional_id=one.transactional_id,
            producer_id=one.producer_id,
            producer_epoch=one.epoch,
            group_id=group,
        )
        answers["adding"] = lab.call(ApiKey.ADD_OFFSETS_TO_TXN, request, version=3).error_code.name
    answers |= {
        "epoch of the future": commit(lab, version, one, group, topic, producer_epoch=one.epoch + 1),
        "another id": commit(lab, version, one, group, topic, transactional_id=other.transactional_id),
        "another producer": commit(lab, version, one, group, topic, producer_id=other.producer_id),
        "good": commit(lab, version, one, group, topic),
        "pending": [fetched(lab, group, topic, stable=stable) for stable in (False, True)],
        "again": commit(lab, version, one, group, topic),
        "unknown topic": commit(lab, version, one, group, lab.name("absent")),
        "unknown partition": commit(lab, version, one, group, topic, partitions=(0, 1)),
        "long metadata": commit(lab, version, one, group, topic, metadata="x" * 4097),
        "null metadata": commit(lab, version, one, group, topic, metadata=None),
    }
    if version >= 3:
        answers |= {
            "a generation": commit(lab, version, one, group, topic, generation_id=3),
            "a member": commit(lab, version, one, group, topic, member_id="nobody"),
            "a member of a generation": commit(lab, version, one, group, topic, generation_id=3, member_id="nobody"),
            "an instance": commit(lab, version, one, group, topic, group_instance_id="nobody"),
        }
    one.end(commit=True)
    answers["committed"] = [fetched(lab, group, topic, stable=stable) for stable in (False, True)]
    before = one.epoch
    one.init()
    answers["fenced"] = commit(lab, version, one, group, topic, producer_epoch=before)
    return answers


@probe(each=[3, 5])
def offsets_of_no_group(lab: Lab, version: int) -> Answer:
    topic = lab.topic("consumed", partitions=1)
    one = Transactional(lab, lab.name(f"no-group-{version}")).init()
    return commit(lab, version, one, "", topic)
