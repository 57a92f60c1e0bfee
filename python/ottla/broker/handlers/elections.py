"""Leader elections and reassignments: the controller decides."""

from __future__ import annotations

from typing import Final

import trio

from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)
from ottla.protocol.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)
from ottla.protocol.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
)
from ottla.protocol.versions import ApiKey


async def handle_elect_leaders(context: RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse:
    if request.topic_partitions == ():
        return ElectLeadersResponse()  # nothing to do, whatever else is wrong
    failed: KafkaError = KafkaError(ErrorCode.REQUEST_TIMED_OUT)
    with trio.move_on_after(max(request.timeout_ms, 0) / 1000):
        try:
            response: ElectLeadersResponse = await context.broker.controller.handle(request)
            return response
        except KafkaError as error:
            failed = error
    wanted = () if request.topic_partitions is None else request.topic_partitions
    return ElectLeadersResponse(
        error_code=failed.code,
        replica_election_results=tuple(
            ReplicaElectionResult(
                topic=topic.topic,
                partition_result=tuple(
                    PartitionResult(partition_id=index, error_code=failed.code, error_message=failed.message)
                    for index in topic.partitions
                ),
            )
            for topic in wanted
        ),
    )


async def handle_alter_partition_reassignments(
    context: RequestContext, request: AlterPartitionReassignmentsRequest
) -> AlterPartitionReassignmentsResponse:
    if not request.topics:
        return AlterPartitionReassignmentsResponse(error_message="")
    failed: KafkaError = KafkaError(ErrorCode.REQUEST_TIMED_OUT)
    with trio.move_on_after(max(request.timeout_ms, 0) / 1000):
        try:
            response: AlterPartitionReassignmentsResponse = await context.broker.controller.handle(request)
            return response
        except KafkaError as error:
            failed = error
    return AlterPartitionReassignmentsResponse(
        error_code=failed.code,
        error_message=failed.message,
        responses=tuple(
            ReassignableTopicResponse(
                name=topic.name,
                partitions=tuple(
                    ReassignablePartitionResponse(
                        partition_index=partition.partition_index, error_code=failed.code, error_message=failed.message
                    )
                    for partition in topic.partitions
                ),
            )
            for topic in request.topics
        ),
    )


async def handle_list_partition_reassignments(
    context: RequestContext, request: ListPartitionReassignmentsRequest
) -> ListPartitionReassignmentsResponse:
    response: ListPartitionReassignmentsResponse = await context.broker.controller.handle(request)
    return response


HANDLERS: Final = {
    ApiKey.ELECT_LEADERS: handle_elect_leaders,
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: handle_alter_partition_reassignments,
    ApiKey.LIST_PARTITION_REASSIGNMENTS: handle_list_partition_reassignments,
}
