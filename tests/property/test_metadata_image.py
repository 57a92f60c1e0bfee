"""Images and deltas under random histories of records."""

from __future__ import annotations

import contextlib
import uuid

from hypothesis import given, settings
from hypothesis import strategies as st

from ottla.metadata.delta import MetadataDelta
from ottla.metadata.image import EMPTY_IMAGE, MetadataImage
from ottla.metadata.records import (
    RECORD_TYPES,
    AbortTransactionRecord,
    BeginTransactionRecord,
    BrokerRegistrationChangeRecord,
    ConfigRecord,
    Endpoint,
    EndTransactionRecord,
    FeatureLevelRecord,
    FeatureRange,
    MalformedRecord,
    MetadataRecord,
    PartitionChangeRecord,
    PartitionRecord,
    ProducerIdsRecord,
    RegisterBrokerRecord,
    RegisterControllerRecord,
    RemoveTopicRecord,
    TopicRecord,
    UnregisterBrokerRecord,
    decode_record,
    encode_record,
)

BROKERS = st.integers(1, 4)
REPLICAS = st.lists(BROKERS, min_size=1, max_size=3, unique=True).map(tuple)
NAMES = st.sampled_from(["a", "b", "c.d", "e_f"])
KEYS = st.sampled_from(["retention.ms", "cleanup.policy", "segment.bytes"])


@st.composite
def histories(draw: st.DrawFn) -> list[MetadataRecord]:
    """Records that a controller could have written, in order."""
    records: list[MetadataRecord] = []
    state = MetadataDelta()

    def add(record: MetadataRecord) -> None:
        state.replay(record)
        records.append(record)

    for step in range(draw(st.integers(0, 30))):
        topics = list(state.topics.values())
        brokers = list(state.brokers.values())
        kind = draw(st.integers(0, 8))
        if kind == 0 and (name := draw(NAMES)) not in state.topic_ids:
            topic_id = uuid.UUID(int=step + 10)
            add(TopicRecord(name=name, topic_id=topic_id))
            for index in range(draw(st.integers(1, 3))):
                replicas = draw(REPLICAS)
                add(
                    PartitionRecord(
                        partition_id=index,
                        topic_id=topic_id,
                        replicas=replicas,
                        isr=replicas,
                        leader=replicas[0],
                        leader_epoch=0,
                        partition_epoch=0,
                        directories=tuple(uuid.UUID(int=replica) for replica in replicas),
                    )
                )
        elif kind == 1 and topics:
            topic = draw(st.sampled_from(topics))
            optional_ids = st.none() | st.lists(BROKERS, max_size=2).map(tuple)
            add(
                PartitionChangeRecord(
                    partition_id=draw(st.sampled_from(list(topic.partitions))),
                    topic_id=topic.topic_id,
                    leader=draw(st.integers(-2, 4)),
                    isr=draw(optional_ids),
                    replicas=draw(st.none() | REPLICAS),
                    adding_replicas=draw(optional_ids),
                    eligible_leader_replicas=draw(optional_ids),
                )
            )
        elif kind == 2 and topics:
            add(RemoveTopicRecord(topic_id=draw(st.sampled_from(topics)).topic_id))
        elif kind == 3:
            add(
                ConfigRecord(
                    resource_type=draw(st.sampled_from([2, 4, 32])),
                    resource_name=draw(NAMES),
                    name=draw(KEYS),
                    value=draw(st.none() | st.text(max_size=3)),
                )
            )
        elif kind == 4:
            add(
                RegisterBrokerRecord(
                    broker_id=draw(BROKERS),
                    incarnation_id=uuid.UUID(int=step + 1),
                    broker_epoch=step,
                    end_points=(Endpoint(name="PLAINTEXT", host="h", port=9092),),
                    features=(
                        FeatureRange(name="metadata.version", min_supported_version=1, max_supported_version=30),
                    ),
                    rack=draw(st.none() | st.just("r")),
                )
            )
        elif kind == 5 and brokers:
            broker = draw(st.sampled_from(brokers))
            add(
                BrokerRegistrationChangeRecord(
                    broker_id=broker.broker_id,
                    broker_epoch=broker.broker_epoch,
                    fenced=draw(st.integers(-1, 1)),
                    in_controlled_shutdown=draw(st.integers(0, 1)),
                )
            )
        elif kind == 6 and brokers:
            broker = draw(st.sampled_from(brokers))
            add(UnregisterBrokerRecord(broker_id=broker.broker_id, broker_epoch=broker.broker_epoch))
        elif kind == 7:
            add(FeatureLevelRecord(name=draw(KEYS), feature_level=draw(st.integers(0, 3))))
        elif kind == 8:
            add(ProducerIdsRecord(broker_id=1, broker_epoch=1, next_producer_id=state.next_producer_id + 1000))
            add(
                RegisterControllerRecord(
                    controller_id=draw(BROKERS), incarnation_id=uuid.UUID(int=step + 1), end_points=(), features=()
                )
            )
    return records


