"""A data plane on a real directory, and one client that speaks bytes to it over a socket pair."""

from __future__ import annotations

import select
import socket
import struct
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kio.serial import entity_reader

from ottla._native import DataPlane, Partition
from ottla.broker.data_dirs import open_data_dirs
from ottla.protocol.codec import decode_response, encode_request, is_flexible
from ottla.protocol.generate import kio_class
from ottla.protocol.versions import ApiKey

if TYPE_CHECKING:
    from ottla._native import Request

CORRELATION_ID = 0x01020304
WAIT_SECONDS_MAX = 20.0


def now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class NativeLab:
    """Topics by name with a number of partitions; `ask` sends a request and returns the response as our dataclass."""

    def __init__(self, directory: Path, topics: dict[str, int], **options: str) -> None:
        open_data_dirs([str(directory)], node_id=1)
        self.plane = DataPlane(broker_id=1, log_dirs=[str(directory)], options=options)
        self.topic_ids = {topic: uuid.uuid5(uuid.NAMESPACE_DNS, topic) for topic in topics}
        self.partitions: dict[tuple[str, int], Partition] = {}
        for topic, count in topics.items():
            for index in range(count):
                self.partitions[topic, index] = self.plane.create_partition(
                    topic, index, topic_id=self.topic_ids[topic].bytes, config={}, leader_epoch=0, wall_ms=wall_ms()
                )
        self.client, self.server = socket.socketpair()
        self.server.setblocking(False)
        self.session_id = self.plane.open_session(self.server.fileno(), now_ms())

    def __enter__(self) -> NativeLab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.plane.close_session(self.session_id)
        self.client.close()
        self.server.close()
        self.plane.close(now_ms(), wall_ms())

    def poll(self) -> tuple[bool, list[Request]]:
        """Returns (is_over, requests) of the client's session."""
        is_over, owed = False, []
        for session_id, session_is_over, session_owed in self.plane.poll(now_ms(), wall_ms())[0]:
            assert session_id == self.session_id
            is_over |= session_is_over
            owed += session_owed
        return is_over, owed

    def turn(self, *, wait_seconds: float = 0.02) -> list[Request]:
        """Do what a shell does: wait for the descriptor, and poll."""
        self.wait(wait_seconds)
        is_over, owed = self.poll()
        assert not is_over, self.plane.close_reason(self.session_id)
        return owed

    def wait(self, seconds: float = WAIT_SECONDS_MAX) -> bool:
        """Wait until there is something to poll for."""
        return bool(select.select([self.plane.wakeup_fileno()], [], [], seconds)[0])

    def ask(self, api: ApiKey, version: int, message: Any) -> Any:
        flexible = is_flexible(api, version)
        header = struct.pack(">hhih4s", api, version, CORRELATION_ID, 4, b"test") + (b"\0" if flexible else b"")
        body = encode_request(api, version, message)
        self.client.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        response = self._receive()
        assert struct.unpack_from(">i", response) == (CORRELATION_ID,)
        if flexible:
            assert response[4] == 0
        body = response[5 if flexible else 4 :]
        _, size = entity_reader(kio_class(api, version, "response"))(body, 0)
        assert size == len(body), "kio reads every byte"
        return decode_response(api, version, body)

    def _receive(self) -> bytes:
        received = b""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while len(received) < 4 or len(received) < 4 + int.from_bytes(received[:4], "big"):
            assert time.monotonic() < deadline, "no response"
            assert not self.turn()
            if select.select([self.client], [], [], 0)[0]:
                received += self.client.recv(1 << 20)
        return received[4:]
