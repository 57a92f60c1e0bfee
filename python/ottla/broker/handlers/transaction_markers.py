"""Transactions as the partitions see them: WriteTxnMarkers ends them, DescribeProducers shows who has one open.

Source: Kafka's `KafkaApis.handleWriteTxnMarkersRequest` and `handleDescribeProducersRequest` (KIP-98, KIP-664).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ottla.broker.context import RequestContext
from ottla.common.topics import is_valid_name
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

NO_PRODUCER_ID: Final = -1
UNKNOWN_VERSION: Final = -1


async def handle_write_txn_markers(context: RequestContext, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse:
    """As Kafka's, the answer has an entry a producer, and none for markers without partitions."""
    told: dict[int, dict[str, dict[int, ErrorCode]]] = {}
    for marker in request.markers:
        for (topic, index), error in (await _write(context, marker)).items():
            told.setdefault(marker.producer_id, {}).setdefault(topic, {})[index] = error
    return WriteTxnMarkersResponse(
        markers=tuple(
            WritableTxnMarkerResult(
                producer_id=producer_id,
                topics=tuple(
                    WritableTxnMarkerTopicResult(
                        name=topic,
                        partitions=tuple(
                            WritableTxnMarkerPartitionResult(partition_index=index, error_code=error)
                            for index, error in errors.items()
                        ),
                    )
                    for topic, errors in topics.items()
                ),
            )
            for producer_id, topics in told.items()
        )
    )


async def _write(context: RequestContext, marker: WritableTxnMarker) -> Mapping[tuple[str, int], ErrorCode]:
    """Write one marker; it is answered when it counts, or cannot."""
    partitions = [(topic.name, p) for topic in marker.topics for p in topic.partition_indexes]
    if marker.transaction_version == UNKNOWN_VERSION:
        return dict.fromkeys(partitions, ErrorCode.UNKNOWN_SERVER_ERROR)  # what Apache Kafka 4.3.1 answers
    if marker.producer_id == NO_PRODUCER_ID:
        return dict.fromkeys(partitions, ErrorCode.INVALID_PRODUCER_ID_MAPPING)
    return await context.broker.transaction_markers.write(
        producer_id=marker.producer_id,
        producer_epoch=marker.producer_epoch,
        commit=marker.transaction_result,
        coordinator_epoch=marker.coordinator_epoch,
        transaction_version=marker.transaction_version,
        partitions=partitions,
    )


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
        return PartitionResponse(partition_index=index, error_code=error, error_message=error.name)

    if not is_valid_name(topic):
        return failed(ErrorCode.INVALID_TOPIC_EXCEPTION)
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
