"""Record batches of format 2, built by hand so that any field can be wrong, and read back as a summary."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import crc32c
import zstandard

T0_MS = 1_700_000_000_000
"""Timestamp of the first record where nothing else is said."""

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4


def varint(value: int) -> bytes:
    """Encode a zigzag varint of up to 64 bits."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest >= 0x80:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def sized(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


@dataclass(frozen=True, kw_only=True)
class Record:
    """One record; `raw` replaces everything after the length, `length` the length itself."""

    key: bytes | None = None
    value: bytes | None = b"v"
    headers: tuple[tuple[bytes | None, bytes | None], ...] = ()
    offset_delta: int | None = None
    timestamp_delta_ms: int | None = None
    attributes: int = 0
    header_count: int | None = None
    raw: bytes | None = None
    length: int | None = None

    def encode(self, index: int) -> bytes:
        body = self.raw
        if body is None:
            offset_delta = index if self.offset_delta is None else self.offset_delta
            timestamp_delta_ms = index if self.timestamp_delta_ms is None else self.timestamp_delta_ms
            header_count = len(self.headers) if self.header_count is None else self.header_count
            body = bytes([self.attributes]) + varint(timestamp_delta_ms) + varint(offset_delta)
            body += sized(self.key) + sized(self.value) + varint(header_count)
            body += b"".join(sized(key) + sized(value) for key, value in self.headers)
        return varint(len(body) if self.length is None else self.length) + body


def compress(codec: int, data: bytes) -> bytes:
    """Compress in the simplest form that Kafka's decoders take (stored blocks for snappy and lz4)."""
    if codec == GZIP:
        packer = zlib.compressobj(wbits=31)
        return packer.compress(data) + packer.flush()
    if codec == SNAPPY:
        assert 0 < len(data) <= 60
        return bytes([len(data), (len(data) - 1) << 2]) + data
    if codec == LZ4:  # frame of independent blocks of up to 64 KiB; 0x82 is this header's checksum
        return b"\x04\x22\x4d\x18\x60\x40\x82" + struct.pack("<I", len(data) | 1 << 31) + data + bytes(4)
    if codec == ZSTD:
        return zstandard.ZstdCompressor().compress(data)
    return data


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch whose fields follow from `records` unless given."""

    records: tuple[Record, ...] = (Record(),)
    base_offset: int = 0
    partition_leader_epoch: int = -1
    magic: int = 2
    attributes: int = 0
    last_offset_delta: int | None = None
    base_timestamp_ms: int = T0_MS
    max_timestamp_ms: int | None = None
    producer_id: int = -1
    producer_epoch: int = -1
    base_sequence: int = -1
    record_count: int | None = None
    crc: int | None = None
    batch_length: int | None = None
    payload: bytes | None = None
    trailing: bytes = field(default=b"")

    def encode(self) -> bytes:
        payload = self.payload
        if payload is None:
            records = b"".join(record.encode(index) for index, record in enumerate(self.records))
            payload = compress(self.attributes & 7, records)
        last_offset_delta = len(self.records) - 1 if self.last_offset_delta is None else self.last_offset_delta
        max_timestamp_ms = self.max_timestamp_ms
        if max_timestamp_ms is None:
            max_timestamp_ms = self.base_timestamp_ms + max(len(self.records) - 1, 0)
        checked = struct.pack(
            ">hiqqqhii",
            self.attributes,
            last_offset_delta,
            self.base_timestamp_ms,
            max_timestamp_ms,
            self.producer_id,
            self.producer_epoch,
            self.base_sequence,
            len(self.records) if self.record_count is None else self.record_count,
        )
        checked += payload
        crc = crc32c.crc32c(checked) if self.crc is None else self.crc
        head = struct.pack(">ibI", self.partition_leader_epoch, self.magic, crc)
        length = len(head) + len(checked) if self.batch_length is None else self.batch_length
        return struct.pack(">qi", self.base_offset, length) + head + checked + self.trailing


def values(*data: bytes, key: bytes | None = None) -> tuple[Record, ...]:
    return tuple(Record(key=key, value=value) for value in data)


def summary_of_batches(data: bytes) -> list[dict[str, Any]]:
    """Describe the whole batches in fetched bytes. A batch cut off at the end is left out, as clients leave it."""
    found = []
    position = 0
    while position + 61 <= len(data):
        base_offset, length = struct.unpack_from(">qi", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        (epoch, magic, crc, attributes, last_delta, base_ms, max_ms, producer_id, producer_epoch, sequence, count) = (
            struct.unpack_from(">ibIhiqqqhii", data, position + 12)
        )
        batch = {
            "offsets": [base_offset, base_offset + last_delta],
            "records": count,
            "epoch": epoch,
            "size": end - position,
        }
        batch |= {"first_ms": base_ms - T0_MS if abs(base_ms - T0_MS) < 10**9 else "<now>"}
        batch |= {"last_ms": max_ms - T0_MS if abs(max_ms - T0_MS) < 10**9 else "<now>"}
        if magic != 2 or crc32c.crc32c(data[position + 21 : end]) != crc:
            batch["damaged"] = True
        if attributes:
            batch["attributes"] = attributes
        if producer_id != -1:
            batch["producer"] = [producer_epoch, sequence]
        found.append(batch)
        position = end
    return found
