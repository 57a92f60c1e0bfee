"""Share groups of KIP-932: heartbeats, what they are told, and where the groups are."""

from __future__ import annotations

import time
from typing import Any

from ottla.protocol.messages.alter_share_group_offsets import (
    AlterShareGroupOffsetsRequest,
    AlterShareGroupOffsetsRequestPartition,
    AlterShareGroupOffsetsRequestTopic,
)
from ottla.protocol.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from ottla.protocol.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.delete_share_group_offsets import (
    DeleteShareGroupOffsetsRequest,
    DeleteShareGroupOffsetsRequestTopic,
)
from ottla.protocol.messages.describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.describe_share_group_offsets import (
    DescribeShareGroupOffsetsRequest,
    DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsRequestTopic,
)
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity
from ottla.protocol.messages.list_groups import ListGroupsRequest
from ottla.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from ottla.protocol.messages.share_group_describe import ShareGroupDescribeRequest
from ottla.protocol.messages.share_group_heartbeat import ShareGroupHeartbeatRequest
from ottla.protocol.messages.sync_group import SyncGroupRequest
from ottla.protocol.messages.update_features import FeatureUpdateKey, UpdateFeaturesRequest
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe, versions
from tests.golden.probes.commits import commit, fetch
from tests.golden.probes.groups import join_request, stable


class Group:
    """One share group, and the topic `shared` with three partitions."""

    def __init__(self, lab: Lab, stem: str) -> None:
        lab.need(ApiKey.SHARE_GROUP_HEARTBEAT)
        update = FeatureUpdateKey(feature="share.version", max_version_level=1, upgrade_type=1)
        lab.call(ApiKey.UPDATE_FEATURES, UpdateFeaturesRequest(feature_updates=(update,), timeout_ms=10_000))
        self.lab, self.group = lab, lab.name(f"shared-{stem}")
        self.topic = lab.topic("shared", partitions=3)

    def beat(self, member_id: str, epoch: int, **fields: Any) -> Answer:
        given: dict[str, Any] = {"group_id": self.group} | fields
        request = ShareGroupHeartbeatRequest(member_id=member_id, member_epoch=epoch, **given)
        return self.lab.ask(ApiKey.SHARE_GROUP_HEARTBEAT, request)

    def enter(self, member_id: str, *topics: str, **fields: Any) -> Answer:
        return self.beat(member_id, 0, **{"subscribed_topic_names": topics or (self.topic,)} | fields)

    def describe(self, group_id: str | None = None) -> Answer:
        """With members in a fixed order."""
        request = ShareGroupDescribeRequest(group_ids=(self.group if group_id is None else group_id,))
        (found,) = self.lab.ask(ApiKey.SHARE_GROUP_DESCRIBE, request)["groups"]
        found.get("members", []).sort(key=lambda member: member["member_id"])
        return found

    def wait_for_states(self, partitions: int = 3) -> None:
        """Wait until the share coordinator has begun the states of so many partitions."""
        for _ in range(200):
            request = DescribeShareGroupOffsetsRequestGroup(group_id=self.group, topics=None)
            message = DescribeShareGroupOffsetsRequest(groups=(request,))
            (group,) = self.lab.call(ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS, message).groups
            if sum(len(topic.partitions) for topic in group.topics) >= partitions:
                time.sleep(1.1)  # targets are computed once a second
                return
            time.sleep(0.05)
        raise AssertionError("the states do not begin")

    def offsets(self, *partitions: int, topic: str | None = None, version: int = 1) -> Answer:
        """Of the given partitions, or of all that there are."""
        topics = None
        if partitions:
            topics = (DescribeShareGroupOffsetsRequestTopic(topic_name=topic or self.topic, partitions=partitions),)
        request = DescribeShareGroupOffsetsRequestGroup(group_id=self.group, topics=topics)
        message = DescribeShareGroupOffsetsRequest(groups=(request,))
        found = self.lab.ask(ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS, message, version=version)
        for group in found["groups"]:
            for one in group.get("topics", ()):
                one["partitions"].sort(key=lambda partition: partition.get("partition_index", 0))
        return found

    def alter(self, offset: int, *partitions: int, topic: str | None = None, group_id: str | None = None) -> Answer:
        moved = tuple(
            AlterShareGroupOffsetsRequestPartition(partition_index=i, start_offset=offset) for i in partitions
        )
        topics = (AlterShareGroupOffsetsRequestTopic(topic_name=topic or self.topic, partitions=moved),)
        request = AlterShareGroupOffsetsRequest(group_id=self.group if group_id is None else group_id, topics=topics)
        return self.lab.ask(ApiKey.ALTER_SHARE_GROUP_OFFSETS, request)

    def delete_offsets(self, *topics: str, group_id: str | None = None) -> Answer:
        named = tuple(DeleteShareGroupOffsetsRequestTopic(topic_name=topic) for topic in topics)
        request = DeleteShareGroupOffsetsRequest(group_id=self.group if group_id is None else group_id, topics=named)
        return self.lab.ask(ApiKey.DELETE_SHARE_GROUP_OFFSETS, request)

    def delete(self) -> Answer:
        return self.lab.ask(ApiKey.DELETE_GROUPS, DeleteGroupsRequest(groups_names=(self.group,)))

    def listed(self, **filters: Any) -> Answer:
        found = self.lab.ask(ApiKey.LIST_GROUPS, ListGroupsRequest(**filters))
        return [group for group in found.get("groups", ()) if group.get("group_id") == self.lab.plain(self.group)]


