"""Load of single requests, from frames that are encoded once, so that the client costs little."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Collection
from typing import Any

import trio

from ottla._native import build_batch, decode_batches
from ottla.errors import ErrorCode
from ottla.protocol.header import decode_response_frame, encode_request_frame
from ottla.protocol.messages.create_topics import CreatableTopic, CreateTopicsRequest
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from ottla.protocol.versions import ApiKey

PATIENCE_S = 300.0
GROUP_RESOURCE = 32
PRODUCE, FETCH, COMMIT, JOIN, SYNC, HEARTBEAT = 9, 11, 7, 3, 2, 2
"""Versions that name topics and need no member id before the join."""


def framed(api: ApiKey, version: int, message: Any) -> bytes:
    """A request with its size in front."""
    frame = encode_request_frame(api, version, message, correlation_id=1, client_id="bench")
    return struct.pack(">i", len(frame)) + frame


class Template:
    """A request whose fields are all known but for one string, so that it costs little to make."""

    def __init__(self, api: ApiKey, version: int, request: Callable[[str], Any]) -> None:
        """Args: request: Makes the request with that string. The version has no flexible fields."""
        marker = "the string that comes"
        frame = encode_request_frame(api, version, request(marker), correlation_id=1, client_id="bench")
        self._before, self._after = frame.split(struct.pack(">h", len(marker)) + marker.encode())

    def with_text(self, text: str) -> bytes:
        """The frame, with its size in front."""
        written = text.encode()
        size = len(self._before) + 2 + len(written) + len(self._after)
        return b"".join((struct.pack(">i", size), self._before, struct.pack(">h", len(written)), written, self._after))


def produce_frame(topic: str, partition: int, value: bytes) -> bytes:
    return produce_frame_to(topic, (partition,), value)


def produce_frame_to(topic: str, partitions: Collection[int], value: bytes) -> bytes:
    """One request with one record for each partition."""
    batch = build_batch([(None, value, int(time.time() * 1000), ())])
    data = tuple(PartitionProduceData(index=index, records=batch) for index in partitions)
    request = ProduceRequest(
        acks=-1, timeout_ms=30_000, topic_data=(TopicProduceData(name=topic, partition_data=data),)
    )
    return framed(ApiKey.PRODUCE, PRODUCE, request)


def alter_group(port: int, group: str, key: str, value: str) -> None:
    """Set one key of a group's configuration."""
    config = AlterableConfig(name=key, config_operation=0, value=value)
    resource = AlterConfigsResource(resource_type=GROUP_RESOURCE, resource_name=group, configs=(config,))
    request = IncrementalAlterConfigsRequest(resources=(resource,))
    check(ask(port, ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, request).responses[0].error_code, "IncrementalAlterConfigs")


def commit_frame(group: str, topic: str) -> bytes:
    """A commit of a consumer that is no member."""
    partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=1, committed_metadata="")
    request = OffsetCommitRequest(
        group_id=group, topics=(OffsetCommitRequestTopic(name=topic, partitions=(partition,)),)
    )
    return framed(ApiKey.OFFSET_COMMIT, COMMIT, request)


def stamped_value() -> bytes:
    """A value that tells when it was made."""
    return struct.pack(">d", time.monotonic())


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


