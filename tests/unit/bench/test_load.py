"""What Kafka's tools print, and what the bench makes of it."""

from __future__ import annotations

import pytest

from bench.load import copied, shared


def loop(second: int, done: int) -> str:
    return (
        f'{{"transactionalId":"t","stage":"ProcessLoop","time":"2026/11/28 12:18:{second:02}:500",'
        f'"totalProcessed":{done},"consumed":{done},"remaining":{1000 - done}}}\n'
    )


END = '{"transactionalId":"t","stage":"ShutdownComplete","time":"2026/11/28 12:18:59:000","totalProcessed":1000}\n'


def test_copying_is_timed_from_the_first_transaction_to_the_beginning_of_the_last() -> None:
    # The first report is repeated until the consumer has records; the last one waits for the clients to be closed.
    out = loop(1, 0) + loop(9, 0) + loop(11, 400) + loop(12, 400) + loop(13, 800) + END
    assert copied(out, 1000) == (200.0, 3)


@pytest.mark.parametrize("out", ["", loop(1, 0) + END.replace("1000}", "999}"), loop(1, 0) + END])
def test_a_copier_that_did_not_do_its_work_is_an_error(out: str) -> None:
    with pytest.raises(RuntimeError, match="TransactionalMessageCopier"):
        copied(out, 1000)


HEAD = "start.time, end.time, data.consumed.in.MB, MB.sec, nMsg.sec, data.consumed.in.nMsg, fetch.time.ms\n"


def interval(second: int, mib: float) -> str:
    return f"2026-11-28 12:19:00:000, 2026-11-28 12:19:{second:02}:000, {mib}, 1, 1, 1, 500 for share consumer 1\n"


def whole(records: int) -> str:
    return f"2026-11-28 12:19:00:000, 2026-11-28 12:19:59:000, 90.0, 1.5, 1.5, {records}, 6903\n"


def test_sharing_is_timed_from_the_first_records_on() -> None:
    out = HEAD + interval(7, 10.0) + interval(9, 50.0) + interval(11, 90.0) + HEAD + whole(1000)
    assert shared(out, 1000) == 20.0


@pytest.mark.parametrize(
    "out", [HEAD + whole(1000), HEAD + interval(7, 10.0) + interval(9, 50.0) + HEAD + whole(999), ""]
)
def test_a_share_consumer_that_got_too_little_is_an_error(out: str) -> None:
    with pytest.raises(RuntimeError, match="ShareConsumerPerformance"):
        shared(out, 1000)
