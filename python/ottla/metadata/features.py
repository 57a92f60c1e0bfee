"""The features that clusters of this software can finalise (KIP-584)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ottla.metadata.image import METADATA_VERSION, METADATA_VERSION_FEATURE

SUPPORTED_FEATURES: Final[Mapping[str, tuple[int, int]]] = {
    METADATA_VERSION_FEATURE: (METADATA_VERSION, METADATA_VERSION),
}
"""Lowest and highest level of each feature that works here. Records are written at one metadata.version only."""
