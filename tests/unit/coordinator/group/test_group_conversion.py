"""Groups that change from the classic to the consumer protocol and back."""

from __future__ import annotations

import struct

import pytest

from ottla.coordinator.group.config import MigrationPolicy
from ottla.coordinator.group.subscription import encode_assignment, parse_assignment
from ottla.errors import ErrorCode
from ottla.protocol.messages.leave_group import MemberIdentity
from tests.unit.coordinator.group.consumers import Consumer, ConsumerContext, settle, with_config
from tests.unit.coordinator.group.context import GROUP, SESSION_MS, protocols, subscription


def test_an_empty_classic_group_becomes_a_consumer_group_and_back_and_keeps_its_offsets() -> None:
    group = ConsumerContext()
    generation_id, (member_id,) = group.stable_group(1)
    group.commit_offsets({("topic", 0): 5}, member_id=member_id, generation_id=generation_id)
    group.leave(member_id)
    assert group.enter("a").error_code is ErrorCode.NONE
    assert group.list(types=["consumer"]) == {GROUP: "Stable"}
    assert group.list(types=["classic"]) == {}
    assert group.state() == "Dead", "DescribeGroups knows of classic groups alone"
    assert group.restarted().durable() == group.durable()
    assert group.heartbeat(member_id, generation_id) is ErrorCode.UNKNOWN_MEMBER_ID
    group.beat("a", -1)
    group.stable_group(1)
    assert group.list(types=["classic"]) == {GROUP: "Stable"}
    assert group.list(types=["consumer"]) == {}
    assert group.fetch_offsets() == {("topic", 0): 5}
    assert group.restarted().durable() == group.durable()
    assert group.restarted().list() == {GROUP: "Stable"}


def test_who_is_told_to_come_back_finds_no_consumer_group_any_more() -> None:
    group = ConsumerContext()
    group.enter("a")
    group.beat("a", -1)
    with group.holding_commits():
        token = group.begin_join()
        assert group.is_parked(token), "what describes groups still finds the consumer group"
    group.commit()
    assert group.reply_to(token).error_code is ErrorCode.MEMBER_ID_REQUIRED


def test_a_group_that_only_keeps_offsets_becomes_a_consumer_group() -> None:
    group = ConsumerContext()
    group.commit_offsets({("topic", 0): 5})
    assert group.list(types=["classic"]) == {GROUP: "Empty"}
    group.enter("a")
    assert group.list() == {GROUP: "Stable"}
    assert group.restarted().list() == {GROUP: "Stable"}
    assert group.fetch_offsets() == {("topic", 0): 5}


def test_a_lost_conversion_leaves_the_classic_group() -> None:
    group = ConsumerContext()
    _, (member_id,) = group.stable_group(1)
    group.leave(member_id)
    before = group.durable()
    group.holding = True
    group.begin_beat("a", 0, rebalance_timeout_ms=1, owned={}, subscribed_topic_names=("topic",))
    group.lose_uncommitted()
    group.holding = False
    assert (group.durable(), group.list(types=["classic"])) == (before, {GROUP: "Empty"})
    group.stable_group(1)


def test_a_lost_conversion_leaves_the_consumer_group() -> None:
    group = ConsumerContext()
    group.enter("a")
    group.beat("a", -1)
    before = group.durable()
    group.holding = True
    group.begin_join(version=3)
    group.advance(0)
    group.lose_uncommitted()
    group.holding = False
    group.advance(0)
    assert (group.durable(), group.list()) == (before, {GROUP: "Empty"})
    assert group.enter("a").error_code is ErrorCode.NONE


def classic_assignment(*partitions: int) -> bytes:
    return encode_assignment({"topic": partitions}, version=1)


