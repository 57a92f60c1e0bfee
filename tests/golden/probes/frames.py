"""Frames, headers and bodies that are not what they should be."""

from __future__ import annotations

import struct

from ottla.protocol.codec import encode_request, is_flexible
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.versions import API_VERSIONS, ApiKey
from tests.golden.lab import Answer, Lab, probe
from tests.golden.wire import CLOSED, ClosedByBroker

UNUSED_KEYS = [-1, 4, 5, 6, 7, 52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82, 93, 94, 999, 32767]
"""Keys that a broker's client listener does not serve: removed ones, the controllers' own, and unknown ones."""


def raw(lab: Lab, data: bytes) -> Answer:
    """What comes back for these bytes: an answer's size is not told, only that there is one."""
    with lab.connect() as connection:
        try:
            connection.send_bytes(data)
            connection.receive_frame()
        except ClosedByBroker:
            return CLOSED
    return "answered"


def frame(key: int, version: int, body: bytes, *, flexible: bool = False, client_id: bytes | None = b"probe") -> bytes:
    length = -1 if client_id is None else len(client_id)
    header = struct.pack(">hhih", key, version, 7, length) + (client_id or b"") + (b"\0" if flexible else b"")
    return struct.pack(">i", len(header) + len(body)) + header + body


@probe(each=[-1, -2147483648, 104857601, 2147483647])
def length_outside_the_limit(lab: Lab, length: int) -> Answer:
    return raw(lab, struct.pack(">i", length) + bytes(64))


@probe(each=range(13))
def frame_shorter_than_a_header(lab: Lab, size: int) -> Answer:
    return raw(lab, struct.pack(">i", size) + struct.pack(">hhih", 18, 0, 1, 3)[:size].ljust(size, b"x"))


@probe(each=UNUSED_KEYS)
def key_that_is_not_served(lab: Lab, key: int) -> Answer:
    return raw(lab, frame(key, 0, bytes(32)))


@probe(each=[api for api in ApiKey if api is not ApiKey.API_VERSIONS])
def version_too_high(lab: Lab, api: ApiKey) -> Answer:
    version = API_VERSIONS[api][1] + 1
    return raw(lab, frame(api, version, bytes(64), flexible=True))


@probe(each=[api for api in ApiKey if API_VERSIONS[api][0] > 0 or api is ApiKey.PRODUCE])
def version_too_low(lab: Lab, api: ApiKey) -> Answer:
    version = 2 if api is ApiKey.PRODUCE else API_VERSIONS[api][0] - 1
    return raw(lab, frame(api, version, bytes(64)))


@probe(each=[-1, 5, 99, 32767])
def api_versions_of_an_unknown_version(lab: Lab, version: int) -> Answer:
    """Answered in version 0, so that a newer client learns what to use."""
    with lab.connect() as connection:
        connection.send_frame(connection.request_header(18, version, flexible=True) + b"\x02a\x02b\0")
        body = connection.receive_body(flexible=False)
    error, count = struct.unpack_from(">hi", body)
    return {"error": error, "keys": [struct.unpack_from(">hhh", body, 6 + 6 * i) for i in range(count)]}


@probe(
    each=[("", "1"), ("a", ""), ("a b", "1"), ("-a", "1"), ("a-", "1"), ("a.b-c", "1.0-x"), ("a", "1_0"), ("é", "1")]
)
def client_software(lab: Lab, software: tuple[str, str]) -> Answer:
    request = ApiVersionsRequest(client_software_name=software[0], client_software_version=software[1])
    answer = lab.call(ApiKey.API_VERSIONS, request, version=3)
    return {"error_code": answer.error_code, "keys": bool(answer.api_keys)}


def sensible_body(lab: Lab, api: ApiKey, version: int) -> bytes | None:
    """An encoded request with its defaults, or None where those cannot be encoded."""
    from tests.golden.probes.defaults import default_request

    return encode_request(api, version, default_request(api))