@probe()
def requests_without_sense(lab: Lab) -> Answer:
    group = Group(lab, "senseless")
    return {
        "no group": group.enter("a", group_id=""),
        "blank group": group.enter("a", group_id=" "),
        "no member": group.enter(""),
        "blank member": group.enter(" "),
        "long member": group.enter("m" * 37),
        "member of 36": group.beat("m" * 36, 4).get("error_code"),
        "empty rack": group.enter("a", rack_id=""),
        "no subscription": group.beat("a", 0),
        "subscribed to nothing": group.beat("a", 0, subscribed_topic_names=()),
        "epoch -2": group.beat("a", -2),
        "not there": [group.beat("a", 3), group.beat("a", -1), group.describe(), group.describe("")],
        "topic that does not exist": group.enter("a", lab.name("nowhere")),
    }


@probe()
def life_of_a_group(lab: Lab) -> Answer:
    group = Group(lab, "life")
    answers = {"join": group.enter("a")}
    group.wait_for_states()
    answers |= {
        "assigned": group.beat("a", 2),
        "nothing new": group.beat("a", 3),
        "whole again": group.beat("a", 3, subscribed_topic_names=(group.topic,)),
        "the epoch before": group.beat("a", 2),
        "an older epoch": group.beat("a", 1),
        "a later epoch": group.beat("a", 4),
        "unknown member": group.beat("b", 3),
        "unknown member leaves": group.beat("b", -1),
        "join again": group.enter("a"),
        "described": group.describe(),
        "in use": group.delete(),
        "in use, offsets": group.delete_offsets(group.topic),
        "in use, moved": group.alter(3, 0),
        "listed": group.listed(types_filter=("share",)),
        "listed in a state": [group.listed(states_filter=("Stable",)), group.listed(states_filter=("Empty",))],
    }
    time.sleep(1.1)
    answers["second"] = group.enter("b", rack_id="r")
    answers["first with a second"] = group.beat("a", 3)
    answers["both"] = group.describe()
    answers["leave"] = group.beat("a", -1)
    answers["leave again"] = group.beat("a", -1)
    answers["leave, the last one"] = group.beat("b", -1)
    answers["empty"] = group.describe()
    answers["delete"] = group.delete()
    answers["deleted"] = [group.describe(), group.offsets(), group.offsets(0), group.delete()]
    return answers


