"""The bench's members of groups against a broker: what it measures is a rebalance that all of them see the end of."""

from __future__ import annotations

import pytest

from bench.members import ClassicMember, ConsumerMember, Member, gather
from bench.wire import ask, create_topic, find_coordinator
from ottla.protocol.messages.describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.list_groups import ListGroupsRequest
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import EmbeddedBroker


@pytest.mark.parametrize("kind", [ClassicMember, ConsumerMember])
def test_members_that_join_at_once_settle_and_leave(broker: EmbeddedBroker, kind: type[Member]) -> None:
    group = topic = f"together-{kind.protocol}"
    create_topic(broker.port, topic, partitions=12)
    find_coordinator(broker.port, group)
    seconds, members = gather(kind, broker.port, group, topic, count=6, partitions=12)
    assert seconds > 0
    assert len({member.member_id for member in members}) == 6
    assert _states(broker.port)[group] == "Stable"
    kind.leave(broker.port, members)
    assert _states(broker.port)[group] == "Empty"


def test_the_leader_assigns_to_all_that_joined(broker: EmbeddedBroker) -> None:
    find_coordinator(broker.port, "assigned")
    create_topic(broker.port, "assigned", partitions=1)
    gather(ClassicMember, broker.port, "assigned", "assigned", count=3, partitions=1)
    described = ask(broker.port, ApiKey.DESCRIBE_GROUPS, 5, DescribeGroupsRequest(groups=("assigned",))).groups[0]
    assert [member.member_assignment for member in described.members] == [b"assigned"] * 3


def _states(port: int) -> dict[str, str]:
    groups = ask(port, ApiKey.LIST_GROUPS, 4, ListGroupsRequest()).groups
    return {group.group_id: group.group_state for group in groups}
