"""Transactions in a data directory, read by Apache Kafka's DumpLogSegments: markers, transaction index, snapshots."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.test_data_directory import CLIENT, complaints, dump, logs
from tests.compat.tools import JavaTools
from tests.integration.test_transactional_writes import PRODUCER, Table, batch, end, produce, serving
from tests.integration.wire import Wire

__all__ = ["CLIENT"]


@pytest.fixture(scope="module")
def tools() -> Iterator[JavaTools]:
    with JavaTools() as running:
        yield running


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transaction committed, two aborted, one open."""
    directory = tmp_path_factory.mktemp("transactional") / "data"
    with serving(directory, Table()) as broker, Wire(broker.port) as wire:
        wire.create("t")
        for sequence, commit in enumerate([True, False, False]):
            produce(wire, batch(sequence))
            end(wire, commit=commit)
        produce(wire, batch(3))
    return directory


def test_markers(tools: JavaTools, data_dir: Path) -> None:
    """The markers of transactions, and which batches are part of one."""
    files = logs(data_dir, "t-0")
    printed = dump(tools, files, "--deep-iteration", "--print-data-log")
    assert not complaints(printed, files)
    assert re.findall(r"endTxnMarker: (\w+) coordinatorEpoch: (-?\d+)", printed) == [
        ("COMMIT", "1"),
        ("ABORT", "1"),
        ("ABORT", "1"),
    ]
    assert len(re.findall(r"isTransactional: true isControl: false", printed)) == 4


def test_transaction_index(tools: JavaTools, data_dir: Path) -> None:
    """The index of aborted transactions."""
    printed = dump(tools, logs(data_dir, "t-0", "txnindex"))
    rows = re.findall(r"producerId: (\d+) firstOffset: (\d+) lastOffset: (\d+) lastStableOffset: (\d+)", printed)
    assert [tuple(map(int, row)) for row in rows] == [(PRODUCER, 2, 3, 4), (PRODUCER, 4, 5, 6)]


def test_open_transactions(tools: JavaTools, data_dir: Path) -> None:
    """Snapshots of producers tell where the open transaction starts."""
    printed = dump(tools, logs(data_dir, "t-0", "snapshot"))
    assert f"producerId: {PRODUCER} producerEpoch: 0 coordinatorEpoch: 1 currentTxnFirstOffset: " in printed
    assert re.search(r"currentTxnFirstOffset: (?:OptionalLong\[)?6\b", printed), printed
