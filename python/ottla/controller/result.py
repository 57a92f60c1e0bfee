"""What a decision of the controller consists of."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.records import MetadataRecord

R = TypeVar("R")

RECORDS_MAX: Final = 10_000
"""Most records that one request may cause (Kafka: MAX_RECORDS_PER_USER_OP)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerResult(Generic[R]):
    """The answer to a request, and the records it rests on: they take effect together, and the answer may leave
    only once they are committed. Without records the answer rests on everything decided before it."""

    response: R
    records: Sequence[MetadataRecord] = ()


class Refused(KafkaError):
    """Why one item of a request (a topic, a resource) was not done. Always says it in words."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(code, message)


class RandomSource(Protocol):
    """Where the controller takes chance from; `random.Random` is one."""

    def getrandbits(self, k: int, /) -> int: ...


def random_topic_id(random: RandomSource) -> uuid.UUID:
    """A random (version 4) id whose text form does not begin with a dash, which tools would take for an option."""
    while True:
        topic_id = uuid.UUID(int=random.getrandbits(128), version=4)
        if base64.urlsafe_b64encode(topic_id.bytes[:3])[:1] != b"-":
            return topic_id


def shuffled(items: Sequence[R], random: RandomSource) -> list[R]:
    """The items in random order."""
    return [item for _, _, item in sorted((random.getrandbits(64), index, item) for index, item in enumerate(items))]
