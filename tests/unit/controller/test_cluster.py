"""Brokers come, stay, go and return; leadership follows."""

from __future__ import annotations

import uuid

from ottla.controller.feature_control import supported_feature_ranges
from ottla.controller.producer_ids import AllocateProducerIdsRequest, AllocateProducerIdsResponse
from ottla.errors import ErrorCode
from ottla.metadata.records import NO_LEADER, PartitionChangeRecord
from ottla.protocol.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    ReassignablePartition,
    ReassignableTopic,
)
from ottla.protocol.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
)
from ottla.protocol.messages.elect_leaders import ElectLeadersRequest, TopicPartitions
from ottla.protocol.messages.unregister_broker import UnregisterBrokerRequest
from tests.unit.controller.helpers import Cluster


def create(cluster: Cluster, name: str, *assignment: tuple[int, ...]) -> None:
    topic = CreatableTopic(
        name=name,
        num_partitions=-1,
        replication_factor=-1,
        assignments=tuple(
            CreatableReplicaAssignment(partition_index=index, broker_ids=replicas)
            for index, replicas in enumerate(assignment)
        ),
    )
    response = cluster.call(CreateTopicsRequest(topics=(topic,)))
    assert response.topics[0].error_code is ErrorCode.NONE, response


def test_a_broker_serves_once_it_has_seen_its_own_registration() -> None:
    cluster = Cluster()
    epoch = cluster.register(1).broker_epoch
    assert cluster.image().brokers[1].fenced
    assert cluster.heartbeat(1, metadata_offset=epoch - 1).is_fenced
    assert not cluster.heartbeat(1, metadata_offset=epoch).is_fenced
    assert not cluster.image().brokers[1].fenced


def test_every_start_of_a_lone_broker_raises_the_leader_epoch_once() -> None:
    cluster = Cluster().start(1)
    create(cluster, "t", (1,), (1,))
    before = len(cluster.log)
    for start in (1, 2, 3):
        cluster.change_leader()  # what a restart is to a lone node
        cluster.start(1)
        for index in (0, 1):
            partition = cluster.partition("t", index)
            assert (partition.leader, partition.leader_epoch, partition.isr) == (1, start, (1,))
    changes = [record for record in cluster.log[before:] if isinstance(record, PartitionChangeRecord)]
    assert len(changes) == 3 * 2, "one change a partition and start"


def test_a_broker_that_falls_silent_is_fenced_and_others_lead() -> None:
    cluster = Cluster().start(1, 2, 3)
    create(cluster, "t", (1, 2), (2, 3))
    create(cluster, "lone", (1,))
    cluster.tick(8_000)
    cluster.heartbeat(2)
    cluster.heartbeat(3)
    cluster.tick(8_999)
    assert not cluster.image().brokers[1].fenced
    cluster.tick(9_000)
    assert cluster.image().brokers[1].fenced
    assert (cluster.partition("t", 0).leader, cluster.partition("t", 0).isr) == (2, (2,))
    assert cluster.partition("t", 1).leader_epoch == 0, "untouched"
    assert (cluster.partition("lone").leader, cluster.partition("lone").isr) == (NO_LEADER, (1,))
    cluster.heartbeat(1)
    assert cluster.partition("lone").leader == 1
    assert cluster.partition("t", 0).leader == 2, "leadership does not jump back by itself"


def test_a_partition_kept_for_its_restarting_leader_goes_to_the_first_who_is_back() -> None:
    cluster = Cluster().start(1, 2)
    create(cluster, "t", (1, 2))
    cluster.heartbeat(2, want_shut_down=True)
    topic_id = cluster.image().topic_ids["t"]
    cluster.take([PartitionChangeRecord(partition_id=0, topic_id=topic_id, isr=(1, 2))])
    cluster.change_leader()
    cluster.register(1)
    cluster.register(2)
    cluster.heartbeat(2)
    partition = cluster.partition("t")
    assert (partition.leader, partition.isr) == (2, (2,))


def test_brokers_that_fall_silent_together_leave_nobody_dead_leading() -> None:
    cluster = Cluster().start(1, 2, 3)
    create(cluster, "t", (1, 2, 3), (2, 1, 3))
    create(cluster, "both", (1, 2))
    cluster.tick(5_000)
    cluster.heartbeat(3)
    cluster.tick(9_000)
    assert [cluster.partition("t", index).leader for index in range(2)] == [3, 3]
    assert cluster.partition("t", 0).isr == (3,)
    last = cluster.partition("both")
    assert (last.leader, len(last.isr)) == (NO_LEADER, 1), "whoever went last holds everything"


def test_a_second_broker_with_the_same_id_is_refused_while_the_first_lives() -> None:
    cluster = Cluster().start(1)
    assert cluster.register(1).error_code is ErrorCode.DUPLICATE_BROKER_REGISTRATION
    cluster.now_ms = 9_000
    assert cluster.register(1).error_code is ErrorCode.NONE


def test_registering_again_with_the_same_incarnation_changes_no_epoch() -> None:
    cluster = Cluster()
    incarnation_id = uuid.UUID(int=7)
    first = cluster.register(1, incarnation_id=incarnation_id)
    cluster.heartbeat(1)
    assert cluster.register(1, incarnation_id=incarnation_id).broker_epoch == first.broker_epoch
    assert not cluster.image().brokers[1].fenced


def test_registrations_that_cannot_work_are_refused() -> None:
    cluster = Cluster()
    assert cluster.register(1, cluster_id="other").error_code is ErrorCode.INCONSISTENT_CLUSTER_ID
    assert cluster.register(1, listeners=()).error_code is ErrorCode.INVALID_REGISTRATION
    assert cluster.register(1, features=()).error_code is ErrorCode.UNSUPPORTED_VERSION
    assert cluster.image().brokers == {}


