"""The native calls on real sockets: large answers through small buffers, clients that stall, leave or send nonsense."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla._native import build_batch, decode_batches
from ottla.protocol.codec import decode_response, encode_request
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from ottla.protocol.versions import ApiKey
from tests.property.native_lab import NativeLab, now_ms, wall_ms

MIB = 1 << 20
SECONDS_MAX = 30.0


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[NativeLab]:
    with NativeLab(tmp_path / "data", {"t": 1}) as lab:
        yield lab


METADATA = struct.pack(">ihhihc", 11, ApiKey.METADATA, 1, 7, 1, b"c")


def frame(api: ApiKey, version: int, message: object, *, correlation_id: int = 1) -> bytes:
    header = struct.pack(">hhih4s", api, version, correlation_id, 4, b"test")
    body = encode_request(api, version, message)
    return struct.pack(">i", len(header) + len(body)) + header + body


def produce(records: bytes, *, acks: int = -1, correlation_id: int = 1) -> bytes:
    data = TopicProduceData(name="t", partition_data=(PartitionProduceData(index=0, records=records),))
    request = ProduceRequest(acks=acks, timeout_ms=30_000, topic_data=(data,))
    return frame(ApiKey.PRODUCE, 8, request, correlation_id=correlation_id)


def fetch(offset: int, *, max_bytes: int = 64 * MIB, max_wait_ms: int = 0, correlation_id: int = 1) -> bytes:
    wanted = FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=max_bytes)
    topic = FetchTopic(topic="t", partitions=(wanted,))
    request = FetchRequest(max_wait_ms=max_wait_ms, min_bytes=1, max_bytes=max_bytes, topics=(topic,))
    return frame(ApiKey.FETCH, 11, request, correlation_id=correlation_id)


def batch(size: int) -> bytes:
    return build_batch([(None, b"x" * size, wall_ms(), [])])


def fill(lab: NativeLab, batches: int, size: int) -> None:
    for _ in range(batches):
        lab.partitions["t", 0].append_batch(batch(size), wall_ms=wall_ms())
    while lab.partitions["t", 0].offsets().high_watermark < batches:
        lab.turn()


def receive_frame(client: socket.socket) -> bytes:
    client.settimeout(SECONDS_MAX)
    (size,) = struct.unpack(">i", client.recv(4, socket.MSG_WAITALL))
    received = bytearray()
    while len(received) < size:
        received += client.recv(size - len(received))
    return bytes(received)


def serve_until(lab: NativeLab, done: threading.Event) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not done.is_set():
        assert time.monotonic() < deadline
        assert lab.turn() == []


def ends(lab: NativeLab) -> bool:
    """Whether the data plane says within a few seconds that the connection is over."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        lab.wait(0.02)
        is_over, owed = lab.poll()
        assert not owed
        if is_over:
            return True
    return False


def in_thread(work: object, *args: object) -> tuple[list[bytes], threading.Event]:
    results: list[bytes] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(work(*args))  # type: ignore[operator]
        finally:
            done.set()

    threading.Thread(target=run, daemon=True).start()
    return results, done


def test_a_large_answer_leaves_in_pieces_through_a_small_buffer(lab: NativeLab) -> None:
    fill(lab, 40, 500_000)
    lab.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    lab.client.sendall(fetch(0))
    results, done = in_thread(receive_frame, lab.client)
    serve_until(lab, done)
    response = decode_response(ApiKey.FETCH, 11, results[0][4:])
    (partition,) = response.responses[0].partitions
    assert [b.base_offset for b in decode_batches(partition.records or b"")] == list(range(40))


def test_many_partitions_in_one_answer_keep_their_bytes_apart(tmp_path: Path) -> None:
    topics = {f"t{n}": 3 for n in range(40)}
    with NativeLab(tmp_path / "data", topics) as lab:
        for n, partition in enumerate(lab.partitions.values()):
            # From ranges small enough to be copied to ones that are sent from the file.
            for size in (n * 10, n * 1000):
                records = build_batch([(None, bytes([n]) * size, wall_ms(), [])])
                partition.append_batch(records, wall_ms=wall_ms())
        while any(p.offsets().high_watermark < 2 for p in lab.partitions.values()):
            lab.turn()
        wanted = tuple(
            FetchTopic(
                topic=topic,
                partitions=tuple(FetchPartition(partition=i, partition_max_bytes=MIB) for i in range(count)),
            )
            for topic, count in topics.items()
        )
        response = lab.ask(ApiKey.FETCH, 11, FetchRequest(max_wait_ms=0, max_bytes=64 * MIB, topics=wanted))
        values = [
            [value for b in decode_batches(partition.records or b"") for _, _, _, value, _ in b.records]
            for topic in response.responses
            for partition in topic.partitions
        ]
        assert values == [[bytes([n]) * (n * 10), bytes([n]) * (n * 1000)] for n in range(len(lab.partitions))]


