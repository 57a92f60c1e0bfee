"""What the shard itself promises, shown with the group coordinator's machine."""

from __future__ import annotations

import pytest

from ottla.coordinator.group import records
from ottla.coordinator.shard import RECORDS_PER_BATCH_MAX, LoadedRecord, Outcome, Reply, coordinator_error
from ottla.errors import ErrorCode
from tests.unit.coordinator.group.context import WRITE_TIMEOUT_MS, GroupContext

RECORD = records.offset_commit_tombstone("g", "t", 0)


@pytest.mark.parametrize("count", [0, 1, RECORDS_PER_BATCH_MAX, RECORDS_PER_BATCH_MAX + 1, 2 * RECORDS_PER_BATCH_MAX])
def test_many_records_go_in_bounded_batches_and_the_reply_with_the_last(count: int) -> None:
    outcome = Outcome().write_each([RECORD] * count, Reply(1))
    assert sum(len(w.records) for w in outcome.writes) == count
    assert all(len(w.records) <= RECORDS_PER_BATCH_MAX for w in outcome.writes)
    assert [len(w.replies) for w in outcome.writes][-1] == 1
    assert not any(w.replies for w in outcome.writes[:-1])
    assert count == 0 or all(w.records for w in outcome.writes)


def test_replies_leave_in_the_order_of_their_writes_as_the_high_watermark_passes() -> None:
    group = GroupContext()
    group.holding = True
    tokens = [group.begin_commit({("t", p): 1}) for p in range(3)]
    group.commit(2)
    assert [group.is_parked(t) for t in tokens] == [False, False, True]
    group.commit(1)  # a high watermark never goes back
    group.commit(3)
    assert not group.is_parked(tokens[2])


def test_a_read_of_the_latest_state_waits_for_the_writes_before_it_only() -> None:
    group = GroupContext()
    group.holding = True
    write = group.begin_commit({("t", 0): 1})
    read = group.begin_fetch_stable(("t", 0))
    later = group.begin_commit({("t", 0): 2})
    group.commit(1)
    assert not group.is_parked(write)
    assert group.reply_to(read).topics[0].partitions[0].committed_offset == 1
    assert group.is_parked(later)


def test_waiting_for_a_commit_ends_with_an_error_but_the_write_may_still_come_through() -> None:
    group = GroupContext()
    group.holding = True
    token = group.begin_commit({("t", 0): 1})
    assert group.shard.next_deadline_ms() == group.now_ms + WRITE_TIMEOUT_MS
    group.advance(WRITE_TIMEOUT_MS)
    assert coordinator_error(group.error_of(token)) is ErrorCode.COORDINATOR_NOT_AVAILABLE
    group.commit()
    assert group.fetch_offsets() == {("t", 0): 1}


def test_only_what_was_cut_off_is_taken_back() -> None:
    group = GroupContext()
    group.holding = True
    kept, lost = group.begin_commit({("t", 0): 1}), group.begin_commit({("t", 0): 2})
    del group.log[1:]
    group._take(group.shard.on_rolled_back(1, ErrorCode.KAFKA_STORAGE_ERROR, group.now))
    assert group.error_of(lost) is ErrorCode.KAFKA_STORAGE_ERROR
    group.holding = False
    group.commit()
    group.reply_to(kept)
    assert group.fetch_offsets() == {("t", 0): 1}
    assert group.commit_offsets({("t", 0): 3}) == {ErrorCode.NONE}


def test_malformed_records_are_passed_over() -> None:
    group = GroupContext()
    group.machine.replay(LoadedRecord(0, b"\0\1\xff", b""))
    assert group.machine.table.malformed_records == 1
