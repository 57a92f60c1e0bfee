"""The assignors of classic groups that a leader runs (Kafka: `RangeAssignor`, `RoundRobinAssignor`), and the
formats of subscription and assignment (Kafka: `ConsumerProtocol`), version 1."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ottla.common.topic_partition import TopicPartition


class MalformedSubscription(Exception):
    """A member's metadata or assignment that does not parse."""


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">h", len(raw)) + raw


def _partitions(partitions: list[TopicPartition]) -> bytes:
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        by_topic.setdefault(topic, []).append(partition)
    out = struct.pack(">i", len(by_topic))
    for topic, indexes in by_topic.items():
        out += _string(topic) + struct.pack(f">i{len(indexes)}i", len(indexes), *indexes)
    return out


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def unpack(self, form: str) -> int:
        try:
            (value,) = struct.unpack_from(">" + form, self.data, self.position)
        except struct.error as error:
            raise MalformedSubscription(str(error)) from error
        self.position += struct.calcsize(">" + form)
        return int(value)

    def string(self) -> str:
        size = self.unpack("h")
        if size < 0 or self.position + size > len(self.data):
            raise MalformedSubscription(f"a string claims {size} bytes")
        raw = self.data[self.position : self.position + size]
        self.position += size
        return raw.decode("utf-8", "replace")

    def partitions(self) -> list[TopicPartition]:
        found = []
        for _ in range(self.unpack("i")):
            topic = self.string()
            found += [TopicPartition(topic, self.unpack("i")) for _ in range(self.unpack("i"))]
        return found


def encode_subscription(topics: list[str], owned: list[TopicPartition]) -> bytes:
    body = struct.pack(">hi", 1, len(topics)) + b"".join(_string(t) for t in sorted(topics))
    return body + struct.pack(">i", -1) + _partitions(owned)


def decode_subscription(data: bytes) -> list[str]:
    """The topics of a subscription of any version. Raises MalformedSubscription."""
    reader = _Reader(data)
    reader.unpack("h")
    return [reader.string() for _ in range(reader.unpack("i"))]


def encode_assignment(partitions: list[TopicPartition]) -> bytes:
    return struct.pack(">h", 1) + _partitions(partitions) + struct.pack(">i", -1)


def decode_assignment(data: bytes) -> list[TopicPartition]:
    """The partitions of an assignment of any version; empty bytes assign nothing. Raises MalformedSubscription."""
    if not data:
        return []
    reader = _Reader(data)
    reader.unpack("h")
    return reader.partitions()


Assignment = dict[str, list[TopicPartition]]


def assign_range(subscriptions: Mapping[str, list[str]], counts: Mapping[str, int]) -> Assignment:
    """Consecutive partitions of each topic to each member in the order of member ids."""
    assignment: Assignment = {member: [] for member in subscriptions}
    for topic in sorted({t for topics in subscriptions.values() for t in topics}):
        members = sorted(m for m, topics in subscriptions.items() if topic in topics)
        share, extra = divmod(counts.get(topic, 0), len(members))
        start = 0
        for i, member in enumerate(members):
            size = share + (i < extra)
            assignment[member] += [TopicPartition(topic, p) for p in range(start, start + size)]
            start += size
    return assignment


def assign_round_robin(subscriptions: Mapping[str, list[str]], counts: Mapping[str, int]) -> Assignment:
    """All partitions in order, dealt around to the members that want their topic."""
    assignment: Assignment = {member: [] for member in subscriptions}
    members = sorted(subscriptions)
    turn = 0
    for topic in sorted({t for topics in subscriptions.values() for t in topics}):
        for partition in range(counts.get(topic, 0)):
            while topic not in subscriptions[members[turn % len(members)]]:
                turn += 1
            assignment[members[turn % len(members)]].append(TopicPartition(topic, partition))
            turn += 1
    return assignment


@dataclass(frozen=True, slots=True)
class Assignor:
    """An assignor by the name under which members of other clients know it."""

    name: str
    assign: Callable[[Mapping[str, list[str]], Mapping[str, int]], Assignment]


RANGE = Assignor("range", assign_range)
ROUND_ROBIN = Assignor("roundrobin", assign_round_robin)
