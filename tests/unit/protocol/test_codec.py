"""Rules of the codec that no round trip shows."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc

import pytest

from ottla.errors import ErrorCode
from ottla.protocol.codec import (
    MalformedMessage,
    UnsupportedVersion,
    decode_request,
    decode_response,
    encode_response,
)
from ottla.protocol.header import decode_response_frame, encode_request_frame, encode_response_frame
from ottla.protocol.messages.api_versions import ApiVersionsResponse
from ottla.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from ottla.protocol.messages.join_group import JoinGroupResponse
from ottla.protocol.messages.metadata import MetadataRequest
from ottla.protocol.versions import ApiKey

HUGE = 0x7FFF_FFFF


def test_a_none_becomes_zero_where_the_version_has_no_null() -> None:
    joined = JoinGroupResponse(protocol_name=None, leader="m")
    old = decode_response(ApiKey.JOIN_GROUP, 6, encode_response(ApiKey.JOIN_GROUP, 6, joined))
    new = decode_response(ApiKey.JOIN_GROUP, 7, encode_response(ApiKey.JOIN_GROUP, 7, joined))
    assert old.protocol_name == ""
    assert new.protocol_name is None


def test_an_array_that_claims_more_than_the_frame_holds_takes_no_memory() -> None:
    bodies = [
        (ApiKey.METADATA, 1, struct.pack(">i", HUGE)),
        (ApiKey.METADATA, 9, b"\xff\xff\xff\xff\x07\0\0"),
        (ApiKey.CREATE_TOPICS, 4, struct.pack(">i", HUGE) + bytes(100)),
        (ApiKey.SYNC_GROUP, 0, b"\0\1g\0\0\0\1\0\1m" + struct.pack(">i", HUGE)),
        (ApiKey.DESCRIBE_CONFIGS, 1, struct.pack(">i", HUGE)),
    ]
    tracemalloc.start()
    for api, version, body in bodies:
        with pytest.raises(MalformedMessage):
            decode_request(api, version, body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_a_negative_length_is_a_null_as_in_kafka() -> None:
    assert decode_request(ApiKey.METADATA, 1, struct.pack(">i", -5)).topics is None


def test_a_null_where_none_may_be_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="topics is null"):
        decode_request(ApiKey.CREATE_TOPICS, 4, struct.pack(">i", -1) + bytes(9))


def test_bytes_after_the_body_are_ignored() -> None:
    assert decode_request(ApiKey.METADATA, 1, struct.pack(">i", 0) + b"more") == MetadataRequest(topics=())


def test_broken_utf8_is_replaced_as_java_does() -> None:
    request = decode_request(ApiKey.METADATA, 1, struct.pack(">ih", 1, 2) + b"\xff\xfe")
    assert request.topics[0].name == "\ufffd\ufffd"


def test_an_error_code_of_a_newer_broker_is_an_unknown_error() -> None:
    assert decode_response(ApiKey.HEARTBEAT, 0, struct.pack(">h", 9999)).error_code is ErrorCode.UNKNOWN_SERVER_ERROR


def test_unknown_tagged_fields_are_skipped() -> None:
    body = b"\0" + b"\0\0\0" + b"\x02" + b"\x05\x02ab" + b"\x63\x00"
    assert decode_request(ApiKey.METADATA, 9, body) == MetadataRequest(topics=None, allow_auto_topic_creation=False)


@pytest.mark.parametrize(("api", "version"), [(ApiKey.PRODUCE, 2), (ApiKey.FETCH, 3), (ApiKey.FETCH, 19)])
def test_versions_that_do_not_exist_are_refused(api: ApiKey, version: int) -> None:
    with pytest.raises(UnsupportedVersion):
        decode_request(api, version, b"")


def test_the_api_versions_response_has_header_v0_even_where_flexible() -> None:
    frame = encode_response_frame(ApiKey.API_VERSIONS, 3, ApiVersionsResponse(), correlation_id=7)
    assert frame[:6] == struct.pack(">ih", 7, 0)
    assert decode_response_frame(ApiKey.API_VERSIONS, 3, frame).message == ApiVersionsResponse()


def test_a_flexible_response_header_carries_tagged_fields() -> None:
    frame = encode_response_frame(ApiKey.HEARTBEAT, 4, HeartbeatResponse(), correlation_id=7)
    assert frame[4] == 0
    with_tag = frame[:4] + b"\x01\x03\x02xx" + frame[5:]
    assert decode_response_frame(ApiKey.HEARTBEAT, 4, with_tag).correlation_id == 7
    with pytest.raises(MalformedMessage):
        decode_response_frame(ApiKey.HEARTBEAT, 4, frame[:4])


def test_a_request_header_keeps_the_legacy_client_id() -> None:
    frame = encode_request_frame(ApiKey.HEARTBEAT, 4, HeartbeatRequest(), correlation_id=1, client_id="abc")
    assert frame[:14] == struct.pack(">hhih", 12, 4, 1, 3) + b"abc\0"


def test_the_codec_works_without_kio() -> None:
    script = (
        "import sys\n"
        "from ottla.protocol.codec import decode_request\n"
        "from ottla.protocol.versions import ApiKey\n"
        "decode_request(ApiKey.METADATA, 12, bytes(5))\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'kio'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_committed_messages_are_what_the_schemas_give() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ottla.protocol.generate", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
