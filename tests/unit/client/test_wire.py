"""Frames of one connection, however they are cut."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.client.core.wire import Wire, WireError
from ottla.errors import ErrorCode
from ottla.protocol.codec import encode_response
from ottla.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from ottla.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from ottla.protocol.versions import ApiKey


def answer(api: ApiKey, version: int, correlation_id: int, message: object, *, tagged: bool) -> bytes:
    body = struct.pack(">i", correlation_id) + (b"\x00" if tagged else b"") + encode_response(api, version, message)
    return struct.pack(">i", len(body)) + body


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(1, 13))
def test_answers_come_out_the_same_however_the_stream_is_cut(versions: list[int], piece: int) -> None:
    wire = Wire(client_id="c")
    stream = b""
    for version in versions:
        correlation_id, _ = wire.request(ApiKey.HEARTBEAT, version, HeartbeatRequest(group_id="g"))
        response = HeartbeatResponse(error_code=ErrorCode.UNKNOWN_MEMBER_ID)
        stream += answer(ApiKey.HEARTBEAT, version, correlation_id, response, tagged=version >= 4)
    got = [r for i in range(0, len(stream), piece) for r in wire.receive(stream[i : i + piece])]
    assert [c for c, _ in got] == list(range(len(versions)))
    assert all(r.error_code is ErrorCode.UNKNOWN_MEMBER_ID for _, r in got)


def test_an_old_broker_answers_api_versions_in_version_0() -> None:
    wire = Wire(client_id="c")
    wire.request(ApiKey.API_VERSIONS, 4, ApiVersionsRequest())
    refusal = ApiVersionsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
    ((_, response),) = wire.receive(answer(ApiKey.API_VERSIONS, 0, 0, refusal, tagged=False))
    assert response.error_code is ErrorCode.UNSUPPORTED_VERSION


def test_an_answer_that_nothing_asked_for_ends_the_connection() -> None:
    wire = Wire(client_id="c")
    with pytest.raises(WireError, match="nothing asked"):
        wire.receive(answer(ApiKey.HEARTBEAT, 0, 7, HeartbeatResponse(), tagged=False))
    wire.request(ApiKey.HEARTBEAT, 0, HeartbeatRequest())
    with pytest.raises(WireError, match="expected 0"):
        wire.receive(answer(ApiKey.HEARTBEAT, 0, 7, HeartbeatResponse(), tagged=False))


@pytest.mark.parametrize("size", [-1, 0, 3, 2**31 - 1])
def test_an_absurd_size_ends_the_connection(size: int) -> None:
    with pytest.raises(WireError, match="claims"):
        Wire(client_id="c").receive(struct.pack(">i", size))
