"""The APIs of groups: membership, offsets, and what administrators ask.

What is decided here is what the coordinator's machine cannot know (which topics exist, who leads what) and how an
error is put into each API's response; the rest is the machine's.

Source: Kafka's `KafkaApis` and `GroupCoordinatorService`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from ottla.broker.context import RequestContext
from ottla.broker.handlers.entries import merged
from ottla.broker.later import Get, Later, finished
from ottla.broker.standing_commits import Committing
from ottla.broker.standing_heartbeats import Beating
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.machine import GroupMachine
from ottla.coordinator.group.offsets import commit_error
from ottla.coordinator.shard import Instant, Outcome
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.delete_groups import DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse
from ottla.protocol.messages.describe_groups import DescribedGroup, DescribeGroupsRequest, DescribeGroupsResponse
from ottla.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupResponse
from ottla.protocol.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse
from ottla.protocol.messages.list_groups import ListedGroup, ListGroupsRequest, ListGroupsResponse
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from ottla.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from ottla.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupResponse
from ottla.protocol.versions import ApiKey

if TYPE_CHECKING:
    from ottla.broker.group_coordinator import GroupCoordinator

NO_OPERATIONS: Final = -(2**31)
GROUP_OPERATIONS: Final = sum(1 << bit for bit in (3, 6, 8, 10, 11))
"""Everything that can be done to a group: the answer without an authorizer (bits are Kafka's `AclOperation`)."""

_NULLABLE_PROTOCOL_NAME_VERSION: Final = 7
_MANDATORY_PROTOCOL_VERSION: Final = 5
_GROUPS_VERSION: Final = 8
_TOPIC_IDS_VERSION: Final = 10


def _coordinator(context: RequestContext) -> GroupCoordinator:
    return cast("GroupCoordinator", context.broker.coordinator)


def caller_of(context: RequestContext, token: int, *, is_named: bool = False) -> Caller:
    """Who asks, for the machine. A member that names itself (`is_named`) needs no name from here."""
    return Caller(
        token=token,
        api_version=context.version,
        client_id=context.client_id or "",
        client_host=f"/{context.connection.peer[0]}",
        unique_id="" if is_named else str(uuid.uuid4()),
    )


def _ask(
    context: RequestContext,
    group_id: str,
    decide: Callable[[GroupMachine, Caller, Instant], Outcome],
    *,
    is_named: bool = True,
) -> object | Later:
    """Let the machine of the group's partition decide. `is_named`: see `caller_of`. Raises: KafkaError."""
    coordinator = _coordinator(context)
    return coordinator.runtime.ask_quickly(
        coordinator.partition_for(group_id),
        lambda machine, token, now: decide(machine, caller_of(context, token, is_named=is_named), now),
    )


async def _ask_and_wait(
    context: RequestContext, group_id: str, decide: Callable[[GroupMachine, Caller, Instant], Outcome]
) -> Any:
    """As `_ask`, for handlers that wait for more than one thing. Raises: KafkaError."""
    found = _ask(context, group_id, decide)
    return await found.wait() if isinstance(found, Later) else found


# Membership


def handle_join_group(context: RequestContext, request: JoinGroupRequest) -> JoinGroupResponse | Later:
    # An empty name is null where a name can be null, and the other way round.
    no_name = None if context.version >= _NULLABLE_PROTOCOL_NAME_VERSION else ""

    def finish(get: Get) -> JoinGroupResponse:
        try:
            response = cast(JoinGroupResponse, get())
        except KafkaError as error:
            response = JoinGroupResponse(error_code=error.code)
        return response if response.protocol_name else replace(response, protocol_name=no_name)

    def ask() -> object | Later:
        return _ask(
            context,
            request.group_id,
            lambda machine, caller, now: machine.membership.join(request, caller, now),
            is_named=bool(request.member_id),
        )

    return finished(ask, finish)


def handle_sync_group(context: RequestContext, request: SyncGroupRequest) -> SyncGroupResponse | Later:
    if context.version >= _MANDATORY_PROTOCOL_VERSION and (
        request.protocol_type is None or request.protocol_name is None
    ):
        return SyncGroupResponse(error_code=ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    return cast(
        "SyncGroupResponse | Later",
        _ask(context, request.group_id, lambda machine, caller, now: machine.membership.sync(request, caller, now)),
    )


def handle_heartbeat(context: RequestContext, request: HeartbeatRequest) -> HeartbeatResponse:
    coordinator = _coordinator(context)

    def beat(machine: GroupMachine, now: Instant) -> ErrorCode:
        membership = machine.membership
        error = membership.heartbeat(
            request.group_id, request.member_id, request.group_instance_id, request.generation_id, now
        )
        if error is ErrorCode.NONE and membership.is_settled(request.group_id):
            context.stands = Beating(partition, request.group_id, request.member_id)
        return error

    try:
        partition = coordinator.partition_for(request.group_id)
        error = coordinator.runtime.look(partition, beat)
    except KafkaError as failure:
        # Members get a whole session when loading is over: no reason to alarm them before.
        is_loading = failure.code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        error = ErrorCode.NONE if is_loading else failure.code
    return HeartbeatResponse(error_code=error)


def handle_leave_group(context: RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse | Later:
    return cast(
        "LeaveGroupResponse | Later",
        _ask(context, request.group_id, lambda machine, caller, now: machine.membership.leave(request, caller, now)),
    )


# Offsets


def handle_offset_commit(context: RequestContext, request: OffsetCommitRequest) -> OffsetCommitResponse | Later:
    image = context.broker.metadata.image
    refused: list[OffsetCommitResponseTopic] = []
    accepted: list[OffsetCommitRequestTopic] = []
    for asked in request.topics:
        if context.version >= _TOPIC_IDS_VERSION:
            topic = None if asked.topic_id is None else image.topics.get(asked.topic_id)
            missing = ErrorCode.UNKNOWN_TOPIC_ID
        else:
            topic = image.topic(asked.name)
            missing = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        existing = {} if topic is None else topic.partitions
        error = missing if topic is None else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        unknown = [p.partition_index for p in asked.partitions if p.partition_index not in existing]
        if unknown or topic is None:
            refused.append(
                OffsetCommitResponseTopic(
                    name=asked.name,
                    topic_id=asked.topic_id,
                    partitions=tuple(
                        OffsetCommitResponsePartition(partition_index=p, error_code=error) for p in unknown
                    ),
                )
            )
        known = tuple(p for p in asked.partitions if p.partition_index in existing)
        if known:
            assert topic is not None
            accepted.append(OffsetCommitRequestTopic(name=topic.name, topic_id=topic.topic_id, partitions=known))

    def key(topic: OffsetCommitResponseTopic) -> object:
        return topic.topic_id if context.version >= _TOPIC_IDS_VERSION else topic.name

    if not accepted:
        return OffsetCommitResponse(topics=merged(refused, (), key))
    passed_on = OffsetCommitRequest(
        group_id=request.group_id,
        generation_id_or_member_epoch=request.generation_id_or_member_epoch,
        member_id=request.member_id,
        group_instance_id=request.group_instance_id,
        retention_time_ms=request.retention_time_ms,
        topics=tuple(accepted),
    )
    coordinator = _coordinator(context)

    def finish(get: Get) -> OffsetCommitResponse:
        try:
            response = cast(OffsetCommitResponse, get())
        except KafkaError as failure:
            response = commit_error(passed_on, failure.code)
        if not refused:
            if context.broker.metadata.image.topics is image.topics and _all_accepted(response):
                partition = coordinator.partition_for(request.group_id)
                caller = caller_of(context, 0, is_named=True)
                context.stands = Committing(partition, request, passed_on, caller)
            return response
        return OffsetCommitResponse(topics=merged(refused, response.topics, key))

    def ask() -> object | Later:
        return _ask(
            context, request.group_id, lambda machine, caller, now: machine.offsets.commit(passed_on, caller, now)
        )

    return finished(ask, finish)


def _all_accepted(response: OffsetCommitResponse) -> bool:
    return all(p.error_code is ErrorCode.NONE for t in response.topics for p in t.partitions)


async def handle_offset_fetch(context: RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse:
    if context.version >= _GROUPS_VERSION:
        groups = [await _fetch(context, group, is_stable=request.require_stable) for group in request.groups]
        return OffsetFetchResponse(groups=tuple(groups))
    topics = None
    if request.topics is not None:
        topics = tuple(
            OffsetFetchRequestTopics(name=t.name, partition_indexes=t.partition_indexes) for t in request.topics
        )
    asked = OffsetFetchRequestGroup(group_id=request.group_id, topics=topics)
    return _as_before_groups(context, await _fetch(context, asked, is_stable=request.require_stable))


def _as_before_groups(context: RequestContext, group: OffsetFetchResponseGroup) -> OffsetFetchResponse:
    """Versions before 8 are about one group, and version 1 has no place for its error but the partitions."""
    is_in_partitions = context.version < 2 and group.error_code is not ErrorCode.NONE

    def partition(p: OffsetFetchResponsePartitions) -> OffsetFetchResponsePartition:
        if is_in_partitions:
            return OffsetFetchResponsePartition(
                partition_index=p.partition_index, committed_offset=-1, metadata="", error_code=group.error_code
            )
        return OffsetFetchResponsePartition(
            partition_index=p.partition_index,
            committed_offset=p.committed_offset,
            committed_leader_epoch=p.committed_leader_epoch,
            metadata=p.metadata,
            error_code=p.error_code,
        )

    return OffsetFetchResponse(
        error_code=group.error_code,
        topics=tuple(
            OffsetFetchResponseTopic(name=t.name, partitions=tuple([partition(p) for p in t.partitions]))
            for t in group.topics
        ),
    )


async def _fetch(
    context: RequestContext, asked: OffsetFetchRequestGroup, *, is_stable: bool
) -> OffsetFetchResponseGroup:
    unknown: list[OffsetFetchResponseTopics] = []
    if asked.topics is not None:
        asked, unknown = _with_names_and_ids(context, asked)
    coordinator = _coordinator(context)
    try:
        partition = coordinator.partition_for(asked.group_id)
        if is_stable:
            answered = await _ask_and_wait(
                context, asked.group_id, lambda machine, caller, _: machine.offsets.fetch_stable(asked, caller)
            )
        else:
            answered = coordinator.runtime.look(partition, lambda machine, _: machine.offsets.fetch(asked))
    except KafkaError as failure:
        return _fetch_error(context, asked, failure.code)
    found = cast(OffsetFetchResponseGroup, answered)
    if context.version >= _TOPIC_IDS_VERSION and found.error_code is ErrorCode.NONE:
        topic_ids = context.broker.metadata.image.topic_ids
        topics = [replace(t, topic_id=topic_ids[t.name]) for t in found.topics if t.name in topic_ids]
        found = replace(found, topics=(*topics, *unknown))
    return found


def _with_names_and_ids(
    context: RequestContext, asked: OffsetFetchRequestGroup
) -> tuple[OffsetFetchRequestGroup, list[OffsetFetchResponseTopics]]:
    """Complete names by ids and the other way round; returns the answer for ids that do not exist beside."""
    image = context.broker.metadata.image
    if context.version < _TOPIC_IDS_VERSION:
        topic_ids = image.topic_ids
        return replace(asked, topics=tuple(replace(t, topic_id=topic_ids.get(t.name)) for t in asked.topics or ())), []
    known: list[OffsetFetchRequestTopics] = []
    unknown: list[OffsetFetchResponseTopics] = []
    for wanted in asked.topics or ():
        topic = None if wanted.topic_id is None else image.topics.get(wanted.topic_id)
        if topic is not None:
            known.append(replace(wanted, name=topic.name))
        else:
            unknown.append(_fetched_error(wanted, ErrorCode.UNKNOWN_TOPIC_ID))
    return replace(asked, topics=tuple(known)), unknown


def _fetched_error(wanted: OffsetFetchRequestTopics, error: ErrorCode) -> OffsetFetchResponseTopics:
    return OffsetFetchResponseTopics(
        name=wanted.name,
        topic_id=wanted.topic_id,
        partitions=tuple(
            OffsetFetchResponsePartitions(partition_index=p, committed_offset=-1, metadata="", error_code=error)
            for p in wanted.partition_indexes
        ),
    )


def _fetch_error(context: RequestContext, asked: OffsetFetchRequestGroup, error: ErrorCode) -> OffsetFetchResponseGroup:
    """The group's error. Version 1 puts it into the topics, which are repeated for that."""
    topics = asked.topics if context.version < 2 else None
    return OffsetFetchResponseGroup(
        group_id=asked.group_id,
        error_code=error,
        topics=tuple(_fetched_error(t, ErrorCode.NONE) for t in topics or ()),
    )


async def handle_offset_delete(context: RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse:
    image = context.broker.metadata.image
    refused: list[OffsetDeleteResponseTopic] = []
    accepted: list[OffsetDeleteRequestTopic] = []
    for asked in request.topics:
        topic = image.topic(asked.name)
        existing = {} if topic is None else topic.partitions
        unknown = tuple(
            OffsetDeleteResponsePartition(
                partition_index=p.partition_index, error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            )
            for p in asked.partitions
            if p.partition_index not in existing
        )
        if unknown or topic is None:
            refused.append(OffsetDeleteResponseTopic(name=asked.name, partitions=unknown))
        known = tuple(p for p in asked.partitions if p.partition_index in existing)
        if known:
            accepted.append(replace(asked, partitions=known))
    passed_on = replace(request, topics=tuple(accepted))
    response = cast(
        OffsetDeleteResponse,
        await _ask_and_wait(
            context, request.group_id, lambda machine, caller, _: machine.offsets.delete(passed_on, caller)
        ),
    )
    if response.error_code is not ErrorCode.NONE:
        return response
    return replace(response, topics=merged(refused, response.topics, lambda topic: topic.name))


# Administration


async def handle_describe_groups(context: RequestContext, request: DescribeGroupsRequest) -> DescribeGroupsResponse:
    coordinator = _coordinator(context)
    described = []
    for group_id in request.groups:
        try:
            group = coordinator.runtime.look(
                coordinator.partition_for(group_id),
                lambda machine, _, group_id=group_id: machine.directory.describe(  # type: ignore[misc]
                    group_id, api_version=context.version
                ),
            )
        except KafkaError as failure:
            group = DescribedGroup(group_id=group_id, error_code=failure.code)
        if request.include_authorized_operations and group.error_code is ErrorCode.NONE:
            group = replace(group, authorized_operations=GROUP_OPERATIONS)
        described.append(group)
    return DescribeGroupsResponse(groups=tuple(described))


async def handle_list_groups(context: RequestContext, request: ListGroupsRequest) -> ListGroupsResponse:
    runtime = _coordinator(context).runtime
    groups: list[ListedGroup] = []
    try:
        for partition in runtime.partitions():
            groups += runtime.look(
                partition, lambda machine, _: machine.directory.list(request.states_filter, request.types_filter)
            )
    except KafkaError as failure:
        return ListGroupsResponse(error_code=failure.code)
    return ListGroupsResponse(groups=tuple(groups))


async def handle_delete_groups(context: RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse:
    results: list[DeletableGroupResult] = []
    for group_id in dict.fromkeys(request.groups_names):
        try:
            error = await _forget_states(context, group_id)
            if error is not ErrorCode.NONE:
                results.append(DeletableGroupResult(group_id=group_id, error_code=error))
                continue
            results += await _ask_and_wait(
                context,
                group_id,
                lambda machine, caller, _, group_id=group_id: machine.directory.delete([group_id], caller),  # type: ignore[misc]
            )
        except KafkaError as failure:
            results.append(DeletableGroupResult(group_id=group_id, error_code=failure.code))
    return DeleteGroupsResponse(results=tuple(results))


async def _forget_states(context: RequestContext, group_id: str) -> ErrorCode:
    """Before a share group is deleted, have the share coordinator forget where it is. Raises: KafkaError."""
    coordinator = _coordinator(context)
    partition = coordinator.partition_for(group_id)
    if coordinator.runtime.look(partition, lambda machine, _: machine.table.shares.get(group_id)) is None:
        return ErrorCode.NONE
    return await context.broker.share_groups.forget(group_id, caller_of(context, 0))


HANDLERS: Final = {
    ApiKey.JOIN_GROUP: handle_join_group,
    ApiKey.SYNC_GROUP: handle_sync_group,
    ApiKey.HEARTBEAT: handle_heartbeat,
    ApiKey.LEAVE_GROUP: handle_leave_group,
    ApiKey.OFFSET_COMMIT: handle_offset_commit,
    ApiKey.OFFSET_FETCH: handle_offset_fetch,
    ApiKey.OFFSET_DELETE: handle_offset_delete,
    ApiKey.DESCRIBE_GROUPS: handle_describe_groups,
    ApiKey.LIST_GROUPS: handle_list_groups,
    ApiKey.DELETE_GROUPS: handle_delete_groups,
}
