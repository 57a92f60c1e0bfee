"""Members with a group.instance.id: a restart keeps the place, and only one incarnation may speak."""

from __future__ import annotations

from ottla.errors import ErrorCode
from ottla.protocol.messages.leave_group import MemberIdentity
from tests.unit.coordinator.group.context import SESSION_MS, WRITE_TIMEOUT_MS, GroupContext, protocols, subscription


def settled(group: GroupContext) -> tuple[str, str]:
    """A stable group of a dynamic leader and the static follower `s`; returns their ids."""
    leader, joining = group.begin_joining()
    group.advance(0)
    group.reply_to(joining)
    static = group.begin_join(instance_id="s")
    again = group.begin_join(leader)
    generation_id = group.reply_to(again).generation_id
    member_id = group.reply_to(static).member_id
    group.sync(leader, generation_id, {leader: b"1", member_id: b"2"})
    assert group.sync(member_id, generation_id, instance_id="s").assignment == b"2"
    return leader, member_id


def test_a_restarted_static_member_gets_a_new_id_and_no_rebalance() -> None:
    group = GroupContext()
    leader, old = settled(group)
    response = group.join(instance_id="s")
    assert response.error_code is ErrorCode.NONE
    assert response.member_id != old
    assert response.leader == leader
    assert group.sync(response.member_id, 2, instance_id="s").assignment == b"2"
    assert group.heartbeat(old, 2, instance_id="s") is ErrorCode.FENCED_INSTANCE_ID
    assert group.heartbeat(old, 2) is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.join(old, instance_id="s").error_code is ErrorCode.FENCED_INSTANCE_ID
    assert group.leave(MemberIdentity(member_id=old, group_instance_id="s")).members[0].error_code is (
        ErrorCode.FENCED_INSTANCE_ID
    )
    assert group.state() == "Stable"


def test_the_new_id_survives_a_restart_of_the_broker() -> None:
    group = GroupContext()
    settled(group)
    member_id = group.join(instance_id="s").member_id
    assert group.restarted().heartbeat(member_id, 2, instance_id="s") is ErrorCode.NONE


def test_a_restarted_static_leader_is_told_to_skip_the_assignment() -> None:
    group = GroupContext()
    joining = group.begin_join(instance_id="s")
    group.advance(0)
    first = group.reply_to(joining)
    group.sync(first.member_id, 1, {first.member_id: b"1"}, instance_id="s")
    again = group.join(instance_id="s")
    assert (again.leader, again.skip_assignment) == (again.member_id, True)
    assert [m.member_id for m in again.members] == [again.member_id]
    older = group.join(instance_id="s", version=8)
    assert (older.leader, older.skip_assignment, older.members) == (again.member_id, False, ())


def test_another_preference_of_a_restarted_static_member_starts_a_rebalance() -> None:
    group = GroupContext()
    joining = group.begin_join(instance_id="s", using=protocols(a=b"", b=b""))
    group.advance(0)
    first = group.reply_to(joining)
    group.sync(first.member_id, 1, {}, instance_id="s")
    again = group.begin_join(instance_id="s", using=protocols(b=b"", a=b""))
    assert group.reply_to(again).generation_id == 2


def test_the_reply_waits_until_the_new_id_is_committed() -> None:
    group = GroupContext()
    settled(group)
    with group.holding_commits():
        again = group.begin_join(instance_id="s")
        assert group.is_parked(again)
    assert group.reply_to(again).error_code is ErrorCode.NONE


def test_a_new_id_that_cannot_be_stored_is_taken_back() -> None:
    group = GroupContext()
    _, old = settled(group)
    group.append_error = ErrorCode.NOT_ENOUGH_REPLICAS
    assert group.join(instance_id="s").error_code is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert group.heartbeat(old, 2, instance_id="s") is ErrorCode.NONE
    assert group.sync(old, 2, instance_id="s").assignment == b"2"


def test_a_rebalance_may_overtake_the_commit_of_a_new_id() -> None:
    group = GroupContext()
    leader, _ = settled(group)
    with group.holding_commits():
        again = group.begin_join(instance_id="s")
        third = group.begin_join(version=3)
        rejoined = group.begin_join(leader)
        assert {group.reply_to(t).generation_id for t in (again, third, rejoined)} == {3}
    assert group.state() == "CompletingRebalance"


def test_a_new_id_that_takes_long_to_be_committed_is_told_so_but_stays() -> None:
    group = GroupContext()
    _, old = settled(group)
    with group.holding_commits():
        again = group.begin_join(instance_id="s")
        group.advance(WRITE_TIMEOUT_MS)
        assert group.reply_to(again).error_code is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert group.heartbeat(old, 2, instance_id="s") is ErrorCode.FENCED_INSTANCE_ID
    assert group.join(instance_id="s").error_code is ErrorCode.NONE


def test_two_new_ids_that_are_lost_together_leave_the_one_in_the_log() -> None:
    group = GroupContext()
    _, old = settled(group)
    group.holding = True
    first, second = group.begin_join(instance_id="s"), group.begin_join(instance_id="s")
    assert group.reply_to(first).error_code is ErrorCode.FENCED_INSTANCE_ID
    group.lose_uncommitted()
    assert group.reply_to(second).error_code is ErrorCode.NOT_COORDINATOR
    assert group.heartbeat(old, 2, instance_id="s") is ErrorCode.NONE


def test_what_the_former_incarnation_has_parked_is_fenced() -> None:
    group = GroupContext()
    leader, static = settled(group)
    group.begin_join(version=3)
    parked = group.begin_join(static, instance_id="s")
    newer = group.begin_join(instance_id="s")
    assert group.reply_to(parked).error_code is ErrorCode.FENCED_INSTANCE_ID
    generation_id = group.reply_to(group.begin_join(leader)).generation_id
    member_id = group.reply_to(newer).member_id
    parked = group.begin_sync(member_id, generation_id, instance_id="s")
    group.begin_join(instance_id="s")
    assert group.reply_to(parked).error_code is ErrorCode.FENCED_INSTANCE_ID


def test_a_static_member_keeps_its_place_in_a_rebalance_it_misses() -> None:
    group = GroupContext()
    leader, static = settled(group)
    again = group.begin_join(leader, using=protocols(range=subscription("more")), session_ms=60_000)
    for _ in range(3):
        group.advance(SESSION_MS - 1)
        group.heartbeat(static, 2, instance_id="s")
    group.advance(3)
    assert {m.member_id for m in group.reply_to(again).members} == {leader, static}


def test_silent_static_members_alone_make_the_join_phase_wait_for_their_sessions() -> None:
    group = GroupContext()
    leader, static = settled(group)
    group.leave(leader)
    assert group.state() == "PreparingRebalance"
    group.advance(SESSION_MS)
    assert group.state() == "Empty"
    assert group.heartbeat(static, 2, instance_id="s") is ErrorCode.UNKNOWN_MEMBER_ID


def test_an_administrator_removes_a_static_member_by_its_instance_id() -> None:
    group = GroupContext()
    _, static = settled(group)
    response = group.leave(MemberIdentity(group_instance_id="s"), MemberIdentity(group_instance_id="other"))
    assert [m.error_code for m in response.members] == [ErrorCode.NONE, ErrorCode.UNKNOWN_MEMBER_ID]
    assert group.heartbeat(static, 2) is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_static_member_that_restarts_during_the_sync_phase_starts_over() -> None:
    group = GroupContext()
    joining = group.begin_join(instance_id="s")
    group.advance(0)
    first = group.reply_to(joining)
    again = group.begin_join(instance_id="s")
    assert group.reply_to(again).generation_id == first.generation_id + 1
