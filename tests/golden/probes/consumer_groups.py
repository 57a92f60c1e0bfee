"""Consumer groups of KIP-848: heartbeats, what they are told, and commits with member epochs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from ottla.errors import ErrorCode
from ottla.protocol.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from ottla.protocol.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
)
from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.list_groups import ListGroupsRequest
from ottla.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe, versions
from tests.golden.probes.commits import commit, fetch
from tests.golden.probes.groups import join_request, stable

UNKNOWN_TOPIC = uuid.UUID(int=77)


class Group:
    """One consumer group, and the topic `modern` with four partitions."""

    def __init__(self, lab: Lab, stem: str) -> None:
        self.lab, self.group = lab, lab.name(f"modern-{stem}")
        self.topic = lab.topic("modern", partitions=4)
        self.topic_id = lab.topic_id(self.topic)

    def call(self, member_id: str, epoch: int, *, version: int = 1, **fields: Any) -> Any:
        owned: Iterable[int] | None = fields.pop("owned", None)
        partitions = None
        if owned is not None:
            partitions = tuple(
                ConsumerGroupHeartbeatRequestTopicPartitions(topic_id=self.topic_id, partitions=tuple(owned))
                for _ in range(1 if owned else 0)
            )
        given: Mapping[str, Any] = {"group_id": self.group, "topic_partitions": partitions} | fields
        request = ConsumerGroupHeartbeatRequest(member_id=member_id, member_epoch=epoch, **given)
        return self.lab.call(ApiKey.CONSUMER_GROUP_HEARTBEAT, request, version=version)

    def beat(self, member_id: str, epoch: int, **fields: Any) -> Answer:
        return self.lab.plain(self.call(member_id, epoch, **fields))

    def enter(self, member_id: str, **fields: Any) -> Answer:
        whole = {"rebalance_timeout_ms": 30_000, "owned": (), "subscribed_topic_names": (self.topic,)}
        return self.beat(member_id, 0, **whole | fields)

    def describe(self, *, version: int = 1) -> Answer:
        """With members and their topics in a fixed order."""
        request = ConsumerGroupDescribeRequest(group_ids=(self.group,))
        (found,) = self.lab.plain(self.lab.call(ApiKey.CONSUMER_GROUP_DESCRIBE, request, version=version))["groups"]
        found.get("members", []).sort(key=lambda member: member["member_id"])
        return found

    def wait_for_interval(self) -> None:
        """Targets are computed once a second."""
        time.sleep(1.1)

    def share(self) -> list[Answer]:
        """Two members come to share the topic; returns what they are told on the way."""
        told = [self.enter("a")]
        self.wait_for_interval()
        told.append(self.enter("b"))
        told.append(self.beat("a", 2, owned=(0, 1, 2, 3)))
        return told


@probe(each=versions(ApiKey.CONSUMER_GROUP_HEARTBEAT))
def requests_without_sense(lab: Lab, version: int) -> Answer:
    group = Group(lab, f"senseless-{version}")
    return {
        "no group": group.enter("a", group_id="", version=version),
        "blank group": group.enter("a", group_id=" ", version=version),
        "no member": group.enter("", version=version).get("error_code"),
        "blank member": group.enter(" ", version=version).get("error_code"),
        "no member, later": group.beat("", 3, version=version),
        "no member, leaving": group.beat("", -1, version=version),
        "empty instance": group.enter("a", instance_id="", version=version),
        "empty rack": group.enter("a", rack_id="", version=version),
        "no timeout": group.enter("a", rebalance_timeout_ms=-1, version=version),
        "owned is null": group.enter("a", owned=None, version=version),
        "owns already": group.enter("a", owned=(1,), version=version),
        "no subscription": group.enter("a", subscribed_topic_names=None, version=version),
        "pause without instance": group.beat("a", -2, version=version),
        "epoch -3": group.beat("a", -3, version=version),
        "assignor": group.enter("a", server_assignor="sticky", version=version),
    }


@probe()
def unknown_groups_and_members(lab: Lab) -> Answer:
    group = Group(lab, "unknowns")
    answers = {
        "group, later": group.beat("a", 1),
        "group, leaving": group.beat("a", -1),
        "group, pausing": group.beat("a", -2, instance_id="i"),
        "group described": group.describe(),
        "group described, version 0": group.describe(version=0),
    }
    group.enter("a")
    return answers | {
        "member, later": group.beat("b", 1),
        "member, leaving": group.beat("b", -1),
        "instance, later": group.beat("a", 2, instance_id="i"),
        "instance, leaving": group.beat("a", -1, instance_id="i"),
    }


@probe()
def first_member(lab: Lab) -> Answer:
    group = Group(lab, "first")
    return {
        "join": group.enter("a"),
        "nothing new": group.beat("a", 2),
        "whole again": group.beat(
            "a", 2, rebalance_timeout_ms=1000, subscribed_topic_names=(group.topic,), owned=(0, 1, 2, 3)
        ),
        "whole but for the topics": group.beat("a", 2, rebalance_timeout_ms=1000, owned=(0, 1, 2, 3)),
        "join again": group.enter("a"),
        "described": group.describe(),
        "described, version 0": group.describe(version=0),
        "leave": group.beat("a", -1),
        "left": group.beat("a", 2),
        "empty": group.describe(),
    }


@probe()
def wrong_epochs(lab: Lab) -> Answer:
    group = Group(lab, "epochs")
    told = group.share()
    return {
        "sharing": told,
        "described while revoking": group.describe(),
        "still owns": group.beat("a", 2, owned=(0, 1, 2, 3)),
        "does not say": group.beat("a", 2),
        "the other waits": group.beat("b", 3),
        "let go": group.beat("a", 2, owned=(0, 1)),
        "the other gets them": group.beat("b", 3),
        "the epoch before, with what it has": group.beat("a", 2, owned=(0, 1)),
        "the epoch before, with less": group.beat("a", 2, owned=()),
        "the epoch before, with more": group.beat("a", 2, owned=(0, 1, 2)),
        "the epoch before, without saying": group.beat("a", 2),
        "two epochs before": group.beat("a", 1, owned=()),
        "a later epoch": group.beat("a", 4, owned=(0, 1)),
        "with a later epoch of the other": group.beat("b", 9),
        "described": group.describe(),
        "starts over": group.enter("a"),
    }


@probe()
def static_members(lab: Lab) -> Answer:
    group = Group(lab, "static")
    return {
        "join": group.enter("s1", instance_id="s"),
        "taken": group.enter("s2", instance_id="s"),
        "without the instance": group.beat("s1", 2),
        "other instance": group.beat("s1", 2, instance_id="t"),
        "pause by a stranger": group.beat("x", -2, instance_id="s"),
        "pause": group.beat("s1", -2, instance_id="s"),
        "described": group.describe(),
        "beat while away": group.beat("s1", 2, instance_id="s"),
        "back": group.enter("s2", instance_id="s"),
        "the former": group.beat("s1", 2, instance_id="s"),
        "the former leaves": group.beat("s1", -1, instance_id="s"),
        "described again": group.describe(),
        "leave": group.beat("s2", -1, instance_id="s"),
        "empty": group.describe(),
    }


@probe()
def subscriptions(lab: Lab) -> Answer:
    group = Group(lab, "subscriptions")
    other = lab.topic("modern-too", partitions=1)
    answers = {
        "to nothing": group.enter("a", subscribed_topic_names=()),
        "to what is not there": group.beat("a", 1, subscribed_topic_names=(lab.name("nowhere"),), owned=()),
    }
    group.wait_for_interval()
    answers |= {
        "to something": group.beat("a", 2, subscribed_topic_names=(group.topic,), owned=()),
    }
    group.wait_for_interval()
    return answers | {
        "to something else": group.beat("a", 3, subscribed_topic_names=(other,), owned=(0, 1, 2, 3)),
        "described": group.describe(),
        "let go": group.beat("a", 3, owned=()),
        "bad expression": group.beat("a", 4, subscribed_topic_regex="("),
        "lookahead": group.beat("a", 4, subscribed_topic_regex="(?=a)"),
        "back-reference": group.beat("a", 4, subscribed_topic_regex=r"(a)\1"),
    }


@probe()
def member_commits(lab: Lab) -> Answer:
    group = Group(lab, "commits")
    name = group.group
    group.share()

    def put(epoch: int, *offsets: int, version: int = 9, member: str = "a") -> Answer:
        return commit(
            lab,
            name,
            group.topic,
            *offsets,
            version=version,
            member_id=member,
            generation_id_or_member_epoch=epoch,
        )

    answers = {
        "while revoking": put(2, 1, 2, 3, 4),
        "with a later epoch": put(3, 1),
        "by nobody": put(-1, 1, member=""),
        "by a stranger": put(2, 1, member="x"),
        "by an older client": put(2, 1, version=8),
        "with topic ids": put(2, 1, version=10),
    }
    group.beat("a", 2, owned=(0, 1))
    group.beat("b", 3)
    return answers | {
        "with its epoch": put(3, 5, 6),
        "with the epoch at which it got them": put(2, 7, 8),
        "with an older epoch": put(1, 9),
        "with one that it has no more": put(2, 9, 9, 9),
        "the other with an epoch before it got them": put(2, 9, member="b"),
        "the other for what is not its own": put(3, 9, member="b"),
        "read": fetch(lab, name, group.topic, 0, 1, 2),
        "read as a member": fetch(lab, name, group.topic, 0, member=("a", 3)),
        "read as a member of long ago": fetch(lab, name, group.topic, 0, member=("a", 2)),
        "read as a stranger": fetch(lab, name, group.topic, 0, member=("x", 3)),
        "read by nobody with an epoch": fetch(lab, name, group.topic, 0, member=(None, 3)),
        "read with topic ids": fetch(lab, name, group.topic, 0, version=10, member=("a", 3)),
        "read all": fetch(lab, name, None, member=("a", 2)),
    }


@probe()
def administration(lab: Lab) -> Answer:
    group = Group(lab, "administration")
    name = group.group
    group.enter("a")
    commit(lab, name, group.topic, 1, 2, member_id="a", generation_id_or_member_epoch=2)

    def listed(states: tuple[str, ...] = (), types: tuple[str, ...] = ()) -> Answer:
        answer = lab.plain(lab.call(ApiKey.LIST_GROUPS, ListGroupsRequest(states_filter=states, types_filter=types)))
        return [entry for entry in answer.get("groups", []) if entry.get("group_id") == lab.plain(name)]

    def delete_offsets(topic: str) -> Answer:
        wanted = OffsetDeleteRequestTopic(name=topic, partitions=(OffsetDeleteRequestPartition(partition_index=0),))
        return lab.ask(ApiKey.OFFSET_DELETE, OffsetDeleteRequest(group_id=name, topics=(wanted,)))

    def delete() -> Answer:
        return lab.ask(ApiKey.DELETE_GROUPS, DeleteGroupsRequest(groups_names=(name,)))

    classic = DescribeGroupsRequest(groups=(name,))
    answers = {
        "listed": listed(),
        "by type": listed(types=("Consumer",)),
        "by another type": listed(types=("classic",)),
        "by state": listed(states=("stable",)),
        "by another state": listed(states=("Empty",)),
        "as a classic group": lab.ask(ApiKey.DESCRIBE_GROUPS, classic),
        "as a classic group, version 5": lab.ask(ApiKey.DESCRIBE_GROUPS, classic, version=5),
        "delete offsets in use": delete_offsets(group.topic),
        "delete": delete(),
    }
    group.beat("a", -1)
    return answers | {
        "delete offsets": delete_offsets(group.topic),
        "listed when empty": listed(),
        "delete when empty": delete(),
        "deleted": delete(),
        "described": group.describe(),
    }


@probe()
def both_protocols(lab: Lab) -> Answer:
    """An empty group changes its kind. (One that is in use does too, if its members allow it.)"""
    group = Group(lab, "both")
    name = group.group
    member = stable(lab, "modern-both")
    as_consumer_group = group.describe()
    member.leave()
    answers = {
        "a classic group described": as_consumer_group,
        "an empty classic group": group.enter("a"),
        "another protocol type": lab.ask(ApiKey.JOIN_GROUP, join_request(name, protocol_type="connect"), version=5).get(
            "error_code"
        ),
        "described": group.describe(),
    }
    group.beat("a", -1)
    again = lab.call(ApiKey.JOIN_GROUP, join_request(name), version=5)
    return answers | {
        "an empty consumer group": again.error_code is ErrorCode.MEMBER_ID_REQUIRED,
        "which is gone": group.describe(),
    }
