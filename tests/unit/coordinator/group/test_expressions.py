"""Subscriptions by regular expression."""

from __future__ import annotations

from ottla.errors import ErrorCode
from tests.unit.coordinator.group.consumers import Consumer, ConsumerContext
from tests.unit.coordinator.group.context import GROUP


def test_expressions_mean_topics_that_match_from_end_to_end() -> None:
    group = ConsumerContext(topics={"topic": 1, "topic-b": 1, "a-topic": 1})
    response = group.enter("a", None, subscribed_topic_regex="topic.*")
    assert (response.member_epoch, group.assigned(response)) == (2, {"topic": (0,), "topic-b": (0,)})
    (member,) = group.describe_consumers().members
    assert (member.subscribed_topic_regex, member.subscribed_topic_names) == ("topic.*", ())
    assert group.restarted().durable() == group.durable()
    assert group.restarted().beat("a", 2).member_epoch == 2


def test_expressions_find_new_topics_after_a_while() -> None:
    group = ConsumerContext(topics={"topic": 1})
    group.enter("a", None, subscribed_topic_regex="topic.*")
    group.set_topics({"topic": 1, "topic-b": 1})
    assert group.beat("a", 2).member_epoch == 2
    group.advance(10_001)
    response = group.beat("a", 2)
    assert (response.member_epoch, group.assigned(response)) == (3, {"topic": (0,), "topic-b": (0,)})
    group.set_topics({"topic": 1, "topic-b": 1, "unrelated": 1})
    group.advance(10_001)
    assert group.beat("a", 3).member_epoch == 3


def test_an_expression_goes_with_the_last_member_that_uses_it() -> None:
    group = ConsumerContext(topics={"topic": 2, "other": 2})
    a, b = Consumer(group, "a"), Consumer(group, "b")
    a.take(group.enter("a", None, subscribed_topic_regex="t.*"))
    b.take(group.enter("b", None, subscribed_topic_regex="t.*"))
    for _ in range(3):
        a.take(group.beat("a", a.epoch, owned=a.owned))
        b.take(group.beat("b", b.epoch, owned=b.owned))
    assert (a.owned, b.owned) == ({"topic": (0,)}, {"topic": (1,)})
    consumers = group.machine.table.consumers.get(GROUP)
    assert consumers is not None
    a.take(group.beat("a", a.epoch, owned=a.owned, subscribed_topic_regex="oth.."))
    assert {regex for regex, _ in consumers.regexes.items()} == {"t.*", "oth.."}
    a.take(group.beat("a", a.epoch, owned=a.owned))
    assert a.owned == {"other": (0, 1)}
    b.leave()
    assert {regex for regex, _ in consumers.regexes.items()} == {"oth.."}
    a.leave()
    assert not len(consumers.regexes)


def test_expressions_and_names_add_up() -> None:
    group = ConsumerContext(topics={"topic": 1, "other": 1, "third": 1})
    response = group.enter("a", ["other"], subscribed_topic_regex="top..")
    assert group.assigned(response) == {"topic": (0,), "other": (0,)}
    assert group.delete_offsets(("topic", 0)).topics[0].partitions[0].error_code is (
        ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
    )


def test_expressions_that_cannot_be_read_are_refused() -> None:
    group = ConsumerContext()
    for regex in ("(", "(?=look)", r"(a)\1"):
        response = group.enter("a", None, subscribed_topic_regex=regex)
        assert response.error_code is ErrorCode.INVALID_REGULAR_EXPRESSION
    # What would take a backtracking engine for ever.
    assert group.enter("b", None, subscribed_topic_regex="(a*)*b").error_code is ErrorCode.NONE
