"""Asks a running broker what it makes of odd produce requests, and writes its answers to produce_checks.tsv.

Run against an Apache Kafka: `python tests/golden/records/ask_kafka.py 127.0.0.1:9092 > produce_checks.tsv`. The file is
checked in (made with Apache Kafka 4.3.1); `rust/ottla-core/tests/produce_checks.rs` holds our validation to it.

Columns: name, Produce version, topic configs, wall clock in ms, records of the request (hex), error code ("silent": no
answer came), record errors (indexes), log_append_time_ms, base offset, the batch as stored (hex; "=" if that of the
request but for base offset and leader epoch, "-" if nothing was stored).
"""

from __future__ import annotations

import gzip
import itertools
import os
import socket
import struct
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import zstandard

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
CODECS = {"gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}
LOG_APPEND_TIME, TRANSACTIONAL, CONTROL, DELETE_HORIZON = 8, 16, 32, 64
NOW_MS = int(time.time() * 1000)
CRC32C_TABLE = []
for _n in range(256):
    for _ in range(8):
        _n = (_n >> 1) ^ (0x82F63B78 if _n & 1 else 0)
    CRC32C_TABLE.append(_n)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC32C_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def varint(value: int) -> bytes:
    rest = (value << 1) ^ (value >> 63)
    rest &= (1 << 64) - 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def blob(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def record(
    offset_delta: int,
    *,
    key: bytes | None = b"key",
    value: bytes | None = b"value",
    timestamp_delta: int = 0,
    headers: Sequence[tuple[bytes | None, bytes | None]] = (),
    attributes: int = 0,
    body: bytes | None = None,
    length: int | None = None,
) -> bytes:
    if body is None:
        body = bytes([attributes]) + varint(timestamp_delta) + varint(offset_delta) + blob(key) + blob(value)
        body += varint(len(headers)) + b"".join(blob(k) + blob(v) for k, v in headers)
    return varint(len(body) if length is None else length) + body


def compress(codec: int, payload: bytes) -> bytes:
    if codec == GZIP:
        return gzip.compress(payload, mtime=0)
    if codec == SNAPPY:
        return xerial([payload])
    if codec == LZ4:
        return lz4_frame([payload])
    if codec == ZSTD:
        return zstandard.ZstdCompressor().compress(payload)
    return payload


def snappy_raw(payload: bytes) -> bytes:
    """One literal: valid snappy that compresses nothing."""
    length, out = len(payload), bytearray()
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    if payload:
        out += bytes([61 << 2]) + struct.pack("<H", len(payload) - 1) + payload
    return bytes(out)


def xerial(chunks: Sequence[bytes]) -> bytes:
    out = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
    for chunk in chunks:
        raw = snappy_raw(chunk)
        out += struct.pack(">i", len(raw)) + raw
    return out


def xxh32(data: bytes, seed: int = 0) -> int:
    p1, p2, p3, p4, p5, mask = 2654435761, 2246822519, 3266489917, 668265263, 374761393, 0xFFFFFFFF

    def rotl(x: int, r: int) -> int:
        return ((x << r) | (x >> (32 - r))) & mask

    at = 0
    if len(data) >= 16:
        lanes = [(seed + p1 + p2) & mask, (seed + p2) & mask, seed, (seed - p1) & mask]
        while at + 16 <= len(data):
            for lane, word in enumerate(struct.unpack_from("<4I", data, at)):
                lanes[lane] = (rotl((lanes[lane] + word * p2) & mask, 13) * p1) & mask
            at += 16
        acc = sum(rotl(lane, r) for lane, r in zip(lanes, (1, 7, 12, 18), strict=True)) & mask
    else:
        acc = (seed + p5) & mask
    acc = (acc + len(data)) & mask
    while at + 4 <= len(data):
        acc = (rotl((acc + struct.unpack_from("<I", data, at)[0] * p3) & mask, 17) * p4) & mask
        at += 4
    for byte in data[at:]:
        acc = (rotl((acc + byte * p5) & mask, 11) * p1) & mask
    acc = ((acc ^ (acc >> 15)) * p2) & mask
    acc = ((acc ^ (acc >> 13)) * p3) & mask
    return acc ^ (acc >> 16)


def lz4_frame(
    chunks: Sequence[bytes],
    *,
    flags: int = 0x60,
    block: int = 0x40,
    hc_xor: int = 0,
    content_checksum: int | None = None,
    end: bool = True,
    extra_descriptor: bytes = b"",
) -> bytes:
    """A frame of uncompressed blocks."""
    descriptor = bytes([flags, block]) + extra_descriptor
    out = b"\x04\x22\x4d\x18" + descriptor + bytes([(xxh32(descriptor) >> 8) & 0xFF ^ hc_xor])
    for chunk in chunks:
        out += struct.pack("<I", len(chunk) | 0x80000000) + chunk
        if flags & 0x10:
            out += struct.pack("<I", xxh32(chunk))
    if end:
        out += b"\x00\x00\x00\x00"
    if flags & 0x04:
        out += struct.pack("<I", xxh32(b"".join(chunks)) if content_checksum is None else content_checksum)
    return out


def batch(
    records: Sequence[bytes] = (),
    *,
    codec: int = 0,
    attributes: int = 0,
    payload: bytes | None = None,
    base_offset: int = 0,
    leader_epoch: int = -1,
    magic: int = 2,
    last_offset_delta: int | None = None,
    base_timestamp: int = NOW_MS,
    max_timestamp: int | None = None,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    count: int | None = None,
    crc_xor: int = 0,
    length: int | None = None,
) -> bytes:
    if payload is None:
        payload = compress(codec, b"".join(records))
    checked = struct.pack(
        ">hiqqqhii",
        attributes | codec,
        len(records) - 1 if last_offset_delta is None else last_offset_delta,
        base_timestamp,
        base_timestamp if max_timestamp is None else max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        len(records) if count is None else count,
    )
    checked += payload
    size = len(checked) + 9 if length is None else length
    return struct.pack(">qiibI", base_offset, size, leader_epoch, magic, crc32c(checked) ^ crc_xor) + checked


@dataclass(frozen=True)
class Case:
    name: str
    records: bytes | None
    configs: dict[str, str] = field(default_factory=dict)
    version: int = 8


def header_cases() -> Iterator[Case]:
    one, three = [record(0)], [record(0), record(1), record(2)]
    yield Case("one record", batch(one))
    yield Case("three records", batch(three))
    rich = record(0, key=None, value=None, headers=[(b"h", b"v"), (b"", None), (b"h", b"")])
    yield Case("nulls and headers", batch([rich, record(1, key=b"", value=b"")]))
    yield Case("max timestamp too high", batch(three, max_timestamp=NOW_MS + 500))
    yield Case("max timestamp too low", batch([record(0, timestamp_delta=700)]))
    yield Case("base offset 5", batch(one, base_offset=5))
    yield Case("leader epoch 9", batch(one, leader_epoch=9))
    yield Case("last offset delta too large", batch(one, last_offset_delta=1))
    yield Case("last offset delta too small", batch(three, last_offset_delta=1))
    yield Case("last offset delta negative", batch(one, last_offset_delta=-1))
    yield Case("last offset delta most negative", batch(one, last_offset_delta=-(2**31)))
    yield Case("count zero without records", batch([]))
    yield Case("count zero with delta zero", batch([], last_offset_delta=0))
    yield Case("count zero but a record", batch(one, count=0))
    yield Case("count negative", batch(one, count=-1))
    yield Case("count and delta negative", batch(one, count=-1, last_offset_delta=-2))
    yield Case("count and delta beyond the records", batch(one, count=2, last_offset_delta=1))
    yield Case("count and delta huge", batch(one, count=2**31 - 1, last_offset_delta=2**31 - 2))
    yield Case("count and delta below the records", batch(three, count=2, last_offset_delta=1))
    yield Case("wrong crc", batch(one, crc_xor=1))
    for magic in (0, 1, 3, -1):
        yield Case(f"magic {magic}", batch(one, magic=magic))
    yield Case("control batch", batch([record(0, key=b"\0\0\0\1", value=b"\0\0\0\0\0\0")], attributes=CONTROL))
    yield Case("producer id without sequence", batch(one, producer_id=900, producer_epoch=0))
    yield Case("producer id and sequence", batch(one, producer_id=901, producer_epoch=0, base_sequence=0))
    yield Case("producer id with epoch -1", batch(one, producer_id=902, producer_epoch=-1, base_sequence=0))
    yield Case("producer id -2", batch(one, producer_id=-2, producer_epoch=0, base_sequence=-1))
    yield Case("sequence without producer id", batch(one, base_sequence=4))
    yield Case("delete horizon flag", batch(one, attributes=DELETE_HORIZON))
    yield Case("unused attribute bits", batch(one, attributes=0x7F80))
    for codec in (5, 6, 7):
        yield Case(f"codec {codec}", batch(one, attributes=codec))
    yield Case("base timestamp negative", batch(one, base_timestamp=-5))
    yield Case("no timestamps", batch(one, base_timestamp=-1))
    lat = {"message.timestamp.type": "LogAppendTime"}
    yield Case("no timestamps under LogAppendTime", batch(one, base_timestamp=-1), lat)


def framing_cases() -> Iterator[Case]:
    one = batch([record(0)])
    yield Case("two batches", one + one)
    yield Case("five bytes after the batch", one + b"\1\2\3\4\5")
    yield Case("thirteen bytes after the batch", one + struct.pack(">qib", 0, 80, 0))
    yield Case("thirteen bytes after the batch, bad length", one + bytes(13))
    yield Case("a cut second batch", one + one[:-3])
    yield Case("second batch of magic 1, cut", one + batch([record(0)], magic=1)[:-3])
    yield Case("second batch of magic 7, cut", one + batch([record(0)], magic=7)[:-3])
    yield Case("empty records", b"")
    yield Case("null records", None)
    yield Case("five bytes", one[:5])
    yield Case("cut in the header", one[:40])
    yield Case("cut in the records", one[:-1])
    for length in (-1, 0, 13, 14, 48, 49):
        yield Case(f"length field {length}", batch([record(0)], length=length))
    yield Case("length field 49 with a header alone", batch([], length=49, count=1, last_offset_delta=0))
    yield Case("length field huge", batch([record(0)], length=2**31 - 1))
    yield Case("length field one short", batch([record(0)], length=len(one) - 13))


def bodies() -> Iterator[tuple[str, list[bytes]]]:
    """Payloads of one record that are odd in one way each."""
    fixed = bytes([0]) + varint(0) + varint(0)
    yield "bytes after the records", [record(0) + b"\0"]
    yield "record attributes set", [record(0, attributes=0x55)]
    yield "record length one more", [record(0, length=14)]
    yield "record length one less", [record(0, length=12)]
    yield "record length 0", [record(0, length=0)]
    yield "record length negative", [record(0, length=-1)]
    yield "record length huge", [record(0, length=2**31 - 1)]
    yield "key length -2", [record(0, body=fixed + varint(-2) + blob(b"v") + varint(0))]
    yield "value length -2", [record(0, body=fixed + blob(b"k") + varint(-2) + varint(0))]
    yield "key beyond the record", [record(0, body=fixed + varint(100) + b"key")]
    yield "value beyond the record", [record(0, body=fixed + blob(b"k") + varint(100) + b"val" + varint(0))]
    yield "value length missing", [record(0, body=fixed + blob(b"k"))]
    yield "header count missing", [record(0, body=fixed + blob(b"k") + blob(b"v"))]
    yield "header count negative", [record(0, body=fixed + blob(b"k") + blob(b"v") + varint(-1))]
    yield "header count huge", [record(0, body=fixed + blob(b"k") + blob(b"v") + varint(2**31 - 1))]
    yield (
        "header count one too many",
        [record(0, body=fixed + blob(b"k") + blob(b"v") + varint(2) + blob(b"a") + blob(b"b"))],
    )
    yield "header key null", [record(0, headers=[(None, b"v")])]
    yield (
        "header value length -2",
        [record(0, body=fixed + blob(b"k") + blob(b"v") + varint(1) + blob(b"a") + varint(-2))],
    )
    yield "header key not utf-8", [record(0, headers=[(b"\xff\xfe", b"v")])]
    yield "bytes after the headers", [record(0, body=fixed + blob(b"k") + blob(b"v") + varint(0) + b"zz")]
    yield "varint of six bytes", [b"\x80\x80\x80\x80\x80\x01" + record(0)]
    yield "varint with padding", [b"\x9a\x80\x00" + record(0)[1:]]
    yield (
        "timestamp delta of eleven bytes",
        [record(0, body=b"\0" + b"\xff" * 10 + b"\1" + varint(0) + blob(b"k") + blob(b"v") + varint(0))],
    )
    yield "offset delta 1 in the first record", [record(1)]
    yield "offset deltas 0 0 0", [record(0), record(0), record(0)]
    yield "offset deltas 0 2 1", [record(0), record(2), record(1)]
    yield "offset delta negative", [record(-1)]
    yield "offset deltas with a gap", [record(0), record(5)]
    yield "timestamp delta that overflows", [record(0, timestamp_delta=2**63 - 1)]


def record_cases() -> Iterator[Case]:
    for (name, records), codec in itertools.product(bodies(), ({"none": 0} | CODECS).items()):
        yield Case(f"{name} ({codec[0]})", batch(records, codec=codec[1]))
    compact = {"cleanup.policy": "compact"}
    keys = [record(0), record(1, key=None), record(2, key=b""), record(3, key=None)]
    for codec in (0, GZIP):
        yield Case(f"null keys, compacted, codec {codec}", batch(keys, codec=codec), compact)
        yield Case(
            f"null keys, compact and delete, codec {codec}",
            batch(keys, codec=codec),
            {"cleanup.policy": "compact,delete"},
        )
        yield Case(f"null keys, not compacted, codec {codec}", batch(keys, codec=codec))
    yield Case(
        "key length -2, compacted", batch([record(0, body=bytes(3) + varint(-2) + blob(b"v") + varint(0))]), compact
    )


def timestamp_cases() -> Iterator[Case]:
    hour = 3_600_000
    late = [record(0), record(1, timestamp_delta=3 * hour), record(2, timestamp_delta=-9 * hour), record(3, key=None)]
    lat = {"message.timestamp.type": "LogAppendTime"}
    before = {"message.timestamp.before.max.ms": str(2 * hour)}
    for codec in (0, ZSTD):
        yield Case(f"timestamps odd, defaults, codec {codec}", batch(late, codec=codec))
        yield Case(f"timestamps odd, before 2 h, codec {codec}", batch(late, codec=codec), before)
        yield Case(
            f"timestamps odd, after 4 h, codec {codec}",
            batch(late, codec=codec),
            {"message.timestamp.after.max.ms": str(4 * hour)},
        )
        yield Case(f"timestamps odd, LogAppendTime, codec {codec}", batch(late, codec=codec), lat)
        yield Case(
            f"timestamps odd, compacted, before 2 h, codec {codec}",
            batch(late, codec=codec),
            before | {"cleanup.policy": "compact"},
        )
        yield Case(
            f"no timestamp, before 2 h, codec {codec}", batch([record(0)], base_timestamp=-1, codec=codec), before
        )
        yield Case(
            f"timestamp -2, before 2 h, codec {codec}", batch([record(0)], base_timestamp=-2, codec=codec), before
        )
        yield Case(
            f"LogAppendTime set by the client, codec {codec}",
            batch([record(0), record(1)], codec=codec, attributes=LOG_APPEND_TIME),
        )
        yield Case(
            f"LogAppendTime set by the client, no timestamp, codec {codec}",
            batch([record(0)], codec=codec, attributes=LOG_APPEND_TIME, base_timestamp=-1),
        )
        yield Case(
            f"LogAppendTime set by the client and the topic, codec {codec}",
            batch([record(0)], codec=codec, attributes=LOG_APPEND_TIME),
            lat,
        )
    delta = 2**63 - 1 - NOW_MS
    yield Case("timestamp at the end of time", batch([record(0, timestamp_delta=delta)]))
    most = {"message.timestamp.after.max.ms": str(2**63 - 1)}
    yield Case("timestamp at the end of time, allowed", batch([record(0, timestamp_delta=delta)]), most)
    yield Case("timestamp sum overflows, allowed", batch([record(0, timestamp_delta=2**63 - 1)]), most)


def codec_cases() -> Iterator[Case]:
    records = [record(i, value=b"some value " * 3, timestamp_delta=i) for i in range(9)]
    plain = b"".join(records)
    types = ["producer", "uncompressed", *CODECS]
    for source, target in itertools.product({"none": 0} | CODECS, types):
        configs = {"compression.type": target}
        yield Case(f"{source} to {target}", batch(records, codec=CODECS.get(source, 0)), configs)
    for source, target in itertools.product(("none", "lz4"), ("producer", "gzip")):
        configs = {"compression.type": target, "message.timestamp.type": "LogAppendTime"}
        yield Case(f"{source} to {target}, LogAppendTime", batch(records, codec=CODECS.get(source, 0)), configs)
    yield Case("zstd in version 6", batch(records, codec=ZSTD), version=6)
    yield Case("zstd in version 7", batch(records, codec=ZSTD), version=7)
    yield Case("to zstd in version 6", batch(records), {"compression.type": "zstd"}, version=6)
    incompressible = [record(0, value=os.urandom(900))]
    small = {"max.message.bytes": "1000"}
    yield Case("just fits", batch(incompressible), small)
    yield Case("too large", batch([record(0, value=bytes(940))]), small)
    yield Case("too large, wrong crc", batch([record(0, value=bytes(940))], crc_xor=1), small)
    yield Case("too large, base offset 5", batch([record(0, value=bytes(940))], base_offset=5), small)
    yield Case("too large, last offset delta wrong", batch([record(0, value=bytes(940))], last_offset_delta=4), small)
    zeros = [record(0, value=bytes(5000))]
    yield Case("fits compressed", batch(zeros, codec=GZIP), small)
    yield Case("fits compressed only", batch(zeros, codec=GZIP), small | {"compression.type": "uncompressed"})
    yield Case("fits recompressed only", batch(zeros), small | {"compression.type": "gzip"})
    yield Case("wrong offsets recompressed", batch([record(3), record(1)], codec=GZIP), {"compression.type": "zstd"})
    yield Case("wrong offsets compressed by the topic", batch([record(3), record(1)]), {"compression.type": "zstd"})
    yield Case(
        "wrong offsets decompressed by the topic",
        batch([record(3), record(1)], codec=ZSTD),
        {"compression.type": "uncompressed"},
    )
    yield Case(
        "base timestamp is not the first record's, recompressed",
        batch([record(0, timestamp_delta=50), record(1)], codec=GZIP),
        {"compression.type": "uncompressed"},
    )

    def raw(codec: int, payload: bytes) -> bytes:
        return batch(records, codec=codec, payload=payload)

    for name, codec in CODECS.items():
        good = compress(codec, plain)
        yield Case(f"{name}: empty payload", raw(codec, b""))
        yield Case(f"{name}: noise", raw(codec, b"this is nothing that any codec would have written, is it"))
        yield Case(f"{name}: cut in the middle", raw(codec, good[: len(good) // 2]))
        yield Case(f"{name}: cut by one byte", raw(codec, good[:-1]))
        yield Case(f"{name}: cut by four bytes", raw(codec, good[:-4]))
        yield Case(f"{name}: noise behind", raw(codec, good + b"behind the end"))
        yield Case(f"{name}: zeros behind", raw(codec, good + bytes(16)))
        yield Case(f"{name}: twice", raw(codec, good + compress(codec, b"")))
        yield Case(
            f"{name}: records in two streams", raw(codec, compress(codec, plain[:200]) + compress(codec, plain[200:]))
        )
        flipped = bytearray(good)
        flipped[len(good) // 2] ^= 0x40
        yield Case(f"{name}: a flipped bit", raw(codec, bytes(flipped)))
    bad_crc = bytearray(compress(GZIP, plain))
    bad_crc[-6] ^= 1
    yield Case("gzip: wrong checksum", raw(GZIP, bytes(bad_crc)))
    bad_size = bytearray(compress(GZIP, plain))
    bad_size[-1] ^= 1
    yield Case("gzip: wrong size", raw(GZIP, bytes(bad_size)))
    yield Case("gzip: zlib instead", raw(GZIP, zlib.compress(plain)))
    yield Case("snappy: without framing", raw(SNAPPY, snappy_raw(plain)))
    yield Case("snappy: three blocks", raw(SNAPPY, xerial([plain[:9], plain[9:200], plain[200:]])))
    yield Case("snappy: an empty block between", raw(SNAPPY, xerial([plain[:9], b"", plain[9:]])))
    yield Case(
        "snappy: block length negative", raw(SNAPPY, xerial([])[:16] + struct.pack(">i", -1) + snappy_raw(plain))
    )
    yield Case("snappy: block length zero", raw(SNAPPY, xerial([]) + struct.pack(">i", 0) + xerial([plain])[16:]))
    yield Case(
        "snappy: header version 0", raw(SNAPPY, b"\x82SNAPPY\x00" + struct.pack(">ii", 0, 0) + xerial([plain])[16:])
    )
    yield Case(
        "snappy: header compatible 9", raw(SNAPPY, b"\x82SNAPPY\x00" + struct.pack(">ii", 9, 9) + xerial([plain])[16:])
    )
    yield Case("snappy: claims 1 GiB", raw(SNAPPY, xerial([]) + struct.pack(">i", 8) + b"\x80\x80\x80\x80\x04\0\0\0"))
    yield Case("lz4: three blocks", raw(LZ4, lz4_frame([plain[:9], plain[9:200], plain[200:]])))
    yield Case("lz4: header checksum wrong", raw(LZ4, lz4_frame([plain], hc_xor=1)))
    yield Case("lz4: content checksum right", raw(LZ4, lz4_frame([plain], flags=0x64)))
    yield Case("lz4: content checksum wrong", raw(LZ4, lz4_frame([plain], flags=0x64, content_checksum=1)))
    yield Case("lz4: block checksums", raw(LZ4, lz4_frame([plain], flags=0x70)))
    yield Case("lz4: dependent blocks", raw(LZ4, lz4_frame([plain[:200], plain[200:]], flags=0x40)))
    yield Case(
        "lz4: content size", raw(LZ4, lz4_frame([plain], flags=0x68, extra_descriptor=struct.pack("<Q", len(plain))))
    )
    yield Case(
        "lz4: content size wrong", raw(LZ4, lz4_frame([plain], flags=0x68, extra_descriptor=struct.pack("<Q", 5)))
    )
    yield Case("lz4: dictionary id", raw(LZ4, lz4_frame([plain], flags=0x61, extra_descriptor=bytes(4))))
    yield Case("lz4: version 2", raw(LZ4, lz4_frame([plain], flags=0xA0)))
    yield Case("lz4: block size 0", raw(LZ4, lz4_frame([plain], block=0x00)))
    yield Case("lz4: block size 4 MiB", raw(LZ4, lz4_frame([plain], block=0x70)))
    yield Case("lz4: reserved bits", raw(LZ4, lz4_frame([plain], block=0xC1)))
    yield Case("lz4: no end mark", raw(LZ4, lz4_frame([plain], end=False)))
    skippable = struct.pack("<II", 0x184D2A50, 4) + b"skip"
    yield Case("zstd: skippable frame first", raw(ZSTD, skippable + compress(ZSTD, plain)))
    yield Case("zstd: skippable frame last", raw(ZSTD, compress(ZSTD, plain) + skippable))
    checked = zstandard.ZstdCompressor(write_checksum=True).compress(plain)
    yield Case("zstd: checksum", raw(ZSTD, checked))
    yield Case("zstd: checksum wrong", raw(ZSTD, checked[:-1] + bytes([checked[-1] ^ 1])))
    yield Case("zstd: no content size", raw(ZSTD, zstandard.ZstdCompressor(write_content_size=False).compress(plain)))
    wide = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=False)
    )
    yield Case("zstd: window of 128 MiB", raw(ZSTD, b"".join(_stream(wide, plain))))
    wider = bytearray(b"".join(_stream(wide, plain)))
    wider[5] += 8
    yield Case("zstd: window of 256 MiB", raw(ZSTD, bytes(wider)))


def _stream(compressor: zstandard.ZstdCompressor, data: bytes) -> Iterator[bytes]:
    stream = compressor.compressobj()
    yield stream.compress(data)
    yield stream.flush()


class Broker:
    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._socket = socket.create_connection(self._address, timeout=10)

    def call(self, api_key: int, version: int, body: bytes) -> bytes | None:
        """The response's body; None if the broker closed the connection or said nothing for long."""
        request = struct.pack(">hhi", api_key, version, 7) + struct.pack(">h", 3) + b"ask" + body
        try:
            self._socket.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", self._read(4))
            return self._read(size)[4:]
        except (ConnectionError, EOFError, TimeoutError):
            self._socket = socket.create_connection(self._address, timeout=10)
            return None

    def _read(self, count: int) -> bytes:
        out = b""
        while len(out) < count:
            piece = self._socket.recv(count - len(out))
            if not piece:
                raise EOFError
            out += piece
        return out

    def create_topic(self, name: str, configs: dict[str, str]) -> None:
        topic = string(name) + struct.pack(">ihii", 1, 1, 0, len(configs))
        topic += b"".join(string(key) + string(value) for key, value in configs.items())
        answer = self.call(19, 4, struct.pack(">i", 1) + topic + struct.pack(">ib", 10_000, 0))
        assert answer is not None
        (code,) = struct.unpack_from(">h", answer, 8 + 2 + len(name))
        assert code == 0, (name, configs, code)

    def produce(self, topic: str, version: int, records: bytes | None) -> tuple[str, list[int], int, int]:
        """Error code (or "silent"), indexes of the record errors, log append time, base offset."""
        data = struct.pack(">i", -1) if records is None else struct.pack(">i", len(records)) + records
        head = struct.pack(">hhii", -1, -1, 10_000, 1)
        answer = self.call(0, version, head + string(topic) + struct.pack(">ii", 1, 0) + data)
        if answer is None:
            return "silent", [], -1, -1
        at = 4 + 2 + len(topic) + 4 + 4
        code, base_offset, log_append_time = struct.unpack_from(">hqq", answer, at)
        indexes = []
        if version >= 8:
            at += 26
            (count,) = struct.unpack_from(">i", answer, at)
            at += 4
            for _ in range(count):
                index, length = struct.unpack_from(">ih", answer, at)
                at += 6 + max(length, 0)
                indexes.append(index)
            (length,) = struct.unpack_from(">h", answer, at)
            message = answer[at + 2 : at + 2 + max(length, 0)].decode()
            if code or message:
                sys.stderr.write(f"  {code} {message}\n")
        return str(code), indexes, log_append_time, base_offset

    def fetch(self, topic: str, offset: int) -> bytes:
        head = struct.pack(">iiiibii", -1, 0, 1, 2**30, 0, 0, -1) + struct.pack(">i", 1) + string(topic)
        answer = self.call(1, 10, head + struct.pack(">iiiqqi", 1, 0, -1, offset, -1, 2**30) + struct.pack(">i", 0))
        assert answer is not None
        at = 4 + 2 + 4 + 4 + 2 + len(topic) + 4 + 4
        (code,) = struct.unpack_from(">h", answer, at)
        assert code == 0, code
        (aborted,) = struct.unpack_from(">i", answer, at + 26)
        assert aborted in (0, -1)
        (size,) = struct.unpack_from(">i", answer, at + 30)
        return answer[at + 34 : at + 34 + size]


def string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def main(address: str) -> None:
    broker, topics = Broker(address), dict[tuple[tuple[str, str], ...], str]()
    for case in itertools.chain(header_cases(), framing_cases(), record_cases(), timestamp_cases(), codec_cases()):
        key = tuple(sorted(case.configs.items()))
        if key not in topics:
            topics[key] = f"ask-{os.getpid()}-{len(topics)}"
            broker.create_topic(topics[key], case.configs)
            time.sleep(0.3)
        topic = topics[key]
        sys.stderr.write(f"{case.name}\n")
        wall_ms = int(time.time() * 1000)
        code, indexes, log_append_time, base_offset = broker.produce(topic, case.version, case.records)
        stored, records = "-", "null" if case.records is None else case.records.hex()
        if code == "0" and case.records is not None:
            batch_bytes = broker.fetch(topic, base_offset)
            same = (
                batch_bytes[8:12] + batch_bytes[16:]
                == (case.records[8:12] + case.records[16:])[: len(batch_bytes) - 12]
            )
            stored = "=" if same else batch_bytes.hex()
        configs = ",".join("=".join(pair) for pair in key if pair[0] != "cleanup.policy" or "," not in pair[1])
        if case.configs.get("cleanup.policy") == "compact,delete":
            configs = "cleanup.policy=compact+delete"
        row = (case.name, case.version, configs, wall_ms, records, code, indexes, log_append_time, base_offset, stored)
        print(*(str(column).replace(" ", "") if isinstance(column, list) else column for column in row), sep="\t")


if __name__ == "__main__":
    main(sys.argv[1])