def test_a_stopping_broker_hands_over_first() -> None:
    cluster = Cluster().start(1, 2)
    create(cluster, "t", (1, 2))
    assert not cluster.heartbeat(1, want_shut_down=True).should_shut_down
    assert cluster.partition("t").leader == 2
    assert cluster.heartbeat(1, want_shut_down=True).should_shut_down


def test_a_stale_broker_epoch_is_refused() -> None:
    cluster = Cluster().start(1)
    assert cluster.heartbeat(1, broker_epoch=99).error_code is ErrorCode.STALE_BROKER_EPOCH
    cluster.epochs[5] = 0
    assert cluster.heartbeat(5).error_code is ErrorCode.BROKER_ID_NOT_REGISTERED


def test_producer_ids_come_in_blocks_that_never_repeat() -> None:
    cluster = Cluster().start(1)
    seen: set[int] = set()
    for _ in range(3):
        response = cluster.call(AllocateProducerIdsRequest(broker_id=1, broker_epoch=cluster.epochs[1]))
        assert response.length == 1000
        block = set(range(response.start, response.start + response.length))
        assert not block & seen
        seen |= block
        cluster.change_leader(through_snapshot=True)
    stale = cluster.call(AllocateProducerIdsRequest(broker_id=1, broker_epoch=99))
    assert stale == AllocateProducerIdsResponse(error_code=ErrorCode.STALE_BROKER_EPOCH)


def test_a_preferred_election_brings_the_first_replica_back() -> None:
    cluster = Cluster().start(1, 2)
    create(cluster, "t", (1, 2))
    cluster.tick(8_000)
    cluster.heartbeat(2)
    cluster.tick(9_000)
    wanted = ElectLeadersRequest(topic_partitions=(TopicPartitions(topic="t", partitions=(0,)),), election_type=0)

    def elect() -> ErrorCode:
        response = cluster.call(wanted)
        code: ErrorCode = response.replica_election_results[0].partition_result[0].error_code
        return code

    assert elect() is ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE
    cluster.heartbeat(1)
    assert elect() is ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, "live, but not in sync"
    topic_id = cluster.image().topic_ids["t"]
    cluster.take([PartitionChangeRecord(partition_id=0, topic_id=topic_id, isr=(1, 2))])
    assert elect() is ErrorCode.NONE
    assert cluster.partition("t").leader == 1
    assert elect() is ErrorCode.ELECTION_NOT_NEEDED


def test_an_unclean_election_takes_whoever_lives() -> None:
    cluster = Cluster().start(1, 2)
    create(cluster, "t", (1, 2))
    topic_id = cluster.image().topic_ids["t"]
    cluster.take([PartitionChangeRecord(partition_id=0, topic_id=topic_id, isr=(1,))])
    cluster.tick(8_000)
    cluster.heartbeat(2)
    cluster.tick(9_000)
    assert cluster.partition("t").leader == NO_LEADER
    wanted = (TopicPartitions(topic="t", partitions=(0,)),)
    cluster.call(ElectLeadersRequest(topic_partitions=wanted, election_type=1))
    partition = cluster.partition("t")
    assert (partition.leader, partition.isr, partition.leader_recovery_state) == (2, (2,), 1)


def test_replicas_are_confirmed_where_they_are_and_do_not_move() -> None:
    cluster = Cluster().start(1, 2)
    create(cluster, "t", (1,))

    def reassign(replicas: tuple[int, ...] | None, *, topic: str = "t") -> ErrorCode:
        wanted = (ReassignablePartition(partition_index=0, replicas=replicas),)
        request = AlterPartitionReassignmentsRequest(topics=(ReassignableTopic(name=topic, partitions=wanted),))
        code: ErrorCode = cluster.call(request).responses[0].partitions[0].error_code
        return code

    assert reassign((1,)) is ErrorCode.NONE
    assert reassign((2,)) is ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert reassign((1, 3)) is ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert reassign(None) is ErrorCode.NO_REASSIGNMENT_IN_PROGRESS
    assert reassign((1,), topic="absent") is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert cluster.partition("t").replicas == (1,)


def test_a_topic_may_prefer_any_leader_to_none() -> None:
    cluster = Cluster().start(1, 2)
    configs = (CreatableTopicConfig(name="unclean.leader.election.enable", value="true"),)
    assignments = (CreatableReplicaAssignment(partition_index=0, broker_ids=(1, 2)),)
    topic = CreatableTopic(name="t", num_partitions=-1, replication_factor=-1, assignments=assignments, configs=configs)
    cluster.call(CreateTopicsRequest(topics=(topic,)))
    topic_id = cluster.image().topic_ids["t"]
    cluster.take([PartitionChangeRecord(partition_id=0, topic_id=topic_id, isr=(1,))])
    cluster.tick(8_000)
    cluster.heartbeat(2)
    cluster.tick(9_000)
    partition = cluster.partition("t")
    assert (partition.leader, partition.isr, partition.leader_recovery_state) == (2, (2,), 1)


def test_an_unregistered_broker_is_forgotten() -> None:
    cluster = Cluster().start(1, 2)
    create(cluster, "t", (1, 2))
    assert cluster.call(UnregisterBrokerRequest(broker_id=9)).error_code is ErrorCode.BROKER_ID_NOT_REGISTERED
    assert cluster.call(UnregisterBrokerRequest(broker_id=1)).error_code is ErrorCode.NONE
    assert set(cluster.image().brokers) == {2}
    assert cluster.partition("t").leader == 2
    assert supported_feature_ranges() == cluster.image().brokers[2].features
