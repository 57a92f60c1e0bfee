"""SHELL. Topics, as an administrator handles them."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ottla.client.core.cluster import TopicView
from ottla.client.network import Network
from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
)
from ottla.protocol.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from ottla.protocol.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopic,
)
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse, DeleteTopicState
from ottla.protocol.versions import ApiKey


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTopic:
    """`partitions` and `replication_factor` -1 take the broker's defaults. `assignments` names replicas by hand."""

    name: str
    partitions: int = -1
    replication_factor: int = -1
    configs: Mapping[str, str] = field(default_factory=dict)
    assignments: Sequence[Sequence[int]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedTopic:
    name: str
    topic_id: uuid.UUID | None
    partitions: int
    replication_factor: int


class TopicsClient:
    def __init__(self, network: Network) -> None:
        self._network = network

    async def list_topics(self, *, internal: bool = False) -> list[TopicView]:
        """All topics in the order of their names."""
        await self._network.refresh(None)
        topics = sorted(self._network.view.topics.values(), key=lambda t: t.name)
        return [t for t in topics if internal or not t.is_internal]

    async def describe(self, names: Collection[str]) -> list[TopicView]:
        """Raises KafkaError for a topic that does not exist."""
        await self._network.refresh(names)
        view = self._network.view
        for name in names:
            if name not in view.topics:
                code = view.errors.get(name, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
                raise KafkaError(code, f"topic {name!r}: {code.name}")
        return [view.topics[name] for name in names]

    async def create(
        self, topics: Sequence[NewTopic], *, validate_only: bool = False, timeout_ms: int = 30_000
    ) -> list[CreatedTopic]:
        """Raises KafkaError of the first topic that was refused; the others may have been created."""
        request = CreateTopicsRequest(
            topics=tuple(
                CreatableTopic(
                    name=t.name,
                    num_partitions=-1 if t.assignments else t.partitions,
                    replication_factor=-1 if t.assignments else t.replication_factor,
                    assignments=tuple(
                        CreatableReplicaAssignment(partition_index=i, broker_ids=tuple(ids))
                        for i, ids in enumerate(t.assignments)
                    ),
                    configs=tuple(CreatableTopicConfig(name=k, value=v) for k, v in t.configs.items()),
                )
                for t in topics
            ),
            timeout_ms=timeout_ms,
            validate_only=validate_only,
        )
        response: CreateTopicsResponse = await self._network.send_any(ApiKey.CREATE_TOPICS, request)
        for result in response.topics:
            _check(result.error_code, f"topic {result.name!r}", result.error_message)
        return [
            CreatedTopic(
                name=r.name,
                topic_id=r.topic_id,
                partitions=r.num_partitions,
                replication_factor=r.replication_factor,
            )
            for r in response.topics
        ]

    async def delete(self, names: Collection[str], *, timeout_ms: int = 30_000) -> None:
        """Raises KafkaError of the first topic that was refused, with the names of those that were deleted."""
        request = DeleteTopicsRequest(
            topic_names=tuple(names), topics=tuple(DeleteTopicState(name=n) for n in names), timeout_ms=timeout_ms
        )
        response: DeleteTopicsResponse = await self._network.send_any(ApiKey.DELETE_TOPICS, request)
        deleted = [r.name for r in response.responses if r.error_code is ErrorCode.NONE and r.name]
        for result in response.responses:
            text = result.error_message or result.error_code.name
            if deleted:
                text += f" Deleted: {', '.join(deleted)}."
            _check(result.error_code, f"topic {result.name!r}", text)

    async def set_partition_count(self, name: str, count: int, *, timeout_ms: int = 30_000) -> None:
        """Add partitions; there is no way back. Raises KafkaError INVALID_PARTITIONS unless `count` is larger."""
        topic = CreatePartitionsTopic(name=name, count=count, assignments=None)
        request = CreatePartitionsRequest(topics=(topic,), timeout_ms=timeout_ms)
        response: CreatePartitionsResponse = await self._network.send_any(ApiKey.CREATE_PARTITIONS, request)
        for result in response.results:
            _check(result.error_code, f"topic {result.name!r}", result.error_message)

    async def delete_records(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Drop what is below these offsets (-1: the high watermark). Returns the new log start offsets."""
        await self._network.refresh({p.topic for p in offsets})
        by_leader: dict[int, dict[str, list[DeleteRecordsPartition]]] = {}
        for partition, offset in offsets.items():
            leader = self._network.view.leader(partition)
            if leader is None:
                raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"{partition} does not exist or has no leader")
            entry = DeleteRecordsPartition(partition_index=partition.partition, offset=offset)
            by_leader.setdefault(leader, {}).setdefault(partition.topic, []).append(entry)
        low: dict[TopicPartition, int] = {}
        for leader, topics in by_leader.items():
            request = DeleteRecordsRequest(
                topics=tuple(DeleteRecordsTopic(name=t, partitions=tuple(ps)) for t, ps in topics.items()),
                timeout_ms=self._network.request_timeout_ms,
            )
            response: DeleteRecordsResponse = await self._network.send(leader, ApiKey.DELETE_RECORDS, request)
            for topic in response.topics:
                for p in topic.partitions:
                    _check(p.error_code, f"{topic.name}-{p.partition_index}", None)
                    low[TopicPartition(topic.name, p.partition_index)] = p.low_watermark
        return low


def _check(code: ErrorCode, what: str, message: str | None) -> None:
    if code is not ErrorCode.NONE:
        raise KafkaError(code, f"{what}: {message or code.name}")
