"""SHELL. Offsets as brokers know them: listed by time, committed by a group."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import anyio

from ottla.client.core.records import OffsetAndMetadata
from ottla.client.network import RETRY_BACKOFF_MS, Network
from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from ottla.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
)
from ottla.protocol.versions import ApiKey

LATEST: Final = -1
EARLIEST: Final = -2
MAX_TIMESTAMP: Final = -3

OFFSET_COMMIT_VERSION_MAX = 9
OFFSET_FETCH_VERSION_MAX = 9
"""Topics by name; from 10 on they go by id."""


@dataclass(frozen=True, slots=True)
class ListedOffset:
    """`offset` -1 and `timestamp_ms` -1: no record is that young."""

    offset: int
    timestamp_ms: int
    leader_epoch: int


class OffsetsClient:
    def __init__(self, network: Network) -> None:
        self._network = network
        self.trouble: KafkaError | None = None
        """What keeps `list_offsets` from answering at present."""

    async def list_offsets(
        self, asked: Mapping[TopicPartition, int], *, read_committed: bool = False
    ) -> dict[TopicPartition, ListedOffset]:
        """Ask each leader; the values are timestamps in Unix milliseconds, or LATEST, EARLIEST, MAX_TIMESTAMP."""

        async def once() -> dict[TopicPartition, ListedOffset]:
            found, failed = await self._list_once(asked, read_committed=read_committed)
            self.trouble = next(iter(failed.values()), None)
            if self.trouble is not None:
                raise self.trouble
            return found

        return await self._network.retrying(once) if asked else {}

    async def list_offsets_patiently(
        self, asked: Mapping[TopicPartition, int], *, patience_ms: int
    ) -> tuple[dict[TopicPartition, ListedOffset], dict[TopicPartition, KafkaError]]:
        """As `list_offsets`, but partitions that cannot tell after a while keep nobody waiting for the others.

        Returns what was found and what failed.
        """
        found: dict[TopicPartition, ListedOffset] = {}
        failed: dict[TopicPartition, KafkaError] = {}
        deadline = anyio.current_time() + patience_ms / 1000
        while True:
            missing = {partition: timestamp for partition, timestamp in asked.items() if partition not in found}
            listed, failed = await self._list_once(missing, read_committed=False)
            found |= listed
            if not any(error.retriable for error in failed.values()) or anyio.current_time() >= deadline:
                return found, failed
            await anyio.sleep(RETRY_BACKOFF_MS / 1000)

    async def _list_once(
        self, asked: Mapping[TopicPartition, int], *, read_committed: bool
    ) -> tuple[dict[TopicPartition, ListedOffset], dict[TopicPartition, KafkaError]]:
        missing = {p.topic for p in asked if self._network.view.leader(p) is None}
        if missing:
            await self._network.refresh(missing)
        found: dict[TopicPartition, ListedOffset] = {}
        failed: dict[TopicPartition, KafkaError] = {}
        by_leader: dict[int, dict[str, list[ListOffsetsPartition]]] = {}
        for partition, timestamp in asked.items():
            leader = self._network.view.leader(partition)
            if leader is None:
                failed[partition] = KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"{partition} has no leader")
                continue
            entry = ListOffsetsPartition(partition_index=partition.partition, timestamp=timestamp)
            by_leader.setdefault(leader, {}).setdefault(partition.topic, []).append(entry)
        for leader, topics in by_leader.items():
            request = ListOffsetsRequest(
                replica_id=-1,
                isolation_level=int(read_committed),
                topics=tuple(ListOffsetsTopic(name=t, partitions=tuple(ps)) for t, ps in topics.items()),
            )
            response: ListOffsetsResponse = await self._network.send(leader, ApiKey.LIST_OFFSETS, request)
            for topic in response.topics:
                for p in topic.partitions:
                    at = TopicPartition(topic.name, p.partition_index)
                    if p.error_code is ErrorCode.NONE:
                        found[at] = ListedOffset(p.offset, p.timestamp, p.leader_epoch)
                    else:
                        failed[at] = KafkaError(p.error_code, f"ListOffsets {at}: {p.error_code.name}")
        stale = {partition.topic for partition, error in failed.items() if error.retriable}
        if stale:
            await self._network.refresh(stale)
        return found, failed

    async def committed(
        self, group_id: str, partitions: Collection[TopicPartition] | None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """A group's committed offsets, of these partitions or of all (None)."""
        topics: tuple[OffsetFetchRequestTopics, ...] | None = None
        if partitions is not None:
            by_topic: dict[str, list[int]] = {}
            for partition in partitions:
                by_topic.setdefault(partition.topic, []).append(partition.partition)
            topics = tuple(OffsetFetchRequestTopics(name=t, partition_indexes=tuple(i)) for t, i in by_topic.items())
        request = OffsetFetchRequest(
            groups=(OffsetFetchRequestGroup(group_id=group_id, topics=topics, member_epoch=-1),), require_stable=True
        )

        async def once() -> dict[TopicPartition, OffsetAndMetadata]:
            node_id = await self._network.coordinator(group_id)
            response: OffsetFetchResponse = await self._network.send(
                node_id, ApiKey.OFFSET_FETCH, request, version_max=OFFSET_FETCH_VERSION_MAX
            )
            group = response.groups[0]
            self._check(group.error_code, group_id, "OffsetFetch")
            found = {}
            for topic in group.topics:
                for p in topic.partitions:
                    self._check(p.error_code, group_id, f"OffsetFetch {topic.name}-{p.partition_index}")
                    if p.committed_offset >= 0:
                        found[TopicPartition(topic.name, p.partition_index)] = OffsetAndMetadata(
                            p.committed_offset, p.committed_leader_epoch, p.metadata or ""
                        )
            return found

        return await self._network.retrying(once)

    async def commit(
        self,
        group_id: str,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        *,
        generation_id: int = -1,
        member_id: str = "",
        group_instance_id: str | None = None,
    ) -> None:
        """Commit, once. Raises KafkaError; without a member id the group must be empty."""
        by_topic: dict[str, list[OffsetCommitRequestPartition]] = {}
        for (topic, index), offset in offsets.items():
            by_topic.setdefault(topic, []).append(
                OffsetCommitRequestPartition(
                    partition_index=index,
                    committed_offset=offset.offset,
                    committed_leader_epoch=offset.leader_epoch,
                    committed_metadata=offset.metadata,
                )
            )
        request = OffsetCommitRequest(
            group_id=group_id,
            generation_id_or_member_epoch=generation_id,
            member_id=member_id,
            group_instance_id=group_instance_id,
            topics=tuple(OffsetCommitRequestTopic(name=t, partitions=tuple(ps)) for t, ps in by_topic.items()),
        )
        node_id = await self._network.coordinator(group_id)
        response: OffsetCommitResponse = await self._network.send(
            node_id, ApiKey.OFFSET_COMMIT, request, version_max=OFFSET_COMMIT_VERSION_MAX
        )
        for topic_answer in response.topics:
            for p in topic_answer.partitions:
                self._check(p.error_code, group_id, f"OffsetCommit {topic_answer.name}-{p.partition_index}")

    def _check(self, code: ErrorCode, group_id: str, doing: str) -> None:
        if code in (ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE):
            self._network.forget_coordinator(group_id)
        if code is not ErrorCode.NONE:
            raise KafkaError(code, f"{doing}: {code.name}")
