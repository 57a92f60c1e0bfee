"""Blocks of producer ids: each id is given out once in the life of the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ottla.controller.cluster_control import ClusterControl
from ottla.controller.result import ControllerResult
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.records import ProducerIdsRecord

BLOCK_LENGTH: Final = 1000
_PRODUCER_ID_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocateProducerIdsRequest:
    """A broker asks for a block (Kafka: API 67)."""

    broker_id: int
    broker_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocateProducerIdsResponse:
    """The ids `start` to `start` + `length` - 1 are the broker's."""

    error_code: ErrorCode = ErrorCode.NONE
    start: int = -1
    length: int = 0


class ProducerIdControl:
    """Hands out blocks of `BLOCK_LENGTH` ids."""

    def __init__(self, metadata: MetadataDelta, cluster: ClusterControl) -> None:
        self._metadata = metadata
        self._cluster = cluster

    def allocate(self, request: AllocateProducerIdsRequest) -> ControllerResult[AllocateProducerIdsResponse]:
        try:
            self._cluster.check_broker_epoch(request.broker_id, request.broker_epoch)
        except KafkaError as refused:
            return ControllerResult(response=AllocateProducerIdsResponse(error_code=refused.code))
        start = self._metadata.next_producer_id
        if start > _PRODUCER_ID_MAX - BLOCK_LENGTH:
            return ControllerResult(response=AllocateProducerIdsResponse(error_code=ErrorCode.UNKNOWN_SERVER_ERROR))
        record = ProducerIdsRecord(
            broker_id=request.broker_id,
            broker_epoch=request.broker_epoch,
            next_producer_id=start + BLOCK_LENGTH,
        )
        return ControllerResult(
            response=AllocateProducerIdsResponse(start=start, length=BLOCK_LENGTH), records=[record]
        )
