"""Consumer groups of KIP-848: epochs, and partitions that change hands one heartbeat at a time."""

from __future__ import annotations

import pytest

from ottla.coordinator.group.config import ConsumerGroupConfig, GroupConfig
from ottla.errors import ErrorCode
from tests.unit.coordinator.group.consumers import Consumer, ConsumerContext, settle, with_config
from tests.unit.coordinator.group.context import GROUP

ALL = {"topic": (0, 1, 2, 3)}


def pair() -> tuple[ConsumerContext, Consumer, Consumer]:
    """Two members who share the topic."""
    group = ConsumerContext()
    a, b = Consumer(group, "a"), Consumer(group, "b")
    settle(a, b)
    return group, a, b


def test_the_first_member_gets_everything_at_epoch_2() -> None:
    group = ConsumerContext()
    response = group.enter("a")
    assert (response.error_code, response.member_id, response.member_epoch) == (ErrorCode.NONE, "a", 2)
    assert response.heartbeat_interval_ms == 5_000
    assert group.assigned(response) == ALL
    described = group.describe_consumers()
    assert (described.group_state, described.group_epoch, described.assignment_epoch) == ("Stable", 2, 2)
    assert described.assignor_name == "uniform"
    (member,) = described.members
    assert (member.member_epoch, member.member_type, member.client_id) == (2, 1, "client")
    assert member.assignment == member.target_assignment
    assert [(t.topic_name, t.partitions) for t in member.assignment.topic_partitions] == [("topic", (0, 1, 2, 3))]
    assert group.list() == {GROUP: "Stable"}
    assert group.list(types=["classic"]) == {}
    assert group.list(types=["Consumer"], states=["stable"]) == {GROUP: "Stable"}


def test_a_partition_is_given_only_after_its_owner_let_go() -> None:
    group = ConsumerContext()
    a, b = Consumer(group, "a"), Consumer(group, "b")
    a.poll()
    response = group.enter("b")
    assert (response.member_epoch, group.assigned(response)) == (3, {})
    b.take(response)
    assert group.describe_consumers().group_state == "Reconciling"
    # The owner is told to keep two; as long as it does not say that it has only these, nothing moves.
    asked = group.beat("a", 2, owned=ALL)
    assert (asked.member_epoch, group.assigned(asked)) == (2, {"topic": (0, 1)})
    assert group.assigned(group.beat("a", 2, owned=ALL)) is None
    assert group.assigned(group.beat("b", 3)) is None
    assert group.assigned(group.beat("a", 2)) is None, "who does not say what it has, has what it had"
    done = group.beat("a", 2, owned={"topic": [0, 1]})
    assert (done.member_epoch, group.assigned(done)) == (3, None)
    given = group.beat("b", 3)
    assert group.assigned(given) == {"topic": (2, 3)}
    assert group.describe_consumers().group_state == "Stable"


def test_while_it_revokes_a_member_is_shown_with_what_it_still_has() -> None:
    group = ConsumerContext()
    group.enter("a")
    group.enter("b")
    group.beat("a", 2, owned=ALL)
    members = {m.member_id: m for m in group.describe_consumers().members}
    assert [t.partitions for t in members["a"].assignment.topic_partitions] == [(0, 1, 2, 3)]
    assert [t.partitions for t in members["a"].target_assignment.topic_partitions] == [(0, 1)]


def test_a_member_that_leaves_frees_its_partitions() -> None:
    group, a, b = pair()
    left = b.leave()
    assert (left.member_id, left.member_epoch, left.assignment) == ("b", -1, None)
    assert group.beat("b", 3).error_code is ErrorCode.UNKNOWN_MEMBER_ID
    a.poll()
    assert a.owned == ALL
    a.leave()
    assert group.list() == {GROUP: "Empty"}
    assert group.describe_consumers().group_epoch == 5


