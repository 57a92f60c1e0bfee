"""What administrators do to share groups: describe them, move or forget where they are, and delete them.

The states themselves are the share coordinator's. A request that changes them is a decision here (which partitions),
a request to the share coordinator by whoever runs the machine, and a second decision when that is done.

Source: Kafka's `GroupMetadataManager` (alterShareGroupOffsets, sharePartitionsEligibleForOffsetDeletion,
shareGroupBuildPartitionDeleteRequest, maybeCleanupShareGroupState) and `ShareGroup.asDescribedGroup`.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from ottla.coordinator.group.assignors.model import Target
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.consumer import Refused
from ottla.coordinator.group.share import NamedSet, StatePartitions
from ottla.coordinator.group.share_heartbeats import ShareHeartbeats
from ottla.coordinator.group.table import GroupTable
from ottla.coordinator.group.topic_metadata import Topics
from ottla.coordinator.shard import CoordinatorRecord, Outcome, Reply
from ottla.errors import ErrorCode
from ottla.protocol.messages.alter_share_group_offsets import (
    AlterShareGroupOffsetsRequest,
    AlterShareGroupOffsetsRequestTopic,
    AlterShareGroupOffsetsResponse,
    AlterShareGroupOffsetsResponsePartition,
    AlterShareGroupOffsetsResponseTopic,
)
from ottla.protocol.messages.delete_share_group_offsets import DeleteShareGroupOffsetsResponseTopic
from ottla.protocol.messages.share_group_describe import Assignment, DescribedGroup, Member, TopicPartitions

ASSIGNOR: Final = "simple"


class Moved(NamedTuple):
    """Where a group is to begin: for the share coordinator, and the answer for when it has done so."""

    response: AlterShareGroupOffsetsResponse
    state_epoch: int
    offsets: Mapping[uuid.UUID, Mapping[int, int]]
    """Start offsets by topic id and partition."""
    topics: Mapping[uuid.UUID, NamedSet]
    """The same partitions."""


class Forgotten(NamedTuple):
    """Partitions whose states the share coordinator is to forget, and what was found wrong before that."""

    error: ErrorCode = ErrorCode.NONE
    message: str | None = None
    topics: Mapping[uuid.UUID, NamedSet] = {}
    refused: tuple[DeleteShareGroupOffsetsResponseTopic, ...] = ()


class ShareStates:
    """Its state is the table's."""

    def __init__(self, table: GroupTable, heartbeats: ShareHeartbeats) -> None:
        self._table = table
        self._heartbeats = heartbeats

    @property
    def _topics(self) -> Topics:
        return self._heartbeats.topics

    def describe(self, group_id: str) -> DescribedGroup:
        """Describe a share group as it is committed. Topics that are gone are left out."""
        group = self._table.shares.get_committed(group_id)
        if group is None:
            is_other = self._table.consumers.get_committed(group_id) is not None or self._table.is_known(group_id)
            return DescribedGroup(
                group_id=group_id,
                error_code=ErrorCode.GROUP_ID_NOT_FOUND,
                error_message=f"Group {group_id} is {'not a share group' if is_other else 'not found'}.",
            )
        return DescribedGroup(
            group_id=group_id,
            group_state=group.committed_state,
            group_epoch=group.committed_epoch,
            assignment_epoch=group.committed_assignment_epoch,
            assignor_name=ASSIGNOR,
            members=tuple(
                Member(
                    member_id=member_id,
                    rack_id=member.metadata.rack_id,
                    member_epoch=member.member_epoch,
                    client_id=member.metadata.client_id,
                    client_host=member.metadata.client_host,
                    subscribed_topic_names=member.topics,
                    assignment=_described(member.assigned, self._topics),
                )
                for member_id, member in group.members.committed_items()
            ),
        )

    def initialized(self, group_id: str) -> Mapping[uuid.UUID, NamedSet]:
        """The partitions of which there are states, of topics that exist: of what is committed."""
        group = self._table.shares.get_committed(group_id)
        states = None if group is None else group.committed_states
        found = {} if states is None else states.initialized
        return {topic_id: topic for topic_id, topic in found.items() if topic_id in self._topics.image.topics}

    # Moving

    def alter(self, request: AlterShareGroupOffsetsRequest, caller: Caller) -> Outcome:
        """Let a group without members, that may be a new one, begin elsewhere. Replies with `Moved`."""
        try:
            group = self._heartbeats.group_to_begin(request.group_id)
            if len(group.members):
                raise Refused(ErrorCode.NON_EMPTY_GROUP, "The group has members.")
        except Refused as refused:
            response = AlterShareGroupOffsetsResponse(error_code=refused.code, error_message=refused.message)
            return Outcome().reply(caller.token, Moved(response, 0, {}, {}))
        answers = []
        offsets: dict[uuid.UUID, dict[int, int]] = {}
        topics: dict[uuid.UUID, NamedSet] = {}
        for asked in request.topics:
            topic_id = self._topics.image.topic_ids.get(asked.topic_name)
            count = 0 if topic_id is None else self._topics.partition_count(topic_id)
            moved = {p.partition_index: p.start_offset for p in asked.partitions if p.partition_index < count}
            if topic_id is not None and moved:
                offsets.setdefault(topic_id, {}).update(moved)
                topics[topic_id] = NamedSet(asked.topic_name, frozenset(offsets[topic_id]))
            answers.append(_altered(asked, topic_id, count))
        records = []
        if topics:
            states = group.states or StatePartitions()
            records.append(states.with_initializing(topics).record(group.group_id))
        response = AlterShareGroupOffsetsResponse(responses=tuple(answers))
        return Outcome().write(records, Reply(caller.token, Moved(response, group.epoch, offsets, topics)))

    # Forgetting

    def begin_forgetting(self, group_id: str, names: Sequence[str], caller: Caller) -> Outcome:
        """Note that the states of topics are about to be forgotten. Replies with `Forgotten`."""
        try:
            group = self._heartbeats.known_group(group_id)
            if len(group.members):
                raise Refused(ErrorCode.NON_EMPTY_GROUP, "The group has members.")
        except Refused as refused:
            return Outcome().reply(caller.token, Forgotten(refused.code, refused.message))
        states = group.states
        if states is None:
            return Outcome().write((), Reply(caller.token, Forgotten()))
        gone: dict[uuid.UUID, NamedSet] = {}
        refusals = []
        for name in names:
            topic_id = self._topics.image.topic_ids.get(name)
            if topic_id is not None and topic_id in states.initialized:
                gone[topic_id] = states.initialized[topic_id]
            elif topic_id is not None and topic_id in states.deleting:
                gone[topic_id] = NamedSet(name, frozenset(range(self._topics.partition_count(topic_id))))
            else:
                missing = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                message = "There is no such topic." if topic_id is None else "There is no offset to delete."
                refusals.append(
                    DeleteShareGroupOffsetsResponseTopic(topic_name=name, error_code=missing, error_message=message)
                )
        left = states._replace(
            initialized={i: topic for i, topic in states.initialized.items() if i not in gone},
            deleting={**states.deleting, **{i: topic.name for i, topic in gone.items()}},
        )
        forgotten = Forgotten(topics=gone, refused=tuple(refusals))
        return Outcome().write([left.record(group_id)], Reply(caller.token, forgotten))

    def end_forgetting(self, group_id: str, topic_ids: Collection[uuid.UUID], caller: Caller) -> Outcome:
        """The share coordinator has forgotten the states of these topics. The reply has no content."""
        group = self._table.shares.get(group_id)
        states = None if group is None else group.states
        if states is None or not topic_ids:
            return Outcome().write((), Reply(caller.token))
        left = {topic_id: name for topic_id, name in states.deleting.items() if topic_id not in topic_ids}
        return Outcome().write([states._replace(deleting=left).record(group_id)], Reply(caller.token))

    def begin_deletion(self, group_id: str, caller: Caller) -> Outcome:
        """Note that a group is about to be deleted, if it is a share group. Replies with `Forgotten`."""
        group = self._table.shares.get(group_id)
        if group is None:
            return Outcome().reply(caller.token, Forgotten())
        if len(group.members):
            return Outcome().reply(caller.token, Forgotten(ErrorCode.NON_EMPTY_GROUP))
        states = group.states
        if states is None:
            return Outcome().write((), Reply(caller.token, Forgotten()))
        gone = dict(states.known())
        for topic_id, name in states.deleting.items():
            if topic_id in self._topics.image.topics:
                gone[topic_id] = NamedSet(name, frozenset(range(self._topics.partition_count(topic_id))))
        # A topic that is no more has no states: the share coordinator has forgotten them by itself.
        there = {topic_id: topic for topic_id, topic in gone.items() if topic_id in self._topics.image.topics}
        left = StatePartitions(deleting={topic_id: topic.name for topic_id, topic in there.items()})
        return Outcome().write([left.record(group_id)], Reply(caller.token, Forgotten(topics=there)))

    def on_topics_deleted(self, topic_ids: Collection[uuid.UUID]) -> list[CoordinatorRecord]:
        """Topics are no more: the share coordinator forgets their states by itself, the groups here."""
        return [
            states.without_topics(topic_ids).record(group.group_id)
            for group in self._table.shares
            if (states := group.states) is not None and _names_any(states, topic_ids)
        ]


def _names_any(states: StatePartitions, topic_ids: Collection[uuid.UUID]) -> bool:
    return any(topic_id in part for part in states for topic_id in topic_ids)


def _altered(
    asked: AlterShareGroupOffsetsRequestTopic, topic_id: uuid.UUID | None, count: int
) -> AlterShareGroupOffsetsResponseTopic:
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return AlterShareGroupOffsetsResponseTopic(
        topic_name=asked.topic_name,
        topic_id=topic_id,
        partitions=tuple(
            AlterShareGroupOffsetsResponsePartition(partition_index=p.partition_index)
            if p.partition_index < count
            else AlterShareGroupOffsetsResponsePartition(
                partition_index=p.partition_index, error_code=unknown, error_message=unknown.name
            )
            for p in asked.partitions
        ),
    )


def _described(assigned: Target, topics: Topics) -> Assignment:
    return Assignment(
        topic_partitions=tuple(
            TopicPartitions(topic_id=topic_id, topic_name=name, partitions=tuple(sorted(partitions)))
            for topic_id, partitions in assigned.items()
            if (name := topics.name_of(topic_id)) is not None
        )
    )
