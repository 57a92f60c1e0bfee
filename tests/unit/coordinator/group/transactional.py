"""A shard of groups over a log that keeps transactions: offsets committed in them, and their markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ottla.coordinator.group.config import GroupConfig
from ottla.coordinator.group.machine import GroupMachine
from ottla.coordinator.shard import (
    CoordinatorRecord,
    LoadedRecord,
    Producer,
    Reply,
    Shard,
    TransactionMarker,
)
from ottla.errors import ErrorCode
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
    TxnOffsetCommitResponse,
)
from tests.unit.coordinator.group.context import GROUP, WRITE_TIMEOUT_MS, GroupContext
from tests.unit.coordinator.group.standing import StandingBeats
from tests.unit.coordinator.group.standing_writes import StandingWrites

Logged = LoadedRecord | TransactionMarker


class TransactionalContext(GroupContext):
    """As `GroupContext`; `entries` is the log as a loader reads it."""

    def __init__(self, entries: Iterable[Logged] = (), *, config: GroupConfig | None = None) -> None:
        super().__init__(config=config)
        self.entries: list[Logged] = list(entries)
        self.log = [CoordinatorRecord(b"", b"")] * len(self.entries)
        self.high_watermark = len(self.entries)
        self.machine = GroupMachine(self.config)
        self.standing, self.writes = StandingBeats(self.machine), StandingWrites(self.machine)
        self.shard = Shard(self.machine, write_timeout_ms=WRITE_TIMEOUT_MS)
        self.shard.load(self.entries, end_offset=len(self.entries), high_watermark=len(self.entries))
        self._take(self.shard.finish_loading(self.now))

    def _append(self, records: Sequence[CoordinatorRecord], producer: Producer | None = None) -> int:
        # Kept as a loader reads it: as bytes, with the producer.
        producer_id = -1 if producer is None else producer.producer_id
        base_offset = super()._append(records, producer)
        self.entries += [LoadedRecord(base_offset + i, r.key, r.value, producer_id) for i, r in enumerate(records)]
        return base_offset

    def restarted(self) -> TransactionalContext:
        """Another broker that loads what was committed."""
        other = TransactionalContext(self.entries[: self.high_watermark], config=self.config)
        other.wall_ms = self.wall_ms
        return other

    def lose_uncommitted(self, error: ErrorCode = ErrorCode.KAFKA_STORAGE_ERROR) -> None:
        del self.entries[self.high_watermark :]
        super().lose_uncommitted(error)

    def begin_txn_commit(
        self,
        producer_id: int,
        offsets: dict[tuple[str, int], int],
        *,
        group_id: str = GROUP,
        member_id: str = "",
        generation_id: int = -1,
        instance_id: str | None = None,
        metadata: str | None = "",
        version: int = 5,
    ) -> int:
        caller = self.caller(version=version)
        request = TxnOffsetCommitRequest(
            transactional_id=f"tx{producer_id}",
            group_id=group_id,
            producer_id=producer_id,
            producer_epoch=0,
            generation_id=generation_id,
            member_id=member_id,
            group_instance_id=instance_id,
            topics=tuple(
                TxnOffsetCommitRequestTopic(
                    name=topic,
                    partitions=(
                        TxnOffsetCommitRequestPartition(
                            partition_index=partition, committed_offset=offset, committed_metadata=metadata
                        ),
                    ),
                )
                for (topic, partition), offset in offsets.items()
            ),
        )
        producer = Producer(producer_id, 0)
        self.run(self.machine.transactional_offsets.commit(request, caller, producer, self.now))
        return caller.token

    def txn_commit(self, producer_id: int, offsets: dict[tuple[str, int], int], **options: object) -> set[ErrorCode]:
        """Commit in a transaction; returns the errors of the partitions."""
        response = self.reply_to(self.begin_txn_commit(producer_id, offsets, **options))  # type: ignore[arg-type]
        assert isinstance(response, TxnOffsetCommitResponse)
        return {p.error_code for t in response.topics for p in t.partitions}

    def begin_end(self, producer_id: int, *, commit: bool) -> int:
        """Append the producer's marker; returns the token of whoever waits for it."""
        token = self.caller(version=0).token
        marker = TransactionMarker(len(self.entries), producer_id, commit)
        self.entries.append(marker)
        self.log.append(CoordinatorRecord(b"", b""))
        replies = self.shard.on_marker_appended(marker, Reply(token), self.now)
        if not self.holding:
            self.high_watermark = len(self.entries)
            replies += self.shard.on_high_watermark(self.high_watermark, self.now)
        self._take(replies)
        return token

    def end(self, producer_id: int, *, commit: bool) -> None:
        assert self.reply_to(self.begin_end(producer_id, commit=commit)) is None
