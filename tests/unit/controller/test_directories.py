"""Brokers tell in which log directories their replicas are."""

from __future__ import annotations

import uuid

import pytest

from ottla.controller.directory_control import AssignReplicasToDirsRequest, AssignReplicasToDirsResponse
from ottla.errors import ErrorCode
from ottla.metadata.records import DIRECTORY_LOST, DIRECTORY_MIGRATING, DIRECTORY_UNASSIGNED
from tests.unit.controller.helpers import Cluster
from tests.unit.controller.test_cluster import create

FIRST, SECOND, THIRD = (uuid.UUID(int=500 + number) for number in range(3))
UNKNOWN = uuid.UUID(int=999)


def assign(
    cluster: Cluster, broker_id: int, assignments: dict[tuple[uuid.UUID, int], uuid.UUID], *, epoch: int | None = None
) -> AssignReplicasToDirsResponse:
    request = AssignReplicasToDirsRequest(
        broker_id=broker_id,
        broker_epoch=cluster.epochs[broker_id] if epoch is None else epoch,
        assignments=assignments,
    )
    response: AssignReplicasToDirsResponse = cluster.call(request)
    return response


def started() -> tuple[Cluster, uuid.UUID]:
    """Three brokers, the first with two directories, and a partition that it shares."""
    cluster = Cluster()
    cluster.register(1, log_dirs=(FIRST, SECOND))
    cluster.heartbeat(1)
    cluster.start(2, 3)
    create(cluster, "t", (1, 2), (2, 3))
    topic = cluster.image().topic("t")
    assert topic is not None
    return cluster, topic.topic_id


def test_one_replica_is_assigned_and_nothing_else_changes() -> None:
    cluster, topic_id = started()
    before = cluster.partition("t")
    assert before.directory_of(1) == DIRECTORY_UNASSIGNED
    assert assign(cluster, 1, {(topic_id, 0): SECOND}) == AssignReplicasToDirsResponse()
    after = cluster.partition("t")
    assert (after.directory_of(1), after.directory_of(2)) == (SECOND, before.directory_of(2))
    assert (after.leader, after.leader_epoch, after.isr) == (before.leader, before.leader_epoch, before.isr)
    cluster.change_leader(through_snapshot=True)
    assert cluster.partition("t") == after


@pytest.mark.parametrize("told", [None, SECOND])
@pytest.mark.parametrize(
    ("comes_with", "is_away"), [((FIRST, SECOND), False), ((FIRST, SECOND, THIRD), False), ((SECOND, THIRD), True)]
)
def test_what_was_not_told_of_is_lost_if_a_directory_is_away(
    told: uuid.UUID | None, comes_with: tuple[uuid.UUID, ...], is_away: bool
) -> None:
    cluster, topic_id = started()
    other = cluster.partition("t").directory_of(2)
    if told is not None:
        assign(cluster, 1, {(topic_id, 0): told})
    cluster.tick(cluster.now_ms + 60_000)
    cluster.register(1, log_dirs=comes_with)
    now = cluster.partition("t")
    assert now.directory_of(1) == (told or (DIRECTORY_LOST if is_away else DIRECTORY_UNASSIGNED))
    assert now.directory_of(2) == other
    cluster.change_leader(through_snapshot=True)
    assert cluster.partition("t") == now
    assert assign(cluster, 1, {(topic_id, 0): SECOND}) == AssignReplicasToDirsResponse()
    assert cluster.partition("t").directory_of(1) == SECOND


def test_what_is_known_makes_no_record() -> None:
    cluster, topic_id = started()
    assign(cluster, 1, {(topic_id, 0): FIRST})
    length = len(cluster.log)
    assert assign(cluster, 1, {(topic_id, 0): FIRST}) == AssignReplicasToDirsResponse()
    assert len(cluster.log) == length
    assign(cluster, 1, {(topic_id, 0): THIRD})
    assert cluster.partition("t").directory_of(1) == THIRD


def test_what_a_broker_does_not_have_is_refused_and_the_rest_is_kept() -> None:
    cluster, topic_id = started()
    wanted = [(UNKNOWN, 0), (topic_id, 7), (topic_id, 1), (topic_id, 0)]
    response = assign(cluster, 1, dict.fromkeys(wanted, FIRST))
    assert response.error_code is ErrorCode.NONE
    assert [response.refused.get(replica) for replica in wanted] == [
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        None,
    ]
    assert cluster.partition("t").directory_of(1) == FIRST


def test_only_the_broker_of_this_epoch_is_heard() -> None:
    cluster, topic_id = started()
    length = len(cluster.log)
    for broker_id, epoch, code in (
        (1, cluster.epochs[1] - 1, ErrorCode.STALE_BROKER_EPOCH),
        (4, 0, ErrorCode.BROKER_ID_NOT_REGISTERED),
    ):
        assert assign(cluster, broker_id, {(topic_id, 0): FIRST}, epoch=epoch).error_code is code
    assert len(cluster.log) == length


def test_the_zero_id_is_read_as_migrating() -> None:
    cluster, topic_id = started()
    assign(cluster, 1, {(topic_id, 0): DIRECTORY_MIGRATING})
    assert cluster.partition("t").directory_of(1) == DIRECTORY_MIGRATING
