"""The steps that scenarios are made of: requests of the group APIs over named connections, and their answers.

Text that starts with a dollar sign stands for what an earlier answer contained (`keep`) or for what the player
provides: `$g` is a group id of its own, `$topic` a topic with two partitions and `$topic-id` its id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.describe_groups import DescribeGroupsRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity
from ottla.protocol.messages.list_groups import ListGroupsRequest
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from ottla.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from ottla.protocol.versions import ApiKey


@dataclass(frozen=True)
class Send:
    """Send a request; its answer is taken by `Receive`."""

    connection: str
    api: ApiKey
    version: int
    message: Any
    client_id: str | None = "client"


@dataclass(frozen=True)
class Receive:
    """Take the answer of a connection's last request, and keep fields of it under names."""

    connection: str
    keep: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wait:
    ms: int


Step: TypeAlias = Send | Receive | Wait
SETTLE = Wait(150)
"""Time for a request to be parked before the next one is sent on another connection."""
NOBODY = "client-00000000-0000-0000-0000-000000000000"


def ask(
    api: ApiKey, version: int, message: Any, *, on: str = "a", client_id: str | None = "client", **keep: str
) -> list[Step]:
    return [Send(on, api, version, message, client_id), Receive(on, keep)]


def subscription(*topics: str) -> bytes:
    return (
        b"\0\0"
        + len(topics).to_bytes(4, "big")
        + b"".join(len(t).to_bytes(2, "big") + t.encode() for t in topics)
        + b"\xff\xff\xff\xff"
    )


RANGE = {"range": subscription("golden")}


def join_request(
    member_id: str = "",
    *,
    group_id: str = "$g",
    using: Mapping[str, bytes] | list[tuple[str, bytes]] = RANGE,
    protocol_type: str = "consumer",
    session_timeout_ms: int = 30_000,
    rebalance_timeout_ms: int = 30_000,
    instance: str | None = None,
    reason: str | None = None,
) -> JoinGroupRequest:
    named = list(using.items()) if isinstance(using, Mapping) else using
    return JoinGroupRequest(
        group_id=group_id,
        member_id=member_id,
        protocol_type=protocol_type,
        protocols=tuple(JoinGroupRequestProtocol(name=n, metadata=m) for n, m in named),
        session_timeout_ms=session_timeout_ms,
        rebalance_timeout_ms=rebalance_timeout_ms,
        group_instance_id=instance,
        reason=reason,
    )


def begin_join(member_id: str = "", *, on: str = "a", version: int = 9, client_id: str | None = "client", **rest: Any):  # type: ignore[no-untyped-def]
    return [Send(on, ApiKey.JOIN_GROUP, version, join_request(member_id, **rest), client_id)]


def join(member_id: str = "", *, on: str = "a", version: int = 9, client_id: str | None = "client", **rest: Any):  # type: ignore[no-untyped-def]
    return [*begin_join(member_id, on=on, version=version, client_id=client_id, **rest), Receive(on)]


def get_id(name: str, *, on: str = "a", **rest: Any) -> list[Step]:
    return [*begin_join(on=on, **rest), Receive(on, {name: "member_id"})]


def begin_sync(
    member_id: str,
    generation_id: int,
    assignments: Mapping[str, bytes] | None = None,
    *,
    on: str = "a",
    version: int = 5,
    group_id: str = "$g",
    instance: str | None = None,
    protocol_type: str | None = "consumer",
    protocol_name: str | None = "range",
) -> list[Step]:
    message = SyncGroupRequest(
        group_id=group_id,
        generation_id=generation_id,
        member_id=member_id,
        group_instance_id=instance,
        protocol_type=protocol_type,
        protocol_name=protocol_name,
        assignments=tuple(
            SyncGroupRequestAssignment(member_id=m, assignment=a) for m, a in (assignments or {}).items()
        ),
    )
    return [Send(on, ApiKey.SYNC_GROUP, version, message)]


def sync(member_id: str, generation_id: int, *args: Any, on: str = "a", **rest: Any) -> list[Step]:
    return [*begin_sync(member_id, generation_id, *args, on=on, **rest), Receive(on)]


def heartbeat(
    member_id: str, generation_id: int, *, group_id: str = "$g", instance: str | None = None, version: int = 4
) -> list[Step]:
    message = HeartbeatRequest(
        group_id=group_id, generation_id=generation_id, member_id=member_id, group_instance_id=instance
    )
    return ask(ApiKey.HEARTBEAT, version, message, on="heart")


