"""The controller under random histories of requests, brokers and changes of leadership."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ottla.common.topics import collision_key
from ottla.controller.producer_ids import AllocateProducerIdsRequest
from ottla.errors import ErrorCode
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.records import NO_LEADER, decode_record, encode_record
from ottla.protocol.messages import alter_configs, incremental_alter_configs
from ottla.protocol.messages.create_partitions import CreatePartitionsRequest, CreatePartitionsTopic
from ottla.protocol.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
)
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from ottla.protocol.messages.elect_leaders import ElectLeadersRequest
from ottla.protocol.messages.unregister_broker import UnregisterBrokerRequest
from tests.unit.controller.helpers import Cluster

NAMES = st.sampled_from(["a", "b", "a.b", "a_b", "a-b", "", ".", "x y"])
BROKERS = st.integers(1, 4)
REPLICAS = st.lists(BROKERS, max_size=3)
CONFIGS = st.lists(
    st.tuples(
        st.sampled_from(["retention.ms", "cleanup.policy", "segment.bytes", "nonsense"]),
        st.sampled_from(["1", "compact", "delete,compact", "2000000", "", "-5"]),
    ),
    max_size=2,
)


GOOD_NAMES = st.sampled_from(["a", "b", "a.b", "a-b"])
GOOD_CONFIGS = st.sampled_from([[], [("retention.ms", "1")], [("cleanup.policy", "compact"), ("segment.ms", "7")]])


@st.composite
def good_topics(draw: st.DrawFn) -> CreatableTopic:
    return CreatableTopic(
        name=draw(GOOD_NAMES),
        num_partitions=draw(st.integers(1, 4)),
        replication_factor=draw(st.integers(1, 3)),
        configs=tuple(CreatableTopicConfig(name=name, value=value) for name, value in draw(GOOD_CONFIGS)),
    )


@st.composite
def odd_topics(draw: st.DrawFn) -> CreatableTopic:
    assignments = draw(st.lists(st.tuples(st.integers(0, 2), REPLICAS), max_size=2))
    chosen = not assignments or draw(st.booleans())
    return CreatableTopic(
        name=draw(NAMES),
        num_partitions=draw(st.integers(-2, 4)) if chosen else -1,
        replication_factor=draw(st.integers(-2, 3)) if chosen else -1,
        assignments=tuple(CreatableReplicaAssignment(partition_index=i, broker_ids=tuple(b)) for i, b in assignments),
        configs=tuple(CreatableTopicConfig(name=name, value=value) for name, value in draw(CONFIGS)),
    )


class Controllers(RuleBasedStateMachine):
    """Brokers 1 to 4, three of them up from the start."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster(seed=1).start(1, 2, 3)
        self.topic_ids_seen: set[Any] = set()
        self.producer_ids_end = 0
        self.epochs: dict[tuple[Any, int], tuple[int, int]] = {}

    @rule(topic=good_topics())
    def create_good_topic(self, topic: CreatableTopic) -> None:
        self.create_topics([topic], validate_only=False)

    @rule(topics=st.lists(good_topics() | odd_topics(), max_size=3), validate_only=st.booleans())
    def create_any_topics(self, topics: list[CreatableTopic], validate_only: bool) -> None:
        self.create_topics(topics, validate_only=validate_only)

    def create_topics(self, topics: list[CreatableTopic], *, validate_only: bool) -> None:
        before = self.cluster.image()
        request = CreateTopicsRequest(topics=tuple(topics), validate_only=validate_only)
        response = self.cluster.call(request)
        after = self.cluster.image()
        assert sorted(result.name for result in response.topics) == sorted({topic.name for topic in topics})
        made = {result.name for result in response.topics if result.error_code is ErrorCode.NONE}
        assert set(after.topic_ids) - set(before.topic_ids) == (set() if validate_only else made)
        for result in response.topics:
            if result.name in made and not validate_only:
                topic = after.topic(result.name)
                assert topic is not None
                assert topic.topic_id == result.topic_id
                assert len(topic.partitions) == result.num_partitions
                assert topic.topic_id not in self.topic_ids_seen, "an id is used once"
                self.topic_ids_seen.add(topic.topic_id)

    @rule(names=st.lists(GOOD_NAMES | NAMES, max_size=3))
    def delete_topics(self, names: list[str]) -> None:
        before = self.cluster.image()
        request = DeleteTopicsRequest(topics=tuple(DeleteTopicState(name=name) for name in names))
        response = self.cluster.call(request)
        after = self.cluster.image()
        gone = {result.name for result in response.responses if result.error_code is ErrorCode.NONE}
        assert set(before.topic_ids) - set(after.topic_ids) == gone
        assert gone == {name for name, count in Counter(names).items() if count == 1 and name in before.topic_ids}
        assert not any(resource.name in gone for resource in after.configs if resource.type == 2)

    @rule(name=NAMES, count=st.integers(-1, 6))
    def create_partitions(self, name: str, count: int) -> None:
        before = self.cluster.image().topic(name)
        request = CreatePartitionsRequest(topics=(CreatePartitionsTopic(name=name, count=count, assignments=None),))
        response = self.cluster.call(request)
        after = self.cluster.image().topic(name)
        if response.results[0].error_code is ErrorCode.NONE:
            assert before is not None
            assert after is not None
            assert len(before.partitions) < count == len(after.partitions)
            assert all(after.partitions[index] == partition for index, partition in before.partitions.items())
        else:
            assert before == after

    @rule(name=NAMES, configs=GOOD_CONFIGS | CONFIGS, operation=st.integers(0, 4), validate_only=st.booleans())
    def alter_configs(self, name: str, configs: list[tuple[str, str]], operation: int, validate_only: bool) -> None:
        before = self.cluster.image().config(2, name)
        resource = incremental_alter_configs.AlterConfigsResource(
            resource_type=2,
            resource_name=name,
            configs=tuple(
                incremental_alter_configs.AlterableConfig(name=key, value=value, config_operation=operation)
                for key, value in configs
            ),
        )
        response = self.cluster.call(
            incremental_alter_configs.IncrementalAlterConfigsRequest(resources=(resource,), validate_only=validate_only)
        )
        if validate_only or response.responses[0].error_code is not ErrorCode.NONE:
            assert self.cluster.image().config(2, name) == before

    @rule(name=NAMES, configs=GOOD_CONFIGS | CONFIGS)
    def replace_configs(self, name: str, configs: list[tuple[str, str]]) -> None:
        resource = alter_configs.AlterConfigsResource(
            resource_type=2,
            resource_name=name,
            configs=tuple(alter_configs.AlterableConfig(name=key, value=value) for key, value in configs),
        )
        response = self.cluster.call(alter_configs.AlterConfigsRequest(resources=(resource,)))
        if response.responses[0].error_code is ErrorCode.NONE:
            assert dict(self.cluster.image().config(2, name)) == dict(configs)

    @rule(broker_id=BROKERS, rack=st.none() | st.sampled_from(["r", "s"]))
    def register(self, broker_id: int, rack: str | None) -> None:
        self.cluster.register(broker_id, rack=rack)

    @precondition(lambda self: self.cluster.epochs)
    @rule(data=st.data(), fence=st.booleans(), shut_down=st.booleans())
    def heartbeat(self, data: st.DataObject, fence: bool, shut_down: bool) -> None:
        broker_id = data.draw(st.sampled_from(sorted(self.cluster.epochs)))
        self.cluster.heartbeat(broker_id, want_fence=fence, want_shut_down=shut_down)

    @rule()
    def everybody_is_there(self) -> None:
        for broker_id in self.cluster.epochs:
            self.cluster.heartbeat(broker_id)

    @rule(broker_id=BROKERS)
    def unregister(self, broker_id: int) -> None:
        self.cluster.call(UnregisterBrokerRequest(broker_id=broker_id))

    @rule(passed_ms=st.integers(0, 10_000))
    def time_passes(self, passed_ms: int) -> None:
        self.cluster.tick(self.cluster.now_ms + passed_ms)

    @rule(kind=st.integers(0, 1))
    def elect(self, kind: int) -> None:
        self.cluster.call(ElectLeadersRequest(topic_partitions=None, election_type=kind))

    @precondition(lambda self: self.cluster.epochs)
    @rule(data=st.data())
    def allocate_producer_ids(self, data: st.DataObject) -> None:
        broker_id = data.draw(st.sampled_from(sorted(self.cluster.epochs)))
        request = AllocateProducerIdsRequest(broker_id=broker_id, broker_epoch=self.cluster.epochs[broker_id])
        response = self.cluster.call(request)
        if response.error_code is ErrorCode.NONE:
            assert response.start >= self.producer_ids_end, "an id is given out once"
            self.producer_ids_end = response.start + response.length

    @rule(through_snapshot=st.booleans())
    def change_leader(self, through_snapshot: bool) -> None:
        self.cluster.change_leader(through_snapshot=through_snapshot)

    @invariant()
    def the_controller_knows_what_the_log_says(self) -> None:
        image = self.cluster.image()
        state = self.cluster.controller.metadata
        assert dict(state.topics) == dict(image.topics)
        assert dict(state.topic_ids) == dict(image.topic_ids)
        assert dict(state.brokers) == dict(image.brokers)
        assert dict(state.configs) == dict(image.configs)
        assert dict(state.features) == dict(image.features)
        assert state.next_producer_id == image.next_producer_id

    @invariant()
    def a_snapshot_says_the_same(self) -> None:
        image = self.cluster.image()
        rebuilt = MetadataDelta().replay_all(decode_record(encode_record(record)) for record in image.records())
        assert rebuilt.image(offset=image.offset, epoch=image.epoch) == image

    @invariant()
    def names_and_partitions_are_sound(self) -> None:
        image = self.cluster.image()
        assert {topic.name: topic.topic_id for topic in image.topics.values()} == dict(image.topic_ids)
        for topic in image.topics.values():
            assert sorted(topic.partitions) == list(range(len(topic.partitions)))
            assert len({len(partition.replicas) for partition in topic.partitions.values()}) == 1
            for partition in topic.partitions.values():
                assert len(set(partition.replicas)) == len(partition.replicas) == len(partition.directories)
                assert partition.isr
                assert set(partition.isr) <= set(partition.replicas)
                assert partition.leader == NO_LEADER or partition.leader in partition.isr

    @invariant()
    def nobody_dead_leads(self) -> None:
        image = self.cluster.image()
        for topic in image.topics.values():
            for partition in topic.partitions.values():
                if partition.leader == NO_LEADER:
                    continue
                broker = image.brokers[partition.leader]
                others = [replica for replica in partition.isr if replica != partition.leader]
                # A broker that registered anew keeps what nobody else can lead until it is unfenced.
                kept = broker.fenced and not any(image.brokers[replica].is_live for replica in others)
                assert broker.is_live or kept

    @invariant()
    def epochs_only_rise(self) -> None:
        for topic in self.cluster.image().topics.values():
            for index, partition in topic.partitions.items():
                key = (topic.topic_id, index)
                now = (partition.leader_epoch, partition.partition_epoch)
                before = self.epochs.get(key, (0, 0))
                assert now[0] >= before[0]
                assert now[1] >= before[1]
                self.epochs[key] = now

    @invariant()
    def names_that_collide_came_together(self) -> None:
        # Kafka checks against existing topics only; two new ones in a single request may collide.
        collisions = Counter(map(collision_key, self.cluster.image().topic_ids))
        assert collisions["a_b"] <= 2


TestControllers = Controllers.TestCase
TestControllers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