def test_a_silent_member_is_out_after_its_session() -> None:
    group, a, b = pair()
    for _ in range(9):
        group.advance(4_990)
        a.poll()
    assert len(group.describe_consumers().members) == 2
    group.advance(90)
    assert [m.member_id for m in group.describe_consumers().members] == ["a"]
    a.poll()
    assert a.owned == ALL
    assert b.poll() is ErrorCode.UNKNOWN_MEMBER_ID


def test_members_that_fall_silent_together_go_together() -> None:
    group = ConsumerContext()
    group.enter("a", None, subscribed_topic_regex="t.*")
    group.enter("b", None, subscribed_topic_regex="t.*")
    group.advance(45_000)
    assert (group.list(), group.describe_consumers().group_epoch) == ({GROUP: "Empty"}, 4)
    consumers = group.machine.table.consumers.get(GROUP)
    assert consumers is not None
    assert (len(consumers.regexes), consumers.metadata_hash) == (0, 0)


def test_who_does_not_let_go_in_time_is_fenced() -> None:
    group = ConsumerContext()
    a, b = Consumer(group, "a"), Consumer(group, "b")
    a.poll()
    b.poll()
    for _ in range(7):
        assert group.beat("a", 2, owned=ALL).error_code is ErrorCode.NONE
        b.poll()
        group.advance(4_999)
    assert group.beat("a", 2, owned=ALL).error_code is ErrorCode.UNKNOWN_MEMBER_ID
    b.poll()
    assert b.owned == ALL


def test_letting_go_stops_the_clock() -> None:
    group, a, b = pair()
    for _ in range(10):
        group.advance(4_000)
        settle(a, b, rounds=1)
    assert not a.errors
    assert not b.errors


def test_epochs_that_cannot_be_are_fenced() -> None:
    group = ConsumerContext()
    group.enter("a")
    assert group.beat("a", 3).error_code is ErrorCode.FENCED_MEMBER_EPOCH
    group.enter("b")
    group.beat("a", 2, owned=ALL)
    group.beat("a", 2, owned={"topic": [0, 1]})
    # The answer with epoch 3 was lost: the member may say 2 again if it has nothing else.
    retried = group.beat("a", 2, owned={"topic": [0, 1]})
    assert (retried.error_code, retried.member_epoch) == (ErrorCode.NONE, 3)
    assert group.beat("a", 2, owned=ALL).error_code is ErrorCode.FENCED_MEMBER_EPOCH
    assert group.beat("a", 2).error_code is ErrorCode.FENCED_MEMBER_EPOCH
    assert group.beat("a", 1, owned={}).error_code is ErrorCode.FENCED_MEMBER_EPOCH


def test_a_fenced_member_starts_over_and_keeps_its_partitions() -> None:
    group, a, _ = pair()
    before = a.owned
    response = group.enter("a")
    assert response.error_code is ErrorCode.NONE
    assert group.assigned(response) == before


def test_a_static_member_comes_back_under_another_id_without_a_rebalance() -> None:
    group = ConsumerContext()
    a, s = Consumer(group, "a"), Consumer(group, "s1", instance_id="s")
    settle(a, s)
    epoch, had = group.describe_consumers().group_epoch, s.owned
    assert group.enter("s2", instance_id="s").error_code is ErrorCode.UNRELEASED_INSTANCE_ID
    assert s.leave(-2).member_epoch == -2
    assert {m.member_epoch for m in group.describe_consumers().members} == {epoch, -2}
    response = group.enter("s2", instance_id="s")
    assert (response.error_code, response.member_epoch, group.assigned(response)) == (ErrorCode.NONE, epoch, had)
    assert group.describe_consumers().group_epoch == epoch
    assert group.beat("s1", epoch, instance_id="s").error_code is ErrorCode.FENCED_INSTANCE_ID
    assert group.beat("s1", epoch).error_code is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.beat("s2", epoch, instance_id="other").error_code is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.beat("s1", -1, instance_id="s").error_code is ErrorCode.FENCED_INSTANCE_ID


