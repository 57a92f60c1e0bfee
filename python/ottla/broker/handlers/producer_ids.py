"""InitProducerId for idempotent producers. Transactions are not offered, so a transactional id is refused."""

from __future__ import annotations

from typing import Final

from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from ottla.protocol.versions import ApiKey

NONE: Final = -1
_OWN_IDS_FROM_VERSION: Final = 3


async def handle_init_producer_id(context: RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse:
    """Give a new id. One that the client holds already is replaced: without transactions nothing hangs on it."""
    has_id, has_epoch = request.producer_id != NONE, request.producer_epoch != NONE
    if context.version >= _OWN_IDS_FROM_VERSION and has_id != has_epoch:
        return _failed(ErrorCode.INVALID_REQUEST)
    if request.transactional_id is not None:
        # An empty one is illegal everywhere; any other is for a coordinator that this broker does not have.
        known = request.transactional_id != ""
        return _failed(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED if known else ErrorCode.INVALID_REQUEST)
    try:
        producer_id = await context.broker.producer_ids.take()
    except KafkaError as error:
        return _failed(error.code)
    return InitProducerIdResponse(producer_id=producer_id, producer_epoch=0)


def _failed(code: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=code, producer_id=NONE, producer_epoch=NONE)


HANDLERS: Final = {ApiKey.INIT_PRODUCER_ID: handle_init_producer_id}
