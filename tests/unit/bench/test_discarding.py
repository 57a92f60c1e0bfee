"""The broker that keeps nothing tells clients that it kept all."""

from __future__ import annotations

import struct
import uuid

import pytest

from bench.discarding import VERSION, answer
from ottla.errors import ErrorCode
from ottla.protocol.header import decode_response_frame, encode_request_frame
from ottla.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from ottla.protocol.versions import ApiKey

TOPICS = (uuid.UUID(int=7), uuid.UUID(int=8))


def request(version: int, *, transactional_id: str | None, client_id: str | None, records: bytes) -> memoryview:
    topics = tuple(
        TopicProduceData(
            name=f"topic-{topic_id}",
            topic_id=topic_id,
            partition_data=tuple(PartitionProduceData(index=index, records=records) for index in (0, 300)),
        )
        for topic_id in TOPICS
    )
    message = ProduceRequest(transactional_id=transactional_id, acks=-1, timeout_ms=1, topic_data=topics)
    return memoryview(encode_request_frame(ApiKey.PRODUCE, version, message, correlation_id=77, client_id=client_id))


@pytest.mark.parametrize("transactional_id", [None, "", "transactions" * 20])
@pytest.mark.parametrize("client_id", [None, "perf-producer-client"])
@pytest.mark.parametrize("size", [0, 127, 128, 70_000])
def test_every_partition_of_a_request_is_answered(
    transactional_id: str | None, client_id: str | None, size: int
) -> None:
    frame = answer(request(VERSION, transactional_id=transactional_id, client_id=client_id, records=b"r" * size))
    assert struct.unpack(">i", frame[:4]) == (len(frame) - 4,)
    response = decode_response_frame(ApiKey.PRODUCE, VERSION, frame[4:])
    assert response.correlation_id == 77
    answered = [
        (topic.topic_id, partition.index, partition.error_code)
        for topic in response.message.responses
        for partition in topic.partition_responses
    ]
    assert answered == [(topic_id, index, ErrorCode.NONE) for topic_id in TOPICS for index in (0, 300)]


def test_other_versions_are_not_misread() -> None:
    with pytest.raises(RuntimeError, match="version 12"):
        answer(request(12, transactional_id=None, client_id=None, records=b""))
