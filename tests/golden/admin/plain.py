"""Answers as plain data that two brokers can be compared by."""

from __future__ import annotations

import dataclasses
import json
import uuid
from typing import Any, Final

from ottla.protocol.messages.create_topics import CreatableTopicConfigs
from ottla.protocol.messages.describe_configs import DescribeConfigsResourceResult

_SENTENCES: Final = {"error_message", "documentation", "throttle_time_ms"}
"""Left out: words are each broker's own."""
_OF_THE_PLACE: Final = {"advertised.listeners", "controller.quorum.voters", "listeners", "log.dirs"}
"""Left out of a broker's configuration: where it ran."""
_DEFAULT_CONFIG: Final = 5


def _counts(entry: Any) -> bool:
    if isinstance(entry, CreatableTopicConfigs):
        return entry.config_source != _DEFAULT_CONFIG
    return not (isinstance(entry, DescribeConfigsResourceResult) and entry.name in _OF_THE_PLACE)


def plain(value: Any) -> Any:
    """A message as JSON: error codes by name, of ids whether there is one, lists sorted but for synonyms.

    Of a new topic's configuration only what is not a default is kept; DescribeConfigs shows the rest.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name not in _SENTENCES}
        return {
            name: [plain(entry) for entry in item] if name == "synonyms" else plain(item)
            for name, item in fields.items()
        }
    if isinstance(value, tuple | list):
        entries = [plain(entry) for entry in value if _counts(entry)]
        return sorted(entries, key=lambda entry: json.dumps(entry, sort_keys=True))
    if isinstance(value, uuid.UUID):
        return True
    return value.name if hasattr(value, "name") and hasattr(value, "retriable") else value
