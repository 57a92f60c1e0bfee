"""TxnOffsetCommit: who may commit, what pends, and what a marker makes of it."""

from __future__ import annotations

import pytest

from ottla.coordinator.group.config import GroupConfig
from ottla.errors import ErrorCode
from tests.unit.coordinator.group.transactional import TransactionalContext

A, B = ("topic", 0), ("topic", 1)
PRODUCER, OTHER = 7, 8
UNSTABLE = ErrorCode.UNSTABLE_OFFSET_COMMIT


def stable(group: TransactionalContext, *partitions: tuple[str, int]) -> dict[tuple[str, int], ErrorCode | int]:
    response = group.reply_to(group.begin_fetch_stable(*partitions))
    return {
        (t.name, p.partition_index): p.error_code or p.committed_offset for t in response.topics for p in t.partitions
    }


class TestWhoMayCommit:
    def test_anybody_to_a_group_without_members(self) -> None:
        group = TransactionalContext()
        assert group.txn_commit(PRODUCER, {A: 5}) == {ErrorCode.NONE}
        assert group.state() == "Empty"

    def test_a_generation_that_does_not_exist(self) -> None:
        group = TransactionalContext()
        assert group.txn_commit(PRODUCER, {A: 5}, generation_id=1, member_id="m") == {ErrorCode.ILLEGAL_GENERATION}
        assert group.entries == []

    def test_a_group_without_a_name(self) -> None:
        assert TransactionalContext().txn_commit(PRODUCER, {A: 5}, group_id="") == {ErrorCode.INVALID_GROUP_ID}

    def test_members_of_the_generation_and_older_clients(self) -> None:
        group = TransactionalContext()
        generation_id, (member_id,) = group.stable_group(1)

        def commit(**options: object) -> set[ErrorCode]:
            return group.txn_commit(PRODUCER, {A: 5}, **options)

        assert commit(generation_id=generation_id, member_id=member_id) == {ErrorCode.NONE}
        assert commit() == {ErrorCode.NONE}, "versions before 3 do not say who they are"
        assert commit(generation_id=generation_id + 1, member_id=member_id) == {ErrorCode.ILLEGAL_GENERATION}
        assert commit(generation_id=generation_id - 1, member_id=member_id) == {ErrorCode.ILLEGAL_GENERATION}
        assert commit(generation_id=generation_id, member_id="stranger") == {ErrorCode.UNKNOWN_MEMBER_ID}
        assert commit(generation_id=-1, member_id=member_id) == {ErrorCode.ILLEGAL_GENERATION}

    def test_the_earlier_incarnation_of_a_static_member_may_not(self) -> None:
        group = TransactionalContext()
        token = group.begin_join(instance_id="i")
        group.advance(group.config.group_initial_rebalance_delay_ms)
        first = group.reply_to(token)
        group.sync(first.member_id, first.generation_id, {first.member_id: b""}, instance_id="i")
        second = group.join(instance_id="i")
        errors = {
            member_id: group.txn_commit(
                PRODUCER, {A: 5}, generation_id=second.generation_id, member_id=member_id, instance_id="i"
            )
            for member_id in (first.member_id, second.member_id)
        }
        assert errors == {first.member_id: {ErrorCode.FENCED_INSTANCE_ID}, second.member_id: {ErrorCode.NONE}}

    def test_a_rebalance_that_is_not_over_is_no_reason_to_refuse(self) -> None:
        group = TransactionalContext()
        member_id, token = group.begin_joining()
        group.advance(group.config.group_initial_rebalance_delay_ms)
        generation_id = group.reply_to(token).generation_id
        assert group.state() == "CompletingRebalance"
        assert group.txn_commit(PRODUCER, {A: 5}, generation_id=generation_id, member_id=member_id) == {ErrorCode.NONE}

    def test_metadata_is_limited_by_partition(self) -> None:
        group = TransactionalContext(config=GroupConfig(offset_metadata_max_bytes=3))
        assert group.txn_commit(PRODUCER, {A: 5}, metadata="long") == {ErrorCode.OFFSET_METADATA_TOO_LARGE}
        assert group.txn_commit(PRODUCER, {A: 5}, metadata="abc") == {ErrorCode.NONE}

    def test_a_refused_append_answers_with_its_error(self) -> None:
        group = TransactionalContext()
        group.append_error = ErrorCode.INVALID_TXN_STATE
        assert group.error_of(group.begin_txn_commit(PRODUCER, {A: 5})) is ErrorCode.INVALID_TXN_STATE
        assert group.fetch_offsets(A) == {A: -1}


