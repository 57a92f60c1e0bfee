"""Retention and compaction of a running broker, as its clients see them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ottla._native import build_batch, decode_batches
from ottla.errors import ErrorCode
from ottla.testing.broker import EmbeddedBroker
from tests.integration.wire import Wire

SETTINGS = {"log.cleaner.backoff.ms": "100", "log.retention.check.interval.ms": "100"}
SEGMENT_BYTES = 1 << 20
"""The least that Kafka allows."""
PATIENCE_S = 20.0


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def log_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.log"))


def fill(wire: Wire, topic: str, *, rounds: int, timestamp_ms: int) -> None:
    """Batches of 100 kB of a hundred keys each; the last round's number is every key's value."""
    for number in range(rounds):
        records = [(b"key %d" % key, b"%d " % number + bytes(1000), timestamp_ms, []) for key in range(100)]
        assert wire.produce_batch(topic, build_batch(records)).error_code is ErrorCode.NONE


def test_a_compacted_topic_keeps_the_newest_value_of_each_key(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir, settings=SETTINGS) as broker, Wire(broker.port) as wire:
        wire.create_with("compacted", cleanup_policy="compact", segment_bytes=str(SEGMENT_BYTES))
        fill(wire, "compacted", rounds=45, timestamp_ms=int(time.time() * 1000))
        directory = next(data_dir.rglob("compacted-0"))
        wait_until(lambda: log_bytes(directory) < 2 * SEGMENT_BYTES)
        newest: dict[bytes | None, bytes | None] = {}
        offsets = []
        offset = 0
        while batches := decode_batches(wire.fetch("compacted", offset).records or b""):
            for batch in batches:
                for record_offset, _, key, value, _ in batch.records:
                    newest[key] = value
                    offsets.append(record_offset)
            offset = batches[-1].last_offset + 1
        assert offset == 4500
        assert len(offsets) < 2500
        assert newest == {b"key %d" % key: b"44 " + bytes(1000) for key in range(100)}


def test_old_segments_go_and_reads_below_the_new_start_are_refused(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir, settings=SETTINGS) as broker, Wire(broker.port) as wire:
        wire.create_with("short-lived", retention_ms="60000", segment_bytes=str(SEGMENT_BYTES))
        directory = next(data_dir.rglob("short-lived-0"))
        an_hour_ago = int(time.time() * 1000) - 3_600_000
        fill(wire, "short-lived", rounds=25, timestamp_ms=an_hour_ago)
        wait_until(lambda: log_bytes(directory) == 0)
        assert wire.fetch("short-lived", 0).error_code is ErrorCode.OFFSET_OUT_OF_RANGE
        fresh = build_batch([(b"key", b"fresh", int(time.time() * 1000), [])])
        assert wire.produce_batch("short-lived", fresh).base_offset == 2500
        assert wire.values("short-lived", 2500) == [b"fresh"]
