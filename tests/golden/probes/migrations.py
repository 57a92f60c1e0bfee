"""Consumer groups in use that change their protocol, and those that may not."""

from __future__ import annotations

import struct
from typing import Any

from ottla.errors import ErrorCode
from ottla.protocol.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from ottla.protocol.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
)
from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.join_group import JoinGroupRequestProtocol
from ottla.protocol.messages.list_groups import ListGroupsRequest
from ottla.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe
from tests.golden.probes.commits import commit, fetch
from tests.golden.probes.groups import Member, described, join_request, subscription


def assignment(topic: str, *partitions: int) -> bytes:
    """What a classic leader sends, in version 0."""
    named = struct.pack(">h", len(topic)) + topic.encode()
    indexes = struct.pack(">i", len(partitions)) + b"".join(struct.pack(">i", index) for index in partitions)
    return struct.pack(">hi", 0, 1) + named + indexes + struct.pack(">i", -1)


class Mixed:
    """A group that starts classic, with one member and two partitions."""

    def __init__(self, lab: Lab, stem: str, **fields: Any) -> None:
        self.lab, self.group = lab, lab.name(f"mixed-{stem}")
        self.topic = lab.topic("mixed", partitions=2)
        self.topic_id = lab.topic_id(self.topic)
        self.protocol = JoinGroupRequestProtocol(name="range", metadata=subscription(self.topic))
        self.classic = Member(lab, self.group)
        self.fields = {"protocols": (self.protocol,), "session_timeout_ms": 45_000, **fields}

    def start(self) -> Answer:
        """Have the classic member stable, with all partitions."""
        joined = self.classic.join(**self.fields)
        return [joined, self.classic.sync((self.classic.member_id, assignment(self.topic, 0, 1)))]

    def beat(self, member_id: str, epoch: int, owned: tuple[int, ...] | None = None, **fields: Any) -> Answer:
        partitions = None
        if owned is not None:
            entry = ConsumerGroupHeartbeatRequestTopicPartitions(topic_id=self.topic_id, partitions=owned)
            partitions = (entry,) if owned else ()
        request = ConsumerGroupHeartbeatRequest(
            group_id=self.group, member_id=member_id, member_epoch=epoch, topic_partitions=partitions, **fields
        )
        return self.lab.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, request)

    def enter(self, member_id: str, **fields: Any) -> Answer:
        whole = {"rebalance_timeout_ms": 30_000, "owned": (), "subscribed_topic_names": (self.topic,)}
        return self.beat(member_id, 0, **(whole | fields))

    def state(self) -> Answer:
        """As classic and as consumer group, and what lists say of it. Ids of members sort by chance."""
        modern = self.lab.ask(ApiKey.CONSUMER_GROUP_DESCRIBE, ConsumerGroupDescribeRequest(group_ids=(self.group,)))
        listed = self.lab.call(ApiKey.LIST_GROUPS, ListGroupsRequest())
        own = [group for group in listed.groups if group.group_id == self.group]
        return {"classic": described(self.lab, self.group), "modern": modern, "listed": own}

    def join(self, member: Member, **fields: Any) -> Answer:
        return member.join(**(self.fields | fields))

    def join_error(self, **fields: Any) -> Answer:
        request = join_request(self.group, **(self.fields | fields))
        answer = self.lab.ask(ApiKey.JOIN_GROUP, request)
        return answer.get("error_code") if isinstance(answer, dict) else answer

    def commit(self, member_id: str, generation: int, **fields: Any) -> Answer:
        fields |= {"member_id": member_id, "generation_id_or_member_epoch": generation}
        return commit(self.lab, self.group, self.topic, 5, **fields)


