"""Classic consumer groups: finding the coordinator, joining, syncing, leaving, and what is told of a group."""

from __future__ import annotations

import struct
import time
from typing import Any

from ottla.errors import ErrorCode
from ottla.protocol.codec import decode_response, encode_request, is_flexible
from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity
from ottla.protocol.messages.list_groups import ListGroupsRequest
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe, versions
from tests.golden.wire import newest


def subscription(*topics: str, user_data: bytes = b"") -> bytes:
    """What consumers send as metadata, in version 0. Kafka reads it in groups of the type "consumer"."""
    names = b"".join(struct.pack(">h", len(topic)) + topic.encode() for topic in topics)
    return struct.pack(">hi", 0, len(topics)) + names + struct.pack(">i", len(user_data)) + user_data


RANGE = JoinGroupRequestProtocol(name="range", metadata=subscription("some-topic"))
ROUND = JoinGroupRequestProtocol(name="roundrobin", metadata=subscription("some-topic", user_data=b"round"))


def join_request(group: str, **fields: Any) -> JoinGroupRequest:
    given = {
        "protocol_type": "consumer",
        "protocols": (RANGE,),
        "session_timeout_ms": 10_000,
        "rebalance_timeout_ms": 10_000,
    }
    return JoinGroupRequest(group_id=group, **(given | fields))


class Member:
    """One member on a connection of its own, which may have a request under way."""

    def __init__(self, lab: Lab, group: str, *, client_id: str = "probe") -> None:
        self.lab, self.group = lab, group
        self.connection = lab.connect(client_id=client_id)
        self.member_id = ""
        self.generation_id = -1
        self.waiting_for: tuple[ApiKey, int] | None = None

    def start(self, api: ApiKey, request: Any, *, version: int | None = None) -> None:
        self.lab.need(api)
        version = newest(api) if version is None else version
        self.connection.send(api, version, encode_request(api, version, request))
        self.waiting_for = (api, version)

    def finish(self) -> Any:
        assert self.waiting_for is not None
        api, version = self.waiting_for
        answer = decode_response(api, version, self.connection.receive_body(flexible=is_flexible(api, version)))
        if api is ApiKey.JOIN_GROUP:
            self.member_id = answer.member_id or self.member_id
            if answer.error_code is ErrorCode.NONE:
                self.generation_id = answer.generation_id
        return answer

    def start_join(self, *, version: int | None = None, **fields: Any) -> None:
        self.start(ApiKey.JOIN_GROUP, join_request(self.group, member_id=self.member_id, **fields), version=version)

    def join(self, *, version: int | None = None, **fields: Any) -> Answer:
        """Join, coming back with the id that was handed out where that is asked for."""
        self.start_join(version=version, **fields)
        answer = self.finish()
        if answer.error_code is ErrorCode.MEMBER_ID_REQUIRED:
            self.start_join(version=version, **fields)
            answer = self.finish()
        return self.lab.plain(answer)

    def start_sync(self, *assigned: tuple[str, bytes], **fields: Any) -> None:
        assignments = tuple(SyncGroupRequestAssignment(member_id=name, assignment=data) for name, data in assigned)
        given = {"generation_id": self.generation_id, "member_id": self.member_id}
        request = SyncGroupRequest(
            group_id=self.group,
            assignments=assignments,
            **(given | {"protocol_type": "consumer", "protocol_name": "range"} | fields),
        )
        self.start(ApiKey.SYNC_GROUP, request)

    def sync(self, *assigned: tuple[str, bytes], **fields: Any) -> Answer:
        self.start_sync(*assigned, **fields)
        return self.lab.plain(self.finish())

    def heartbeat(self, **fields: Any) -> Answer:
        given = {"generation_id": self.generation_id, "member_id": self.member_id}
        self.start(ApiKey.HEARTBEAT, HeartbeatRequest(group_id=self.group, **(given | fields)))
        return self.lab.plain(self.finish())

    def leave(self, *, version: int | None = None) -> Answer:
        identity = MemberIdentity(member_id=self.member_id)
        request = LeaveGroupRequest(group_id=self.group, member_id=self.member_id, members=(identity,))
        self.start(ApiKey.LEAVE_GROUP, request, version=version)
        return self.lab.plain(self.finish())

    def await_rebalance(self) -> Answer:
        """Heartbeat until the group rebalances: another's join is under way on another connection."""
        for _ in range(500):
            answer = self.heartbeat()
            if answer:
                return answer
            time.sleep(0.01)
        return answer


