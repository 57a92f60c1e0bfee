"""When the answer to a heartbeat stands, and what ends that."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ottla.errors import ErrorCode
from tests.unit.coordinator.group.consumers import Consumer, ConsumerContext, settle
from tests.unit.coordinator.group.context import SESSION_MS, GroupContext, protocols, subscription

CONSUMER_SESSION_MS = 45_000


class Seen:
    """Counts the heartbeats that reach the machine."""

    def __init__(self, group: GroupContext) -> None:
        self.count = 0
        membership, heartbeats = group.machine.membership, group.machine.heartbeats
        classic, consumer = membership.heartbeat, heartbeats.heartbeat

        def see_classic(*arguments: object) -> object:
            self.count += 1
            return classic(*arguments)  # type: ignore[arg-type]

        def see_consumer(*arguments: object) -> object:
            self.count += 1
            return consumer(*arguments)  # type: ignore[arg-type]

        membership.heartbeat = see_classic  # type: ignore[assignment]
        heartbeats.heartbeat = see_consumer  # type: ignore[assignment]

    def by(self, act: Callable[[], object]) -> int:
        before = self.count
        act()
        return self.count - before


def classic_group() -> tuple[GroupContext, int, list[str], Seen]:
    group = GroupContext()
    generation_id, members = group.stable_group(2)
    for member_id in members:
        assert group.standing_heartbeat(member_id, generation_id) is ErrorCode.NONE
    return group, generation_id, members, Seen(group)


def consumer_group() -> tuple[ConsumerContext, list[Consumer], Seen]:
    group = ConsumerContext()
    consumers = [Consumer(group, "a"), Consumer(group, "b")]
    settle(*consumers)
    for consumer in consumers:
        assert group.stay(consumer.member_id, consumer.epoch) is not None
    return group, consumers, Seen(group)


def test_members_of_a_settled_group_are_answered_without_the_machine_and_stay() -> None:
    group, generation_id, members, seen = classic_group()
    for _ in range(30):
        for member_id in members:
            assert group.standing_heartbeat(member_id, generation_id) is ErrorCode.NONE
        group.advance(SESSION_MS // 3)
    assert group.state() == "Stable"
    assert seen.count == 0


def test_a_member_that_is_not_heard_of_any_more_has_its_session_from_when_it_last_was() -> None:
    group, generation_id, members, _ = classic_group()
    group.advance(SESSION_MS - 1)
    for member_id in members:
        group.standing_heartbeat(member_id, generation_id)
    group.advance(SESSION_MS - 1)
    assert group.state() == "Stable"
    group.standing_heartbeat(members[0], generation_id)
    group.advance(1)
    assert group.state() == "PreparingRebalance"
    assert group.standing_heartbeat(members[0], generation_id) is ErrorCode.REBALANCE_IN_PROGRESS
    assert group.standing_heartbeat(members[1], generation_id) is ErrorCode.UNKNOWN_MEMBER_ID


OTHER = protocols(range=subscription("other"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda group, _, __: group.begin_join(group.ask_for_id()), ErrorCode.REBALANCE_IN_PROGRESS),
        (lambda group, members, _: group.begin_join(members[1], using=OTHER), ErrorCode.REBALANCE_IN_PROGRESS),
        (lambda group, members, _: group.leave(members[1]), ErrorCode.REBALANCE_IN_PROGRESS),
        (lambda group, members, _: group.leave(*members), ErrorCode.UNKNOWN_MEMBER_ID),
    ],
    ids=["a join", "a new subscription", "a leave", "the end of all"],
)
def test_members_hear_of_a_rebalance_by_their_next_heartbeat(
    change: Callable[[GroupContext, list[str], int], object], expected: ErrorCode
) -> None:
    group, generation_id, members, _ = classic_group()
    change(group, members, generation_id)
    group.advance(0)
    assert group.standing_heartbeat(members[0], generation_id) is expected


def test_in_a_rebalance_nothing_stands() -> None:
    group, generation_id, members, seen = classic_group()
    group.leave(members[1])
    assert seen.by(lambda: group.standing_heartbeat(members[0], generation_id)) == 1
    assert seen.by(lambda: group.standing_heartbeat(members[0], generation_id)) == 1


def test_commits_leave_standing_what_stands() -> None:
    group, generation_id, members, seen = classic_group()
    group.commit_offsets({("topic", 0): 5}, member_id=members[0], generation_id=generation_id)
    assert seen.by(lambda: group.standing_heartbeat(members[0], generation_id)) == 0


def test_another_group_leaves_standing_what_stands() -> None:
    group, generation_id, members, seen = classic_group()
    group.begin_join(group.ask_for_id(group_id="other"), group_id="other")
    group.advance(0)
    assert seen.by(lambda: group.standing_heartbeat(members[0], generation_id)) == 0


def test_a_log_that_is_cut_ends_what_stands() -> None:
    group, generation_id, members, seen = classic_group()
    group.holding = True
    group.begin_commit({("topic", 0): 5}, member_id=members[0], generation_id=generation_id)
    group.lose_uncommitted()
    assert seen.by(lambda: group.standing_heartbeat(members[0], generation_id)) == 1


def test_a_consumer_that_says_nothing_new_is_answered_without_the_machine_and_stays() -> None:
    group, consumers, seen = consumer_group()
    for _ in range(10):
        for consumer in consumers:
            response = group.stay(consumer.member_id, consumer.epoch)
            assert response is not None
            assert response.member_epoch == consumer.epoch
        group.advance(CONSUMER_SESSION_MS // 2)
    assert seen.count == 0
    group.stay("a", consumers[0].epoch)
    group.advance(CONSUMER_SESSION_MS // 2)
    assert [m.member_id for m in group.describe_consumers().members] == ["a"]


def join_another(group: ConsumerContext) -> None:
    group.enter("c")


def leave(group: ConsumerContext) -> None:
    group.beat("b", -1)


def subscribe_anew(group: ConsumerContext) -> None:
    group.beat("b", group.describe_consumers().group_epoch, subscribed_topic_names=("topic", "other"))


def add_partitions(group: ConsumerContext) -> None:
    group.set_topics({"topic": 8})


def lose_the_log(group: ConsumerContext) -> None:
    group.holding = True
    group.begin_commit({("topic", 0): 5}, member_id="a", generation_id=group.describe_consumers().group_epoch)
    group.lose_uncommitted()


@pytest.mark.parametrize("change", [join_another, leave, subscribe_anew, add_partitions, lose_the_log])
def test_a_change_of_a_consumer_group_ends_what_stands(change: Callable[[ConsumerContext], None]) -> None:
    group, consumers, seen = consumer_group()
    change(group)
    group.holding = False
    assert seen.by(lambda: group.stay("a", consumers[0].epoch)) == 1
    if change is not lose_the_log:
        settle(*consumers)
        assert consumers[0].epoch > 3 or group.describe_consumers().group_epoch > 3


def test_a_commit_of_a_consumer_group_leaves_standing_what_stands() -> None:
    group, consumers, seen = consumer_group()
    group.commit_offsets({("topic", 0): 5}, member_id="a", generation_id=consumers[0].epoch)
    assert seen.by(lambda: group.stay("a", consumers[0].epoch)) == 0


def test_nothing_stands_where_expressions_are_looked_at_again_in_time() -> None:
    group = ConsumerContext()
    group.beat("a", 0, rebalance_timeout_ms=30_000, owned={}, subscribed_topic_regex="top.*")
    a = Consumer(group, "a", epoch=group.describe_consumers().group_epoch)
    a.owned = {"topic": (0, 1, 2, 3)}
    group.beat("a", a.epoch, owned=a.owned)
    seen = Seen(group)
    for _ in range(2):
        assert seen.by(lambda: group.stay("a", a.epoch)) == 1
