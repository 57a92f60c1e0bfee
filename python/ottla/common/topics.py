"""Names of topics: which are legal and which belong to the broker itself. Pure."""

from __future__ import annotations

import re
from typing import Final

from ottla.errors import ErrorCode, KafkaError

NAME_LENGTH_MAX: Final = 249
CONSUMER_OFFSETS: Final = "__consumer_offsets"
TRANSACTION_STATE: Final = "__transaction_state"
SHARE_GROUP_STATE: Final = "__share_group_state"
INTERNAL_TOPICS: Final = frozenset({CONSUMER_OFFSETS, TRANSACTION_STATE, SHARE_GROUP_STATE})
METADATA_TOPIC: Final = "__cluster_metadata"
METADATA_PARTITION: Final = f"{METADATA_TOPIC}-0"

_LEGAL: Final = re.compile(r"[a-zA-Z0-9._-]+")


def is_valid_name(name: str) -> bool:
    """Whether a topic may have this name (Kafka: `Topic.isValid`)."""
    return len(name) <= NAME_LENGTH_MAX and name not in (".", "..") and _LEGAL.fullmatch(name) is not None


def check_topic_name(name: str) -> None:
    """Say what is wrong with a name. Raises: KafkaError with INVALID_TOPIC_EXCEPTION."""
    if is_valid_name(name):
        return
    if not name:
        wrong = "it is empty"
    elif name in (".", ".."):
        wrong = "it is a directory's name"
    elif len(name) > NAME_LENGTH_MAX:
        wrong = f"it has {len(name)} characters, at most {NAME_LENGTH_MAX} are allowed"
    else:
        wrong = "only ASCII letters, digits, '.', '_' and '-' are allowed"
    raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"The topic name {name!r} is not legal: {wrong}.")


def collision_key(name: str) -> str:
    """Topics with the same key would share metric names, so only one of them may exist."""
    return name.replace(".", "_")


def is_internal(name: str) -> bool:
    """Whether the topic belongs to a coordinator."""
    return name in INTERNAL_TOPICS
