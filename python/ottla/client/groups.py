"""SHELL. Consumer groups, as an administrator sees them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ottla.client.core.assignors import MalformedSubscription, decode_assignment, decode_subscription
from ottla.client.core.records import OffsetAndMetadata
from ottla.client.network import Network
from ottla.client.offsets import EARLIEST, LATEST, OffsetsClient
from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from ottla.protocol.messages.describe_groups import DescribedGroup, DescribeGroupsRequest, DescribeGroupsResponse
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
class GroupMember:
    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    topics: tuple[str, ...]
    assignment: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDescription:
    group_id: str
    state: str
    protocol_type: str
    assignor: str
    coordinator_id: int
    members: tuple[GroupMember, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLag:
    """`committed` and `lag` are None where the group never committed; `member` where nobody reads it."""

    partition: TopicPartition
    committed: int | None
    log_start_offset: int
    log_end_offset: int
    member: GroupMember | None

    @property
    def lag(self) -> int | None:
        """Records between the committed offset and the end, counted by offset."""
        return None if self.committed is None else max(0, self.log_end_offset - self.committed)


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

        async def once() -> tuple[int, DescribedGroup]:
            node_id = await self._network.coordinator(group_id)
            request = DescribeGroupsRequest(groups=(group_id,))
            response: DescribeGroupsResponse = await self._network.send(node_id, ApiKey.DESCRIBE_GROUPS, request)
            group = response.groups[0]
            self._check(group.error_code, group_id, group.error_message)
            return node_id, group

        node_id, group = await self._network.retrying(once)
        if group.group_state == "Dead":
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"group {group_id!r} does not exist")
        return GroupDescription(
            group_id=group.group_id,
            state=group.group_state,
            protocol_type=group.protocol_type,
            assignor=group.protocol_data,
            coordinator_id=node_id,
            members=tuple(
                GroupMember(
                    member_id=m.member_id,
                    group_instance_id=m.group_instance_id,
                    client_id=m.client_id,
                    client_host=m.client_host,
                    topics=_topics(m.member_metadata),
                    assignment=_assignment(m.member_assignment),
                )
                for m in group.members
            ),
        )

    async def lag(self, description: GroupDescription) -> list[PartitionLag]:
        """Committed offsets beside the ends of the logs, for all partitions committed or assigned."""
        committed = await self._offsets.committed(description.group_id, None)
        owners = {p: m for m in description.members for p in m.assignment}
        await self._network.refresh({p.topic for p in {*committed, *owners}})
        known = sorted(p for p in {*committed, *owners} if self._network.view.leader(p) is not None)
        starts = await self._offsets.list_offsets(dict.fromkeys(known, EARLIEST))
        ends = await self._offsets.list_offsets(dict.fromkeys(known, LATEST))
        return [
            PartitionLag(
                partition=p,
                committed=committed[p].offset if p in committed else None,
                log_start_offset=starts[p].offset,
                log_end_offset=ends[p].offset,
                member=owners.get(p),
            )
            for p in known
        ]

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


def _topics(metadata: bytes) -> tuple[str, ...]:
    """A foreign protocol type has metadata of its own: nothing is shown of it."""
    try:
        return tuple(decode_subscription(metadata)) if metadata else ()
    except MalformedSubscription:
        return ()


def _assignment(data: bytes) -> tuple[TopicPartition, ...]:
    try:
        return tuple(decode_assignment(data))
    except MalformedSubscription:
        return ()
