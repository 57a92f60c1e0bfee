"""Fetch: ranges, errors, sessions."""

from __future__ import annotations

import uuid
from typing import Any

from ottla.protocol.messages.delete_records import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic, ForgottenTopic, ReplicaState
from ottla.protocol.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from ottla.protocol.versions import ApiKey
from tests.golden.batch import GZIP, ZSTD, Batch, values
from tests.golden.lab import Answer, Lab, probe, versions
from tests.golden.wire import Connection

BATCH = Batch(records=values(b"a", b"b", b"c")).encode()


def filled(lab: Lab, stem: str = "filled", *, partitions: int = 1, **configs: str) -> str:
    """A topic with three batches of three records in partition 0."""
    topic = lab.topic(stem, partitions=partitions, **configs)
    if lab.end_offset(topic) == 0:
        lab.produce(topic, BATCH, BATCH, BATCH)
    return topic


def wanted(lab: Lab, topic: str, version: int, *partitions: FetchPartition) -> FetchTopic:
    if version >= 13:
        return FetchTopic(topic_id=lab.topic_id(topic), partitions=partitions)
    return FetchTopic(topic=topic, partitions=partitions)


def at(offset: int, *, partition: int = 0, max_bytes: int = 1 << 20, **fields: Any) -> FetchPartition:
    return FetchPartition(partition=partition, fetch_offset=offset, partition_max_bytes=max_bytes, **fields)


def fetch(
    lab: Lab, topic: str, *partitions: FetchPartition, version: int = 12, max_wait_ms: int = 50, **fields: Any
) -> Answer:
    request = FetchRequest(max_wait_ms=max_wait_ms, topics=(wanted(lab, topic, version, *partitions),), **fields)
    return lab.ask(ApiKey.FETCH, request, version=version)


@probe(each=versions(ApiKey.FETCH))
def each_version(lab: Lab, version: int) -> Answer:
    topic = filled(lab)
    return {
        "first": fetch(lab, topic, at(0), version=version),
        "middle of a batch": fetch(lab, topic, at(4), version=version),
        "end": fetch(lab, topic, at(9), version=version),
        "beyond": fetch(lab, topic, at(10), version=version),
        "unknown partition": fetch(lab, topic, at(0, partition=5), version=version),
        "committed": fetch(lab, topic, at(0), version=version, isolation_level=1),
    }


@probe(each=[-1, -2, -9223372036854775808, 9223372036854775807])
def offset_out_of_range(lab: Lab, offset: int) -> Answer:
    return fetch(lab, filled(lab), at(offset))


@probe(each=[4, 12])
def unknown_topic(lab: Lab, version: int) -> Answer:
    return fetch(lab, lab.name("absent"), at(0), version=version)


@probe(each=["unknown", "zero", "of a deleted topic"])
def unknown_topic_id(lab: Lab, kind: str) -> Answer:
    topic_id = None if kind == "zero" else uuid.UUID(int=0x77 << 64)
    topic = FetchTopic(topic_id=topic_id, partitions=(at(0),))
    return lab.ask(ApiKey.FETCH, FetchRequest(max_wait_ms=50, topics=(topic,)), version=17)


@probe(each=[0, 1, 60, 61, 150, 250, 1 << 20])
def partition_max_bytes(lab: Lab, max_bytes: int) -> Answer:
    """The first batch is returned even if larger."""
    return fetch(lab, filled(lab), at(0, max_bytes=max_bytes))


@probe(each=[0, 1, 150, 1 << 20, 2147483647])
def max_bytes(lab: Lab, max_bytes: int) -> Answer:
    return fetch(lab, filled(lab), at(0), max_bytes=max_bytes)


@probe()
def max_bytes_over_partitions(lab: Lab) -> Answer:
    topic = lab.topic("two-filled", partitions=2)
    lab.produce(topic, BATCH, BATCH)
    lab.produce(topic, BATCH, BATCH, partition=1)
    return [
        fetch(lab, topic, at(0), at(0, partition=1), max_bytes=1),
        fetch(lab, topic, at(0, max_bytes=1), at(0, partition=1, max_bytes=1)),
        fetch(lab, topic, at(0), at(0, partition=1), max_bytes=200),
        fetch(lab, topic, at(4), at(0, partition=1), max_bytes=1),
    ]


@probe(each=[-1, 0])
def negative_limits(lab: Lab, size: int) -> Answer:
    topic = filled(lab)
    return [fetch(lab, topic, at(0, max_bytes=size)), fetch(lab, topic, at(0), max_wait_ms=size, min_bytes=size)]


