"""The group coordinator's shell: the topic behind it, leadership, settings, and answers while nothing is served."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from ottla._native import build_batch
from ottla.broker.group_coordinator import GroupCoordinator
from ottla.broker.handlers import handler_of, respond
from ottla.broker.metadata_publisher import Published
from ottla.common.config import BrokerConfig
from ottla.common.topics import CONSUMER_OFFSETS
from ottla.coordinator.group import records
from ottla.coordinator.group.records import OffsetCommitValue
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.image import EMPTY_IMAGE, MetadataImage, frozen
from ottla.protocol.messages.create_topics import CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse
from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequest
from ottla.protocol.messages.list_groups import ListGroupsRequest
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic
from ottla.protocol.versions import ApiKey
from tests.unit.broker.group_fakes import NODE_ID, image_of

TOPIC_ID = uuid.UUID(int=0xC0)
WORDS_ID = uuid.UUID(int=0xD0)
WITH_TOPIC = image_of({CONSUMER_OFFSETS: (TOPIC_ID, 3), "words": (WORDS_ID, 1)})


class FakePartition:
    """A native partition whose log is given; it only counts appends."""

    def __init__(self, *committed: records.CoordinatorRecord, high_watermark: int | None = None) -> None:
        self.data = build_batch([(r.key, r.value, 0, ()) for r in committed]) if committed else b""
        self.end_offset = len(committed)
        self.high_watermark = self.end_offset if high_watermark is None else high_watermark
        self.is_watched = False
        self.appends = 0

    def take_cut(self) -> None:
        return None

    def append_batch(
        self, _batch: bytes, *, wall_ms: int, leader_epoch: int, guard: int | None = None
    ) -> tuple[int, int]:
        self.appends += 1
        return self.end_offset, self.end_offset

    def watch(self) -> None:
        self.is_watched = True

    def offsets(self) -> Any:
        return SimpleNamespace(log_start_offset=0, high_watermark=self.high_watermark, log_end_offset=self.end_offset)

    def read_records(self, offset: int, *, max_bytes: int) -> bytes:
        return self.data if self.high_watermark else b""


class World:
    """A coordinator over fake partitions, with the metadata in the test's hands."""

    def __init__(self, settings: dict[str, str] | None = None, *, is_alone: bool = True) -> None:
        self.partitions: dict[int, FakePartition | None] = {i: FakePartition() for i in range(3)}
        self.image = EMPTY_IMAGE
        self.created: list[CreateTopicsRequest] = []
        self.create_error = ErrorCode.NONE
        self.config = BrokerConfig.load(settings or {})
        self.coordinator = GroupCoordinator(
            SimpleNamespace(partition=lambda _topic, i: self.partitions[i]),  # type: ignore[arg-type]
            node_id=NODE_ID,
            image=lambda: self.image,
            create_topics=self.create_topics,
            config=self.config,
            is_alone=is_alone,
        )

    async def create_topics(self, request: CreateTopicsRequest) -> CreateTopicsResponse:
        self.created.append(request)
        await trio.lowlevel.checkpoint()
        if self.create_error is ErrorCode.NONE:
            self.publish(WITH_TOPIC)
        result = CreatableTopicResult(name=CONSUMER_OFFSETS, error_code=self.create_error)
        return CreateTopicsResponse(topics=(result,))

    def publish(self, image: MetadataImage, config: BrokerConfig | None = None) -> None:
        before, self.image = self.image, image
        published = Published(image=image, delta=MetadataDelta(before), config=config or self.config)
        self.coordinator.on_published(published)

    async def call(self, api: ApiKey, version: int, message: Any) -> Any:
        context = SimpleNamespace(
            broker=SimpleNamespace(
                coordinator=self.coordinator,
                transactions=None,
                metadata=SimpleNamespace(image=self.image, out_of_reach={}),
                node_id=NODE_ID,
            ),
            version=version,
            client_id=None,
            connection=SimpleNamespace(peer=("127.0.0.1", 4242)),
            advertised_endpoint=lambda: ("127.0.0.1", 9092),
        )
        return await respond(handler_of(api), context, message)


