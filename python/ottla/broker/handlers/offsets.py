"""ListOffsets and OffsetForLeaderEpoch: where a reader may start, and where its history left ours."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from ottla.broker.context import RequestContext
from ottla.broker.worker import in_thread
from ottla.errors import ErrorCode, KafkaError, code_of
from ottla.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)
from ottla.protocol.messages.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
)
from ottla.protocol.versions import ApiKey

if TYPE_CHECKING:
    from ottla._native import Partition

LATEST: Final = -1
EARLIEST: Final = -2
MAX_TIMESTAMP: Final = -3
EARLIEST_LOCAL: Final = -4
LATEST_TIERED: Final = -5
EARLIEST_PENDING_UPLOAD: Final = -6

_FROM_VERSION: Final = {
    LATEST: 1,
    EARLIEST: 1,
    MAX_TIMESTAMP: 7,
    EARLIEST_LOCAL: 8,
    LATEST_TIERED: 9,
    EARLIEST_PENDING_UPLOAD: 11,
}
"""The version from which each special timestamp is understood."""
_OFFSET_NOT_AVAILABLE_FROM_VERSION: Final = 5
_ISOLATION_LEVELS: Final = (0, 1)


async def handle_list_offsets(context: RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse:
    counts = Counter((topic.name, p.partition_index) for topic in request.topics for p in topic.partitions)
    topics: dict[str, list[ListOffsetsPartitionResponse]] = {}
    for topic in request.topics:
        answers = topics.setdefault(topic.name, [])
        for wanted in topic.partitions:
            if counts[topic.name, wanted.partition_index] > 1:
                if not any(answer.partition_index == wanted.partition_index for answer in answers):
                    answers.append(_failed(wanted, ErrorCode.INVALID_REQUEST))
                continue
            answers.append(await _list_offset(context, topic.name, wanted, request.isolation_level))
    return ListOffsetsResponse(
        topics=tuple(
            ListOffsetsTopicResponse(name=name, partitions=tuple(found)) for name, found in topics.items() if found
        )
    )


async def _list_offset(
    context: RequestContext, topic: str, wanted: ListOffsetsPartition, isolation_level: int
) -> ListOffsetsPartitionResponse:
    if isolation_level not in _ISOLATION_LEVELS:
        return _failed(wanted, ErrorCode.UNKNOWN_SERVER_ERROR)
    if wanted.timestamp < 0 and context.version < _FROM_VERSION.get(wanted.timestamp, context.version + 1):
        return _failed(wanted, ErrorCode.UNSUPPORTED_VERSION)
    partition = context.broker.plane.partition(topic, wanted.partition_index)
    if partition is None:
        return _failed(wanted, context.broker.metadata.missing_error(topic, wanted.partition_index))
    try:
        threads = context.broker.disk_threads[partition.log_dir]
        timestamp, offset, leader_epoch = await _look_up(partition, wanted, isolation_level, threads)
    except (KafkaError, OSError) as error:
        code = code_of(error)
        if code is ErrorCode.OFFSET_NOT_AVAILABLE and context.version < _OFFSET_NOT_AVAILABLE_FROM_VERSION:
            code = ErrorCode.LEADER_NOT_AVAILABLE
        return _failed(wanted, code)
    return ListOffsetsPartitionResponse(
        partition_index=wanted.partition_index, timestamp=timestamp, offset=offset, leader_epoch=leader_epoch
    )


async def _look_up(
    partition: Partition, wanted: ListOffsetsPartition, isolation_level: int, threads: trio.CapacityLimiter
) -> tuple[int, int, int]:
    look_up = partial(
        partition.list_offset,
        wanted.timestamp,
        isolation_level=isolation_level,
        current_leader_epoch=wanted.current_leader_epoch,
    )
    if wanted.timestamp >= 0 or wanted.timestamp == MAX_TIMESTAMP:
        # Reads and perhaps decompresses a batch.
        return await in_thread(look_up, limiter=threads)
    return look_up()


def _failed(wanted: ListOffsetsPartition, code: ErrorCode) -> ListOffsetsPartitionResponse:
    return ListOffsetsPartitionResponse(partition_index=wanted.partition_index, error_code=code)


async def handle_offset_for_leader_epoch(
    context: RequestContext, request: OffsetForLeaderEpochRequest
) -> OffsetForLeaderEpochResponse:
    return OffsetForLeaderEpochResponse(
        topics=tuple(
            OffsetForLeaderTopicResult(
                topic=topic.topic,
                partitions=tuple(_epoch_end(context, topic.topic, wanted) for wanted in topic.partitions),
            )
            for topic in request.topics
        )
    )


def _epoch_end(context: RequestContext, topic: str, wanted: OffsetForLeaderPartition) -> EpochEndOffset:
    partition = context.broker.plane.partition(topic, wanted.partition)
    if partition is None:
        code = context.broker.metadata.missing_error(topic, wanted.partition)
        return EpochEndOffset(partition=wanted.partition, error_code=code)
    try:
        epoch, end_offset = partition.end_offset_for_epoch(
            wanted.leader_epoch, current_leader_epoch=wanted.current_leader_epoch
        )
    except (KafkaError, OSError) as error:
        return EpochEndOffset(partition=wanted.partition, error_code=code_of(error))
    return EpochEndOffset(partition=wanted.partition, leader_epoch=epoch, end_offset=end_offset)


HANDLERS: Final = {
    ApiKey.LIST_OFFSETS: handle_list_offsets,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: handle_offset_for_leader_epoch,
}