@probe()
def consumer_enters_a_classic_group(lab: Lab) -> Answer:
    mixed = Mixed(lab, "up")
    one = mixed.classic
    told = [["classic", mixed.start()], ["entered", mixed.enter("modern")], ["state", mixed.state()]]
    told += [["classic heartbeat", one.heartbeat()], ["older", one.heartbeat(generation_id=0)]]
    told += [["stranger's heartbeat", one.heartbeat(member_id="nobody")]]
    told += [["classic sync, not joined", one.sync()]]
    told += [["classic commit", mixed.commit(one.member_id, one.generation_id)]]
    told += [["classic commit, older", mixed.commit(one.member_id, one.generation_id - 1)]]
    told += [["classic commit, newer", mixed.commit(one.member_id, one.generation_id + 1)]]
    told += [["classic commit in version 8", mixed.commit(one.member_id, one.generation_id, version=8)]]
    told += [["the new one's commit", mixed.commit("modern", 2)], ["simple commit", mixed.commit("", -1)]]
    told += [["the new one waits", mixed.beat("modern", 2, ())]]
    told += [["classic joins again", mixed.join(one)], ["sync of another generation", one.sync(generation_id=1)]]
    told += [["classic syncs", one.sync()], ["heartbeat", one.heartbeat()], ["state after", mixed.state()]]
    told += [["the new one gets its own", mixed.beat("modern", 2, ())]]
    told += [["delete", lab.ask(ApiKey.DELETE_GROUPS, DeleteGroupsRequest(groups_names=(mixed.group,)))]]
    partition = OffsetDeleteRequestTopic(name=mixed.topic, partitions=(OffsetDeleteRequestPartition(),))
    told += [["offsets", lab.ask(ApiKey.OFFSET_DELETE, OffsetDeleteRequest(group_id=mixed.group, topics=(partition,)))]]
    told += [["as a stranger", fetch(lab, mixed.group, mixed.topic, 0, member=("nobody", 1))]]
    told += [["heartbeat of the wrong kind", mixed.beat(one.member_id, 2, ())]]
    told += [["classic of the wrong kind", one.heartbeat(member_id="modern", generation_id=2)]]
    told += [["classic leaves", one.leave()], ["state at the end", mixed.state()]]
    return told


@probe()
def consumer_leaves_classic_members_behind(lab: Lab) -> Answer:
    mixed = Mixed(lab, "down")
    one = mixed.classic
    told = [["classic", mixed.start()], ["entered", mixed.enter("modern")], ["classic joins", mixed.join(one)]]
    told += [["classic syncs", one.sync()], ["shared", mixed.beat("modern", 2, ())]]
    told += [["the new one leaves", mixed.beat("modern", -1)], ["state", mixed.state()]]
    told += [["heartbeat", one.heartbeat()], ["sync", one.sync()], ["its commit", mixed.commit("modern", 2)]]
    told += [["commit", mixed.commit(one.member_id, one.generation_id)]]
    told += [["the new one's heartbeat", mixed.beat("modern", 2, ())]]
    told += [["classic joins", mixed.join(one)]]
    told += [["classic syncs", one.sync((one.member_id, assignment(mixed.topic, 0, 1)))], ["after", mixed.state()]]
    told += [["entered again", mixed.enter("modern")], ["state at the end", mixed.state()]]
    return told


@probe()
def classic_joins_a_consumer_group(lab: Lab) -> Answer:
    mixed = Mixed(lab, "join")
    told: list[Answer] = [["modern", mixed.enter("modern")]]
    told += [
        ["another type", mixed.join_error(protocol_type="connect")],
        ["no type", mixed.join_error(protocol_type="")],
        ["no protocols", mixed.join_error(protocols=())],
        ["unreadable", mixed.join_error(protocols=(JoinGroupRequestProtocol(name="range", metadata=b"\0"),))],
        ["nothing", mixed.join_error(protocols=(JoinGroupRequestProtocol(name="range"),))],
        ["stranger", mixed.join_error(member_id="nobody")],
        ["as the other", mixed.join_error(member_id="modern")],
        ["session too short", mixed.join_error(session_timeout_ms=1)],
        ["session too long", mixed.join_error(session_timeout_ms=9_000_000)],
        ["unknown instance", mixed.join_error(group_instance_id="s", member_id="nobody")],
        ["state", mixed.state()],
    ]
    one = mixed.classic
    told += [["joins", mixed.join(one)], ["state", mixed.state()]]
    told += [["syncs", one.sync()], ["syncs for all", one.sync((one.member_id, b"all"))]]
    told += [["another protocol", one.sync(protocol_name="sticky")], ["another type", one.sync(protocol_type="x")]]
    told += [["no protocol", one.sync(protocol_name=None)], ["instance", one.sync(group_instance_id="i")]]
    told += [["future", one.sync(generation_id=99)], ["stranger", one.sync(member_id="nobody")]]
    told += [["heartbeat", one.heartbeat()], ["heartbeat as an instance", one.heartbeat(group_instance_id="i")]]
    told += [["joins unchanged", mixed.join(one)], ["heartbeat", one.heartbeat()], ["syncs", one.sync()]]
    sticky = JoinGroupRequestProtocol(name="sticky", metadata=subscription(mixed.topic))
    told += [["other protocols", mixed.join(one, protocols=(sticky,))], ["state", mixed.state()]]
    told += [["both", mixed.join(one, protocols=(sticky, mixed.protocol))]]
    told += [
        ["to nothing", mixed.join(one, protocols=(JoinGroupRequestProtocol(name="range", metadata=subscription()),))]
    ]
    told += [["leaves", one.leave()], ["leaves again", one.leave()], ["state", mixed.state()]]
    return told