def leave(
    *members: str | tuple[str, str | None], group_id: str = "$g", version: int = 5, on: str = "leave"
) -> list[Step]:
    identities = tuple(
        MemberIdentity(member_id=m) if isinstance(m, str) else MemberIdentity(member_id=m[0], group_instance_id=m[1])
        for m in members
    )
    message = LeaveGroupRequest(group_id=group_id, members=identities)
    if version < 3:
        message = LeaveGroupRequest(group_id=group_id, member_id=identities[0].member_id)
    return ask(ApiKey.LEAVE_GROUP, version, message, on=on)


def commit(
    *offsets: tuple[int, int],
    member_id: str = "",
    generation_id: int = -1,
    group_id: str = "$g",
    topic: str = "$topic",
    topic_id: Any = None,
    instance: str | None = None,
    metadata: str | None = "note",
    leader_epoch: int = -1,
    retention_time_ms: int = -1,
    version: int = 9,
) -> list[Step]:
    message = OffsetCommitRequest(
        group_id=group_id,
        generation_id_or_member_epoch=generation_id,
        member_id=member_id,
        group_instance_id=instance,
        retention_time_ms=retention_time_ms,
        topics=(
            OffsetCommitRequestTopic(
                name="" if topic_id is not None else topic,
                topic_id=topic_id,
                partitions=tuple(
                    OffsetCommitRequestPartition(
                        partition_index=p,
                        committed_offset=o,
                        committed_metadata=metadata,
                        committed_leader_epoch=leader_epoch,
                    )
                    for p, o in offsets
                ),
            ),
        )
        if offsets
        else (),
    )
    return ask(ApiKey.OFFSET_COMMIT, version, message, on="commit")


def fetch(
    *partitions: int,
    version: int = 9,
    group_id: str = "$g",
    topic: str = "$topic",
    topic_id: Any = None,
    every: bool = False,
    stable: bool = False,
) -> list[Step]:
    if version < 8:
        old = OffsetFetchRequestTopic(name=topic, partition_indexes=partitions)
        message = OffsetFetchRequest(group_id=group_id, topics=None if every else (old,), require_stable=stable)
    else:
        new = OffsetFetchRequestTopics(
            name="" if topic_id is not None else topic, topic_id=topic_id, partition_indexes=partitions
        )
        message = OffsetFetchRequest(
            groups=(OffsetFetchRequestGroup(group_id=group_id, topics=None if every else (new,)),),
            require_stable=stable,
        )
    return ask(ApiKey.OFFSET_FETCH, version, message, on="fetch")


def delete_offsets(*partitions: int, group_id: str = "$g", topic: str = "$topic") -> list[Step]:
    message = OffsetDeleteRequest(
        group_id=group_id,
        topics=(
            OffsetDeleteRequestTopic(
                name=topic, partitions=tuple(OffsetDeleteRequestPartition(partition_index=p) for p in partitions)
            ),
        ),
    )
    return ask(ApiKey.OFFSET_DELETE, 0, message, on="admin")


def describe(*group_ids: str, version: int = 6, operations: bool = False) -> list[Step]:
    message = DescribeGroupsRequest(groups=group_ids or ("$g",), include_authorized_operations=operations)
    return ask(ApiKey.DESCRIBE_GROUPS, version, message, on="admin")


def list_groups(states: tuple[str, ...] = (), types: tuple[str, ...] = (), version: int = 5) -> list[Step]:
    message = ListGroupsRequest(states_filter=states, types_filter=types)
    return ask(ApiKey.LIST_GROUPS, version, message, on="admin")


def delete_groups(*group_ids: str, version: int = 2) -> list[Step]:
    return ask(ApiKey.DELETE_GROUPS, version, DeleteGroupsRequest(groups_names=group_ids or ("$g",)), on="admin")


def find(version: int, key_type: int, *keys: str) -> list[Step]:
    if version < 4:
        message = FindCoordinatorRequest(key=keys[0], key_type=key_type)
    else:
        message = FindCoordinatorRequest(coordinator_keys=keys, key_type=key_type)
    return ask(ApiKey.FIND_COORDINATOR, version, message, on="admin")
