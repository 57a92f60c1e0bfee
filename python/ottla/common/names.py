"""What topics may be called. Source: Kafka's `Topic`."""

from __future__ import annotations

import re
from typing import Final

from ottla.errors import ErrorCode, KafkaError

TOPIC_NAME_LENGTH_MAX: Final = 249
CLUSTER_METADATA_TOPIC: Final = "__cluster_metadata"
_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]+\Z")


def check_topic_name(name: str) -> None:
    """Raises: KafkaError with INVALID_TOPIC_EXCEPTION."""
    wrong = None
    if not name:
        wrong = "it is empty"
    elif name in (".", ".."):
        wrong = "it is a directory's name"
    elif len(name) > TOPIC_NAME_LENGTH_MAX:
        wrong = f"it has {len(name)} characters, at most {TOPIC_NAME_LENGTH_MAX} are allowed"
    elif not _LEGAL_NAME.match(name):
        wrong = "only ASCII letters, digits, '.', '_' and '-' are allowed"
    if wrong is not None:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"The topic name {name!r} is not legal: {wrong}.")


def collision_key(name: str) -> str:
    """Topics with the same key would share metric names, so only one of them may exist."""
    return name.replace(".", "_")
