"""A member's conversation with its coordinator, as the machine leads it."""

from __future__ import annotations

import pytest

from ottla.client.core.assignors import RANGE, decode_assignment, encode_assignment, encode_subscription
from ottla.client.core.membership import Membership, MemberState, Outcome
from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.heartbeat import HeartbeatResponse
from ottla.protocol.messages.join_group import JoinGroupResponse, JoinGroupResponseMember
from ottla.protocol.messages.sync_group import SyncGroupResponse


def member(**how: object) -> Membership:
    built = Membership(
        group_id="g",
        assignors=(RANGE,),
        session_timeout_ms=10_000,
        rebalance_timeout_ms=60_000,
        heartbeat_interval_ms=3_000,
        **how,  # type: ignore[arg-type]
    )
    built.topics = ["t"]
    return built


def counts(topics: set[str]) -> dict[str, int]:
    return dict.fromkeys(topics, 2)


def joined(m: Membership, *, leader: bool = True, now_ms: int = 0) -> None:
    m.join_request()
    members = (JoinGroupResponseMember(member_id="m", metadata=encode_subscription(["t"], [])),) if leader else ()
    response = JoinGroupResponse(
        generation_id=1, protocol_name="range", leader="m" if leader else "other", member_id="m", members=members
    )
    assert m.on_join(response, counts, now_ms=now_ms) is Outcome.CONTINUE


def stable(m: Membership) -> None:
    joined(m)
    (share,) = m.sync_request().assignments
    assert m.on_sync(SyncGroupResponse(assignment=share.assignment)) is Outcome.ASSIGNED


def test_a_new_member_takes_the_id_it_is_handed_and_joins_again() -> None:
    m = member()
    assert m.join_request().member_id == ""
    answer = JoinGroupResponse(error_code=ErrorCode.MEMBER_ID_REQUIRED, member_id="m-1")
    assert m.on_join(answer, counts, now_ms=0) is Outcome.CONTINUE
    assert m.join_request().member_id == "m-1"


def test_the_leader_assigns_and_everybody_syncs() -> None:
    m = member()
    joined(m)
    (share,) = m.sync_request().assignments
    assert decode_assignment(share.assignment) == [TopicPartition("t", 0), TopicPartition("t", 1)]
    follower = member()
    joined(follower, leader=False)
    assert follower.sync_request().assignments == ()
    answer = SyncGroupResponse(assignment=encode_assignment([TopicPartition("t", 1)]))
    assert follower.on_sync(answer) is Outcome.ASSIGNED
    assert follower.assignment == [TopicPartition("t", 1)]


def test_heartbeats_fall_due_while_there_is_a_generation_to_keep() -> None:
    m = member()
    assert m.heartbeat_due_ms() is None
    joined(m, now_ms=100)
    assert m.heartbeat_due_ms() == 3_100
    m.heartbeat_request(now_ms=3_100)
    assert m.heartbeat_due_ms() == 6_100


def test_a_rebalance_makes_it_join_again_with_its_id() -> None:
    m = member()
    stable(m)
    answer = HeartbeatResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS)
    assert m.on_heartbeat(answer, generation_id=1) is Outcome.CONTINUE
    assert m.state is MemberState.UNJOINED
    assert m.join_request().member_id == "m"


def test_an_answer_to_an_older_generations_heartbeat_says_nothing() -> None:
    m = member()
    stable(m)
    m.on_heartbeat(HeartbeatResponse(error_code=ErrorCode.ILLEGAL_GENERATION), generation_id=0)
    assert m.state is MemberState.STABLE


@pytest.mark.parametrize("code", [ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE])
def test_a_moved_coordinator_is_looked_for(code: ErrorCode) -> None:
    m = member()
    stable(m)
    assert m.on_heartbeat(HeartbeatResponse(error_code=code), generation_id=1) is Outcome.FIND_COORDINATOR
    assert m.state is MemberState.STABLE


def test_a_forgotten_member_starts_anew() -> None:
    m = member()
    stable(m)
    m.on_heartbeat(HeartbeatResponse(error_code=ErrorCode.UNKNOWN_MEMBER_ID), generation_id=1)
    assert m.join_request().member_id == ""


def test_a_fenced_member_is_told_so() -> None:
    m = member(group_instance_id="i")
    stable(m)
    with pytest.raises(KafkaError) as caught:
        m.on_heartbeat(HeartbeatResponse(error_code=ErrorCode.FENCED_INSTANCE_ID), generation_id=1)
    assert caught.value.code is ErrorCode.FENCED_INSTANCE_ID


def test_a_static_member_does_not_say_goodbye() -> None:
    m = member(group_instance_id="i")
    stable(m)
    assert m.leave_request() is None
    dynamic = member()
    stable(dynamic)
    leave = dynamic.leave_request()
    assert leave is not None
    assert leave.member_id == "m"
