"""Share groups (KIP-932): ShareGroupHeartbeat, ShareGroupDescribe, and the offsets of share groups.

Source: Kafka's `KafkaApis` (handleShareGroupHeartbeat and its neighbours).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from ottla.broker.context import RequestContext
from ottla.broker.handlers.group import GROUP_OPERATIONS, caller_of
from ottla.broker.later import Later
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.features import SHARE_VERSION_FEATURE
from ottla.protocol.messages.alter_share_group_offsets import (
    AlterShareGroupOffsetsRequest,
    AlterShareGroupOffsetsResponse,
)
from ottla.protocol.messages.delete_share_group_offsets import (
    DeleteShareGroupOffsetsRequest,
    DeleteShareGroupOffsetsResponse,
)
from ottla.protocol.messages.describe_share_group_offsets import (
    DescribeShareGroupOffsetsRequest,
    DescribeShareGroupOffsetsResponse,
    DescribeShareGroupOffsetsResponseGroup,
)
from ottla.protocol.messages.share_group_describe import (
    DescribedGroup,
    ShareGroupDescribeRequest,
    ShareGroupDescribeResponse,
)
from ottla.protocol.messages.share_group_heartbeat import ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse
from ottla.protocol.versions import ApiKey

if TYPE_CHECKING:
    from ottla.broker.group_coordinator import GroupCoordinator


NO_GROUP: Final = "There is no group id."


def is_share_enabled(context: RequestContext) -> bool:
    """Whether the cluster has share groups."""
    return context.broker.metadata.image.features.get(SHARE_VERSION_FEATURE, 0) > 0


def handle_share_group_heartbeat(
    context: RequestContext, request: ShareGroupHeartbeatRequest
) -> ShareGroupHeartbeatResponse | Later:
    if not is_share_enabled(context):
        return ShareGroupHeartbeatResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
    coordinator = cast("GroupCoordinator", context.broker.coordinator)
    is_named = bool(request.member_id)
    response = coordinator.runtime.ask_quickly(
        coordinator.partition_for(request.group_id),
        lambda machine, token, now: machine.share_heartbeats.heartbeat(
            request, caller_of(context, token, is_named=is_named), now
        ),
    )
    return cast("ShareGroupHeartbeatResponse | Later", response)


async def handle_share_group_describe(
    context: RequestContext, request: ShareGroupDescribeRequest
) -> ShareGroupDescribeResponse:
    coordinator = cast("GroupCoordinator", context.broker.coordinator)
    described = []
    for group_id in request.group_ids:
        try:
            if not is_share_enabled(context):
                raise KafkaError(ErrorCode.UNSUPPORTED_VERSION)
            if not group_id:
                raise KafkaError(ErrorCode.INVALID_GROUP_ID)
            group = coordinator.runtime.look(
                coordinator.partition_for(group_id),
                lambda machine, _, group_id=group_id: machine.share_states.describe(group_id),  # type: ignore[misc]
            )
        except KafkaError as failure:
            group = DescribedGroup(group_id=group_id, error_code=failure.code)
        if request.include_authorized_operations and group.error_code is ErrorCode.NONE:
            group = replace(group, authorized_operations=GROUP_OPERATIONS)
        described.append(group)
    return ShareGroupDescribeResponse(groups=tuple(described))


async def handle_describe_share_group_offsets(
    context: RequestContext, request: DescribeShareGroupOffsetsRequest
) -> DescribeShareGroupOffsetsResponse:
    described = []
    for asked in request.groups:
        try:
            if not is_share_enabled(context):
                raise KafkaError(ErrorCode.UNSUPPORTED_VERSION)
            described.append(await context.broker.share_groups.describe_offsets(asked))
        except KafkaError as failure:
            described.append(DescribeShareGroupOffsetsResponseGroup(group_id=asked.group_id, error_code=failure.code))
    return DescribeShareGroupOffsetsResponse(groups=tuple(described))


async def handle_alter_share_group_offsets(
    context: RequestContext, request: AlterShareGroupOffsetsRequest
) -> AlterShareGroupOffsetsResponse:
    if not is_share_enabled(context):
        return AlterShareGroupOffsetsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
    if not request.group_id:
        return AlterShareGroupOffsetsResponse(error_code=ErrorCode.INVALID_GROUP_ID, error_message=NO_GROUP)
    return await context.broker.share_groups.alter_offsets(request, caller_of(context, 0))


async def handle_delete_share_group_offsets(
    context: RequestContext, request: DeleteShareGroupOffsetsRequest
) -> DeleteShareGroupOffsetsResponse:
    if not is_share_enabled(context):
        return DeleteShareGroupOffsetsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
    if not request.group_id:
        return DeleteShareGroupOffsetsResponse(error_code=ErrorCode.INVALID_GROUP_ID, error_message=NO_GROUP)
    return await context.broker.share_groups.delete_offsets(request, caller_of(context, 0))


HANDLERS: Final = {
    ApiKey.SHARE_GROUP_HEARTBEAT: handle_share_group_heartbeat,
    ApiKey.SHARE_GROUP_DESCRIBE: handle_share_group_describe,
    ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS: handle_describe_share_group_offsets,
    ApiKey.ALTER_SHARE_GROUP_OFFSETS: handle_alter_share_group_offsets,
    ApiKey.DELETE_SHARE_GROUP_OFFSETS: handle_delete_share_group_offsets,
}
