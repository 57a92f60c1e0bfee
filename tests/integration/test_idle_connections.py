"""Thousands of connections that do nothing, or next to nothing, beside a few that are busy."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from ottla.errors import ErrorCode
from ottla.protocol.header import encode_request_frame
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess
from tests.integration.innocent import Innocent, Repeating, memory_bytes
from tests.integration.wire import Wire

CONNECTIONS: Final = 3000
DESCRIPTORS_LEFT: Final = 1000
"""For all else in the test's process and in the broker's."""
SLOW_COUNT: Final = 50
IDLE_MS: Final = 6000
WORST_S: Final = 1.0
"""How long anybody else may have to wait, on a slow machine with other things to do."""
CONNECTION_BYTES_MAX: Final = 16 << 10


@pytest.fixture
def count() -> Iterator[int]:
    """How many connections there may be: as many as the system allows, up to `CONNECTIONS`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(CONNECTIONS, hard - DESCRIPTORS_LEFT)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def say_hello(sock: socket.socket) -> None:
    request = ApiVersionsRequest(client_software_name="idle", client_software_version="1")
    frame = encode_request_frame(ApiKey.API_VERSIONS, 3, request, correlation_id=1, client_id="idle")
    sock.sendall(struct.pack(">i", len(frame)) + frame)
    assert sock.recv(4)


def send_half_a_frame(sock: socket.socket) -> None:
    sock.sendall(struct.pack(">ihhi", 1000, ApiKey.PRODUCE, 9, 1) + bytes(500))


def take_no_answers(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_RD)


def stay_silent(sock: socket.socket) -> None:
    """Connected, and nothing more."""


IDLERS: Final[Sequence[Callable[[socket.socket], None]]] = (say_hello, send_half_a_frame, take_no_answers, stay_silent)


def fetch(topic: str) -> Callable[[Wire, int], None]:
    offset = 0

    def act(wire: Wire, _number: int) -> None:
        nonlocal offset
        data = wire.fetch(topic, offset, max_wait_ms=100)
        assert data.error_code is ErrorCode.NONE
        offset = data.high_watermark

    return act


def heartbeat(group_id: str) -> Callable[[Wire, int], None]:
    joined = ("", -1)

    def act(wire: Wire, number: int) -> None:
        nonlocal joined
        joined = join(wire, group_id) if number == 0 else joined
        member_id, generation = joined
        request = HeartbeatRequest(group_id=group_id, generation_id=generation, member_id=member_id)
        assert wire.ask(ApiKey.HEARTBEAT, 4, request).error_code is ErrorCode.NONE

    return act


def join(wire: Wire, group_id: str) -> tuple[str, int]:
    wire.ask(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=(group_id,)))
    request = JoinGroupRequest(
        group_id=group_id,
        session_timeout_ms=6000,
        rebalance_timeout_ms=6000,
        protocol_type="consumer",
        protocols=(JoinGroupRequestProtocol(name="range", metadata=b""),),
    )
    joined = wire.ask(ApiKey.JOIN_GROUP, 3, request)  # a version that does not ask for a member id first
    assert joined.error_code is ErrorCode.NONE
    sync = SyncGroupRequest(
        group_id=group_id,
        generation_id=joined.generation_id,
        member_id=joined.member_id,
        assignments=(SyncGroupRequestAssignment(member_id=joined.member_id, assignment=b""),),
    )
    assert wire.ask(ApiKey.SYNC_GROUP, 3, sync).error_code is ErrorCode.NONE
    return joined.member_id, joined.generation_id


class SlowSenders(threading.Thread):
    """Each sends a byte of a large frame now and then: slow, and not idle."""

    def __init__(self, socks: Sequence[socket.socket]) -> None:
        super().__init__(daemon=True)
        self._socks = socks
        self._stopping = threading.Event()
        self.failure: OSError | None = None

    def run(self) -> None:
        try:
            for sock in self._socks:
                sock.sendall(struct.pack(">ihhi", 1 << 20, ApiKey.PRODUCE, 9, 1))
            while not self._stopping.wait(IDLE_MS / 1000 / 10):
                for sock in self._socks:
                    sock.sendall(b"\0")
        except OSError as error:
            self.failure = error

    def stop(self) -> None:
        self._stopping.set()
        self.join()
        assert self.failure is None, self.failure


def is_closed(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        while data := sock.recv(1 << 16):
            assert data
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return True


def sockets(broker: BrokerProcess) -> int:
    """Of a broker's process: its connections and its listener."""
    found = 0
    for entry in Path(f"/proc/{broker.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += str(entry.readlink()).startswith("socket:")
    return found


def wait_until_closed(broker: BrokerProcess, wanted: int) -> None:
    deadline_s = time.monotonic() + IDLE_MS / 1000 + 10
    while (left := sockets(broker)) > wanted:
        assert time.monotonic() < deadline_s, f"{left} are open"
        time.sleep(0.1)


def test_idle_connections_cost_little_harm_nobody_and_are_closed(tmp_path: Path, count: int) -> None:
    settings = {"connections.max.idle.ms": str(IDLE_MS)}
    with BrokerProcess(tmp_path / "data", settings=settings) as broker, contextlib.ExitStack() as stack:
        with Innocent(broker, topic="busy") as innocent:
            regulars = [Repeating(broker, act) for act in (fetch("busy"), heartbeat("g"))]
            for regular in regulars:
                regular.start()
            time.sleep(0.5)
            before, before_bytes = sockets(broker), memory_bytes(broker)
            idle = []
            for number in range(count):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", broker.port), timeout=20))
                idle.append(sock)
                if number >= SLOW_COUNT:
                    IDLERS[number % len(IDLERS)](sock)
            slow = SlowSenders(idle[:SLOW_COUNT])
            slow.start()
            with Wire(broker.port):
                pass  # whoever was accepted before it is served by now
            assert sockets(broker) - before > count / 2, "most are idle at the same time"
            assert (memory_bytes(broker) - before_bytes) / count < CONNECTION_BYTES_MAX
            wait_until_closed(broker, before + SLOW_COUNT)
            assert sum(map(is_closed, idle)) == count - SLOW_COUNT
            slow.stop()
            wait_until_closed(broker, before)
            assert all(map(is_closed, idle[:SLOW_COUNT]))
            for regular in regulars:
                regular.stop()
        assert innocent.worst_s < WORST_S
        assert [max(regular.waits_s) < WORST_S for regular in regulars] == [True] * len(regulars)
        said = broker.output_path.read_text()
        assert "Traceback" not in said
        assert "connection_refused" not in said
