"""TxnOffsetCommit: offsets that become the group's when their producer's transaction is committed.

That the transaction is open is the caller's to find out, before; what is decided here is whether the group lets the
member commit. Until the marker comes the offsets pend in `OffsetStore`.

Source: Kafka's `OffsetMetadataManager.commitTransactionalOffset` and `ClassicGroup.validateOffsetCommit` (KIP-447).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping

from ottla.coordinator.group import records
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.classic import GroupState
from ottla.coordinator.group.consumer_offsets import check_commit
from ottla.coordinator.group.offsets import utf16_length
from ottla.coordinator.group.rebalance import Rebalancing
from ottla.coordinator.group.records import OffsetCommitValue
from ottla.coordinator.group.table import GroupTable
from ottla.coordinator.shard import CoordinatorRecord, Instant, Outcome, Producer, Reply
from ottla.errors import ErrorCode
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)


class TransactionalOffsets:
    """Serves TxnOffsetCommit. Its state is the table's."""

    def __init__(
        self, table: GroupTable, rebalancing: Rebalancing, topic_ids: Callable[[], Mapping[str, uuid.UUID]]
    ) -> None:
        """
        Args:
            topic_ids: Those of the topics that exist now, by name.
        """
        self._table = table
        self._topic_ids = topic_ids
        self._rebalancing = rebalancing

    def commit(self, request: TxnOffsetCommitRequest, caller: Caller, producer: Producer, now: Instant) -> Outcome:
        """Have each partition of the request pend, or none because of the group's state.

        Args:
            producer: The one of the request, with what its partition knows of its transaction.
        """
        error = self._check(request)
        if error is not ErrorCode.NONE:
            return Outcome().reply(caller.token, txn_commit_error(request, error))
        metadata_max = self._rebalancing.config.offset_metadata_max_bytes
        writes: list[CoordinatorRecord] = []
        topics = []
        for topic in request.topics:
            partitions = []
            for p in topic.partitions:
                result = ErrorCode.NONE
                if utf16_length(p.committed_metadata) > metadata_max:
                    result = ErrorCode.OFFSET_METADATA_TOO_LARGE
                else:
                    value = OffsetCommitValue(
                        p.committed_offset, p.committed_leader_epoch, p.committed_metadata or "", now.wall_ms, -1
                    )
                    writes.append(records.offset_commit(request.group_id, topic.name, p.partition_index, value))
                partitions.append(
                    TxnOffsetCommitResponsePartition(partition_index=p.partition_index, error_code=result)
                )
            topics.append(TxnOffsetCommitResponseTopic(name=topic.name, partitions=tuple(partitions)))
        reply = Reply(caller.token, TxnOffsetCommitResponse(topics=tuple(topics)))
        return Outcome().write(writes, reply, producer=producer)

    def _check(self, request: TxnOffsetCommitRequest) -> ErrorCode:
        if not request.group_id:
            return ErrorCode.INVALID_GROUP_ID
        if self._table.shares.get(request.group_id) is not None:
            return ErrorCode.GROUP_ID_NOT_FOUND
        consumers = self._table.consumers.get(request.group_id)
        if consumers is not None:
            topic_ids = self._topic_ids()
            return check_commit(
                consumers,
                [(topic_ids.get(t.name), p.partition_index) for t in request.topics for p in t.partitions],
                member_id=request.member_id,
                instance_id=request.group_instance_id,
                epoch=request.generation_id,
                api_version=None,
            )
        group = self._table.groups.get(request.group_id)
        if group is None:
            # Without a generation: a client that only keeps its offsets here.
            return ErrorCode.NONE if request.generation_id < 0 else ErrorCode.ILLEGAL_GENERATION
        if request.generation_id < 0 and group.state is GroupState.EMPTY:
            return ErrorCode.NONE
        if request.generation_id < 0 and not request.member_id and request.group_instance_id is None:
            return ErrorCode.NONE  # older versions do not say who commits: the producer's epoch is all that fences them
        error = group.check_member(request.member_id, request.group_instance_id)
        if error is not ErrorCode.NONE:
            return error
        # Not as for OffsetCommit: a rebalance under way is no reason to refuse, the generation has not ended.
        return ErrorCode.NONE if request.generation_id == group.generation_id else ErrorCode.ILLEGAL_GENERATION


def txn_commit_error(request: TxnOffsetCommitRequest, error: ErrorCode) -> TxnOffsetCommitResponse:
    """The same error for every partition of a request: the response has no other place for it."""
    return TxnOffsetCommitResponse(
        topics=tuple(
            TxnOffsetCommitResponseTopic(
                name=t.name,
                partitions=tuple(
                    [
                        TxnOffsetCommitResponsePartition(partition_index=p.partition_index, error_code=error)
                        for p in t.partitions
                    ]
                ),
            )
            for t in request.topics
        )
    )
