"""What a delta refuses, and what Kafka's own log adds up to."""

from __future__ import annotations

import uuid

import pytest

from ottla.metadata.delta import InconsistentMetadata, MetadataDelta
from ottla.metadata.image import ConfigResource
from ottla.metadata.records import (
    BeginTransactionRecord,
    BrokerRegistrationChangeRecord,
    EndTransactionRecord,
    MetadataRecord,
    PartitionChangeRecord,
    PartitionRecord,
    ProducerIdsRecord,
    RemoveTopicRecord,
    TopicRecord,
    UnregisterBrokerRecord,
    decode_record,
)
from tests.unit.metadata.test_records import KAFKAS_LOG, values_in

TOPIC = uuid.UUID(int=1)


def test_kafkas_log_adds_up() -> None:
    delta = MetadataDelta().replay_all(decode_record(value) for value in values_in(KAFKAS_LOG.read_bytes()))
    image = delta.image(offset=0, epoch=0)
    assert set(image.topic_ids) == {"a", "orders", "manual", "orders2"}
    assert image.features["metadata.version"] == 30
    assert image.next_producer_id == 2000
    assert dict(image.config(2, "orders")) == {"cleanup.policy": "compact", "retention.ms": "5000"}
    assert ConfigResource(2, "a") not in image.configs
    orders = image.partition("orders", 0)
    assert orders is not None
    # A clean stop and a start: leader gone, leader back.
    assert (orders.leader, orders.leader_epoch, orders.partition_epoch) == (1, 2, 2)
    assert not image.brokers[1].fenced
    assert not image.brokers[1].in_controlled_shutdown


def test_a_leader_that_is_set_raises_the_epoch_even_if_it_stays() -> None:
    delta = MetadataDelta().replay_all(
        [
            TopicRecord(name="t", topic_id=TOPIC),
            PartitionRecord(
                partition_id=0, topic_id=TOPIC, replicas=(1,), isr=(1,), leader=1, leader_epoch=0, partition_epoch=0
            ),
            PartitionChangeRecord(partition_id=0, topic_id=TOPIC, leader=1),
            PartitionChangeRecord(partition_id=0, topic_id=TOPIC, isr=(1,)),
        ]
    )
    partition = delta.topics[TOPIC].partitions[0]
    assert (partition.leader, partition.leader_epoch, partition.partition_epoch) == (1, 1, 2)


def test_a_new_replica_without_a_directory_is_unassigned() -> None:
    home = uuid.UUID(int=77)
    delta = MetadataDelta().replay_all(
        [
            TopicRecord(name="t", topic_id=TOPIC),
            PartitionRecord(
                partition_id=0,
                topic_id=TOPIC,
                replicas=(1,),
                isr=(1,),
                leader=1,
                leader_epoch=0,
                partition_epoch=0,
                directories=(home,),
            ),
            PartitionChangeRecord(partition_id=0, topic_id=TOPIC, replicas=(2, 1)),
        ]
    )
    assert delta.topics[TOPIC].partitions[0].directories == (uuid.UUID(int=1), home)


@pytest.mark.parametrize(
    "records",
    [
        [TopicRecord(name="t", topic_id=TOPIC), TopicRecord(name="t", topic_id=uuid.UUID(int=2))],
        [TopicRecord(name="t", topic_id=TOPIC), TopicRecord(name="u", topic_id=TOPIC)],
        [RemoveTopicRecord(topic_id=TOPIC)],
        [PartitionChangeRecord(partition_id=0, topic_id=TOPIC, leader=1)],
        [TopicRecord(name="t", topic_id=TOPIC), PartitionChangeRecord(partition_id=0, topic_id=TOPIC, leader=1)],
        [BrokerRegistrationChangeRecord(broker_id=1, broker_epoch=1, fenced=1)],
        [UnregisterBrokerRecord(broker_id=1, broker_epoch=1)],
        [
            ProducerIdsRecord(broker_id=1, broker_epoch=1, next_producer_id=2000),
            ProducerIdsRecord(broker_id=1, broker_epoch=1, next_producer_id=1000),
        ],
        [EndTransactionRecord()],
    ],
)
def test_a_record_that_contradicts_the_metadata_is_refused(records: list[MetadataRecord]) -> None:
    delta = MetadataDelta().replay_all(records[:-1])
    with pytest.raises(InconsistentMetadata):
        delta.replay(records[-1])


def test_an_image_never_shows_half_a_transaction() -> None:
    delta = MetadataDelta().replay_all([BeginTransactionRecord(), TopicRecord(name="t", topic_id=TOPIC)])
    with pytest.raises(InconsistentMetadata, match="within a metadata transaction"):
        delta.image(offset=0, epoch=0)