def run(world: World, test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(world.coordinator.run)
            await test()
            nursery.cancel_scope.cancel()

    trio.run(main)


def find(key: str = "g") -> FindCoordinatorRequest:
    return FindCoordinatorRequest(coordinator_keys=(key,))


def test_the_topic_is_made_once_and_the_answer_waits_until_it_is_served() -> None:
    world = World({"offsets.topic.num.partitions": "3", "offsets.topic.segment.bytes": "2000000"})

    async def test() -> None:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await world.call(ApiKey.FIND_COORDINATOR, 4, find()))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert [a.coordinators[0].error_code for a in answers] == [ErrorCode.NONE] * 3
        assert [world.coordinator.runtime.is_ready(i) for i in range(3)] == [True] * 3
        (topic,) = world.created[0].topics
        assert (topic.num_partitions, topic.replication_factor) == (3, 1)
        assert {c.name: c.value for c in topic.configs} == {
            "cleanup.policy": "compact",
            "compression.type": "producer",
            "segment.bytes": "2000000",
        }
        assert len(world.created) == 1

    run(world, test)


def test_among_others_the_topic_has_the_replicas_that_are_configured() -> None:
    world = World(is_alone=False)

    async def test() -> None:
        world.create_error = ErrorCode.INVALID_REPLICATION_FACTOR
        found = await world.call(ApiKey.FIND_COORDINATOR, 4, find())
        assert found.coordinators[0].error_code is ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert world.created[0].topics[0].replication_factor == 3
        one = await world.call(ApiKey.FIND_COORDINATOR, 3, FindCoordinatorRequest(key="g"))
        assert (one.error_code, one.node_id) == (ErrorCode.COORDINATOR_NOT_AVAILABLE, -1)

    run(world, test)


def test_without_a_topic_nobody_coordinates() -> None:
    world = World()

    async def test() -> None:
        assert (await world.call(ApiKey.JOIN_GROUP, 5, JoinGroupRequest(group_id="g"))).error_code is (
            ErrorCode.NOT_COORDINATOR
        )
        assert (await world.call(ApiKey.HEARTBEAT, 4, HeartbeatRequest(group_id="g"))).error_code is (
            ErrorCode.NOT_COORDINATOR
        )
        described = await world.call(ApiKey.DESCRIBE_GROUPS, 5, DescribeGroupsRequest(groups=("g",)))
        assert described.groups[0].error_code is ErrorCode.NOT_COORDINATOR
        deleted = await world.call(ApiKey.DELETE_GROUPS, 2, DeleteGroupsRequest(groups_names=("g",)))
        assert deleted.results[0].error_code is ErrorCode.NOT_COORDINATOR
        assert await world.call(ApiKey.LIST_GROUPS, 5, ListGroupsRequest()) is not None

    run(world, test)