def test_a_large_request_is_received_in_any_pieces(lab: NativeLab) -> None:
    lab.plane.update_config("t", 0, {"max.message.bytes": str(64 * MIB)})
    request = produce(batch(20 * MIB))

    def send() -> bytes:
        position = 0
        for size in (1, 3, 10, 5000, 300_000, 2_000_000):
            lab.client.sendall(request[position : position + size])
            position += size
        lab.client.sendall(request[position:])
        return receive_frame(lab.client)

    results, done = in_thread(send)
    serve_until(lab, done)
    response = decode_response(ApiKey.PRODUCE, 8, results[0][4:])
    assert response.responses[0].partition_responses[0].base_offset == 0
    assert lab.partitions["t", 0].offsets().high_watermark == 1


def test_a_client_that_takes_no_answers_is_read_no_further(lab: NativeLab) -> None:
    fill(lab, 4, 500_000)
    lab.client.setblocking(False)
    request = fetch(0)
    sent = 0
    deadline = time.monotonic() + 5
    idle = 0
    while idle < 20 and time.monotonic() < deadline:
        try:
            sent += lab.client.send(request * 50)
            idle = 0
        except BlockingIOError:
            idle += 1
        lab.turn()
    assert idle == 20, "the client can send no more"
    assert not lab.wait(0.05), "nothing to do until it takes answers"
    assert lab.plane.metrics()["fetch"]["requests"] < 10


def test_requests_in_flight_without_an_answer_are_bounded(tmp_path: Path) -> None:
    with NativeLab(tmp_path / "data", {"t": 1}, **{"ottla.log.dir.tail.max.bytes": "100000"}) as lab:
        requests = b"".join(produce(batch(50_000), correlation_id=n) for n in range(100))

        def send() -> bytes:
            lab.client.sendall(requests)
            for n in range(100):
                assert receive_frame(lab.client)[:4] == struct.pack(">i", n)
            return b"all"

        results, done = in_thread(send)
        serve_until(lab, done)
        assert results == [b"all"]
        assert lab.partitions["t", 0].offsets().high_watermark == 100


@pytest.mark.parametrize("parked", [False, True])
def test_a_client_that_leaves_is_noticed_at_once(lab: NativeLab, parked: bool) -> None:
    if parked:
        lab.client.sendall(fetch(0, max_wait_ms=60_000))
        assert lab.turn() == []
        assert lab.plane.next_deadline_ms() is not None
    lab.client.close()
    assert lab.wait()
    assert lab.poll() == (True, [])
    assert lab.plane.close_reason(lab.session_id) is None, "it was not our doing"
    assert lab.plane.next_deadline_ms() is None


def test_a_client_that_leaves_while_an_answer_is_owed_is_noticed_at_once(lab: NativeLab) -> None:
    lab.client.sendall(METADATA)
    assert len(lab.turn()) == 1
    assert not lab.wait(0.02)
    lab.client.close()
    assert lab.wait()
    assert lab.poll() == (True, [])


def test_the_descriptor_tells_of_deadlines(lab: NativeLab) -> None:
    started = time.monotonic()
    lab.client.sendall(fetch(0, max_wait_ms=200))
    assert lab.turn() == []
    lab.client.sendall(b"")
    while not select.select([lab.client], [], [], 0)[0]:
        assert lab.wait(), "the timer rings"
        lab.poll()
    assert 0.19 < time.monotonic() - started < 5
    assert not lab.wait(0.02), "and rings no more"


def test_sessions_without_traffic_are_idle_unless_they_wait_for_an_answer(lab: NativeLab) -> None:
    assert lab.plane.idle_sessions(now_ms() - 1000) == []
    assert lab.plane.idle_sessions(now_ms() + 1000) == [lab.session_id]
    lab.client.sendall(METADATA)
    ((request_id, *_),) = lab.turn()
    assert lab.plane.idle_sessions(now_ms() + 1000) == []
    lab.plane.reply(lab.session_id, request_id, b"", now_ms(), wall_ms())
    assert lab.plane.idle_sessions(now_ms() + 1000) == [lab.session_id]


