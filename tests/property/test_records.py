"""Record batches: our builder and decoder against each other, against kio's, and over damaged bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.records.readers import read_batch

from ottla._native import RecordBatch, build_batch, decode_batches, murmur2

NewRecord: TypeAlias = tuple[bytes | None, bytes | None, int, list[tuple[str, bytes | None]]]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
BLOBS = st.none() | st.binary(max_size=300)
KEYS = st.text(max_size=20) | st.binary(max_size=5).map(lambda key: key.decode("utf-8", "surrogateescape"))
HEADERS = st.lists(st.tuples(KEYS, BLOBS), max_size=3)
TIMESTAMPS = st.integers(-1, 4_000_000_000_000) | st.integers(1_700_000_000_000, 1_700_000_001_000)
RECORDS = st.lists(st.tuples(BLOBS, BLOBS, TIMESTAMPS, HEADERS), min_size=1, max_size=20)


def decode_one(data: bytes) -> RecordBatch:
    (batch,) = decode_batches(data)
    return batch


@given(
    records=RECORDS,
    compression=st.sampled_from(CODECS),
    base_offset=st.integers(0, 2**60),
    leader_epoch=st.integers(-1, 2**31 - 1),
    producer=st.tuples(st.integers(-1, 2**63 - 1), st.integers(-1, 2**15 - 1), st.integers(-1, 2**31 - 1)),
    transactional=st.booleans(),
)
def test_what_is_built_is_decoded(
    records: Sequence[NewRecord],
    compression: str,
    base_offset: int,
    leader_epoch: int,
    producer: tuple[int, int, int],
    transactional: bool,
) -> None:
    producer_id, producer_epoch, base_sequence = producer
    data = build_batch(
        records,
        compression=compression,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        transactional=transactional,
        base_offset=base_offset,
        leader_epoch=leader_epoch,
    )
    batch = decode_one(data)
    expected = [
        (base_offset + index, timestamp_ms, key, value, tuple(headers))
        for index, (key, value, timestamp_ms, headers) in enumerate(records)
    ]
    assert batch.records == expected
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == producer
    assert (batch.base_offset, batch.last_offset) == (base_offset, base_offset + len(records) - 1)
    assert (batch.compression, batch.transactional, batch.control) == (compression, transactional, False)
    assert (batch.partition_leader_epoch, batch.size_bytes) == (leader_epoch, len(data))
    assert batch.max_timestamp == max(timestamp_ms for _, _, timestamp_ms, _ in records)


# Next to the timestamp -1 ("none"), kio refuses some of the batches that clients may write: it is compared without it.
@given(
    records=RECORDS.filter(lambda records: all(timestamp_ms >= 0 for _, _, timestamp_ms, _ in records)),
    base_offset=st.integers(0, 2**40),
)
def test_kio_reads_what_we_build(records: Sequence[NewRecord], base_offset: int) -> None:
    data = build_batch(records, base_offset=base_offset, leader_epoch=3)
    theirs, size = read_batch(data, 0)
    ours = decode_one(data)
    assert size == len(data)
    assert [(record.offset, record.key, record.value) for record in theirs.records] == [
        (offset, key, value) for offset, _, key, value, _ in ours.records
    ]
    assert [int(record.timestamp.timestamp()) for record in theirs.records] == [
        timestamp_ms // 1000 for _, timestamp_ms, _, _, _ in ours.records
    ]
    assert [[(header.key, header.value) for header in record.headers] for record in theirs.records] == [
        [(key.encode("utf-8", "surrogateescape"), value) for key, value in headers] for *_, headers in ours.records
    ]
    for name in ("base_offset", "partition_leader_epoch", "base_timestamp", "max_timestamp", "producer_id"):
        assert getattr(theirs, name) == getattr(ours, name)


@given(
    records=RECORDS,
    compression=st.sampled_from(CODECS),
    damage=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 400),
    check_crc=st.booleans(),
)
def test_damaged_bytes_raise_value_error_or_decode(
    records: Sequence[NewRecord],
    compression: str,
    damage: list[tuple[int, int]],
    cut: int,
    check_crc: bool,
) -> None:
    data = bytearray(build_batch(records, compression=compression))
    for at, byte in damage:
        data[at % len(data)] = byte
    del data[len(data) - cut :]
    with suppress(ValueError):
        decode_batches(bytes(data), check_crc=check_crc, expansion_limit_bytes=1 << 20)


def test_a_cut_last_batch_is_passed_over() -> None:
    one = build_batch([(b"k", b"v", 5, [])])
    stream = io.BytesIO(one + one)
    for cut in range(len(one)):
        assert len(decode_batches(stream.getvalue()[: len(one) + cut])) == 1
    assert decode_batches(b"") == []


def test_a_wrong_crc_names_the_batch() -> None:
    data = bytearray(build_batch([(b"k", b"v", 5, [])], base_offset=41))
    data[-2] ^= 1  # in the value
    with pytest.raises(ValueError, match=r"offset 41.*crc"):
        decode_batches(bytes(data))
    assert len(decode_batches(bytes(data), check_crc=False)) == 1


def test_expansion_is_bounded() -> None:
    data = build_batch([(None, bytes(1 << 20), 5, [])], compression="zstd")
    with pytest.raises(ValueError, match="expands to more than 1000 bytes"):
        decode_batches(data, expansion_limit_bytes=1000)


def test_unknown_codecs_and_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="brotli"):
        build_batch([], compression="brotli")
    with pytest.raises(ValueError, match="level 99"):
        build_batch([], compression="zstd", level=99)


@given(key=st.binary(max_size=40))
@settings(max_examples=200)
def test_murmur2_is_that_of_the_python_clients(key: bytes) -> None:
    assert murmur2(key) == reference_murmur2(key)


def reference_murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, after Austin Appleby's description, with the seed of Kafka's clients."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    words = len(data) // 4
    for index in range(words):
        k = int.from_bytes(data[4 * index : 4 * index + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    tail = data[4 * words :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    h ^= h >> 15
    return h - (1 << 32) if h >= 1 << 31 else h
