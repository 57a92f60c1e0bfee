"""Whether the broker under test serves transactions, and what a history of transactions must have left behind."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence

import pytest

from ottla.broker.dispatch import ADVERTISED
from ottla.protocol.versions import ApiKey

needs_transactions = pytest.mark.skipif(
    ApiKey.ADD_PARTITIONS_TO_TXN not in ADVERTISED and not os.environ.get("OTTLA_COMPAT_BOOTSTRAP"),
    reason="transactions are not served yet",
)


def check_history(
    seen: Sequence[str], *, committed: Collection[int], aborted: Collection[int], unknown: Collection[int], size: int
) -> None:
    """Check what a reader of committed records saw. Values are `transaction-record`, `size` records a transaction.

    Args:
        committed: Transactions whose commit was acknowledged.
        aborted: Those whose abort was, or that were never to be committed.
        unknown: Those whose end nobody heard of: all or nothing.
    """
    times = Counter(seen)
    assert not [value for value, count in times.items() if count > 1], "seen twice"
    by_transaction = Counter(int(value.split("-")[0]) for value in seen)
    lost = {number: by_transaction[number] for number in committed if by_transaction[number] != size}
    assert not lost, f"committed and not whole: {lost}"
    assert not [number for number in aborted if by_transaction[number]], "aborted and seen"
    torn = {number: by_transaction[number] for number in unknown if by_transaction[number] not in (0, size)}
    assert not torn, f"neither committed nor aborted as a whole: {torn}"
    assert by_transaction.keys() <= {*committed, *unknown}
    order = [value for value in seen if int(value.split("-")[0]) in by_transaction]
    expected = sorted(order, key=lambda value: tuple(map(int, value.split("-"))))
    assert order == expected, "out of order"