def described(lab: Lab, group: str, *, version: int = 6) -> Answer:
    return lab.ask(ApiKey.DESCRIBE_GROUPS, DescribeGroupsRequest(groups=(group,)), version=version)


def stable(lab: Lab, stem: str, *topics: str) -> Member:
    """A group of one member that has its assignment."""
    member = Member(lab, lab.name(stem))
    protocol = JoinGroupRequestProtocol(name="range", metadata=subscription(*topics or ("some-topic",)))
    member.join(protocols=(protocol,))
    member.sync((member.member_id, b"all"))
    return member


@probe(each=versions(ApiKey.FIND_COORDINATOR))
def find_coordinator(lab: Lab, version: int) -> Answer:
    def find(*keys: str, kind: int = 0) -> Answer:
        if version >= 4:
            request = FindCoordinatorRequest(coordinator_keys=keys, key_type=kind)
        else:
            request = FindCoordinatorRequest(key=keys[0], key_type=kind)
        return lab.ask(ApiKey.FIND_COORDINATOR, request, version=version)

    told = {"group": find(lab.name("g")), "empty": find("")}
    if version >= 1:
        told |= {"unknown type": find("x", kind=9), "negative type": find("x", kind=-1)}
    if version >= 4:
        told |= {"two": find(lab.name("g"), lab.name("h")), "twice": find(lab.name("g"), lab.name("g")), "none": find()}
    return told


@probe(each=versions(ApiKey.JOIN_GROUP))
def join_alone(lab: Lab, version: int) -> Answer:
    member = Member(lab, lab.name(f"alone-{version}"))
    member.start_join(version=version)
    first = lab.plain(member.finish())
    return [first, member.join(version=version) if "error_code" in first else None, member.leave()]


JOINS: dict[str, dict[str, Any]] = {
    "session too short": {"session_timeout_ms": 5999},
    "session at the least": {"session_timeout_ms": 6000},
    "session at the most": {"session_timeout_ms": 1_800_000},
    "session too long": {"session_timeout_ms": 1_800_001},
    "session negative": {"session_timeout_ms": -1},
    "rebalance negative": {"rebalance_timeout_ms": -1},
    "no protocols": {"protocols": ()},
    "no protocol type": {"protocol_type": ""},
    "other protocol type": {"protocol_type": "connect"},
    "protocol twice": {"protocols": (RANGE, RANGE)},
    "unknown member": {"member_id": "nobody"},
    "static member": {"group_instance_id": "one"},
    "static with an id": {"group_instance_id": "one", "member_id": "nobody"},
    "empty instance id": {"group_instance_id": ""},
    "odd instance id": {"group_instance_id": "a b"},
    "long instance id": {"group_instance_id": "x" * 250},
}


@probe(each=list(JOINS))
def first_join(lab: Lab, kind: str) -> Answer:
    group = lab.name("join-" + kind.replace(" ", "-"))
    answer = lab.ask(ApiKey.JOIN_GROUP, join_request(group, **JOINS[kind]))
    if "error_code" in answer:
        return answer  # whether an empty group is seen at once is a matter of luck
    return [answer, described(lab, group)]


