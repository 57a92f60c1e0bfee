"""The active controller: requests in, records and responses out; replaying the records is the only way it changes.

One `Controller` lives for one term of leadership. It starts from the image of everything committed before, decides
ahead of the log (what it has decided and replayed counts for the next request, committed or not) and is thrown away
when the leadership is lost: the next one starts from what was committed. Its caller, for each request,

1. calls a `handle_*` method,
2. replays the records into the controller and proposes them to the quorum as one batch that takes effect whole,
3. gives the response when the batch, and everything decided before the request, is committed.

The cut is that of Kafka's QuorumController: each `*_control` module owns one noun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ottla.common.config import BrokerConfig
from ottla.controller.cluster_control import (
    BrokerHeartbeatRequest,
    BrokerHeartbeatResponse,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    ClusterControl,
)
from ottla.controller.configuration_control import ConfigurationControl
from ottla.controller.directory_control import (
    AssignReplicasToDirsRequest,
    AssignReplicasToDirsResponse,
    DirectoryControl,
)
from ottla.controller.feature_control import FeatureControl
from ottla.controller.partition_control import PartitionControl
from ottla.controller.producer_ids import (
    AllocateProducerIdsRequest,
    AllocateProducerIdsResponse,
    ProducerIdControl,
)
from ottla.controller.reassignment_control import ReassignmentControl
from ottla.controller.replication_control import ReplicationControl
from ottla.controller.result import ControllerResult, RandomSource
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.image import MetadataImage
from ottla.metadata.records import (
    MetadataRecord,
    RegisterControllerRecord,
    UnregisterBrokerRecord,
)
from ottla.protocol.messages.alter_configs import AlterConfigsRequest, AlterConfigsResponse
from ottla.protocol.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
)
from ottla.protocol.messages.create_partitions import CreatePartitionsRequest, CreatePartitionsResponse
from ottla.protocol.messages.create_topics import CreateTopicsRequest, CreateTopicsResponse
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from ottla.protocol.messages.elect_leaders import ElectLeadersRequest, ElectLeadersResponse
from ottla.protocol.messages.incremental_alter_configs import (
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)
from ottla.protocol.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
)
from ottla.protocol.messages.unregister_broker import UnregisterBrokerRequest, UnregisterBrokerResponse
from ottla.protocol.messages.update_features import UpdateFeaturesRequest, UpdateFeaturesResponse


class Controller:
    """See the module.

    Args:
        image: Everything committed before this term.
        config: The static configuration of this node.
        node_id: This node.
        cluster_id: As text, the id that brokers must belong to.
        random: Where topic ids and placement take chance from.
        now_ms: Monotonic; every unfenced broker gets a fresh session from here.
    """

    def __init__(
        self,
        *,
        image: MetadataImage,
        config: BrokerConfig,
        node_id: int,
        cluster_id: str,
        random: RandomSource,
        now_ms: int,
    ) -> None:
        self.metadata: Final = MetadataDelta(image)
        self.cluster: Final = ClusterControl(self.metadata, config, cluster_id=cluster_id, now_ms=now_ms)
        self.configuration: Final = ConfigurationControl(self.metadata, config, node_id=node_id)
        self.replication: Final = ReplicationControl(self.metadata, self.cluster, self.configuration, config, random)
        self.partitions: Final = PartitionControl(self.metadata, self.cluster, self.configuration)
        self.reassignments: Final = ReassignmentControl(self.metadata)
        self.producer_ids: Final = ProducerIdControl(self.metadata, self.cluster)
        self.directories: Final = DirectoryControl(self.metadata, self.cluster)
        self.features: Final = FeatureControl(self.metadata)

    def replay(self, records: Iterable[MetadataRecord]) -> None:
        """Take the effect of records. Raises InconsistentMetadata, after which this controller must not go on."""
        for record in records:
            self.replication.before_replay(record)
            self.metadata.replay(record)

    def handle(self, request: Any, *, now_ms: int, next_offset: int) -> ControllerResult[Any]:
        """Serve any request that a `handle_*` method serves.

        Args:
            next_offset: Offset in the metadata log that the first returned record will get.
        Raises: TypeError for anything that is no request of the controller.
        """
        serve = _HANDLERS.get(type(request))
        if serve is None:
            raise TypeError(f"{type(request).__name__} is not for the controller")
        return serve(self, request, now_ms, next_offset)

    def handle_create_topics(self, request: CreateTopicsRequest) -> ControllerResult[CreateTopicsResponse]:
        return self.replication.create_topics(request)

    def handle_delete_topics(self, request: DeleteTopicsRequest) -> ControllerResult[DeleteTopicsResponse]:
        return self.replication.delete_topics(request)

    def handle_create_partitions(self, request: CreatePartitionsRequest) -> ControllerResult[CreatePartitionsResponse]:
        return self.replication.create_partitions(request)

    def handle_incremental_alter_configs(
        self, request: IncrementalAlterConfigsRequest
    ) -> ControllerResult[IncrementalAlterConfigsResponse]:
        return self.configuration.incremental_alter_configs(request)

    def handle_alter_configs(self, request: AlterConfigsRequest) -> ControllerResult[AlterConfigsResponse]:
        return self.configuration.legacy_alter_configs(request)

    def handle_elect_leaders(self, request: ElectLeadersRequest) -> ControllerResult[ElectLeadersResponse]:
        return self.partitions.elect_leaders(request)

    def handle_alter_partition_reassignments(
        self, request: AlterPartitionReassignmentsRequest
    ) -> ControllerResult[AlterPartitionReassignmentsResponse]:
        return self.reassignments.alter(request)

    def handle_list_partition_reassignments(
        self, request: ListPartitionReassignmentsRequest
    ) -> ControllerResult[ListPartitionReassignmentsResponse]:
        return ControllerResult(response=self.partitions.list_partition_reassignments(request))

    def handle_update_features(self, request: UpdateFeaturesRequest) -> ControllerResult[UpdateFeaturesResponse]:
        return self.features.update_features(request)

    def handle_allocate_producer_ids(
        self, request: AllocateProducerIdsRequest
    ) -> ControllerResult[AllocateProducerIdsResponse]:
        return self.producer_ids.allocate(request)

    def handle_assign_replicas_to_dirs(
        self, request: AssignReplicasToDirsRequest
    ) -> ControllerResult[AssignReplicasToDirsResponse]:
        return self.directories.assign(request)

    def handle_broker_registration(
        self, request: BrokerRegistrationRequest, *, now_ms: int, next_offset: int
    ) -> ControllerResult[BrokerRegistrationResponse]:
        """A broker has started: it is fenced until it has caught up, and others take what it led."""
        known = self.metadata.brokers.get(request.broker_id)
        try:
            record = self.cluster.register(request, next_offset=next_offset, now_ms=now_ms)
        except KafkaError as refused:
            return ControllerResult(
                response=BrokerRegistrationResponse(error_code=refused.code, error_message=refused.message)
            )
        records: list[MetadataRecord] = [record]
        records += self.directories.on_broker_registered(request.broker_id, request.log_dirs)
        if known is not None and known.incarnation_id != request.incarnation_id:
            records += self.partitions.on_broker_left(request.broker_id, keep_if_alone=True)
        return ControllerResult(response=BrokerRegistrationResponse(broker_epoch=record.broker_epoch), records=records)

    def handle_broker_heartbeat(
        self, request: BrokerHeartbeatRequest, *, now_ms: int
    ) -> ControllerResult[BrokerHeartbeatResponse]:
        try:
            change = self.cluster.hear(request, now_ms=now_ms)
        except KafkaError as refused:
            return ControllerResult(response=BrokerHeartbeatResponse(error_code=refused.code))
        broker = self.metadata.brokers[request.broker_id]
        records: list[MetadataRecord] = []
        fenced = broker.fenced
        if change is not None:
            records.append(change)
            if change.fenced < 0:
                records += self.partitions.on_broker_returned(request.broker_id)
                fenced = False
            else:
                records += self.partitions.on_broker_left(request.broker_id)
                fenced = fenced or change.fenced > 0
        leads = bool(records) or self.partitions.leads_any(request.broker_id) if request.want_shut_down else True
        return ControllerResult(
            response=BrokerHeartbeatResponse(
                is_caught_up=request.metadata_offset >= broker.broker_epoch,
                is_fenced=fenced,
                should_shut_down=request.want_shut_down and not leads,
            ),
            records=records,
        )

    def handle_unregister_broker(self, request: UnregisterBrokerRequest) -> ControllerResult[UnregisterBrokerResponse]:
        """Forget a broker. One that still runs registers again by itself."""
        broker = self.metadata.brokers.get(request.broker_id)
        if broker is None:
            return ControllerResult(
                response=UnregisterBrokerResponse(
                    error_code=ErrorCode.BROKER_ID_NOT_REGISTERED,
                    error_message=f"Broker {request.broker_id} is not registered.",
                )
            )
        records: list[MetadataRecord] = [
            *self.partitions.on_broker_left(request.broker_id),
            UnregisterBrokerRecord(broker_id=broker.broker_id, broker_epoch=broker.broker_epoch),
        ]
        return ControllerResult(response=UnregisterBrokerResponse(), records=records)

    def register_controller(self, record: RegisterControllerRecord) -> Sequence[MetadataRecord]:
        """A controller has started: its record, if it says anything new."""
        return () if self.metadata.controllers.get(record.controller_id) == record else (record,)

    def on_tick(self, now_ms: int) -> Sequence[MetadataRecord]:
        """Fence a broker that was not heard for too long. To be replayed and proposed as one batch, like the records
        of a request; while `next_deadline_ms` is in the past there is another such broker."""
        change = self.cluster.stale_broker(now_ms)
        return () if change is None else (change, *self.partitions.on_broker_left(change.broker_id))

    def next_deadline_ms(self) -> int | None:
        """When `on_tick` may next have something to do."""
        return self.cluster.next_deadline_ms()


_Serve = Callable[[Controller, Any, int, int], ControllerResult[Any]]

_HANDLERS: Final[Mapping[type, _Serve]] = {
    CreateTopicsRequest: lambda c, r, _now, _next: c.handle_create_topics(r),
    DeleteTopicsRequest: lambda c, r, _now, _next: c.handle_delete_topics(r),
    CreatePartitionsRequest: lambda c, r, _now, _next: c.handle_create_partitions(r),
    IncrementalAlterConfigsRequest: lambda c, r, _now, _next: c.handle_incremental_alter_configs(r),
    AlterConfigsRequest: lambda c, r, _now, _next: c.handle_alter_configs(r),
    ElectLeadersRequest: lambda c, r, _now, _next: c.handle_elect_leaders(r),
    AlterPartitionReassignmentsRequest: lambda c, r, _now, _next: c.handle_alter_partition_reassignments(r),
    ListPartitionReassignmentsRequest: lambda c, r, _now, _next: c.handle_list_partition_reassignments(r),
    UpdateFeaturesRequest: lambda c, r, _now, _next: c.handle_update_features(r),
    AllocateProducerIdsRequest: lambda c, r, _now, _next: c.handle_allocate_producer_ids(r),
    AssignReplicasToDirsRequest: lambda c, r, _now, _next: c.handle_assign_replicas_to_dirs(r),
    BrokerRegistrationRequest: lambda c, r, now, following: c.handle_broker_registration(
        r, now_ms=now, next_offset=following
    ),
    BrokerHeartbeatRequest: lambda c, r, now, _next: c.handle_broker_heartbeat(r, now_ms=now),
    UnregisterBrokerRequest: lambda c, r, _now, _next: c.handle_unregister_broker(r),
}