def image_of(records: list[MetadataRecord]) -> MetadataImage:
    return MetadataDelta().replay_all(records).image(offset=0, epoch=0)


@settings(max_examples=500)
@given(kind=st.sampled_from(sorted(RECORD_TYPES)), version=st.integers(0, 5), rest=st.binary(max_size=80))
def test_bytes_are_a_record_or_refused(kind: int, version: int, rest: bytes) -> None:
    with contextlib.suppress(MalformedRecord):
        record = decode_record(bytes((1, kind, version)) + rest)
        assert decode_record(encode_record(record)) == record


@settings(max_examples=200)
@given(records=histories())
def test_a_snapshot_rebuilds_the_image(records: list[MetadataRecord]) -> None:
    image = image_of(records)
    snapshot = [decode_record(encode_record(record)) for record in image.records()]
    assert image_of(snapshot) == image
    assert list(image_of(snapshot).records()) == snapshot


@settings(max_examples=200)
@given(records=histories(), data=st.data())
def test_it_does_not_matter_where_a_history_is_cut_into_deltas(
    records: list[MetadataRecord], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(records)))
    first = image_of(records[:cut])
    kept = list(first.records())
    delta = MetadataDelta(first).replay_all(records[cut:])
    assert delta.image(offset=0, epoch=0) == image_of(records)
    assert list(first.records()) == kept, "the base changed under its reader"


@settings(max_examples=200)
@given(records=histories(), data=st.data())
def test_a_delta_names_everything_that_differs(records: list[MetadataRecord], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(records)))
    before = image_of(records[:cut])
    delta = MetadataDelta(before).replay_all(records[cut:])
    after = delta.image(offset=0, epoch=0)
    assert set(delta.removed_topics) == set(before.topics) - set(after.topics)
    for topic_id, topic in after.topics.items():
        old = before.topics[topic_id].partitions if topic_id in before.topics else {}
        differing = {index for index, partition in topic.partitions.items() if old.get(index) != partition}
        assert differing <= delta.changed_partitions.get(topic_id, set())
    assert set(delta.changed_partitions) <= set(after.topics)
    for resource in before.configs.keys() | after.configs.keys():
        if before.configs.get(resource) != after.configs.get(resource):
            assert resource in delta.changed_configs
    for broker_id in before.brokers.keys() | after.brokers.keys():
        if before.brokers.get(broker_id) != after.brokers.get(broker_id):
            assert broker_id in delta.changed_brokers


@settings(max_examples=50)
@given(records=histories())
def test_a_metadata_transaction_counts_whole_or_not_at_all(records: list[MetadataRecord]) -> None:
    assert image_of([BeginTransactionRecord(name="t"), *records, EndTransactionRecord()]) == image_of(records)
    aborted = MetadataDelta().replay_all([BeginTransactionRecord(), *records, AbortTransactionRecord()])
    assert aborted.image(offset=-1, epoch=-1) == EMPTY_IMAGE
