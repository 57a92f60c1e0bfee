"""Joining, syncing, leaving, and everything that ends by itself."""

from __future__ import annotations

import pytest

from ottla.coordinator.group.config import GroupConfig
from ottla.errors import ErrorCode
from ottla.protocol.messages.leave_group import MemberIdentity
from tests.unit.coordinator.group.context import (
    REBALANCE_MS,
    SESSION_MS,
    WRITE_TIMEOUT_MS,
    GroupContext,
    protocols,
    subscription,
)


def waiting(**options: int) -> GroupContext:
    return GroupContext(config=GroupConfig(**options))


def test_a_dynamic_member_is_sent_away_for_an_id_first() -> None:
    group = GroupContext()
    member_id = group.ask_for_id()
    assert member_id.startswith("client-")
    joined = group.begin_join(member_id)
    assert group.is_parked(joined)
    group.advance(0)
    response = group.reply_to(joined)
    assert (response.leader, response.generation_id) == (member_id, 1)
    assert [m.member_id for m in response.members] == [member_id]


def test_before_version_4_a_member_joins_without_that_detour() -> None:
    group = GroupContext()
    joined = group.begin_join(version=3)
    group.advance(0)
    assert group.reply_to(joined).generation_id == 1


def test_an_id_that_is_not_used_expires_with_the_session() -> None:
    group = GroupContext()
    member_id = group.ask_for_id()
    group.advance(SESSION_MS)
    assert group.join(member_id).error_code is ErrorCode.UNKNOWN_MEMBER_ID


