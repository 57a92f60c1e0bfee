"""DescribeGroups, ConsumerGroupDescribe, ListGroups and DeleteGroups.

Source: Kafka's `GroupMetadataManager` (describeGroups, consumerGroupDescribe, listGroups) and `GroupCoordinatorShard`
(deleteGroups).
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence

from ottla.coordinator.group import records
from ottla.coordinator.group.assignors.model import Target
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.classic import ClassicGroup, GroupState, Member
from ottla.coordinator.group.consumer import ConsumerMember, tombstones_of
from ottla.coordinator.group.offsets import Offsets
from ottla.coordinator.group.share import share_tombstones_of
from ottla.coordinator.group.subscription import CONSUMER_PROTOCOL_TYPE
from ottla.coordinator.group.table import GroupTable
from ottla.coordinator.group.topic_metadata import Topics
from ottla.coordinator.shard import CoordinatorRecord, Instant, Outcome, Reply
from ottla.errors import ErrorCode
from ottla.protocol.messages.consumer_group_describe import Assignment, TopicPartitions
from ottla.protocol.messages.consumer_group_describe import DescribedGroup as DescribedConsumerGroup
from ottla.protocol.messages.consumer_group_describe import Member as DescribedConsumer
from ottla.protocol.messages.delete_groups import DeletableGroupResult
from ottla.protocol.messages.describe_groups import DescribedGroup, DescribedGroupMember
from ottla.protocol.messages.list_groups import ListedGroup

CLASSIC_TYPE = "classic"
CONSUMER_TYPE = "consumer"
SHARE_TYPE = "share"
SHARE_PROTOCOL_TYPE = "share"
CLASSIC_MEMBER, CONSUMER_MEMBER = 0, 1
GROUP_ID_NOT_FOUND_VERSION_MIN = 6


class Directory:
    """Tells of groups and deletes them. Its state is the table's."""

    def __init__(self, table: GroupTable, offsets: Offsets) -> None:
        self._table = table
        self._offsets = offsets

    def describe(self, group_id: str, *, api_version: int) -> DescribedGroup:
        group = self._table.groups.get(group_id)
        if group is None or not self._table.is_known(group_id):
            if api_version >= GROUP_ID_NOT_FOUND_VERSION_MIN:
                return DescribedGroup(
                    group_id=group_id,
                    group_state=GroupState.DEAD,
                    error_code=ErrorCode.GROUP_ID_NOT_FOUND,
                    error_message=f"Group {group_id} not found.",
                )
            return DescribedGroup(group_id=group_id, group_state=GroupState.DEAD)
        # What members brought along is told of a finished generation alone: before, no protocol is chosen.
        is_stable = group.state is GroupState.STABLE
        return DescribedGroup(
            group_id=group_id,
            group_state=group.state,
            protocol_type=group.protocol_type or "",
            protocol_data=(group.protocol_name or "") if is_stable else "",
            members=tuple(_described(group, m, in_full=is_stable) for m in group.members.values()),
        )

    def describe_consumers(self, group_id: str, topics: Topics, *, default_assignor: str) -> DescribedConsumerGroup:
        """Describe a consumer group as it is committed. Topics that are gone are left out."""
        group = self._table.consumers.get_committed(group_id)
        if group is None:
            is_other = group_id in self._table.groups and self._table.is_known(group_id)
            is_other = is_other or self._table.shares.get_committed(group_id) is not None
            return DescribedConsumerGroup(
                group_id=group_id,
                error_code=ErrorCode.GROUP_ID_NOT_FOUND,
                error_message=f"Group {group_id} is {'not a consumer group' if is_other else 'not found'}.",
            )
        return DescribedConsumerGroup(
            group_id=group_id,
            group_state=group.committed_state,
            group_epoch=group.committed_epoch,
            assignment_epoch=group.committed_assignment_epoch,
            assignor_name=group.committed_assignor(default_assignor),
            members=tuple(
                _described_consumer(member, group.targets.get_committed(member_id) or {}, topics)
                for member_id, member in group.members.committed_items()
            ),
        )

    def list(self, states: Collection[str], types: Collection[str]) -> list[ListedGroup]:
        """Groups in any of `states` and of any of `types`; an empty filter lets all through. Case does not matter."""
        wanted_states = {s.strip().lower() for s in states}
        wanted_types = {t.lower() for t in types}
        found = [
            ListedGroup(
                group_id=group.group_id,
                protocol_type=group.protocol_type or "",
                group_state=group.state,
                group_type=CLASSIC_TYPE,
            )
            for group in self._table.known_groups()
        ]
        found += [
            ListedGroup(
                group_id=consumers.group_id,
                protocol_type=CONSUMER_PROTOCOL_TYPE,
                group_state=consumers.committed_state,
                group_type=CONSUMER_TYPE,
            )
            for consumers in self._table.consumers.committed()
        ]
        found += [
            ListedGroup(
                group_id=shares.group_id,
                protocol_type=SHARE_PROTOCOL_TYPE,
                group_state=shares.committed_state,
                group_type=SHARE_TYPE,
            )
            for shares in self._table.shares.committed()
        ]
        return [
            group
            for group in found
            if (not wanted_types or group.group_type in wanted_types)
            and (not wanted_states or group.group_state.lower() in wanted_states)
        ]

    def delete(self, group_ids: Sequence[str], caller: Caller) -> Outcome:
        """Delete groups without members, with their offsets. Replies with a list of DeletableGroupResult."""
        results = []
        tombstones: list[CoordinatorRecord] = []
        for group_id in dict.fromkeys(group_ids):
            group = self._table.groups.get(group_id)
            consumers = self._table.consumers.get(group_id)
            shares = self._table.shares.get(group_id)
            if shares is not None:
                error = ErrorCode.NON_EMPTY_GROUP if len(shares.members) else ErrorCode.NONE
                if error is ErrorCode.NONE:
                    tombstones += share_tombstones_of(shares)
            elif consumers is not None and len(consumers.members):
                error = ErrorCode.NON_EMPTY_GROUP
            elif consumers is not None:
                error = ErrorCode.NONE
                tombstones += self._offsets.tombstones_of_group(group_id) + tombstones_of(consumers)
            elif group is None:
                error = ErrorCode.GROUP_ID_NOT_FOUND
            elif group.state is not GroupState.EMPTY:
                error = ErrorCode.NON_EMPTY_GROUP
            else:
                error = ErrorCode.NONE
                tombstones += self._offsets.tombstones_of_group(group_id)
                tombstones.append(records.group_metadata_tombstone(group_id))
            results.append(DeletableGroupResult(group_id=group_id, error_code=error))
        return Outcome().write_each(tombstones, Reply(caller.token, results))

    def expire(self, now: Instant) -> Outcome:
        """Delete offsets past their retention, and groups of which nothing is left."""
        self._table.offsets.sweep()
        self._table.consumers.sweep()
        self._table.shares.sweep()
        out = Outcome()
        for group in self._table.groups.values():
            tombstones: list[CoordinatorRecord] = []
            is_all_gone = self._offsets.expire(group, wall_ms=now.wall_ms, tombstones=tombstones)
            if is_all_gone and group.state is GroupState.EMPTY and not group.pending_members:
                tombstones.append(records.group_metadata_tombstone(group.group_id))
            if tombstones:
                out.write_each(tombstones)
        for consumers in self._table.consumers:
            tombstones = []
            is_all_gone = self._offsets.expire(consumers, wall_ms=now.wall_ms, tombstones=tombstones)
            if is_all_gone and not len(consumers.members):
                tombstones += tombstones_of(consumers)
            if tombstones:
                out.write_each(tombstones)
        return out


