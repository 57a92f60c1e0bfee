"""The batches of a `.log` file with their positions, and where reading them had to stop."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ottla import _native

OVERHEAD_BYTES: Final = 12
"""Base offset and length: what stands before the bytes that the length counts."""
HEADER_BYTES: Final = 61
MAGIC_POSITION: Final = 16
_SEARCH_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class BatchAt:
    """One whole, intact batch at `position` bytes into its file."""

    position: int
    size_bytes: int
    batch: _native.RecordBatch


@dataclass(frozen=True, slots=True)
class Stop:
    """Bytes from `position` on are no intact batch. `next_position`: an intact batch follows there.

    Without one behind it, it is a torn tail, which an append cut short leaves; with one it is damage in the middle.
    """

    position: int
    reason: str
    next_position: int | None

    @property
    def is_torn_tail(self) -> bool:
        return self.next_position is None


def base_offset_of(path: Path) -> int:
    """The offset that a segment's file name says. Raises ValueError."""
    return int(path.name.split(".", 1)[0])


def walk(path: Path) -> Iterator[BatchAt | Stop]:
    """Yield the file's batches in order; after a `Stop` with a next position the walk goes on there. Raises OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        position = 0
        while position < size:
            found = _read(file.fileno(), position, size)
            if isinstance(found, BatchAt):
                yield found
                position += found.size_bytes
                continue
            next_position = _search(file.fileno(), position + 1, size)
            yield Stop(position, found, next_position)
            if next_position is None:
                return
            position = next_position


def _read(fd: int, position: int, size: int) -> BatchAt | str:
    """The batch at a position, or why there is none."""
    header = os.pread(fd, HEADER_BYTES, position)
    if len(header) < HEADER_BYTES:
        return f"{len(header)} bytes are left, a batch header has {HEADER_BYTES}"
    offset, length = struct.unpack_from(">qi", header)
    if header[MAGIC_POSITION] != 2:
        return f"magic {header[MAGIC_POSITION]} where 2 is expected"
    if length < HEADER_BYTES - OVERHEAD_BYTES:
        return f"a batch of length {length}, shorter than its own header"
    whole = OVERHEAD_BYTES + length
    if position + whole > size:
        return f"a batch of {whole} bytes at offset {offset}, of which {size - position} are there"
    try:
        (batch,) = _native.decode_batches(os.pread(fd, whole, position))
    except ValueError as error:
        return str(error)
    return BatchAt(position, whole, batch)


def _search(fd: int, start: int, size: int) -> int | None:
    """The next position at which an intact batch stands: every byte whose magic and length fit is tried."""
    position = start
    while position + HEADER_BYTES <= size:
        window = os.pread(fd, _SEARCH_BYTES + HEADER_BYTES, position)
        at = window.find(b"\x02", MAGIC_POSITION)
        while at != -1 and at - MAGIC_POSITION < _SEARCH_BYTES:
            candidate = position + at - MAGIC_POSITION
            length = int.from_bytes(window[at - 8 : at - 4], "big", signed=True)
            fits = HEADER_BYTES - OVERHEAD_BYTES <= length <= size - candidate - OVERHEAD_BYTES
            if fits and isinstance(_read(fd, candidate, size), BatchAt):
                return candidate
            at = window.find(b"\x02", at + 1)
        position += _SEARCH_BYTES
    return None
