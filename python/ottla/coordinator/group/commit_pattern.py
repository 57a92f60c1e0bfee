"""Commits that say the same but for their offsets: what of their bytes differs, and the records that they make.

A consumer commits the same partitions again and again. So do the bytes of its requests differ only where offsets and
leader epochs stand, and those of the records only there and where the clock stands: all of these have a fixed width.
The codecs are asked for the places, by encoding one thing twice with other numbers, so that there is no second layout
here.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from typing import Final, NamedTuple

from ottla.coordinator.group import records
from ottla.coordinator.group.records import OffsetCommitValue
from ottla.coordinator.shard import CoordinatorRecord
from ottla.protocol.codec import encode_request
from ottla.protocol.messages.offset_commit import OffsetCommitRequest
from ottla.protocol.versions import ApiKey

LEADER_EPOCH_VERSION_MIN: Final = 6
_OFFSET_BYTES: Final = 8
_EPOCH_BYTES: Final = 4
_DIFFERENT: Final = re.compile(rb"[^\0]+", re.DOTALL)


class Run(NamedTuple):
    """Bytes in a row."""

    at: int
    size_bytes: int


class CommitPattern:
    """A commit without its offsets, leader epochs and time."""

    def __init__(self, version: int, request: OffsetCommitRequest) -> None:
        """
        Args:
            version: Of OffsetCommit.
            request: With names and ids of topics that exist, and no retention of its own.
        """
        assert request.retention_time_ms == -1, "the expiry of its records follows the clock"
        self._group_id = request.group_id
        self._rows: list[tuple[str, int, OffsetCommitValue]] = []
        for topic in request.topics:
            for p in topic.partitions:
                value = OffsetCommitValue(-1, -1, p.committed_metadata or "", topic_id=topic.topic_id)
                self._rows.append((topic.name, p.partition_index, value))
        self._number = struct.Struct(">qi" if version >= LEADER_EPOCH_VERSION_MIN else ">q")

    @property
    def hole_bytes(self) -> int:
        """Bytes of what one partition's numbers take, in a request and in its record."""
        return self._number.size

    @property
    def partition_count(self) -> int:
        return len(self._rows)

    def records(self, said: bytes, wall_ms: int) -> list[CoordinatorRecord]:
        """The records of a commit.

        Args:
            said: Offset (and leader epoch) of each partition, as the request has them.
        """
        numbers = self._number.iter_unpack(said)
        made = []
        for (topic, partition, value), (offset, *epoch) in zip(self._rows, numbers, strict=True):
            filled = value._replace(offset=offset, leader_epoch=epoch[0] if epoch else -1, commit_timestamp_ms=wall_ms)
            made.append(records.offset_commit(self._group_id, topic, partition, filled))
        return made

    def sample(self, byte: int) -> bytes:
        """What a request says whose numbers consist of this byte alone."""
        return bytes([byte]) * (self.hole_bytes * len(self._rows))


def request_holes(version: int, request: OffsetCommitRequest, body: bytes) -> list[Run] | None:
    """Where the numbers of the partitions stand in a request, in their order.

    Args:
        request: As it was decoded from `body`.
    Returns: None: the client encodes it in a way of its own, so that nothing can be said.
    """
    one, other = [encode_request(ApiKey.OFFSET_COMMIT, version, _filled(request, byte)) for byte in (1, 2)]
    holes = differences(one, other)
    rest = bytearray(body)
    for at, size_bytes in holes:
        rest[at : at + size_bytes] = one[at : at + size_bytes]
    return holes if rest == one else None


def differences(one: bytes, other: bytes) -> list[Run]:
    """Where two texts of the same length differ."""
    assert len(one) == len(other), "all that differs has a fixed width"
    different = (int.from_bytes(one) ^ int.from_bytes(other)).to_bytes(len(one))
    return [Run(found.start(), found.end() - found.start()) for found in _DIFFERENT.finditer(different)]


def _filled(request: OffsetCommitRequest, byte: int) -> OffsetCommitRequest:
    offset, epoch = int.from_bytes(bytes([byte]) * _OFFSET_BYTES), int.from_bytes(bytes([byte]) * _EPOCH_BYTES)

    return replace(
        request,
        topics=tuple(
            replace(
                topic,
                partitions=tuple(
                    [replace(p, committed_offset=offset, committed_leader_epoch=epoch) for p in topic.partitions]
                ),
            )
            for topic in request.topics
        ),
    )