def test_records_sent_with_acks_0_just_before_the_client_left_are_kept(lab: NativeLab) -> None:
    lab.client.sendall(b"".join(produce(batch(100), acks=0) for _ in range(20)))
    lab.client.close()
    assert ends(lab)
    assert lab.partitions["t", 0].offsets().log_end_offset == 20


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\xff\xff\xff\xff", "negative size (-1)"),
        (b"\x7f\xff\xff\xff", "socket.request.max.bytes is 104857600"),
        (b"\0\0\0\0", "malformed request header"),
        (b"GET / HTTP/1.1\r\n\r\n", "a frame announces 1195725856 bytes"),
        (b"\0\0\0\x0a\0\x04\0\0\0\0\0\x01\xff\xff", "request of unknown API 4 (version 0)"),
        (b"\0\0\0\x0a\0\x00\0\x02\0\0\0\x01\xff\xff", "Produce version 2 is not supported"),
    ],
)
def test_nonsense_ends_the_connection_with_a_reason(lab: NativeLab, sent: bytes, reason: str) -> None:
    lab.client.sendall(sent)
    assert ends(lab)
    assert reason in (lab.plane.close_reason(lab.session_id) or "")


def test_calls_about_sessions_that_do_not_exist_raise(lab: NativeLab) -> None:
    with pytest.raises(KeyError):
        lab.plane.reply(999, 1, b"", 0, 0)
    with pytest.raises(KeyError):
        lab.plane.reply(lab.session_id, 1, b"", 0, 0)
    with pytest.raises(KeyError):
        lab.plane.refuse(999, "", 0, 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lab.plane.open_session(10**6, 0)
    lab.plane.close_session(999)


def test_the_answer_to_an_owed_request_goes_on_with_what_stands_behind_it(lab: NativeLab) -> None:
    lab.client.sendall(METADATA + produce(batch(10), correlation_id=8) + METADATA)
    assert lab.wait()
    is_over, ((request_id, api, version, correlation_id, client_id, body),) = lab.poll()
    assert (is_over, api, version, correlation_id, client_id, body) == (False, 3, 1, 7, "c", b"")
    assert lab.partitions["t", 0].offsets().log_end_offset == 0
    assert lab.plane.reply(lab.session_id, request_id, b"\0\0\0\x07", now_ms(), wall_ms()) == (False, [])
    assert receive_frame(lab.client) == b"\0\0\0\x07"
    requests = []
    while not requests:
        requests = lab.turn()
    assert receive_frame(lab.client)[:4] == b"\0\0\0\x08"
    (request_id, *_) = requests[0]
    assert lab.plane.refuse(lab.session_id, "not today", now_ms(), wall_ms())
    assert lab.plane.close_reason(lab.session_id) == "not today"


@pytest.mark.alone
def test_a_busy_client_leaves_others_their_turn(lab: NativeLab) -> None:
    lab.plane.update_config("t", 0, {"max.message.bytes": str(64 * MIB)})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        other = lab.plane.open_session(ours.fileno(), now_ms())
        request = produce(batch(30 * MIB))
        results, done = in_thread(lambda: lab.client.sendall(request) or receive_frame(lab.client))
        waits = []
        while not done.is_set():
            started = time.monotonic()
            theirs.sendall(METADATA)
            while True:
                assert lab.wait()
                news = [n for n in lab.plane.poll(now_ms(), wall_ms())[0] if n[0] == other]
                if news:
                    break
            waits.append(time.monotonic() - started)
            lab.plane.reply(other, news[0][2][0][0], None, now_ms(), wall_ms())
        assert results
        assert sorted(waits)[len(waits) // 2] < 0.05
        lab.plane.close_session(other)


def test_what_was_held_together_is_written(tmp_path: Path) -> None:
    with NativeLab(tmp_path, {"t": 1}) as lab:
        partition = lab.partitions["t", 0]
        lab.plane.cork()
        for _ in range(3):
            partition.append_batch(batch(1), wall_ms=wall_ms())
        lab.plane.uncork(now_ms(), wall_ms())
        deadline = time.monotonic() + SECONDS_MAX
        while partition.offsets().high_watermark < 3:
            assert time.monotonic() < deadline, "nobody writes"
            lab.turn()
