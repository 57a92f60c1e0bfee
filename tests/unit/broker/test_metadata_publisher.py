"""What the publisher asks of the data plane, with one that takes notes."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from ottla.broker.metadata_publisher import RETRY_S, MetadataPublisher, Published
from ottla.common.config import BrokerConfig
from ottla.errors import ErrorCode
from ottla.metadata.records import (
    ConfigRecord,
    MetadataRecord,
    PartitionChangeRecord,
    PartitionRecord,
    RemoveTopicRecord,
    TopicRecord,
)

NODE = 1
TOPIC, NAMESAKE = uuid.UUID(int=7), uuid.UUID(int=8)


class NotedPlane:
    """Partitions as a dictionary, calls as a list."""

    def __init__(self) -> None:
        self.served: dict[tuple[str, int], Any] = {}
        self.calls: list[Any] = []
        self.is_full = False
        self.unavailable: list[tuple[str, int, bytes]] = []

    def set_unavailable(self, partitions: list[tuple[str, int, bytes]]) -> None:
        self.unavailable = partitions

    def partition(self, topic: str, partition: int) -> Any:
        return self.served.get((topic, partition))

    def create_partition(
        self, topic: str, partition: int, *, topic_id: bytes, config: Any, leader_epoch: int, wall_ms: int
    ) -> None:
        if self.is_full:
            raise OSError("no space")
        self.calls.append(("create", topic, partition, leader_epoch, config["retention.ms"]))
        offsets = SimpleNamespace(leader_epoch=leader_epoch)
        self.served[topic, partition] = SimpleNamespace(topic_id=topic_id, offsets=lambda: offsets)

    def set_leadership(self, topic: str, partition: int, leader_epoch: int, *_now: int) -> None:
        self.calls.append(("lead", topic, partition, leader_epoch))

    def update_config(self, topic: str, partition: int, config: Any) -> None:
        self.calls.append(("configure", topic, partition, config["retention.ms"]))

    def delete_partition(self, topic: str, partition: int, *_now: int) -> None:
        self.calls.append(("delete", topic, partition))
        del self.served[topic, partition]


def partition_record(index: int, topic_id: uuid.UUID = TOPIC, *, leader: int = NODE) -> PartitionRecord:
    return PartitionRecord(
        partition_id=index,
        topic_id=topic_id,
        replicas=(leader,),
        isr=(leader,),
        leader=leader,
        leader_epoch=0,
        partition_epoch=0,
    )


def run(scenario: Callable[[MetadataPublisher, NotedPlane, Callable[..., Awaitable[None]]], Awaitable[None]]) -> None:
    async def main() -> None:
        plane: Any = NotedPlane()
        publisher = MetadataPublisher(plane, node_id=NODE, config=BrokerConfig.load({}))
        offset = 0

        async def commit(*records: MetadataRecord) -> None:
            nonlocal offset
            offset += len(records)
            publisher.on_committed(records, last_offset=offset, epoch=1)
            await publisher.wait_published(offset)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher.run)
            await scenario(publisher, plane, commit)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.05))


def test_a_new_topic_is_served_before_requests_see_it() -> None:
    async def scenario(publisher: MetadataPublisher, plane: NotedPlane, commit: Any) -> None:
        seen: list[Any] = []
        publisher.follow(lambda published: seen.append((published.image.topic("t"), dict(plane.served))))
        await commit(TopicRecord(name="t", topic_id=TOPIC), partition_record(0), partition_record(1, leader=2))
        assert plane.calls == [("create", "t", 0, 0, "604800000")]
        ((topic, served),) = seen
        assert topic is publisher.image.topic("t") is not None
        assert list(served) == [("t", 0)]

    run(scenario)


def test_a_raised_epoch_is_led_and_a_set_key_configured() -> None:
    async def scenario(_publisher: MetadataPublisher, plane: NotedPlane, commit: Any) -> None:
        await commit(TopicRecord(name="t", topic_id=TOPIC), partition_record(0))
        plane.calls.clear()
        await commit(PartitionChangeRecord(partition_id=0, topic_id=TOPIC, leader=NODE))
        await commit(ConfigRecord(resource_type=2, resource_name="t", name="retention.ms", value="5"))
        await commit(ConfigRecord(resource_type=4, resource_name="", name="log.retention.ms", value="6"))
        assert plane.calls == [("lead", "t", 0, 1), ("configure", "t", 0, "5"), ("configure", "t", 0, "5")]

    run(scenario)


def test_dynamic_settings_reach_topics_and_followers() -> None:
    async def scenario(publisher: MetadataPublisher, plane: NotedPlane, commit: Any) -> None:
        followed: list[Published] = []
        publisher.follow(followed.append)
        await commit(TopicRecord(name="t", topic_id=TOPIC), partition_record(0))
        await commit(ConfigRecord(resource_type=4, resource_name="", name="log.retention.ms", value="6"))
        assert plane.calls[-1] == ("configure", "t", 0, "6")
        assert followed[-1].config.integer("log.retention.ms") == 6

    run(scenario)


def test_a_namesake_opens_after_the_old_topic_is_gone() -> None:
    async def scenario(_publisher: MetadataPublisher, plane: NotedPlane, commit: Any) -> None:
        await commit(TopicRecord(name="t", topic_id=TOPIC), partition_record(0))
        plane.calls.clear()
        await commit(
            RemoveTopicRecord(topic_id=TOPIC),
            TopicRecord(name="t", topic_id=NAMESAKE),
            partition_record(0, NAMESAKE),
        )
        assert [call[0] for call in plane.calls] == ["delete", "create"]
        assert plane.served["t", 0].topic_id == NAMESAKE.bytes

    run(scenario)


def test_what_cannot_be_opened_is_tried_again_and_the_rest_is_served() -> None:
    async def scenario(publisher: MetadataPublisher, plane: NotedPlane, commit: Any) -> None:
        retried: list[Published] = []
        publisher.follow(lambda published: retried.append(published) if published.is_retry else None)
        plane.is_full = True
        await commit(TopicRecord(name="t", topic_id=TOPIC), partition_record(0))
        assert publisher.image.topic("t") is not None
        assert plane.served == {}
        assert plane.unavailable == [("t", 0, TOPIC.bytes)]
        assert publisher.missing_error("t", 0) is ErrorCode.KAFKA_STORAGE_ERROR
        assert publisher.missing_error("t", 1) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        await trio.sleep(RETRY_S * 1.5)
        assert retried == []
        assert plane.unavailable == [("t", 0, TOPIC.bytes)]
        plane.is_full = False
        await trio.sleep(RETRY_S)
        assert list(plane.served) == [("t", 0)]
        assert len(retried) == 1
        assert plane.unavailable == []

    run(scenario)


def test_what_could_not_be_opened_is_forgotten_with_its_topic() -> None:
    async def scenario(publisher: MetadataPublisher, plane: NotedPlane, commit: Any) -> None:
        plane.is_full = True
        await commit(TopicRecord(name="t", topic_id=TOPIC), partition_record(0))
        await commit(RemoveTopicRecord(topic_id=TOPIC))
        assert plane.unavailable == []
        assert publisher.missing_error("t", 0) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    run(scenario)
