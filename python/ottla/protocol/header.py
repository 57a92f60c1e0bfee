"""Request and response headers.

A request header is v1 (no tagged fields) or, for flexible versions, v2, which keeps the legacy encoding of the client
id. A response header is v0 or, for flexible versions, v1, but always v0 for ApiVersions: its reader does not know yet
what the broker speaks.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from ottla.common.frozen import frozen
from ottla.protocol.codec import decode_response, encode_request, encode_response, is_flexible
from ottla.protocol.errors import MalformedMessage
from ottla.protocol.versions import ApiKey

_HEAD: Final = struct.Struct(">hhih")
_CORRELATION_ID: Final = struct.Struct(">i")


@frozen
class ResponseFrame:
    """A response as received: its correlation id and decoded body."""

    correlation_id: int
    message: Any


def encode_request_frame(
    api: ApiKey, version: int, message: Any, *, correlation_id: int, client_id: str | None = None
) -> bytes:
    """Return header and body of a request, without the size prefix."""
    name = None if client_id is None else client_id.encode()
    head = _HEAD.pack(api, version, correlation_id, -1 if name is None else len(name)) + (name or b"")
    return head + (b"\0" if is_flexible(api, version) else b"") + encode_request(api, version, message)


def encode_response_frame(api: ApiKey, version: int, message: Any, *, correlation_id: int) -> bytes:
    """Return header and body of a response, without the size prefix."""
    tags = b"\0" if api is not ApiKey.API_VERSIONS and is_flexible(api, version) else b""
    return _CORRELATION_ID.pack(correlation_id) + tags + encode_response(api, version, message)


def decode_response_frame(api: ApiKey, version: int, frame: bytes) -> ResponseFrame:
    """Split a response, given without the size prefix. Tagged fields of the header are skipped.

    Raises: MalformedMessage, UnsupportedVersion.
    """
    if len(frame) < _CORRELATION_ID.size:
        raise MalformedMessage(f"{api.name} response of {len(frame)} bytes has no header")
    (correlation_id,) = _CORRELATION_ID.unpack_from(frame)
    position = _CORRELATION_ID.size
    if api is not ApiKey.API_VERSIONS and is_flexible(api, version):
        position = _skip_tags(frame, position)
    return ResponseFrame(correlation_id=correlation_id, message=decode_response(api, version, frame[position:]))


def _uvarint(frame: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        if position >= len(frame):
            break
        byte = frame[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise MalformedMessage("tagged fields of a response header are broken")


def _skip_tags(frame: bytes, position: int) -> int:
    count, position = _uvarint(frame, position)
    for _ in range(count):
        _, position = _uvarint(frame, position)
        size, position = _uvarint(frame, position)
        position += size
    return position
