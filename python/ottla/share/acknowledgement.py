"""What members say of records that they have acquired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import groupby
from typing import Final, NamedTuple

from ottla.errors import ErrorCode, KafkaError


class AcknowledgeType(IntEnum):
    """By the numbers of the protocol (Kafka: `AcknowledgeType`; 0 is `ShareFetchRequest`'s own)."""

    GAP = 0
    """There is no record at this offset."""
    ACCEPT = 1
    RELEASE = 2
    REJECT = 3
    RENEW = 4


TYPE_MAX: Final = max(AcknowledgeType)


class Acknowledgement(NamedTuple):
    """What is said of a range of offsets, both ends included: one type for all, or one for each."""

    first_offset: int
    last_offset: int
    types: Sequence[int]

    def parts(self) -> Iterator[tuple[int, int, AcknowledgeType]]:
        """(first offset, last offset, type) of neighbours of which the same is said."""
        if len(self.types) == 1:
            yield self.first_offset, self.last_offset, AcknowledgeType(self.types[0])
            return
        first = self.first_offset
        for kind, neighbours in groupby(self.types):
            last = first + sum(1 for _ in neighbours) - 1
            yield first, last, AcknowledgeType(kind)
            first = last + 1


def check_acknowledgements(acknowledgements: Sequence[Acknowledgement], *, may_renew: bool) -> None:
    """See whether they make sense by themselves (Kafka: `KafkaApis.validateAcknowledgementBatches`).

    Args:
        may_renew: The request says that it renews.
    Raises: KafkaError (INVALID_REQUEST).
    """
    type_max = TYPE_MAX if may_renew else AcknowledgeType.REJECT
    before = -1
    for one in acknowledgements:
        if one.last_offset < one.first_offset or one.first_offset < before:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "The offsets of acknowledgements go backwards.")
        if len(one.types) != 1 and len(one.types) != one.last_offset - one.first_offset + 1:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "There must be one type for all offsets, or one for each.")
        if any(not 0 <= kind <= type_max for kind in one.types):
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"The types of acknowledgements are 0 to {type_max:d} here.")
        before = one.first_offset
