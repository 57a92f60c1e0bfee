"""Four members of a consumer group (KIP-848) and two topics: who comes, goes, pauses, subscribes anew, and lags behind.

With the assignor `range`, whose targets follow from the members' names; those of `uniform` are a matter of hashing.
"""

from __future__ import annotations

from random import Random
from typing import Any

from ottla.errors import ErrorCode
from ottla.protocol.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from ottla.protocol.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
)
from ottla.protocol.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.versions import ApiKey
from tests.compat.sequences import Step
from tests.golden.lab import Answer, Lab

MEMBERS = 4
GROUP_CONFIG = 32
PARTITIONS = (4, 3)
SUBSCRIPTIONS = ((0,), (0, 1), (1,))
Owned = list[list[Any]]
"""Of topics by number, and partitions."""


class World:
    """One side."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.topics = [lab.topic(f"topic-{n}", partitions=count) for n, count in enumerate(PARTITIONS)]
        self.topic_ids = [lab.topic_id(topic) for topic in self.topics]
        self.group = lab.name("group")
        at_once = AlterableConfig(name="consumer.assignment.interval.ms", config_operation=0, value="0")
        resource = AlterConfigsResource(resource_type=GROUP_CONFIG, resource_name=self.group, configs=(at_once,))
        answer = lab.call(ApiKey.INCREMENTAL_ALTER_CONFIGS, IncrementalAlterConfigsRequest(resources=(resource,)))
        assert answer.responses[0].error_code is ErrorCode.NONE, answer
        lab.settle()

    def settle(self) -> bool:
        return True

    def _assigned(self, assignment: Any) -> Owned | None:
        if assignment is None:
            return None
        rows = assignment.topic_partitions
        return sorted([self.topic_ids.index(row.topic_id), sorted(row.partitions)] for row in rows)

    def beat(
        self, member: int, epoch: int, owned: Owned | None, subscription: tuple[int, ...] | None, **fields: Any
    ) -> Answer:
        version = fields.pop("version")
        rows = None
        if owned is not None:
            rows = tuple(
                ConsumerGroupHeartbeatRequestTopicPartitions(topic_id=self.topic_ids[n], partitions=tuple(partitions))
                for n, partitions in owned
            )
        names = None if subscription is None else tuple(self.topics[n] for n in subscription)
        request = ConsumerGroupHeartbeatRequest(
            group_id=self.group,
            member_id=f"member-{member}",
            member_epoch=epoch,
            topic_partitions=rows,
            subscribed_topic_names=names,
            **fields,
        )
        answer = self.lab.call(ApiKey.CONSUMER_GROUP_HEARTBEAT, request, version=version)
        told = self._assigned(answer.assignment)
        return [answer.error_code.name, answer.member_epoch, told, answer.heartbeat_interval_ms]

    def describe(self) -> Answer:
        request = ConsumerGroupDescribeRequest(group_ids=(self.group,))
        (found,) = self.lab.call(ApiKey.CONSUMER_GROUP_DESCRIBE, request, version=1).groups
        members = [
            [
                m.member_id,
                m.instance_id,
                m.member_epoch,
                self._assigned(m.assignment),
                self._assigned(m.target_assignment),
            ]
            for m in found.members
        ]
        epochs = [found.group_epoch, found.assignment_epoch]
        return [found.error_code.name, found.group_state, epochs, found.assignor_name, sorted(members)]

    def commit(self, member: int, epoch: int, version: int) -> Answer:
        named = {"topic_id": self.topic_ids[0]} if version >= 10 else {"name": self.topics[0]}
        row = OffsetCommitRequestPartition(partition_index=0, committed_offset=7, committed_metadata="")
        request = OffsetCommitRequest(
            group_id=self.group,
            generation_id_or_member_epoch=epoch,
            member_id=f"member-{member}",
            topics=(OffsetCommitRequestTopic(partitions=(row,), **named),),
        )
        return self.lab.ask(ApiKey.OFFSET_COMMIT, request, version=version)


WEIGHTS = {"join": 10, "beat": 50, "leave": 5, "pause": 3, "describe": 12, "commit": 8, "subscribe": 5}


class Draws:
    """Mostly heartbeats that say what the member was assigned; now and then with another epoch, or of less."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._epochs = [0] * MEMBERS
        self._assigned: list[Owned | None] = [None] * MEMBERS
        self._subscriptions = [random.choice(SUBSCRIPTIONS) for _ in range(MEMBERS)]
        self._instances = (None, None, random.choice((None, "two")), random.choice((None, "three", "two")))

    def step(self) -> Step:
        random = self._random
        member = random.randrange(MEMBERS)
        name = random.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
        if self._epochs[member] <= 0 and name in ("beat", "subscribe", "leave") and random.random() < 0.8:
            name = "join"
        if name == "describe":
            return name, {}
        epoch = self._epochs[member] + random.choices((0, -1, 1), (92, 5, 3))[0]
        if name == "commit":
            return name, {"member": member, "epoch": epoch, "version": random.choice((7, 8, 9, 10))}
        if name == "subscribe":
            self._subscriptions[member] = random.choice(SUBSCRIPTIONS)
        owned = self._assigned[member] if random.random() < 0.8 else None
        if owned and random.random() < 0.1:
            owned = owned[:1]
        special = {"join": (0, []), "leave": (-1, None), "pause": (-2, None)}
        epoch, owned = special.get(name, (epoch, owned))
        is_whole = name in ("join", "subscribe") or (name == "beat" and random.random() < 0.2)
        return "beat", {
            "member": member,
            "epoch": epoch,
            "owned": owned,
            "subscription": self._subscriptions[member] if is_whole else None,
            "instance_id": self._instances[member],
            "rebalance_timeout_ms": 30_000 if is_whole else -1,
            "server_assignor": "range" if is_whole else None,
            "version": random.choice((0, 1)),
        }

    def learn(self, step: Step, answer: Answer) -> None:
        name, arguments = step
        if name != "beat" or answer[0] != ErrorCode.NONE.name:
            return
        member = arguments["member"]
        self._epochs[member] = max(answer[1], 0)
        if answer[1] < 0:
            self._assigned[member] = None
        elif answer[2] is not None:
            self._assigned[member] = answer[2]
