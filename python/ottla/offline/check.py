"""Verification of a data directory: what is damaged, in which file, at which byte, and what it means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ottla.offline.finding import Finding, Severity
from ottla.offline.index_files import (
    MalformedFile,
    read_checkpoint,
    read_offset_index,
    read_producer_snapshot,
    read_time_index,
)
from ottla.offline.segment import BatchAt, Stop, base_offset_of, walk
from ottla.offline.transaction_index import check_transaction_index

_PARTITION = re.compile(r"(?P<topic>[a-zA-Z0-9._-]{1,249})-(?P<partition>\d+)")
CLEAN_SHUTDOWN_MARKER = ".kafka_cleanshutdown"
_CHECKPOINTS = (
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "replication-offset-checkpoint",
    "cleaner-offset-checkpoint",
)


@dataclass(slots=True)
class Summary:
    """What was read, beside the findings."""

    partitions: int = 0
    segments: int = 0
    batches: int = 0
    records: int = 0
    size_bytes: int = 0


def is_partition_directory(path: Path) -> bool:
    return path.is_dir() and _PARTITION.fullmatch(path.name) is not None


def check_directory(directory: Path, summary: Summary) -> Iterator[Finding]:
    """Check a data directory, or a single partition's directory. Raises OSError for what cannot be read at all."""
    if any(directory.glob("*.log")):
        yield from check_partition(directory, summary)
        return
    if not (directory / "meta.properties").exists():
        yield Finding(Severity.WARNING, directory / "meta.properties", "is missing: is this a data directory?")
    for name in _CHECKPOINTS:
        if (directory / name).exists():
            yield from _readable(directory / name, read_checkpoint)
    if not (directory / CLEAN_SHUTDOWN_MARKER).exists():
        text = (
            "there is no clean shutdown marker: the broker runs, or did not stop cleanly, and the next start recovers"
        )
        yield Finding(Severity.NOTE, directory, text)
    for path in sorted(p for p in directory.iterdir() if is_partition_directory(p)):
        yield from check_partition(path, summary)


def _readable(path: Path, read: object) -> Iterator[Finding]:
    assert callable(read)
    try:
        read(path)
    except MalformedFile as error:
        yield Finding(Severity.WARNING, path, str(error))


def check_partition(directory: Path, summary: Summary) -> Iterator[Finding]:
    """Check one partition's segments, each with what stands beside it.

    After a crash the last segment may end in a torn append; after a clean stop nothing may.
    """
    stopped_cleanly = (directory.parent / CLEAN_SHUTDOWN_MARKER).exists()
    summary.partitions += 1
    for name in ("leader-epoch-checkpoint",):
        if (directory / name).exists():
            yield from _readable(directory / name, read_checkpoint)
    for path in sorted(directory.glob("*.snapshot")):
        yield from _readable(path, read_producer_snapshot)
    segments = sorted(directory.glob("*.log"), key=base_offset_of)
    next_offset = -1
    was_compacted = _was_compacted(directory)
    for number, path in enumerate(segments):
        summary.segments += 1
        summary.size_bytes += path.stat().st_size
        base = base_offset_of(path)
        if base < next_offset:
            text = f"starts at {base}, but the segment before it reaches to {next_offset - 1}"
            yield Finding(Severity.DAMAGE, path, text)
        elif 0 <= next_offset < base and not was_compacted:
            text = f"starts at {base}, but the segment before it ends at {next_offset - 1}: a segment is missing"
            yield Finding(Severity.DAMAGE, path, text)
        positions: dict[int, BatchAt] = {}
        is_last = number == len(segments) - 1
        yield from _check_segment(
            path, base, tail_may_be_torn=is_last and not stopped_cleanly, positions=positions, summary=summary
        )
        if positions:
            next_offset = max(next_offset, max(b.batch.last_offset for b in positions.values()) + 1)
        yield from _check_indexes(path, base, positions, is_last=is_last)
        yield from check_transaction_index(
            path.with_suffix(".txnindex"), base, positions, may_lack_rows=is_last and not stopped_cleanly
        )


def _was_compacted(directory: Path) -> bool:
    """Whether the cleaner has been here: then offsets may be missing between segments."""
    found = _PARTITION.fullmatch(directory.name)
    try:
        rows = read_checkpoint(directory.parent / "cleaner-offset-checkpoint")
    except (FileNotFoundError, MalformedFile):
        rows = []
    return found is not None and any(row[:2] == (found["topic"], found["partition"]) for row in rows)


