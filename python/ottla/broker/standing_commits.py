"""Offset commits that the data plane carries out by itself.

A consumer commits the same partitions over and over, and nothing but their offsets differs (`commit_pattern`). Once the
machine has carried out two such requests of a connection in a row, and says that it would carry out any more
(`Offsets.is_settled`), the data plane is told how: it appends the records that the machine would have written, and
answers once they are committed, until something happens to the group. The machine takes in what was appended before it
does anything else (`CoordinatorRuntime.catch_up`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from ottla.broker.coordinator_runtime import AppendedElsewhere
from ottla.coordinator.shard import LoadedRecord
from ottla.errors import KafkaError

if TYPE_CHECKING:
    from ottla._native import Request
    from ottla.broker.connection import Connection
    from ottla.broker.coordinated_topic import NativePartitionLog
    from ottla.broker.coordinator_runtime import CoordinatorRuntime
    from ottla.coordinator.group.caller import Caller
    from ottla.coordinator.group.commit_pattern import CommitPattern
    from ottla.coordinator.group.machine import GroupMachine
    from ottla.protocol.messages.offset_commit import OffsetCommitRequest

BYTES_MAX: Final = 32 * 1024
"""What takes more, request and records together, is not let stand: each connection keeps it."""
HANDED_BACK_MS: Final = 1_000
"""A commit that takes longer comes here after all, and has the whole write timeout then: so it takes little more."""
RECORD_BYTES: Final = 64
"""About what a record takes beside the names and the metadata."""
CLOCK_BYTES: Final = 8
CRC_AT: Final = range(17, 21)
"""Where a batch has its checksum."""


class Committing(NamedTuple):
    """A commit of which every partition was accepted."""

    partition: int
    """Of `__consumer_offsets`."""
    asked: OffsetCommitRequest
    """As the client sent it."""
    passed_on: OffsetCommitRequest
    """As the machine was given it: with names and ids."""
    caller: Caller


class _Stands(NamedTuple):
    partition: int
    group_id: str
    member_id: str
    pattern: CommitPattern


class StandingCommits:
    """How commits are carried out in the data plane."""

    def __init__(
        self,
        runtime: CoordinatorRuntime[GroupMachine],
        log_of: Callable[[int], NativePartitionLog | None],
        *,
        write_timeout_ms: int,
    ) -> None:
        """
        Args:
            log_of: The log of a partition that is coordinated here.
            write_timeout_ms: How long a commit may take in the machine.
        """
        self._runtime = runtime
        self._log_of = log_of
        self._timeout_ms = min(write_timeout_ms, HANDED_BACK_MS)
        self._last_id = 0
        self._standing: dict[int, _Stands] = {}
        """By id."""
        self._of_partitions: dict[int, dict[str, set[int]]] = {}
        """The ids by partition and group."""
        self._logs: dict[int, NativePartitionLog] = {}
        """The logs of these partitions."""

    def __len__(self) -> int:
        return len(self._standing)

    def let_stand(self, commit: Committing, connection: Connection, request: Request, response: bytes) -> None:
        """Have the data plane carry out whatever differs from this request in its offsets alone, if the one before it
        did not either, and if the machine says so."""
        body = request[5]
        shape = _shape(commit)
        was_asked_before = connection.committed_shape == shape
        connection.committed_shape = shape
        log = self._log_of(commit.partition)
        if not was_asked_before or log is None or log.is_compressed or _size_bytes(commit, body) > BYTES_MAX:
            return
        connection.end_standing_commit()
        # Asked behind that, as the machine caught up by it.
        if not self._is_settled(commit):
            return
        # Imported here, as a broker without groups does without.
        from ottla.coordinator.group.commit_pattern import CommitPattern, differences, request_holes

        version = commit.caller.api_version
        asked_at = request_holes(version, commit.asked, body)
        if asked_at is None:
            return
        pattern = CommitPattern(version, commit.passed_on)
        one, other = [log.build(pattern.records(pattern.sample(byte), _clock(1)), wall_ms=_clock(1)) for byte in (1, 2)]
        later = log.build(pattern.records(pattern.sample(1), _clock(2)), wall_ms=_clock(2))
        written_at = [run for run in differences(one, other) if run.at not in CRC_AT]
        clocks = [
            at
            for run in differences(one, later)
            if run.at not in CRC_AT
            for at in range(run.at, run.at + run.size_bytes, CLOCK_BYTES)
        ]
        assert len(asked_at) == len(written_at) == pattern.partition_count, "one hole for each partition"
        self._last_id += 1
        standing_id = self._last_id
        self._standing[standing_id] = _Stands(commit.partition, commit.asked.group_id, commit.asked.member_id, pattern)
        groups = self._of_partitions.setdefault(commit.partition, {})
        groups.setdefault(commit.asked.group_id, set()).add(standing_id)
        self._logs[commit.partition] = log
        log.let_write_stand(
            connection.session_id,
            standing_id,
            request,
            response,
            batch=one,
            holes=[(a.at, w.at, a.size_bytes) for a, w in zip(asked_at, written_at, strict=True)],
            clocks=clocks,
            timeout_ms=self._timeout_ms,
        )
        connection.standing_commit = partial(self._withdraw, commit.partition, (standing_id,))

    def _is_settled(self, commit: Committing) -> bool:
        try:
            return self._runtime.look(
                commit.partition, lambda machine, _: machine.offsets.is_settled(commit.passed_on, commit.caller)
            )
        except KafkaError:
            return False

    def take_appended(self, partition: int) -> AppendedElsewhere | None:
        """What was committed there since the last call; who committed is told to have been heard of."""
        log = self._logs.get(partition)
        if log is None:
            return None
        high_watermark, written = log.take_written()
        taken: list[LoadedRecord] = []
        for standing_id, base_offset, heard_ms, wall_ms, said in written:
            stands = self._standing[standing_id]
            self._tell(stands, heard_ms)
            taken += [
                LoadedRecord(offset, record.key, record.value, content=record.content)
                for offset, record in enumerate(stands.pattern.records(said, wall_ms), base_offset)
            ]
        return AppendedElsewhere(high_watermark, taken)

    def withdraw_groups(self, partition: int, group_ids: Iterable[str]) -> None:
        """Something happens to these groups."""
        groups = self._of_partitions.get(partition)
        if groups:
            ids = [standing_id for group_id in group_ids for standing_id in groups.get(group_id, ())]
            self._withdraw(partition, ids)

    def withdraw_all(self) -> None:
        """Something happens that may concern any group."""
        for partition, groups in list(self._of_partitions.items()):
            self.withdraw_groups(partition, list(groups))

    def forget_partition(self, partition: int) -> None:
        """The partition is not coordinated here any more, or anew: its log says what was committed."""
        log = self._logs.get(partition)
        if log is not None:
            ids = [standing_id for of_group in self._of_partitions[partition].values() for standing_id in of_group]
            log.withdraw_writes(ids)
            log.take_written()
            self._forget(partition, ids)

    def _withdraw(self, partition: int, standing_ids: Iterable[int]) -> None:
        standing_ids = [standing_id for standing_id in standing_ids if standing_id in self._standing]
        if not standing_ids:
            return
        self._logs[partition].withdraw_writes(standing_ids)
        self._runtime.catch_up(partition)
        self._forget(partition, standing_ids)

    def _forget(self, partition: int, standing_ids: Iterable[int]) -> None:
        for standing_id in standing_ids:
            stands = self._standing.pop(standing_id, None)
            if stands is None:
                continue  # while the machine caught up, something happened to it
            groups = self._of_partitions[partition]
            groups[stands.group_id].discard(standing_id)
            if not groups[stands.group_id]:
                del groups[stands.group_id]
                if not groups:
                    del self._of_partitions[partition], self._logs[partition]

    def _tell(self, stands: _Stands, heard_ms: int) -> None:
        """Classic members are heard of by their commits, those of consumer groups are not."""
        self._runtime.inform(
            stands.partition,
            lambda machine: machine.membership.on_heard(stands.group_id, stands.member_id, heard_ms),
        )


def _clock(byte: int) -> int:
    """A moment after 1970 that differs from the other one in each byte."""
    return int.from_bytes(bytes([byte]) * CLOCK_BYTES)


def _size_bytes(commit: Committing, body: bytes) -> int:
    """About what request and records take."""
    group_bytes = len(commit.asked.group_id.encode())
    records = [len(t.partitions) * (RECORD_BYTES + group_bytes + len(t.name.encode())) for t in commit.passed_on.topics]
    return 2 * len(body) + sum(records)


def _shape(commit: Committing) -> int:
    """Tells commits apart by what is not an offset."""
    asked = commit.asked
    return hash(
        (
            commit.caller.api_version,
            asked.group_id,
            asked.generation_id_or_member_epoch,
            asked.member_id,
            *[
                (t.name, t.topic_id, *[(p.partition_index, p.committed_metadata) for p in t.partitions])
                for t in asked.topics
            ],
        )
    )
