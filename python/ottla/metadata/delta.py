"""How an image changes: records are replayed into a delta, and the delta makes the next image.

A delta reads as the metadata after what it has replayed, so the active controller decides on one directly. It copies
what it touches (a topic, the list of topics), never the whole image. A record that contradicts the metadata is a
fault of the log or of this software: it raises, and nothing may go on from there.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

from ottla.metadata.image import (
    EMPTY_IMAGE,
    BrokerRegistration,
    ConfigResource,
    MetadataImage,
    PartitionRegistration,
    TopicImage,
    frozen,
)
from ottla.metadata.records import (
    AbortTransactionRecord,
    BeginTransactionRecord,
    BrokerRegistrationChangeRecord,
    ClearElrRecord,
    ConfigRecord,
    EndTransactionRecord,
    FeatureLevelRecord,
    MetadataRecord,
    NoOpRecord,
    PartitionChangeRecord,
    PartitionRecord,
    ProducerIdsRecord,
    RegisterBrokerRecord,
    RegisterControllerRecord,
    RemoveTopicRecord,
    TopicRecord,
    UnregisterBrokerRecord,
)

K = TypeVar("K")
V = TypeVar("V")

TOPIC_RESOURCE: Final = 2


class InconsistentMetadata(Exception):
    """A record contradicts the metadata before it."""


class _CopyOnWrite(Generic[K, V]):
    """A mapping that is copied at its first change."""

    __slots__ = ("_owned", "now")

    def __init__(self, base: Mapping[K, V]) -> None:
        self.now: Mapping[K, V] = base
        self._owned = False

    def own(self) -> dict[K, V]:
        if not self._owned:
            self.now = dict(self.now)
            self._owned = True
        return self.now  # type: ignore[return-value]

    def freeze(self) -> Mapping[K, V]:
        if self._owned:
            self.now = frozen(self.now)
            self._owned = False
        return self.now


class MetadataDelta:
    """The metadata after the records replayed since `base`, and what they changed.

    Attributes:
        base: The image that the delta started from.
        changed_partitions: Topic id to the indexes of partitions made or changed, removed topics left out.
        removed_topics: Topics of `base` that are gone.
        changed_configs: Resources with a key set or removed; a removed topic's are among them.
        changed_brokers: Brokers that came, changed or went.
    """

    def __init__(self, base: MetadataImage = EMPTY_IMAGE) -> None:
        self.base = base
        self.changed_partitions: dict[uuid.UUID, set[int]] = {}
        self.removed_topics: dict[uuid.UUID, TopicImage] = {}
        self.changed_configs: set[ConfigResource] = set()
        self.changed_brokers: set[int] = set()
        self._topics = _CopyOnWrite(base.topics)
        self._topic_ids = _CopyOnWrite(base.topic_ids)
        self._partitions: dict[uuid.UUID, dict[int, PartitionRegistration]] = {}
        """Partitions of the topics touched, which the topic's image shows through a read-only view."""
        self._brokers = _CopyOnWrite(base.brokers)
        self._controllers = _CopyOnWrite(base.controllers)
        self._configs = _CopyOnWrite(base.configs)
        self._features = _CopyOnWrite(base.features)
        self._next_producer_id = base.next_producer_id
        self._transaction: list[MetadataRecord] | None = None

    def image(self, *, offset: int, epoch: int) -> MetadataImage:
        """The metadata after everything replayed, which ends at `offset`. The delta must not be fed any further."""
        if self._transaction is not None:
            raise InconsistentMetadata("the records end within a metadata transaction")
        return MetadataImage(
            offset=offset,
            epoch=epoch,
            topics=self._topics.freeze(),
            topic_ids=self._topic_ids.freeze(),
            brokers=self._brokers.freeze(),
            controllers=self._controllers.freeze(),
            configs=self._configs.freeze(),
            features=self._features.freeze(),
            next_producer_id=self._next_producer_id,
        )

    @property
    def is_in_transaction(self) -> bool:
        """Whether the records end within a metadata transaction: no image can be made yet."""
        return self._transaction is not None

    @property
    def topics(self) -> Mapping[uuid.UUID, TopicImage]:
        return self._topics.now

    @property
    def topic_ids(self) -> Mapping[str, uuid.UUID]:
        return self._topic_ids.now

    @property
    def brokers(self) -> Mapping[int, BrokerRegistration]:
        return self._brokers.now

    @property
    def controllers(self) -> Mapping[int, RegisterControllerRecord]:
        return self._controllers.now

    @property
    def configs(self) -> Mapping[ConfigResource, Mapping[str, str]]:
        return self._configs.now

    @property
    def features(self) -> Mapping[str, int]:
        return self._features.now

    @property
    def next_producer_id(self) -> int:
        return self._next_producer_id

    def topic(self, name: str) -> TopicImage | None:
        topic_id = self._topic_ids.now.get(name)
        return None if topic_id is None else self._topics.now[topic_id]

    def config(self, resource_type: int, resource_name: str) -> Mapping[str, str]:
        """What is set on a resource; empty if nothing is."""
        return self._configs.now.get(ConfigResource(resource_type, resource_name), {})

    def replay_all(self, records: Iterable[MetadataRecord]) -> MetadataDelta:
        for record in records:
            self.replay(record)
        return self

    def replay(self, record: MetadataRecord) -> None:
        """Apply one record. Raises InconsistentMetadata."""
        if self._transaction is None:
            _REPLAY[type(record)](self, record)
        elif isinstance(record, EndTransactionRecord):
            records, self._transaction = self._transaction, None
            self.replay_all(records)
        elif isinstance(record, AbortTransactionRecord):
            self._transaction = None
        else:
            self._transaction.append(record)

    def _replay_topic(self, record: TopicRecord) -> None:
        if record.name in self._topic_ids.now or record.topic_id in self._topics.now:
            raise InconsistentMetadata(f"topic {record.name!r} ({record.topic_id}) exists already")
        partitions: dict[int, PartitionRegistration] = {}
        topic = TopicImage(name=record.name, topic_id=record.topic_id, partitions=frozen(partitions))
        self._partitions[record.topic_id] = partitions
        self._topics.own()[record.topic_id] = topic
        self._topic_ids.own()[record.name] = record.topic_id
        self.changed_partitions[record.topic_id] = set()

    def _own_partitions(self, topic_id: uuid.UUID) -> dict[int, PartitionRegistration]:
        partitions = self._partitions.get(topic_id)
        if partitions is None:
            topic = self._topics.now.get(topic_id)
            if topic is None:
                raise InconsistentMetadata(f"a partition's topic {topic_id} does not exist")
            partitions = dict(topic.partitions)
            self._partitions[topic_id] = partitions
            self._topics.own()[topic_id] = TopicImage(name=topic.name, topic_id=topic_id, partitions=frozen(partitions))
            self.changed_partitions[topic_id] = set()
        return partitions

    def _replay_partition(self, record: PartitionRecord) -> None:
        partitions = self._own_partitions(record.topic_id)
        partitions[record.partition_id] = PartitionRegistration.of(record)
        self.changed_partitions[record.topic_id].add(record.partition_id)

    def _replay_partition_change(self, record: PartitionChangeRecord) -> None:
        partitions = self._own_partitions(record.topic_id)
        partition = partitions.get(record.partition_id)
        if partition is None:
            raise InconsistentMetadata(f"partition {record.partition_id} of topic {record.topic_id} does not exist")
        partitions[record.partition_id] = partition.merge(record)
        self.changed_partitions[record.topic_id].add(record.partition_id)

    def _replay_clear_elr(self, record: ClearElrRecord) -> None:
        for topic in list(self._topics.now.values()):
            if record.topic_name in ("", topic.name):
                for index, partition in topic.partitions.items():
                    if partition.eligible_leader_replicas or partition.last_known_elr:
                        self._replay_partition_change(
                            PartitionChangeRecord(
                                partition_id=index,
                                topic_id=topic.topic_id,
                                eligible_leader_replicas=(),
                                last_known_elr=(),
                            )
                        )

    def _replay_remove_topic(self, record: RemoveTopicRecord) -> None:
        topic = self._topics.now.get(record.topic_id)
        if topic is None:
            raise InconsistentMetadata(f"topic {record.topic_id} is removed but does not exist")
        del self._topics.own()[record.topic_id]
        del self._topic_ids.own()[topic.name]
        self._partitions.pop(record.topic_id, None)
        self.changed_partitions.pop(record.topic_id, None)
        if record.topic_id in self.base.topics:
            self.removed_topics[record.topic_id] = self.base.topics[record.topic_id]
        resource = ConfigResource(TOPIC_RESOURCE, topic.name)
        if resource in self._configs.now:
            del self._configs.own()[resource]
            self.changed_configs.add(resource)

    def _replay_config(self, record: ConfigRecord) -> None:
        resource = ConfigResource(record.resource_type, record.resource_name)
        values = dict(self._configs.now.get(resource, {}))
        if record.value is None:
            values.pop(record.name, None)
        else:
            values[record.name] = record.value
        if values:
            self._configs.own()[resource] = frozen(values)
        else:
            self._configs.own().pop(resource, None)
        self.changed_configs.add(resource)

    def _replay_register_broker(self, record: RegisterBrokerRecord) -> None:
        self._brokers.own()[record.broker_id] = BrokerRegistration.of(record)
        self.changed_brokers.add(record.broker_id)

    def _registered(self, broker_id: int, broker_epoch: int) -> BrokerRegistration:
        broker = self._brokers.now.get(broker_id)
        if broker is None or broker.broker_epoch != broker_epoch:
            raise InconsistentMetadata(f"broker {broker_id} is not registered with epoch {broker_epoch}")
        return broker

    def _replay_broker_change(self, record: BrokerRegistrationChangeRecord) -> None:
        broker = self._registered(record.broker_id, record.broker_epoch)
        self._brokers.own()[record.broker_id] = broker.merge(record)
        self.changed_brokers.add(record.broker_id)

    def _replay_unregister_broker(self, record: UnregisterBrokerRecord) -> None:
        self._registered(record.broker_id, record.broker_epoch)
        del self._brokers.own()[record.broker_id]
        self.changed_brokers.add(record.broker_id)

    def _replay_register_controller(self, record: RegisterControllerRecord) -> None:
        self._controllers.own()[record.controller_id] = record

    def _replay_feature_level(self, record: FeatureLevelRecord) -> None:
        if record.feature_level:
            self._features.own()[record.name] = record.feature_level
        else:
            self._features.own().pop(record.name, None)

    def _replay_producer_ids(self, record: ProducerIdsRecord) -> None:
        if record.next_producer_id < self._next_producer_id:
            raise InconsistentMetadata(
                f"producer ids go back from {self._next_producer_id} to {record.next_producer_id}"
            )
        self._next_producer_id = record.next_producer_id

    def _replay_begin_transaction(self, _record: BeginTransactionRecord) -> None:
        self._transaction = []

    def _replay_outside_transaction(self, record: MetadataRecord) -> None:
        raise InconsistentMetadata(f"{type(record).__name__} outside a metadata transaction")

    def _replay_nothing(self, _record: NoOpRecord) -> None:
        return


_REPLAY: Final[Mapping[type[MetadataRecord], Callable[[MetadataDelta, Any], None]]] = {
    TopicRecord: MetadataDelta._replay_topic,
    PartitionRecord: MetadataDelta._replay_partition,
    PartitionChangeRecord: MetadataDelta._replay_partition_change,
    ClearElrRecord: MetadataDelta._replay_clear_elr,
    RemoveTopicRecord: MetadataDelta._replay_remove_topic,
    ConfigRecord: MetadataDelta._replay_config,
    RegisterBrokerRecord: MetadataDelta._replay_register_broker,
    BrokerRegistrationChangeRecord: MetadataDelta._replay_broker_change,
    UnregisterBrokerRecord: MetadataDelta._replay_unregister_broker,
    RegisterControllerRecord: MetadataDelta._replay_register_controller,
    FeatureLevelRecord: MetadataDelta._replay_feature_level,
    ProducerIdsRecord: MetadataDelta._replay_producer_ids,
    BeginTransactionRecord: MetadataDelta._replay_begin_transaction,
    EndTransactionRecord: MetadataDelta._replay_outside_transaction,
    AbortTransactionRecord: MetadataDelta._replay_outside_transaction,
    NoOpRecord: MetadataDelta._replay_nothing,
}
