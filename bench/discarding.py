"""A broker that keeps nothing: what a load makes of it is what that load can do at most.

An Ottla behind it names its address to clients and answers all else; Produce is received, answered at once and
forgotten. `python -m bench.discarding PORT DIRECTORY` serves until it is killed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from ottla.protocol.header import encode_response_frame
from ottla.protocol.messages.produce import PartitionProduceResponse, ProduceResponse, TopicProduceResponse
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess

VERSION = 13
"""Of Produce: what the clients of Apache Kafka 4.3.1 send, and all that is understood here."""
REQUEST_BYTES_MAX = 8 * 2**20
_HEAD = struct.Struct(">hhih")
_ACKS_AND_TIMEOUT_BYTES = 6
_UUID_BYTES = 16


def _uvarint(frame: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while frame[position] & 0x80:
        value |= (frame[position] & 0x7F) << shift
        shift += 7
        position += 1
    return value | frame[position] << shift, position + 1


def produced_to(frame: memoryview) -> Iterator[tuple[uuid.UUID, list[int]]]:
    """The topic ids of a Produce request (version 13, without its size), each with the indexes of its partitions."""
    *_, client_id_bytes = _HEAD.unpack_from(frame)
    position = _HEAD.size + max(client_id_bytes, 0) + 1
    transactional_id_bytes, position = _uvarint(frame, position)
    position += max(transactional_id_bytes - 1, 0) + _ACKS_AND_TIMEOUT_BYTES
    topics, position = _uvarint(frame, position)
    for _ in range(topics - 1):
        topic_id = uuid.UUID(bytes=bytes(frame[position : position + _UUID_BYTES]))
        partitions, position = _uvarint(frame, position + _UUID_BYTES)
        indexes = []
        for _ in range(partitions - 1):
            indexes.append(int.from_bytes(frame[position : position + 4]))
            records_bytes, position = _uvarint(frame, position + 4)
            position += max(records_bytes - 1, 0) + 1
        position += 1
        yield topic_id, indexes


def answer(frame: memoryview) -> bytes:
    """The response to a Produce request, with its size in front: all was appended. Raises: RuntimeError."""
    _, version, correlation_id, _ = _HEAD.unpack_from(frame)
    if version != VERSION:
        raise RuntimeError(f"Produce version {version} where only {VERSION} is understood")
    topics = tuple(
        TopicProduceResponse(
            topic_id=topic_id,
            partition_responses=tuple(
                PartitionProduceResponse(index=index, base_offset=0, log_append_time_ms=-1, log_start_offset=0)
                for index in indexes
            ),
        )
        for topic_id, indexes in produced_to(frame)
    )
    response = encode_response_frame(
        ApiKey.PRODUCE, version, ProduceResponse(responses=topics), correlation_id=correlation_id
    )
    return struct.pack(">i", len(response)) + response


class _Frames:
    """Frames of one connection, read into one buffer."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._buffer = memoryview(bytearray(REQUEST_BYTES_MAX))

    def next(self) -> memoryview:
        """The next frame with its size in front, until the one after it is read. Raises: EOFError, OSError."""
        self._fill(0, 4)
        end = 4 + int.from_bytes(self._buffer[:4])
        self._fill(4, end)
        return self._buffer[:end]

    def _fill(self, position: int, end: int) -> None:
        while position < end:
            count = self._connection.recv_into(self._buffer[position:end])
            if not count:
                raise EOFError
            position += count


def _serve(client: socket.socket, behind_port: int) -> None:
    behind = socket.create_connection(("127.0.0.1", behind_port))
    with client, behind, contextlib.suppress(EOFError, OSError):
        requests, answers = _Frames(client), _Frames(behind)
        while True:
            request = requests.next()
            if int.from_bytes(request[4:6]) == ApiKey.PRODUCE:
                client.sendall(answer(request[4:]))
            else:
                behind.sendall(request)
                client.sendall(answers.next())


def main(port: int, directory: Path) -> None:
    """Serve until killed."""
    settings = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}"}
    with BrokerProcess(directory / "data", settings=settings) as behind:
        listener = socket.create_server(("127.0.0.1", port))
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, behind.port), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
