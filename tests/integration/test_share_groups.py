"""Share groups over sockets: membership, offsets and deletion, and all of it again after `kill -9`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ottla.errors import ErrorCode
from ottla.protocol.messages.alter_share_group_offsets import (
    AlterShareGroupOffsetsRequest,
    AlterShareGroupOffsetsRequestPartition,
    AlterShareGroupOffsetsRequestTopic,
)
from ottla.protocol.messages.create_topics import CreatableTopic, CreateTopicsRequest
from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.delete_share_group_offsets import (
    DeleteShareGroupOffsetsRequest,
    DeleteShareGroupOffsetsRequestTopic,
)
from ottla.protocol.messages.describe_share_group_offsets import (
    DescribeShareGroupOffsetsRequest,
    DescribeShareGroupOffsetsRequestGroup,
)
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from ottla.protocol.messages.share_group_describe import ShareGroupDescribeRequest
from ottla.protocol.messages.share_group_heartbeat import ShareGroupHeartbeatRequest
from ottla.protocol.messages.update_features import FeatureUpdateKey, UpdateFeaturesRequest
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess
from tests.integration.wire import Wire

GROUP = "sharers"
GROUP_CONFIGS = 32


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    broker = BrokerProcess(tmp_path / "data").start()
    with Wire(broker.port) as wire:
        update = FeatureUpdateKey(feature="share.version", max_version_level=1, upgrade_type=1)
        wire.ask(ApiKey.UPDATE_FEATURES, 1, UpdateFeaturesRequest(feature_updates=(update,), timeout_ms=10_000))
        topic = CreatableTopic(name="t", num_partitions=3, replication_factor=1)
        wire.ask(ApiKey.CREATE_TOPICS, 7, CreateTopicsRequest(topics=(topic,), timeout_ms=10_000))
        find = FindCoordinatorRequest(coordinator_keys=(GROUP,))
        assert wire.ask(ApiKey.FIND_COORDINATOR, 6, find).coordinators[0].error_code is ErrorCode.NONE
        # Targets at each change, so that nobody need wait for them.
        entry = AlterableConfig(name="share.assignment.interval.ms", config_operation=0, value="0")
        resource = AlterConfigsResource(resource_type=GROUP_CONFIGS, resource_name=GROUP, configs=(entry,))
        response = wire.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, IncrementalAlterConfigsRequest(resources=(resource,)))
        assert response.responses[0].error_code is ErrorCode.NONE
    yield broker
    broker.kill()


def beat(wire: Wire, member_id: str, epoch: int, *topics: str) -> Any:
    request = ShareGroupHeartbeatRequest(
        group_id=GROUP, member_id=member_id, member_epoch=epoch, subscribed_topic_names=topics or None
    )
    return wire.ask(ApiKey.SHARE_GROUP_HEARTBEAT, 1, request)


def beat_until_assigned(wire: Wire, member_id: str, epoch: int) -> tuple[int, set[int]]:
    """Returns the member's epoch and partitions; the share coordinator begins the states between two heartbeats."""
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        response = beat(wire, member_id, epoch, "t")
        assert response.error_code is ErrorCode.NONE
        epoch = response.member_epoch
        if response.assignment.topic_partitions:
            (found,) = response.assignment.topic_partitions
            return epoch, set(found.partitions)
    raise AssertionError("nothing is assigned")


def describe(wire: Wire) -> Any:
    (group,) = wire.ask(ApiKey.SHARE_GROUP_DESCRIBE, 1, ShareGroupDescribeRequest(group_ids=(GROUP,))).groups
    return group


def offsets(wire: Wire) -> dict[int, tuple[int, int]]:
    """Start offset and lag by partition."""
    asked = DescribeShareGroupOffsetsRequestGroup(group_id=GROUP, topics=None)
    request = DescribeShareGroupOffsetsRequest(groups=(asked,))
    (group,) = wire.ask(ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS, 1, request).groups
    assert group.error_code is ErrorCode.NONE
    return {p.partition_index: (p.start_offset, p.lag) for topic in group.topics for p in topic.partitions}


def test_a_group_outlives_the_broker(broker: BrokerProcess) -> None:
    with Wire(broker.port) as wire:
        epoch, partitions = beat_until_assigned(wire, "a", 0)
        assert partitions == {0, 1, 2}
        assert offsets(wire) == {0: (-1, -1), 1: (-1, -1), 2: (-1, -1)}
    broker.kill()
    broker.start()
    with Wire(broker.port) as wire:
        assert beat(wire, "a", epoch).error_code is ErrorCode.NONE
        assert describe(wire).group_state == "Stable"
        assert beat(wire, "a", -1).error_code is ErrorCode.NONE
        assert beat(wire, "a", epoch).error_code is ErrorCode.UNKNOWN_MEMBER_ID
        assert describe(wire).group_state == "Empty"


def wait_for_partitions(wire: Wire, partitions: set[int]) -> None:
    deadline_s = time.monotonic() + 10
    while set(offsets(wire)) != partitions:
        assert time.monotonic() < deadline_s, offsets(wire)
        time.sleep(0.05)


def test_a_group_is_moved_made_to_forget_and_deleted(broker: BrokerProcess) -> None:
    with Wire(broker.port) as wire:
        wire.produce("t", b"1", b"2", b"3", partition=1)
        moved = AlterShareGroupOffsetsRequestPartition(partition_index=1, start_offset=1)
        topics = (AlterShareGroupOffsetsRequestTopic(topic_name="t", partitions=(moved,)),)
        request = AlterShareGroupOffsetsRequest(group_id=GROUP, topics=topics)
        response = wire.ask(ApiKey.ALTER_SHARE_GROUP_OFFSETS, 0, request)
        assert [p.error_code for t in response.responses for p in t.partitions] == [ErrorCode.NONE]
        assert offsets(wire) == {1: (1, 2)}
    broker.kill()
    broker.start()
    with Wire(broker.port) as wire:
        assert offsets(wire) == {1: (1, 2)}
        epoch, _ = beat_until_assigned(wire, "a", 0)
        # What is being initialised while offsets are deleted is there afterwards.
        wait_for_partitions(wire, {0, 1, 2})
        named = (DeleteShareGroupOffsetsRequestTopic(topic_name="t"),)
        forget = DeleteShareGroupOffsetsRequest(group_id=GROUP, topics=named)
        assert wire.ask(ApiKey.DELETE_SHARE_GROUP_OFFSETS, 0, forget).error_code is ErrorCode.NON_EMPTY_GROUP
        assert beat(wire, "a", -1).member_epoch == -1
        response = wire.ask(ApiKey.DELETE_SHARE_GROUP_OFFSETS, 0, forget)
        assert [topic.error_code for topic in response.responses] == [ErrorCode.NONE]
        assert offsets(wire) == {}
        delete = DeleteGroupsRequest(groups_names=(GROUP,))
        assert wire.ask(ApiKey.DELETE_GROUPS, 2, delete).results[0].error_code is ErrorCode.NONE
        assert describe(wire).error_code is ErrorCode.GROUP_ID_NOT_FOUND
    broker.kill()
    broker.start()
    with Wire(broker.port) as wire:
        assert describe(wire).error_code is ErrorCode.GROUP_ID_NOT_FOUND
        assert epoch > 0
