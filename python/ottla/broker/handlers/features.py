"""UpdateFeatures: the controller decides."""

from __future__ import annotations

from typing import Final

import trio

from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode
from ottla.protocol.messages.update_features import UpdateFeaturesRequest, UpdateFeaturesResponse
from ottla.protocol.versions import ApiKey


async def handle_update_features(context: RequestContext, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse:
    with trio.move_on_after(max(request.timeout_ms, 0) / 1000):
        response: UpdateFeaturesResponse = await context.broker.controller.handle(request)
        return response
    return UpdateFeaturesResponse(error_code=ErrorCode.REQUEST_TIMED_OUT)


HANDLERS: Final = {ApiKey.UPDATE_FEATURES: handle_update_features}
