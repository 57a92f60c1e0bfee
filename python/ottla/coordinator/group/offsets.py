"""OffsetCommit, OffsetFetch, OffsetDelete, and offsets that go by themselves.

Which topics and partitions exist is not known here: the caller answers for those that do not, and passes on the rest.

Source: Kafka's `OffsetMetadataManager`, `ClassicGroup.validateOffsetCommit` and `offsetExpirationCondition`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping

from ottla.coordinator.group import records
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.classic import ClassicGroup, GroupState
from ottla.coordinator.group.consumer import ConsumerGroup
from ottla.coordinator.group.consumer_offsets import check_commit, check_fetch
from ottla.coordinator.group.rebalance import Rebalancing
from ottla.coordinator.group.records import OffsetCommitValue
from ottla.coordinator.group.table import GroupTable
from ottla.coordinator.shard import CoordinatorRecord, Instant, Outcome, Reply
from ottla.errors import ErrorCode
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from ottla.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from ottla.protocol.messages.offset_fetch import (
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
)

GROUP_ID_NOT_FOUND_VERSION_MIN = 9
_TIMESTAMP_MS_MAX = 2**63 - 1


class Offsets:
    """Serves offsets. Its state is the table's."""

    def __init__(self, table: GroupTable, rebalancing: Rebalancing) -> None:
        self._table = table
        self._rebalancing = rebalancing

    # Committing

    def commit(self, request: OffsetCommitRequest, caller: Caller, now: Instant) -> Outcome:
        """Commit each partition of the request, or none because of the group's state."""
        error = self._check_commit(request, caller)
        if error is not ErrorCode.NONE:
            return Outcome().reply(caller.token, commit_error(request, error))
        group = self._table.groups.get(request.group_id)
        if group is not None and group.state in (GroupState.STABLE, GroupState.PREPARING_REBALANCE):
            self._rebalancing.renew_session(group.members[request.member_id], now)
        metadata_max = self._rebalancing.config.offset_metadata_max_bytes
        expire_timestamp_ms = -1
        if request.retention_time_ms != -1:
            expire_timestamp_ms = min(now.wall_ms + request.retention_time_ms, _TIMESTAMP_MS_MAX)
        writes: list[CoordinatorRecord] = []
        topics = []
        for topic in request.topics:
            partitions = []
            for p in topic.partitions:
                if utf16_length(p.committed_metadata) > metadata_max:
                    result = ErrorCode.OFFSET_METADATA_TOO_LARGE
                else:
                    result = ErrorCode.NONE
                    value = OffsetCommitValue(
                        p.committed_offset,
                        p.committed_leader_epoch,
                        p.committed_metadata or "",
                        now.wall_ms,
                        expire_timestamp_ms,
                        topic.topic_id,
                    )
                    writes.append(records.offset_commit(request.group_id, topic.name, p.partition_index, value))
                partitions.append(OffsetCommitResponsePartition(partition_index=p.partition_index, error_code=result))
            topics.append(
                OffsetCommitResponseTopic(name=topic.name, topic_id=topic.topic_id, partitions=tuple(partitions))
            )
        return Outcome().write(writes, Reply(caller.token, OffsetCommitResponse(topics=tuple(topics))))

    def is_settled(self, request: OffsetCommitRequest, caller: Caller) -> bool:
        """Whether a commit that was carried out a moment ago is carried out so again and again, whatever its offsets
        are, until something happens to the group."""
        group = self._table.groups.get(request.group_id)
        if self._table.consumers.get(request.group_id) is None and (
            group is None or group.state not in (GroupState.EMPTY, GroupState.STABLE)
        ):
            return False
        if request.retention_time_ms != -1 or self._check_commit(request, caller) is not ErrorCode.NONE:
            return False
        metadata_max = self._rebalancing.config.offset_metadata_max_bytes
        return all(utf16_length(p.committed_metadata) <= metadata_max for t in request.topics for p in t.partitions)

    def _check_commit(self, request: OffsetCommitRequest, caller: Caller) -> ErrorCode:
        if self._table.shares.get(request.group_id) is not None:
            return ErrorCode.GROUP_ID_NOT_FOUND  # its offsets are the share coordinator's
        generation_id = request.generation_id_or_member_epoch
        consumers = self._table.consumers.get(request.group_id)
        if consumers is not None:
            return check_commit(
                consumers,
                [(t.topic_id, p.partition_index) for t in request.topics for p in t.partitions],
                member_id=request.member_id,
                instance_id=request.group_instance_id,
                epoch=generation_id,
                api_version=caller.api_version,
            )
        group = self._table.groups.get(request.group_id)
        if group is None:
            if generation_id < 0:
                return ErrorCode.NONE  # a client that only keeps its offsets here
            if caller.api_version >= GROUP_ID_NOT_FOUND_VERSION_MIN:
                return ErrorCode.GROUP_ID_NOT_FOUND
            return ErrorCode.ILLEGAL_GENERATION
        if generation_id < 0 and group.state is GroupState.EMPTY:
            return ErrorCode.NONE  # as above, or an administrator
        if generation_id < 0 and not request.member_id and request.group_instance_id is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        error = group.check_member(request.member_id, request.group_instance_id)
        if error is not ErrorCode.NONE:
            return error
        if generation_id != group.generation_id:
            return ErrorCode.ILLEGAL_GENERATION
        if group.state is GroupState.COMPLETING_REBALANCE:
            # It knows the generation but not yet what is assigned to it: it cannot commit for this generation.
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    # Fetching

    def fetch(self, request: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup:
        """The committed offsets of one group. What it never committed has offset -1 and no error."""
        store = self._table.offsets
        error = self._check_fetch(request, self._table.consumers.get_committed(request.group_id), is_committed=True)
        if error is not ErrorCode.NONE:
            return OffsetFetchResponseGroup(group_id=request.group_id, error_code=error)
        if request.topics is None:
            found: dict[str, list[OffsetFetchResponsePartitions]] = {}
            for (topic, partition), value in store.committed_items(request.group_id):
                found.setdefault(topic, []).append(_fetched(partition, value))
            topics = [OffsetFetchResponseTopics(name=t, partitions=tuple(p)) for t, p in found.items()]
        else:
            topics = [
                OffsetFetchResponseTopics(
                    name=topic.name,
                    topic_id=topic.topic_id,
                    partitions=tuple(
                        [
                            _fetched(p, store.get_committed(request.group_id, topic.name, p), topic.topic_id)
                            for p in topic.partition_indexes
                        ]
                    ),
                )
                for topic in request.topics
            ]
        return OffsetFetchResponseGroup(group_id=request.group_id, topics=tuple(topics))

    def fetch_stable(self, request: OffsetFetchRequestGroup, caller: Caller) -> Outcome:
        """The latest offsets, answered once they are committed; UNSTABLE_OFFSET_COMMIT where a transaction is open."""
        store = self._table.offsets
        error = self._check_fetch(request, self._table.consumers.get(request.group_id), is_committed=False)
        if error is not ErrorCode.NONE:
            refused = OffsetFetchResponseGroup(group_id=request.group_id, error_code=error)
            return Outcome().write((), Reply(caller.token, refused))
        pending = store.pending_partitions(request.group_id)
        wanted: Iterable[OffsetFetchRequestTopics]
        if request.topics is None:
            found: dict[str, list[int]] = {}
            for (topic, partition), _ in store.items(request.group_id):
                found.setdefault(topic, []).append(partition)
            wanted = [OffsetFetchRequestTopics(name=t, partition_indexes=tuple(p)) for t, p in found.items()]
        else:
            wanted = request.topics
        topics = [
            OffsetFetchResponseTopics(
                name=topic.name,
                topic_id=topic.topic_id,
                partitions=tuple(
                    [
                        OffsetFetchResponsePartitions(
                            partition_index=p,
                            committed_offset=-1,
                            metadata="",
                            error_code=ErrorCode.UNSTABLE_OFFSET_COMMIT,
                        )
                        if (topic.name, p) in pending
                        else _fetched(p, store.get(request.group_id, topic.name, p), topic.topic_id)
                        for p in topic.partition_indexes
                    ]
                ),
            )
            for topic in wanted
        ]
        response = OffsetFetchResponseGroup(group_id=request.group_id, topics=tuple(topics))
        return Outcome().write((), Reply(caller.token, response))

    @staticmethod
    def _check_fetch(request: OffsetFetchRequestGroup, group: ConsumerGroup | None, *, is_committed: bool) -> ErrorCode:
        if group is None:
            return ErrorCode.NONE
        return check_fetch(group, member_id=request.member_id, epoch=request.member_epoch, is_committed=is_committed)

    # Deleting

    def delete(self, request: OffsetDeleteRequest, caller: Caller) -> Outcome:
        """Delete offsets of topics that no member subscribes to."""
        out = Outcome()
        error = self._check_delete(request.group_id)
        if error is not ErrorCode.NONE:
            return out.reply(caller.token, OffsetDeleteResponse(error_code=error))
        group = self._table.consumers.get(request.group_id) or self._table.groups[request.group_id]
        store = self._table.offsets
        pending = store.pending_partitions(request.group_id)
        tombstones = []
        topics = []
        for topic in request.topics:
            result = ErrorCode.NONE
            if group.is_subscribed_to(topic.name):
                result = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
            partitions = []
            for p in topic.partitions:
                partitions.append(OffsetDeleteResponsePartition(partition_index=p.partition_index, error_code=result))
                at = (topic.name, p.partition_index)
                if result is ErrorCode.NONE and (store.get(request.group_id, *at) is not None or at in pending):
                    tombstones.append(records.offset_commit_tombstone(request.group_id, *at))
            topics.append(OffsetDeleteResponseTopic(name=topic.name, partitions=tuple(partitions)))
        return out.write(tombstones, Reply(caller.token, OffsetDeleteResponse(topics=tuple(topics))))

    def _check_delete(self, group_id: str) -> ErrorCode:
        if not group_id:
            return ErrorCode.INVALID_GROUP_ID
        if self._table.consumers.get(group_id) is not None:
            return ErrorCode.NONE
        group = self._table.groups.get(group_id)
        if group is None:
            return ErrorCode.GROUP_ID_NOT_FOUND
        if group.state is not GroupState.EMPTY and not group.is_consumer_group:
            return ErrorCode.NON_EMPTY_GROUP  # which topics it uses cannot be known
        return ErrorCode.NONE

    def tombstones_of_group(self, group_id: str) -> list[CoordinatorRecord]:
        """Everything that must go with a deleted group."""
        store = self._table.offsets
        partitions = dict.fromkeys([at for at, _ in store.items(group_id)])
        partitions.update(dict.fromkeys(store.pending_partitions(group_id)))
        return [records.offset_commit_tombstone(group_id, *at) for at in partitions]

    def tombstones_of_topics(self, deleted: Mapping[str, uuid.UUID]) -> list[CoordinatorRecord]:
        """Offsets of topics that do not exist any more, but not those of a new topic of the same name."""
        store = self._table.offsets
        return [
            records.offset_commit_tombstone(group_id, *at)
            for group_id in sorted(store.group_ids())
            for at, value in store.items(group_id)
            if at[0] in deleted and value.topic_id in (None, deleted[at[0]])
        ]

    def expire(self, group: ClassicGroup | ConsumerGroup, *, wall_ms: int, tombstones: list[CoordinatorRecord]) -> bool:
        """Add tombstones of what is past its retention; returns whether nothing of the group is left then."""
        store = self._table.offsets
        items = store.items(group.group_id)
        pending = store.pending_partitions(group.group_id)
        if not items:
            return not pending
        counts_from_empty_ms: int | None = None
        if isinstance(group, ClassicGroup) and group.protocol_type is not None:
            if group.state is GroupState.EMPTY:
                # -1: written by versions that kept no time of the group's last change.
                counts_from_empty_ms = None if group.state_timestamp_ms == -1 else group.state_timestamp_ms
            elif not (group.is_consumer_group and group.subscribed is not None and group.state is GroupState.STABLE):
                return False
        is_all_gone = not pending
        for (topic, partition), value in items:
            base_ms = value.commit_timestamp_ms if counts_from_empty_ms is None else counts_from_empty_ms
            if value.expire_timestamp_ms != -1:
                is_expired = wall_ms >= value.expire_timestamp_ms
            else:
                is_expired = wall_ms - base_ms >= self._rebalancing.config.offsets_retention_ms
            if is_expired and not group.is_subscribed_to(topic) and (topic, partition) not in pending:
                tombstones.append(records.offset_commit_tombstone(group.group_id, topic, partition))
            else:
                is_all_gone = False
        return is_all_gone


def commit_error(request: OffsetCommitRequest, error: ErrorCode) -> OffsetCommitResponse:
    """The same error for every partition of a request: the response has no other place for it."""

    def answered(p: OffsetCommitRequestPartition) -> OffsetCommitResponsePartition:
        return OffsetCommitResponsePartition(partition_index=p.partition_index, error_code=error)

    return OffsetCommitResponse(
        topics=tuple(
            OffsetCommitResponseTopic(
                name=t.name, topic_id=t.topic_id, partitions=tuple([answered(p) for p in t.partitions])
            )
            for t in request.topics
        )
    )


def _fetched(
    partition: int, value: OffsetCommitValue | None, topic_id: uuid.UUID | None = None
) -> OffsetFetchResponsePartitions:
    """`topic_id` is that of the topic as it exists now: what was committed for an earlier one does not count."""
    if value is None or (topic_id is not None and value.topic_id not in (None, topic_id)):
        return OffsetFetchResponsePartitions(partition_index=partition, committed_offset=-1, metadata="")
    return OffsetFetchResponsePartitions(
        partition_index=partition,
        committed_offset=value.offset,
        committed_leader_epoch=value.leader_epoch,
        metadata=value.metadata,
    )


def utf16_length(text: str | None) -> int:
    """The length as Java counts it: the limit is in characters of UTF-16, in spite of its name."""
    if text is None:
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
