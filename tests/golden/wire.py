"""Raw connections to a broker, and answers as plain JSON values that can be compared between brokers."""

from __future__ import annotations

import dataclasses
import re
import socket
import struct
import uuid
from types import TracebackType
from typing import Any

from ottla.errors import ErrorCode
from ottla.protocol.codec import MalformedMessage, decode_response, encode_request, is_flexible
from ottla.protocol.versions import API_VERSIONS, ApiKey
from tests.golden.batch import summary_of_batches

CLOSED = "the connection is closed"
TIMEOUT_SECONDS = 15.0

_OMITTED = {
    "throttle_time_ms",
    "host",
    "port",
    "hmac",
    "total_bytes",
    "usable_bytes",
    "log_dir",
    "finalized_features_epoch",
}
_TEXTS = {"error_message", "documentation", "batch_index_error_message", "acknowledge_error_message"}
_BROKER_IDS = {"leader_id", "node_id", "broker_id", "controller_id", "replica_id"}
_BROKER_ID_LISTS = {"replica_nodes", "isr_nodes", "offline_replicas", "eligible_leader_replicas", "last_known_elr"}
_MEMBER_IDS = {"member_id", "leader"}
_SHORT_UUID = re.compile(r"[A-Za-z0-9_-]{22}")
"""As Kafka writes the ids of classic members in consumer groups."""
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class ClosedByBroker(Exception):
    """The broker closed the connection where an answer was expected."""


class Connection:
    """One socket on which requests are written and answers are read in lockstep."""

    def __init__(self, address: tuple[str, int], *, client_id: str | None = "probe") -> None:
        self.socket = socket.create_connection(address, timeout=TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client_id = client_id
        self.correlation_id = 0

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send_bytes(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ClosedByBroker from error

    def send_frame(self, frame: bytes) -> None:
        self.send_bytes(struct.pack(">i", len(frame)) + frame)

    def receive_frame(self) -> bytes:
        """Return the next frame without its length. Raises ClosedByBroker; TimeoutError after 15 s of silence."""
        (size,) = struct.unpack(">i", self._receive_exactly(4))
        return self._receive_exactly(size)

    def _receive_exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                chunk = self.socket.recv(size - len(data))
            except ConnectionResetError as error:
                raise ClosedByBroker from error
            if not chunk:
                raise ClosedByBroker
            data += chunk
        return bytes(data)

    def request_header(self, key: int, version: int, *, flexible: bool) -> bytes:
        self.correlation_id += 1
        client_id = b"" if self.client_id is None else self.client_id.encode()
        length = -1 if self.client_id is None else len(client_id)
        header = struct.pack(">hhih", key, version, self.correlation_id, length) + client_id
        return header + b"\0" if flexible else header

    def send(self, api: ApiKey, version: int, body: bytes) -> None:
        self.send_frame(self.request_header(api, version, flexible=is_flexible(api, version)) + body)

    def receive_body(self, *, flexible: bool) -> bytes:
        """Return the body of the next answer, which must belong to the last request sent."""
        frame = self.receive_frame()
        (correlation_id,) = struct.unpack_from(">i", frame)
        assert correlation_id == self.correlation_id, f"answer to {correlation_id}, awaited {self.correlation_id}"
        if not flexible:
            return frame[4:]
        assert frame[4] == 0, "tagged fields in a response header"
        return frame[5:]

    def call(self, api: ApiKey, version: int, message: Any) -> Any:
        """Send a message and return the decoded answer. Raises ClosedByBroker."""
        self.send(api, version, encode_request(api, version, message))
        flexible = api is not ApiKey.API_VERSIONS and is_flexible(api, version)
        body = self.receive_body(flexible=flexible)
        try:
            return decode_response(api, version, body)
        except MalformedMessage as error:
            raise MalformedMessage(body.hex()) from error


def newest(api: ApiKey) -> int:
    return API_VERSIONS[api][1]


def plain(value: Any, *, run: str, name: str = "") -> Any:
    """Turn an answer into JSON values, without what differs between two brokers that behave alike.

    Fields that have their default are left out, as are addresses and throttle times. Broker ids, uuids, texts for
    humans and the name of the run are replaced by placeholders; lists of structures are sorted, as Kafka sends many
    in the order of a hash map.
    """
    if isinstance(value, ErrorCode):
        return value.name
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return _plain_number(value, name)
    if isinstance(value, str):
        if name in _TEXTS:
            return "<text>" if value else None
        if name == "cluster_id":
            return "<cluster>"
        if name in _MEMBER_IDS and _SHORT_UUID.fullmatch(value):
            return "<uuid>"
        return _UUID.sub("<uuid>", value.replace(run, "RUN"))
    if isinstance(value, uuid.UUID):
        return "<uuid>"
    if isinstance(value, bytes):
        return summary_of_batches(value) if name == "records" else value.replace(run.encode(), b"RUN").hex()
    if isinstance(value, tuple | list):
        items = [plain(item, run=run, name=name) for item in value]
        return sorted(items, key=repr) if value and dataclasses.is_dataclass(value[0]) else items
    if isinstance(value, dict):
        return {str(key): plain(item, run=run, name=str(key)) for key, item in value.items()}
    assert dataclasses.is_dataclass(value), value
    return {
        f.name: plain(getattr(value, f.name), run=run, name=f.name)
        for f in dataclasses.fields(value)
        if f.name not in _OMITTED and not _has_default(value, f)
    }


def _has_default(value: Any, f: dataclasses.Field[Any]) -> bool:
    default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
    return bool(getattr(value, f.name) == default)


def _plain_number(value: int, name: str) -> int | str:
    if value >= 0 and (name in _BROKER_IDS or name in _BROKER_ID_LISTS):
        return "<broker>"
    if value >= 0 and name == "producer_id":
        return "<producer>"
    if value > 0 and name in {"log_append_time_ms", "last_fetch_timestamp", "last_caught_up_timestamp"}:
        return "<time>"
    return value
