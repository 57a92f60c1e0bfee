"""UpdateFeatures: the controller decides."""

from __future__ import annotations

from typing import Final

from ottla.broker.context import RequestContext
from ottla.protocol.messages.update_features import UpdateFeaturesRequest, UpdateFeaturesResponse
from ottla.protocol.versions import ApiKey


async def handle_update_features(context: RequestContext, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse:
    """Kafka's controller does not look at the timeout either."""
    response: UpdateFeaturesResponse = await context.broker.controller.handle(request)
    return response


HANDLERS: Final = {ApiKey.UPDATE_FEATURES: handle_update_features}
