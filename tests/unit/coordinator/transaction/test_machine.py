"""The transaction coordinator's decisions, one at a time. Its answers to wrong requests are in tests/golden."""

from __future__ import annotations

import pytest

from ottla.coordinator.shard import CoordinatorRecord
from ottla.coordinator.transaction.config import TransactionConfig
from ottla.coordinator.transaction.ending import Ending
from ottla.coordinator.transaction.transaction import TransactionState
from ottla.errors import ErrorCode
from tests.unit.coordinator.transaction.bench import TIMEOUT_MS, WRITE_TIMEOUT_MS, A, B, TransactionBench, with_epoch

NONE = ErrorCode.NONE
LAST = 32_766


def opened(bench: TransactionBench | None = None) -> tuple[TransactionBench, tuple[int, int]]:
    bench = bench or TransactionBench()
    _, producer_id, epoch = bench.init()
    assert bench.add((producer_id, epoch), A, B) is NONE
    return bench, (producer_id, epoch)


def test_a_commit_is_answered_when_decided_and_carried_out_when_the_decision_is_committed() -> None:
    bench, producer = opened()
    bench.holding = True
    token = bench.send_end(producer, commit=True)
    assert token not in bench.replies
    assert not bench.endings
    bench.let_go()
    assert bench.ended(token) == (NONE, producer[0], producer[1] + 1)
    assert bench.endings == [Ending("tx", producer[0], producer[1] + 1, True, 2, frozenset({A, B}), bench.now.wall_ms)]
    assert bench.state().state is TransactionState.PREPARE_COMMIT
    bench.holding = False
    bench.complete(bench.endings[0])
    assert bench.state().state is TransactionState.COMPLETE_COMMIT
    assert not bench.state().partitions


def test_old_clients_keep_their_epoch() -> None:
    bench = TransactionBench()
    _, producer_id, epoch = bench.init()
    assert bench.add((producer_id, epoch), A, client_version=0) is NONE
    assert bench.end((producer_id, epoch), commit=False, client_version=0)[0] is NONE
    assert bench.endings == [Ending("tx", producer_id, epoch, False, 0, frozenset({A}), bench.now.wall_ms)]
    bench.complete(bench.endings[0])
    assert bench.add((producer_id, epoch), B, client_version=0) is NONE


def test_what_comes_while_a_transaction_is_being_ended_waits_for_its_end() -> None:
    bench, producer = opened()
    _, producer_id, epoch = bench.end(producer, commit=True)
    first = bench.send_add((producer_id, epoch), A)
    second = bench.send_add((producer_id, epoch), B)
    assert not {first, second} & bench.replies.keys()
    bench.complete(bench.endings[0])
    assert bench.added(first) is NONE
    assert bench.added(second) is NONE
    assert bench.state().state is TransactionState.ONGOING
    assert bench.state().partitions == {A, B}, "each builds on the one before"


def test_the_end_of_the_next_transaction_waits_for_the_end_of_this_one() -> None:
    """A client that gives up at once, before any record of its next transaction arrived, is not fenced."""
    bench, producer = opened()
    _, producer_id, epoch = bench.end(producer, commit=True)
    abort = bench.send_end((producer_id, epoch), commit=False)
    again = bench.send_end((producer_id, epoch), commit=False)
    assert not {abort, again} & bench.replies.keys()
    bench.complete(bench.endings[0])
    assert bench.ended(abort) == (NONE, producer_id, epoch + 1)
    assert bench.state().state is TransactionState.PREPARE_ABORT
    bench.complete(bench.endings[0])
    assert bench.ended(again) == (NONE, producer_id, epoch + 1), "a repetition"
    assert bench.ended(bench.send_end((producer_id, epoch - 1), commit=False))[0] is ErrorCode.PRODUCER_FENCED


def test_the_end_of_the_next_transaction_is_refused_when_this_one_takes_long() -> None:
    bench, producer = opened(TransactionBench(config=TransactionConfig(add_partitions_to_txn_retry_backoff_max_ms=100)))
    _, producer_id, epoch = bench.end(producer, commit=True)
    abort = bench.send_end((producer_id, epoch), commit=False)
    bench.advance(100)
    assert bench.ended(abort)[0] is ErrorCode.CONCURRENT_TRANSACTIONS
    assert bench.state().state is TransactionState.PREPARE_COMMIT


