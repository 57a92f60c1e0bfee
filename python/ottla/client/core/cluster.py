"""What a client knows of the cluster: brokers, leaders, partition counts. Learned from Metadata responses alone."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode
from ottla.protocol.messages.metadata import MetadataResponse


@dataclass(frozen=True, slots=True)
class Broker:
    node_id: int
    host: str
    port: int
    rack: str | None = None


@dataclass(frozen=True, slots=True)
class PartitionView:
    leader_id: int
    leader_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    offline_replicas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopicView:
    name: str
    topic_id: uuid.UUID | None
    is_internal: bool
    partitions: dict[int, PartitionView]


@dataclass(slots=True)
class ClusterView:
    """The newest metadata. A topic that answered with an error is absent from `topics` and named in `errors`."""

    cluster_id: str | None = None
    controller_id: int = -1
    brokers: dict[int, Broker] = field(default_factory=dict)
    topics: dict[str, TopicView] = field(default_factory=dict)
    errors: dict[str, ErrorCode] = field(default_factory=dict)

    def update(self, response: MetadataResponse, *, all_topics: bool = False) -> None:
        """Take a response in. With `all_topics`, topics that it does not name are forgotten."""
        self.cluster_id = response.cluster_id
        self.controller_id = response.controller_id
        self.brokers = {b.node_id: Broker(b.node_id, b.host, b.port, b.rack) for b in response.brokers}
        if all_topics:
            self.topics.clear()
            self.errors.clear()
        for topic in response.topics:
            if topic.name is None:
                continue
            if topic.error_code is not ErrorCode.NONE:
                self.topics.pop(topic.name, None)
                self.errors[topic.name] = topic.error_code
                continue
            self.errors.pop(topic.name, None)
            self.topics[topic.name] = TopicView(
                topic.name,
                topic.topic_id,
                topic.is_internal,
                {
                    p.partition_index: PartitionView(
                        p.leader_id, p.leader_epoch, p.replica_nodes, p.isr_nodes, p.offline_replicas
                    )
                    for p in sorted(topic.partitions, key=lambda p: p.partition_index)
                },
            )

    def leader(self, partition: TopicPartition) -> int | None:
        """The leader's node id, or None while it is unknown or not alive."""
        topic = self.topics.get(partition.topic)
        view = topic.partitions.get(partition.partition) if topic else None
        return view.leader_id if view and view.leader_id in self.brokers else None

    def partition_count(self, topic: str) -> int | None:
        view = self.topics.get(topic)
        return len(view.partitions) if view else None
