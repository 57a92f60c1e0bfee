"""Verbs of consumer groups (KIP-848) for `GroupContext`: topics to subscribe to, heartbeats, and clients."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ottla.coordinator.group.config import ConsumerGroupConfig, GroupConfig
from ottla.coordinator.group.topic_metadata import Topics
from ottla.errors import ErrorCode
from ottla.metadata.image import BrokerRegistration, MetadataImage, PartitionRegistration, TopicImage
from ottla.protocol.messages.consumer_group_describe import DescribedGroup
from ottla.protocol.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
    ConsumerGroupHeartbeatResponse,
)
from tests.unit.coordinator.group.context import GROUP, GroupContext
from tests.unit.coordinator.group.standing import Key

EAGER = GroupConfig(consumer_defaults=ConsumerGroupConfig(assignment_interval_ms=0))
"""Targets are computed at every change."""
Partitions = Mapping[str, Iterable[int]]


def topic_id(name: str, generation: int = 0) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{generation}")


def image(
    counts: Mapping[str, int],
    *,
    offset: int = 1,
    racks: Mapping[int, str] | None = None,
    generation: int | Mapping[str, int] = 0,
) -> MetadataImage:
    """Topics by name with their numbers of partitions; replica i mod 3 of each partition is on broker i.

    Args:
        generation: How often a topic was deleted and made again.
    """

    def id_of(name: str) -> uuid.UUID:
        return topic_id(name, generation if isinstance(generation, int) else generation.get(name, 0))

    topics = {
        id_of(name): TopicImage(
            name=name,
            topic_id=id_of(name),
            partitions={
                i: PartitionRegistration(
                    replicas=(i % 3,), isr=(i % 3,), leader=i % 3, leader_epoch=0, partition_epoch=0
                )
                for i in range(count)
            },
        )
        for name, count in counts.items()
    }
    brokers = {
        broker_id: BrokerRegistration(broker_id=broker_id, broker_epoch=1, incarnation_id=uuid.UUID(int=1), rack=rack)
        for broker_id, rack in (racks or {}).items()
    }
    return MetadataImage(
        offset=offset, topics=topics, topic_ids={t.name: t.topic_id for t in topics.values()}, brokers=brokers
    )


class ConsumerContext(GroupContext):
    """A group coordinator whose cluster has topics."""

    def __init__(self, *args: Any, topics: Mapping[str, int] | None = None, **options: Any) -> None:
        super().__init__(*args, **{"config": EAGER} | options)
        self.set_topics({"topic": 4} if topics is None else topics)

    def set_topics(self, counts: Mapping[str, int], **options: Any) -> None:
        """The cluster has these topics from now on."""
        self.image = image(counts, offset=getattr(self, "image", MetadataImage()).offset + 1, **options)
        self.machine.follow(Topics(self.image, self.machine.heartbeats.topics))
        self.withdraw_all()

    def restarted(self) -> ConsumerContext:
        other = ConsumerContext(self.log[: self.high_watermark], config=self.config)
        other.image = self.image
        other.machine.follow(Topics(self.image))
        other.wall_ms = self.wall_ms
        return other

    def begin_beat(self, member_id: str, epoch: int, *, version: int = 1, **fields: Any) -> int:
        caller = self.caller(version=version)
        owned = fields.pop("owned", None)
        request = ConsumerGroupHeartbeatRequest(
            group_id=fields.pop("group_id", GROUP),
            member_id=member_id,
            member_epoch=epoch,
            topic_partitions=None if owned is None else self.as_wire(owned),
            **fields,
        )
        self.run(self.machine.heartbeats.heartbeat(request, caller, self.now))
        return caller.token

    def beat(self, member_id: str, epoch: int, **fields: Any) -> ConsumerGroupHeartbeatResponse:
        response = self.reply_to(self.begin_beat(member_id, epoch, **fields))
        assert isinstance(response, ConsumerGroupHeartbeatResponse)
        return response

    def stay(self, member_id: str, epoch: int, instance_id: str | None = None) -> ConsumerGroupHeartbeatResponse | None:
        """Say nothing but that the member is there; where the answer stands the machine does not see it.

        Returns: None: there is no answer yet.
        """
        key = Key("consumer", (member_id, epoch, instance_id))
        request = ConsumerGroupHeartbeatRequest(
            group_id=GROUP, member_id=member_id, member_epoch=epoch, instance_id=instance_id, topic_partitions=None
        )
        if self.standing.answer(key, self.now_ms):
            return ConsumerGroupHeartbeatResponse(
                member_id=member_id,
                member_epoch=epoch,
                heartbeat_interval_ms=self.config.consumer_group(GROUP).heartbeat_interval_ms,
            )
        caller = self.caller(version=1)
        self.run(self.machine.heartbeats.heartbeat(request, caller, self.now))
        if self.is_parked(caller.token):
            return None
        response: ConsumerGroupHeartbeatResponse = self.reply_to(caller.token)

        def is_right() -> bool:
            return self.machine.heartbeats.is_settled(request, caller)

        if is_right():
            self.standing.let_stand(key, GROUP, member_id, is_right)
        return response

    def enter(
        self, member_id: str, topics: Iterable[str] = ("topic",), **fields: Any
    ) -> ConsumerGroupHeartbeatResponse:
        """Join by subscribing to topics."""
        whole = {
            "rebalance_timeout_ms": 30_000,
            "owned": {},
            "subscribed_topic_names": None if topics is None else tuple(topics),
        }
        return self.beat(member_id, 0, **whole | fields)

    def as_wire(self, owned: Partitions) -> tuple[ConsumerGroupHeartbeatRequestTopicPartitions, ...]:
        return tuple(
            ConsumerGroupHeartbeatRequestTopicPartitions(
                topic_id=self.image.topic_ids.get(name, topic_id(name)), partitions=tuple(partitions)
            )
            for name, partitions in owned.items()
        )

    def assigned(self, response: ConsumerGroupHeartbeatResponse) -> dict[str, tuple[int, ...]] | None:
        """Partitions by topic, of topics that exist; None: the response does not say."""
        if response.assignment is None:
            return None
        return {
            self.image.topics[t.topic_id].name: t.partitions
            for t in response.assignment.topic_partitions
            if t.topic_id in self.image.topics
        }

    def describe_consumers(self, group_id: str = GROUP) -> DescribedGroup:
        return self.machine.describe_consumers(group_id)

    def durable(self) -> Any:
        """The committed state, consumer groups included."""
        consumers = {
            group.group_id: (
                dict(group._facts.committed_items()),
                dict(group.members.committed_items()),
                dict(group.targets.committed_items()),
                dict(group.regexes.committed_items()),
            )
            for group in self.machine.table.consumers._groups.values()
            if group.is_committed
        }
        return *super().durable(), consumers


@dataclass
class Consumer:
    """A client: it takes what it is given, and gives up at its next heartbeat what it is asked to."""

    group: ConsumerContext
    member_id: str
    instance_id: str | None = None
    topics: tuple[str, ...] = ("topic",)
    epoch: int = 0
    owned: dict[str, tuple[int, ...]] = field(default_factory=dict)
    errors: list[ErrorCode] = field(default_factory=list)

    def poll(self) -> ErrorCode:
        """Send a heartbeat; on being fenced, start over with nothing."""
        if self.epoch == 0:
            self.owned = {}
            response = self.group.enter(self.member_id, self.topics, instance_id=self.instance_id)
        else:
            response = self.group.beat(self.member_id, self.epoch, instance_id=self.instance_id, owned=self.owned)
        return self.take(response)

    def take(self, response: ConsumerGroupHeartbeatResponse) -> ErrorCode:
        if response.error_code is not ErrorCode.NONE:
            self.errors.append(response.error_code)
            self.epoch, self.owned = 0, {}
            return response.error_code
        self.epoch = response.member_epoch
        assigned = self.group.assigned(response)
        if assigned is not None:
            self.owned = assigned
        return ErrorCode.NONE

    def leave(self, epoch: int = -1) -> ConsumerGroupHeartbeatResponse:
        response = self.group.beat(self.member_id, epoch, instance_id=self.instance_id)
        self.epoch, self.owned = 0, {}
        return response

    @property
    def partitions(self) -> set[tuple[str, int]]:
        return {(name, p) for name, partitions in self.owned.items() for p in partitions}


def settle(*consumers: Consumer, rounds: int = 6) -> None:
    for _ in range(rounds):
        for consumer in consumers:
            consumer.poll()


def with_config(**fields: Any) -> GroupConfig:
    return replace(EAGER, **fields)
