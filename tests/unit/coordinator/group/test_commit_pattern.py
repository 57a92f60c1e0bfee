"""Commits that differ in their offsets alone: where these stand, and what records they make."""

from __future__ import annotations

import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinator.group import records
from ottla.coordinator.group.commit_pattern import CommitPattern, Run, differences, request_holes
from ottla.coordinator.group.records import OffsetCommitValue
from ottla.protocol.codec import decode_request, encode_request
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.versions import API_VERSIONS, ApiKey

VERSIONS = range(API_VERSIONS[ApiKey.OFFSET_COMMIT][0], API_VERSIONS[ApiKey.OFFSET_COMMIT][1] + 1)
WALL_MS = 1_750_000_000_000

int64s = st.integers(-(2**63), 2**63 - 1)
int32s = st.integers(-(2**31), 2**31 - 1)
partitions = st.builds(
    OffsetCommitRequestPartition,
    partition_index=int32s,
    committed_offset=int64s,
    committed_metadata=st.one_of(st.none(), st.text(max_size=200)),
    committed_leader_epoch=int32s,
)
topics = st.builds(
    OffsetCommitRequestTopic,
    name=st.text(max_size=20),
    topic_id=st.uuids(),
    partitions=st.lists(partitions, min_size=1, max_size=4).map(tuple),
)
requests = st.builds(
    OffsetCommitRequest,
    group_id=st.text(max_size=20),
    member_id=st.text(max_size=20),
    generation_id_or_member_epoch=int32s,
    group_instance_id=st.one_of(st.none(), st.text(max_size=5)),
    topics=st.lists(topics, min_size=1, max_size=3).map(tuple),
)


@given(version=st.sampled_from(VERSIONS), request=requests)
def test_holes_say_the_numbers_and_records_are_those_of_a_commit(version: int, request: OffsetCommitRequest) -> None:
    if version < 7:
        request = OffsetCommitRequest(
            group_id=request.group_id,
            member_id=request.member_id,
            generation_id_or_member_epoch=request.generation_id_or_member_epoch,
            topics=request.topics,
        )
    body = encode_request(ApiKey.OFFSET_COMMIT, version, request)
    decoded = decode_request(ApiKey.OFFSET_COMMIT, version, body)
    holes = request_holes(version, decoded, body)
    assert holes is not None
    said = b"".join(body[at : at + size_bytes] for at, size_bytes in holes)
    rows = [(t, p) for t in decoded.topics for p in t.partitions]
    if version >= 6:
        assert said == b"".join(struct.pack(">qi", p.committed_offset, p.committed_leader_epoch) for _, p in rows)
    else:
        assert said == b"".join(struct.pack(">q", p.committed_offset) for _, p in rows)
    pattern = CommitPattern(version, decoded)
    assert pattern.records(said, WALL_MS) == [
        records.offset_commit(
            request.group_id,
            t.name,
            p.partition_index,
            OffsetCommitValue(
                p.committed_offset, p.committed_leader_epoch, p.committed_metadata or "", WALL_MS, -1, t.topic_id
            ),
        )
        for t, p in rows
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_is_said_of_a_request_that_is_encoded_in_another_way(version: int) -> None:
    topic = OffsetCommitRequestTopic(
        name="topic", topic_id=uuid.UUID(int=1), partitions=(OffsetCommitRequestPartition(partition_index=0),)
    )
    request = OffsetCommitRequest(group_id="group", topics=(topic,))
    body = encode_request(ApiKey.OFFSET_COMMIT, version, request)
    assert request_holes(version, request, body) is not None
    assert request_holes(version, request, body + b"\0") is None
    if version >= 8:
        # A tagged field that is not known, in place of none.
        longer = body[:-1] + b"\1\x63\1x"
        assert request_holes(version, decode_request(ApiKey.OFFSET_COMMIT, version, longer), longer) is None


def test_differences_are_runs_of_bytes() -> None:
    assert differences(b"", b"") == []
    assert differences(b"\0abc\0xyz", b"\0abc\0xyz") == []
    assert differences(b"1abc22x\n3", b"\nabc44xy5") == [Run(0, 1), Run(4, 2), Run(7, 2)]
