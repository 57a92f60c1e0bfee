"""Clients that want to do harm within the rules: requests that are cheap to send and dear to serve."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ottla._native import build_batch
from ottla.errors import ErrorCode
from ottla.protocol.header import encode_request_frame
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics
from ottla.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess
from tests.integration.innocent import Innocent
from tests.integration.wire import Wire

pytestmark = pytest.mark.alone

MIB = 1 << 20
WORST_S = 1.0
"""How long anybody else may have to wait, on a slow machine with other things to do."""
NOW_MS = int(time.time() * 1000)


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    settings = {"connections.max.idle.ms": "3000", "log.segment.bytes": str(16 * MIB)}
    with BrokerProcess(tmp_path_factory.mktemp("victim") / "data", settings=settings) as broker:
        with Wire(broker.port) as wire:
            wire.create("topic")
            wire.create("empty")
            wire.create_with("compacted", cleanup_policy="compact")
        yield broker
        assert "Traceback" not in broker.output_path.read_text()


def connect(broker: BrokerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", broker.port), timeout=20)


def framed(api: ApiKey, version: int, message: object) -> bytes:
    frame = encode_request_frame(api, version, message, correlation_id=1, client_id="bad")
    return struct.pack(">i", len(frame)) + frame


def produce_frame(*batches: bytes | None, topic: str = "topic") -> bytes:
    data = tuple(PartitionProduceData(index=i, records=batch) for i, batch in enumerate(batches))
    return framed(
        ApiKey.PRODUCE,
        9,
        ProduceRequest(acks=1, timeout_ms=1000, topic_data=(TopicProduceData(name=topic, partition_data=data),)),
    )


def reply(sock: socket.socket) -> bytes | None:
    """The next response; None: the connection was closed."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while len(received) < 4 or len(received) < 4 + int.from_bytes(received[:4], "big"):
            chunk = sock.recv(1 << 20)
            if not chunk:
                return None
            received += chunk
        return received[4:]
    return None


@pytest.mark.parametrize(
    ("codec", "expands_to_bytes"), [("gzip", 60 * MIB), ("snappy", 16 * MIB), ("lz4", 60 * MIB), ("zstd", 60 * MIB)]
)
def test_payloads_that_expand_without_end_delay_nobody(
    victim: BrokerProcess, codec: str, expands_to_bytes: int
) -> None:
    """A zstd payload of two kilobytes takes a worker as long as one of two megabytes: size says nothing."""
    bomb = build_batch([(None, bytes(expands_to_bytes), NOW_MS, ())], compression=codec)
    assert len(bomb) < 1_000_000
    frame = produce_frame(bomb)
    with Innocent(victim) as innocent, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(victim)) for _ in range(40)]
        for sock in socks:
            sock.sendall(frame)
        for sock in socks:
            assert reply(sock) is not None
    assert innocent.worst_s < WORST_S
    assert innocent.grown_bytes < 256 * MIB


def test_a_batch_of_bad_records_is_not_answered_with_megabytes(victim: BrokerProcess) -> None:
    records = [(None, None, NOW_MS, ())] * 300_000
    batch = build_batch(records, compression="zstd")
    assert len(batch) < 700_000
    with Innocent(victim) as innocent, connect(victim) as sock:
        sock.sendall(produce_frame(batch, topic="compacted"))
        answer = reply(sock)
        assert answer is not None
        assert b"300000 of 300000 records rejected" in answer
        assert len(answer) < 200_000
    assert innocent.worst_s < WORST_S


COUNT = 1_000_000
TOO_LONG = {
    "Produce": framed(ApiKey.PRODUCE, 3, ProduceRequest(acks=1))[:-4]
    + struct.pack(">ih5si", 1, 5, b"topic", COUNT)
    + struct.pack(">ii", 0, -1) * COUNT,
    "Fetch": framed(ApiKey.FETCH, 4, FetchRequest(max_wait_ms=0))[:-4]
    + struct.pack(">ih5si", 1, 5, b"nopic", COUNT)
    + struct.pack(">iqi", 0, 0, 1) * COUNT,
    "Metadata": framed(ApiKey.METADATA, 1, MetadataRequest(topics=()))[:-4]
    + struct.pack(">i", COUNT)
    + struct.pack(">h1s", 1, b"a") * COUNT,
    "ListOffsets": framed(ApiKey.LIST_OFFSETS, 1, ListOffsetsRequest(topics=()))[:-4]
    + struct.pack(">ih5si", 1, 5, b"topic", COUNT)
    + struct.pack(">iq", 0, -1) * COUNT,
    "ListOffsets of topics": framed(ApiKey.LIST_OFFSETS, 1, ListOffsetsRequest(topics=()))[:-4]
    + struct.pack(">i", COUNT)
    + struct.pack(">hi", 0, 0) * COUNT,
}
"""Requests whose arrays hold what they claim, and claim what nobody has."""