def _check_segment(
    path: Path, base: int, *, tail_may_be_torn: bool, positions: dict[int, BatchAt], summary: Summary
) -> Iterator[Finding]:
    expected = expected_before = base
    before: BatchAt | None = None
    epoch = -1
    for item in walk(path):
        if isinstance(item, Stop):
            if item.is_torn_tail and tail_may_be_torn:
                text = f"torn tail: {item.reason}; the next start cuts it off"
                yield Finding(Severity.NOTE, path, text, item.position)
            else:
                until = path.stat().st_size if item.next_position is None else item.next_position
                text = f"{until - item.position} bytes are damaged: {item.reason}"
                if item.next_position is not None:
                    text += f"; the next intact batch is at byte {item.next_position}"
                yield Finding(Severity.DAMAGE, path, text, item.position)
            continue
        batch = item.batch
        if batch.base_offset < expected:
            if before is not None and expected_before <= batch.base_offset < before.batch.base_offset:
                # Offsets are not under the checksum. Without the one before, everything would be in order.
                text = f"batch at offset {before.batch.base_offset}, behind which offset {batch.base_offset} follows"
                yield Finding(Severity.DAMAGE, path, text, before.position)
            else:
                text = f"batch at offset {batch.base_offset} where {expected} or more is expected"
                yield Finding(Severity.DAMAGE, path, text, item.position)
        if batch.partition_leader_epoch < epoch:
            text = f"leader epoch {batch.partition_leader_epoch} behind {epoch}"
            yield Finding(Severity.DAMAGE, path, text, item.position)
        records = batch.records
        if records and not (batch.base_offset <= records[0][0] and records[-1][0] <= batch.last_offset):
            text = (
                f"records {records[0][0]} to {records[-1][0]} in a batch of {batch.base_offset} to {batch.last_offset}"
            )
            yield Finding(Severity.DAMAGE, path, text, item.position)
        before, expected_before = item, expected
        expected, epoch = batch.last_offset + 1, batch.partition_leader_epoch
        positions[item.position] = item
        summary.batches += 1
        summary.records += len(records)


def _check_indexes(path: Path, base: int, positions: dict[int, BatchAt], *, is_last: bool) -> Iterator[Finding]:
    index = path.with_suffix(".index")
    if index.exists():
        yield from _check_offset_index(index, base, positions)
    elif not is_last and len(positions) > 1:
        yield Finding(Severity.WARNING, index, "is missing: it is rebuilt at the next start")
    time_index = path.with_suffix(".timeindex")
    if time_index.exists():
        yield from _check_time_index(time_index, base, positions)


def _check_offset_index(path: Path, base: int, positions: dict[int, BatchAt]) -> Iterator[Finding]:
    try:
        entries = read_offset_index(path)
    except MalformedFile as error:
        yield Finding(Severity.WARNING, path, str(error))
        return
    before = -1
    for number, entry in enumerate(entries):
        at = number * 8
        found = positions.get(entry.position)
        if number == 0 and entry.relative_offset == 0 and entry.position == 0 and len(entries) == 1:
            return  # an empty, preallocated index
        if entry.relative_offset <= before:
            text = f"entry {number} has offset {base + entry.relative_offset}, not above the one before it"
            yield Finding(Severity.WARNING, path, text, at)
        elif found is None:
            text = f"entry {number} points to byte {entry.position} of the segment, where no batch starts"
            yield Finding(Severity.WARNING, path, text, at)
        elif found.batch.last_offset != base + entry.relative_offset:
            ends = f"the batch ends at {found.batch.last_offset}"
            text = f"entry {number} says offset {base + entry.relative_offset}, {ends}"
            yield Finding(Severity.WARNING, path, text, at)
        before = entry.relative_offset


def _check_time_index(path: Path, base: int, positions: dict[int, BatchAt]) -> Iterator[Finding]:
    try:
        entries = read_time_index(path)
    except MalformedFile as error:
        yield Finding(Severity.WARNING, path, str(error))
        return
    batches = sorted(positions.values(), key=lambda b: b.position)
    end = batches[-1].batch.last_offset if batches else base - 1
    before_ms, reached, largest_ms = -1, 0, -1
    for number, entry in enumerate(entries):
        if entry.timestamp_ms == 0 and entry.relative_offset == 0 and len(entries) == 1:
            return  # an empty, preallocated index
        at, offset = number * 12, base + entry.relative_offset
        if entry.timestamp_ms <= before_ms:
            yield Finding(Severity.WARNING, path, f"entry {number}: timestamp {entry.timestamp_ms} does not rise", at)
        elif offset > end:
            yield Finding(
                Severity.WARNING, path, f"entry {number}: offset {offset} is behind the segment's end {end}", at
            )
        while reached < len(batches) and batches[reached].batch.base_offset <= offset:
            largest_ms = max(largest_ms, batches[reached].batch.max_timestamp)
            reached += 1
        if largest_ms > entry.timestamp_ms:
            text = f"entry {number}: timestamp {entry.timestamp_ms}, but {largest_ms} stands at or before its offset"
            yield Finding(Severity.WARNING, path, text, at)
        before_ms = entry.timestamp_ms