@probe()
def other_protocols(lab: Lab) -> Answer:
    """What those who speak of consumers are told of a share group, and the other way round."""
    group = Group(lab, "others")
    group.enter("a")
    group.wait_for_states()
    name = group.group

    def ask(api: ApiKey, message: Any, version: int | None = None) -> Answer:
        return lab.ask(api, message, version=version)

    def all_of_them() -> Answer:
        partition = OffsetDeleteRequestPartition(partition_index=0)
        topic = OffsetDeleteRequestTopic(name=group.topic, partitions=(partition,))
        return {
            "join": ask(ApiKey.JOIN_GROUP, join_request(name), 9),
            "join as somebody": ask(ApiKey.JOIN_GROUP, join_request(name, member_id="a"), 9),
            "sync": ask(ApiKey.SYNC_GROUP, SyncGroupRequest(group_id=name, generation_id=1, member_id="a"), 4),
            "heartbeat": ask(ApiKey.HEARTBEAT, HeartbeatRequest(group_id=name, generation_id=1, member_id="a"), 4),
            "leave": ask(
                ApiKey.LEAVE_GROUP, LeaveGroupRequest(group_id=name, members=(MemberIdentity(member_id="a"),)), 5
            ),
            "commit": commit(lab, name, group.topic, 4),
            "commit as a member": commit(lab, name, group.topic, 4, member_id="a", generation_id_or_member_epoch=2),
            "fetch": fetch(lab, name, group.topic),
            "delete offsets": ask(ApiKey.OFFSET_DELETE, OffsetDeleteRequest(group_id=name, topics=(topic,))),
            "describe": [
                ask(ApiKey.DESCRIBE_GROUPS, DescribeGroupsRequest(groups=(name,)), version) for version in (5, 6)
            ],
            "describe as consumers": ask(
                ApiKey.CONSUMER_GROUP_DESCRIBE, ConsumerGroupDescribeRequest(group_ids=(name,))
            ),
            "consumer": ask(
                ApiKey.CONSUMER_GROUP_HEARTBEAT,
                ConsumerGroupHeartbeatRequest(
                    group_id=name,
                    member_id="c",
                    member_epoch=0,
                    rebalance_timeout_ms=1000,
                    topic_partitions=(),
                    subscribed_topic_names=(group.topic,),
                ),
            ),
        }

    answers = {"in use": all_of_them()}
    group.beat("a", -1)
    answers["empty"] = all_of_them()
    classic = lab.name("shared-classic")
    stable(lab, "shared-classic")
    answers["classic"] = {
        "heartbeat": group.enter("a", group_id=classic),
        "leave": group.beat("a", -1, group_id=classic),
        "describe": group.describe(classic),
        "alter": group.alter(3, 0, group_id=classic),
        "delete offsets": group.delete_offsets(group.topic, group_id=classic),
    }
    return answers


@probe(each=versions(ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS))
def offsets(lab: Lab, version: int) -> Answer:
    group = Group(lab, f"offsets-{version}")
    nowhere = lab.name("nowhere")
    answers = {
        "unknown": group.offsets(version=version),
        "unknown, some": group.offsets(0, version=version),
        "delete unknown": group.delete_offsets(group.topic),
        "alter nothing": group.alter(0),
        "no group": [group.alter(0, 0, group_id=""), group.delete_offsets(group.topic, group_id="")],
        "alter unknown topic": group.alter(0, 0, topic=nowhere),
        "alter": group.alter(0, 0, 3),
        "begun by that": group.describe(),
    }
    group.wait_for_states(1)
    answers |= {
        "altered": group.offsets(version=version),
        "some": group.offsets(0, 1, version=version),
        "of an unknown topic": group.offsets(0, topic=nowhere, version=version),
        "alter again": group.alter(2, 0),
    }
    time.sleep(1)
    answers |= {
        "altered again": group.offsets(0, version=version),
        "delete": group.delete_offsets(group.topic, nowhere),
        "delete again": group.delete_offsets(group.topic),
        "deleted": [group.offsets(version=version), group.offsets(0, version=version)],
    }
    return answers
