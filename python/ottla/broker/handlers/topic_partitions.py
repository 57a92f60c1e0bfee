"""DescribeTopicPartitions: topics and partitions in pages (KIP-966)."""

from __future__ import annotations

from typing import Final

from ottla.broker.context import RequestContext
from ottla.broker.handlers.cluster import TOPIC_OPERATIONS
from ottla.common.topics import is_internal, is_valid_name
from ottla.errors import ErrorCode
from ottla.metadata.image import PartitionRegistration
from ottla.protocol.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponseCursor,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)
from ottla.protocol.versions import ApiKey

PARTITIONS_MAX: Final = 2000
"""Partitions in one page, whatever is asked for (`max.request.partition.size.limit`)."""


async def handle_describe_topic_partitions(
    context: RequestContext, request: DescribeTopicPartitionsRequest
) -> DescribeTopicPartitionsResponse:
    """Describe the topics in the order of their names, from the cursor on, until the page is full."""
    image = context.broker.metadata.image
    names = sorted({topic.name for topic in request.topics} or image.topic_ids)
    first_index = 0
    cursor = request.cursor
    if cursor is not None:
        if cursor.partition_index < 0 or (request.topics and cursor.topic_name not in names):
            return _refused(request, ErrorCode.INVALID_REQUEST)
        names = [name for name in names if name >= cursor.topic_name]
        if names and names[0] == cursor.topic_name:
            first_index = cursor.partition_index
    if cursor is None and any(not topic.name for topic in request.topics):
        return _refused(request, ErrorCode.UNKNOWN_SERVER_ERROR)  # what Apache Kafka 4.3.1 answers
    found: list[DescribeTopicPartitionsResponseTopic] = []
    left = max(1, min(request.response_partition_limit, PARTITIONS_MAX))
    for name in names:
        if left == 0:
            return _page(found, name, 0)
        topic, end_index = _topic(context, name, first_index=first_index, partitions_max=left)
        found.append(topic)
        left -= len(topic.partitions)
        if end_index is not None:
            return _page(found, name, end_index)
        first_index = 0
    return DescribeTopicPartitionsResponse(topics=tuple(found))


def _refused(request: DescribeTopicPartitionsRequest, code: ErrorCode) -> DescribeTopicPartitionsResponse:
    return DescribeTopicPartitionsResponse(
        topics=tuple(DescribeTopicPartitionsResponseTopic(error_code=code, name=topic.name) for topic in request.topics)
    )


def _page(
    found: list[DescribeTopicPartitionsResponseTopic], next_name: str, next_index: int
) -> DescribeTopicPartitionsResponse:
    cursor = DescribeTopicPartitionsResponseCursor(topic_name=next_name, partition_index=next_index)
    return DescribeTopicPartitionsResponse(topics=tuple(found), next_cursor=cursor)


def _topic(
    context: RequestContext, name: str, *, first_index: int, partitions_max: int
) -> tuple[DescribeTopicPartitionsResponseTopic, int | None]:
    """Describe one topic; also the index to go on from, if not all its partitions found room."""
    metadata = context.broker.metadata
    topic = metadata.image.topic(name)
    if topic is None:
        code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if is_valid_name(name) else ErrorCode.INVALID_TOPIC_EXCEPTION
        missing = DescribeTopicPartitionsResponseTopic(
            error_code=code, name=name, topic_authorized_operations=TOPIC_OPERATIONS
        )
        return missing, None
    end_index = min(len(topic.partitions), first_index + partitions_max)
    described = DescribeTopicPartitionsResponseTopic(
        name=name,
        topic_id=topic.topic_id,
        is_internal=is_internal(name),
        partitions=tuple(
            _partition(index, topic.partitions[index], is_away=(name, index) in metadata.out_of_reach)
            for index in range(first_index, end_index)
        ),
        topic_authorized_operations=TOPIC_OPERATIONS,
    )
    return described, end_index if end_index < len(topic.partitions) else None


def _partition(
    index: int, partition: PartitionRegistration, *, is_away: bool
) -> DescribeTopicPartitionsResponsePartition:
    is_led = partition.leader >= 0 and not is_away
    return DescribeTopicPartitionsResponsePartition(
        error_code=ErrorCode.NONE if is_led else ErrorCode.LEADER_NOT_AVAILABLE,
        partition_index=index,
        leader_id=partition.leader if is_led else -1,
        leader_epoch=partition.leader_epoch,
        replica_nodes=partition.replicas,
        isr_nodes=partition.isr,
        offline_replicas=(partition.leader,) if is_away else (),
        eligible_leader_replicas=partition.eligible_leader_replicas,
        last_known_elr=partition.last_known_elr,
    )


HANDLERS: Final = {ApiKey.DESCRIBE_TOPIC_PARTITIONS: handle_describe_topic_partitions}
