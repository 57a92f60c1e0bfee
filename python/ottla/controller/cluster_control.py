"""The brokers: registration, heartbeats, fencing.

A broker registers at every start with a new incarnation id and is fenced until its first heartbeats show that it has
the metadata up to its own registration. A broker whose heartbeats stay away is fenced. What was heard when is soft
state: a new controller gives every broker a fresh session.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ottla.common.config import BrokerConfig
from ottla.controller.placement import UsableBroker
from ottla.controller.result import Refused
from ottla.errors import ErrorCode
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.image import BrokerRegistration
from ottla.metadata.records import (
    DIRECTORY_UNASSIGNED,
    BrokerRegistrationChangeRecord,
    Endpoint,
    FeatureRange,
    RegisterBrokerRecord,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerRegistrationRequest:
    """A broker has started (Kafka: API 62)."""

    broker_id: int
    cluster_id: str
    incarnation_id: uuid.UUID
    listeners: tuple[Endpoint, ...]
    features: tuple[FeatureRange, ...]
    rack: str | None = None
    log_dirs: tuple[uuid.UUID, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerRegistrationResponse:
    """The broker's epoch, which it names from now on."""

    error_code: ErrorCode = ErrorCode.NONE
    error_message: str | None = None
    broker_epoch: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerHeartbeatRequest:
    """A broker is there (Kafka: API 63). `metadata_offset` is how far it has applied the metadata."""

    broker_id: int
    broker_epoch: int
    metadata_offset: int
    want_fence: bool = False
    want_shut_down: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerHeartbeatResponse:
    """The state the broker is in. `should_shut_down`: its partitions are led by others, it may go."""

    error_code: ErrorCode = ErrorCode.NONE
    is_caught_up: bool = False
    is_fenced: bool = True
    should_shut_down: bool = False


