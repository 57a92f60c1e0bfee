"""Each field wrong in turn: producing, fetching, offsets in logs, and what is deleted of them."""

from __future__ import annotations

from typing import Any

from ottla.protocol.messages.delete_records import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic
from ottla.protocol.messages.describe_producers import DescribeProducersRequest, TopicRequest
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic, ForgottenTopic, ReplicaState
from ottla.protocol.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from ottla.protocol.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from ottla.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from ottla.protocol.versions import ApiKey
from tests.golden.batch import Batch
from tests.golden.lab import Answer, Lab, probe, versions
from tests.golden.odd import odd
from tests.golden.probes.fetch import at, fetch, filled

BATCH = Batch().encode()
UNANSWERED = ["acks 0", "topic_data / partition_data / records null"]
"""By Kafka. In the second case a client waits for ever."""


def without_offsets(_lab: Lab, answer: Answer) -> Answer:
    """Offsets count up with each probe."""
    for topic in answer.get("responses", ()) if isinstance(answer, dict) else ():
        for partition in topic.get("partition_responses", ()):
            if "error_code" not in partition:
                partition.pop("base_offset", None)
    return answer


@odd(ApiKey.PRODUCE, least=3, most=12, reduce=without_offsets, leave_out=UNANSWERED)
def produced(lab: Lab, _name: str) -> Any:
    data = PartitionProduceData(index=0, records=BATCH)
    topic = TopicProduceData(name=lab.topic("odd-produced", partitions=2), partition_data=(data,))
    return ProduceRequest(acks=1, timeout_ms=5000, topic_data=(topic,))


@odd(ApiKey.PRODUCE, stem="-by-id", least=13, reduce=without_offsets, leave_out=UNANSWERED)
def produced_by_id(lab: Lab, _name: str) -> Any:
    data = PartitionProduceData(index=0, records=BATCH)
    topic_id = lab.topic_id(lab.topic("odd-produced", partitions=2))
    return ProduceRequest(
        acks=1, timeout_ms=5000, topic_data=(TopicProduceData(topic_id=topic_id, partition_data=(data,)),)
    )


def without_session(_lab: Lab, answer: Answer) -> Answer:
    """Ids of sessions are drawn by lot."""
    if isinstance(answer, dict) and "session_id" in answer:
        answer["session_id"] = "<session>"
    return answer


@odd(ApiKey.FETCH, most=12, reduce=without_session, leave_out=["max_wait_ms greatest"])
def fetched(lab: Lab, _name: str) -> Any:
    topic = filled(lab, "odd-filled")
    wanted = FetchTopic(topic=topic, partitions=(FetchPartition(partition=0, partition_max_bytes=1 << 20),))
    forgotten = ForgottenTopic(topic=topic, partitions=(0,))
    return FetchRequest(max_bytes=1 << 20, session_epoch=-1, topics=(wanted,), forgotten_topics_data=(forgotten,))


@odd(ApiKey.FETCH, stem="-by-id", least=13, reduce=without_session, leave_out=["max_wait_ms greatest"])
def fetched_by_id(lab: Lab, _name: str) -> Any:
    topic_id = lab.topic_id(filled(lab, "odd-filled"))
    wanted = FetchTopic(topic_id=topic_id, partitions=(FetchPartition(partition=0, partition_max_bytes=1 << 20),))
    forgotten = ForgottenTopic(topic_id=topic_id, partitions=(0,))
    return FetchRequest(
        max_bytes=1 << 20,
        session_epoch=-1,
        topics=(wanted,),
        forgotten_topics_data=(forgotten,),
        replica_state=ReplicaState(),
    )


@probe(each=[0, 4, 9, 100, -1])
def negative_limit_of_a_partition(lab: Lab, offset: int) -> Answer:
    """Looked at where there is something to read, behind all else."""
    topic = filled(lab, "odd-filled")
    found = [{}, {"current_leader_epoch": 3}, {"last_fetched_epoch": 0}, {"last_fetched_epoch": 9}]
    return [fetch(lab, topic, at(offset, max_bytes=-1, **fields)) for fields in found]


@odd(ApiKey.LIST_OFFSETS)
def listed_offsets(lab: Lab, _name: str) -> Any:
    partition = ListOffsetsPartition(partition_index=0, timestamp=-1)
    topic = ListOffsetsTopic(name=filled(lab, "odd-filled"), partitions=(partition,))
    return ListOffsetsRequest(replica_id=-1, topics=(topic,), timeout_ms=5000)


