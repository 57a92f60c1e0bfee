"""Groups that change from the classic to the consumer protocol and back."""

from __future__ import annotations

from ottla.errors import ErrorCode
from tests.unit.coordinator.group.consumers import ConsumerContext
from tests.unit.coordinator.group.context import GROUP


def test_an_empty_classic_group_becomes_a_consumer_group_and_back_and_keeps_its_offsets() -> None:
    group = ConsumerContext()
    generation_id, (member_id,) = group.stable_group(1)
    group.commit_offsets({("topic", 0): 5}, member_id=member_id, generation_id=generation_id)
    assert group.enter("a").error_code is ErrorCode.GROUP_ID_NOT_FOUND
    group.leave(member_id)
    assert group.enter("a").error_code is ErrorCode.NONE
    assert group.list(types=["consumer"]) == {GROUP: "Stable"}
    assert group.list(types=["classic"]) == {}
    assert group.state() == "Dead", "DescribeGroups knows of classic groups alone"
    assert group.restarted().durable() == group.durable()
    assert group.join().error_code is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert group.heartbeat(member_id, generation_id) is ErrorCode.UNKNOWN_MEMBER_ID
    group.beat("a", -1)
    group.stable_group(1)
    assert group.list(types=["classic"]) == {GROUP: "Stable"}
    assert group.list(types=["consumer"]) == {}
    assert group.fetch_offsets() == {("topic", 0): 5}
    assert group.restarted().durable() == group.durable()
    assert group.restarted().list() == {GROUP: "Stable"}


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