@pytest.mark.parametrize("name", TOO_LONG)
def test_requests_for_a_million_things_end_the_connection(victim: BrokerProcess, name: str) -> None:
    body = TOO_LONG[name][4:]
    with Innocent(victim) as innocent, connect(victim) as sock:
        sock.sendall(struct.pack(">i", len(body)) + body)
        assert reply(sock) is None
    assert innocent.worst_s < WORST_S
    assert innocent.grown_bytes < 128 * MIB
    assert "above 100000" in victim.output_path.read_text()


MANY = range(45_000)
LONG: dict[str, Callable[[], bytes]] = {
    "Fetch": lambda: framed(
        ApiKey.FETCH,
        12,
        FetchRequest(
            max_wait_ms=0,
            topics=tuple(FetchTopic(topic=f"t{i}", partitions=(FetchPartition(partition_max_bytes=1),)) for i in MANY),
        ),
    ),
    "Metadata": lambda: framed(
        ApiKey.METADATA,
        9,
        MetadataRequest(
            topics=tuple(MetadataRequestTopic(name=f"t{i}") for i in MANY), allow_auto_topic_creation=False
        ),
    ),
    "ListOffsets": lambda: framed(
        ApiKey.LIST_OFFSETS,
        6,
        ListOffsetsRequest(
            topics=(
                ListOffsetsTopic(
                    name="topic",
                    partitions=tuple(ListOffsetsPartition(partition_index=i, timestamp=-1) for i in MANY),
                ),
            )
        ),
    ),
    "OffsetFetch": lambda: framed(
        ApiKey.OFFSET_FETCH,
        8,
        OffsetFetchRequest(
            groups=(
                OffsetFetchRequestGroup(
                    group_id="g", topics=(OffsetFetchRequestTopics(name="topic", partition_indexes=tuple(MANY)),)
                ),
            )
        ),
    ),
}
"""What a large client might just ask."""


@pytest.mark.parametrize("name", LONG)
def test_requests_for_very_many_things_are_answered_beside_others(victim: BrokerProcess, name: str) -> None:
    frame = LONG[name]()
    with Innocent(victim) as innocent, connect(victim) as sock:
        for _ in range(3):
            sock.sendall(frame)
            assert reply(sock) is not None
    assert innocent.worst_s < WORST_S
    assert innocent.grown_bytes < 160 * MIB