@probe(
    each=[api for api in ApiKey if api not in {ApiKey.API_VERSIONS, ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE}]
)
def body_cut_short(lab: Lab, api: ApiKey) -> Answer:
    version = API_VERSIONS[api][1]
    body = sensible_body(lab, api, version)
    flexible = is_flexible(api, version)
    assert body is not None
    if len(body) - flexible == 0:
        return "nothing to cut"
    return raw(lab, frame(api, version, body[: (len(body) - 1) // 2], flexible=flexible))


@probe(each=[0, 1, 4, 8, 9, 12, 13])
def bytes_after_the_body(lab: Lab, version: int) -> Answer:
    body = encode_request(ApiKey.METADATA, version, MetadataRequest(topics=None if version else ()))
    return raw(lab, frame(ApiKey.METADATA, version, body + b"surplus", flexible=is_flexible(ApiKey.METADATA, version)))


@probe(each=[2147483647, 1000000, -2, -2147483648])
def array_longer_than_the_frame(lab: Lab, count: int) -> Answer:
    return raw(lab, frame(ApiKey.METADATA, 1, struct.pack(">i", count)))


@probe(each=["ffffffff0f", "ffffffff07", "ffffffffff0f", "80808080808080808001", "8080808000"])
def compact_array_longer_than_the_frame(lab: Lab, count: str) -> Answer:
    return raw(lab, frame(ApiKey.METADATA, 9, bytes.fromhex(count), flexible=True))


@probe(each=[-2, -32768, 32767, 30])
def string_longer_than_the_frame(lab: Lab, length: int) -> Answer:
    return raw(lab, frame(ApiKey.METADATA, 1, struct.pack(">ih", 1, length) + b"topic"))


@probe()
def null_where_a_string_is_needed(lab: Lab) -> Answer:
    return raw(lab, frame(ApiKey.METADATA, 1, struct.pack(">ih", 1, -1)))


@probe()
def null_array_where_one_is_needed(lab: Lab) -> Answer:
    return raw(lab, frame(ApiKey.METADATA, 0, struct.pack(">i", -1)))


@probe(each=["none", "empty", "long", "not utf-8", "length -2", "longer than the frame"])
def client_ids(lab: Lab, kind: str) -> Answer:
    body = struct.pack(">i", 0)
    if kind == "length -2":
        return raw(lab, struct.pack(">ihhih", 14, 3, 1, 7, -2) + body)
    if kind == "longer than the frame":
        return raw(lab, struct.pack(">ihhih", 14, 3, 1, 7, 99) + body)
    client_id = {"none": None, "empty": b"", "long": b"x" * 32767, "not utf-8": b"\xff\xfe"}[kind]
    return raw(lab, frame(ApiKey.METADATA, 1, body, client_id=client_id))


@probe(each=["unknown tag", "tags out of order", "tag longer than the frame", "a million tags"])
def tagged_fields_in_the_header(lab: Lab, kind: str) -> Answer:
    tags = {
        "unknown tag": b"\x01\x63\x03abc",
        "tags out of order": b"\x02\x05\x00\x04\x00",
        "tag longer than the frame": b"\x01\x63\xff\xff\xff\xff\x07",
        "a million tags": b"\xc0\x84\x3d",
    }[kind]
    header = struct.pack(">hhih", ApiKey.METADATA, 9, 7, 5) + b"probe" + tags
    body = encode_request(ApiKey.METADATA, 9, MetadataRequest(topics=()))
    return raw(lab, struct.pack(">i", len(header) + len(body)) + header + body)


@probe(each=["unknown tag", "tag longer than the frame", "same tag twice"])
def tagged_fields_in_the_body(lab: Lab, kind: str) -> Answer:
    tags = {
        "unknown tag": b"\x01\x63\x03abc",
        "tag longer than the frame": b"\x01\x63\xff\xff\xff\xff\x07",
        "same tag twice": b"\x02\x63\x00\x63\x00",
    }[kind]
    body = encode_request(ApiKey.METADATA, 9, MetadataRequest(topics=()))
    return raw(lab, frame(ApiKey.METADATA, 9, body[:-1] + tags, flexible=True))


@probe()
def pipelined_requests_are_answered_in_order(lab: Lab) -> Answer:
    with lab.connect() as connection:
        versions = [1, 4, 9, 12]
        for version in versions:
            topics = (MetadataRequestTopic(name=lab.name("pipelined")),)
            request = MetadataRequest(topics=topics, allow_auto_topic_creation=False)
            connection.send(ApiKey.METADATA, version, encode_request(ApiKey.METADATA, version, request))
        return [struct.unpack_from(">i", connection.receive_frame())[0] for _ in versions]


@probe()
def request_in_single_bytes(lab: Lab) -> Answer:
    body = encode_request(ApiKey.METADATA, 1, MetadataRequest(topics=()))
    with lab.connect() as connection:
        for byte in frame(ApiKey.METADATA, 1, body):
            connection.send_bytes(bytes([byte]))
        return len(connection.receive_frame()) > 8
