"""Finalised features: the levels at which the whole cluster runs (KIP-584, KIP-1022)."""

from __future__ import annotations

from ottla.controller.result import ControllerResult, Refused
from ottla.errors import ErrorCode
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.features import SUPPORTED_FEATURES
from ottla.metadata.records import FeatureLevelRecord, FeatureRange, MetadataRecord
from ottla.protocol.messages.update_features import (
    FeatureUpdateKey,
    UpdatableFeatureResult,
    UpdateFeaturesRequest,
    UpdateFeaturesResponse,
)

_UPGRADE, _SAFE_DOWNGRADE, _UNSAFE_DOWNGRADE = 1, 2, 3


def supported_feature_ranges() -> tuple[FeatureRange, ...]:
    """What a broker and a controller of this software register with."""
    return tuple(
        FeatureRange(name=name, min_supported_version=low, max_supported_version=high)
        for name, (low, high) in SUPPORTED_FEATURES.items()
    )


def bootstrap_records() -> list[MetadataRecord]:
    """The first records of a new cluster's metadata log."""
    return [FeatureLevelRecord(name=name, feature_level=high) for name, (_, high) in SUPPORTED_FEATURES.items()]


class FeatureControl:
    """Changes finalised levels, all that a request names or none."""

    def __init__(self, metadata: MetadataDelta) -> None:
        self._metadata = metadata

    def update_features(self, request: UpdateFeaturesRequest) -> ControllerResult[UpdateFeaturesResponse]:
        records: dict[str, FeatureLevelRecord] = {}
        for update in request.feature_updates:
            try:
                self._check(update)
            except Refused as refused:
                text = f"Nothing was updated, because of {update.feature}: {refused.message}"
                return ControllerResult(response=UpdateFeaturesResponse(error_code=refused.code, error_message=text))
            if self._metadata.features.get(update.feature, 0) != update.max_version_level:
                records[update.feature] = FeatureLevelRecord(
                    name=update.feature, feature_level=update.max_version_level
                )
        results = tuple(
            # Kafka names the error here even if there is none.
            UpdatableFeatureResult(feature=update.feature, error_message=ErrorCode.NONE.name)
            for update in request.feature_updates
        )
        return ControllerResult(
            response=UpdateFeaturesResponse(results=results),
            records=() if request.validate_only else list(records.values()),
        )

    def _check(self, update: FeatureUpdateKey) -> None:
        # Version 0 says it with a flag, later ones with a kind.
        kind = _SAFE_DOWNGRADE if update.allow_downgrade else update.upgrade_type
        level, now = update.max_version_level, self._metadata.features.get(update.feature, 0)
        wrong = None
        if kind not in (_UPGRADE, _SAFE_DOWNGRADE, _UNSAFE_DOWNGRADE):
            wrong = f"there is no kind of update {kind}"
        elif level < 0:
            wrong = f"level {level} is negative"
        elif update.feature not in SUPPORTED_FEATURES:
            wrong = "the feature does not exist here"
        else:
            low, high = SUPPORTED_FEATURES[update.feature]
            if not low <= level <= high:
                wrong = f"level {level} is outside {low} to {high}"
            elif level < now and kind == _UPGRADE:
                wrong = f"level {level} is below {now}, which needs a downgrade to be allowed"
            elif level > now and kind != _UPGRADE:
                wrong = f"level {level} is above {now}, which is no downgrade"
        if wrong is not None:
            raise Refused(ErrorCode.INVALID_UPDATE_VERSION, f"{wrong}.")
