"""Groups through a whole broker: Kafka's answers over sockets, and a broker that is killed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.errors import ErrorCode
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess, EmbeddedBroker
from tests.golden.group.play import TOPIC, Player
from tests.golden.group.scenarios import SCENARIOS
from tests.integration.wire import Wire

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/group/kafka-4.3.1.json").read_text())


SETTINGS = {"num.partitions": "2"}


def create_topic(wire: Wire, name: str) -> None:
    """Have a topic made by asking for it."""
    request = MetadataRequest(topics=(MetadataRequestTopic(name=name),), allow_auto_topic_creation=True)
    for _ in range(100):
        (topic,) = wire.ask(ApiKey.METADATA, 12, request).topics
        if topic.error_code is ErrorCode.NONE:
            return
        time.sleep(0.05)
    raise AssertionError(topic)


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Player]:
    with EmbeddedBroker(tmp_path_factory.mktemp("groups"), settings=SETTINGS) as broker:
        with Wire(broker.port) as wire:
            create_topic(wire, TOPIC)
            found = wire.ask(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=("any",)))
            assert found.coordinators[0].error_code is ErrorCode.NONE, "the first answer is one to work with"
        yield Player(broker.port)


@pytest.mark.parametrize("number", range(len(SCENARIOS)), ids=list(SCENARIOS))
def test_as_kafka_answers(player: Player, number: int) -> None:
    name = list(SCENARIOS)[number]
    answers = player.play(SCENARIOS[name], group_id=f"golden-{number}")
    for at, (ours, kafkas) in enumerate(zip(answers, GOLDEN[name], strict=True)):
        assert ours == kafkas, f"answer {at} of {name!r}"


def join_request(member_id: str) -> JoinGroupRequest:
    return JoinGroupRequest(
        group_id="group",
        member_id=member_id,
        session_timeout_ms=30_000,
        rebalance_timeout_ms=30_000,
        protocol_type="consumer",
        protocols=(JoinGroupRequestProtocol(name="range", metadata=b"\0\0\0\0\0\0\xff\xff\xff\xff"),),
    )


def test_a_group_survives_kill_9(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data", settings=SETTINGS)
    with broker:
        with Wire(broker.port) as wire:
            create_topic(wire, TOPIC)
            wire.ask(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=("group",)))
            member_id = wire.ask(ApiKey.JOIN_GROUP, 9, join_request("")).member_id
            joined: JoinGroupResponse = wire.ask(ApiKey.JOIN_GROUP, 9, join_request(member_id))
            sync = SyncGroupRequest(
                group_id="group",
                generation_id=joined.generation_id,
                member_id=member_id,
                protocol_type="consumer",
                protocol_name="range",
                assignments=(SyncGroupRequestAssignment(member_id=member_id, assignment=b"part"),),
            )
            assert wire.ask(ApiKey.SYNC_GROUP, 5, sync).assignment == b"part"
            commit = OffsetCommitRequest(
                group_id="group",
                generation_id_or_member_epoch=joined.generation_id,
                member_id=member_id,
                topics=(
                    OffsetCommitRequestTopic(
                        name=TOPIC,
                        partitions=(OffsetCommitRequestPartition(partition_index=1, committed_offset=42),),
                    ),
                ),
            )
            committed = wire.ask(ApiKey.OFFSET_COMMIT, 9, commit)
            assert committed.topics[0].partitions[0].error_code is ErrorCode.NONE
        broker.kill()
        broker.start()
        with Wire(broker.port) as wire:
            heartbeat = HeartbeatRequest(group_id="group", generation_id=joined.generation_id, member_id=member_id)
            assert wire.ask(ApiKey.HEARTBEAT, 4, heartbeat).error_code is ErrorCode.NONE
            assert wire.ask(ApiKey.SYNC_GROUP, 5, sync).assignment == b"part"
            fetch = OffsetFetchRequest(groups=(OffsetFetchRequestGroup(group_id="group", topics=None),))
            (group,) = wire.ask(ApiKey.OFFSET_FETCH, 9, fetch).groups
            assert group.topics[0].partitions[0].committed_offset == 42