def test_a_static_member_that_does_not_come_back_is_out() -> None:
    group = ConsumerContext()
    Consumer(group, "s1", instance_id="s").poll()
    group.beat("s1", -2, instance_id="s")
    group.advance(44_999)
    assert group.list() == {GROUP: "Reconciling"}
    group.advance(1)
    assert group.list() == {GROUP: "Empty"}


def test_a_static_member_comes_back_with_other_wishes() -> None:
    group = ConsumerContext(topics={"topic": 4, "other": 1})
    Consumer(group, "s1", instance_id="s").poll()
    group.beat("s1", -2, instance_id="s")
    response = group.enter("s2", ["other"], instance_id="s")
    assert (response.member_epoch, group.assigned(response)) == (3, {"other": (0,)})


def test_new_topics_and_partitions_start_a_rebalance() -> None:
    group = ConsumerContext(topics={})
    a = Consumer(group, "a", topics=("topic", "later"))
    a.poll()
    assert (a.epoch, a.owned) == (2, {})
    group.set_topics({"later": 1})
    a.poll()
    assert (a.epoch, a.owned) == (3, {"later": (0,)})
    group.set_topics({"later": 2, "unrelated": 5})
    a.poll()
    assert (a.epoch, a.owned) == (4, {"later": (0, 1)})
    group.set_topics({"later": 2, "unrelated": 6})
    a.poll()
    assert a.epoch == 4, "nobody here subscribes to it"
    group.set_topics({"unrelated": 6})
    a.poll()
    assert (a.epoch, a.owned) == (4, {}), "first it lets go of what is gone"
    a.poll()
    assert (a.epoch, a.owned) == (5, {})


def test_a_topic_made_again_is_another_one() -> None:
    group = ConsumerContext()
    a = Consumer(group, "a")
    a.poll()
    group.set_topics({"topic": 2}, generation=1)
    response = group.beat("a", 2, owned={})
    assert (response.member_epoch, group.assigned(response)) == (3, {"topic": (0, 1)})


def test_a_coordinator_that_takes_over_sees_that_nothing_changed() -> None:
    group, a, b = pair()
    other = group.restarted()
    assert other.durable() == group.durable()
    assert other.beat("a", a.epoch).member_epoch == a.epoch
    assert other.beat("b", b.epoch, owned=b.owned).member_epoch == b.epoch
    assert other.describe_consumers() == group.describe_consumers()
    # Every member gets a whole session.
    other.advance(44_999)
    assert len(other.describe_consumers().members) == 2
    other.advance(1)
    assert other.list() == {GROUP: "Empty"}


def test_a_coordinator_that_takes_over_fences_who_does_not_let_go() -> None:
    group = ConsumerContext()
    group.enter("a")
    group.enter("b")
    group.beat("a", 2, owned=ALL)
    other = group.restarted()
    for _ in range(6):
        other.beat("a", 2, owned=ALL)
        other.advance(5_000)
    assert other.beat("a", 2, owned=ALL).error_code is ErrorCode.UNKNOWN_MEMBER_ID


def test_targets_are_computed_once_a_while() -> None:
    group = ConsumerContext(config=GroupConfig())
    a, b = Consumer(group, "a"), Consumer(group, "b")
    a.poll()
    b.poll()
    assert (b.epoch, group.describe_consumers().group_state) == (2, "Assigning")
    group.advance(999)
    a.poll()
    assert a.epoch == 2
    group.advance(1)
    settle(a, b)
    assert a.epoch == b.epoch == 3
    assert a.partitions | b.partitions == {("topic", p) for p in range(4)}


def test_a_group_may_have_settings_of_its_own() -> None:
    config = with_config(
        consumer_overrides={GROUP: ConsumerGroupConfig(session_timeout_ms=50_000, heartbeat_interval_ms=7_000)}
    )
    group = ConsumerContext(config=config)
    assert group.enter("a").heartbeat_interval_ms == 7_000
    assert group.enter("a", group_id="other").heartbeat_interval_ms == 5_000
    group.advance(49_999)
    assert group.list() == {GROUP: "Stable", "other": "Empty"}
    group.advance(1)
    assert group.list() == {GROUP: "Empty", "other": "Empty"}


