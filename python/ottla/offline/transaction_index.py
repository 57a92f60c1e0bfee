"""Verification of a transaction index against the markers of its segment."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ottla._native import RecordBatch
from ottla.offline.finding import Finding, Severity
from ottla.offline.index_files import AbortedTransactionEntry, MalformedFile, read_transaction_index
from ottla.offline.segment import BatchAt

ROW_BYTES: Final = 34
_CONTROL_KEY: Final = struct.Struct(">hh")
_ABORT: Final = 0


def check_transaction_index(
    path: Path, base: int, positions: Mapping[int, BatchAt], *, may_lack_rows: bool
) -> Iterator[Finding]:
    """Each row is a transaction that an abort marker of the segment ended, and each such transaction has its row.

    Args:
        positions: The segment's intact batches.
        may_lack_rows: The broker may have stopped between a marker and its row, which the next start adds.
    """
    try:
        rows = read_transaction_index(path) if path.exists() else []
    except MalformedFile as error:
        yield Finding(Severity.WARNING, path, str(error))
        return
    ended, certain = _aborted(positions)
    before = base - 1
    for number, row in enumerate(rows):
        at = number * ROW_BYTES
        if not _can_have_been(row, before):
            text = f"row {number} ({row.first_offset} to {row.last_offset}) is no transaction that can have ended here"
            yield Finding(Severity.WARNING, path, f"{text}: the rows are made anew at the next start", at)
            return
        if ended.get(row.last_offset) != row.producer_id:
            text = f"row {number}: no abort marker of producer {row.producer_id} stands at {row.last_offset}"
            yield Finding(Severity.DAMAGE, path, text, at)
        before = row.last_offset
    for offset in sorted(certain - {row.last_offset for row in rows}):
        text = f"the transaction that producer {ended[offset]} aborted at {offset} has no row"
        if may_lack_rows:
            yield Finding(Severity.NOTE, path, f"{text}: the next start adds it")
        else:
            yield Finding(Severity.DAMAGE, path, f"{text}: its records are read as if it had been committed")


def _can_have_been(row: AbortedTransactionEntry, before: int) -> bool:
    """Whether a transaction can have ended like that, behind `before`; it has a record before its marker."""
    return (
        before < row.last_offset
        and 0 <= row.first_offset < row.last_offset
        and 0 <= row.last_stable_offset <= row.last_offset + 1
    )


def _aborted(positions: Mapping[int, BatchAt]) -> tuple[dict[int, int], set[int]]:
    """The producers of the segment's abort markers by offset, and which of those ended a transaction of its records.

    A marker without may end one that began in an earlier segment, or an empty one, which has no row.
    """
    ended: dict[int, int] = {}
    certain: set[int] = set()
    begun: set[int] = set()
    for _, found in sorted(positions.items()):
        batch = found.batch
        if not batch.control:
            if batch.transactional:
                begun.add(batch.producer_id)
        elif (marker := _marker_type(batch)) is not None:
            if marker == _ABORT:
                ended[batch.last_offset] = batch.producer_id
                if batch.producer_id in begun:
                    certain.add(batch.last_offset)
            begun.discard(batch.producer_id)
    return ended, certain


def _marker_type(batch: RecordBatch) -> int | None:
    """0: abort, 1: commit; None: no marker, or one that was cleaned."""
    for record in batch.records:
        key = record[2]
        if key is not None and len(key) >= _CONTROL_KEY.size:
            return int(_CONTROL_KEY.unpack_from(key)[1])
    return None