class Client:
    """A connection with one request at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    @classmethod
    async def connect(cls, port: int) -> Client:
        return cls(await trio.open_tcp_stream("127.0.0.1", port))

    async def ask(self, frame: bytes) -> bytes:
        """Send a frame with its size; returns the answer without."""
        await self._stream.send_all(frame)
        while len(self._buffer) < 4 or len(self._buffer) < 4 + int.from_bytes(self._buffer[:4]):
            chunk = await self._stream.receive_some()
            if not chunk:
                raise RuntimeError("the broker closed the connection")
            self._buffer += chunk
        size = int.from_bytes(self._buffer[:4])
        answer = bytes(self._buffer[4 : 4 + size])
        del self._buffer[: 4 + size]
        return answer

    def close(self) -> None:
        self._stream.socket.close()


async def repeat(
    client: Client, frame: bytes, latencies_ms: list[float], interval_s: float, seconds: float, lag_s: float
) -> None:
    """Send a frame every `interval_s` (0: as soon as the last is answered) and note how long each answer took."""
    size_bytes = None
    next_s = time.monotonic() + lag_s
    end_s = next_s + seconds
    while next_s < end_s:
        await trio.sleep(max(0.0, next_s - time.monotonic()))
        began_s = time.monotonic()
        answer = await client.ask(frame)
        now_s = time.monotonic()
        latencies_ms.append((now_s - began_s) * 1e3)
        # Decoding each would be half of the load: that they are alike is enough where the same frame is repeated.
        size_bytes = size_bytes or len(answer)
        if len(answer) != size_bytes:
            raise RuntimeError(f"an answer of {len(answer)} bytes where {size_bytes} were expected")
        next_s = now_s if interval_s == 0 else next_s + interval_s


async def fetch_deliveries(client: Client, topic: str, latencies_ms: list[float]) -> None:
    """Read a partition as it grows, and note how old each record is when it arrives."""
    offset = 0
    while True:
        wanted = FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=1 << 20)
        topics = (FetchTopic(topic=topic, partitions=(wanted,)),)
        request = FetchRequest(max_wait_ms=500, min_bytes=1, max_bytes=1 << 20, topics=topics)
        answer = await client.ask(framed(ApiKey.FETCH, FETCH, request))
        now_s = time.monotonic()
        data = decode_response_frame(ApiKey.FETCH, FETCH, answer).message.responses[0].partitions[0]
        check(data.error_code, "Fetch")
        for batch in decode_batches(data.records or b""):
            for record in batch.records:
                if record[0] >= offset:
                    latencies_ms.append((now_s - struct.unpack(">d", record[3])[0]) * 1e3)
            offset = batch.last_offset + 1


def check(code: ErrorCode, what: str) -> None:
    if code is not ErrorCode.NONE:
        raise RuntimeError(f"{what}: {code.name}")


def ask(port: int, api: ApiKey, version: int, message: Any) -> Any:
    """One request on a connection of its own; returns the response."""
    return decode_response_frame(api, version, _ask_bytes(port, framed(api, version, message))).message


def _ask_bytes(port: int, frame: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(frame)
        with connection.makefile("rb") as answers:
            (size,) = struct.unpack(">i", answers.read(4))
            return answers.read(size)


def create_topic(port: int, topic: str, *, partitions: int) -> None:
    """Make a topic, and wait until each partition has acknowledged a record unless there are very many."""
    wanted = CreatableTopic(name=topic, num_partitions=partitions, replication_factor=1)
    request = CreateTopicsRequest(topics=(wanted,), timeout_ms=int(PATIENCE_S * 1000))
    check(ask(port, ApiKey.CREATE_TOPICS, 5, request).topics[0].error_code, "CreateTopics")
    if partitions <= 100:
        record_to_each(port, topic, partitions)


def record_to_each(port: int, topic: str, partitions: int) -> None:
    """Return when every partition has acknowledged a record."""
    missing = set(range(partitions))
    deadline_s = time.monotonic() + PATIENCE_S
    while missing:
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{len(missing)} partitions of {topic} take no records")
        message = _ask_bytes(port, produce_frame_to(topic, sorted(missing), stamped_value()))
        response = decode_response_frame(ApiKey.PRODUCE, PRODUCE, message).message
        answers = response.responses[0].partition_responses
        missing -= {answer.index for answer in answers if answer.error_code is ErrorCode.NONE}


def first_acknowledged(port: int, topic: str) -> None:
    """Return when a record is acknowledged; the topic is made where it is missing."""
    wanted = CreatableTopic(name=topic, num_partitions=1, replication_factor=1)
    ask(port, ApiKey.CREATE_TOPICS, 5, CreateTopicsRequest(topics=(wanted,), timeout_ms=30_000))
    record_to_each(port, topic, 1)


def find_coordinator(port: int, group: str) -> None:
    """Return when a group has a coordinator that answers."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        answer = ask(port, ApiKey.FIND_COORDINATOR, 2, FindCoordinatorRequest(key=group, key_type=0))
        beat = HeartbeatRequest(group_id=group, generation_id=1, member_id="nobody")
        if answer.error_code is ErrorCode.NONE:
            code = ask(port, ApiKey.HEARTBEAT, HEARTBEAT, beat).error_code
            if code is ErrorCode.UNKNOWN_MEMBER_ID:
                return
        time.sleep(0.05)
    raise RuntimeError(f"no coordinator for {group}")


def heartbeat_frame(port: int, group: str) -> bytes:
    """Join a group as its only member; returns its heartbeat."""
    find_coordinator(port, group)
    protocol = JoinGroupRequestProtocol(name="range", metadata=b"")
    join = JoinGroupRequest(
        group_id=group,
        session_timeout_ms=1_800_000,
        rebalance_timeout_ms=60_000,
        protocol_type="consumer",
        protocols=(protocol,),
    )
    joined = ask(port, ApiKey.JOIN_GROUP, JOIN, join)
    check(joined.error_code, "JoinGroup")
    member = {"group_id": group, "generation_id": joined.generation_id, "member_id": joined.member_id}
    assignment = SyncGroupRequestAssignment(member_id=joined.member_id, assignment=b"")
    check(
        ask(port, ApiKey.SYNC_GROUP, SYNC, SyncGroupRequest(**member, assignments=(assignment,))).error_code,
        "SyncGroup",
    )
    beat = HeartbeatRequest(**member)
    check(ask(port, ApiKey.HEARTBEAT, HEARTBEAT, beat).error_code, "Heartbeat")
    return framed(ApiKey.HEARTBEAT, HEARTBEAT, beat)
