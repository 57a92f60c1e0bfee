"""The small files beside a segment: offset, time and transaction index, producer snapshot, checkpoints."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crc32c import crc32c

_OFFSET_ENTRY: Final = struct.Struct(">ii")
_TIME_ENTRY: Final = struct.Struct(">qi")
_TXN_ENTRY: Final = struct.Struct(">hqqqq")
_PRODUCER: Final = struct.Struct(">qhiqiqiq")
_SNAPSHOT_HEADER: Final = struct.Struct(">hIi")


class MalformedFile(Exception):
    """A file whose size, version or checksum is wrong; says what and where."""


@dataclass(frozen=True, slots=True)
class OffsetEntry:
    relative_offset: int
    position: int


@dataclass(frozen=True, slots=True)
class TimeEntry:
    timestamp_ms: int
    relative_offset: int


@dataclass(frozen=True, slots=True)
class AbortedTransactionEntry:
    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


@dataclass(frozen=True, slots=True)
class ProducerEntry:
    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp_ms: int
    coordinator_epoch: int
    current_txn_first_offset: int


def _rows(data: bytes, form: struct.Struct, name: str) -> list[tuple[int, ...]]:
    """Rows of one size."""
    if len(data) % form.size:
        raise MalformedFile(f"{name}: {len(data)} bytes are no multiple of {form.size}")
    return list(form.iter_unpack(data))


def _entries(data: bytes, form: struct.Struct, name: str) -> list[tuple[int, ...]]:
    """Rows of one size. A preallocated index of a running broker is full of zeros behind its entries: cut there."""
    rows = _rows(data, form, name)
    while len(rows) > 1 and not any(rows[-1]):
        rows.pop()
    return rows


def read_offset_index(path: Path) -> list[OffsetEntry]:
    """Raises OSError, MalformedFile."""
    return [OffsetEntry(*row) for row in _entries(path.read_bytes(), _OFFSET_ENTRY, path.name)]


def read_time_index(path: Path) -> list[TimeEntry]:
    """Raises OSError, MalformedFile."""
    return [TimeEntry(*row) for row in _entries(path.read_bytes(), _TIME_ENTRY, path.name)]


def read_transaction_index(path: Path) -> list[AbortedTransactionEntry]:
    """Zeros are rows, too: this file is never preallocated. Raises OSError, MalformedFile."""
    rows = _rows(path.read_bytes(), _TXN_ENTRY, path.name)
    for row in rows:
        if row[0] != 0:
            raise MalformedFile(f"{path.name}: version {row[0]} where 0 is expected")
    return [AbortedTransactionEntry(*row[1:]) for row in rows]


def read_producer_snapshot(path: Path) -> list[ProducerEntry]:
    """Version 1, with its CRC-32C over what follows it. Raises OSError, MalformedFile."""
    data = path.read_bytes()
    if len(data) < _SNAPSHOT_HEADER.size:
        raise MalformedFile(f"{path.name}: {len(data)} bytes are shorter than its header")
    version, checksum, count = _SNAPSHOT_HEADER.unpack_from(data)
    if version != 1:
        raise MalformedFile(f"{path.name}: version {version} where 1 is expected")
    found = crc32c(data[6:])
    if found != checksum:
        raise MalformedFile(f"{path.name}: checksum {found:#010x}, its header says {checksum:#010x}")
    if len(data) != _SNAPSHOT_HEADER.size + count * _PRODUCER.size:
        raise MalformedFile(f"{path.name}: {len(data)} bytes do not hold {count} producers")
    return [ProducerEntry(*row) for row in _PRODUCER.iter_unpack(data[_SNAPSHOT_HEADER.size :])]


def read_checkpoint(path: Path) -> list[tuple[str, ...]]:
    """Rows of a checkpoint in text (version line, count line, rows). Raises OSError, MalformedFile."""
    lines = path.read_text(errors="replace").splitlines()
    if not lines or lines[0] != "0":
        raise MalformedFile(f"{path.name}: its first line is {ascii(lines[0][:40]) if lines else 'absent'}, not 0")
    if len(lines) < 2 or not lines[1].isdigit() or int(lines[1]) != len(lines) - 2:
        raise MalformedFile(f"{path.name}: its second line does not count the {max(len(lines) - 2, 0)} rows behind it")
    return [tuple(line.split()) for line in lines[2:]]
