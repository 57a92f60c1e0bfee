"""What is said of the log directories of replicas, and what a directory out of reach does to them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from ottla.broker.data_dirs import DataDirs
from ottla.broker.held_partitions import HeldPartitions
from ottla.broker.metadata_publisher import Published
from ottla.broker.replica_directories import ASSIGNMENTS_MAX, RETRY_S, DirectoryAssignments, OfflineReplicas
from ottla.common.config import BrokerConfig
from ottla.controller.directory_control import Replica
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.image import EMPTY_IMAGE, MetadataImage, TopicImage
from ottla.metadata.records import (
    DIRECTORY_LOST,
    DIRECTORY_UNASSIGNED,
    MetadataRecord,
    PartitionChangeRecord,
    PartitionRecord,
    RegisterBrokerRecord,
    RemoveTopicRecord,
    TopicRecord,
)
from tests.unit.broker.test_metadata_publisher import NODE, TOPIC, partition_record

A, B, GONE = (uuid.UUID(int=100 + number) for number in range(3))
Told = Mapping[Replica, uuid.UUID]


def placed(index: int, directory: uuid.UUID = DIRECTORY_UNASSIGNED) -> PartitionRecord:
    return replace(partition_record(index), directories=(directory,))


def image_of(*records: MetadataRecord, before: MetadataImage = EMPTY_IMAGE) -> MetadataImage:
    return MetadataDelta(before).replay_all(records).image(offset=before.offset + len(records), epoch=1)


def topic_in(*directories: uuid.UUID) -> tuple[MetadataImage, TopicImage]:
    partitions = [placed(index, directory) for index, directory in enumerate(directories)]
    image = image_of(TopicRecord(name="t", topic_id=TOPIC), *partitions)
    topic = image.topic("t")
    assert topic is not None
    return image, topic


def dirs(*, offline: bool) -> DataDirs:
    return DataDirs(
        cluster_id="c",
        node_id=NODE,
        directory_ids={"a": A, "b": B},
        offline={"c": "its disk is dead"} if offline else {},
    )


def test_what_was_assigned_elsewhere_is_offline_unless_it_is_here() -> None:
    image, topic = topic_in(GONE, GONE, B)
    for offline in (True, False):
        replicas = OfflineReplicas(NODE, dirs(offline=offline), held=HeldPartitions({("t", 1): {"a": TOPIC.bytes}}))
        for _ in range(2):
            assert [replicas.is_offline(topic, index) for index in range(3)] == [True, False, False]
            replicas.on_start(image)
        assert replicas.left(image) == {("t", 0): TOPIC.bytes}
        assert replicas.left(image_of(RemoveTopicRecord(topic_id=TOPIC), before=image)) == {}


@pytest.mark.parametrize("is_any_offline", [True, False])
def test_what_was_never_assigned_may_be_in_a_directory_that_is_offline_if_it_is_older_than_the_start(
    is_any_offline: bool,
) -> None:
    image, _ = topic_in(DIRECTORY_UNASSIGNED)
    replicas = OfflineReplicas(NODE, dirs(offline=is_any_offline), held=HeldPartitions({}))
    replicas.on_start(image)
    new = TopicRecord(name="new", topic_id=GONE)
    later = image_of(new, replace(placed(0), topic_id=GONE), before=image)
    for leader in (-1, NODE, -1, NODE):
        later = image_of(PartitionChangeRecord(partition_id=0, topic_id=TOPIC, leader=leader), before=later)
        found = [replicas.is_offline(topic, 0) for name in ("t", "new") if (topic := later.topic(name))]
        assert found == [is_any_offline, False]


def test_a_directory_that_was_registered_and_is_not_here_is_away() -> None:
    """Nothing tells that of one whose disk is not mounted, or that is not configured any more."""
    image, topic = topic_in(DIRECTORY_UNASSIGNED)
    for had, is_away in (((A,), False), ((A, B), False), ((B, GONE), True)):
        registered = image_of(
            RegisterBrokerRecord(
                broker_id=NODE, incarnation_id=GONE, broker_epoch=1, end_points=(), features=(), rack=None, log_dirs=had
            ),
            before=image,
        )
        replicas = OfflineReplicas(NODE, dirs(offline=False), held=HeldPartitions({}))
        replicas.on_start(registered)
        assert replicas.is_offline(topic, 0) is is_away, had


def test_what_is_lost_is_offline_until_it_is_found() -> None:
    _, topic = topic_in(DIRECTORY_LOST, DIRECTORY_LOST)
    replicas = OfflineReplicas(NODE, dirs(offline=False), held=HeldPartitions({("t", 1): {"a": TOPIC.bytes}}))
    assert [replicas.is_offline(topic, index) for index in range(2)] == [True, False]


def test_what_is_held_of_an_earlier_topic_is_not_the_partition() -> None:
    image, topic = topic_in(GONE)
    for held, is_offline in ((GONE.bytes, True), (TOPIC.bytes, False), (None, False)):
        replicas = OfflineReplicas(NODE, dirs(offline=False), held=HeldPartitions({("t", 0): {"a": held}}))
        replicas.on_start(image)
        assert replicas.is_offline(topic, 0) is is_offline, held


def test_the_name_of_what_may_be_out_of_reach_can_be_used_again() -> None:
    image, _ = topic_in(DIRECTORY_UNASSIGNED)
    replicas = OfflineReplicas(NODE, dirs(offline=True), held=HeldPartitions({}))
    replicas.on_start(image)
    again = image_of(TopicRecord(name="t", topic_id=GONE), replace(placed(0), topic_id=GONE))
    topic = again.topic("t")
    assert topic is not None
    assert not replicas.is_offline(topic, 0)
    assert not replicas.left(again)


class Assigning:
    """Partitions in directories, and a controller that may be away."""

    def __init__(self) -> None:
        self.log_dirs: dict[tuple[str, int], int] = {}
        self.told: list[Told] = []
        self.refusals = 0
        self.image = EMPTY_IMAGE
        plane: Any = self
        self.assignments = DirectoryAssignments(plane, self._assign, node_id=NODE, directory_ids={"a": A, "b": B})

    def partition(self, topic: str, index: int) -> Any:
        log_dir = self.log_dirs.get((topic, index))
        return None if log_dir is None else SimpleNamespace(log_dir=log_dir, topic_id=TOPIC.bytes)

    async def _assign(self, assignments: Told) -> None:
        await trio.lowlevel.checkpoint()
        if self.refusals:
            self.refusals -= 1
            raise KafkaError(ErrorCode.NOT_CONTROLLER)
        self.told.append(assignments)

    def publish(self, *records: MetadataRecord, is_retry: bool = False) -> None:
        delta = MetadataDelta(self.image).replay_all(records)
        self.image = delta.image(offset=self.image.offset + len(records), epoch=1)
        self.assignments.on_published(
            Published(image=self.image, delta=delta, config=BrokerConfig.load({}), is_retry=is_retry)
        )

    def run(self) -> None:
        """For longer than the controller is away."""

        async def main() -> None:
            with trio.move_on_after(2 * (self.refusals + 1) * RETRY_S):
                await self.assignments.run()

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_what_the_metadata_does_not_know_is_told() -> None:
    found = Assigning()
    found.log_dirs = {("t", 0): 0, ("t", 1): 1, ("t", 2): 1}
    found.publish(TopicRecord(name="t", topic_id=TOPIC), placed(0), placed(1, GONE), placed(2, B))
    found.run()
    assert found.told == [{(TOPIC, 0): A, (TOPIC, 1): B}]
    found.told.clear()
    for index, directory in ((0, A), (1, B)):
        found.publish(PartitionChangeRecord(partition_id=index, topic_id=TOPIC, directories=(directory,)))
    found.run()
    assert found.told == []


def test_what_is_opened_late_is_told_then() -> None:
    found = Assigning()
    found.publish(TopicRecord(name="t", topic_id=TOPIC), placed(0))
    found.log_dirs = {("t", 0): 1}
    found.publish(is_retry=True)
    found.run()
    assert found.told == [{(TOPIC, 0): B}]


def test_a_controller_that_is_away_is_told_later() -> None:
    found = Assigning()
    found.refusals = 3
    found.log_dirs = {("t", 0): 0}
    found.publish(TopicRecord(name="t", topic_id=TOPIC), placed(0))
    found.run()
    assert found.told == [{(TOPIC, 0): A}]


def test_many_are_told_in_parts() -> None:
    found = Assigning()
    count = 2 * ASSIGNMENTS_MAX + 1
    found.log_dirs = {("t", index): 0 for index in range(count)}
    found.publish(TopicRecord(name="t", topic_id=TOPIC), *(placed(index) for index in range(count)))
    found.run()
    assert [len(told) for told in found.told] == [ASSIGNMENTS_MAX, ASSIGNMENTS_MAX, 1]
    assert {index for told in found.told for _, index in told} == set(range(count))
