"""Inputs for the fuzzing targets to start from: requests as clients send them, and files as Apache Kafka wrote them.

`python rust/fuzz/seeds.py` writes them to rust/fuzz/corpus; `make fuzz` calls it.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

from ottla._native import build_batch
from ottla.protocol.header import encode_request_frame
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic, ForgottenTopic
from ottla.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from ottla.protocol.versions import API_VERSIONS, PRODUCE_VERSION_MIN, ApiKey

HERE = Path(__file__).parent
GOLDEN = HERE.parents[1] / "tests" / "golden"
SIZE_MAX = 8192
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
PARTITION_FILES = (
    "00000000000000000000.log",
    "00000000000000000000.index",
    "00000000000000000000.timeindex",
    "00000000000000000000.txnindex",
    "00000000000000000000.snapshot",
    "00000000000000000005.log",
    "00000000000000000005.index",
    "00000000000000000005.timeindex",
    "00000000000000000005.snapshot",
    "leader-epoch-checkpoint",
    "partition.metadata",
)
"""In the order of `log_open`'s numbers."""


def batches() -> Iterator[bytes]:
    now_ms = 1_700_000_000_000
    records = [(b"key", b"value" * 20, now_ms, (("header", b"value"),)), (None, None, now_ms + 1, ())]
    for codec in CODECS:
        yield build_batch(records, compression=codec)
    yield build_batch(records, producer_id=7, producer_epoch=0, base_sequence=0)
    yield build_batch(records, producer_id=7, producer_epoch=0, base_sequence=2)
    yield build_batch(records[:1], producer_id=8, producer_epoch=1, base_sequence=0, transactional=True)


def produce_requests(version: int) -> Iterator[ProduceRequest]:
    for batch in batches():
        data = TopicProduceData(
            name="a", topic_id=uuid.UUID(int=1), partition_data=(PartitionProduceData(index=0, records=batch),)
        )
        yield ProduceRequest(transactional_id=None, acks=-1, timeout_ms=1000, topic_data=(data, data))


def fetch_request() -> FetchRequest:
    wanted = FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)
    return FetchRequest(
        max_wait_ms=10,
        min_bytes=1,
        max_bytes=1 << 20,
        topics=(FetchTopic(topic="a", topic_id=uuid.UUID(int=1), partitions=(wanted,)),),
        forgotten_topics_data=(ForgottenTopic(topic="a", topic_id=uuid.UUID(int=1), partitions=(0,)),),
    )


def frames() -> Iterator[bytes]:
    for version in range(PRODUCE_VERSION_MIN, API_VERSIONS[ApiKey.PRODUCE][1] + 1):
        for produce in produce_requests(version):
            yield encode_request_frame(ApiKey.PRODUCE, version, produce, correlation_id=1, client_id="c")
    for version in range(4, API_VERSIONS[ApiKey.FETCH][1] + 1):
        yield encode_request_frame(ApiKey.FETCH, version, fetch_request(), correlation_id=2, client_id="c")
    yield encode_request_frame(ApiKey.API_VERSIONS, 3, ApiVersionsRequest(), correlation_id=3, client_id=None)


def golden(*patterns: str) -> Iterator[bytes]:
    for pattern in patterns:
        for path in sorted(GOLDEN.rglob(pattern)):
            yield path.read_bytes()[:SIZE_MAX]


def directories() -> Iterator[bytes]:
    for directory in sorted(path for path in GOLDEN.rglob("*-0") if path.is_dir()):
        files = b""
        for number, name in enumerate(PARTITION_FILES):
            if (directory / name).is_file():
                content = (directory / name).read_bytes()[:SIZE_MAX]
                files += bytes((number | 0x80,)) + struct.pack(">H", len(content)) + content
        yield files
    for codec_batch in batches():
        yield bytes((0,)) + struct.pack(">H", len(codec_batch)) + codec_batch


def conversations() -> Iterator[bytes]:
    """Steps of `data_plane`: raw frames, sealed batches, fetches, and time."""
    settle = bytes((5, 0))
    for frame in frames():
        stream = struct.pack(">i", len(frame)) + frame
        yield bytes((0, 0)) + struct.pack(">H", len(stream)) + stream + settle
    for first in batches():
        for second in batches():
            steps = b"".join(
                bytes((2, detail)) + struct.pack(">H", len(batch)) + batch
                for detail, batch in ((0, first), (1, second), (5, second))
            )
            yield steps + settle + bytes((4, 0, 0, 9, 1, 255, 0, 0)) + settle + bytes((11, 0, 6, 255, 8, 0))


def seeds() -> dict[str, Iterator[bytes]]:
    """By target."""
    choices = (0, 1, 8, 16, 0x86)
    return {
        "requests": (b"\x40" + struct.pack(">i", len(frame)) + frame for frame in frames()),
        "record_batch": (bytes((choice,)) + batch for batch in [*batches(), *golden("*.log")] for choice in choices),
        "compression": (bytes((number,)) + batch[61:] for number, batch in enumerate([*batches()][: len(CODECS)])),
        "small_files": golden("*index", "*.snapshot", "*checkpoint", "*.metadata", "meta.properties"),
        "log_open": directories(),
        "quorum": golden("*.log", "*.checkpoint"),
        "data_plane": conversations(),
    }


def main() -> None:
    for target, inputs in seeds().items():
        corpus = HERE / "corpus" / target
        corpus.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(inputs):
            (corpus / f"seed-{number:03}").write_bytes(content)


if __name__ == "__main__":
    main()
