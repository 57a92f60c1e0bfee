"""Verbs for the tests of the controller: a cluster whose log commits at once."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from random import Random
from typing import Any

from ottla.common.config import BrokerConfig
from ottla.controller.cluster_control import (
    BrokerHeartbeatRequest,
    BrokerHeartbeatResponse,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
)
from ottla.controller.controller import Controller
from ottla.controller.feature_control import bootstrap_records, supported_feature_ranges
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.image import EMPTY_IMAGE, MetadataImage, PartitionRegistration
from ottla.metadata.records import Endpoint, MetadataRecord, decode_record, encode_record

CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"


class Cluster:
    """A controller and its log. Every decision is encoded, decoded, replayed and committed."""

    def __init__(self, *, seed: int = 0, config: dict[str, str] | None = None) -> None:
        self.config = BrokerConfig.load(config or {})
        self.random = Random(seed)
        self.log: list[MetadataRecord] = []
        self.now_ms = 0
        self.epochs: dict[int, int] = {}
        self._incarnations = 0
        image = self._commit_to(EMPTY_IMAGE, bootstrap_records())
        self.controller = self._new_controller(image)

    def _new_controller(self, image: MetadataImage) -> Controller:
        return Controller(
            image=image,
            config=self.config,
            node_id=1,
            cluster_id=CLUSTER_ID,
            random=self.random,
            now_ms=self.now_ms,
        )

    def _commit_to(self, image: MetadataImage, records: Iterable[MetadataRecord]) -> MetadataImage:
        self.log += [decode_record(encode_record(record)) for record in records]
        return MetadataDelta(image).replay_all(self.log[image.offset + 1 :]).image(offset=len(self.log) - 1, epoch=1)

    def image(self) -> MetadataImage:
        """What a reader of the log knows."""
        return self._commit_to(EMPTY_IMAGE, ())

    def take(self, records: Iterable[MetadataRecord]) -> None:
        records = list(records)
        self.controller.replay(records)
        self.log += [decode_record(encode_record(record)) for record in records]

    def call(self, request: Any) -> Any:
        result = self.controller.handle(request, now_ms=self.now_ms, next_offset=len(self.log))
        self.take(result.records)
        return result.response

    def change_leader(self, *, through_snapshot: bool = False) -> None:
        """Another controller takes over from what is committed."""
        image = self.image()
        if through_snapshot:
            rebuilt = MetadataDelta().replay_all(decode_record(encode_record(record)) for record in image.records())
            image = rebuilt.image(offset=image.offset, epoch=image.epoch)
        self.controller = self._new_controller(image)

    def register(self, broker_id: int, *, rack: str | None = None, **kwargs: Any) -> BrokerRegistrationResponse:
        self._incarnations += 1
        request = {
            "broker_id": broker_id,
            "cluster_id": CLUSTER_ID,
            "incarnation_id": uuid.UUID(int=1000 + self._incarnations),
            "listeners": (Endpoint(name="PLAINTEXT", host="127.0.0.1", port=9092),),
            "features": supported_feature_ranges(),
            "rack": rack,
            "log_dirs": (uuid.UUID(int=100 + broker_id),),
            **kwargs,
        }
        response: BrokerRegistrationResponse = self.call(BrokerRegistrationRequest(**request))
        if response.broker_epoch >= 0:
            self.epochs[broker_id] = response.broker_epoch
        return response

    def heartbeat(self, broker_id: int, **kwargs: Any) -> BrokerHeartbeatResponse:
        request = BrokerHeartbeatRequest(
            **{
                "broker_id": broker_id,
                "broker_epoch": self.epochs[broker_id],
                "metadata_offset": len(self.log) - 1,
                **kwargs,
            }
        )
        response: BrokerHeartbeatResponse = self.call(request)
        return response

    def start(self, *broker_ids: int, rack: str | None = None) -> Cluster:
        """Bring brokers into service."""
        for broker_id in broker_ids:
            self.register(broker_id, rack=rack)
            self.heartbeat(broker_id)
        return self

    def tick(self, now_ms: int) -> None:
        """Let time pass; everything due happens."""
        self.now_ms = now_ms
        while (deadline_ms := self.controller.next_deadline_ms()) is not None and deadline_ms <= now_ms:
            self.take(self.controller.on_tick(now_ms))

    def partition(self, name: str, index: int = 0) -> PartitionRegistration:
        found = self.image().partition(name, index)
        assert found is not None
        return found
