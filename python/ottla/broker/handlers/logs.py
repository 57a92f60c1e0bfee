"""DeleteRecords and DescribeLogDirs: the logs themselves."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import trio

from ottla.broker.context import RequestContext
from ottla.broker.worker import in_thread
from ottla.common.topics import is_internal
from ottla.errors import ErrorCode, KafkaError, code_of
from ottla.protocol.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)
from ottla.protocol.messages.describe_log_dirs import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)
from ottla.protocol.versions import ApiKey

NO_LOW_WATERMARK: Final = -1


async def handle_delete_records(context: RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse:
    topics: dict[str, dict[int, DeleteRecordsPartition]] = {}
    for topic in request.topics:
        # As in Kafka the last of several entries of one partition counts.
        topics.setdefault(topic.name, {}).update((p.partition_index, p) for p in topic.partitions)
    return DeleteRecordsResponse(
        topics=tuple(
            DeleteRecordsTopicResult(
                name=name, partitions=tuple(_delete(context, name, wanted) for wanted in partitions.values())
            )
            for name, partitions in topics.items()
            if partitions
        )
    )


def _delete(context: RequestContext, topic: str, wanted: DeleteRecordsPartition) -> DeleteRecordsPartitionResult:
    partition = context.broker.plane.partition(topic, wanted.partition_index)
    code, low_watermark = ErrorCode.NONE, NO_LOW_WATERMARK
    if partition is None:
        code = context.broker.metadata.missing_error(topic, wanted.partition_index)
    elif is_internal(topic):
        code = ErrorCode.INVALID_TOPIC_EXCEPTION
    else:
        try:
            low_watermark = partition.delete_records(wanted.offset)
            context.broker.share_partitions.on_log_start(topic, wanted.partition_index)
        except (KafkaError, OSError) as error:
            code = code_of(error)
    return DeleteRecordsPartitionResult(
        partition_index=wanted.partition_index, low_watermark=low_watermark, error_code=code
    )


async def handle_describe_log_dirs(context: RequestContext, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse:
    broker = context.broker
    wanted: dict[str, Collection[int]] = {}
    if request.topics is None:
        wanted |= {topic.name: topic.partitions.keys() for topic in broker.metadata.image.topics.values()}
    else:
        for topic in request.topics:  # entries of one topic count together, and each partition once
            wanted[topic.topic] = dict.fromkeys([*wanted.get(topic.topic, ()), *topic.partitions])
    found: dict[str, dict[str, list[DescribeLogDirsPartition]]] = {log_dir: {} for log_dir in broker.log_dirs}
    for name, indexes in wanted.items():
        for index in indexes:
            partition = broker.plane.partition(name, index)
            if partition is not None:
                size = DescribeLogDirsPartition(partition_index=index, partition_size=partition.size_bytes())
                found[broker.log_dirs[partition.log_dir]].setdefault(name, []).append(size)
    described: dict[str, DescribeLogDirsResult] = {}

    async def describe(log_dir: str, threads: trio.CapacityLimiter) -> None:
        described[log_dir] = await in_thread(partial(_describe, log_dir, found[log_dir]), limiter=threads)

    # A stalled disk may hold this up: never on the event loop, and none behind another.
    async with trio.open_nursery() as nursery:
        for log_dir, threads in zip(broker.log_dirs, broker.space_threads, strict=True):
            nursery.start_soon(describe, log_dir, threads)
    results = [described[log_dir] for log_dir in broker.log_dirs]
    results += map(_offline, broker.offline_log_dirs)
    return DescribeLogDirsResponse(results=tuple(results))


def _offline(log_dir: str) -> DescribeLogDirsResult:
    return DescribeLogDirsResult(log_dir=str(Path(log_dir).absolute()), error_code=ErrorCode.KAFKA_STORAGE_ERROR)


def _describe(log_dir: str, topics: Mapping[str, list[DescribeLogDirsPartition]]) -> DescribeLogDirsResult:
    path = str(Path(log_dir).absolute())  # who asks is somewhere else
    try:
        space = os.statvfs(log_dir)
    except OSError:
        return _offline(log_dir)
    return DescribeLogDirsResult(
        log_dir=path,
        topics=tuple(DescribeLogDirsTopic(name=name, partitions=tuple(found)) for name, found in topics.items()),
        total_bytes=space.f_blocks * space.f_frsize,
        usable_bytes=space.f_bavail * space.f_frsize,
    )


HANDLERS: Final = {
    ApiKey.DELETE_RECORDS: handle_delete_records,
    ApiKey.DESCRIBE_LOG_DIRS: handle_describe_log_dirs,
}