@probe(each=[-2, -1, 0, 1, 5])
def current_leader_epoch(lab: Lab, epoch: int) -> Answer:
    topic = filled(lab)
    return [fetch(lab, topic, at(0, current_leader_epoch=epoch), version=version) for version in (9, 12, 17)]


@probe(each=[-1, 0, 1, 9])
def last_fetched_epoch(lab: Lab, epoch: int) -> Answer:
    topic = filled(lab)
    return [fetch(lab, topic, at(offset, last_fetched_epoch=epoch)) for offset in (0, 4, 9, 12)]


@probe(each=[0, 1, 7, -2, -3])
def replica_id(lab: Lab, replica: int) -> Answer:
    """A consumer that says it is a replica."""
    topic = filled(lab)
    state = ReplicaState(replica_id=replica)
    return [
        fetch(lab, topic, at(0), version=12, replica_id=replica),
        fetch(lab, topic, at(0), version=17, replica_state=state),
    ]


@probe(each=[-1, 2, 5])
def isolation_level(lab: Lab, level: int) -> Answer:
    return fetch(lab, filled(lab), at(0), isolation_level=level)


@probe(each=["twice in a topic", "topic twice"])
def partition_twice(lab: Lab, kind: str) -> Answer:
    topic = filled(lab)
    entries = [(at(0), at(3))] if kind == "twice in a topic" else [(at(0),), (at(3),)]
    topics = tuple(FetchTopic(topic=topic, partitions=partitions) for partitions in entries)
    return lab.ask(ApiKey.FETCH, FetchRequest(max_wait_ms=50, topics=topics), version=12)


@probe()
def below_the_log_start(lab: Lab) -> Answer:
    topic = filled(lab, "trimmed")
    partition = DeleteRecordsPartition(partition_index=0, offset=4)
    request = DeleteRecordsRequest(topics=(DeleteRecordsTopic(name=topic, partitions=(partition,)),), timeout_ms=5000)
    trimmed = lab.ask(ApiKey.DELETE_RECORDS, request)
    return [trimmed, *[fetch(lab, topic, at(offset)) for offset in (0, 3, 4, 9)]]


@probe(each=[4, 9, 10, 12])
def zstd_in_each_version(lab: Lab, version: int) -> Answer:
    topic = lab.topic(f"zstd-fetch-{version}")
    lab.produce(topic, Batch(attributes=GZIP).encode(), Batch(attributes=ZSTD).encode())
    answer = fetch(lab, topic, at(0), version=version)
    return [without_size(answer), without_size(fetch(lab, topic, at(1), version=version))]


def without_size(answer: Answer) -> Answer:
    """Compressors differ in what they make of the same records."""
    for batch in answer["responses"][0]["partitions"][0].get("records") or []:
        del batch["size"]
    return answer


@probe(each=[4, 12])
def zstd_topic_in_each_version(lab: Lab, version: int) -> Answer:
    topic = lab.topic("zstd-topic", compression_type="zstd")
    lab.produce(topic, BATCH)
    return without_size(fetch(lab, topic, at(0), version=version))


class Session:
    """One incremental fetch session (KIP-227) on one connection, told step by step."""

    def __init__(self, lab: Lab, connection: Connection) -> None:
        self.lab, self.connection = lab, connection
        self.session_id = 0

    def fetch(
        self,
        epoch: int,
        *topics: FetchTopic,
        session_id: int | None = None,
        version: int = 12,
        forgotten: tuple[ForgottenTopic, ...] = (),
    ) -> Answer:
        request = FetchRequest(
            max_wait_ms=50,
            min_bytes=1,
            session_id=self.session_id if session_id is None else session_id,
            session_epoch=epoch,
            topics=topics,
            forgotten_topics_data=forgotten,
        )
        answer = self.connection.call(ApiKey.FETCH, version, request)
        found = self.lab.plain(answer)
        if answer.session_id:
            known, self.session_id = self.session_id, answer.session_id
            found["session_id"] = "<same>" if known == answer.session_id else "<new>"
        return found


