"""Where replicas shall be (KIP-455). Replicas do not move between brokers so far: what asks for that is refused."""

from __future__ import annotations

from collections.abc import Sequence

from ottla.controller.placement import check_replicas
from ottla.controller.result import ControllerResult, Refused
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.delta import MetadataDelta
from ottla.protocol.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)


class ReassignmentControl:
    """Answers for each partition by itself. With one broker, the replicas that a partition has are all it can have."""

    def __init__(self, metadata: MetadataDelta) -> None:
        self._metadata = metadata

    def alter(
        self, request: AlterPartitionReassignmentsRequest
    ) -> ControllerResult[AlterPartitionReassignmentsResponse]:
        topics = []
        for topic in request.topics:
            partitions = []
            for wanted in topic.partitions:
                code, text = ErrorCode.NONE, None
                try:
                    self._reassign(topic.name, wanted.partition_index, wanted.replicas)
                except KafkaError as refused:
                    code, text = refused.code, refused.message
                partitions.append(
                    ReassignablePartitionResponse(
                        partition_index=wanted.partition_index, error_code=code, error_message=text
                    )
                )
            topics.append(ReassignableTopicResponse(name=topic.name, partitions=tuple(partitions)))
        return ControllerResult(
            response=AlterPartitionReassignmentsResponse(
                responses=tuple(topics), allow_replication_factor_change=request.allow_replication_factor_change
            )
        )

    def _reassign(self, name: str, index: int, replicas: Sequence[int] | None) -> None:
        """Raises: Refused. Null takes a reassignment back."""
        topic = self._metadata.topic(name)
        partition = None if topic is None else topic.partitions.get(index)
        if partition is None:
            raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"There is no partition {name}-{index}.")
        if replicas is None:
            raise Refused(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, f"{name}-{index} is not being reassigned.")
        check_replicas(replicas, brokers=self._metadata.brokers)
        if tuple(replicas) != partition.replicas:
            raise Refused(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"{name}-{index} has its replicas on {list(partition.replicas)}, and replicas do not move so far.",
            )
