"""A blocking client of the wire protocol, for tests that look at single requests and at broken ones."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Any

from ottla.protocol.header import decode_response_frame, encode_request_frame
from ottla.protocol.versions import ApiKey


class Closed(Exception):
    """The broker closed the connection."""


class Wire:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._correlation_id = 0

    def ask(self, api: ApiKey, version: int, message: Any, *, client_id: str | None = "wire") -> Any:
        """Send a request and return the response."""
        self.send(api, version, message, client_id=client_id)
        return self.receive(api, version)

    def send(self, api: ApiKey, version: int, message: Any, *, client_id: str | None = "wire") -> None:
        self._correlation_id += 1
        frame = encode_request_frame(api, version, message, correlation_id=self._correlation_id, client_id=client_id)
        self.send_frame(frame)

    def receive(self, api: ApiKey, version: int) -> Any:
        return decode_response_frame(api, version, self.receive_frame()).message

    def send_frame(self, frame: bytes) -> None:
        self.send_bytes(struct.pack(">i", len(frame)) + frame)

    def send_bytes(self, sent: bytes) -> None:
        self._socket.sendall(sent)

    def receive_frame(self) -> bytes:
        """Return the next response without its size. Raises Closed."""
        (size,) = struct.unpack(">i", self._exactly(4))
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            try:
                chunk = self._socket.recv(size - len(found))
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise Closed
            found += chunk
        return found

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