@pytest.mark.parametrize("count", [1, 50], ids=["one client", "fifty clients"])
def test_clients_that_do_not_wait_for_their_answers(victim: BrokerProcess, count: int) -> None:
    """One request follows the other as fast as it is answered, without end: others have their turns between them."""
    total = 8_000
    frames = framed(ApiKey.METADATA, 9, MetadataRequest(topics=None)) * (total // count)
    with Innocent(victim) as innocent, contextlib.ExitStack() as stack:
        readers = []
        for _ in range(count):
            sock = stack.enter_context(connect(victim))
            reader = threading.Thread(target=lambda sock=sock: [reply(sock) for _ in range(total // count)])
            reader.start()
            readers.append(reader)
            sender = threading.Thread(target=sock.sendall, args=(frames,))
            sender.start()
            readers.append(sender)
        for thread in readers:
            thread.join()
    assert innocent.worst_s < WORST_S
    assert innocent.grown_bytes < 64 * MIB


def test_a_client_that_left_is_noticed_behind_all_that_it_sent_before(victim: BrokerProcess) -> None:
    """Nothing is received from a connection that has much waiting behind a parked fetch; its end must still be seen."""
    wanted = FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)
    fetch = FetchRequest(
        max_wait_ms=2**31 - 1, min_bytes=2**31 - 1, topics=(FetchTopic(topic="empty", partitions=(wanted,)),)
    )
    frames = framed(ApiKey.FETCH, 12, fetch) * 5000
    before = open_descriptors(victim)
    for _ in range(20):
        with connect(victim) as sock:
            sock.sendall(frames)
    wait_for_descriptors(victim, before + 1)


def open_descriptors(broker: BrokerProcess) -> int:
    return len(list(Path(f"/proc/{broker.pid}/fd").iterdir()))


def wait_for_descriptors(broker: BrokerProcess, wanted: int, *, timeout_s: float = 10) -> None:
    deadline_s = time.monotonic() + timeout_s
    while open_descriptors(broker) > wanted:
        assert time.monotonic() < deadline_s, "connections of clients that left are still open"
        time.sleep(0.02)


def parked_fetch() -> bytes:
    topics = (FetchTopic(topic="empty", partitions=(FetchPartition(partition_max_bytes=1 << 20),)),)
    return framed(ApiKey.FETCH, 12, FetchRequest(max_wait_ms=2**31 - 1, min_bytes=1, topics=topics))


def test_thousands_of_clients_that_park_a_fetch_and_leave(victim: BrokerProcess) -> None:
    frame = parked_fetch()
    before = open_descriptors(victim)
    with Innocent(victim) as innocent:
        for _ in range(10):
            with contextlib.ExitStack() as stack:
                for _ in range(300):
                    stack.enter_context(connect(victim)).sendall(frame)
            wait_for_descriptors(victim, before + 1)
    assert innocent.worst_s < WORST_S
    assert innocent.grown_bytes < 48 * MIB


def test_connections_that_come_and_go(victim: BrokerProcess) -> None:
    before = open_descriptors(victim)
    with Innocent(victim) as innocent:
        for n in range(3000):
            with connect(victim) as sock:
                if n % 3 == 1:
                    sock.sendall(b"\0")
                elif n % 3 == 2:  # a reset instead of an end
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_for_descriptors(victim, before + 1)
    assert innocent.worst_s < WORST_S
    assert innocent.grown_bytes < 32 * MIB


def test_readers_that_never_read_are_closed_in_the_end(victim: BrokerProcess) -> None:
    value = random.Random(1).randbytes(500_000)
    with Wire(victim.port) as wire:
        wire.create("large")
        for _ in range(20):
            assert wire.produce("large", value).error_code is ErrorCode.NONE
    wanted = FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 30)
    topics = (FetchTopic(topic="large", partitions=(wanted,)),)
    frames = framed(ApiKey.FETCH, 12, FetchRequest(max_wait_ms=0, max_bytes=1 << 30, topics=topics)) * 10
    before = open_descriptors(victim)
    with contextlib.ExitStack() as stack, Innocent(victim) as innocent:
        readers = [stack.enter_context(connect(victim)) for _ in range(200)]
        for reader in readers:
            reader.sendall(frames)
        for reader in readers:
            assert reader.recv(1), "it has been accepted and answered: the first byte is all that it reads"
        wait_for_descriptors(victim, before + 5)
    assert innocent.worst_s < WORST_S
    assert innocent.grown_bytes < 48 * MIB
    assert 'reason="idle"' in victim.output_path.read_text() or "reason=idle" in victim.output_path.read_text()


def test_large_frames_that_arrive_byte_by_byte(victim: BrokerProcess) -> None:
    """Of a hundred megabytes that each announces, each sends some kilobytes, in the smallest pieces."""
    head = struct.pack(">ihhih", 100 << 20, ApiKey.PRODUCE, 9, 1, -1)
    with contextlib.ExitStack() as stack, Innocent(victim) as innocent:
        socks = [stack.enter_context(connect(victim)) for _ in range(100)]
        for sock in socks:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(head + bytes(15_000))
        for _ in range(200):
            for sock in socks:
                sock.sendall(b"\0")
    assert innocent.worst_s < WORST_S
    assert innocent.grown_bytes < 32 * MIB


def join_frame(group_id: str, *, member_id: str = "", protocols: int = 1, metadata_bytes: int = 0) -> bytes:
    request = JoinGroupRequest(
        group_id=group_id,
        session_timeout_ms=10_000,
        rebalance_timeout_ms=10_000,
        member_id=member_id,
        protocol_type="consumer",
        protocols=tuple(
            JoinGroupRequestProtocol(name=f"p{i}", metadata=bytes(metadata_bytes)) for i in range(protocols)
        ),
    )
    return framed(ApiKey.JOIN_GROUP, 3, request)  # a version that does not ask for a member id first


def test_storms_of_members_with_huge_subscriptions(victim: BrokerProcess) -> None:
    before = open_descriptors(victim)
    with Innocent(victim) as innocent, contextlib.ExitStack() as stack:
        with Wire(victim.port) as wire:
            wire.ask(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=("storm",)))
        for _ in range(60):
            stack.enter_context(connect(victim)).sendall(join_frame("storm", metadata_bytes=1 << 20))
        for _ in range(20):
            stack.enter_context(connect(victim)).sendall(join_frame("storm", protocols=20_000))
        time.sleep(1)
    assert innocent.worst_s < WORST_S
    wait_for_descriptors(victim, before + 1)
