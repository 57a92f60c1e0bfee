"""`ottla check` names what is damaged, where, and what it means."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from crc32c import crc32c

from ottla import _native
from ottla.offline.check import Summary, check_directory
from ottla.offline.finding import Finding, Severity
from ottla.offline.segment import BatchAt, Stop, walk

LOG = "00000000000000000000.log"


def batch(base_offset: int, *, count: int = 2) -> bytes:
    records = [(b"k", b"value %d" % (base_offset + i), 1_000 + base_offset + i, ()) for i in range(count)]
    return _native.build_batch(records, base_offset=base_offset, leader_epoch=0)


@pytest.fixture
def partition(tmp_path: Path) -> Path:
    """Three batches: offsets 0-1, 2-3, 4-5, with an index entry for each but the first."""
    directory = tmp_path / "clicks-0"
    directory.mkdir()
    batches = [batch(0), batch(2), batch(4)]
    (directory / LOG).write_bytes(b"".join(batches))
    first, second = len(batches[0]), len(batches[0]) + len(batches[1])
    (directory / LOG).with_suffix(".index").write_bytes(struct.pack(">iiii", 3, first, 5, second))
    (directory / LOG).with_suffix(".timeindex").write_bytes(struct.pack(">qiqi", 1_003, 3, 1_005, 5))
    return directory


def findings(directory: Path) -> list[Finding]:
    return list(check_directory(directory, Summary()))


def test_an_intact_partition_has_no_findings(partition: Path) -> None:
    summary = Summary()
    assert list(check_directory(partition, summary)) == []
    assert (summary.segments, summary.batches, summary.records) == (1, 3, 6)


def test_a_missing_segment_is_damage_unless_the_cleaner_took_the_offsets(partition: Path) -> None:
    behind = partition / "00000000000000000008.log"
    behind.write_bytes(batch(8))
    (found,) = (f for f in findings(partition.parent) if f.severity is Severity.DAMAGE)
    assert found.path == behind
    assert found.message == "starts at 8, but the segment before it ends at 5: a segment is missing"
    (partition.parent / "cleaner-offset-checkpoint").write_text("0\n1\nclicks 0 8\n")
    assert not [f for f in findings(partition.parent) if f.severity is Severity.DAMAGE]


def test_a_torn_tail_is_normal_after_a_crash(partition: Path) -> None:
    log = partition / LOG
    size = log.stat().st_size
    log.write_bytes(log.read_bytes() + batch(6)[:-5])
    (found,) = findings(partition)
    assert (found.severity, found.position) == (Severity.NOTE, size)
    assert "torn tail" in found.message


def test_after_a_clean_stop_a_bad_tail_is_damage(partition: Path) -> None:
    log = partition / LOG
    log.write_bytes(log.read_bytes()[:-5])
    (partition.parent / ".kafka_cleanshutdown").touch()
    assert any(f.severity is Severity.DAMAGE and f.path == log for f in findings(partition))


def test_a_flipped_bit_in_the_middle_is_damage_with_its_place(partition: Path) -> None:
    log = partition / LOG
    data = bytearray(log.read_bytes())
    second = len(batch(0))
    data[second + 70] ^= 1
    log.write_bytes(data)
    damage = [f for f in findings(partition) if f.severity is Severity.DAMAGE]
    (found,) = damage
    assert found.position == second
    assert f"next intact batch is at byte {second + len(batch(2))}" in found.message
    stops = [item for item in walk(log) if isinstance(item, Stop)]
    assert [s.is_torn_tail for s in stops] == [False]
    assert [b.batch.base_offset for b in walk(log) if isinstance(b, BatchAt)] == [0, 4]


def test_an_offset_that_is_out_of_line_is_named_where_it_stands(partition: Path) -> None:
    log = partition / LOG
    batches = [batch(0), batch(2), batch(4)]
    second, third = len(batches[0]), len(batches[0]) + len(batches[1])
    for position, odd, text in (
        (second, 77, "batch at offset 77, behind which offset 4 follows"),
        (third, 0, "batch at offset 0 where 4 or more is expected"),
        (third, 2, "batch at offset 2 where 4 or more is expected"),
        (0, 77, "batch at offset 77, behind which offset 2 follows"),
    ):
        data = bytearray(b"".join(batches))
        data[position : position + 8] = odd.to_bytes(8, "big")
        log.write_bytes(data)
        damage = [f for f in findings(partition) if f.severity is Severity.DAMAGE]
        assert [(f.position, f.message) for f in damage] == [(position, text)]


def test_a_missing_segment_start_and_an_overlap_are_damage(partition: Path) -> None:
    (partition / "00000000000000000004.log").write_bytes(batch(4))
    damage = [f for f in findings(partition) if f.severity is Severity.DAMAGE]
    assert any("reaches to 5" in f.message for f in damage)


def test_a_cut_tail_of_an_inactive_segment_is_damage(partition: Path) -> None:
    log = partition / LOG
    log.write_bytes(log.read_bytes()[:-3])
    (partition / "00000000000000000006.log").write_bytes(batch(6))
    assert any(f.severity is Severity.DAMAGE and f.path == log for f in findings(partition))


@pytest.mark.parametrize(
    ("suffix", "content", "word"),
    [
        (".index", struct.pack(">ii", 3, 7), "where no batch starts"),
        (".index", b"\x00" * 9, "no multiple of 8"),
        (".index", struct.pack(">iiii", 5, len(batch(0)) * 2, 3, len(batch(0))), "not above the one before"),
        (".timeindex", struct.pack(">qi", 1_000, 5), "stands at or before"),
        (".timeindex", struct.pack(">qi", 1_005, 99), "behind the segment's end"),
        (".timeindex", b"\x01" * 13, "no multiple of 12"),
        (".txnindex", b"\x01" * 34, "version"),
        (
            ".txnindex",
            b"\x00" * 34,
            "row 0 (0 to 0) is no transaction that can have ended here: the rows are made anew",
        ),
        (".txnindex", b"\x00" * 68, "row 0 (0 to 0)"),
        (".txnindex", struct.pack(">hqqqq", 0, 7, 4, 5, 9), "row 0 (4 to 5)"),
    ],
)
def test_an_index_that_lies_is_a_warning(partition: Path, suffix: str, content: bytes, word: str) -> None:
    (partition / LOG).with_suffix(suffix).write_bytes(content)
    found = findings(partition)
    assert found
    assert all(f.severity is Severity.WARNING for f in found)
    assert any(word in f.message for f in found)


def test_a_snapshot_with_a_wrong_checksum_is_a_warning(partition: Path) -> None:
    (partition / "00000000000000000006.snapshot").write_bytes(struct.pack(">hIi", 1, 0xDEADBEEF, 0))
    (found,) = findings(partition)
    assert found.severity is Severity.WARNING
    assert "its header says 0xdeadbeef" in found.message


def test_a_data_directory_is_checked_partition_by_partition(partition: Path) -> None:
    data = partition.parent
    (data / "meta.properties").write_text("version=1\n")
    (data / ".kafka_cleanshutdown").touch()
    (data / "recovery-point-offset-checkpoint").write_text("0\n2\nclicks 0 6\n")
    summary = Summary()
    (found,) = check_directory(data, summary)
    assert "does not count the 1 rows" in found.message
    assert summary.partitions == 1


def transactional(base_offset: int, producer_id: int) -> bytes:
    records = [(None, b"value", 1_000, ())]
    return _native.build_batch(
        records, base_offset=base_offset, leader_epoch=0, producer_id=producer_id, transactional=True
    )


def marker(base_offset: int, producer_id: int, *, commit: bool = False) -> bytes:
    """As a coordinator writes it: a control batch, whose attributes the builder of records does not set."""
    key, value = struct.pack(">hh", 0, commit), struct.pack(">hi", 0, 3)
    built = _native.build_batch(
        [(key, value, 1_000, ())], base_offset=base_offset, leader_epoch=0, producer_id=producer_id, transactional=True
    )
    data = bytearray(built)
    data[22] |= 0x20
    struct.pack_into(">I", data, 17, crc32c(data[21:]))
    return bytes(data)


def row(producer_id: int, first_offset: int, last_offset: int) -> bytes:
    return struct.pack(">hqqqq", 0, producer_id, first_offset, last_offset, last_offset + 1)


@pytest.fixture
def aborted(tmp_path: Path) -> Path:
    """Producer 7 aborts at 1 and at 5, producer 8 at 6 (what it began in an earlier segment, or nothing); 9 commits."""
    directory = tmp_path / "clicks-0"
    directory.mkdir()
    batches = [transactional(0, 7), marker(1, 7), transactional(2, 9), transactional(3, 7), marker(4, 9, commit=True)]
    batches += [marker(5, 7), marker(6, 8)]
    (directory / LOG).write_bytes(b"".join(batches))
    return directory


def test_a_transaction_index_is_compared_with_the_markers(aborted: Path) -> None:
    index = (aborted / LOG).with_suffix(".txnindex")
    index.write_bytes(row(7, 0, 1) + row(7, 3, 5))
    assert findings(aborted) == []
    index.write_bytes(row(7, 0, 1) + row(7, 3, 5) + row(8, 2, 6))
    assert findings(aborted) == []
    index.write_bytes(row(7, 0, 1) + row(9, 2, 4))
    wrong, lacking = findings(aborted)
    assert (wrong.severity, wrong.position) == (Severity.DAMAGE, 34)
    assert wrong.message == "row 1: no abort marker of producer 9 stands at 4"
    assert lacking.severity is Severity.NOTE


@pytest.mark.parametrize("is_clean", [False, True])
def test_an_aborted_transaction_without_its_row_is_damage_unless_the_next_start_adds_it(
    aborted: Path, is_clean: bool
) -> None:
    if is_clean:
        (aborted.parent / ".kafka_cleanshutdown").touch()
    (aborted / LOG).with_suffix(".txnindex").write_bytes(row(7, 0, 1))
    (found,) = findings(aborted)
    assert found.severity is (Severity.DAMAGE if is_clean else Severity.NOTE)
    assert found.message.startswith("the transaction that producer 7 aborted at 5 has no row")
