"""ListOffsets and DeleteRecords."""

from __future__ import annotations

from typing import Any

from ottla.protocol.messages.delete_records import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic
from ottla.protocol.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from ottla.protocol.versions import ApiKey
from tests.golden.batch import GZIP, T0_MS, Batch, Record
from tests.golden.lab import Answer, Lab, probe, versions
from tests.golden.wire import CLOSED

TIMES_MS = (0, 100, 50, 200, 200, 150)
"""Of the six records in two batches, relative to T0_MS: neither sorted nor unique."""


def timed(lab: Lab, stem: str = "timed", *, codec: int = 0) -> str:
    topic = lab.topic(stem)
    if lab.end_offset(topic) == 0:
        for part in (TIMES_MS[:3], TIMES_MS[3:]):
            records = tuple(Record(timestamp_delta_ms=at_ms) for at_ms in part)
            batch = Batch(records=records, attributes=codec, max_timestamp_ms=T0_MS + max(part))
            lab.produce(topic, batch.encode())
    return topic


def list_offsets(
    lab: Lab,
    topic: str,
    *timestamps: int,
    version: int = 11,
    partition: int = 0,
    current_leader_epoch: int = -1,
    replica_id: int = -1,
    **fields: Any,
) -> Answer:
    partitions = tuple(
        ListOffsetsPartition(partition_index=partition, timestamp=at, current_leader_epoch=current_leader_epoch)
        for at in timestamps
    )
    entry = ListOffsetsTopic(name=topic, partitions=partitions)
    request = ListOffsetsRequest(replica_id=replica_id, topics=(entry,), timeout_ms=1000, **fields)
    answer = lab.ask(ApiKey.LIST_OFFSETS, request, version=version)
    return answer if answer == CLOSED else answer["topics"][0]["partitions"]


@probe(each=versions(ApiKey.LIST_OFFSETS))
def special_timestamps(lab: Lab, version: int) -> Answer:
    topic = timed(lab)
    return {str(at): list_offsets(lab, topic, at, version=version) for at in range(-1, -9, -1)}


@probe(each=[1, 4, 11])
def by_time(lab: Lab, version: int) -> Answer:
    topic = timed(lab)
    times_ms = (
        0,
        T0_MS - 1,
        T0_MS,
        T0_MS + 1,
        T0_MS + 50,
        T0_MS + 100,
        T0_MS + 101,
        T0_MS + 151,
        T0_MS + 200,
        T0_MS + 201,
    )
    return {str(at - T0_MS): list_offsets(lab, topic, at, version=version) for at in (*times_ms, 2**63 - 1)}


@probe()
def by_time_in_compressed_batches(lab: Lab) -> Answer:
    topic = timed(lab, "timed-gzip", codec=GZIP)
    return {
        str(at): list_offsets(lab, topic, at if at < 0 else T0_MS + at) for at in (0, 1, 51, 101, 151, 200, 201, -3)
    }


@probe(each=versions(ApiKey.LIST_OFFSETS))
def empty_log(lab: Lab, version: int) -> Answer:
    topic = lab.topic("empty")
    return {str(at): list_offsets(lab, topic, at, version=version) for at in (-1, -2, -3, -4, -5, 0, T0_MS)}


@probe(each=[1, 4, 6, 11])
def unknown_partition(lab: Lab, version: int) -> Answer:
    return [
        list_offsets(lab, timed(lab), -1, version=version, partition=4),
        list_offsets(lab, timed(lab), -1, version=version, partition=-1),
        list_offsets(lab, lab.name("absent"), -1, version=version),
    ]


@probe()
def partition_twice(lab: Lab) -> Answer:
    return list_offsets(lab, timed(lab), -1, -2)


@probe(each=[-2, 0, 1, 7])
def current_leader_epoch(lab: Lab, epoch: int) -> Answer:
    return [list_offsets(lab, timed(lab), at, current_leader_epoch=epoch) for at in (-1, -2, T0_MS)]


@probe(each=[-3, -2, 0, 1, 7])
def replica_id(lab: Lab, replica: int) -> Answer:
    return [list_offsets(lab, timed(lab), at, replica_id=replica) for at in (-1, -2, T0_MS)]


@probe(each=[-1, 1, 2])
def isolation_level(lab: Lab, level: int) -> Answer:
    return [list_offsets(lab, timed(lab), at, isolation_level=level) for at in (-1, -2, T0_MS)]


@probe(each=versions(ApiKey.DELETE_RECORDS))
def delete_records(lab: Lab, version: int) -> Answer:
    topic = timed(lab, f"trim-{version}")

    def delete(offset: int, *, name: str = topic, partition: int = 0) -> Answer:
        entry = DeleteRecordsTopic(
            name=name, partitions=(DeleteRecordsPartition(partition_index=partition, offset=offset),)
        )
        request = DeleteRecordsRequest(topics=(entry,), timeout_ms=2000)
        return lab.ask(ApiKey.DELETE_RECORDS, request, version=version)

    told = {
        "0": delete(0),
        "inside a batch": delete(2),
        "back": delete(1),
        "beyond": delete(7),
        "-2": delete(-2),
        "unknown partition": delete(0, partition=3),
        "unknown topic": delete(0, name=lab.name("absent")),
        "offsets": [list_offsets(lab, topic, at) for at in (-1, -2, -3, -4, T0_MS)],
        "all": delete(-1),
    }
    told["offsets after"] = [list_offsets(lab, topic, at) for at in (-1, -2, -3, -4, T0_MS)]
    return told


@probe()
def delete_records_of_odd_topics(lab: Lab) -> Answer:
    def delete(name: str) -> Answer:
        entry = DeleteRecordsTopic(name=name, partitions=(DeleteRecordsPartition(partition_index=0, offset=-1),))
        return lab.ask(ApiKey.DELETE_RECORDS, DeleteRecordsRequest(topics=(entry,), timeout_ms=2000))

    return [
        delete(lab.topic("kept", cleanup_policy="compact")),
        delete(lab.topic("both", cleanup_policy="compact,delete")),
        delete("__consumer_offsets"),
    ]
