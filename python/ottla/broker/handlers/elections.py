"""Leader elections and reassignments, for the one broker that leads and holds everything."""

from __future__ import annotations

from typing import Final

from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode
from ottla.metadata.image import MetadataImage
from ottla.protocol.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)
from ottla.protocol.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    OngoingPartitionReassignment,
    OngoingTopicReassignment,
)
from ottla.protocol.versions import ApiKey

PREFERRED: Final = 0
UNCLEAN: Final = 1


async def handle_elect_leaders(context: RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse:
    image = context.broker.metadata.image
    asked = request.topic_partitions
    if request.election_type not in (PREFERRED, UNCLEAN):
        complaint = f"election type {request.election_type} is unknown"
        return ElectLeadersResponse(
            error_code=ErrorCode.INVALID_REQUEST,
            replica_election_results=tuple(
                ReplicaElectionResult(
                    topic=topic.topic,
                    partition_result=tuple(
                        PartitionResult(
                            partition_id=index, error_code=ErrorCode.INVALID_REQUEST, error_message=complaint
                        )
                        for index in topic.partitions
                    ),
                )
                for topic in asked or ()
            ),
        )
    if asked is None:
        # Every partition: those that need no election are not listed, as in Kafka, but their topics are.
        results = [
            (topic.name, [_elect(image, topic.name, index, request.election_type) for index in topic.partitions])
            for topic in image.topics.values()
        ]
        return _response(
            [(name, [r for r in found if r.error_code is not ErrorCode.ELECTION_NOT_NEEDED]) for name, found in results]
        )
    return _response(
        [(t.topic, [_elect(image, t.topic, index, request.election_type) for index in t.partitions]) for t in asked]
    )


def _elect(image: MetadataImage, name: str, index: int, election_type: int) -> PartitionResult:
    """Judge one partition. With a single replica there is never another leader to elect."""
    topic = image.topic(name)
    partition = None if topic is None else topic.partitions.get(index)
    if partition is None:
        missing = f"topic {name}" if topic is None else f"partition {name}-{index}"
        code, message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"no such {missing}"
    elif partition.leader == partition.preferred_leader or (election_type == UNCLEAN and partition.leader >= 0):
        code, message = ErrorCode.ELECTION_NOT_NEEDED, "the leader need not change"
    elif election_type == PREFERRED:
        code, message = ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, "the preferred leader is not available"
    else:
        code, message = ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, "no replica can lead"
    return PartitionResult(partition_id=index, error_code=code, error_message=message)


def _response(results: list[tuple[str, list[PartitionResult]]]) -> ElectLeadersResponse:
    return ElectLeadersResponse(
        replica_election_results=tuple(
            ReplicaElectionResult(topic=name, partition_result=tuple(found)) for name, found in results
        )
    )


async def handle_list_partition_reassignments(
    context: RequestContext, request: ListPartitionReassignmentsRequest
) -> ListPartitionReassignmentsResponse:
    image = context.broker.metadata.image
    if request.topics is None:
        wanted = [(topic.name, tuple(topic.partitions)) for topic in image.topics.values()]
    else:
        wanted = [(topic.name, topic.partition_indexes) for topic in request.topics]
    found = []
    for name, indexes in wanted:
        ongoing = []
        for index in indexes:
            partition = image.partition(name, index)
            if partition is not None and (partition.adding_replicas or partition.removing_replicas):
                ongoing.append(
                    OngoingPartitionReassignment(
                        partition_index=index,
                        replicas=partition.replicas,
                        adding_replicas=partition.adding_replicas,
                        removing_replicas=partition.removing_replicas,
                    )
                )
        if ongoing:
            found.append(OngoingTopicReassignment(name=name, partitions=tuple(ongoing)))
    return ListPartitionReassignmentsResponse(topics=tuple(found))


HANDLERS: Final = {
    ApiKey.ELECT_LEADERS: handle_elect_leaders,
    ApiKey.LIST_PARTITION_REASSIGNMENTS: handle_list_partition_reassignments,
}
