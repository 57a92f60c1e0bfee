"""Transactions as the partitions see them: WriteTxnMarkers ends them, DescribeProducers shows who has one open.

Source: Kafka's `KafkaApis.handleWriteTxnMarkersRequest` and `handleDescribeProducersRequest` (KIP-98, KIP-664).
"""

from __future__ import annotations

from typing import Final

from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.describe_producers import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    PartitionResponse,
    ProducerState,
    TopicResponse,
)
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)
from ottla.protocol.versions import ApiKey


async def handle_write_txn_markers(context: RequestContext, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse:
    return WriteTxnMarkersResponse(markers=tuple([await _write(context, marker) for marker in request.markers]))


async def _write(context: RequestContext, marker: WritableTxnMarker) -> WritableTxnMarkerResult:
    """Write one marker; it is answered when it counts, or cannot."""
    errors = await context.broker.transaction_markers.write(
        producer_id=marker.producer_id,
        producer_epoch=marker.producer_epoch,
        commit=marker.transaction_result,
        coordinator_epoch=marker.coordinator_epoch,
        transaction_version=marker.transaction_version,
        partitions=[(topic.name, p) for topic in marker.topics for p in topic.partition_indexes],
    )
    topics = [
        WritableTxnMarkerTopicResult(
            name=topic.name,
            partitions=tuple(
                [
                    WritableTxnMarkerPartitionResult(partition_index=p, error_code=errors[topic.name, p])
                    for p in topic.partition_indexes
                ]
            ),
        )
        for topic in marker.topics
    ]
    return WritableTxnMarkerResult(producer_id=marker.producer_id, topics=tuple(topics))


async def handle_describe_producers(
    context: RequestContext, request: DescribeProducersRequest
) -> DescribeProducersResponse:
    topics = [
        TopicResponse(name=t.name, partitions=tuple([_describe(context, t.name, p) for p in t.partition_indexes]))
        for t in request.topics
    ]
    return DescribeProducersResponse(topics=tuple(topics))


def _describe(context: RequestContext, topic: str, index: int) -> PartitionResponse:
    def failed(error: ErrorCode) -> PartitionResponse:
        return PartitionResponse(partition_index=index, error_code=error)

    if context.broker.metadata.image.partition(topic, index) is None:
        return failed(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    partition = context.broker.plane.partition(topic, index)
    if partition is None:
        return failed(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    try:
        producers = [
            ProducerState(
                producer_id=producer_id,
                producer_epoch=epoch,
                last_sequence=last_sequence,
                last_timestamp=last_timestamp,
                coordinator_epoch=coordinator_epoch,
                current_txn_start_offset=start_offset,
            )
            for producer_id, epoch, last_sequence, last_timestamp, coordinator_epoch, start_offset in (
                partition.producers()
            )
        ]
    except KafkaError as error:
        return failed(error.code)
    return PartitionResponse(partition_index=index, active_producers=tuple(producers))


HANDLERS: Final = {
    ApiKey.WRITE_TXN_MARKERS: handle_write_txn_markers,
    ApiKey.DESCRIBE_PRODUCERS: handle_describe_producers,
}