def test_nobody_waits_longer_than_the_configured_time() -> None:
    bench, producer = opened(TransactionBench(config=TransactionConfig(add_partitions_to_txn_retry_backoff_max_ms=100)))
    _, producer_id, epoch = bench.end(producer, commit=True)
    add, init = bench.send_add((producer_id, epoch)), bench.send_init()
    bench.advance(99)
    later = bench.send_add((producer_id, epoch))
    assert not {add, init, later} & bench.replies.keys()
    bench.advance(1)
    assert bench.added(add) is ErrorCode.CONCURRENT_TRANSACTIONS
    assert bench.initialised(init)[0] is ErrorCode.CONCURRENT_TRANSACTIONS
    assert later not in bench.replies
    bench.complete(bench.endings[0])
    assert bench.added(later) is NONE


@pytest.mark.parametrize("version", [0, 2])
def test_a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced(version: int) -> None:
    bench, producer = opened(TransactionBench(config=TransactionConfig(transaction_version=version)))
    bench.advance(TIMEOUT_MS // 2)
    bench.send_add(producer, ("c", 0))
    bench.advance(TIMEOUT_MS // 2 - 1)
    assert not bench.endings, "adding partitions gives no more time, but all of it"
    bench.advance(1)
    partitions = frozenset({A, B, ("c", 0)})
    assert bench.endings == [Ending("tx", producer[0], producer[1] + 1, False, version, partitions, bench.now.wall_ms)]
    bench.complete(bench.endings[0])
    assert bench.add(producer) is ErrorCode.PRODUCER_FENCED
    assert bench.init() == (NONE, producer[0], producer[1] + 2)


def test_the_time_that_was_left_is_what_a_restart_leaves() -> None:
    bench, _ = opened()
    bench.advance(TIMEOUT_MS - 1_000)
    loaded = bench.again()
    assert not loaded.endings
    loaded.advance(999)
    assert not loaded.endings
    loaded.advance(1)
    assert [ending.commit for ending in loaded.endings] == [False]


@pytest.mark.parametrize("jump_ms", [-(10**9), 10**9])
def test_a_jump_of_the_wall_clock_takes_at_most_the_time_that_was_given(jump_ms: int) -> None:
    bench, _ = opened()
    loaded = TransactionBench(bench.log, now_ms=bench.now.now_ms + jump_ms)
    loaded.advance(TIMEOUT_MS)
    assert [ending.commit for ending in loaded.endings] == [False]


def test_a_decision_in_the_log_is_carried_out_after_a_restart() -> None:
    bench, producer = opened()
    bench.end(producer, commit=True)
    loaded = bench.again()
    assert loaded.endings == bench.endings
    loaded.complete(loaded.endings[0])
    assert loaded.state().state is TransactionState.COMPLETE_COMMIT
    assert not loaded.again().endings


def test_a_decision_that_is_lost_leaves_the_transaction_open() -> None:
    bench, producer = opened()
    bench.holding = True
    token = bench.send_end(producer, commit=True)
    bench.lose()
    assert bench.replies[token].error is not NONE
    bench.holding = False
    bench.advance(1_000)
    assert not bench.endings
    assert bench.state().state is TransactionState.ONGOING
    bench.advance(TIMEOUT_MS)
    assert [ending.commit for ending in bench.endings] == [False], "and it times out as before"


def test_a_decision_that_cannot_be_written_leaves_the_transaction_open() -> None:
    bench, producer = opened()
    bench.append_error = ErrorCode.KAFKA_STORAGE_ERROR
    token = bench.send_end(producer, commit=True)
    assert bench.replies[token].error is ErrorCode.KAFKA_STORAGE_ERROR
    bench.append_error = None
    assert bench.end(producer, commit=True)[0] is NONE
    assert len(bench.endings) == 1


def test_a_decision_that_is_committed_late_is_carried_out() -> None:
    bench, producer = opened()
    bench.holding = True
    token = bench.send_end(producer, commit=True)
    bench.advance(WRITE_TIMEOUT_MS)
    assert bench.replies[token].error is ErrorCode.REQUEST_TIMED_OUT
    bench.let_go()
    bench.advance(1_000)
    assert [ending.commit for ending in bench.endings] == [True]


def test_an_end_that_is_lost_is_carried_out_again() -> None:
    bench, producer = opened()
    bench.end(producer, commit=True)
    (ending,) = bench.endings
    bench.holding = True
    bench.complete(ending)
    bench.lose()
    bench.holding = False
    bench.advance(1_000)
    assert ending in bench.endings
    bench.complete(ending)
    assert bench.state().state is TransactionState.COMPLETE_COMMIT


def test_markers_of_an_earlier_transaction_end_nothing() -> None:
    bench, producer = opened()
    bench.end(producer, commit=True)
    (ending,) = bench.endings
    bench.complete(ending)
    bench.add((producer[0], producer[1] + 1))
    bench.complete(ending)
    assert bench.state().state is TransactionState.ONGOING


def test_the_last_epoch_is_followed_by_a_new_producer_id() -> None:
    bench = with_epoch(LAST)
    assert bench.add((7, LAST)) is NONE
    assert bench.end((7, LAST), commit=True) == (NONE, 100, 0)
    (ending,) = bench.endings
    assert (ending.producer_id, ending.producer_epoch) == (7, LAST + 1), "the one that is kept for fencing"
    bench.complete(ending)
    assert bench.end((7, LAST), commit=True) == (NONE, 100, 0), "the answer may have been lost"
    assert bench.add((7, LAST)) is ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert bench.add((100, 0)) is NONE


def test_after_fencing_the_last_epoch_a_producer_gets_a_new_id() -> None:
    bench = with_epoch(LAST)
    assert bench.add((7, LAST)) is NONE
    assert bench.init()[0] is ErrorCode.CONCURRENT_TRANSACTIONS
    bench.complete(bench.endings[0])
    assert bench.state().producer_epoch == LAST + 1
    error, producer_id, epoch = bench.init(producer=(7, LAST))
    assert (error, epoch) == (NONE, 0)
    assert producer_id != 7


@pytest.mark.parametrize("epoch", [LAST, LAST + 1])
def test_an_exhausted_producer_that_starts_again_gets_a_new_id(epoch: int) -> None:
    assert with_epoch(epoch).init() == (NONE, 100, 0)


def test_only_unused_ids_at_rest_expire() -> None:
    config = TransactionConfig(
        transactional_id_expiration_ms=100_000, transaction_remove_expired_transaction_cleanup_interval_ms=10_000
    )
    bench = TransactionBench(config=config)
    bench.send_init("old")
    _, producer_id, epoch = bench.init("open")
    bench.send_add((producer_id, epoch), name="open")
    bench.advance(TIMEOUT_MS)
    (ending,) = bench.endings  # timed out, and its markers cannot be written
    bench.send_init("young")
    bench.advance(50_000)
    assert {name for name, _ in bench.machine.transactions()} == {"open", "young"}
    assert bench.log[-1].value is None
    assert {name for name, _ in bench.again().machine.transactions()} == {"open", "young"}
    bench.complete(ending)
    bench.advance(200_000)
    assert not list(bench.machine.transactions())


def test_reads_see_what_is_committed_only() -> None:
    bench, producer = opened()
    bench.holding = True
    bench.send_add(producer, ("c", 0))
    assert bench.verify(producer, A, ("c", 0)) == [NONE, ErrorCode.TRANSACTION_ABORTABLE]
    bench.let_go()
    assert bench.verify(producer, A, ("c", 0)) == [NONE, NONE]


def test_an_answer_that_changes_nothing_waits_for_what_it_rests_on() -> None:
    bench, producer = opened()
    bench.holding = True
    bench.send_add(producer, ("c", 0))
    known = bench.send_add(producer, ("c", 0))
    assert known not in bench.replies
    bench.let_go()
    assert bench.added(known) is NONE


def test_records_that_cannot_be_read_harm_no_others() -> None:
    bench, _ = opened()
    log = [CoordinatorRecord(b"\0\x09?", b""), CoordinatorRecord(b"\0\0\0\2tx", b"\0\1"), *bench.log]
    loaded = TransactionBench(log)
    assert loaded.state() == bench.state()._replace(last_producer_epoch=-1)
    report = loaded.machine.load_report()
    assert report == {"transactional_ids": 1, "open": 1, "to_be_ended": 0, "ignored": 1, "malformed": 1}
