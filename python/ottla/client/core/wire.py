"""One connection to a broker as a sans-I/O machine: requests to frames, bytes to responses.

Frames are a 4-byte big-endian size and a header; a broker answers one connection strictly in order, but
correlation ids are checked all the same: a mismatch means that the stream can no longer be trusted.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ottla.protocol.codec import decode_response, encode_request, is_flexible
from ottla.protocol.versions import ApiKey

RESPONSE_BYTES_MAX = 512 * 1024 * 1024


class WireError(Exception):
    """The peer sent something that is no answer to what was asked. The connection is of no use any more."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request under way: what its response is to be read as."""

    correlation_id: int
    api: ApiKey
    version: int


@dataclass(slots=True, kw_only=True)
class Wire:
    """Encodes requests and cuts responses. `receive` returns (correlation id, response) pairs in order."""

    client_id: str
    _next_correlation_id: int = 0
    _pending: deque[Sent] = field(default_factory=deque)
    _buffer: bytearray = field(default_factory=bytearray)

    def request(self, api: ApiKey, version: int, message: Any, *, expect_response: bool = True) -> tuple[int, bytes]:
        """Return (correlation id, frame). With `expect_response` off (acks=0) nothing is awaited."""
        correlation_id = self._next_correlation_id
        self._next_correlation_id = (correlation_id + 1) & 0x7FFFFFFF
        client_id = self.client_id.encode()
        header = struct.pack(f">hhih{len(client_id)}s", api, version, correlation_id, len(client_id), client_id)
        if is_flexible(api, version):
            header += b"\x00"
        body = encode_request(api, version, message)
        if expect_response:
            self._pending.append(Sent(correlation_id, api, version))
        return correlation_id, struct.pack(">i", len(header) + len(body)) + header + body

    def receive(self, data: bytes) -> list[tuple[int, Any]]:
        """Take bytes as they came. Raises WireError, MalformedMessage."""
        self._buffer += data
        responses = []
        while len(self._buffer) >= 4:
            (size,) = struct.unpack_from(">i", self._buffer)
            if not 4 <= size <= RESPONSE_BYTES_MAX:
                raise WireError(f"a response claims {size} bytes")
            if len(self._buffer) < 4 + size:
                break
            frame = bytes(memoryview(self._buffer)[4 : 4 + size])
            del self._buffer[: 4 + size]
            responses.append(self._decode(frame))
        return responses

    def _decode(self, frame: bytes) -> tuple[int, Any]:
        (correlation_id,) = struct.unpack_from(">i", frame)
        if not self._pending:
            raise WireError(f"a response with correlation id {correlation_id} that nothing asked for")
        sent = self._pending.popleft()
        if sent.correlation_id != correlation_id:
            raise WireError(f"correlation id {correlation_id}, expected {sent.correlation_id}")
        position = 4
        if sent.api is ApiKey.API_VERSIONS:
            # An older broker answers in version 0, whatever was asked (KIP-511).
            version = 0 if frame[4:6] == b"\x00\x23" else sent.version
            return correlation_id, decode_response(sent.api, version, frame[4:])
        if is_flexible(sent.api, sent.version):
            if frame[4:5] != b"\x00":
                raise WireError("tagged fields in a response header")
            position = 5
        return correlation_id, decode_response(sent.api, sent.version, frame[position:])
