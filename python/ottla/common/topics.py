"""Names of topics: which are legal and which belong to the broker itself. Pure."""

from __future__ import annotations

import re
from typing import Final

NAME_LENGTH_MAX: Final = 249
CONSUMER_OFFSETS: Final = "__consumer_offsets"
INTERNAL_TOPICS: Final = frozenset({CONSUMER_OFFSETS, "__transaction_state", "__share_group_state"})
METADATA_TOPIC: Final = "__cluster_metadata"

_LEGAL: Final = re.compile(r"[a-zA-Z0-9._-]+")


def is_valid_name(name: str) -> bool:
    """Whether a topic may have this name (Kafka: `Topic.isValid`)."""
    return len(name) <= NAME_LENGTH_MAX and name not in (".", "..") and _LEGAL.fullmatch(name) is not None


def is_internal(name: str) -> bool:
    """Whether the topic belongs to a coordinator."""
    return name in INTERNAL_TOPICS