@odd(ApiKey.LIST_OFFSETS, stem="-by-time")
def listed_offsets_by_time(lab: Lab, _name: str) -> Any:
    partition = ListOffsetsPartition(partition_index=0, timestamp=12345)
    topic = ListOffsetsTopic(name=filled(lab, "odd-filled"), partitions=(partition,))
    return ListOffsetsRequest(replica_id=-1, topics=(topic,), timeout_ms=5000)


@probe(each=versions(ApiKey.LIST_OFFSETS))
def listed_offsets_of_several_entries(lab: Lab, version: int) -> Answer:
    topic = lab.topic("odd-produced", partitions=2)

    def ask(*entries: tuple[str, tuple[int, ...]], at: int = -2, **fields: Any) -> Answer:
        topics = tuple(
            ListOffsetsTopic(
                name=name, partitions=tuple(ListOffsetsPartition(partition_index=i, timestamp=at) for i in indexes)
            )
            for name, indexes in entries
        )
        return lab.ask(ApiKey.LIST_OFFSETS, ListOffsetsRequest(topics=topics, **fields), version=version)

    told = {
        "two entries": ask((topic, (0,)), (topic, (1,)), replica_id=-1),
        "one of them repeated": ask((topic, (0, 1)), (topic, (1,)), replica_id=-1),
        "one of them empty": ask((topic, ()), (topic, (1,)), replica_id=-1),
        "absent twice": ask((lab.name("absent"), (0,)), (lab.name("absent"), (0, 1)), replica_id=-1),
        "with an illegal one": ask(("a b", (0,)), (topic, (1,)), replica_id=-1),
        "as a replica": ask((topic, (0, 9)), (lab.name("absent"), (0,)), replica_id=3),
    }
    if version >= 2:
        told["no such level"] = ask((topic, (0, 9)), (lab.name("absent"), (0,)), replica_id=-1, isolation_level=2)
        told["no such level, by time"] = ask((topic, (0,)), replica_id=-1, isolation_level=-1, at=5)
    return told


@odd(ApiKey.OFFSET_FOR_LEADER_EPOCH)
def end_of_epoch(lab: Lab, _name: str) -> Any:
    partition = OffsetForLeaderPartition(partition=0, leader_epoch=0, current_leader_epoch=-1)
    topic = OffsetForLeaderTopic(topic=filled(lab, "odd-filled"), partitions=(partition,))
    return OffsetForLeaderEpochRequest(replica_id=-1, topics=(topic,))


@odd(ApiKey.DELETE_RECORDS)
def deleted_records(lab: Lab, _name: str) -> Any:
    topic = filled(lab, "odd-trimmed", partitions=2)
    partition = DeleteRecordsPartition(partition_index=0, offset=0)
    return DeleteRecordsRequest(topics=(DeleteRecordsTopic(name=topic, partitions=(partition,)),), timeout_ms=5000)


@probe(each=versions(ApiKey.DELETE_RECORDS))
def deleted_records_of_several_entries(lab: Lab, version: int) -> Answer:
    topic = filled(lab, "odd-trimmed", partitions=2)

    def ask(*entries: tuple[str, tuple[int, ...]], offset: int = 0) -> Answer:
        topics = tuple(
            DeleteRecordsTopic(
                name=name, partitions=tuple(DeleteRecordsPartition(partition_index=i, offset=offset) for i in indexes)
            )
            for name, indexes in entries
        )
        return lab.ask(ApiKey.DELETE_RECORDS, DeleteRecordsRequest(topics=topics, timeout_ms=5000), version=version)

    ask((topic, (0,)), offset=9)
    return [
        ask((topic, (0,)), (topic, (1,))),
        ask((topic, (0, 0, 9)), (topic, ()), ("a b", (0,)), (lab.name("absent"), ())),
        ask((topic, (1,)), offset=1),
        ask(("__consumer_offsets", (0, 99)), ("__cluster_metadata", (0,))),
    ]


@odd(ApiKey.DESCRIBE_PRODUCERS)
def described_producers(lab: Lab, _name: str) -> Any:
    return DescribeProducersRequest(topics=(TopicRequest(name=lab.topic("odd-empty"), partition_indexes=(0,)),))


@probe()
def described_producers_of_several_entries(lab: Lab) -> Answer:
    topic = lab.topic("odd-empty")

    def ask(*entries: tuple[str, tuple[int, ...]]) -> Answer:
        topics = tuple(TopicRequest(name=name, partition_indexes=indexes) for name, indexes in entries)
        return lab.ask(ApiKey.DESCRIBE_PRODUCERS, DescribeProducersRequest(topics=topics))

    return [
        ask((topic, (0, 5)), (topic, (0,))),
        ask(("a b", (0, 1)), (topic, (0,)), (lab.name("absent"), (0,)), ("", (0,))),
        ask(("__cluster_metadata", (0,))),
    ]
