"""Each field wrong in turn: classic groups, their members and what administrators ask of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequestProtocol
from ottla.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity
from ottla.protocol.messages.list_groups import ListGroupsRequest
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe
from tests.golden.odd import odd
from tests.golden.probes.groups import RANGE, Member, described, join_request, stable, subscription

UNANSWERED = ["protocols twice"]
"""By Kafka, or with UNKNOWN_SERVER_ERROR."""


def stem_of(lab: Lab, name: str) -> str:
    return name.removesuffix(f"-{lab.run}")


@odd(ApiKey.FIND_COORDINATOR, most=3)
def coordinator(_lab: Lab, name: str) -> Any:
    return FindCoordinatorRequest(key=name)


@odd(ApiKey.FIND_COORDINATOR, stem="-batched", least=4)
def coordinators(_lab: Lab, name: str) -> Any:
    return FindCoordinatorRequest(coordinator_keys=(name,))


@odd(ApiKey.JOIN_GROUP, leave_out=UNANSWERED)
def first_join(_lab: Lab, name: str) -> Any:
    return dataclasses.replace(join_request(name), reason="because")


@odd(ApiKey.JOIN_GROUP, stem="-static", least=5, leave_out=UNANSWERED)
def first_join_of_a_static_member(_lab: Lab, name: str) -> Any:
    return join_request(name, group_instance_id="one")


@odd(ApiKey.JOIN_GROUP, stem="-again", least=5, leave_out=UNANSWERED)
def join_of_the_leader(lab: Lab, name: str) -> Any:
    member = stable(lab, stem_of(lab, name))
    return join_request(name, member_id=member.member_id, protocols=(RANGE,))


@odd(ApiKey.SYNC_GROUP)
def sync_of_the_leader(lab: Lab, name: str) -> Any:
    member = Member(lab, name)
    member.join()
    assignment = SyncGroupRequestAssignment(member_id=member.member_id, assignment=b"all")
    return SyncGroupRequest(
        group_id=name,
        generation_id=member.generation_id,
        member_id=member.member_id,
        protocol_type="consumer",
        protocol_name="range",
        assignments=(assignment,),
    )


@odd(ApiKey.SYNC_GROUP, stem="-again", least=3)
def sync_when_stable(lab: Lab, name: str) -> Any:
    member = stable(lab, stem_of(lab, name))
    return SyncGroupRequest(
        group_id=name,
        generation_id=member.generation_id,
        member_id=member.member_id,
        protocol_type="consumer",
        protocol_name="range",
    )


@odd(ApiKey.HEARTBEAT)
def heartbeat(lab: Lab, name: str) -> Any:
    member = stable(lab, stem_of(lab, name))
    return HeartbeatRequest(group_id=name, generation_id=member.generation_id, member_id=member.member_id)


@odd(ApiKey.HEARTBEAT, stem="-static", least=3)
def heartbeat_of_a_static_member(lab: Lab, name: str) -> Any:
    member = Member(lab, name)
    member.join(group_instance_id="s1")
    member.sync((member.member_id, b"all"), group_instance_id="s1")
    return HeartbeatRequest(
        group_id=name, generation_id=member.generation_id, member_id=member.member_id, group_instance_id="s1"
    )


@odd(ApiKey.LEAVE_GROUP, most=2)
def leave(lab: Lab, name: str) -> Any:
    return LeaveGroupRequest(group_id=name, member_id=stable(lab, stem_of(lab, name)).member_id)


@odd(ApiKey.LEAVE_GROUP, stem="-batched", least=3)
def leave_of_a_static_member(lab: Lab, name: str) -> Any:
    member = Member(lab, name)
    member.join(group_instance_id="s1")
    member.sync((member.member_id, b"all"), group_instance_id="s1")
    identity = MemberIdentity(member_id=member.member_id, group_instance_id="s1", reason="because")
    return LeaveGroupRequest(group_id=name, members=(identity,))


@odd(ApiKey.DESCRIBE_GROUPS, leave_out=["groups / empty"])  # other probes commit for it
def description(lab: Lab, name: str) -> Any:
    stable(lab, stem_of(lab, name))
    return DescribeGroupsRequest(groups=(name,))


@odd(ApiKey.DELETE_GROUPS, leave_out=["groups_names / empty"])
def deletion(lab: Lab, name: str) -> Any:
    stable(lab, stem_of(lab, name)).leave()
    return DeleteGroupsRequest(groups_names=(name,))


def how_many(_lab: Lab, answer: Answer) -> Answer:
    """All the cluster's groups are listed."""
    if isinstance(answer, dict) and answer.get("groups"):
        answer["groups"] = "some"
    return answer


@odd(ApiKey.LIST_GROUPS, reduce=how_many)
def listing(lab: Lab, name: str) -> Any:
    stable(lab, stem_of(lab, name))
    return ListGroupsRequest(states_filter=("Stable",), types_filter=("classic",))


@probe()
def static_members_in_disagreement(lab: Lab) -> Answer:
    """Requests that name an instance with another's member id, or none."""
    group = lab.name("odd-static")
    member = Member(lab, group)
    member.join(group_instance_id="s1")
    member.sync((member.member_id, b"all"), group_instance_id="s1")

    def identity(member_id: str, instance: str | None) -> Answer:
        """Heartbeat, sync, join and leave under it."""
        fields: dict[str, Any] = {"member_id": member_id, "group_instance_id": instance}
        leaving = LeaveGroupRequest(group_id=group, members=(MemberIdentity(**fields),))
        return [
            member.heartbeat(**fields),
            member.sync(**fields),
            lab.ask(ApiKey.JOIN_GROUP, join_request(group, **fields)).get("error_code"),
            lab.ask(ApiKey.LEAVE_GROUP, leaving),
        ]

    return {
        "another's id": identity("nobody", "s1"),
        "unknown instance": identity(member.member_id, "s2"),
        "unknown both": identity("nobody", "s2"),
        "neither": identity("", None),
        "empty instance": identity(member.member_id, ""),
        "described": described(lab, group),
    }


@probe()
def odd_subscriptions(lab: Lab) -> Answer:
    """Consumers' metadata that is no subscription. (To some of it Kafka never answers.)"""
    told = {}
    for what, metadata in {
        "nothing": b"",
        "half": subscription("t")[:3],
        "negative version": b"\xff\xff" + subscription("t")[2:],
        "future": b"\x00\x63" + subscription("t")[2:] + b"more",
    }.items():
        group = lab.name(f"odd-subscription-{what.replace(' ', '-')}")
        member = Member(lab, group)
        protocol = JoinGroupRequestProtocol(name="range", metadata=metadata)
        told[what] = [
            member.join(protocols=(protocol,)).get("error_code"),
            member.sync((member.member_id, metadata)),
            described(lab, group),
            member.leave(),
        ]
    return told