class ClusterControl:
    """Knows which brokers are live. Methods that change one return its record; the partitions are others' work."""

    def __init__(self, metadata: MetadataDelta, config: BrokerConfig, *, cluster_id: str, now_ms: int) -> None:
        self._metadata = metadata
        self._cluster_id = cluster_id
        self._session_timeout_ms = config.integer("broker.session.timeout.ms")
        self._heard_ms: dict[int, int] = dict.fromkeys(
            (broker.broker_id for broker in metadata.brokers.values() if not broker.fenced), now_ms
        )
        self._held_incarnations: set[uuid.UUID] = set()
        """Incarnations that registered or were heard by this controller: only they defend their broker id."""

    @property
    def brokers(self) -> Mapping[int, BrokerRegistration]:
        return self._metadata.brokers

    def is_live(self, broker_id: int) -> bool:
        """Whether the broker is registered, unfenced and not on its way out."""
        broker = self._metadata.brokers.get(broker_id)
        return broker is not None and broker.is_live

    def usable_brokers(self) -> Iterator[UsableBroker]:
        """The brokers that may get replicas."""
        for broker in self._metadata.brokers.values():
            cordoned = broker.cordoned_log_dirs or ()
            if not broker.in_controlled_shutdown and not (broker.log_dirs and set(broker.log_dirs) <= set(cordoned)):
                yield UsableBroker(broker_id=broker.broker_id, rack=broker.rack, fenced=broker.fenced)

    def directory_for_new_replica(self, broker_id: int) -> uuid.UUID:
        """The log directory of a new replica: the broker's only one, otherwise the broker chooses."""
        directories = self._metadata.brokers[broker_id].log_dirs
        if len(directories) == 1 and directories[0] is not None:
            return directories[0]
        return DIRECTORY_UNASSIGNED

    def check_broker_epoch(self, broker_id: int, broker_epoch: int) -> None:
        """Raises: Refused with BROKER_ID_NOT_REGISTERED or STALE_BROKER_EPOCH."""
        broker = self._metadata.brokers.get(broker_id)
        if broker is None:
            raise Refused(ErrorCode.BROKER_ID_NOT_REGISTERED, f"Broker {broker_id} is not registered.")
        if broker.broker_epoch != broker_epoch:
            raise Refused(
                ErrorCode.STALE_BROKER_EPOCH,
                f"Broker {broker_id} has epoch {broker.broker_epoch}, not {broker_epoch}.",
            )

    def register(self, request: BrokerRegistrationRequest, *, next_offset: int, now_ms: int) -> RegisterBrokerRecord:
        """Return the record of a registration, which must get the offset `next_offset`. Raises Refused."""
        if request.cluster_id != self._cluster_id:
            raise Refused(
                ErrorCode.INCONSISTENT_CLUSTER_ID,
                f"This is cluster {self._cluster_id}, the broker belongs to {request.cluster_id}.",
            )
        if not request.listeners:
            raise Refused(ErrorCode.INVALID_REGISTRATION, "A broker must have a listener.")
        self._check_features(request.features)
        known = self._metadata.brokers.get(request.broker_id)
        if known is not None and known.incarnation_id != request.incarnation_id and self._has_session(known, now_ms):
            raise Refused(
                ErrorCode.DUPLICATE_BROKER_REGISTRATION, f"Another broker with id {request.broker_id} is running."
            )
        same = known is not None and known.incarnation_id == request.incarnation_id
        self._heard_ms[request.broker_id] = now_ms
        self._held_incarnations.add(request.incarnation_id)
        return RegisterBrokerRecord(
            broker_id=request.broker_id,
            incarnation_id=request.incarnation_id,
            broker_epoch=known.broker_epoch if known is not None and same else next_offset,
            end_points=request.listeners,
            features=request.features,
            rack=request.rack,
            fenced=known.fenced if known is not None and same else True,
            log_dirs=tuple(sorted(request.log_dirs)),
        )

    def _has_session(self, broker: BrokerRegistration, now_ms: int) -> bool:
        # After a change of controller the old incarnation is not known to live: the new one may take its place.
        heard_ms = self._heard_ms.get(broker.broker_id)
        return (
            broker.incarnation_id in self._held_incarnations
            and heard_ms is not None
            and now_ms - heard_ms < self._session_timeout_ms
        )

    def _check_features(self, offered: tuple[FeatureRange, ...]) -> None:
        ranges = {feature.name: feature for feature in offered}
        for name, level in self._metadata.features.items():
            feature = ranges.get(name)
            if feature is None or not feature.min_supported_version <= level <= feature.max_supported_version:
                raise Refused(
                    ErrorCode.UNSUPPORTED_VERSION,
                    f"The broker cannot run at level {level} of {name}, the cluster does.",
                )

    def hear(self, request: BrokerHeartbeatRequest, *, now_ms: int) -> BrokerRegistrationChangeRecord | None:
        """Take a heartbeat; return the change of the broker's state that it causes. Raises Refused."""
        self.check_broker_epoch(request.broker_id, request.broker_epoch)
        broker = self._metadata.brokers[request.broker_id]
        self._heard_ms[request.broker_id] = now_ms
        self._held_incarnations.add(broker.incarnation_id)
        # A broker on its way out comes back by registering anew only.
        may_serve = request.metadata_offset >= broker.broker_epoch and not broker.in_controlled_shutdown
        fence = unfence = leave = 0
        if request.want_shut_down and not broker.fenced:
            leave = 0 if broker.in_controlled_shutdown else 1
        elif request.want_fence and not broker.fenced:
            fence = 1
        elif broker.fenced and may_serve and not request.want_fence and not request.want_shut_down:
            unfence = -1
        if not (fence or unfence or leave):
            return None
        return BrokerRegistrationChangeRecord(
            broker_id=broker.broker_id,
            broker_epoch=broker.broker_epoch,
            fenced=fence or unfence,
            in_controlled_shutdown=leave,
        )

    def stale_broker(self, now_ms: int) -> BrokerRegistrationChangeRecord | None:
        """The fencing of one broker that was not heard for the session timeout."""
        for broker in self._metadata.brokers.values():
            if not broker.fenced and now_ms - self._heard_ms.get(broker.broker_id, 0) >= self._session_timeout_ms:
                return BrokerRegistrationChangeRecord(
                    broker_id=broker.broker_id, broker_epoch=broker.broker_epoch, fenced=1
                )
        return None

    def next_deadline_ms(self) -> int | None:
        """When the next broker goes stale if nothing is heard."""
        heard = [
            self._heard_ms.get(broker.broker_id, 0) for broker in self._metadata.brokers.values() if not broker.fenced
        ]
        return min(heard) + self._session_timeout_ms if heard else None
