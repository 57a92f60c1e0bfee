"""Who leads: what happens to partitions when brokers come and go, and elections on demand."""

from __future__ import annotations

from typing import Final

from ottla.controller.cluster_control import ClusterControl
from ottla.controller.configuration_control import ConfigurationControl
from ottla.controller.partition_change import Election, change_partition
from ottla.controller.result import ControllerResult, Refused
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.image import PartitionRegistration, TopicImage
from ottla.metadata.records import NO_LEADER, PartitionChangeRecord
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

_ELECTIONS: Final = {0: Election.PREFERRED, 1: Election.UNCLEAN}


class PartitionControl:
    """Moves leadership. Each method returns the changes that its cause makes, to be committed with it."""

    def __init__(self, metadata: MetadataDelta, cluster: ClusterControl, configuration: ConfigurationControl) -> None:
        self._metadata = metadata
        self._cluster = cluster
        self._configuration = configuration

    def _election(self, topic: TopicImage) -> Election:
        """How a partition of this topic finds a leader when it loses one."""
        unclean = self._configuration.topic_value(topic.name, "unclean.leader.election.enable")
        return Election.UNCLEAN if unclean else Election.ONLINE

    def on_broker_left(self, broker_id: int, *, keep_if_alone: bool = False) -> list[PartitionChangeRecord]:
        """A broker is fenced or stops: others lead where they can.

        keep_if_alone: Leave a partition that nobody else can lead as it is. So a broker that registers anew keeps it
        until it is unfenced, and its start costs one change a partition rather than two.
        """
        changes = []
        for topic in self._metadata.topics.values():
            for index, partition in topic.partitions.items():
                if broker_id != partition.leader and broker_id not in partition.isr:
                    continue
                change = change_partition(
                    topic.topic_id,
                    index,
                    partition,
                    is_live=lambda replica: replica != broker_id and self._cluster.is_live(replica),
                    leaving=broker_id,
                    election=self._election(topic),
                )
                if change is not None and not (keep_if_alone and change.leader == NO_LEADER):
                    changes.append(change)
        return changes

    def on_broker_returned(self, broker_id: int) -> list[PartitionChangeRecord]:
        """A broker is unfenced: it leads where nobody live did, and where it still leads it gets a new leader epoch."""

        def is_live(replica: int) -> bool:
            return replica == broker_id or self._cluster.is_live(replica)

        changes = []
        for topic in self._metadata.topics.values():
            for index, partition in topic.partitions.items():
                leader = partition.leader
                if broker_id not in partition.replicas or (leader != broker_id and is_live(leader)):
                    continue
                change = change_partition(
                    topic.topic_id,
                    index,
                    partition,
                    is_live=is_live,
                    returning=broker_id,
                    election=self._election(topic),
                )
                if change is not None:
                    changes.append(change)
        return changes

    def leads_any(self, broker_id: int) -> bool:
        return any(
            partition.leader == broker_id
            for topic in self._metadata.topics.values()
            for partition in topic.partitions.values()
        )

    def elect_leaders(self, request: ElectLeadersRequest) -> ControllerResult[ElectLeadersResponse]:
        election = _ELECTIONS.get(request.election_type)
        everywhere = request.topic_partitions is None
        wanted = (
            [(topic.name, sorted(topic.partitions)) for topic in self._metadata.topics.values()]
            if request.topic_partitions is None
            else [(topic.topic, list(topic.partitions)) for topic in request.topic_partitions]
        )
        records: dict[tuple[str, int], PartitionChangeRecord] = {}
        results = []
        for name, indexes in wanted:
            partition_results = []
            for index in indexes:
                code, text = ErrorCode.NONE, None
                try:
                    if election is None:
                        raise Refused(
                            ErrorCode.INVALID_REQUEST, f"There is no kind of election {request.election_type}."
                        )
                    if (name, index) not in records:
                        records[name, index] = self._elect(name, index, election)
                except KafkaError as refused:
                    code, text = refused.code, refused.message
                if not (everywhere and code is ErrorCode.ELECTION_NOT_NEEDED):
                    partition_results.append(PartitionResult(partition_id=index, error_code=code, error_message=text))
            results.append(ReplicaElectionResult(topic=name, partition_result=tuple(partition_results)))
        response = ElectLeadersResponse(
            error_code=ErrorCode.INVALID_REQUEST if election is None else ErrorCode.NONE,
            replica_election_results=tuple(results),
        )
        return ControllerResult(response=response, records=list(records.values()))

    def _elect(self, name: str, index: int, election: Election) -> PartitionChangeRecord:
        topic = self._metadata.topic(name)
        partition = None if topic is None else topic.partitions.get(index)
        if topic is None or partition is None:
            raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"There is no partition {name}-{index}.")
        if _is_content(partition, election):
            raise Refused(ErrorCode.ELECTION_NOT_NEEDED, f"{name}-{index} has the leader that it should have.")
        change = change_partition(topic.topic_id, index, partition, is_live=self._cluster.is_live, election=election)
        wanted = partition.preferred_leader if election is Election.PREFERRED else None
        if change is None or change.leader == NO_LEADER or (wanted is not None and change.leader != wanted):
            code = (
                ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE
                if election is Election.PREFERRED
                else ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE
            )
            raise Refused(code, f"No replica of {name}-{index} that could take over is live.")
        return change

    def list_partition_reassignments(
        self, request: ListPartitionReassignmentsRequest
    ) -> ListPartitionReassignmentsResponse:
        wanted = (
            [(topic.name, sorted(topic.partitions)) for topic in self._metadata.topics.values()]
            if request.topics is None
            else [(topic.name, list(topic.partition_indexes)) for topic in request.topics]
        )
        topics = []
        for name, indexes in wanted:
            topic = self._metadata.topic(name)
            ongoing = [
                OngoingPartitionReassignment(
                    partition_index=index,
                    replicas=partition.replicas,
                    adding_replicas=partition.adding_replicas,
                    removing_replicas=partition.removing_replicas,
                )
                for index in indexes
                if topic is not None and (partition := topic.partitions.get(index)) is not None
                if partition.adding_replicas or partition.removing_replicas
            ]
            if ongoing:
                topics.append(OngoingTopicReassignment(name=name, partitions=tuple(ongoing)))
        return ListPartitionReassignmentsResponse(topics=tuple(topics))


def _is_content(partition: PartitionRegistration, election: Election) -> bool:
    if election is Election.PREFERRED:
        return partition.leader == partition.preferred_leader
    return partition.leader != NO_LEADER
