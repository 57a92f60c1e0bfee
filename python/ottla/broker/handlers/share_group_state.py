"""The APIs of the share coordinator, for other brokers: initialise, read, write and delete what share groups have done.

Without an authorizer everybody may act for the cluster, as in Kafka.

Source: Kafka's `KafkaApis` (handleInitializeShareGroupStateRequest and its neighbours).
"""

from __future__ import annotations

from typing import Final

from ottla.broker.context import RequestContext
from ottla.protocol.messages.delete_share_group_state import DeleteShareGroupStateRequest, DeleteShareGroupStateResponse
from ottla.protocol.messages.initialize_share_group_state import (
    InitializeShareGroupStateRequest,
    InitializeShareGroupStateResponse,
)
from ottla.protocol.messages.read_share_group_state import ReadShareGroupStateRequest, ReadShareGroupStateResponse
from ottla.protocol.messages.read_share_group_state_summary import (
    ReadShareGroupStateSummaryRequest,
    ReadShareGroupStateSummaryResponse,
)
from ottla.protocol.messages.write_share_group_state import WriteShareGroupStateRequest, WriteShareGroupStateResponse
from ottla.protocol.versions import ApiKey


async def handle_initialize(
    context: RequestContext, request: InitializeShareGroupStateRequest
) -> InitializeShareGroupStateResponse:
    return await context.broker.share_coordinator.initialize_share_group_state(request)


async def handle_read(context: RequestContext, request: ReadShareGroupStateRequest) -> ReadShareGroupStateResponse:
    return await context.broker.share_coordinator.read_share_group_state(request)


async def handle_write(context: RequestContext, request: WriteShareGroupStateRequest) -> WriteShareGroupStateResponse:
    return await context.broker.share_coordinator.write_share_group_state(request)


async def handle_delete(
    context: RequestContext, request: DeleteShareGroupStateRequest
) -> DeleteShareGroupStateResponse:
    return await context.broker.share_coordinator.delete_share_group_state(request)


async def handle_summary(
    context: RequestContext, request: ReadShareGroupStateSummaryRequest
) -> ReadShareGroupStateSummaryResponse:
    return await context.broker.share_coordinator.read_share_group_state_summary(request)


HANDLERS: Final = {
    ApiKey.INITIALIZE_SHARE_GROUP_STATE: handle_initialize,
    ApiKey.READ_SHARE_GROUP_STATE: handle_read,
    ApiKey.WRITE_SHARE_GROUP_STATE: handle_write,
    ApiKey.DELETE_SHARE_GROUP_STATE: handle_delete,
    ApiKey.READ_SHARE_GROUP_STATE_SUMMARY: handle_summary,
}
