"""The hash of a group's topics is Kafka's, and follows what a group depends on."""

from __future__ import annotations

import uuid
from dataclasses import replace

from ottla.coordinator.group.topic_metadata import Topics
from ottla.metadata.image import MetadataImage, PartitionRegistration, TopicImage
from tests.unit.coordinator.group.consumers import image


def test_the_hash_is_the_one_that_kafka_wrote() -> None:
    # From tests/golden/consumer_offsets: the topic `golden` with two partitions, on a broker without a rack.
    topic_id = uuid.UUID("38268608-6a6d-46ef-8a67-d173801139e5")
    partition = PartitionRegistration(replicas=(1,), isr=(1,), leader=1, leader_epoch=0, partition_epoch=0)
    golden = TopicImage(name="golden", topic_id=topic_id, partitions={0: partition, 1: partition})
    topics = Topics(MetadataImage(topics={topic_id: golden}, topic_ids={"golden": topic_id}))
    assert topics.hash_of(["golden", "not there"]) == -793499700050442762
    assert topics.hash_of(["not there"]) == 0


def test_the_hash_follows_topics_partitions_and_racks() -> None:
    base = image({"a": 1, "b": 3})
    hashes = [
        Topics(found).hash_of(["a", "b"])
        for found in (
            base,
            image({"a": 2, "b": 3}),
            image({"a": 1}),
            image({"a": 1, "b": 3}, generation=1),
            image({"a": 1, "b": 3}, racks={0: "x"}),
            image({"a": 1, "b": 3}, racks={0: "y"}),
        )
    ]
    assert len(set(hashes)) == len(hashes)
    assert Topics(replace(base, offset=9)).hash_of(["b", "a", "a"]) == hashes[0]


def test_what_changed_is_known_by_name() -> None:
    before = Topics(image({"a": 1, "b": 1}))
    assert Topics(before.image, before).changed_since(before) == set()
    grown = Topics(image({"a": 2, "c": 1}), before)
    assert {"a", "b", "c"} == grown.changed_since(before)
    racked = Topics(replace(before.image, brokers=image({}, racks={0: "x"}).brokers), before)
    assert racked.changed_since(before) == {"a", "b"}
    assert racked.hash_of(["a"]) != before.hash_of(["a"])


def test_only_new_topics_outdate_expressions() -> None:
    first = Topics(image({"a": 1}, offset=5))
    assert first.newest_topics_offset == 5
    fewer = Topics(image({}, offset=6), first)
    assert fewer.newest_topics_offset == 5
    assert Topics(image({"b": 1}, offset=7), fewer).newest_topics_offset == 7
