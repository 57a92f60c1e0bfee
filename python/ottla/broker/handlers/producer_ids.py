"""InitProducerId: an id for an idempotent producer, or the next epoch for a transactional one.

Source: Kafka's `KafkaApis.handleInitProducerIdRequest`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from ottla.protocol.versions import ApiKey

NONE: Final = -1
_OWN_IDS_FROM_VERSION: Final = 3
_FENCED_KNOWN_FROM_VERSION: Final = 4


async def handle_init_producer_id(context: RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse:
    """Without a transactional id a new id each time: nothing hangs on one that the client may hold already."""
    if context.version < _OWN_IDS_FROM_VERSION:
        request = replace(request, producer_id=NONE, producer_epoch=NONE)
    if (request.producer_id == NONE) != (request.producer_epoch == NONE):
        return _failed(ErrorCode.INVALID_REQUEST)
    try:
        if request.transactional_id is None:
            producer_id = await context.broker.producer_ids.take()
            return InitProducerIdResponse(producer_id=producer_id, producer_epoch=0)
        if not request.transactional_id:
            return _failed(ErrorCode.INVALID_REQUEST)
        response = await context.broker.transactions.init_producer_id(request)
    except KafkaError as error:
        return _failed(error.code)
    if response.error_code is ErrorCode.PRODUCER_FENCED and context.version < _FENCED_KNOWN_FROM_VERSION:
        return _failed(ErrorCode.INVALID_PRODUCER_EPOCH)
    return response


def _failed(code: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=code, producer_id=NONE, producer_epoch=NONE)


HANDLERS: Final = {ApiKey.INIT_PRODUCER_ID: handle_init_producer_id}
