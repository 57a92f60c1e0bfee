"""SHELL. Classic, consumer and share groups, as an administrator sees them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ottla.client.core.records import OffsetAndMetadata
from ottla.client.group_descriptions import SHARE, GroupDescription, GroupMember, describe_group
from ottla.client.network import Network
from ottla.client.offsets import EARLIEST, LATEST, OffsetsClient
from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from ottla.protocol.messages.describe_share_group_offsets import (
    DescribeShareGroupOffsetsRequest,
    DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsResponseGroup,
)
from ottla.protocol.messages.list_groups import ListGroupsRequest, ListGroupsResponse
from ottla.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
)
from ottla.protocol.versions import ApiKey


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupListing:
    group_id: str
    protocol_type: str
    state: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLag:
    """How far a group is in a partition. `committed` and `lag` are None where it never said so.

    Of a share group `committed` is where it begins; behind it there may be records that are done with.
    """

    partition: TopicPartition
    committed: int | None
    log_start_offset: int
    log_end_offset: int
    lag: int | None
    """Records that are not yet done with, counted by offset."""
    members: tuple[GroupMember, ...]
    """Who reads it: nobody or one, in a share group any number."""


class GroupsClient:
    def __init__(self, network: Network, offsets: OffsetsClient) -> None:
        self._network, self._offsets = network, offsets

    async def list_groups(self, *, states: Collection[str] = (), kinds: Collection[str] = ()) -> list[GroupListing]:
        """All groups of all brokers, or those in these states and of these types."""
        await self._network.refresh(())
        request = ListGroupsRequest(states_filter=tuple(states), types_filter=tuple(kinds))
        found: list[GroupListing] = []
        for node_id in sorted(self._network.view.brokers):
            response: ListGroupsResponse = await self._network.send(node_id, ApiKey.LIST_GROUPS, request)
            if response.error_code is not ErrorCode.NONE:
                raise KafkaError(response.error_code, f"ListGroups at broker {node_id}: {response.error_code.name}")
            found += [
                GroupListing(group_id=g.group_id, protocol_type=g.protocol_type, state=g.group_state, kind=g.group_type)
                for g in response.groups
            ]
        return sorted(found, key=lambda g: g.group_id)

    async def describe(self, group_id: str) -> GroupDescription:
        """Raises KafkaError GROUP_ID_NOT_FOUND for a group that nobody knows."""

        async def once() -> GroupDescription:
            node_id = await self._network.coordinator(group_id)
            try:
                return await describe_group(self._network, node_id, group_id)
            except KafkaError as error:
                self._check(error.code, group_id, error.message)
                raise

        return await self._network.retrying(once)

    async def lag(self, description: GroupDescription) -> list[PartitionLag]:
        """How far the group is beside the ends of the logs, for all partitions committed or assigned."""
        done: dict[TopicPartition, int] = {}  # behind the committed offset
        if description.kind == SHARE:
            committed, done = await self._share_offsets(description.group_id)
        else:
            found = await self._offsets.committed(description.group_id, None)
            committed = {p: at.offset for p, at in found.items()}
        readers: dict[TopicPartition, list[GroupMember]] = {}
        for member in description.members:
            for p in member.assignment:
                readers.setdefault(p, []).append(member)
        await self._network.refresh({p.topic for p in {*committed, *readers}})
        known = sorted(p for p in {*committed, *readers} if self._network.view.leader(p) is not None)
        starts = await self._offsets.list_offsets(dict.fromkeys(known, EARLIEST))
        ends = await self._offsets.list_offsets(dict.fromkeys(known, LATEST))
        return [
            PartitionLag(
                partition=p,
                committed=committed.get(p),
                log_start_offset=starts[p].offset,
                log_end_offset=ends[p].offset,
                lag=max(0, ends[p].offset - committed[p] - done.get(p, 0)) if p in committed else None,
                members=tuple(readers.get(p, ())),
            )
            for p in known
        ]

    async def _share_offsets(self, group_id: str) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """Where a share group begins in each partition that it has begun, and how many records behind that are done."""
        asked = DescribeShareGroupOffsetsRequestGroup(group_id=group_id, topics=None)
        request = DescribeShareGroupOffsetsRequest(groups=(asked,))

        async def once() -> DescribeShareGroupOffsetsResponseGroup:
            node_id = await self._network.coordinator(group_id)
            response = await self._network.send(node_id, ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS, request)
            group: DescribeShareGroupOffsetsResponseGroup = response.groups[0]
            self._check(group.error_code, group_id, group.error_message)
            return group

        group = await self._network.retrying(once)
        begun = {
            TopicPartition(topic.topic_name, p.partition_index): p
            for topic in group.topics
            for p in topic.partitions
            if p.start_offset >= 0
        }
        await self._network.refresh({at.topic for at in begun})
        ends = await self._offsets.list_offsets(dict.fromkeys(begun, LATEST))
        done = {at: ends[at].offset - p.start_offset - p.lag for at, p in begun.items() if p.lag >= 0}
        return {at: p.start_offset for at, p in begun.items()}, done

    async def set_offsets(self, group_id: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Set committed offsets from outside. Raises KafkaError UNKNOWN_MEMBER_ID while members are there."""
        await self._network.retrying(lambda: self._offsets.commit(group_id, offsets))

    async def delete_offsets(self, group_id: str, partitions: Collection[TopicPartition]) -> None:
        """Raises KafkaError GROUP_SUBSCRIBED_TO_TOPIC for topics that members read."""
        by_topic: dict[str, list[OffsetDeleteRequestPartition]] = {}
        for topic, index in partitions:
            by_topic.setdefault(topic, []).append(OffsetDeleteRequestPartition(partition_index=index))
        request = OffsetDeleteRequest(
            group_id=group_id,
            topics=tuple(OffsetDeleteRequestTopic(name=t, partitions=tuple(ps)) for t, ps in by_topic.items()),
        )

        async def once() -> None:
            node_id = await self._network.coordinator(group_id)
            response: OffsetDeleteResponse = await self._network.send(node_id, ApiKey.OFFSET_DELETE, request)
            self._check(response.error_code, group_id, None)
            for topic_answer in response.topics:
                for p in topic_answer.partitions:
                    self._check(p.error_code, group_id, f"{topic_answer.name}-{p.partition_index}: {p.error_code.name}")

        await self._network.retrying(once)

    async def delete(self, group_id: str) -> None:
        """Raises KafkaError NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND."""

        async def once() -> None:
            node_id = await self._network.coordinator(group_id)
            request = DeleteGroupsRequest(groups_names=(group_id,))
            response: DeleteGroupsResponse = await self._network.send(node_id, ApiKey.DELETE_GROUPS, request)
            self._check(response.results[0].error_code, group_id, None)

        await self._network.retrying(once)

    def _check(self, code: ErrorCode, group_id: str, message: str | None) -> None:
        if code in (ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE):
            self._network.forget_coordinator(group_id)
        if code is not ErrorCode.NONE:
            raise KafkaError(code, f"group {group_id!r}: {message or code.name}")
