"""Topics and their partitions: creation, deletion, growth.

Source of the checks and their codes: Apache Kafka 4.3.1, asked (tests/golden/admin).
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ottla.common.config import BrokerConfig
from ottla.common.topics import METADATA_TOPIC, check_topic_name, collision_key
from ottla.controller.cluster_control import ClusterControl
from ottla.controller.configuration_control import ConfigurationControl
from ottla.controller.placement import check_replicas, place_replicas
from ottla.controller.result import RECORDS_MAX, ControllerResult, RandomSource, Refused, random_topic_id
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.image import TopicImage
from ottla.metadata.records import ConfigRecord, MetadataRecord, PartitionRecord, RemoveTopicRecord, TopicRecord
from ottla.protocol.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
)
from ottla.protocol.messages.create_topics import (
    CreatableTopic,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from ottla.protocol.messages.delete_topics import (
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicState,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _NewTopic:
    result: CreatableTopicResult
    records: list[MetadataRecord]


class ReplicationControl:
    """Creates, deletes and grows topics. `collisions` is kept by `replay`."""

    def __init__(
        self,
        metadata: MetadataDelta,
        cluster: ClusterControl,
        configuration: ConfigurationControl,
        config: BrokerConfig,
        random: RandomSource,
    ) -> None:
        self._metadata = metadata
        self._cluster = cluster
        self._configuration = configuration
        self._config = config
        self._random = random
        self._collisions = Counter(collision_key(name) for name in metadata.topic_ids)

    def before_replay(self, record: MetadataRecord) -> None:
        """Follow a record that is about to change the metadata."""
        if isinstance(record, TopicRecord):
            self._collisions[collision_key(record.name)] += 1
        elif isinstance(record, RemoveTopicRecord):
            self._collisions[collision_key(self._metadata.topics[record.topic_id].name)] -= 1

    def create_topics(self, request: CreateTopicsRequest) -> ControllerResult[CreateTopicsResponse]:
        counts = Counter(topic.name for topic in request.topics)
        results: list[CreatableTopicResult] = []
        records: list[MetadataRecord] = []
        partitions = 0
        for name, count in counts.items():
            if count > 1:
                results.append(_topic_failed(name, ErrorCode.INVALID_REQUEST, "The topic is named more than once."))
        for topic in request.topics:
            if counts[topic.name] > 1:
                continue
            try:
                partitions += len(topic.assignments) or max(topic.num_partitions, 1)
                if partitions > RECORDS_MAX:
                    raise Refused(
                        ErrorCode.POLICY_VIOLATION,
                        f"One request may create at most {RECORDS_MAX} partitions.",
                    )
                new = self._create_topic(topic)
            except KafkaError as refused:
                results.append(_topic_failed(topic.name, refused.code, refused.message))
            else:
                results.append(new.result)
                records += new.records
        response = CreateTopicsResponse(topics=tuple(results))
        return ControllerResult(response=response, records=() if request.validate_only else records)

    def _create_topic(self, topic: CreatableTopic) -> _NewTopic:
        check_topic_name(topic.name)
        if topic.name == METADATA_TOPIC:
            raise Refused(ErrorCode.INVALID_REQUEST, f"{topic.name} belongs to the cluster and cannot be created.")
        if topic.name in self._metadata.topic_ids:
            raise Refused(ErrorCode.TOPIC_ALREADY_EXISTS, f"The topic {topic.name} already exists.")
        if self._collisions[collision_key(topic.name)]:
            raise Refused(
                ErrorCode.INVALID_TOPIC_EXCEPTION,
                f"{topic.name} differs from an existing topic only in '.' and '_', which metrics do not tell apart.",
            )
        configs = self._configuration.new_topic_configs((config.name, config.value) for config in topic.configs)
        assignment = self._assignment(topic)
        topic_id = random_topic_id(self._random)
        records: list[MetadataRecord] = [TopicRecord(name=topic.name, topic_id=topic_id)]
        records += [
            ConfigRecord(resource_type=2, resource_name=topic.name, name=name, value=value)
            for name, value in configs.items()
        ]
        records += [
            self._new_partition(topic_id, index, replicas, manual=bool(topic.assignments))
            for index, replicas in enumerate(assignment)
        ]
        result = CreatableTopicResult(
            name=topic.name,
            topic_id=topic_id,
            num_partitions=len(assignment),
            replication_factor=len(assignment[0]),
            configs=self._configuration.described_topic_configs(configs),
        )
        return _NewTopic(result=result, records=records)

    def _assignment(self, topic: CreatableTopic) -> list[tuple[int, ...]]:
        if topic.assignments:
            return self._manual_assignment(topic)
        if topic.replication_factor < -1 or topic.replication_factor == 0:
            raise Refused(
                ErrorCode.INVALID_REPLICATION_FACTOR, "The replication factor must be positive, or -1 for the default."
            )
        if topic.num_partitions < -1 or topic.num_partitions == 0:
            raise Refused(
                ErrorCode.INVALID_PARTITIONS, "The number of partitions must be positive, or -1 for the default."
            )
        partitions, factor = topic.num_partitions, topic.replication_factor
        return place_replicas(
            self._cluster.usable_brokers(),
            partitions=self._config.integer("num.partitions") if partitions == -1 else partitions,
            replication_factor=self._config.integer("default.replication.factor") if factor == -1 else factor,
            random=self._random,
        )

    def _manual_assignment(self, topic: CreatableTopic) -> list[tuple[int, ...]]:
        if topic.replication_factor != -1:
            raise Refused(ErrorCode.INVALID_REQUEST, "With an assignment the replication factor must be -1.")
        if topic.num_partitions != -1:
            raise Refused(ErrorCode.INVALID_REQUEST, "With an assignment the number of partitions must be -1.")
        by_index: dict[int, tuple[int, ...]] = {}
        for entry in topic.assignments:
            if entry.partition_index in by_index:
                raise Refused(
                    ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"Partition {entry.partition_index} is assigned twice."
                )
            by_index[entry.partition_index] = entry.broker_ids
            self._check_replicas(entry.broker_ids, factor=len(topic.assignments[0].broker_ids))
        if sorted(by_index) != list(range(len(by_index))):
            raise Refused(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT, "The assigned partitions must be numbered from 0 without a gap."
            )
        return [by_index[index] for index in range(len(by_index))]

    def _check_replicas(self, replicas: Sequence[int], *, factor: int) -> None:
        check_replicas(replicas, brokers=self._metadata.brokers)
        if len(replicas) != factor:
            raise Refused(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"One partition is assigned {len(replicas)} replicas, others {factor}; all must have the same.",
            )

    def _new_partition(
        self, topic_id: uuid.UUID, index: int, replicas: tuple[int, ...], *, manual: bool
    ) -> PartitionRecord:
        isr = tuple(replica for replica in replicas if self._cluster.is_live(replica))
        if not isr:
            code = ErrorCode.INVALID_REPLICA_ASSIGNMENT if manual else ErrorCode.INVALID_REPLICATION_FACTOR
            raise Refused(code, f"No replica of partition {index} is in service.")
        return PartitionRecord(
            partition_id=index,
            topic_id=topic_id,
            replicas=replicas,
            isr=isr,
            leader=isr[0],
            leader_epoch=0,
            partition_epoch=0,
            directories=tuple(self._cluster.directory_for_new_replica(replica) for replica in replicas),
        )

    def delete_topics(self, request: DeleteTopicsRequest) -> ControllerResult[DeleteTopicsResponse]:
        wanted = [
            *request.topics,
            *(DeleteTopicState(name=name) for name in request.topic_names),
        ]
        if not self._config.boolean("delete.topic.enable"):
            disabled = ErrorCode.TOPIC_DELETION_DISABLED
            results = [_deletion_failed(state, disabled, "delete.topic.enable is false.") for state in wanted]
            return ControllerResult(response=DeleteTopicsResponse(responses=tuple(results)))
        names = Counter(state.name for state in wanted if state.name is not None)
        ids = Counter(state.topic_id for state in wanted if state.name is None)
        by_name_too = {topic.topic_id for name in names if (topic := self._metadata.topic(name)) is not None}
        results = []
        doomed: dict[uuid.UUID, TopicImage] = {}
        reported: set[str | uuid.UUID | None] = set()
        for state in wanted:
            count = ids[state.topic_id] if state.name is None else names[state.name]
            key = state.topic_id if state.name is None else state.name
            if key in reported:
                continue
            reported.add(key)
            try:
                topic = self._topic_to_delete(state, count=count)
            except KafkaError as refused:
                results.append(_deletion_failed(state, refused.code, refused.message))
                continue
            if topic.topic_id in (by_name_too if state.name is None else ids):
                if state.name is None:  # one answer for both entries, and neither is carried out
                    twice = DeleteTopicState(name=topic.name, topic_id=topic.topic_id)
                    refused_text = "The topic is given by name and by id."
                    results.append(_deletion_failed(twice, ErrorCode.INVALID_REQUEST, refused_text))
                continue
            doomed[topic.topic_id] = topic
            results.append(DeletableTopicResult(name=topic.name, topic_id=topic.topic_id))
        return ControllerResult(
            response=DeleteTopicsResponse(responses=tuple(results)),
            records=[RemoveTopicRecord(topic_id=topic_id) for topic_id in doomed],
        )

    def _topic_to_delete(self, state: DeleteTopicState, *, count: int) -> TopicImage:
        if state.name is not None and state.topic_id is not None:
            raise Refused(ErrorCode.INVALID_REQUEST, "A topic is deleted by name or by id, not by both.")
        if state.name is None and state.topic_id is None:
            raise Refused(ErrorCode.INVALID_REQUEST, "Neither a name nor an id is given.")
        if count > 1:
            raise Refused(ErrorCode.INVALID_REQUEST, "The topic is named more than once.")
        if state.name is not None:
            topic = self._metadata.topic(state.name)
            if topic is None:
                raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"There is no topic named {state.name}.")
            return topic
        assert state.topic_id is not None
        found = self._metadata.topics.get(state.topic_id)
        if found is None:
            raise Refused(ErrorCode.UNKNOWN_TOPIC_ID, f"There is no topic with id {state.topic_id}.")
        return found

    def create_partitions(self, request: CreatePartitionsRequest) -> ControllerResult[CreatePartitionsResponse]:
        counts = Counter(topic.name for topic in request.topics)
        results = [
            _growth_failed(name, ErrorCode.INVALID_REQUEST, "The topic is named more than once.")
            for name, count in counts.items()
            if count > 1
        ]
        records: list[MetadataRecord] = []
        for topic in request.topics:
            if counts[topic.name] > 1:
                continue
            try:
                new = self._grow(topic, records_left=RECORDS_MAX - len(records))
            except KafkaError as refused:
                results.append(_growth_failed(topic.name, refused.code, refused.message))
            else:
                records += new
                results.append(CreatePartitionsTopicResult(name=topic.name))
        response = CreatePartitionsResponse(results=tuple(results))
        return ControllerResult(response=response, records=() if request.validate_only else records)

    def _grow(self, wanted: CreatePartitionsTopic, *, records_left: int) -> list[PartitionRecord]:
        topic = self._metadata.topic(wanted.name)
        if topic is None:
            raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"There is no topic named {wanted.name}.")
        now = len(topic.partitions)
        if wanted.count <= now:
            raise Refused(
                ErrorCode.INVALID_PARTITIONS,
                f"The topic has {now} partitions; it can only grow, and {wanted.count} is no more.",
            )
        added = wanted.count - now
        if added > records_left:
            raise Refused(ErrorCode.POLICY_VIOLATION, f"One request may create at most {RECORDS_MAX} partitions.")
        factor = len(topic.partitions[0].replicas)
        if wanted.assignments is None:
            assignment = place_replicas(
                self._cluster.usable_brokers(), partitions=added, replication_factor=factor, random=self._random
            )
        else:
            assignment = [entry.broker_ids for entry in wanted.assignments]
            if len(assignment) != added:
                raise Refused(
                    ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                    f"{added} partitions are to be added, {len(assignment)} are assigned.",
                )
            for replicas in assignment:
                self._check_replicas(replicas, factor=factor)
        return [
            self._new_partition(topic.topic_id, index, replicas, manual=wanted.assignments is not None)
            for index, replicas in enumerate(assignment, start=now)
        ]


def _topic_failed(name: str, code: ErrorCode, text: str | None) -> CreatableTopicResult:
    return CreatableTopicResult(name=name, error_code=code, error_message=text, configs=())


def _deletion_failed(state: DeleteTopicState, code: ErrorCode, text: str | None) -> DeletableTopicResult:
    return DeletableTopicResult(name=state.name, topic_id=state.topic_id, error_code=code, error_message=text)


def _growth_failed(name: str, code: ErrorCode, text: str | None) -> CreatePartitionsTopicResult:
    return CreatePartitionsTopicResult(name=name, error_code=code, error_message=text)
