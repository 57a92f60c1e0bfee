"""This broker in the eyes of the controller: registered under an epoch, kept alive by heartbeats, unfenced, let go."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from ottla.broker.context import Controller
from ottla.broker.event_log import EventLog
from ottla.broker.metadata_publisher import MetadataPublisher
from ottla.controller.cluster_control import (
    BrokerHeartbeatRequest,
    BrokerHeartbeatResponse,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
)
from ottla.controller.directory_control import AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, Replica
from ottla.controller.feature_control import supported_feature_ranges
from ottla.controller.producer_ids import AllocateProducerIdsRequest, AllocateProducerIdsResponse
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.records import Endpoint

log = EventLog("lifecycle")

RETRY_S: Final = 0.1
"""Between attempts while the controller cannot answer or does not let the broker in yet."""


class BrokerLifecycle:
    """Registers and stays registered. `broker_epoch` is -1 before `start`."""

    def __init__(
        self,
        controller: Controller,
        metadata: MetadataPublisher,
        *,
        node_id: int,
        cluster_id: str,
        directory_ids: Sequence[uuid.UUID],
        endpoints: Sequence[Endpoint],
        heartbeat_interval_ms: int,
    ) -> None:
        self.broker_epoch = -1
        self._controller = controller
        self._metadata = metadata
        self._heartbeat_interval_s = heartbeat_interval_ms / 1000
        self._node_id = node_id
        self._registration = BrokerRegistrationRequest(
            broker_id=node_id,
            cluster_id=cluster_id,
            incarnation_id=uuid.uuid4(),
            listeners=tuple(endpoints),
            features=supported_feature_ranges(),
            log_dirs=tuple(directory_ids),
        )

    async def start(self) -> None:
        """Register and return once the broker is unfenced and its partitions are served."""
        await self._register()
        while True:
            response = await self._heartbeat()
            if response is not None and not response.is_fenced:
                break
            await trio.sleep(RETRY_S)
        log.info("unfenced", broker_epoch=self.broker_epoch)

    async def run(self) -> None:
        """Send heartbeats until cancelled; register anew if the controller forgot this broker."""
        while True:
            await trio.sleep(self._heartbeat_interval_s)
            response = await self._heartbeat()
            if response is not None and response.error_code in (
                ErrorCode.STALE_BROKER_EPOCH,
                ErrorCode.BROKER_ID_NOT_REGISTERED,
            ):
                log.warning("registration_lost", reason=response.error_code.name)
                await self._register()

    async def allocate_producer_ids(self) -> range:
        """Get a block of producer ids from the controller. Raises: KafkaError."""
        request = AllocateProducerIdsRequest(broker_id=self._node_id, broker_epoch=self.broker_epoch)
        response: AllocateProducerIdsResponse = await self._controller.handle(request)
        if response.error_code is not ErrorCode.NONE:
            raise KafkaError(response.error_code)
        return range(response.start, response.start + response.length)

    async def assign_replicas_to_dirs(self, assignments: Mapping[Replica, uuid.UUID]) -> None:
        """Tell the controller in which log directories replicas of this broker are; it keeps those that it knows.

        Raises: KafkaError.
        """
        request = AssignReplicasToDirsRequest(
            broker_id=self._node_id, broker_epoch=self.broker_epoch, assignments=assignments
        )
        response: AssignReplicasToDirsResponse = await self._controller.handle(request)
        if response.error_code is not ErrorCode.NONE:
            raise KafkaError(response.error_code)

    async def _register(self) -> None:
        while True:
            try:
                response: BrokerRegistrationResponse = await self._controller.handle(self._registration)
            except KafkaError as error:
                log.warning("registration_failed", reason=str(error))
            else:
                if response.error_code is ErrorCode.NONE:
                    self.broker_epoch = response.broker_epoch
                    return
                log.warning("registration_refused", reason=response.error_message or response.error_code.name)
            await trio.sleep(RETRY_S)

    async def _heartbeat(self) -> BrokerHeartbeatResponse | None:
        request = BrokerHeartbeatRequest(
            broker_id=self._node_id, broker_epoch=self.broker_epoch, metadata_offset=self._metadata.image.offset
        )
        try:
            response: BrokerHeartbeatResponse = await self._controller.handle(request)
        except KafkaError as error:
            log.warning("heartbeat_failed", reason=str(error))
            return None
        return response