@probe()
def session_life(lab: Lab) -> Answer:
    topic = filled(lab, "session", partitions=3)
    with lab.connect() as connection:
        session = Session(lab, connection)
        whole = FetchTopic(topic=topic, partitions=(at(0), at(0, partition=1), at(0, partition=2)))
        told = [["create", session.fetch(0, whole)]]
        told += [["nothing new", session.fetch(1)]]
        told += [["move on", session.fetch(2, FetchTopic(topic=topic, partitions=(at(9),)))]]
        told += [["nothing again", session.fetch(3)]]
        lab.produce(topic, BATCH, partition=1)
        told += [["one has news", session.fetch(4)]]
        told += [["and still has", session.fetch(5)]]
        told += [["other limits", session.fetch(6, FetchTopic(topic=topic, partitions=(at(0, max_bytes=1),)))]]
        forgotten = (ForgottenTopic(topic=topic, partitions=(0, 1)),)
        told += [["forget", session.fetch(7, forgotten=forgotten)]]
        told += [["forget what is not in it", session.fetch(8, forgotten=forgotten)]]
        told += [["out of range", session.fetch(9, FetchTopic(topic=topic, partitions=(at(99, partition=2),)))]]
        told += [["back in range", session.fetch(10, FetchTopic(topic=topic, partitions=(at(0, partition=2),)))]]
        told += [["unknown partition", session.fetch(11, FetchTopic(topic=topic, partitions=(at(0, partition=8),)))]]
        told += [["wrong epoch", session.fetch(99)]]
        told += [["right epoch after a wrong one", session.fetch(12)]]
        told += [["close", session.fetch(-1)]]
        told += [["after the end", session.fetch(13)]]
    return told


@probe()
def session_errors(lab: Lab) -> Answer:
    topic = filled(lab)
    whole = FetchTopic(topic=topic, partitions=(at(0),))
    with lab.connect() as connection:
        session = Session(lab, connection)
        return [
            ["unknown", session.fetch(5, whole, session_id=123456)],
            ["no session but an epoch", session.fetch(5, whole, session_id=0)],
            ["close an unknown one", session.fetch(-1, whole, session_id=123456)],
            ["create with an unknown id", session.fetch(0, whole, session_id=123456)],
            ["without a session", session.fetch(-1, whole, session_id=0)],
            ["negative epoch", session.fetch(-2, whole, session_id=0)],
            ["create with nothing", session.fetch(0, session_id=0)],
        ]


@probe()
def session_with_everything_forgotten(lab: Lab) -> Answer:
    topic = filled(lab)
    with lab.connect() as connection:
        session = Session(lab, connection)
        told = [session.fetch(0, FetchTopic(topic=topic, partitions=(at(0),)))]
        told += [session.fetch(1, forgotten=(ForgottenTopic(topic=topic, partitions=(0,)),))]
        told += [session.fetch(2)]
    return told


@probe()
def session_of_topic_ids(lab: Lab) -> Answer:
    topic = filled(lab)
    topic_id = lab.topic_id(topic)
    with lab.connect() as connection:
        session = Session(lab, connection)
        told = [session.fetch(0, FetchTopic(topic_id=topic_id, partitions=(at(0),)), version=17)]
        told += [session.fetch(1, version=17)]
        unknown = FetchTopic(topic_id=uuid.UUID(int=0x99 << 64), partitions=(at(0),))
        told += [session.fetch(2, unknown, version=17)]
        told += [session.fetch(3, version=17)]
        told += [["by name now", session.fetch(4, version=12)]]
        told += [["by id again", session.fetch(5, version=17)]]
    return told


@probe()
def empty_topics_of_a_session(lab: Lab) -> Answer:
    topic = filled(lab)
    with lab.connect() as connection:
        session = Session(lab, connection)
        return [session.fetch(0, FetchTopic(topic=topic)), session.fetch(1, FetchTopic(topic=topic))]


@probe(each=versions(ApiKey.OFFSET_FOR_LEADER_EPOCH))
def end_of_leader_epoch(lab: Lab, version: int) -> Answer:
    topic = filled(lab)

    def end(epoch: int, current: int = -1, *, partition: int = 0, name: str = topic, replica: int = -1) -> Answer:
        wanted = OffsetForLeaderPartition(partition=partition, current_leader_epoch=current, leader_epoch=epoch)
        entry = OffsetForLeaderTopic(topic=name, partitions=(wanted,))
        request = OffsetForLeaderEpochRequest(replica_id=replica, topics=(entry,))
        return lab.ask(ApiKey.OFFSET_FOR_LEADER_EPOCH, request, version=version)

    return {
        "this epoch": end(0),
        "later": end(3),
        "-1": end(-1),
        "-2": end(-2),
        "current right": end(0, 0),
        "current too new": end(0, 4),
        "current -2": end(0, -2),
        "unknown partition": end(0, partition=9),
        "unknown topic": end(0, name=lab.name("absent")),
        "debugging replica": end(0, replica=-2),
        "a replica": end(0, replica=3),
    }
