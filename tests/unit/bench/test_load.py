"""What Kafka's tools print, and what the bench makes of it."""

from __future__ import annotations

import pytest

from bench.load import copied


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
