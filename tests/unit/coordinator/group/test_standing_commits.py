"""When commits are carried out without the machine, what it makes of them, and what ends that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ottla.coordinator.group.config import GroupConfig
from ottla.errors import ErrorCode
from tests.unit.coordinator.group.consumers import Consumer, ConsumerContext, settle
from tests.unit.coordinator.group.context import GROUP, SESSION_MS, GroupContext
from tests.unit.coordinator.group.transactional import TransactionalContext

A, B = ("topic", 0), ("topic", 1)
CHECK_MS = GroupConfig().offsets_retention_check_interval_ms
CONSUMER_SESSION_MS = 45_000
PRODUCER = 7


class Commits:
    """Commits of one client, and how many of them reach the machine."""

    def __init__(self, group: GroupContext, **options: Any) -> None:
        self.group, self.options = group, options
        self.seen = 0
        commit = group.machine.offsets.commit

        def see(*arguments: Any) -> Any:
            self.seen += 1
            return commit(*arguments)

        group.machine.offsets.commit = see  # type: ignore[method-assign]

    def __call__(self, offset: int, partition: tuple[str, int] = A) -> set[ErrorCode]:
        return self.group.commit_offsets({partition: offset}, stands=True, **self.options)

    def begin(self, offset: int) -> int:
        return self.group.begin_commit({A: offset}, stands=True, **self.options)

    def is_carried_out(self, offset: int) -> bool:
        """Commit; returns whether the machine had nothing to do with it."""
        before = self.seen
        assert self(offset) == {ErrorCode.NONE}
        return self.seen == before


def lone(**options: Any) -> tuple[GroupContext, Commits]:
    """A client that keeps offsets here and has no group."""
    group = GroupContext(**options)
    commits = Commits(group)
    assert commits(1) == {ErrorCode.NONE}
    return group, commits


def classic() -> tuple[GroupContext, list[str], Commits]:
    """A group of two, of which the leader commits."""
    group = GroupContext()
    generation_id, members = group.stable_group(2)
    commits = Commits(group, member_id=members[0], generation_id=generation_id)
    assert commits(1) == {ErrorCode.NONE}
    return group, members, commits


def consumers() -> tuple[ConsumerContext, Consumer, Commits]:
    group = ConsumerContext()
    consumer = Consumer(group, "a")
    settle(consumer)
    commits = Commits(group, member_id="a", generation_id=consumer.epoch)
    assert commits(1) == {ErrorCode.NONE}
    return group, consumer, commits


def test_reads_see_what_was_carried_out_without_the_machine() -> None:
    group, commits = lone()
    for offset in (2, 3, -1, 2**63 - 1):
        assert commits.is_carried_out(offset)
        assert group.fetch_offsets(A) == {A: offset}
    assert group.restarted().durable() == group.durable()


def test_what_nobody_looks_at_between_is_as_if_it_had_not_been() -> None:
    group, commits = lone()
    for offset in (2, 3, 4):
        assert commits.is_carried_out(offset)
    assert group.restarted().durable() == group.durable()
    value = group.machine.table.offsets.get(GROUP, *A)
    assert value is not None
    assert (value.offset, value.record_offset) == (4, len(group.log) - 1)


def test_committed_reads_see_it_once_it_is_committed_and_stable_ones_wait() -> None:
    group, commits = lone()
    with group.holding_commits():
        token = commits.begin(2)
        assert group.is_parked(token)
        assert group.fetch_offsets(A) == {A: 1}
        stable = group.begin_fetch_stable(A)
        assert group.is_parked(stable)
    assert group.fetch_offsets(A) == {A: 2}
    group.reply_to(token)
    assert group.reply_to(stable).topics[0].partitions[0].committed_offset == 2


def test_the_last_of_two_clients_counts() -> None:
    group, one = lone()
    other = Commits(group, metadata="other")
    assert other(1) == {ErrorCode.NONE}
    for offset, commits in enumerate((one, other, other, one, other, one, one), 2):
        assert commits.is_carried_out(offset)
    assert group.fetch_offsets(A) == {A: 8}
    assert group.restarted().durable() == group.durable()


def test_a_lost_write_is_left_to_the_machine() -> None:
    group, commits = lone()
    assert commits.is_carried_out(2)
    group.holding = True
    token = commits.begin(3)
    seen = commits.seen
    group.lose_uncommitted()
    assert commits.seen == seen + 1
    assert group.fetch_offsets(A) == {A: 2}
    group.holding = False
    group.commit()
    group.reply_to(token)
    assert group.fetch_offsets(A) == {A: 3}
    assert not commits.is_carried_out(4)


def test_a_lost_write_that_the_machine_has_seen_is_taken_back() -> None:
    group, commits = lone()
    group.holding = True
    commits.begin(2)
    group.catch_up()
    assert group.machine.table.offsets.items(GROUP)[0][1].offset == 2
    group.append_error = ErrorCode.KAFKA_STORAGE_ERROR
    group.lose_uncommitted()
    assert group.machine.table.offsets.items(GROUP)[0][1].offset == 1


def test_a_member_stays_while_it_commits_and_no_longer() -> None:
    group, members, commits = classic()
    other = Commits(group, member_id=members[1], generation_id=commits.options["generation_id"])
    for offset in range(2, 20):
        assert other(offset, B) == commits(offset) == {ErrorCode.NONE}
        group.advance(SESSION_MS // 3)
    assert group.state() == "Stable"
    assert commits.seen == 2, "the first of each"
    group.advance(SESSION_MS)
    assert group.state() == "Empty"


def test_a_consumer_is_not_heard_of_by_its_commits() -> None:
    group, _, commits = consumers()
    for offset in range(2, 12):
        commits(offset)
        group.advance(CONSUMER_SESSION_MS // 5)
    assert commits(12) != {ErrorCode.NONE}
    assert group.describe_consumers().members == ()


def test_a_consumer_commits_without_the_machine() -> None:
    group, _, commits = consumers()
    assert commits.is_carried_out(2)
    assert group.fetch_offsets(A) == {A: 2}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda group, members: group.begin_join(group.ask_for_id()), ErrorCode.NONE),
        (lambda group, members: group.leave(members[1]), ErrorCode.NONE),
        (lambda group, members: group.leave(members[0]), ErrorCode.UNKNOWN_MEMBER_ID),
        (lambda group, members: group.advance(SESSION_MS), ErrorCode.UNKNOWN_MEMBER_ID),
    ],
    ids=["a join", "a leave", "its own leave", "its session's end"],
)
def test_what_happens_to_a_group_is_said_by_its_next_commit(
    change: Callable[[GroupContext, list[str]], object], expected: ErrorCode
) -> None:
    group, members, commits = classic()
    assert commits.is_carried_out(2)
    change(group, members)
    seen = commits.seen
    assert commits(3) == {expected}
    assert commits.seen == seen + 1
    assert commits(4) == {expected}, "nothing stands while members gather"
    assert commits.seen == seen + 2


def test_a_new_generation_refuses_commits_of_the_old_one() -> None:
    group, members, commits = classic()
    assert commits.is_carried_out(2)
    tokens = [group.begin_join(member_id) for member_id in members]
    generation_id = group.reply_to(tokens[0]).generation_id
    assert commits(3) == {ErrorCode.ILLEGAL_GENERATION}
    commits.options["generation_id"] = generation_id
    assert commits(3) == {ErrorCode.REBALANCE_IN_PROGRESS}


def test_a_new_epoch_refuses_commits_of_the_old_one() -> None:
    group, consumer, commits = consumers()
    assert commits.is_carried_out(2)
    group.enter("b")
    settle(consumer)
    assert consumer.epoch != commits.options["generation_id"]
    seen = commits.seen
    commits(3)
    assert commits.seen == seen + 1


def test_the_first_member_of_a_group_refuses_who_has_none() -> None:
    group, commits = lone()
    assert commits.is_carried_out(2)
    group.stable_group(1)
    assert commits(3) == {ErrorCode.UNKNOWN_MEMBER_ID}


def test_a_deleted_group_is_made_again() -> None:
    group, commits = lone()
    assert commits.is_carried_out(2)
    assert group.delete_groups(GROUP) == {GROUP: ErrorCode.NONE}
    assert group.fetch_offsets(A) == {A: -1}
    assert commits(3) == {ErrorCode.NONE}
    assert group.fetch_offsets(A) == {A: 3}
    assert group.restarted().durable() == group.durable()


def test_offsets_that_were_deleted_come_back_by_the_next_commit_alone() -> None:
    group, commits = lone()
    assert commits.is_carried_out(2)
    group.delete_offsets(A)
    assert group.fetch_offsets(A) == {A: -1}
    assert commits(3) == {ErrorCode.NONE}
    assert group.fetch_offsets(A) == {A: 3}


def test_offsets_expire_a_retention_after_the_last_commit_without_the_machine() -> None:
    group, commits = lone(config=GroupConfig(offsets_retention_ms=2 * CHECK_MS))
    group.advance(CHECK_MS + CHECK_MS // 2)
    assert commits.is_carried_out(2)
    group.advance(2 * CHECK_MS - 1)
    assert group.fetch_offsets(A) == {A: 2}
    group.advance(CHECK_MS)
    assert group.fetch_offsets(A) == {A: -1}


def test_a_commit_wins_over_the_transaction_that_was_open_before() -> None:
    group = TransactionalContext()
    commits = Commits(group)
    assert commits(1) == {ErrorCode.NONE}
    group.txn_commit(PRODUCER, {A: 5, B: 6})
    assert commits.is_carried_out(2)
    assert commits.is_carried_out(3)
    group.end(PRODUCER, commit=True)
    assert group.fetch_offsets(A, B) == {A: 3, B: 6}


@pytest.mark.parametrize(
    "options",
    [{"retention_ms": 1_000, "version": 4}, {"metadata": "x" * 5_000}],
    ids=["a retention of its own", "refused"],
)
def test_what_does_not_stand(options: dict[str, Any]) -> None:
    group = GroupContext()
    commits = Commits(group, **options)
    for offset in (1, 2, 3):
        commits(offset)
    assert commits.seen == 3