@probe()
def life_of_a_group(lab: Lab) -> Answer:
    """Two members come and go; every answer on the way."""
    group = lab.name("life")
    one, two = Member(lab, group, client_id="one"), Member(lab, group, client_id="two")
    told = [["one joins", one.join(protocols=(RANGE, ROUND))]]
    told += [["before the sync", described(lab, group)]]
    told += [["heartbeat before the sync", one.heartbeat()]]
    told += [["one syncs", one.sync((one.member_id, b"one-alone"))]]
    told += [["stable", described(lab, group)]]
    told += [["heartbeat", one.heartbeat()]]
    told += [["syncs again", one.sync()]]
    two.start_join(protocols=(ROUND, RANGE))
    first = two.finish()
    two.start_join(protocols=(ROUND, RANGE))
    told += [["two is given an id", lab.plain(first)]]
    told += [["one hears of it", one.await_rebalance()]]
    told += [["sync in between", one.sync((one.member_id, b"late"))]]
    told += [["rebalancing", described(lab, group)]]
    told += [["one joins again", one.join(protocols=(RANGE, ROUND))], ["two joined", lab.plain(two.finish())]]
    two.start_sync()
    told += [["heartbeat before the leader's sync", one.heartbeat()]]
    told += [["one syncs", one.sync((one.member_id, b"half-1"), (two.member_id, b"half-2"))]]
    told += [["two synced", lab.plain(two.finish())], ["both", described(lab, group)]]
    told += [["two joins unchanged", two.join(protocols=(ROUND, RANGE))]]
    told += [["still stable", described(lab, group)]]
    told += [["old generation", one.heartbeat(generation_id=1)], ["future generation", one.heartbeat(generation_id=9)]]
    told += [["other member", one.heartbeat(member_id="nobody")], ["no member", one.heartbeat(member_id="")]]
    told += [["sync, old generation", one.sync(generation_id=1)]]
    told += [["sync, other protocol", one.sync(protocol_name="sticky")]]
    told += [["sync, other type", one.sync(protocol_type="connect")]]
    told += [["two leaves", two.leave()], ["one hears of it", one.await_rebalance()]]
    told += [["one joins again", one.join()], ["one syncs", one.sync((one.member_id, b"all"))]]
    told += [["one leaves", one.leave()], ["leaves twice", one.leave()], ["empty", described(lab, group)]]
    told += [["heartbeat after leaving", one.heartbeat()]]
    return told


@probe()
def join_with_what_the_others_lack(lab: Lab) -> Answer:
    member = stable(lab, "protocols")
    other = Member(lab, member.group)
    sticky = JoinGroupRequestProtocol(name="sticky", metadata=subscription("some-topic"))
    return [other.join(protocols=(sticky,)), other.join(protocol_type="connect"), other.join(protocols=())]


@probe()
def leader_joins_again(lab: Lab) -> Answer:
    """That starts a rebalance even with nothing changed; a follower's does not."""
    member = stable(lab, "leader-again")
    return [member.join(), described(lab, member.group)]


@probe()
def static_member_comes_back(lab: Lab) -> Answer:
    group = lab.name("static")
    first = Member(lab, group)
    told = [first.join(group_instance_id="s1"), first.sync((first.member_id, b"all"), group_instance_id="s1")]
    second = Member(lab, group)
    told += [["back", second.join(group_instance_id="s1"), first.member_id != second.member_id]]
    told += [["state", described(lab, group)]]
    told += [["old one's heartbeat", first.heartbeat(group_instance_id="s1")]]
    told += [["old one's sync", first.sync(group_instance_id="s1")]]
    told += [["old one without the instance", first.heartbeat()]]
    told += [["new one's heartbeat", second.heartbeat(group_instance_id="s1")]]
    told += [["sync", second.sync(group_instance_id="s1")]]
    other = JoinGroupRequestProtocol(name="range", metadata=subscription("other-topic"))
    third = Member(lab, group)
    told += [["with another subscription", third.join(group_instance_id="s1", protocols=(other,))]]
    told += [["state", described(lab, group)]]
    return told


