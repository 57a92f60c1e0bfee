"""Heartbeats that the data plane answers: through a whole broker, members stay, hear of changes, and end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest

from ottla.errors import ErrorCode
from ottla.protocol.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
    ConsumerGroupHeartbeatResponse,
)
from ottla.protocol.messages.create_topics import CreatableTopic, CreateTopicsRequest
from ottla.protocol.messages.describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import EmbeddedBroker
from tests.integration.wire import Wire

SESSION_MS = 600
SETTINGS = {
    "group.min.session.timeout.ms": "100",
    "group.consumer.min.session.timeout.ms": "100",
    "group.consumer.session.timeout.ms": str(SESSION_MS),
    "group.consumer.min.heartbeat.interval.ms": "10",
    "group.consumer.heartbeat.interval.ms": "50",
    "group.consumer.assignment.interval.ms": "0",
}
PATIENCE_S = 20


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with EmbeddedBroker(tmp_path_factory.mktemp("standing"), settings=SETTINGS) as broker:
        with Wire(broker.port) as wire:
            topic = CreatableTopic(name="topic", num_partitions=2, replication_factor=1)
            created = wire.ask(ApiKey.CREATE_TOPICS, 7, CreateTopicsRequest(topics=(topic,), timeout_ms=10_000))
            assert created.topics[0].error_code is ErrorCode.NONE
            wire.ask(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=("any",)))
        yield broker.port


class Classic:
    """A member that leads its group alone."""

    def __init__(self, wire: Wire, group: str) -> None:
        self.wire, self.group, self.member_id = wire, group, ""
        self.join()

    def join(self) -> None:
        request = JoinGroupRequest(
            group_id=self.group,
            session_timeout_ms=SESSION_MS,
            rebalance_timeout_ms=10_000,
            member_id=self.member_id,
            protocol_type="consumer",
            protocols=(JoinGroupRequestProtocol(name="range", metadata=b"\0\0\0\0\0\0\xff\xff\xff\xff"),),
        )
        joined = self.wire.ask(ApiKey.JOIN_GROUP, 3, request)
        assert joined.error_code is ErrorCode.NONE
        self.member_id, self.generation_id = joined.member_id, joined.generation_id
        assignment = SyncGroupRequestAssignment(member_id=self.member_id, assignment=b"all")
        synced = self.wire.ask(
            ApiKey.SYNC_GROUP,
            2,
            SyncGroupRequest(
                group_id=self.group,
                generation_id=self.generation_id,
                member_id=self.member_id,
                assignments=(assignment,),
            ),
        )
        assert synced.error_code is ErrorCode.NONE

    def beat(self) -> ErrorCode:
        request = HeartbeatRequest(group_id=self.group, generation_id=self.generation_id, member_id=self.member_id)
        code: ErrorCode = self.wire.ask(ApiKey.HEARTBEAT, 3, request).error_code
        return code


def state_of(wire: Wire, group: str) -> str:
    (described,) = wire.ask(ApiKey.DESCRIBE_GROUPS, 5, DescribeGroupsRequest(groups=(group,))).groups
    return str(described.group_state)


def test_a_member_stays_while_it_is_heard_of_and_no_longer(port: int) -> None:
    with Wire(port) as other:
        with Wire(port) as wire:
            member = Classic(wire, "stays")
            until = time.monotonic() + 3 * SESSION_MS / 1000
            while time.monotonic() < until:
                assert member.beat() is ErrorCode.NONE
                time.sleep(0.05)
            assert state_of(other, "stays") == "Stable"
            last_heard = time.monotonic()
            member.beat()
        while state_of(other, "stays") == "Stable":
            assert time.monotonic() < last_heard + PATIENCE_S
            time.sleep(0.01)
        assert time.monotonic() - last_heard > 0.9 * SESSION_MS / 1000


def test_a_rebalance_is_heard_of_by_the_next_heartbeat(port: int) -> None:
    with Wire(port) as wire, Wire(port) as other:
        member = Classic(wire, "changes")
        for _ in range(3):
            assert member.beat() is ErrorCode.NONE
        request = JoinGroupRequest(
            group_id="changes",
            session_timeout_ms=SESSION_MS,
            rebalance_timeout_ms=10_000,
            protocol_type="consumer",
            protocols=(JoinGroupRequestProtocol(name="range", metadata=b"\0\0\0\0\0\0\xff\xff\xff\xff"),),
        )
        other.send(ApiKey.JOIN_GROUP, 3, request)
        until = time.monotonic() + PATIENCE_S
        while member.beat() is ErrorCode.NONE:
            # The join may only be on its way; once it is here, every heartbeat says so.
            assert time.monotonic() < until
        assert member.beat() is ErrorCode.REBALANCE_IN_PROGRESS


class Consumer:
    def __init__(self, wire: Wire, group: str) -> None:
        self.wire, self.group, self.member_id = wire, group, str(uuid.uuid4())
        answer = self.send(
            ConsumerGroupHeartbeatRequest(
                group_id=group,
                member_id=self.member_id,
                rebalance_timeout_ms=10_000,
                subscribed_topic_names=("topic",),
                topic_partitions=(),
            )
        )
        while answer.assignment is not None:
            owned = tuple(
                ConsumerGroupHeartbeatRequestTopicPartitions(topic_id=t.topic_id, partitions=t.partitions)
                for t in answer.assignment.topic_partitions
            )
            answer = self.send(
                ConsumerGroupHeartbeatRequest(
                    group_id=group,
                    member_id=self.member_id,
                    member_epoch=answer.member_epoch,
                    topic_partitions=owned,
                )
            )
        self.epoch = answer.member_epoch

    def send(self, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse:
        answer: ConsumerGroupHeartbeatResponse = self.wire.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, request)
        assert answer.error_code is ErrorCode.NONE, answer
        return answer

    def beat(self) -> ConsumerGroupHeartbeatResponse:
        return self.send(
            ConsumerGroupHeartbeatRequest(
                group_id=self.group, member_id=self.member_id, member_epoch=self.epoch, topic_partitions=None
            )
        )


def test_a_consumer_stays_while_it_is_heard_of_and_hears_of_others(port: int) -> None:
    with Wire(port) as wire, Wire(port) as other:
        consumer = Consumer(wire, "consumers")
        until = time.monotonic() + 3 * SESSION_MS / 1000
        while time.monotonic() < until:
            answer = consumer.beat()
            assert (answer.member_epoch, answer.assignment) == (consumer.epoch, None)
            time.sleep(0.05)
        Consumer(other, "consumers")
        answer = consumer.beat()
        assert answer.assignment is not None
        assert sum(len(t.partitions) for t in answer.assignment.topic_partitions) == 1
