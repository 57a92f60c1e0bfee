"""What the coordinator reads of a consumer's own protocol: the topics of its subscription.

Assignors' data is opaque to a coordinator but for this: offsets of subscribed topics neither expire nor may be
deleted. Only the prefix common to all versions is read (Kafka: `ConsumerProtocolSubscription` version 0).
"""

from __future__ import annotations

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
