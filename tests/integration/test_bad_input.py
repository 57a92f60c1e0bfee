"""Bytes that no client should send: an answer or a closed connection, bounded memory, and nobody else is hurt."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.errors import ErrorCode
from ottla.protocol.header import encode_request_frame
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.metadata import MetadataRequest
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess
from tests.integration.wire import Closed, Wire

GROWTH_BYTES_MAX = 24 << 20
"""What an attack may cost in memory, allocator and idle sessions included."""


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("victim") / "data") as broker:
        with Wire(broker.port) as wire:
            wire.create("topic")
        yield broker


@pytest.fixture(autouse=True)
def others_are_served(victim: BrokerProcess) -> Iterator[None]:
    """A client that was served before is served after, and the attack was paid for by nobody's memory."""
    with Wire(victim.port) as wire:
        assert wire.produce("topic", b"here").error_code is ErrorCode.NONE
        before_bytes = rss_bytes(victim)
        yield
        started_s = time.monotonic()
        assert wire.produce("topic", b"still here").error_code is ErrorCode.NONE
        assert time.monotonic() - started_s < 2
        assert rss_bytes(victim) - before_bytes < GROWTH_BYTES_MAX


def rss_bytes(broker: BrokerProcess) -> int:
    status = Path(f"/proc/{broker.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))


def connect(broker: BrokerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", broker.port), timeout=5)


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def fetch_frame(*, max_wait_ms: int, min_bytes: int) -> bytes:
    wanted = FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)
    topics = (FetchTopic(topic="topic", partitions=(wanted,)),)
    request = FetchRequest(max_wait_ms=max_wait_ms, min_bytes=min_bytes, topics=topics)
    frame = encode_request_frame(ApiKey.FETCH, 12, request, correlation_id=1, client_id="bad")
    return struct.pack(">i", len(frame)) + frame


@pytest.mark.parametrize("size", [-(2**31), -1, 0, 1, 7, 100 * 1024 * 1024 + 1, 2**31 - 1])
def test_frames_of_impossible_sizes_end_the_connection(victim: BrokerProcess, size: int) -> None:
    with connect(victim) as sock:
        sock.sendall(struct.pack(">i", size) + bytes(64))
        assert is_closed(sock)


def test_memory_is_taken_as_bytes_arrive_not_as_a_length_announces(victim: BrokerProcess) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            sock = stack.enter_context(connect(victim))
            sock.sendall(struct.pack(">ihhih", 100 << 20, ApiKey.PRODUCE, 9, 1, -1) + bytes(100))
        time.sleep(0.2)
        assert rss_bytes(victim) < 200 << 20


def test_a_client_that_sends_byte_by_byte_is_answered(victim: BrokerProcess) -> None:
    frame = encode_request_frame(ApiKey.METADATA, 9, MetadataRequest(topics=()), correlation_id=1, client_id="slow")
    with Wire(victim.port) as wire:
        for byte in struct.pack(">i", len(frame)) + frame:
            wire.send_bytes(bytes((byte,)))
        assert wire.receive(ApiKey.METADATA, 9).error_code is ErrorCode.NONE


@pytest.mark.parametrize(("max_wait_ms", "min_bytes"), [(0, 1), (600_000, 1 << 30)], ids=["answered", "parked"])
def test_requests_without_end_whose_replies_nobody_reads(
    victim: BrokerProcess, max_wait_ms: int, min_bytes: int
) -> None:
    with connect(victim) as sock:
        sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):  # the broker stopped reading: just what it should do
            sock.sendall(fetch_frame(max_wait_ms=max_wait_ms, min_bytes=min_bytes) * 20_000)


def test_a_client_that_leaves_while_its_fetch_waits_is_noticed_at_once(victim: BrokerProcess) -> None:
    descriptors = Path(f"/proc/{victim.pid}/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(50):
        with connect(victim) as sock:
            sock.sendall(fetch_frame(max_wait_ms=600_000, min_bytes=1 << 30))
    deadline_s = time.monotonic() + 3
    while len(list(descriptors.iterdir())) > before and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert len(list(descriptors.iterdir())) <= before


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_are_refused_or_answered(victim: BrokerProcess, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(100):
        body = chance.randbytes(chance.choice((1, 8, 50, 400, 5000)))
        with connect(victim) as sock, contextlib.suppress(OSError):
            sock.sendall(body if chance.random() < 0.3 else struct.pack(">i", len(body)) + body)


def test_every_api_with_bodies_that_claim_too_much(victim: BrokerProcess) -> None:
    bodies = (b"", b"\x7f\xff\xff\xff" * 10, b"\xff" * 40, b"\0\0\0" + b"\xff\xff\xff\xff\x07" * 8, bytes(80))
    for key in [*range(95), 999, -1, 32767]:
        for version in (0, 1, 4, 9, 13, -1, 32767):
            for body in bodies:
                frame = struct.pack(">hhih", key, version, 1, 1) + b"c" + body
                with connect(victim) as sock, contextlib.suppress(OSError):
                    sock.sendall(struct.pack(">i", len(frame)) + frame)
    assert "Traceback" not in victim.output_path.read_text()


def test_a_busy_connection_beside_hundreds_of_idle_ones(victim: BrokerProcess) -> None:
    with contextlib.ExitStack() as stack, Wire(victim.port) as busy:
        for _ in range(400):  # the usual limit of descriptors of one process is 1024, and this one has others
            stack.enter_context(connect(victim))
        started_s = time.monotonic()
        for _ in range(100):
            assert busy.produce("topic", b"busy").error_code is ErrorCode.NONE
        assert time.monotonic() - started_s < 5


def test_bytes_behind_an_unfinished_frame_do_not_answer_anything(victim: BrokerProcess) -> None:
    with Wire(victim.port) as wire:
        wire.send_bytes(struct.pack(">i", 50) + bytes(10))
        wire._socket.shutdown(socket.SHUT_WR)
        with pytest.raises(Closed):
            wire.receive_frame()
