"""In which log directory each replica is, as the brokers tell it (KIP-858)."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ottla.controller.cluster_control import ClusterControl
from ottla.controller.result import ControllerResult
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.image import PartitionRegistration
from ottla.metadata.records import DIRECTORY_LOST, DIRECTORY_UNASSIGNED, MetadataRecord, PartitionChangeRecord

Replica = tuple[uuid.UUID, int]
"""Topic id and partition, of the broker that speaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignReplicasToDirsRequest:
    """A broker has put replicas into log directories (Kafka: API 73)."""

    broker_id: int
    broker_epoch: int
    assignments: Mapping[Replica, uuid.UUID]
    """The directories' ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignReplicasToDirsResponse:
    """What is not in `refused` is known from now on."""

    error_code: ErrorCode = ErrorCode.NONE
    refused: Mapping[Replica, ErrorCode] = field(default_factory=dict)


class DirectoryControl:
    """Keeps what brokers say of their directories."""

    def __init__(self, metadata: MetadataDelta, cluster: ClusterControl) -> None:
        self._metadata = metadata
        self._cluster = cluster

    def on_broker_registered(self, broker_id: int, log_dirs: Collection[uuid.UUID | None]) -> list[MetadataRecord]:
        """A broker that comes back without a directory which it had may have in it whatever it has not told of yet.

        Source: KIP-858, DirectoryId.LOST.
        Args: log_dirs: What it has now; the metadata has what it had before.
        """
        known = self._metadata.brokers.get(broker_id)
        if known is None or set(known.log_dirs) <= set(log_dirs):
            return []
        return [
            _assigned(topic.topic_id, index, partition, broker_id, DIRECTORY_LOST)
            for topic in self._metadata.topics.values()
            for index, partition in topic.partitions.items()
            if broker_id in partition.replicas and partition.directory_of(broker_id) == DIRECTORY_UNASSIGNED
        ]

    def assign(self, request: AssignReplicasToDirsRequest) -> ControllerResult[AssignReplicasToDirsResponse]:
        """Source: Kafka's ReplicationControlManager.handleAssignReplicasToDirs."""
        try:
            self._cluster.check_broker_epoch(request.broker_id, request.broker_epoch)
        except KafkaError as refused:
            return ControllerResult(response=AssignReplicasToDirsResponse(error_code=refused.code))
        refused_replicas: dict[Replica, ErrorCode] = {}
        records = []
        for (topic_id, index), directory in request.assignments.items():
            topic = self._metadata.topics.get(topic_id)
            partition = None if topic is None else topic.partitions.get(index)
            if topic is None:
                refused_replicas[topic_id, index] = ErrorCode.UNKNOWN_TOPIC_ID
            elif partition is None:
                refused_replicas[topic_id, index] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            elif request.broker_id not in partition.replicas:
                refused_replicas[topic_id, index] = ErrorCode.NOT_LEADER_OR_FOLLOWER
            elif partition.directory_of(request.broker_id) != directory:
                records.append(_assigned(topic_id, index, partition, request.broker_id, directory))
        return ControllerResult(response=AssignReplicasToDirsResponse(refused=refused_replicas), records=records)


def _assigned(
    topic_id: uuid.UUID, index: int, partition: PartitionRegistration, broker_id: int, directory: uuid.UUID
) -> PartitionChangeRecord:
    directories = {broker: partition.directory_of(broker) for broker in partition.replicas}
    directories[broker_id] = directory
    return PartitionChangeRecord(partition_id=index, topic_id=topic_id, directories=tuple(directories.values()))
