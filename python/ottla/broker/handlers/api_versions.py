"""ApiVersions: what this broker speaks and which features are finalised. Served before anything else (KIP-511)."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode
from ottla.metadata.features import SUPPORTED_FEATURES
from ottla.protocol.messages.api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)
from ottla.protocol.versions import ApiKey

_SOFTWARE: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
_SOFTWARE_FROM_VERSION: Final = 3
_ZERO_MINIMUM_FROM_VERSION: Final = 4
"""Older clients stumble over features whose lowest level is 0; they are not shown any (KAFKA-17011)."""


@cache
def _api_keys() -> tuple[ApiVersion, ...]:
    from ottla.broker.dispatch import ADVERTISED

    return tuple(ApiVersion(api_key=key, min_version=low, max_version=high) for key, (low, high) in ADVERTISED.items())


def handle_api_versions(context: RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse:
    if context.version >= _SOFTWARE_FROM_VERSION:
        name, version = request.client_software_name, request.client_software_version
        if not (_SOFTWARE.fullmatch(name) and _SOFTWARE.fullmatch(version)):
            return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)
        context.connection.software = (name, version)
    image = context.broker.metadata.image
    return ApiVersionsResponse(
        api_keys=_api_keys(),
        supported_features=tuple(
            SupportedFeatureKey(name=name, min_version=low, max_version=high)
            for name, (low, high) in SUPPORTED_FEATURES.items()
            if low > 0 or context.version >= _ZERO_MINIMUM_FROM_VERSION
        ),
        finalized_features_epoch=image.offset,
        finalized_features=tuple(
            FinalizedFeatureKey(name=name, max_version_level=level, min_version_level=level)
            for name, level in image.features.items()
        ),
    )


HANDLERS: Final = {ApiKey.API_VERSIONS: handle_api_versions}