def settled_classic(group: ConsumerContext, *instance_ids: str | None) -> tuple[int, list[str]]:
    """A stable classic group with the four partitions of the topic in turns; returns its generation and members."""
    tokens, ids = [], []
    for instance_id in instance_ids:
        member_id = "" if instance_id else group.ask_for_id()
        tokens.append(group.begin_join(member_id, instance_id=instance_id))
    group.advance(0)
    joined = [group.reply_to(token) for token in tokens]
    ids = [j.member_id for j in joined]
    parts = {m: classic_assignment(*range(i, 4, len(ids))) for i, m in enumerate(ids)}
    generation_id = joined[0].generation_id
    leader = joined[0].leader
    for member_id, instance_id in sorted(zip(ids, instance_ids, strict=True), key=lambda m: m[0] != leader):
        group.sync(member_id, generation_id, parts if member_id == leader else {}, instance_id=instance_id)
    return generation_id, ids


def rejoin(group: ConsumerContext, member_id: str, *owned: int) -> tuple[int, tuple[int, ...]]:
    """What a cooperative consumer does when told to: join with what it has, sync; returns (generation, assigned)."""
    metadata = (
        subscription("topic")
        + struct.pack(">ih5si", 1, 5, b"topic", len(owned))
        + struct.pack(f">{len(owned)}i", *owned)
    )
    joined = group.join(member_id, using=protocols(range=b"\0\1" + metadata[2:]))
    assert joined.error_code is ErrorCode.NONE
    synced = group.sync(member_id, joined.generation_id)
    assert synced.error_code is ErrorCode.NONE
    assigned = parse_assignment(synced.assignment)
    assert assigned is not None
    return joined.generation_id, assigned.partitions.get("topic", ())


def test_a_classic_group_in_use_takes_a_consumer_and_is_a_consumer_group_then() -> None:
    group = ConsumerContext()
    generation_id, (a,) = settled_classic(group, None)
    b = Consumer(group, "b")
    assert b.poll() is ErrorCode.NONE
    assert (b.epoch, b.owned) == (2, {})
    assert group.list(types=["consumer"]) == {GROUP: "Reconciling"}
    assert group.list(types=["classic"]) == {}
    described = {m.member_id: m for m in group.describe_consumers().members}
    assert {m: d.member_type for m, d in described.items()} == {a: 0, "b": 1}
    assert [t.partitions for t in described[a].assignment.topic_partitions] == [(0, 1, 2, 3)]
    assert group.restarted().durable() == group.durable()
    # The classic member is told to join again, gives up half, and the other gets it.
    assert group.heartbeat(a, generation_id) is ErrorCode.REBALANCE_IN_PROGRESS
    assert rejoin(group, a, 0, 1, 2, 3) == (1, (0, 1))
    b.poll()
    assert b.owned == {}, "it has not said that it let go"
    assert group.heartbeat(a, 1) is ErrorCode.REBALANCE_IN_PROGRESS
    assert rejoin(group, a, 0, 1) == (2, (0, 1))
    b.poll()
    assert b.owned == {"topic": (2, 3)}
    assert group.heartbeat(a, 2) is ErrorCode.NONE
    assert group.list() == {GROUP: "Stable"}
    assert group.commit_offsets({("topic", 0): 1}, member_id=a, generation_id=2) == {ErrorCode.NONE}
    assert group.commit_offsets({("topic", 0): 1}, member_id=a, generation_id=7) == {ErrorCode.ILLEGAL_GENERATION}


def test_the_last_consumer_leaves_a_classic_group_behind() -> None:
    group = ConsumerContext()
    _, (a,) = settled_classic(group, None)
    b = Consumer(group, "b")
    b.poll()
    rejoin(group, a, 0, 1, 2, 3)
    rejoin(group, a, 0, 1)
    b.poll()
    b.leave()
    assert group.list(types=["classic"]) == {GROUP: "PreparingRebalance"}
    assert group.list(types=["consumer"]) == {}
    assert group.restarted().durable() == group.durable()
    assert group.heartbeat(a, 2) is ErrorCode.REBALANCE_IN_PROGRESS
    joined = group.join(a)
    assert (joined.error_code, joined.leader) == (ErrorCode.NONE, a)
    assert group.sync(a, joined.generation_id, {a: classic_assignment(0, 1, 2, 3)}).error_code is ErrorCode.NONE
    assert group.list() == {GROUP: "Stable"}
    group.advance(SESSION_MS)
    assert group.list() == {GROUP: "Empty"}


