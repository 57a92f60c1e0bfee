"""CreateTopics, DeleteTopics, CreatePartitions: the controller decides, here is only what the wire adds.

A request is answered once its change is committed and this broker serves it, or when the client's time is up: then
the change may still happen, and says REQUEST_TIMED_OUT as Kafka does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import trio

from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopicResult,
)
from ottla.protocol.messages.create_topics import (
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from ottla.protocol.messages.delete_topics import (
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
)
from ottla.protocol.versions import ApiKey

_DELETION_DISABLED_FROM_VERSION: Final = 3
_NO_SENSE: Final = (ErrorCode.INVALID_REQUEST, "A topic is named by its name or by its id.")
TIMED_OUT: Final = KafkaError(ErrorCode.REQUEST_TIMED_OUT, "It is not done yet, but may still be.")


async def handle_create_topics(context: RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse:
    failed = TIMED_OUT
    with trio.move_on_after(max(request.timeout_ms, 0) / 1000):
        try:
            response: CreateTopicsResponse = await context.broker.controller.handle(request)
            return response
        except KafkaError as error:
            failed = error
    return CreateTopicsResponse(
        topics=tuple(
            CreatableTopicResult(name=name, error_code=failed.code, error_message=failed.message)
            for name in dict.fromkeys(topic.name for topic in request.topics)
        )
    )


async def handle_delete_topics(context: RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse:
    failed = TIMED_OUT
    with trio.move_on_after(max(request.timeout_ms, 0) / 1000):
        try:
            response: DeleteTopicsResponse = await context.broker.controller.handle(request)
            return _for_version(response, context.version)
        except KafkaError as error:
            failed = error
    named = ((name, None) for name in request.topic_names)
    asked = dict.fromkeys([*((topic.name, topic.topic_id) for topic in request.topics), *named])
    return DeleteTopicsResponse(
        responses=tuple(
            DeletableTopicResult(name=name, topic_id=topic_id, error_code=code, error_message=message)
            for name, topic_id, (code, message) in (
                # Entries without sense are refused at once, however long the others take.
                (name, topic_id, _NO_SENSE if (name is None) == (topic_id is None) else (failed.code, failed.message))
                for name, topic_id in asked
            )
        )
    )


def _for_version(response: DeleteTopicsResponse, version: int) -> DeleteTopicsResponse:
    """Clients before KIP-322 do not know that deletion can be disabled."""
    if version >= _DELETION_DISABLED_FROM_VERSION:
        return response
    return replace(
        response,
        responses=tuple(
            replace(result, error_code=ErrorCode.INVALID_REQUEST)
            if result.error_code is ErrorCode.TOPIC_DELETION_DISABLED
            else result
            for result in response.responses
        ),
    )


async def handle_create_partitions(
    context: RequestContext, request: CreatePartitionsRequest
) -> CreatePartitionsResponse:
    failed = TIMED_OUT
    with trio.move_on_after(max(request.timeout_ms, 0) / 1000):
        try:
            response: CreatePartitionsResponse = await context.broker.controller.handle(request)
            return response
        except KafkaError as error:
            failed = error
    return CreatePartitionsResponse(
        results=tuple(
            CreatePartitionsTopicResult(name=name, error_code=failed.code, error_message=failed.message)
            for name in dict.fromkeys(topic.name for topic in request.topics)
        )
    )


HANDLERS: Final = {
    ApiKey.CREATE_TOPICS: handle_create_topics,
    ApiKey.DELETE_TOPICS: handle_delete_topics,
    ApiKey.CREATE_PARTITIONS: handle_create_partitions,
}
