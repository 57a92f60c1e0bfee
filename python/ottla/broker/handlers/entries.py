"""Answers about topics of which some entries were refused before the others were decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, TypeVar


class _Topic(Protocol):
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def partitions(self) -> tuple[Any, ...]: ...


TopicT = TypeVar("TopicT", bound=_Topic)


def merged(
    refused: Sequence[TopicT], answered: Sequence[TopicT], key: Callable[[TopicT], object]
) -> tuple[TopicT, ...]:
    """One entry a topic, what was refused first. Where nothing was, the entries are the request's, as in Kafka."""
    if not refused:
        return tuple(answered)
    found: dict[object, TopicT] = {}
    for topic in (*refused, *answered):
        before = found.get(key(topic))
        partitions = topic.partitions if before is None else before.partitions + topic.partitions
        found[key(topic)] = dataclasses.replace(topic if before is None else before, partitions=partitions)
    return tuple(found.values())