def test_a_silent_consumer_leaves_a_classic_group_behind() -> None:
    group = ConsumerContext()
    _, (a,) = settled_classic(group, None)
    Consumer(group, "b").poll()
    for _ in range(6):
        rejoin(group, a)
        group.advance(8_000)
    assert group.list(types=["classic"]) == {GROUP: "PreparingRebalance"}


def test_members_that_wait_are_told_when_their_group_is_made_over() -> None:
    group = ConsumerContext()
    a = group.ask_for_id()
    joining = group.begin_join(a)
    response = group.enter("b")
    assert group.reply_to(joining).error_code is ErrorCode.REBALANCE_IN_PROGRESS
    assert response.error_code is ErrorCode.NONE
    assert rejoin(group, a)[0] == response.member_epoch


def test_a_classic_consumer_may_join_a_consumer_group() -> None:
    group = ConsumerContext()
    b = Consumer(group, "b")
    b.poll()
    a = group.ask_for_id()
    assert rejoin(group, a) == (3, ())
    assert group.heartbeat(a, 3) is ErrorCode.NONE, "what it shall have is not free"
    settle(b, rounds=2)
    assert group.heartbeat(a, 3) is ErrorCode.REBALANCE_IN_PROGRESS
    assert rejoin(group, a) == (3, (2, 3))
    assert group.heartbeat(a, 3) is ErrorCode.NONE
    unreadable = protocols(range=b"?")
    assert group.join(using=unreadable).error_code is ErrorCode.MEMBER_ID_REQUIRED, "before it is read"
    assert group.join(a, using=unreadable).error_code is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert group.join(protocol_type="connect").error_code is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert group.join(using=protocols(mine=subscription("topic"))).error_code is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert group.sync(a, 3, protocol_name="mine").error_code is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert group.sync(a, 2).error_code is ErrorCode.ILLEGAL_GENERATION
    assert group.sync("b", 3).error_code is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.heartbeat("b", 3) is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.heartbeat(a, 2) is ErrorCode.ILLEGAL_GENERATION


def test_who_does_not_join_again_or_sync_is_out() -> None:
    group = ConsumerContext()
    b = Consumer(group, "b")
    b.poll()
    a = group.ask_for_id(rebalance_ms=5_000)
    joined = group.join(a, rebalance_ms=5_000)
    group.advance(5_000)
    assert group.sync(a, joined.generation_id).error_code is ErrorCode.UNKNOWN_MEMBER_ID
    assert [m.member_id for m in group.describe_consumers().members] == ["b"]


def test_static_members_change_over_one_by_one_and_keep_their_place() -> None:
    group = ConsumerContext()
    generation_id, (one, two) = settled_classic(group, "one", "two")
    first = Consumer(group, "first", instance_id="one")
    first.poll()
    assert first.owned == {"topic": (0, 2)}
    assert group.heartbeat(one, generation_id, instance_id="one") is ErrorCode.FENCED_INSTANCE_ID
    second = Consumer(group, "second", instance_id="two")
    second.poll()
    assert second.owned == {"topic": (1, 3)}
    assert {m.member_id for m in group.describe_consumers().members} == {"first", "second"}
    assert group.heartbeat(two, generation_id, instance_id="two") is ErrorCode.FENCED_INSTANCE_ID
    assert group.list() == {GROUP: "Stable"}


def test_administrators_remove_members_of_consumer_groups() -> None:
    group = ConsumerContext()
    Consumer(group, "s1", instance_id="s").poll()
    Consumer(group, "b").poll()
    found = group.leave(
        MemberIdentity(member_id="", group_instance_id="s"),
        MemberIdentity(member_id="b"),
        MemberIdentity(member_id="x"),
        MemberIdentity(member_id="other", group_instance_id="s"),
    )
    assert [m.error_code for m in found.members] == [
        ErrorCode.NONE,
        ErrorCode.NONE,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.FENCED_INSTANCE_ID,
    ]
    assert group.list() == {GROUP: "Empty"}