def test_a_full_group_takes_nobody_else() -> None:
    group = ConsumerContext(config=with_config(consumer_group_max_size=1))
    group.enter("a")
    assert group.enter("b").error_code is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert group.enter("a").error_code is ErrorCode.NONE


def test_the_assignor_that_most_prefer_is_used() -> None:
    group = ConsumerContext(topics={"topic": 3, "other": 3})
    group.enter("a", ["topic", "other"], server_assignor="range")
    group.enter("b", ["topic", "other"])
    assert group.describe_consumers().assignor_name == "range"
    a, b = Consumer(group, "a", topics=("topic", "other")), Consumer(group, "b", topics=("topic", "other"))
    settle(a, b)
    assert (a.owned, b.owned) == ({"topic": (0, 1), "other": (0, 1)}, {"topic": (2,), "other": (2,)})
    assert group.enter("c", server_assignor="sticky").error_code is ErrorCode.UNSUPPORTED_ASSIGNOR


def test_a_member_that_changes_its_subscription_loses_what_it_dropped() -> None:
    group = ConsumerContext(topics={"topic": 2, "other": 2})
    a = Consumer(group, "a")
    a.poll()
    asked = group.beat("a", 2, subscribed_topic_names=("other",), owned={"topic": [0, 1]})
    assert (asked.member_epoch, group.assigned(asked)) == (2, {})
    done = group.beat("a", 2, owned={})
    assert (done.member_epoch, group.assigned(done)) == (3, {"other": (0, 1)})


@pytest.mark.parametrize(
    "fields",
    [
        {"member_id": ""},
        {"group_id": ""},
        {"group_id": "  "},
        {"instance_id": ""},
        {"rack_id": ""},
        {"rebalance_timeout_ms": -1},
        {"owned": None},
        {"owned": {"topic": [1]}},
        {"subscribed_topic_names": None},
        {"epoch": -2},
        {"epoch": -3},
    ],
)
def test_requests_that_make_no_sense_are_invalid(fields: dict[str, object]) -> None:
    group = ConsumerContext()
    whole = {"member_id": "a", "epoch": 0, "rebalance_timeout_ms": 1, "owned": {}, "subscribed_topic_names": ("topic",)}
    whole |= fields
    response = group.beat(whole.pop("member_id"), whole.pop("epoch"), **whole)  # type: ignore[arg-type]
    assert response.error_code is ErrorCode.INVALID_REQUEST
    assert response.error_message
    assert not group.log


def test_version_0_lets_the_coordinator_make_the_id() -> None:
    group = ConsumerContext()
    response = group.enter("", version=0)
    assert response.member_id
    assert group.beat(response.member_id, 2, version=0).error_code is ErrorCode.NONE
    assert group.beat("", 2, version=0).error_code is ErrorCode.INVALID_REQUEST


def test_groups_and_members_that_are_not_there() -> None:
    group = ConsumerContext()
    assert group.beat("a", 1).error_code is ErrorCode.GROUP_ID_NOT_FOUND
    assert group.beat("a", -1).error_code is ErrorCode.GROUP_ID_NOT_FOUND
    group.enter("a")
    assert group.beat("b", 1).error_code is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.beat("b", -1).error_code is ErrorCode.UNKNOWN_MEMBER_ID
    assert group.describe_consumers("none").error_code is ErrorCode.GROUP_ID_NOT_FOUND


def test_a_member_may_subscribe_to_nothing() -> None:
    group = ConsumerContext()
    response = group.enter("a", [])
    assert (response.member_epoch, group.assigned(response)) == (1, {})
    assert group.beat("a", 1).error_code is ErrorCode.NONE
    assert group.list() == {GROUP: "Stable"}
    assert group.restarted().beat("a", 1).error_code is ErrorCode.NONE
    changed = group.beat("a", 1, subscribed_topic_names=("topic",))
    assert (changed.member_epoch, group.assigned(changed)) == (2, ALL)