def test_while_groups_are_loaded_each_api_says_so_in_its_own_way() -> None:
    world = World()
    record = records.offset_commit("g", "words", 0, OffsetCommitValue(5))
    world.partitions = {i: FakePartition(record, high_watermark=0) for i in range(3)}
    loading = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS

    async def test() -> None:
        world.publish(WITH_TOPIC)
        assert (await world.call(ApiKey.JOIN_GROUP, 9, JoinGroupRequest(group_id="g"))).error_code is loading
        # Members get a whole session once loading is over: there is nothing to be alarmed about.
        assert (await world.call(ApiKey.HEARTBEAT, 4, HeartbeatRequest(group_id="g"))).error_code is ErrorCode.NONE
        assert (await world.call(ApiKey.LIST_GROUPS, 5, ListGroupsRequest())).error_code is loading
        topic = OffsetCommitRequestTopic(name="words", partitions=(OffsetCommitRequestPartition(),))
        committed = await world.call(ApiKey.OFFSET_COMMIT, 8, OffsetCommitRequest(group_id="g", topics=(topic,)))
        assert committed.topics[0].partitions[0].error_code is loading
        fetch = OffsetFetchRequest(
            group_id="g", topics=(OffsetFetchRequestTopic(name="words", partition_indexes=(0,)),)
        )
        assert (await world.call(ApiKey.OFFSET_FETCH, 5, fetch)).error_code is loading
        oldest = await world.call(ApiKey.OFFSET_FETCH, 1, fetch)
        assert oldest.topics[0].partitions[0].error_code is loading
        groups = OffsetFetchRequest(groups=(OffsetFetchRequestGroup(group_id="g", topics=None),), require_stable=True)
        assert (await world.call(ApiKey.OFFSET_FETCH, 9, groups)).groups[0].error_code is loading
        for partition in world.partitions.values():
            assert partition is not None
            assert partition.is_watched
            partition.high_watermark = 1
        for i in range(3):
            world.coordinator.on_high_watermark(CONSUMER_OFFSETS, i)
        world.coordinator.on_high_watermark("words", 0)
        await world.coordinator.wait_loaded()
        (group,) = (await world.call(ApiKey.OFFSET_FETCH, 9, groups)).groups
        assert group.topics[0].partitions[0].committed_offset == 5

    run(world, test)


def test_leadership_is_followed() -> None:
    world = World()

    async def test() -> None:
        world.publish(WITH_TOPIC)
        runtime = world.coordinator.runtime
        machine = runtime.look(0, lambda machine, _: machine)
        topic = WITH_TOPIC.topics[TOPIC_ID]

        def led(**changes: Any) -> MetadataImage:
            partitions = {**topic.partitions, 0: replace(topic.partitions[0], **changes)}
            return replace(
                WITH_TOPIC, topics=frozen({**WITH_TOPIC.topics, TOPIC_ID: replace(topic, partitions=partitions)})
            )

        world.publish(led(partition_epoch=7))
        assert runtime.look(0, lambda machine, _: machine) is machine, "only the leader's epoch matters"
        world.publish(led(leader_epoch=1))
        assert runtime.look(0, lambda machine, _: machine) is not machine
        world.publish(led(leader=9, leader_epoch=2))
        assert not runtime.is_ready(0)
        assert runtime.is_ready(1)
        lost = await world.call(ApiKey.FIND_COORDINATOR, 4, find(""))  # the empty id is in partition 0
        assert lost.coordinators[0].error_code is ErrorCode.COORDINATOR_NOT_AVAILABLE
        world.partitions[0] = None
        world.publish(led(leader_epoch=3))
        with pytest.raises(KafkaError):
            runtime.look(0, lambda machine, _: machine)

    run(world, test)


def test_offsets_go_with_their_topic() -> None:
    world = World()
    value = OffsetCommitValue(5, topic_id=WORDS_ID)
    partition = FakePartition(records.offset_commit("", "words", 0, value))
    world.partitions[0] = partition

    async def test() -> None:
        world.publish(WITH_TOPIC)
        await world.coordinator.wait_loaded()
        world.publish(image_of({CONSUMER_OFFSETS: (TOPIC_ID, 3)}))
        assert partition.appends == 1

    run(world, test)


def test_changed_settings_reach_the_machines() -> None:
    world = World()

    async def test() -> None:
        world.publish(WITH_TOPIC)
        joined = await world.call(ApiKey.JOIN_GROUP, 9, JoinGroupRequest(group_id="g", session_timeout_ms=1_000))
        assert joined.error_code is ErrorCode.INVALID_SESSION_TIMEOUT
        world.publish(WITH_TOPIC, BrokerConfig.load({"group.min.session.timeout.ms": "500"}))
        joined = await world.call(ApiKey.JOIN_GROUP, 9, JoinGroupRequest(group_id="g", session_timeout_ms=1_000))
        assert joined.error_code is ErrorCode.INCONSISTENT_GROUP_PROTOCOL

    run(world, test)
