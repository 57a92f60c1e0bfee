"""SHELL. What the describing APIs of classic, consumer and share groups tell, in one form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from ottla.client.core.assignors import MalformedSubscription, decode_assignment, decode_subscription
from ottla.client.network import Network
from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.consumer_group_describe import ConsumerGroupDescribeRequest, Member
from ottla.protocol.messages.describe_groups import DescribedGroup, DescribeGroupsRequest
from ottla.protocol.messages.share_group_describe import ShareGroupDescribeRequest
from ottla.protocol.versions import ApiKey

CLASSIC: Final = "classic"
CONSUMER: Final = "consumer"
SHARE: Final = "share"

MEMBER_UNKNOWN: Final = -1
MEMBER_CLASSIC: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMember:
    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    topics: tuple[str, ...]
    assignment: tuple[TopicPartition, ...]
    """What the member has now."""
    topic_regex: str | None = None
    """Of consumer groups: the regular expression by which the member subscribes, beside `topics`."""
    rack: str | None = None
    epoch: int | None = None
    """Of consumer and share groups: below the group's assignment epoch until the member has its target."""
    target: tuple[TopicPartition, ...] | None = None
    """Of consumer groups: what the member shall have; like `assignment` when it has arrived."""
    by_classic_protocol: bool | None = None
    """Of consumer groups: whether the member speaks the classic protocol. None where the broker does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDescription:
    group_id: str
    kind: str
    """classic, consumer or share."""
    state: str
    protocol_type: str
    assignor: str
    coordinator_id: int
    members: tuple[GroupMember, ...]
    epoch: int | None = None
    """Of consumer and share groups: raised by each change of members, subscriptions or topics (KIP-848)."""
    assignment_epoch: int | None = None
    """Of consumer and share groups: the epoch of the group that the targets were computed for."""


async def describe_group(network: Network, node_id: int, group_id: str) -> GroupDescription:
    """Describe a group of whichever type, at its coordinator.

    Each API knows the groups of its own type alone. One that the broker does not have is passed over.

    Raises: KafkaError (GROUP_ID_NOT_FOUND, what else the coordinator says).
    """
    response = await network.send(node_id, ApiKey.DESCRIBE_GROUPS, DescribeGroupsRequest(groups=(group_id,)))
    (classic,) = response.groups
    if classic.error_code is ErrorCode.NONE and classic.group_state != "Dead":
        return _classic(classic, node_id)
    if classic.error_code not in (ErrorCode.NONE, ErrorCode.GROUP_ID_NOT_FOUND):
        raise KafkaError(classic.error_code, classic.error_message)
    requests: tuple[tuple[str, ApiKey, Any], ...] = (
        (CONSUMER, ApiKey.CONSUMER_GROUP_DESCRIBE, ConsumerGroupDescribeRequest(group_ids=(group_id,))),
        (SHARE, ApiKey.SHARE_GROUP_DESCRIBE, ShareGroupDescribeRequest(group_ids=(group_id,))),
    )
    for kind, api, request in requests:
        try:
            (group,) = (await network.send(node_id, api, request)).groups
        except KafkaError as error:
            if error.code is ErrorCode.UNSUPPORTED_VERSION:
                continue
            raise
        if group.error_code is ErrorCode.NONE:
            return _modern(group, kind, node_id)
        if group.error_code not in (ErrorCode.GROUP_ID_NOT_FOUND, ErrorCode.UNSUPPORTED_VERSION):
            raise KafkaError(group.error_code, group.error_message)
    raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, classic.error_message or f"Group {group_id} not found.")


def _classic(group: DescribedGroup, node_id: int) -> GroupDescription:
    return GroupDescription(
        group_id=group.group_id,
        kind=CLASSIC,
        state=group.group_state,
        protocol_type=group.protocol_type,
        assignor=group.protocol_data,
        coordinator_id=node_id,
        members=tuple(
            GroupMember(
                member_id=m.member_id,
                group_instance_id=m.group_instance_id,
                client_id=m.client_id,
                client_host=m.client_host,
                topics=_topics(m.member_metadata),
                assignment=_assignment(m.member_assignment),
            )
            for m in group.members
        ),
    )


def _modern(group: Any, kind: str, node_id: int) -> GroupDescription:
    return GroupDescription(
        group_id=group.group_id,
        kind=kind,
        state=group.group_state,
        protocol_type=kind,
        assignor=group.assignor_name,
        coordinator_id=node_id,
        epoch=group.group_epoch,
        assignment_epoch=group.assignment_epoch,
        members=tuple(
            GroupMember(
                member_id=m.member_id,
                group_instance_id=getattr(m, "instance_id", None),  # members of share groups have none
                client_id=m.client_id,
                client_host=m.client_host,
                topics=tuple(m.subscribed_topic_names),
                assignment=tuple(_partitions(m.assignment.topic_partitions)),
                rack=m.rack_id,
                epoch=m.member_epoch,
                **(_of_consumer(m) if kind == CONSUMER else {}),
            )
            for m in group.members
        ),
    )


def _of_consumer(member: Member) -> dict[str, Any]:
    return {
        "topic_regex": member.subscribed_topic_regex or None,
        "target": tuple(_partitions(member.target_assignment.topic_partitions)),
        "by_classic_protocol": None if member.member_type == MEMBER_UNKNOWN else member.member_type == MEMBER_CLASSIC,
    }


def _partitions(topics: Iterable[Any]) -> Iterable[TopicPartition]:
    return sorted(TopicPartition(topic.topic_name, i) for topic in topics for i in topic.partitions)


def _topics(metadata: bytes) -> tuple[str, ...]:
    """A foreign protocol type has metadata of its own: nothing is shown of it."""
    try:
        return tuple(decode_subscription(metadata)) if metadata else ()
    except MalformedSubscription:
        return ()


def _assignment(data: bytes) -> tuple[TopicPartition, ...]:
    try:
        return tuple(decode_assignment(data))
    except MalformedSubscription:
        return ()
