"""The states of share groups over sockets: initialised, read, written, deleted, and still there after `kill -9`."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from ottla.coordinator.partitioning import partition_of
from ottla.coordinator.share.state import SharePartition
from ottla.errors import ErrorCode
from ottla.protocol.messages import (
    delete_share_group_state,
    initialize_share_group_state,
    read_share_group_state,
    read_share_group_state_summary,
    write_share_group_state,
)
from ottla.protocol.messages.create_topics import CreatableTopic, CreateTopicsRequest
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess
from tests.integration.test_cli import Ottla, ottla
from tests.integration.wire import Wire

__all__ = ["ottla"]  # a fixture

GROUP = "readers"


def find(wire: Wire, *keys: str) -> list[Any]:
    request = FindCoordinatorRequest(key_type=2, coordinator_keys=keys)
    return list(wire.ask(ApiKey.FIND_COORDINATOR, 6, request).coordinators)


def create(wire: Wire) -> None:
    topic = CreatableTopic(name="t", num_partitions=3, replication_factor=1)
    response = wire.ask(ApiKey.CREATE_TOPICS, 7, CreateTopicsRequest(topics=(topic,), timeout_ms=10_000))
    assert response.topics[0].error_code is ErrorCode.NONE


def topic_id_of(wire: Wire, name: str) -> uuid.UUID:
    request = MetadataRequest(topics=(MetadataRequestTopic(name=name),))
    (topic,) = wire.ask(ApiKey.METADATA, 12, request).topics
    assert topic.topic_id is not None
    return uuid.UUID(int=topic.topic_id.int)


def initialize(wire: Wire, topic_id: uuid.UUID, partitions: int) -> list[ErrorCode]:
    rows = tuple(
        initialize_share_group_state.PartitionData(partition=i, state_epoch=1, start_offset=-1)
        for i in range(partitions)
    )
    data = initialize_share_group_state.InitializeStateData(topic_id=topic_id, partitions=rows)
    request = initialize_share_group_state.InitializeShareGroupStateRequest(group_id=GROUP, topics=(data,))
    response = wire.ask(ApiKey.INITIALIZE_SHARE_GROUP_STATE, 0, request)
    return [p.error_code for t in response.results for p in t.partitions]


def write(wire: Wire, topic_id: uuid.UUID, partition: int, first: int, last: int, *, start: int) -> ErrorCode:
    batch = write_share_group_state.StateBatch(first_offset=first, last_offset=last, delivery_state=2, delivery_count=1)
    row = write_share_group_state.PartitionData(
        partition=partition, state_epoch=1, leader_epoch=1, start_offset=start, state_batches=(batch,)
    )
    data = write_share_group_state.WriteStateData(topic_id=topic_id, partitions=(row,))
    request = write_share_group_state.WriteShareGroupStateRequest(group_id=GROUP, topics=(data,))
    ((result,),) = [t.partitions for t in wire.ask(ApiKey.WRITE_SHARE_GROUP_STATE, 1, request).results]
    return ErrorCode(result.error_code)


def read(wire: Wire, topic_id: uuid.UUID, partitions: int, *, leader_epoch: int = 1) -> list[Any]:
    rows = tuple(
        read_share_group_state.PartitionData(partition=i, leader_epoch=leader_epoch) for i in range(partitions)
    )
    data = read_share_group_state.ReadStateData(topic_id=topic_id, partitions=rows)
    request = read_share_group_state.ReadShareGroupStateRequest(group_id=GROUP, topics=(data,))
    (result,) = wire.ask(ApiKey.READ_SHARE_GROUP_STATE, 0, request).results
    return list(result.partitions)


def summaries(wire: Wire, topic_id: uuid.UUID, partition: int) -> Any:
    row = read_share_group_state_summary.PartitionData(partition=partition, leader_epoch=-1)
    data = read_share_group_state_summary.ReadStateSummaryData(topic_id=topic_id, partitions=(row,))
    request = read_share_group_state_summary.ReadShareGroupStateSummaryRequest(group_id=GROUP, topics=(data,))
    ((result,),) = [t.partitions for t in wire.ask(ApiKey.READ_SHARE_GROUP_STATE_SUMMARY, 1, request).results]
    return result


def delete(wire: Wire, topic_id: uuid.UUID, partition: int) -> ErrorCode:
    row = delete_share_group_state.PartitionData(partition=partition)
    data = delete_share_group_state.DeleteStateData(topic_id=topic_id, partitions=(row,))
    request = delete_share_group_state.DeleteShareGroupStateRequest(group_id=GROUP, topics=(data,))
    ((result,),) = [t.partitions for t in wire.ask(ApiKey.DELETE_SHARE_GROUP_STATE, 0, request).results]
    return ErrorCode(result.error_code)


def test_states_outlive_the_broker(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data").start()
    try:
        with Wire(broker.port) as wire:
            create(wire)
            topic_id = topic_id_of(wire, "t")
            assert initialize(wire, topic_id, 1) == [ErrorCode.NOT_COORDINATOR], "nobody has asked for one yet"
            keys = [f"{GROUP}:AAAAAAAAAAAAAAAAAAAAAA:{i}" for i in range(3)]
            assert [c.error_code for c in find(wire, *keys, "readers")] == [ErrorCode.NONE] * 3 + [
                ErrorCode.INVALID_REQUEST
            ]
            assert initialize(wire, topic_id, 4) == [ErrorCode.NONE] * 3 + [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
            assert [p.start_offset for p in read(wire, topic_id, 3)] == [-1, -1, -1]
            assert write(wire, topic_id, 1, 5, 9, start=4) is ErrorCode.NONE
        broker.kill()
        broker.start()
        with Wire(broker.port) as wire:
            found = read(wire, topic_id, 3, leader_epoch=2)
            assert [(p.start_offset, p.state_epoch) for p in found] == [(-1, 1), (4, 1), (-1, 1)]
            assert [(b.first_offset, b.last_offset) for b in found[1].state_batches] == [(5, 9)]
            assert write(wire, topic_id, 1, 5, 9, start=4) is ErrorCode.FENCED_LEADER_EPOCH
            assert delete(wire, topic_id, 1) is ErrorCode.NONE
            assert summaries(wire, topic_id, 1).start_offset == -1
            gone = DeleteTopicsRequest(topics=(DeleteTopicState(name="t"),), timeout_ms=10_000)
            assert wire.ask(ApiKey.DELETE_TOPICS, 6, gone).responses[0].error_code is ErrorCode.NONE
            assert summaries(wire, topic_id, 0).error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    finally:
        broker.kill()


def test_the_log_of_states_is_dumped_in_words(ottla: Ottla, tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data") as broker, Wire(broker.port) as wire:
        create(wire)
        topic_id = topic_id_of(wire, "t")
        find(wire, f"{GROUP}:AAAAAAAAAAAAAAAAAAAAAA:0")
        assert initialize(wire, topic_id, 1) == [ErrorCode.NONE]
        assert write(wire, topic_id, 0, 5, 9, start=4) is ErrorCode.NONE
        assert delete(wire, topic_id, 0) is ErrorCode.NONE
    partition = partition_of(SharePartition(GROUP, topic_id, 0).coordinator_key, 50)
    segment = tmp_path / "data" / f"__share_group_state-{partition}" / "00000000000000000000.log"
    rows = [json.loads(line) for line in ottla("dump", segment, "--records", "--json").lines]
    told = [row for row in rows if row.get("group_id") == GROUP]
    assert [row["type"] for row in told] == ["snapshot", "update", "snapshot"]
    assert (told[0]["state_epoch"], told[0]["start_offset"]) == (1, -1)
    assert told[1]["batches"] == [{"first_offset": 5, "last_offset": 9, "delivery_state": 2, "delivery_count": 1}]
    assert told[2]["tombstone"]