@pytest.mark.parametrize("policy", MigrationPolicy)
def test_the_policy_says_which_way_groups_may_go(policy: MigrationPolicy) -> None:
    group = ConsumerContext(config=with_config(migration_policy=policy))
    settled_classic(group, None)
    wanted = ErrorCode.NONE if policy.may_upgrade else ErrorCode.GROUP_ID_NOT_FOUND
    assert group.enter("b").error_code is wanted
    mixed = ConsumerContext(config=with_config(migration_policy=policy))
    mixed.enter("b")
    if policy is MigrationPolicy.DISABLED:
        assert mixed.join().error_code is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        return
    rejoin(mixed, mixed.ask_for_id())
    mixed.beat("b", -1)
    assert mixed.list(types=["classic"]) == ({GROUP: "PreparingRebalance"} if policy.may_downgrade else {})


@pytest.mark.parametrize(
    "assignment", [b"?", encode_assignment({"topic": [0]}, version=0)[:-4] + struct.pack(">i2s", 2, b"ud")]
)
def test_groups_with_assignors_of_their_own_stay_classic(assignment: bytes) -> None:
    group = ConsumerContext()
    a = group.ask_for_id()
    joining = group.begin_join(a)
    group.advance(0)
    group.sync(a, group.reply_to(joining).generation_id, {a: assignment})
    before = group.durable()
    assert group.enter("b").error_code is ErrorCode.GROUP_ID_NOT_FOUND
    assert group.durable() == before
    connect = ConsumerContext()
    connect.stable_group(1, protocol_type="connect")
    assert connect.enter("b").error_code is ErrorCode.GROUP_ID_NOT_FOUND


def test_a_lost_upgrade_and_a_lost_downgrade_change_nothing() -> None:
    group = ConsumerContext()
    generation_id, (a,) = settled_classic(group, None)
    before = group.durable()
    group.holding = True
    group.begin_beat("b", 0, rebalance_timeout_ms=1, owned={}, subscribed_topic_names=("topic",))
    group.lose_uncommitted()
    group.holding = False
    group.advance(0)
    assert group.durable() == before
    assert group.heartbeat(a, generation_id) is ErrorCode.NONE
    group.enter("b")
    before = group.durable()
    group.holding = True
    group.begin_beat("b", -1)
    group.lose_uncommitted()
    group.holding = False
    group.advance(0)
    assert group.durable() == before
    assert group.heartbeat(a, generation_id) is ErrorCode.REBALANCE_IN_PROGRESS
    for _ in range(10):
        group.advance(10_000)
    assert group.list() == {GROUP: "Empty"}, "everybody has a session"


def test_a_member_that_was_heard_of_before_the_conversion_keeps_its_own_session() -> None:
    """What stood ends with the conversion, and only then the machine is told when the member was heard of."""
    group = ConsumerContext()
    generation_id, (a,) = settled_classic(group, None)
    for _ in range(2):
        assert group.standing_heartbeat(a, generation_id) is ErrorCode.NONE
    Consumer(group, "b").poll()
    group.advance(SESSION_MS)
    assert [m.member_id for m in group.describe_consumers().members] == ["b"]


def test_a_silent_static_member_has_an_end_where_another_leaves_before_the_group_is_known_to_be_classic() -> None:
    group = ConsumerContext()
    _, (a, s) = settled_classic(group, None, "s")
    Consumer(group, "b").poll()
    with group.holding_commits():
        group.begin_beat("b", -1)
        group.begin_leave(a)
    assert [m.member_id for m in group.machine.directory.describe(GROUP, api_version=5).members] == [s]
    for _ in range(10):
        group.advance(SESSION_MS)
    assert group.state() == "Empty"
