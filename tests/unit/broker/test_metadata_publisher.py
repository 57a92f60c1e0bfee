"""What the publisher asks of the data plane, with one that takes notes."""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from ottla.broker.data_dirs import DataDirs
from ottla.broker.held_partitions import HeldPartitions
from ottla.broker.metadata_publisher import PATIENCE_S, RETRY_S, MetadataPublisher, Published
from ottla.broker.replica_directories import OfflineReplicas
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
        self.disks: dict[str, threading.Event] = {}
        """By topic: the calls that wait until its disk goes on."""
        self.unavailable: list[tuple[str, int, bytes]] = []

    def set_unavailable(self, partitions: list[tuple[str, int, bytes]]) -> None:
        self.unavailable = partitions

    def partition(self, topic: str, partition: int) -> Any:
        return self.served.get((topic, partition))

    def create_partition(
        self, topic: str, partition: int, *, topic_id: bytes, config: Any, leader_epoch: int, wall_ms: int
    ) -> None:
        self._wait(topic)
        if self.is_full:
            raise OSError("no space")
        self.calls.append(("create", topic, partition, leader_epoch, config["retention.ms"]))
        offsets = SimpleNamespace(leader_epoch=leader_epoch)
        self.served[topic, partition] = SimpleNamespace(topic_id=topic_id, offsets=lambda: offsets)

    def stall(self, topic: str) -> threading.Event:
        """The disk of a topic does not answer until the event is set."""
        self.disks[topic] = threading.Event()
        return self.disks[topic]

    def _wait(self, topic: str) -> None:
        if (disk := self.disks.get(topic)) is not None:
            assert disk.wait(30)

    def set_leadership(self, topic: str, partition: int, leader_epoch: int, *_now: int) -> None:
        self.calls.append(("lead", topic, partition, leader_epoch))

    def update_config(self, topic: str, partition: int, config: Any) -> None:
        self.calls.append(("configure", topic, partition, config["retention.ms"]))

    def delete_partition(self, topic: str, partition: int, *_now: int) -> None:
        self.calls.append(("delete", topic, partition))
        del self.served[topic, partition]
        self._wait(topic)


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


def run(
    scenario: Callable[[MetadataPublisher, NotedPlane, Callable[..., Awaitable[None]]], Awaitable[None]],
    *,
    patience_s: float = math.inf,
    clock: trio.testing.MockClock | None = None,
    offline: OfflineReplicas | None = None,
) -> None:
    async def main() -> None:
        plane: Any = NotedPlane()
        publisher = MetadataPublisher(
            plane, node_id=NODE, config=BrokerConfig.load({}), patience_s=patience_s, offline=offline
        )
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

    trio.run(main, clock=clock or trio.testing.MockClock(autojump_threshold=0.05))


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


def test_what_may_be_in_a_directory_out_of_reach_is_not_made_anew_when_its_leadership_changes() -> None:
    async def scenario(publisher: MetadataPublisher, plane: NotedPlane, commit: Any) -> None:
        await commit(TopicRecord(name="t", topic_id=TOPIC), partition_record(0))
        await commit(TopicRecord(name="new", topic_id=NAMESAKE), partition_record(0, NAMESAKE))
        for leader in (-1, NODE):  # as a start has it: registered, then not fenced any more
            await commit(PartitionChangeRecord(partition_id=0, topic_id=TOPIC, leader=leader))
            assert list(plane.served) == [("new", 0)]
            assert publisher.missing_error("t", 0) is ErrorCode.KAFKA_STORAGE_ERROR

    directory = uuid.UUID(int=9)
    dirs = DataDirs(cluster_id="c", node_id=NODE, directory_ids={"a": directory}, offline={"b": "its disk is dead"})
    run(scenario, offline=OfflineReplicas(NODE, dirs, held=HeldPartitions({})))


def test_what_could_not_be_opened_is_forgotten_with_its_topic() -> None:
    async def scenario(publisher: MetadataPublisher, plane: NotedPlane, commit: Any) -> None:
        plane.is_full = True
        await commit(TopicRecord(name="t", topic_id=TOPIC), partition_record(0))
        await commit(RemoveTopicRecord(topic_id=TOPIC))
        assert plane.unavailable == []
        assert publisher.missing_error("t", 0) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    run(scenario)


def topic(name: str, topic_id: uuid.UUID) -> tuple[MetadataRecord, ...]:
    return TopicRecord(name=name, topic_id=topic_id), partition_record(0, topic_id)


class Asking:
    """A change that is asked for beside others; knows when it is answered."""

    def __init__(self, nursery: trio.Nursery, commit: Any, *records: MetadataRecord) -> None:
        self.is_answered = False
        nursery.start_soon(self._ask, commit, records)

    async def _ask(self, commit: Any, records: Any) -> None:
        await commit(*records)
        self.is_answered = True


