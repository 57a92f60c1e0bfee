"""The APIs of consumer groups (KIP-848).

Source: Kafka's `KafkaApis` (handleConsumerGroupHeartbeat, handleConsumerGroupDescribe).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from ottla.broker.context import RequestContext
from ottla.broker.handlers.group import GROUP_OPERATIONS, caller_of
from ottla.broker.later import Later
from ottla.broker.standing_heartbeats import Beating
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.features import GROUP_VERSION_FEATURE
from ottla.protocol.messages.consumer_group_describe import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
    DescribedGroup,
)
from ottla.protocol.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)
from ottla.protocol.versions import ApiKey

if TYPE_CHECKING:
    from ottla.broker.group_coordinator import GroupCoordinator


def _is_enabled(context: RequestContext) -> bool:
    """Whether the cluster and this broker's configuration have consumer groups."""
    coordinator = cast("GroupCoordinator", context.broker.coordinator)
    level = context.broker.metadata.image.features.get(GROUP_VERSION_FEATURE, 0)
    return level > 0 and coordinator.serves_consumer_groups


def handle_consumer_group_heartbeat(
    context: RequestContext, request: ConsumerGroupHeartbeatRequest
) -> ConsumerGroupHeartbeatResponse | Later:
    if not _is_enabled(context):
        return ConsumerGroupHeartbeatResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
    coordinator = cast("GroupCoordinator", context.broker.coordinator)
    is_named = bool(request.member_id)
    partition = coordinator.partition_for(request.group_id)
    response = coordinator.runtime.ask_quickly(
        partition,
        lambda machine, token, now: machine.heartbeats.heartbeat(
            request, caller_of(context, token, is_named=is_named), now
        ),
    )
    if not isinstance(response, Later) and coordinator.runtime.look(
        partition, lambda machine, _: machine.heartbeats.is_settled(request, caller_of(context, 0, is_named=True))
    ):
        context.stands = Beating(partition, request.group_id, request.member_id)
    return cast("ConsumerGroupHeartbeatResponse | Later", response)


async def handle_consumer_group_describe(
    context: RequestContext, request: ConsumerGroupDescribeRequest
) -> ConsumerGroupDescribeResponse:
    coordinator = cast("GroupCoordinator", context.broker.coordinator)
    described = []
    for group_id in request.group_ids:
        try:
            if not _is_enabled(context):
                raise KafkaError(ErrorCode.UNSUPPORTED_VERSION)
            if not group_id:
                raise KafkaError(ErrorCode.INVALID_GROUP_ID)
            group = coordinator.runtime.look(
                coordinator.partition_for(group_id),
                lambda machine, _, group_id=group_id: machine.describe_consumers(group_id),  # type: ignore[misc]
            )
        except KafkaError as failure:
            group = DescribedGroup(group_id=group_id, error_code=failure.code)
        if request.include_authorized_operations and group.error_code is ErrorCode.NONE:
            group = replace(group, authorized_operations=GROUP_OPERATIONS)
        described.append(group)
    return ConsumerGroupDescribeResponse(groups=tuple(described))


HANDLERS: Final = {
    ApiKey.CONSUMER_GROUP_HEARTBEAT: handle_consumer_group_heartbeat,
    ApiKey.CONSUMER_GROUP_DESCRIBE: handle_consumer_group_describe,
}
