"""A blocking client of the wire protocol, for tests that look at single requests and at broken ones."""

from __future__ import annotations

import select
import socket
import struct
from types import TracebackType
from typing import Any

from ottla._native import build_batch, decode_batches
from ottla.errors import ErrorCode
from ottla.protocol.header import decode_response_frame, encode_request_frame
from ottla.protocol.messages.create_topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic, PartitionData
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    TopicProduceData,
)
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

    def produce(self, topic: str, *values: bytes, partition: int = 0, acks: int = -1) -> PartitionProduceResponse:
        """Produce a batch of values, the topic being known, and return the partition's answer."""
        batch = build_batch([(None, value, 1_700_000_000_000, ()) for value in values])
        return self.produce_batch(topic, batch, partition=partition, acks=acks)

    def produce_batch(
        self, topic: str, batch: bytes, *, partition: int = 0, acks: int = -1
    ) -> PartitionProduceResponse:
        """Produce a batch as it is, the topic being known, and return the partition's answer."""
        data = TopicProduceData(name=topic, partition_data=(PartitionProduceData(index=partition, records=batch),))
        response = self.ask(ApiKey.PRODUCE, 9, ProduceRequest(acks=acks, timeout_ms=10_000, topic_data=(data,)))
        return response.responses[0].partition_responses[0]  # type: ignore[no-any-return]

    def fetch(self, topic: str, offset: int = 0, *, partition: int = 0, max_wait_ms: int = 0) -> PartitionData:
        """Fetch a partition once, without a session."""
        wanted = FetchPartition(partition=partition, fetch_offset=offset, partition_max_bytes=1 << 20)
        request = FetchRequest(
            max_wait_ms=max_wait_ms, min_bytes=1, topics=(FetchTopic(topic=topic, partitions=(wanted,)),)
        )
        response = self.ask(ApiKey.FETCH, 12, request)
        return response.responses[0].partitions[0]  # type: ignore[no-any-return]

    def values(self, topic: str, offset: int = 0, *, partition: int = 0) -> list[bytes]:
        """Every value of a partition, from an offset to its high watermark."""
        found: list[bytes] = []
        while True:
            data = self.fetch(topic, offset, partition=partition)
            assert data.error_code is ErrorCode.NONE, data.error_code
            batches = decode_batches(data.records or b"")
            if not batches:
                return found
            found += [record[3] or b"" for batch in batches for record in batch.records if record[0] >= offset]
            offset = batches[-1].last_offset + 1

    def create_with(self, topic: str, **configs: str) -> None:
        """Make a topic of one partition; an underscore in a config's name is a dot."""
        wanted = CreatableTopic(
            name=topic,
            num_partitions=1,
            replication_factor=1,
            configs=tuple(
                CreatableTopicConfig(name=name.replace("_", "."), value=value) for name, value in configs.items()
            ),
        )
        response = self.ask(ApiKey.CREATE_TOPICS, 7, CreateTopicsRequest(topics=(wanted,), timeout_ms=10_000))
        assert response.topics[0].error_code is ErrorCode.NONE, response

    def create(self, topic: str) -> None:
        """Have a topic made by asking for it."""
        response = self.ask(ApiKey.METADATA, 9, MetadataRequest(topics=(MetadataRequestTopic(name=topic),)))
        assert response.topics[0].error_code is ErrorCode.NONE, response

    def is_silent(self, *, wait_s: float = 0.2) -> bool:
        """Whether nothing arrives within a moment."""
        return not select.select([self._socket], [], [], wait_s)[0]

    def delete(self, topic: str) -> None:
        """Return when the topic is gone."""
        response = self.ask(ApiKey.DELETE_TOPICS, 5, DeleteTopicsRequest(topic_names=(topic,), timeout_ms=60_000))
        assert response.responses[0].error_code is ErrorCode.NONE, response

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
