"""What is left out when a coordinator's log is loaded."""

from __future__ import annotations

from typing import Any, cast

from ottla.coordinator.replaying import latest_offsets, to_replay
from ottla.coordinator.shard import LoadedRecord, TransactionMarker
from tests.unit.broker.group_fakes import FakeBatch


def batch(base_offset: int, *records: tuple[bytes, bytes | None], **kwargs: Any) -> FakeBatch:
    numbered = [(base_offset + n, 0, key, value, ()) for n, (key, value) in enumerate(records)]
    return FakeBatch(base_offset, cast(Any, numbered), **kwargs)


def replayed(*batches: FakeBatch) -> list[Any]:
    read: Any = [(batch, batch.records) for batch in batches]
    latest = latest_offsets(read)
    return [record for batch, records in read for record in to_replay(batch, records, latest)]


def test_the_last_of_each_key_stands_for_those_before_it() -> None:
    found = replayed(batch(0, (b"a", b"1"), (b"b", b"2")), batch(2, (b"a", b"3")), batch(3, (b"c", b"4"), (b"c", None)))
    assert found == [LoadedRecord(1, b"b", b"2", -1), LoadedRecord(2, b"a", b"3", -1), LoadedRecord(4, b"c", None, -1)]


def test_what_belongs_to_a_transaction_is_replayed_in_its_place() -> None:
    found = replayed(
        batch(0, (b"a", b"1")),
        batch(1, (b"a", b"2"), transactional=True, producer_id=7),
        batch(2, (b"a", b"3")),
        batch(3, (b"\0\0\0\1", b""), control=True, producer_id=7),
        batch(4, (b"\0\0\0\2", b""), control=True),
    )
    assert found == [LoadedRecord(1, b"a", b"2", 7), LoadedRecord(2, b"a", b"3", -1), TransactionMarker(3, 7, True)]


def test_where_each_record_counts_none_is_left_out() -> None:
    one = batch(0, (b"a", b"1"), (b"a", b"2"))
    assert [record.offset for record in to_replay(cast(Any, one), cast(Any, one.records), {})] == [0, 1]
