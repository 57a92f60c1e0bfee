"""UpdateFeatures. Metadata is written at one level only, so every change of it is refused and says why."""

from __future__ import annotations

from typing import Final

from ottla.broker.context import RequestContext
from ottla.broker.handlers.api_versions import SUPPORTED_FEATURES
from ottla.errors import ErrorCode
from ottla.metadata.image import MetadataImage
from ottla.protocol.messages.update_features import (
    FeatureUpdateKey,
    UpdatableFeatureResult,
    UpdateFeaturesRequest,
    UpdateFeaturesResponse,
)
from ottla.protocol.versions import ApiKey

UPGRADE: Final = 1
SAFE_DOWNGRADE: Final = 2
UNSAFE_DOWNGRADE: Final = 3


async def handle_update_features(context: RequestContext, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse:
    image = context.broker.metadata.image
    for update in request.feature_updates:
        complaint = _complaint(image, update)
        if complaint is not None:
            message = f"no feature was changed: {update.feature} to {update.max_version_level}: {complaint}"
            return UpdateFeaturesResponse(error_code=ErrorCode.INVALID_UPDATE_VERSION, error_message=message)
    return UpdateFeaturesResponse(
        results=tuple(UpdatableFeatureResult(feature=update.feature) for update in request.feature_updates)
    )


def _complaint(image: MetadataImage, update: FeatureUpdateKey) -> str | None:
    """Why the update cannot be made; None: it changes nothing."""
    level, current = update.max_version_level, image.features.get(update.feature)
    if update.upgrade_type not in (UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE):
        return "the upgrade type is unknown"
    if level < 0:
        return "a level is not negative"
    supported = SUPPORTED_FEATURES.get(update.feature)
    if supported is None:
        return "the feature is not supported"
    if not supported[0] <= level <= supported[1]:
        return f"levels {supported[0]} to {supported[1]} are supported"
    if level == current:
        return None
    if update.upgrade_type == UPGRADE and not update.allow_downgrade:
        return "a downgrade must say so by its upgrade type"
    return "a downgrade would lose metadata"


HANDLERS: Final = {ApiKey.UPDATE_FEATURES: handle_update_features}