@probe()
def groups_that_may_not_change(lab: Lab) -> Answer:
    """Members that are no consumers, or whose metadata cannot be read."""
    told = {}
    kinds: dict[str, dict[str, Any]] = {
        "connect": {"protocol_type": "connect"},
        "unreadable": {"protocols": (JoinGroupRequestProtocol(name="range", metadata=b"\0"),)},
        "nothing": {"protocols": (JoinGroupRequestProtocol(name="range"),)},
        "user data": {
            "protocols": (JoinGroupRequestProtocol(name="range", metadata=subscription("mixed", user_data=b"own")),)
        },
    }
    for what, fields in kinds.items():
        mixed = Mixed(lab, f"not-{what.replace(' ', '-')}", **fields)
        mixed.classic.join(**mixed.fields)
        kind = fields.get("protocol_type", "consumer")
        synced = mixed.classic.sync((mixed.classic.member_id, b"own"), protocol_type=kind)
        told[what] = [synced, mixed.enter("modern"), mixed.state(), mixed.classic.heartbeat()]
    return told


@probe(each=["joined, not synced", "rebalancing"])
def consumer_enters_in_the_middle_of_a_rebalance(lab: Lab, kind: str) -> Answer:
    """For another topic: who gets which partition of the same one depends on their ids."""
    mixed = Mixed(lab, kind.replace(", ", "-").replace(" ", "-"))
    one, other_topic = mixed.classic, lab.topic("mixed-other")
    if kind == "joined, not synced":
        mixed.join(one)
        told = [
            ["entered", mixed.enter("modern", subscribed_topic_names=(other_topic,))],
            ["listed", mixed.state()["listed"]],
        ]
        return [*told, ["sync", one.sync()], ["heartbeat", one.heartbeat()], ["joins", mixed.join(one)]]
    mixed.start()
    other = Member(lab, mixed.group)
    other.start_join(**mixed.fields)
    assert other.finish().error_code is ErrorCode.MEMBER_ID_REQUIRED
    other.start_join(**mixed.fields)
    one.await_rebalance()
    told = [
        ["entered", mixed.enter("modern", subscribed_topic_names=(other_topic,))],
        ["the parked join", lab.plain(other.finish())],
    ]
    return [*told, ["listed", mixed.state()["listed"]], ["heartbeat", one.heartbeat()], ["joins", mixed.join(one)]]


@probe()
def static_members_change_their_protocol(lab: Lab) -> Answer:
    mixed = Mixed(lab, "static")
    one = mixed.classic
    one.join(**mixed.fields, group_instance_id="s")
    one.sync((one.member_id, assignment(mixed.topic, 0, 1)), group_instance_id="s")
    told = [["the same instance", mixed.enter("modern", instance_id="s")], ["state", mixed.state()]]
    told += [["the former", one.heartbeat(group_instance_id="s")], ["without", one.heartbeat()]]
    told += [["the former's commit", mixed.commit(one.member_id, one.generation_id, group_instance_id="s")]]
    told += [
        ["another enters", mixed.enter("other")],
        ["leaves for a while", mixed.beat("modern", -2, instance_id="s")],
    ]
    two = Member(lab, mixed.group)
    two.start_join(**mixed.fields, group_instance_id="s")
    told += [["back as a classic one", lab.plain(two.finish())]]
    told += [["state with a classic one", mixed.state()]]
    told += [["taken by a classic one", mixed.enter("third", instance_id="s")]]
    return told