def _described(group: ClassicGroup, member: Member, *, in_full: bool) -> DescribedGroupMember:
    return DescribedGroupMember(
        member_id=member.member_id,
        group_instance_id=member.group_instance_id,
        client_id=member.client_id,
        client_host=member.client_host,
        member_metadata=member.metadata(group.protocol_name) if in_full else b"",
        member_assignment=member.assignment,
    )


def _described_consumer(member: ConsumerMember, target: Target, topics: Topics) -> DescribedConsumer:
    has: dict[uuid.UUID, list[int]] = {}
    for topic_id, partition in member.partitions():
        has.setdefault(topic_id, []).append(partition)
    return DescribedConsumer(
        member_id=member.member_id,
        instance_id=member.instance_id,
        rack_id=member.metadata.rack_id,
        member_epoch=member.member_epoch,
        client_id=member.metadata.client_id,
        client_host=member.metadata.client_host,
        subscribed_topic_names=member.metadata.subscribed_topic_names,
        subscribed_topic_regex=member.metadata.subscribed_topic_regex,
        assignment=_described_assignment(has, topics),
        target_assignment=_described_assignment(target, topics),
        member_type=CLASSIC_MEMBER if member.is_classic else CONSUMER_MEMBER,
    )


def _described_assignment(partitions: Mapping[uuid.UUID, Iterable[int]], topics: Topics) -> Assignment:
    return Assignment(
        topic_partitions=tuple(
            TopicPartitions(topic_id=topic_id, topic_name=name, partitions=tuple(sorted(numbers)))
            for topic_id, numbers in partitions.items()
            if (name := topics.name_of(topic_id)) is not None
        )
    )