def test_an_answer_waits_until_it_is_committed() -> None:
    group = ConsumerContext()
    with group.holding_commits():
        joining = group.begin_beat("a", 0, rebalance_timeout_ms=1, owned={}, subscribed_topic_names=("topic",))
        beating = group.begin_beat("a", 2)
        assert group.is_parked(joining)
        assert group.is_parked(beating)
        assert group.list() == {}
        assert group.describe_consumers().error_code is ErrorCode.GROUP_ID_NOT_FOUND
    assert group.reply_to(joining).member_epoch == 2
    assert group.reply_to(beating).error_code is ErrorCode.NONE


def test_what_was_lost_was_never_there() -> None:
    group, a, b = pair()
    before = group.durable()
    group.holding = True
    leaving = group.begin_beat("b", -1)
    group.begin_beat("c", 0, rebalance_timeout_ms=1, owned={}, subscribed_topic_names=("topic",))
    group.lose_uncommitted()
    group.holding = False
    assert group.error_of(leaving) is ErrorCode.KAFKA_STORAGE_ERROR
    assert group.durable() == before
    settle(a, b)
    assert not a.errors
    assert not b.errors
    group.advance(45_000)
    assert group.list() == {GROUP: "Empty"}, "also who came back by the rollback has a session"


def test_an_empty_group_can_be_deleted_with_its_offsets() -> None:
    group = ConsumerContext()
    a = Consumer(group, "a")
    a.poll()
    assert group.commit_offsets({("topic", 0): 5}, member_id="a", generation_id=2) == {ErrorCode.NONE}
    assert group.delete_groups(GROUP) == {GROUP: ErrorCode.NON_EMPTY_GROUP}
    a.leave()
    assert group.delete_groups(GROUP) == {GROUP: ErrorCode.NONE}
    assert group.list() == {}
    assert group.fetch_offsets() == {}
    assert group.restarted().list() == {}
    assert group.delete_groups(GROUP) == {GROUP: ErrorCode.GROUP_ID_NOT_FOUND}


def test_an_empty_group_goes_by_itself_when_its_offsets_have() -> None:
    group = ConsumerContext()
    a = Consumer(group, "a")
    a.poll()
    group.commit_offsets({("topic", 0): 5}, member_id="a", generation_id=2)
    a.leave()
    group.advance(group.config.offsets_retention_ms - 1)
    assert group.list() == {GROUP: "Empty"}
    group.advance(group.config.offsets_retention_check_interval_ms + 1)
    assert group.list() == {}
    assert group.restarted().list() == {}
    assert group.restarted().durable() == group.durable()


def test_a_heartbeat_that_says_nothing_is_looked_at_when_anything_has_changed() -> None:
    group = ConsumerContext(topics={"topic": 2})
    group.enter("a")
    group.beat("a", 2, owned={"topic": (0, 1)})
    written = len(group.log)
    response = group.beat("a", 2)
    assert (response.member_id, response.member_epoch, response.assignment) == ("a", 2, None)
    assert response.heartbeat_interval_ms == 5_000
    assert len(group.log) == written
    group.enter("b")
    assert group.assigned(group.beat("a", 2)) is not None
    group.beat("a", 2, owned={"topic": (0,)})
    group.set_topics({"topic": 4})
    assert group.beat("a", 3).member_epoch == 4


def test_heartbeats_that_say_nothing_keep_the_session() -> None:
    group = ConsumerContext(topics={"topic": 2})
    group.enter("a")
    for _ in range(5):
        group.advance(30_000)
        assert group.beat("a", 2).error_code is ErrorCode.NONE
    group.advance(45_001)
    assert group.beat("a", 2).error_code is not ErrorCode.NONE