def test_a_disk_that_stalls_while_it_opens_a_partition_holds_up_nobody_else() -> None:
    async def scenario(publisher: MetadataPublisher, plane: NotedPlane, commit: Any) -> None:
        late: list[Published] = []
        publisher.follow(lambda published: late.append(published) if published.is_retry else None)
        await commit(*topic("before", uuid.UUID(int=9)))
        disk = plane.stall("slow")
        async with trio.open_nursery() as nursery:
            slow = Asking(nursery, commit, *topic("slow", TOPIC))
            await trio.testing.wait_all_tasks_blocked()
            await commit(*topic("fast", NAMESAKE))
            assert ("fast", 0) in plane.served
            assert publisher.image.topic("slow") is not None
            assert plane.unavailable == [("slow", 0, TOPIC.bytes)]
            assert publisher.missing_error("slow", 0) is ErrorCode.KAFKA_STORAGE_ERROR
            await commit(ConfigRecord(resource_type=2, resource_name="slow", name="retention.ms", value="5"))
            raised = Asking(nursery, commit, PartitionChangeRecord(partition_id=0, topic_id=TOPIC, leader=NODE))
            await trio.testing.wait_all_tasks_blocked()
            await commit(RemoveTopicRecord(topic_id=NAMESAKE))
            assert not slow.is_answered
            assert not raised.is_answered
            plane.calls.clear()
            disk.set()
        # Answered, and what happened meanwhile holds.
        assert plane.calls == [
            ("create", "slow", 0, 0, "604800000"),
            ("lead", "slow", 0, 1),
            ("configure", "slow", 0, "5"),
        ]
        assert plane.served.keys() == {("before", 0), ("slow", 0)}
        assert plane.unavailable == []
        assert late[-1].image is publisher.image

    run(scenario, patience_s=PATIENCE_S)


def test_a_topic_that_is_deleted_and_made_again_while_its_disk_stalls() -> None:
    async def scenario(publisher: MetadataPublisher, plane: NotedPlane, commit: Any) -> None:
        await commit(*topic("before", uuid.UUID(int=9)))
        plane.calls.clear()
        disk = plane.stall("t")
        async with trio.open_nursery() as nursery:
            first = Asking(nursery, commit, *topic("t", TOPIC))
            await trio.sleep(10)
            await commit(RemoveTopicRecord(topic_id=TOPIC))
            assert publisher.missing_error("t", 0) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            second = Asking(nursery, commit, *topic("t", NAMESAKE))
            await trio.sleep(10)
            assert publisher.image.topic("t") is not None
            assert not first.is_answered
            assert not second.is_answered
            assert plane.calls == []
            disk.set()
        assert [call[:2] for call in plane.calls] == [("create", "t"), ("delete", "t"), ("create", "t")]
        assert plane.served["t", 0].topic_id == NAMESAKE.bytes
        assert plane.unavailable == []

    run(scenario, patience_s=PATIENCE_S)


def test_a_disk_that_stalls_while_it_deletes_holds_up_its_namesake_only() -> None:
    async def scenario(publisher: MetadataPublisher, plane: NotedPlane, commit: Any) -> None:
        await commit(*topic("t", TOPIC))
        disk = plane.stall("t")
        async with trio.open_nursery() as nursery:
            deleting = Asking(nursery, commit, RemoveTopicRecord(topic_id=TOPIC))
            await trio.sleep(10)
            assert publisher.image.topic("t") is None
            making = Asking(nursery, commit, *topic("t", NAMESAKE))
            await trio.sleep(10)
            await commit(*topic("fast", uuid.UUID(int=9)))
            assert not deleting.is_answered
            assert not making.is_answered
            assert plane.served.keys() == {("fast", 0)}
            disk.set()
        assert plane.served["t", 0].topic_id == NAMESAKE.bytes

    run(scenario, patience_s=PATIENCE_S)


def test_many_partitions_may_take_their_time_as_long_as_they_come() -> None:
    async def scenario(publisher: MetadataPublisher, plane: NotedPlane, commit: Any) -> None:
        await commit(*topic("before", uuid.UUID(int=9)))
        seen: list[int] = []
        publisher.follow(lambda _published: seen.append(len(plane.served)))
        open_one = plane.create_partition

        def slowly(*args: Any, **kwargs: Any) -> None:
            trio.from_thread.run_sync(clock.jump, PATIENCE_S / 2)
            open_one(*args, **kwargs)

        plane.create_partition = slowly  # type: ignore[method-assign]
        await commit(TopicRecord(name="t", topic_id=TOPIC), *(partition_record(index) for index in range(20)))
        assert seen == [21]

    clock = trio.testing.MockClock()
    run(scenario, patience_s=PATIENCE_S, clock=clock)