@probe(each=versions(ApiKey.LEAVE_GROUP))
def leave(lab: Lab, version: int) -> Answer:
    member = stable(lab, f"leave-{version}")

    def ask(*members: MemberIdentity, group: str = member.group) -> Answer:
        single = members[0].member_id if members else ""
        request = LeaveGroupRequest(group_id=group, member_id=single, members=members)
        return lab.ask(ApiKey.LEAVE_GROUP, request, version=version)

    stranger = MemberIdentity(member_id="nobody")
    told = {"stranger": ask(stranger), "unknown group": ask(stranger, group=lab.name("no-group"))}
    if version >= 3:
        told |= {
            "no members": ask(),
            "unknown instance": ask(MemberIdentity(group_instance_id="nobody")),
            "wrong instance": ask(MemberIdentity(member_id=member.member_id, group_instance_id="nobody")),
            "two": ask(stranger, MemberIdentity(member_id=member.member_id)),
        }
    else:
        told |= {"member": ask(MemberIdentity(member_id=member.member_id))}
    return told | {"state": described(lab, member.group)}


@probe()
def leave_by_instance(lab: Lab) -> Answer:
    """As an administrator removes static members: without their member ids."""
    member = Member(lab, lab.name("leave-instance"))
    member.join(group_instance_id="s1")
    member.sync((member.member_id, b"all"), group_instance_id="s1")
    request = LeaveGroupRequest(group_id=member.group, members=(MemberIdentity(group_instance_id="s1"),))
    return [lab.ask(ApiKey.LEAVE_GROUP, request), described(lab, member.group)]


@probe()
def requests_of_nobody(lab: Lab) -> Answer:
    """To a group that does not exist, and with an empty group id."""
    told = []
    for group in (lab.name("no-such-group"), ""):
        sync = SyncGroupRequest(
            group_id=group, generation_id=1, member_id="m", protocol_type="consumer", protocol_name="range"
        )
        told += [
            lab.ask(ApiKey.HEARTBEAT, HeartbeatRequest(group_id=group, generation_id=1, member_id="m")),
            lab.ask(ApiKey.SYNC_GROUP, sync),
            lab.ask(ApiKey.LEAVE_GROUP, LeaveGroupRequest(group_id=group, members=(MemberIdentity(member_id="m"),))),
        ]
    return told


@probe(each=versions(ApiKey.DESCRIBE_GROUPS))
def describe_groups(lab: Lab, version: int) -> Answer:
    member = stable(lab, f"described-{version}")
    told = {
        "stable": described(lab, member.group, version=version),
        "unknown": described(lab, lab.name("no-such-group"), version=version),
    }
    member.leave()
    told["empty"] = described(lab, member.group, version=version)
    if version >= 3:
        request = DescribeGroupsRequest(groups=(member.group,), include_authorized_operations=True)
        told["operations"] = lab.ask(ApiKey.DESCRIBE_GROUPS, request, version=version)
    return told


@probe(each=versions(ApiKey.LIST_GROUPS))
def list_groups(lab: Lab, version: int) -> Answer:
    member = stable(lab, f"listed-{version}")

    def own(**fields: Any) -> Answer:
        answer = lab.call(ApiKey.LIST_GROUPS, ListGroupsRequest(**fields), version=version)
        return [answer.error_code, [group for group in answer.groups if group.group_id == member.group]]

    told = {"all": own()}
    if version >= 4:
        told |= {
            f"state {state}": own(states_filter=(state,)) for state in ("Stable", "stable", "Empty", "nonsense", "")
        }
        told |= {"states": own(states_filter=("Empty", "Stable"))}
    if version >= 5:
        told |= {f"type {kind}": own(types_filter=(kind,)) for kind in ("classic", "Classic", "consumer", "nonsense")}
    member.leave()
    return told | {"after leaving": own()}


@probe(each=versions(ApiKey.DELETE_GROUPS))
def delete_groups(lab: Lab, version: int) -> Answer:
    member = stable(lab, f"deleted-{version}")

    def delete(*groups: str) -> Answer:
        return lab.ask(ApiKey.DELETE_GROUPS, DeleteGroupsRequest(groups_names=groups), version=version)

    told = [["in use", delete(member.group)], ["leaves", member.leave()]]
    told += [["twice and unknown", delete(member.group, member.group, lab.name("no-such-group"))]]
    return [*told, ["again", delete(member.group)], ["described", described(lab, member.group)]]
