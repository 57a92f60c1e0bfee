"""The cluster's metadata at one point of its log: immutable, shared freely, replaced as a whole.

An image is the sum of the records before it. `MetadataImage.records` writes it down again as the shortest list of
records that builds it: that is what a snapshot holds. A new image comes from `ottla.metadata.delta`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from ottla.metadata.records import (
    DIRECTORY_MIGRATING,
    DIRECTORY_UNASSIGNED,
    NO_LEADER_CHANGE,
    BrokerRegistrationChangeRecord,
    ConfigRecord,
    Endpoint,
    FeatureLevelRecord,
    FeatureRange,
    MetadataRecord,
    PartitionChangeRecord,
    PartitionRecord,
    ProducerIdsRecord,
    RegisterBrokerRecord,
    RegisterControllerRecord,
    TopicRecord,
)

K = TypeVar("K")
V = TypeVar("V")

METADATA_VERSION_FEATURE: Final = "metadata.version"
METADATA_VERSION: Final = 30
"""The level of metadata.version at which records are written: Kafka's 4.3-IV0."""


def frozen(mapping: Mapping[K, V]) -> Mapping[K, V]:
    """A read-only view."""
    return MappingProxyType(mapping)


class ConfigResource(NamedTuple):
    """What a configuration belongs to: `type` is 2 topic, 4 broker (empty name: all brokers), 16 client metrics,
    32 group."""

    type: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRegistration:
    """One partition: who holds it, who leads it, and how often that changed.

    `leader_epoch` rises with every leader that is set, `partition_epoch` with every change.
    """

    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    leader: int
    leader_epoch: int
    partition_epoch: int
    removing_replicas: tuple[int, ...] = ()
    adding_replicas: tuple[int, ...] = ()
    directories: tuple[uuid.UUID | None, ...] = ()
    leader_recovery_state: int = 0
    eligible_leader_replicas: tuple[int, ...] = ()
    last_known_elr: tuple[int, ...] = ()

    @property
    def preferred_leader(self) -> int:
        """The first replica."""
        return self.replicas[0]

    def directory_of(self, broker_id: int) -> uuid.UUID:
        """The log directory in which a broker has its replica, or one of the reserved ids (`DIRECTORY_UNASSIGNED`)."""
        for replica, directory in zip(self.replicas, self.directories, strict=False):
            if replica == broker_id:
                return directory or DIRECTORY_MIGRATING
        return DIRECTORY_UNASSIGNED

    @classmethod
    def of(cls, record: PartitionRecord) -> PartitionRegistration:
        return cls(
            replicas=record.replicas,
            isr=record.isr,
            leader=record.leader,
            leader_epoch=record.leader_epoch,
            partition_epoch=record.partition_epoch,
            removing_replicas=record.removing_replicas,
            adding_replicas=record.adding_replicas,
            directories=record.directories,
            leader_recovery_state=record.leader_recovery_state,
            eligible_leader_replicas=record.eligible_leader_replicas or (),
            last_known_elr=record.last_known_elr or (),
        )

    def merge(self, change: PartitionChangeRecord) -> PartitionRegistration:
        """The partition after a change. Replicas that are new and come without a directory are unassigned."""
        replicas = self.replicas if change.replicas is None else change.replicas
        directories = self.directories
        if change.directories is not None:
            directories = change.directories
        elif change.replicas is not None:
            known = dict(zip(self.replicas, self.directories, strict=False))
            directories = tuple(known.get(replica, DIRECTORY_UNASSIGNED) for replica in replicas)
        led = change.leader != NO_LEADER_CHANGE
        recovery = change.leader_recovery_state

        def or_own(changed: tuple[int, ...] | None, own: tuple[int, ...]) -> tuple[int, ...]:
            return own if changed is None else changed

        return PartitionRegistration(
            replicas=replicas,
            isr=or_own(change.isr, self.isr),
            leader=change.leader if led else self.leader,
            leader_epoch=self.leader_epoch + led,
            partition_epoch=self.partition_epoch + 1,
            removing_replicas=or_own(change.removing_replicas, self.removing_replicas),
            adding_replicas=or_own(change.adding_replicas, self.adding_replicas),
            directories=directories,
            leader_recovery_state=self.leader_recovery_state if recovery == -1 else recovery,
            eligible_leader_replicas=or_own(change.eligible_leader_replicas, self.eligible_leader_replicas),
            last_known_elr=or_own(change.last_known_elr, self.last_known_elr),
        )

    def record(self, topic_id: uuid.UUID, partition_id: int) -> PartitionRecord:
        return PartitionRecord(
            partition_id=partition_id,
            topic_id=topic_id,
            replicas=self.replicas,
            isr=self.isr,
            removing_replicas=self.removing_replicas,
            adding_replicas=self.adding_replicas,
            leader=self.leader,
            leader_epoch=self.leader_epoch,
            partition_epoch=self.partition_epoch,
            directories=self.directories,
            leader_recovery_state=self.leader_recovery_state,
            eligible_leader_replicas=self.eligible_leader_replicas or None,
            last_known_elr=self.last_known_elr or None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicImage:
    """A topic; partitions by index, which run from 0 without gaps."""

    name: str
    topic_id: uuid.UUID
    partitions: Mapping[int, PartitionRegistration]

    def records(self) -> Iterator[MetadataRecord]:
        yield TopicRecord(name=self.name, topic_id=self.topic_id)
        for index in sorted(self.partitions):
            yield self.partitions[index].record(self.topic_id, index)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerRegistration:
    """A broker that registered. `broker_epoch` is the offset of that registration; fenced means not in service."""

    broker_id: int
    broker_epoch: int
    incarnation_id: uuid.UUID
    end_points: tuple[Endpoint, ...] = ()
    features: tuple[FeatureRange, ...] = ()
    rack: str | None = None
    fenced: bool = True
    in_controlled_shutdown: bool = False
    log_dirs: tuple[uuid.UUID | None, ...] = ()
    cordoned_log_dirs: tuple[uuid.UUID | None, ...] | None = None

    @property
    def is_live(self) -> bool:
        """Whether the broker may lead and hold new partitions."""
        return not self.fenced and not self.in_controlled_shutdown

    @classmethod
    def of(cls, record: RegisterBrokerRecord) -> BrokerRegistration:
        return cls(
            broker_id=record.broker_id,
            broker_epoch=record.broker_epoch,
            incarnation_id=record.incarnation_id,
            end_points=record.end_points,
            features=record.features,
            rack=record.rack,
            fenced=record.fenced,
            in_controlled_shutdown=record.in_controlled_shutdown,
            log_dirs=record.log_dirs,
            cordoned_log_dirs=record.cordoned_log_dirs,
        )

    def merge(self, change: BrokerRegistrationChangeRecord) -> BrokerRegistration:
        return replace(
            self,
            fenced=self.fenced if change.fenced == 0 else change.fenced > 0,
            in_controlled_shutdown=self.in_controlled_shutdown or change.in_controlled_shutdown > 0,
            log_dirs=change.log_dirs or self.log_dirs,
            cordoned_log_dirs=self.cordoned_log_dirs if change.cordoned_log_dirs is None else change.cordoned_log_dirs,
        )

    def record(self) -> RegisterBrokerRecord:
        return RegisterBrokerRecord(
            broker_id=self.broker_id,
            incarnation_id=self.incarnation_id,
            broker_epoch=self.broker_epoch,
            end_points=self.end_points,
            features=self.features,
            rack=self.rack,
            fenced=self.fenced,
            in_controlled_shutdown=self.in_controlled_shutdown,
            log_dirs=self.log_dirs,
            cordoned_log_dirs=self.cordoned_log_dirs,
        )


_EMPTY: Final[Mapping[str, str]] = frozen({})


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataImage:
    """Everything that is known of the cluster below `offset` + 1; `offset` and `epoch` are the last record's."""

    offset: int = -1
    epoch: int = -1
    topics: Mapping[uuid.UUID, TopicImage] = field(default_factory=lambda: frozen({}))
    topic_ids: Mapping[str, uuid.UUID] = field(default_factory=lambda: frozen({}))
    brokers: Mapping[int, BrokerRegistration] = field(default_factory=lambda: frozen({}))
    controllers: Mapping[int, RegisterControllerRecord] = field(default_factory=lambda: frozen({}))
    configs: Mapping[ConfigResource, Mapping[str, str]] = field(default_factory=lambda: frozen({}))
    features: Mapping[str, int] = field(default_factory=lambda: frozen({}))
    next_producer_id: int = 0

    def topic(self, name: str) -> TopicImage | None:
        topic_id = self.topic_ids.get(name)
        return None if topic_id is None else self.topics[topic_id]

    def partition(self, name: str, index: int) -> PartitionRegistration | None:
        topic = self.topic(name)
        return None if topic is None else topic.partitions.get(index)

    def config(self, resource_type: int, resource_name: str) -> Mapping[str, str]:
        """What was set on a resource; empty if nothing was."""
        return self.configs.get(ConfigResource(resource_type, resource_name), _EMPTY)

    def records(self) -> Iterator[MetadataRecord]:
        """The records that build this image from nothing: a snapshot's content. Features come first, so that a reader
        knows the versions of what follows."""
        for name in sorted(self.features, key=lambda name: (name != METADATA_VERSION_FEATURE, name)):
            yield FeatureLevelRecord(name=name, feature_level=self.features[name])
        yield from (self.controllers[controller_id] for controller_id in sorted(self.controllers))
        yield from (self.brokers[broker_id].record() for broker_id in sorted(self.brokers))
        for name in sorted(self.topic_ids):
            yield from self.topics[self.topic_ids[name]].records()
        for resource in sorted(self.configs):
            for key, value in sorted(self.configs[resource].items()):
                yield ConfigRecord(resource_type=resource.type, resource_name=resource.name, name=key, value=value)
        if self.next_producer_id:
            yield ProducerIdsRecord(broker_id=-1, broker_epoch=-1, next_producer_id=self.next_producer_id)


EMPTY_IMAGE: Final = MetadataImage()
