"""Members that come while others do, or while targets are written: they wait, and are served by one computation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ottla.coordinator.group.targets import QUIETS_MAX
from ottla.errors import ErrorCode
from tests.unit.coordinator.group.consumers import EAGER, Consumer, ConsumerContext, settle
from tests.unit.coordinator.group.context import GROUP


def begin_entering(group: ConsumerContext, *member_ids: str) -> list[int]:
    whole = {"rebalance_timeout_ms": 30_000, "owned": {}, "subscribed_topic_names": ("topic",)}
    return [group.begin_beat(member_id, 0, **whole) for member_id in member_ids]


def test_members_that_come_together_get_what_they_keep() -> None:
    group = ConsumerContext(topics={"topic": 6})
    with group.holding_commits():
        first, *others = begin_entering(group, *"abcd")
        appends = group.appends
        group.commit()
        assert group.appends == appends + 1, "one write for all who waited"
        assert group.assigned(group.reply_to(first)) == {"topic": (0, 1, 2, 3, 4, 5)}
        assert all(map(group.is_parked, others))
    described = group.describe_consumers()
    assert (described.group_epoch, described.assignment_epoch) == (5, 5)
    for token in others:
        response = group.reply_to(token)
        # The first member has everything still, and has to let go before anybody else gets something.
        assert (response.member_epoch, group.assigned(response)) == (5, {})
    asked = group.beat("a", 2, owned={"topic": range(6)})
    kept = group.assigned(asked)
    assert kept is not None
    assert len(kept["topic"]) == 2
    assert group.beat("a", 2, owned=kept).member_epoch == 5
    held = sorted(p for m in "bcd" for p in (group.assigned(group.beat(m, 5)) or {})["topic"])
    assert held == sorted({*range(6)} - {*kept["topic"]})


def test_a_member_that_is_leaving_makes_nobody_wait() -> None:
    group = ConsumerContext()
    a = Consumer(group, "a")
    a.poll()
    with group.holding_commits():
        leaving = group.begin_beat("a", -1)
        first, second = begin_entering(group, "b", "c")
    assert group.reply_to(leaving).error_code is ErrorCode.NONE
    assert group.assigned(group.reply_to(first)) == {"topic": (0, 1, 2, 3)}
    response = group.reply_to(second)
    assert (response.member_epoch, group.assigned(response)) == (5, {})


def test_who_waits_may_let_go_in_the_same_request() -> None:
    """What a member says it has counts where its heartbeat is finished, as it counts where it is not put off."""
    group = ConsumerContext()
    a, b = Consumer(group, "a"), Consumer(group, "b")
    a.poll()
    b.poll()
    kept = group.assigned(group.beat("a", 2, owned={"topic": range(4)}))
    assert kept == {"topic": (0, 1)}
    with group.holding_commits():
        begin_entering(group, "c", "d")
        letting_go = group.begin_beat("a", 2, owned={"topic": (0,)})
        assert group.is_parked(letting_go)
    response = group.reply_to(letting_go)
    assert (response.member_epoch, group.assigned(response)) == (5, {"topic": (0,)})


def test_who_is_gone_by_then_hears_so() -> None:
    group = ConsumerContext()
    with group.holding_commits():
        _, waiting = begin_entering(group, "a", "b")
        group.begin_beat("b", -1)
    assert group.reply_to(waiting).error_code is ErrorCode.UNKNOWN_MEMBER_ID
    assert [m.member_id for m in group.describe_consumers().members] == ["a"]


def test_a_request_that_is_repeated_while_it_waits_is_answered_twice() -> None:
    group = ConsumerContext()
    with group.holding_commits():
        tokens = begin_entering(group, "a", "b", "b")
    responses = [group.reply_to(token) for token in tokens]
    assert [r.member_epoch for r in responses[1:]] == [3, 3]
    assert group.describe_consumers().group_epoch == 3


@pytest.mark.parametrize("is_late", [False, True])
def test_a_write_that_fails_fails_those_who_wait_for_it(is_late: bool) -> None:
    group = ConsumerContext()
    group.holding = True
    tokens = begin_entering(group, "a", "b")
    if is_late:
        group.advance(5_000)
        expected = ErrorCode.REQUEST_TIMED_OUT
    else:
        group.lose_uncommitted()
        expected = ErrorCode.KAFKA_STORAGE_ERROR
    assert [group.error_of(token) for token in tokens] == [expected] * 2
    group.holding = False
    group.commit()
    a, b = Consumer(group, "a"), Consumer(group, "b")
    settle(a, b)
    assert sorted(a.partitions | b.partitions) == [("topic", p) for p in range(4)]


def test_targets_that_must_wait_for_their_interval_make_nobody_wait() -> None:
    group = ConsumerContext(config=None)
    with group.holding_commits():
        tokens = begin_entering(group, "a", "b")
    assert [group.reply_to(token).member_epoch for token in tokens] == [2, 2]


def test_groups_do_not_wait_for_each_other() -> None:
    group = ConsumerContext()
    whole = {"rebalance_timeout_ms": 30_000, "owned": {}, "subscribed_topic_names": ("topic",)}
    with group.holding_commits():
        begin_entering(group, "a")
        other = group.begin_beat("b", 0, group_id="other", **whole)
        group.commit()
        assert group.assigned(group.reply_to(other)) == {"topic": (0, 1, 2, 3)}
    assert group.list() == {GROUP: "Stable", "other": "Stable"}


QUIET_MS = 2


def quiet_context(**options: object) -> ConsumerContext:
    return ConsumerContext(config=replace(EAGER, targets_quiet_ms=QUIET_MS), **options)


def test_members_that_start_together_have_their_shares_at_once() -> None:
    group = quiet_context(topics={"topic": 6})
    tokens = []
    for member_id in "abc":
        tokens += begin_entering(group, member_id)
        group.advance(QUIET_MS - 1)
        assert all(map(group.is_parked, tokens))
    group.advance(1)
    shares = [(group.assigned(group.reply_to(token)) or {})["topic"] for token in tokens]
    assert sorted(p for share in shares for p in share) == list(range(6))
    assert {len(share) for share in shares} == {2}
    described = group.describe_consumers()
    assert (described.group_epoch, described.assignment_epoch) == (4, 4)


def test_nobody_waits_for_ever_for_others_that_come() -> None:
    group = quiet_context()
    (first,) = begin_entering(group, "a")
    for number in range(QUIETS_MAX * QUIET_MS):
        assert group.is_parked(first)
        begin_entering(group, f"b{number}")
        group.advance(1)
    assert group.reply_to(first).error_code is ErrorCode.NONE


def test_a_heartbeat_that_needs_no_targets_does_not_wait() -> None:
    group = quiet_context()
    a = Consumer(group, "a")
    (entering,) = begin_entering(group, "a")
    group.advance(QUIET_MS)
    a.take(group.reply_to(entering))
    assert group.beat("a", a.epoch, owned=a.owned).error_code is ErrorCode.NONE


def test_members_whose_writes_are_lost_hear_so_before_the_moment_is_over() -> None:
    group = quiet_context()
    group.holding = True
    tokens = begin_entering(group, "a", "b")
    group.lose_uncommitted()
    assert [group.error_of(token) for token in tokens] == [ErrorCode.KAFKA_STORAGE_ERROR] * 2
    group.advance(QUIET_MS)
    assert group.list() == {}


def test_members_that_wait_may_leave_and_be_the_last() -> None:
    group = quiet_context()
    (entering,) = begin_entering(group, "a")
    assert group.beat("a", -1).error_code is ErrorCode.NONE
    group.advance(QUIET_MS)
    assert group.reply_to(entering).error_code is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.list() == {GROUP: "Empty"}


def test_a_static_member_that_left_for_a_while_is_not_brought_back_by_what_it_asked_before() -> None:
    """Its request waits on a connection that is gone, and its next process finds its place free."""
    group = ConsumerContext()
    whole = {"rebalance_timeout_ms": 30_000, "owned": {}, "subscribed_topic_names": ("topic",), "instance_id": "s"}
    with group.holding_commits():
        begin_entering(group, "a")
        waiting = group.begin_beat("s-1", 0, **whole)
        group.begin_beat("s-1", -2, instance_id="s")
    assert group.reply_to(waiting).error_code is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.beat("s-2", 0, **whole).error_code is ErrorCode.NONE
