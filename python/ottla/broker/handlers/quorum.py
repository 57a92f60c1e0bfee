"""DescribeQuorum: who decides about metadata (KIP-595, KIP-836)."""

from __future__ import annotations

from typing import Final

from ottla.broker.context import RequestContext
from ottla.common.topics import METADATA_TOPIC
from ottla.errors import ErrorCode
from ottla.protocol.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumRequestTopicData,
    DescribeQuorumResponse,
    DescribeQuorumResponsePartitionData,
    DescribeQuorumResponseTopicData,
    Node,
    ReplicaState,
)
from ottla.protocol.versions import ApiKey


async def handle_describe_quorum(context: RequestContext, request: DescribeQuorumRequest) -> DescribeQuorumResponse:
    """Describe `__cluster_metadata-0`. As in Kafka a request for anything beside it finds nothing at all."""
    wanted = [
        (topic.topic_name, partition.partition_index) for topic in request.topics for partition in topic.partitions
    ]
    if wanted != [(METADATA_TOPIC, 0)]:
        return DescribeQuorumResponse(error_message="", topics=tuple(map(_unknown, request.topics)))
    status = context.broker.quorum_status()
    voters = tuple(
        ReplicaState(
            replica_id=voter,
            log_end_offset=end_offset,
            last_fetch_timestamp=context.wall_ms if voter == status.leader_id else -1,
            last_caught_up_timestamp=context.wall_ms if voter == status.leader_id else -1,
        )
        for voter, end_offset in status.voter_end_offsets.items()
    )
    partition = DescribeQuorumResponsePartitionData(
        leader_id=status.leader_id,
        leader_epoch=status.epoch,
        high_watermark=status.high_watermark,
        current_voters=voters,
        error_message="",
    )
    return DescribeQuorumResponse(
        error_message="",
        topics=(DescribeQuorumResponseTopicData(topic_name=METADATA_TOPIC, partitions=(partition,)),),
        nodes=tuple(Node(node_id=voter) for voter in status.voter_end_offsets),
    )


def _unknown(topic: DescribeQuorumRequestTopicData) -> DescribeQuorumResponseTopicData:
    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return DescribeQuorumResponseTopicData(
        topic_name=topic.topic_name,
        partitions=tuple(
            DescribeQuorumResponsePartitionData(
                partition_index=partition.partition_index,
                error_code=code,
                error_message="only the metadata's partition can be described",
            )
            for partition in topic.partitions
        ),
    )


HANDLERS: Final = {ApiKey.DESCRIBE_QUORUM: handle_describe_quorum}
