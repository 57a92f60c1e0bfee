"""What groups see of the cluster's topics, and the hash that tells a group that something of theirs has changed.

The hash stands in the log, so that a coordinator that takes over does not start a rebalance for topics that are as
they were (KIP-1101). It is Kafka's: XXH3 of 64 bits, seed 0, over little-endian fields; text as UTF-16 with its length
behind.

Source: Kafka's `Utils.computeTopicHash` and `computeGroupHash`; checked against the records of a running 4.3.1.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Mapping
from typing import Final

import xxhash

from ottla.metadata.image import EMPTY_IMAGE, BrokerRegistration, MetadataImage, TopicImage

_INT: Final = struct.Struct("<i")
_LONGS: Final = struct.Struct("<qq")
_BIG_LONGS: Final = struct.Struct(">qq")


class Topics:
    """The topics of one metadata image. Kept between images where nothing changed, so that hashes are computed once."""

    def __init__(self, image: MetadataImage = EMPTY_IMAGE, before: Topics | None = None) -> None:
        """
        Args:
            before: What this follows.
        """
        self.image = image
        self.newest_topics_offset = image.offset
        """The metadata offset by which all of the topics were there: expressions resolved since then are up to date."""
        self._racks = _racks(image.brokers)
        self._hashes: dict[uuid.UUID, tuple[TopicImage, int]] = {}
        if before is not None:
            if self._racks == before._racks:
                self._hashes = {i: known for i, known in before._hashes.items() if i in image.topics}
            if image.topic_ids.keys() <= before.image.topic_ids.keys():
                self.newest_topics_offset = before.newest_topics_offset

    def changed_since(self, before: Topics) -> set[str]:
        """Names of topics that came, went, or may have other partitions or racks than before."""
        now, then = self.image.topics, before.image.topics
        if now is then and self._racks == before._racks:
            return set()
        everything = self._racks != before._racks
        changed = {t.name for topic_id, t in now.items() if everything or then.get(topic_id) is not t}
        return changed | {t.name for topic_id, t in then.items() if topic_id not in now}

    def ids_of(self, names: Iterable[str]) -> frozenset[uuid.UUID]:
        """The ids of those of `names` that exist."""
        topic_ids = self.image.topic_ids
        return frozenset([topic_ids[name] for name in names if name in topic_ids])

    def name_of(self, topic_id: uuid.UUID) -> str | None:
        topic = self.image.topics.get(topic_id)
        return None if topic is None else topic.name

    def partition_count(self, topic_id: uuid.UUID) -> int:
        """0 for topics that do not exist."""
        topic = self.image.topics.get(topic_id)
        return 0 if topic is None else len(topic.partitions)

    def racks_of(self, topic_id: uuid.UUID, partition: int) -> frozenset[str]:
        """The racks in which replicas of a partition are."""
        if not self._racks:
            return frozenset()
        replicas = self.image.topics[topic_id].partitions[partition].replicas
        return frozenset([self._racks[replica] for replica in replicas if replica in self._racks])

    def hash_of(self, names: Iterable[str]) -> int:
        """The hash of those of `names` that exist, as a signed number; 0 if none does."""
        found = sorted((name for name in set(names) if name in self.image.topic_ids), key=_java_order)
        if not found:
            return 0
        return _hash(b"".join([(self._topic_hash(name) & (2**64 - 1)).to_bytes(8, "little") for name in found]))

    def _topic_hash(self, name: str) -> int:
        topic = self.image.topics[self.image.topic_ids[name]]
        known = self._hashes.get(topic.topic_id)
        if known is not None and known[0] is topic:
            return known[1]
        count = len(topic.partitions)
        parts = [b"\0", _LONGS.pack(*_BIG_LONGS.unpack(topic.topic_id.bytes)), _text(name), _INT.pack(count)]
        for partition in range(count):
            parts.append(_INT.pack(partition))
            # Not as a set: a rack that has two of the replicas counts twice.
            replicas = topic.partitions[partition].replicas
            racks = [self._racks[replica] for replica in replicas if replica in self._racks]
            for rack in sorted(racks, key=_java_order):
                text = _text(rack)
                parts += [text[-4:], text]
        value = _hash(b"".join(parts))
        self._hashes[topic.topic_id] = (topic, value)
        return value


def _racks(brokers: Mapping[int, BrokerRegistration]) -> dict[int, str]:
    return {broker_id: b.rack for broker_id, b in brokers.items() if b.rack is not None}


def _hash(data: bytes) -> int:
    value = xxhash.xxh3_64_intdigest(data)
    return value - 2**64 if value >= 2**63 else value


def _text(text: str) -> bytes:
    units = text.encode("utf-16-le", "surrogatepass")
    return units + _INT.pack(len(units) // 2)


def _java_order(text: str) -> bytes:
    """Java sorts text by its units of UTF-16."""
    return text.encode("utf-16-be", "surrogatepass")
