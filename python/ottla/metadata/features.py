"""The features that clusters of this software can finalise (KIP-584)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ottla.metadata.image import METADATA_VERSION, METADATA_VERSION_FEATURE

TRANSACTION_VERSION_FEATURE: Final = "transaction.version"
"""By which rules transactions go (KIP-890): 1 writes flexible records, 2 raises the epoch with each transaction."""

GROUP_VERSION_FEATURE: Final = "group.version"
"""Whether there are consumer groups (KIP-848)."""

SHARE_VERSION_FEATURE: Final = "share.version"
"""Whether there are share groups (KIP-932)."""

SUPPORTED_FEATURES: Final[Mapping[str, tuple[int, int]]] = {
    METADATA_VERSION_FEATURE: (METADATA_VERSION, METADATA_VERSION),
    TRANSACTION_VERSION_FEATURE: (0, 2),
    GROUP_VERSION_FEATURE: (0, 1),
    SHARE_VERSION_FEATURE: (0, 1),
}
"""Lowest and highest level of each feature that works here. Records are written at one metadata.version only."""
