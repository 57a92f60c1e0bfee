"""Members that come while targets are being written: they wait, and are served by one computation."""

from __future__ import annotations

import pytest

from ottla.errors import ErrorCode
from tests.unit.coordinator.group.consumers import Consumer, ConsumerContext, settle
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