def test_the_initial_delay_is_extended_by_newcomers_up_to_the_rebalance_timeout() -> None:
    group = waiting(group_initial_rebalance_delay_ms=3_000)
    _, first = group.begin_joining(rebalance_ms=7_000, session_ms=60_000 // 2)
    group.advance(2_000)
    _, second = group.begin_joining(rebalance_ms=7_000, session_ms=30_000)
    group.advance(1_500)
    assert group.is_parked(first)
    group.advance(2_000)
    _, third = group.begin_joining(rebalance_ms=7_000, session_ms=30_000)
    group.advance(1_000)
    _, fourth = group.begin_joining(rebalance_ms=7_000, session_ms=30_000)
    group.advance(499)
    assert group.is_parked(first)
    group.advance(1)
    assert {group.reply_to(t).generation_id for t in (first, second, third, fourth)} == {1}


def test_who_is_told_to_be_in_a_group_may_ask_about_it() -> None:
    group = GroupContext()
    with group.holding_commits():
        _, joining = group.begin_joining()
        group.advance(0)
        assert group.is_parked(joining)
        assert group.state() == "Dead", "it is not committed that there is such a group"
    assert group.reply_to(joining).generation_id == 1
    assert group.state() == "CompletingRebalance"


def test_a_join_whose_group_is_not_committed_in_time_has_to_be_tried_again() -> None:
    group = GroupContext()
    with group.holding_commits():
        member, joining = group.begin_joining()
        group.advance(WRITE_TIMEOUT_MS)
        assert group.error_of(joining) is ErrorCode.REQUEST_TIMED_OUT
    assert group.join(member).generation_id == 1, "it finds what the first attempt has made"


def test_the_leader_assigns_and_everybody_gets_his_part_only_when_it_is_committed() -> None:
    group = GroupContext()
    a, joining_a = group.begin_joining()
    b, joining_b = group.begin_joining()
    group.advance(0)
    assert group.reply_to(joining_a).leader == group.reply_to(joining_b).leader == a
    with group.holding_commits():
        follower = group.begin_sync(b, 1)
        leader = group.begin_sync(a, 1, {a: b"for a", b: b"for b"})
        assert group.is_parked(follower)
        assert group.is_parked(leader)
    assert group.reply_to(leader).assignment == b"for a"
    assert group.reply_to(follower).assignment == b"for b"
    assert group.state() == "Stable"


def test_members_that_the_leader_forgot_get_nothing() -> None:
    group = GroupContext()
    a, joining_a = group.begin_joining()
    b, joining_b = group.begin_joining()
    group.advance(0)
    group.reply_to(joining_a)
    group.reply_to(joining_b)
    group.sync(a, 1, {a: b"for a"})
    assert group.sync(b, 1).assignment == b""


def test_a_lost_assignment_makes_everybody_rejoin() -> None:
    group = GroupContext()
    a, joining_a = group.begin_joining()
    b, _ = group.begin_joining()
    group.advance(0)
    group.reply_to(joining_a)
    follower = group.begin_sync(b, 1)
    group.append_error = ErrorCode.KAFKA_STORAGE_ERROR
    assert group.sync(a, 1, {}).error_code is ErrorCode.NOT_COORDINATOR
    group.append_error = None
    assert group.reply_to(follower).error_code is ErrorCode.NOT_COORDINATOR
    assert group.heartbeat(a, 1) is ErrorCode.REBALANCE_IN_PROGRESS


def test_an_assignment_that_is_not_committed_in_time_makes_everybody_rejoin() -> None:
    group = GroupContext()
    a, joining = group.begin_joining()
    group.advance(0)
    group.reply_to(joining)
    with group.holding_commits():
        leader = group.begin_sync(a, 1, {a: b"late"})
        group.advance(WRITE_TIMEOUT_MS)
        assert group.reply_to(leader).error_code is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert group.state() == "PreparingRebalance"


def test_a_newcomer_starts_a_rebalance_that_ends_when_all_have_rejoined() -> None:
    group = GroupContext()
    generation, (leader, other) = group.stable_group(2)
    _, newcomer = group.begin_joining()
    assert group.heartbeat(leader, generation) is ErrorCode.REBALANCE_IN_PROGRESS
    again = group.begin_join(leader)
    assert group.is_parked(newcomer)
    last = group.begin_join(other)
    assert {group.reply_to(t).generation_id for t in (newcomer, again, last)} == {generation + 1}


def test_an_id_that_was_handed_out_holds_the_rebalance_up() -> None:
    group = GroupContext()
    generation, (leader,) = group.stable_group(1)
    group.ask_for_id()
    again = group.begin_join(leader)
    assert group.is_parked(again)
    group.advance(SESSION_MS)
    assert group.reply_to(again).generation_id == generation + 1


def test_who_does_not_rejoin_in_time_is_out() -> None:
    group = GroupContext()
    generation, (leader, other) = group.stable_group(2, session_ms=60_000, rebalance_ms=20_000)
    again = group.begin_join(leader, session_ms=60_000, rebalance_ms=20_000)
    group.advance(19_999)
    assert group.is_parked(again)
    group.advance(1)
    response = group.reply_to(again)
    assert [m.member_id for m in response.members] == [leader]
    assert group.heartbeat(other, generation) is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_leader_that_does_not_rejoin_is_replaced() -> None:
    group = GroupContext()
    _, (_, other) = group.stable_group(2, session_ms=60_000)
    again = group.begin_join(other, using=protocols(range=subscription("other")), session_ms=60_000)
    group.advance(REBALANCE_MS)
    assert group.reply_to(again).leader == other


def test_who_does_not_sync_in_time_is_out() -> None:
    group = GroupContext()
    a, joining_a = group.begin_joining(session_ms=60_000)
    b, _ = group.begin_joining(session_ms=60_000)
    group.advance(0)
    group.reply_to(joining_a)
    group.sync(a, 1, {a: b"1", b: b"2"})
    group.advance(REBALANCE_MS)
    assert group.heartbeat(b, 1) is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.heartbeat(a, 1) is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_silent_member_is_out_after_its_session_and_heartbeats_renew_it() -> None:
    group = GroupContext()
    generation, (leader, other) = group.stable_group(2)
    group.advance(SESSION_MS - 1)
    assert group.heartbeat(leader, generation) is ErrorCode.NONE
    group.advance(1)
    assert group.heartbeat(other, generation) is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.heartbeat(leader, generation) is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_heartbeat_during_a_rebalance_renews_the_session_too() -> None:
    group = GroupContext()
    generation, (leader, other) = group.stable_group(2)
    group.begin_join(leader)
    for _ in range(2):
        group.advance(SESSION_MS - 1)
        assert group.heartbeat(other, generation) is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_parked_member_is_excused_from_heartbeats() -> None:
    group = GroupContext()
    generation, (leader, other) = group.stable_group(2)
    again = group.begin_join(leader)
    group.advance(SESSION_MS - 1)
    group.heartbeat(other, generation)
    group.advance(SESSION_MS - 1)
    group.begin_join(other)
    assert group.reply_to(again).generation_id == generation + 1


def test_a_newcomer_that_waits_five_minutes_is_told_to_come_again() -> None:
    group = GroupContext()
    _, (leader,) = group.stable_group(1, rebalance_ms=3_600_000, session_ms=1_800_000)
    _, newcomer = group.begin_joining(rebalance_ms=3_600_000, session_ms=1_800_000)
    group.advance(299_999)
    assert group.is_parked(newcomer)
    group.advance(1)
    assert group.reply_to(newcomer).error_code is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.heartbeat(leader, 1) is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_follower_that_rejoins_unchanged_gets_the_running_generation() -> None:
    group = GroupContext()
    generation, (leader, other) = group.stable_group(2)
    response = group.join(other)
    assert (response.generation_id, response.members) == (generation, ())
    assert group.state() == "Stable"
    assert group.is_parked(group.begin_join(leader))
    assert group.state() == "PreparingRebalance"


def test_changed_metadata_starts_a_rebalance() -> None:
    group = GroupContext()
    _, (_, other) = group.stable_group(2)
    group.begin_join(other, using=protocols(range=subscription("more")))
    assert group.state() == "PreparingRebalance"


def test_the_last_to_leave_empties_the_group_and_that_is_committed_first() -> None:
    group = GroupContext()
    generation, (leader,) = group.stable_group(1)
    with group.holding_commits():
        left = group.begin_leave(leader)
        assert group.is_parked(left)
    assert group.reply_to(left).members[0].error_code is ErrorCode.NONE
    assert group.state() == "Empty"
    assert group.restarted().machine.table.groups["group"].generation_id == generation + 1


def test_leaving_is_answered_for_each_member_of_a_batch() -> None:
    group = GroupContext()
    _, (leader, _) = group.stable_group(2)
    response = group.leave(leader, "nobody", MemberIdentity(group_instance_id="nowhere"))
    assert [m.error_code for m in response.members] == [
        ErrorCode.NONE,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.UNKNOWN_MEMBER_ID,
    ]
    assert group.leave("nobody", version=2).error_code is ErrorCode.UNKNOWN_MEMBER_ID


def test_an_id_that_was_handed_out_can_leave() -> None:
    group = GroupContext()
    _, (leader,) = group.stable_group(1)
    pending = group.ask_for_id()
    again = group.begin_join(leader)
    group.leave(pending)
    assert group.reply_to(again).generation_id == 2


def test_the_protocol_that_most_prefer_of_those_that_all_know_wins() -> None:
    group = GroupContext()
    tokens = [
        group.begin_joining(using=protocols(a=b"", b=b"", c=b""))[1],
        group.begin_joining(using=protocols(c=b"", b=b"", a=b""))[1],
        group.begin_joining(using=protocols(c=b"", b=b""))[1],
    ]
    group.advance(0)
    assert {group.reply_to(t).protocol_name for t in tokens} == {"c"}


def test_a_member_that_shares_no_protocol_is_refused() -> None:
    group = GroupContext()
    group.stable_group(1)
    assert group.join(using=protocols(other=b"")).error_code is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert group.join(protocol_type="connect").error_code is ErrorCode.INCONSISTENT_GROUP_PROTOCOL


@pytest.mark.parametrize(("session_ms", "fits"), [(5_999, False), (6_000, True), (1_800_000, True), (1_800_001, False)])
def test_session_timeouts_have_bounds(session_ms: int, fits: bool) -> None:
    error = GroupContext().join(session_ms=session_ms).error_code
    assert error is (ErrorCode.MEMBER_ID_REQUIRED if fits else ErrorCode.INVALID_SESSION_TIMEOUT)


def test_a_full_group_takes_nobody() -> None:
    group = waiting(group_max_size=2)
    generation, (leader, _) = group.stable_group(2)
    assert group.join().error_code is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert group.heartbeat(leader, generation) is ErrorCode.NONE


def test_a_group_that_is_too_large_when_loaded_keeps_those_that_rejoin_first() -> None:
    old = GroupContext()
    _, ids = old.stable_group(3)
    group = GroupContext(old.log, config=GroupConfig(group_max_size=2))
    tokens = [group.begin_join(member_id) for member_id in ids]
    assert group.reply_to(tokens[2]).error_code is ErrorCode.GROUP_MAX_SIZE_REACHED


def test_a_request_that_is_sent_again_supersedes_the_one_that_is_parked() -> None:
    group = GroupContext()
    _, (leader, _) = group.stable_group(2)
    first = group.begin_join(leader)
    second = group.begin_join(leader)
    assert group.reply_to(first).error_code is ErrorCode.REBALANCE_IN_PROGRESS
    assert group.is_parked(second)


def test_a_restart_keeps_the_generation_and_gives_each_member_a_whole_session() -> None:
    group = GroupContext()
    generation, (leader, other) = group.stable_group(2)
    again = group.restarted()
    assert again.sync(leader, generation).assignment == leader.encode()
    again.advance(SESSION_MS - 1)
    assert again.heartbeat(leader, generation) is ErrorCode.NONE
    again.advance(1)
    assert again.heartbeat(other, generation) is ErrorCode.UNKNOWN_MEMBER_ID
