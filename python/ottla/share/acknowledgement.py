"""What members say of records that they have acquired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import IntEnum
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
_TYPES: Final = tuple(AcknowledgeType)


class Acknowledgement(NamedTuple):
    """What is said of a range of offsets, both ends included: one type for all, or one for each."""

    first_offset: int
    last_offset: int
    types: Sequence[int]

    def parts(self) -> Iterator[tuple[int, int, AcknowledgeType]]:
        """(first offset, last offset, type) of neighbours of which the same is said."""
        types = self.types
        if len(types) == 1:
            yield self.first_offset, self.last_offset, _TYPES[types[0]]
            return
        begin = 0
        for i, kind in enumerate(types):
            if kind != types[begin]:
                yield self.first_offset + begin, self.first_offset + i - 1, _TYPES[types[begin]]
                begin = i
        yield self.first_offset + begin, self.last_offset, _TYPES[types[begin]]

    def counts(self, start_offset: int) -> Iterator[tuple[AcknowledgeType, int]]:
        """(type, of how many records it is said) from an offset on."""
        if len(self.types) == 1:
            yield _TYPES[self.types[0]], max(0, self.last_offset - max(self.first_offset, start_offset) + 1)
            return
        for kind, count in Counter(self.types[max(0, start_offset - self.first_offset) :]).items():
            yield _TYPES[kind], count


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
        if min(one.types) < 0 or max(one.types) > type_max:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"The types of acknowledgements are 0 to {type_max:d} here.")
        before = one.last_offset
