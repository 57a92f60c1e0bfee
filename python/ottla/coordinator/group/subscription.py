"""What the coordinator reads of a consumer's own protocol, which classic groups carry as bytes.

Assignors' data is opaque to the coordinator of a classic group but for the topics of subscriptions: their offsets
neither expire nor may be deleted. Where members of both protocols are in one group (KIP-848), it reads all that is not
an assignor's own, and writes the assignments of members that speak the classic protocol.

Source: Kafka's `ConsumerProtocolSubscription` and `ConsumerProtocolAssignment`, versions 0 to 3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

CONSUMER_PROTOCOL_TYPE = "consumer"


def subscribed_topics(metadata: bytes) -> frozenset[str] | None:
    """The topics of one member's subscription. None: these bytes are no subscription."""
    if len(metadata) < 6 or metadata[0] & 0x80:  # a negative version
        return None
    count = int.from_bytes(metadata[2:6], "big", signed=True)
    topics = []
    position = 6
    for _ in range(count):
        start = position + 2
        position = start + int.from_bytes(metadata[position:start], "big", signed=True)
        if not start <= position <= len(metadata):
            return None
        try:
            topics.append(metadata[start:position].decode())
        except UnicodeDecodeError:
            return None
    return frozenset(topics)


class Subscription(NamedTuple):
    """A member's subscription."""

    version: int
    topics: tuple[str, ...]
    owned: Mapping[str, tuple[int, ...]]
    """Partitions that it has, by topic. None of them in version 0."""
    rack_id: str | None


class Assigned(NamedTuple):
    """A member's assignment."""

    partitions: Mapping[str, tuple[int, ...]]
    has_user_data: bool
    """An assignor of the client's own has put something of its own in."""


class _Cursor:
    """Reads fields one after another. Raises ValueError or struct.error where the bytes end too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def integer(self, kind: str) -> int:
        (value,) = struct.unpack_from(kind, self._data, self._at)
        self._at += struct.calcsize(kind)
        return int(value)

    def count(self) -> int:
        count = self.integer(">i")
        if not 0 <= count <= len(self._data):
            raise ValueError(f"an array of {count}")
        return count

    def take(self, size: int) -> bytes | None:
        """None for a negative size."""
        if size < 0:
            return None
        end = self._at + size
        if end > len(self._data):
            raise ValueError(f"{size} bytes where fewer are left")
        found, self._at = self._data[self._at : end], end
        return found

    def text(self) -> str:
        return (self.take(self.integer(">h")) or b"").decode()

    def partitions(self) -> dict[str, tuple[int, ...]]:
        return {self.text(): tuple([self.integer(">i") for _ in range(self.count())]) for _ in range(self.count())}


def parse_subscription(metadata: bytes) -> Subscription | None:
    """A whole subscription. None: these bytes are no subscription."""
    cursor = _Cursor(metadata)
    try:
        version = cursor.integer(">h")
        topics = tuple([cursor.text() for _ in range(cursor.count())])
        cursor.take(cursor.integer(">i"))
        owned = cursor.partitions() if version >= 1 else {}
        if version >= 2:
            cursor.integer(">i")
        rack = cursor.take(cursor.integer(">h")) if version >= 3 else None
        return None if version < 0 else Subscription(version, topics, owned, None if rack is None else rack.decode())
    except (ValueError, struct.error):
        return None


def parse_assignment(assignment: bytes) -> Assigned | None:
    """None: these bytes are no assignment. A member that has none yet has no bytes."""
    if not assignment:
        return Assigned({}, has_user_data=False)
    cursor = _Cursor(assignment)
    try:
        if cursor.integer(">h") < 0:
            return None
        partitions = cursor.partitions()
        return Assigned(partitions, has_user_data=bool(cursor.take(cursor.integer(">i"))))
    except (ValueError, struct.error):
        return None


def encode_assignment(partitions: Mapping[str, Iterable[int]], *, version: int) -> bytes:
    """An assignment as a client of that version of the protocol reads it."""
    parts = [struct.pack(">hi", version, len(partitions))]
    for topic, numbers in partitions.items():
        name, listed = topic.encode(), sorted(numbers)
        parts.append(struct.pack(f">h{len(name)}si{len(listed)}i", len(name), name, len(listed), *listed))
    return b"".join([*parts, struct.pack(">i", -1)])
