"""Verbs of share groups (KIP-932) for `GroupContext`: heartbeats, and a share coordinator that answers when told to."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from ottla.coordinator.group.config import GroupConfig, ShareGroupConfig
from ottla.coordinator.group.events import StatesInitializing
from ottla.coordinator.group.topic_metadata import Topics
from ottla.metadata.image import MetadataImage
from ottla.protocol.messages.share_group_heartbeat import ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse
from tests.unit.coordinator.group.consumers import image
from tests.unit.coordinator.group.context import GROUP, GroupContext

EAGER = GroupConfig(share_defaults=ShareGroupConfig(assignment_interval_ms=0))
"""Targets are computed at every change."""


class ShareContext(GroupContext):
    """A group coordinator whose cluster has topics, and a share coordinator beside it."""

    def __init__(self, *args: Any, topics: Mapping[str, int] | None = None, **options: Any) -> None:
        super().__init__(*args, **{"config": EAGER} | options)
        self.asked: list[StatesInitializing] = []
        self.set_topics({"topic": 4} if topics is None else topics)

    def set_topics(self, counts: Mapping[str, int], **options: Any) -> None:
        """The cluster has these topics from now on."""
        before: MetadataImage = getattr(self, "image", MetadataImage())
        self.image = image(counts, offset=before.offset + 1, **options)
        self.machine.follow(Topics(self.image, self.machine.heartbeats.topics))
        gone = {t.name: topic_id for topic_id, t in before.topics.items() if topic_id not in self.image.topics}
        if gone:
            self.run(self.machine.on_topics_deleted(gone))

    def restarted(self) -> ShareContext:
        other = ShareContext(self.log[: self.high_watermark], config=self.config)
        other.image = self.image
        other.machine.follow(Topics(self.image))
        other.wall_ms = self.wall_ms
        return other

    def begin_beat(self, member_id: str, epoch: int, **fields: Any) -> int:
        caller = self.caller(version=1)
        request = ShareGroupHeartbeatRequest(
            group_id=fields.pop("group_id", GROUP), member_id=member_id, member_epoch=epoch, **fields
        )
        self.run(self.machine.share_heartbeats.heartbeat(request, caller, self.now))
        return caller.token

    def beat(self, member_id: str, epoch: int, **fields: Any) -> ShareGroupHeartbeatResponse:
        response = self.reply_to(self.begin_beat(member_id, epoch, **fields))
        assert isinstance(response, ShareGroupHeartbeatResponse)
        return response

    def enter(self, member_id: str, topics: Iterable[str] = ("topic",), **fields: Any) -> ShareGroupHeartbeatResponse:
        return self.beat(member_id, 0, **{"subscribed_topic_names": tuple(topics)} | fields)

    def answer_asked(self, *, fails: bool = False) -> list[StatesInitializing]:
        """The share coordinator begins what it was asked to begin, or fails to; returns what that was."""
        self.asked += self.machine.share_heartbeats.take_initializations()
        found, self.asked = self.asked, []
        for asked in found:
            begun, failed = ({}, asked.topics) if fails else (asked.topics, {})
            self.run(self.machine.share_heartbeats.initialized(asked.group_id, begun, failed))
        return found

    def assigned(self, response: ShareGroupHeartbeatResponse) -> dict[str, tuple[int, ...]] | None:
        """Partitions by topic, of topics that exist; None: the response does not say."""
        if response.assignment is None:
            return None
        return {
            self.image.topics[t.topic_id].name: t.partitions
            for t in response.assignment.topic_partitions
            if t.topic_id in self.image.topics
        }

    def states(self, group_id: str = GROUP) -> tuple[dict[str, set[int]], dict[str, set[int]], set[str]]:
        """Partitions whose states are to begin, and have begun, by topic name; topics whose states are to go."""
        group = self.machine.table.shares.get(group_id)
        states = None if group is None else group.states
        if states is None:
            return {}, {}, set()
        return (
            {topic.name: set(topic.partitions) for topic in states.initializing.values()},
            {topic.name: set(topic.partitions) for topic in states.initialized.values()},
            set(states.deleting.values()),
        )

    def topic_id(self, name: str) -> uuid.UUID:
        return self.image.topic_ids[name]

    def durable(self) -> Any:
        """The committed state, share groups included."""
        shares = {
            group.group_id: (
                dict(group._facts.committed_items()),
                dict(group.members.committed_items()),
                dict(group.targets.committed_items()),
            )
            for group in self.machine.table.shares._groups.values()
            if group.is_committed
        }
        return *super().durable(), shares
