"""The pages of DescribeTopicPartitions, as Apache Kafka 4.3.1 cuts them."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from ottla.broker.context import RequestContext
from ottla.broker.handlers.topic_partitions import handle_describe_topic_partitions
from ottla.errors import ErrorCode
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.records import PartitionRecord, TopicRecord
from ottla.protocol.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsRequestCursor,
    TopicRequest,
)
from ottla.protocol.versions import ApiKey


def context(**topics: int) -> RequestContext:
    delta = MetadataDelta()
    for number, (name, partitions) in enumerate(topics.items(), 1):
        topic_id = uuid.UUID(int=number)
        delta.replay(TopicRecord(name=name, topic_id=topic_id))
        for index in range(partitions):
            delta.replay(
                PartitionRecord(
                    partition_id=index,
                    topic_id=topic_id,
                    replicas=(1,),
                    isr=(1,),
                    leader=1,
                    leader_epoch=0,
                    partition_epoch=0,
                )
            )
    broker: Any = SimpleNamespace(metadata=SimpleNamespace(image=delta.image(offset=1, epoch=1), out_of_reach={}))
    connection: Any = None
    return RequestContext(broker, connection, ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, None, 0, 0)


Shown = list[tuple[str, ErrorCode, list[int]]]


def describe(
    where: RequestContext, *names: str, limit: int = 2000, cursor: tuple[str, int] | None = None
) -> tuple[Shown, tuple[str, int] | None]:
    request = DescribeTopicPartitionsRequest(
        topics=tuple(TopicRequest(name=name) for name in names),
        response_partition_limit=limit,
        cursor=cursor and DescribeTopicPartitionsRequestCursor(topic_name=cursor[0], partition_index=cursor[1]),
    )
    response = trio.run(handle_describe_topic_partitions, where, request)
    shown = [(t.name or "", t.error_code, [p.partition_index for p in t.partitions]) for t in response.topics]
    rest = response.next_cursor
    return shown, rest and (rest.topic_name, rest.partition_index)


OK, UNKNOWN = ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_topics_come_sorted_and_once() -> None:
    found = describe(context(b=1, a=2), "b", "absent", "b", "a")
    assert found == ([("a", OK, [0, 1]), ("absent", UNKNOWN, []), ("b", OK, [0])], None)


def test_no_topics_are_all_topics_from_the_cursor_on() -> None:
    assert describe(context(c=1, a=1, b=1), cursor=("aa", 7)) == ([("b", OK, [0]), ("c", OK, [0])], None)


def test_a_full_page_says_where_to_go_on() -> None:
    where = context(a=3, b=1, c=1)
    assert describe(where, limit=2) == ([("a", OK, [0, 1])], ("a", 2))
    assert describe(where, limit=2, cursor=("a", 2)) == ([("a", OK, [2]), ("b", OK, [0])], ("c", 0))
    assert describe(where, limit=2, cursor=("c", 0)) == ([("c", OK, [0])], None)


def test_unknown_topics_take_no_room() -> None:
    assert describe(context(b=1), "a", "b", "c", limit=1) == ([("a", UNKNOWN, []), ("b", OK, [0])], ("c", 0))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_has_room_for_one_partition_at_least(limit: int) -> None:
    assert describe(context(a=2), limit=limit) == ([("a", OK, [0])], ("a", 1))


def test_a_cursor_behind_the_last_partition_finds_nothing() -> None:
    assert describe(context(a=2), "a", cursor=("a", 5)) == ([("a", OK, [])], None)


@pytest.mark.parametrize("cursor", [("a", -1), ("b", 0)])
def test_a_cursor_that_fits_no_topic_asked_for_is_refused(cursor: tuple[str, int]) -> None:
    assert describe(context(a=1, b=1), "a", cursor=cursor) == ([("a", ErrorCode.INVALID_REQUEST, [])], None)