class TestPending:
    @pytest.mark.parametrize("restarts", [False, True])
    def test_offsets_count_once_their_transaction_is_committed(self, *, restarts: bool) -> None:
        group = TransactionalContext()
        group.commit_offsets({A: 1})
        group.txn_commit(PRODUCER, {A: 5, B: 6})
        if restarts:
            group = group.restarted()
        assert group.fetch_offsets(A, B) == {A: 1, B: -1}
        assert stable(group, A, B) == {A: UNSTABLE, B: UNSTABLE}
        group.end(PRODUCER, commit=True)
        if restarts:
            group = group.restarted()
        assert group.fetch_offsets(A, B) == stable(group, A, B) == {A: 5, B: 6}

    def test_offsets_of_an_aborted_transaction_never_count(self) -> None:
        group = TransactionalContext()
        group.commit_offsets({A: 1})
        group.txn_commit(PRODUCER, {A: 5, B: 6})
        group.end(PRODUCER, commit=False)
        assert group.fetch_offsets(A, B) == stable(group, A, B) == {A: 1, B: -1}
        assert group.restarted().fetch_offsets(A, B) == {A: 1, B: -1}

    def test_each_transaction_ends_for_itself(self) -> None:
        group = TransactionalContext()
        group.txn_commit(PRODUCER, {A: 5})
        group.txn_commit(OTHER, {A: 9, B: 9})
        group.end(PRODUCER, commit=True)
        assert group.fetch_offsets(A, B) == {A: 5, B: -1}
        assert stable(group, A, B) == {A: UNSTABLE, B: UNSTABLE}
        group.end(OTHER, commit=False)
        assert stable(group, A, B) == {A: 5, B: -1}

    def test_a_later_plain_commit_wins_over_the_transactions(self) -> None:
        group = TransactionalContext()
        group.txn_commit(PRODUCER, {A: 5})
        group.commit_offsets({A: 8})
        group.end(PRODUCER, commit=True)
        assert group.fetch_offsets(A) == {A: 8}
        assert group.restarted().fetch_offsets(A) == {A: 8}

    def test_a_marker_that_comes_again_changes_nothing(self) -> None:
        group = TransactionalContext()
        group.txn_commit(PRODUCER, {A: 5})
        group.end(PRODUCER, commit=True)
        group.commit_offsets({A: 8})
        group.end(PRODUCER, commit=True)
        assert group.fetch_offsets(A) == {A: 8}

    def test_deleted_offsets_do_not_come_back_with_the_transaction(self) -> None:
        group = TransactionalContext()
        group.commit_offsets({B: 1})
        group.txn_commit(PRODUCER, {A: 5})
        group.delete_offsets(A)
        assert stable(group, A) == {A: -1}
        group.end(PRODUCER, commit=True)
        assert group.fetch_offsets(A) == {A: -1}

    def test_a_deleted_group_takes_its_pending_offsets_along(self) -> None:
        group = TransactionalContext()
        group.txn_commit(PRODUCER, {A: 5})
        assert group.delete_groups("group") == {"group": ErrorCode.NONE}
        group.end(PRODUCER, commit=True)
        assert group.fetch_offsets(A) == {A: -1}
        assert group.restarted().fetch_offsets(A) == {A: -1}

    def test_offsets_do_not_expire_while_a_transaction_wants_them(self) -> None:
        config = GroupConfig(offsets_retention_ms=1_000, offsets_retention_check_interval_ms=1_000)
        group = TransactionalContext(config=config)
        group.commit_offsets({A: 1, B: 1})
        group.txn_commit(PRODUCER, {A: 5})
        group.advance(10_000)
        assert group.fetch_offsets(A, B) == {A: 1, B: -1}
        assert group.list() == {"group": "Empty"}
        group.end(PRODUCER, commit=False)
        group.advance(10_000)
        assert group.fetch_offsets(A) == {A: -1}
        assert group.list() == {}


class TestCommitting:
    def test_a_marker_counts_when_the_high_watermark_is_above_it(self) -> None:
        group = TransactionalContext()
        group.txn_commit(PRODUCER, {A: 5})
        with group.holding_commits():
            token = group.begin_end(PRODUCER, commit=True)
            assert group.is_parked(token)
            assert group.fetch_offsets(A) == {A: -1}
        assert group.reply_to(token) is None
        assert group.fetch_offsets(A) == {A: 5}

    def test_a_lost_marker_leaves_the_transaction_open(self) -> None:
        group = TransactionalContext()
        group.txn_commit(PRODUCER, {A: 5})
        group.holding = True
        token = group.begin_end(PRODUCER, commit=True)
        group.lose_uncommitted()
        assert group.error_of(token) is ErrorCode.KAFKA_STORAGE_ERROR
        group.holding = False
        assert stable(group, A) == {A: UNSTABLE}
        group.end(PRODUCER, commit=True)
        assert stable(group, A) == {A: 5}
