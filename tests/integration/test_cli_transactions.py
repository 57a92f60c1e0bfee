"""`ottla transactions` and what `ottla dump` shows of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.coordinator.partitioning import partition_of
from ottla.errors import ErrorCode
from ottla.testing.broker import EmbeddedBroker
from tests.integration.test_cli import Ottla, ottla
from tests.integration.transactional import TransactionalProducer, committed_values
from tests.integration.wire import Wire

__all__ = ["ottla"]  # a fixture

SOON_S = 10.0
"""Less than a client's requests may take (30 s): nothing was waited for that does not come."""


@pytest.fixture
def wire(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    settings = {"transaction.partition.verification.enable": "false"}
    with EmbeddedBroker(data_dir, settings=settings) as broker, Wire(broker.port) as connected:
        monkeypatch.setenv("OTTLA_BOOTSTRAP_SERVER", broker.bootstrap_servers)
        connected.create("t")
        yield connected


def test_an_open_transaction_is_shown_and_can_be_fenced(ottla: Ottla, wire: Wire) -> None:
    producer = TransactionalProducer(wire, "payments").init()
    assert ottla("transactions", "list", "--json").json == [
        {"transactional_id": "payments", "producer_id": producer.producer_id, "state": "Empty", "coordinator_id": 1}
    ]
    assert producer.produce("t", b"v") is ErrorCode.NONE
    described = ottla("transactions", "describe", "payments", "--json").json
    assert (described["state"], described["partitions"], described["timeout_ms"]) == ("Ongoing", ["t-0"], 60_000)
    assert described["begun"]
    assert b"Ongoing" in ottla("transactions", "describe", "payments").out
    assert len(ottla("transactions", "list", "--state", "Ongoing", "--pattern", "pay.*", "--json").json) == 1
    assert ottla("transactions", "list", "--older-than", "3600", "--json").json == []
    (known,) = ottla("transactions", "producers", "t:0", "--json").json
    assert known["transaction_start_offset"] == 0
    assert ottla("transactions", "find-hanging", "--older-than-minutes", "0", "--json").json == []
    assert ottla("transactions", "fence", "payments", "--json").json["producer_epoch"] == 2
    assert producer.end(commit=True) is ErrorCode.PRODUCER_FENCED
    assert committed_values(wire, "t", until=2) == []


def test_a_transaction_that_hangs_is_found_and_aborted(ottla: Ottla, wire: Wire) -> None:
    producer = TransactionalProducer(wire, "lost").init()
    assert producer.produce("t", b"v", version=11) is ErrorCode.NONE, "the coordinator is not told"
    (hanging,) = ottla("transactions", "find-hanging", "-t", "t", "--older-than-minutes", "0", "--json").json
    assert (hanging["producer_id"], hanging["transaction_start_offset"]) == (producer.producer_id, 0)
    assert ottla("transactions", "find-hanging", "--json").json == [], "it is young"
    wrong = ottla("transactions", "abort", "t:0", "--start-offset", "7")
    assert (wrong.status, wrong.err) == (1, "ottla: no transaction that is open in t-0 begins at 7\n")
    aborted = ottla("transactions", "abort", "t:0", "--start-offset", "0")
    assert aborted.out == f"Aborted the transaction of producer {producer.producer_id} in t-0.\n".encode()
    assert ottla("transactions", "find-hanging", "--older-than-minutes", "0").out == b"No transaction hangs.\n"
    assert committed_values(wire, "t", until=2) == []


def test_what_does_not_exist_is_said(ottla: Ottla, wire: Wire) -> None:
    absent = ottla("transactions", "describe", "absent")
    assert (absent.status, absent.err) == (1, "ottla: absent: TRANSACTIONAL_ID_NOT_FOUND\n")
    assert ottla("transactions", "fence", "absent").status == 1
    assert ottla("transactions", "list").out == b"There are no transactional ids.\n"
    assert ottla("transactions", "list", "--state", "Nonsense").err == "ottla: no such state: Nonsense\n"
    assert "INVALID_REGULAR_EXPRESSION" in ottla("transactions", "list", "--pattern", "(").err
    assert ottla("transactions", "producers", "t").status == 2
    began_s = time.monotonic()
    assert ottla("transactions", "producers", "absent:0").err == "ottla: absent-0 does not exist\n"
    assert ottla("transactions", "abort", "t:9", "--start-offset", "0").err == "ottla: t-9 does not exist\n"
    assert time.monotonic() - began_s < SOON_S


def test_the_log_of_transactions_is_dumped_in_words(ottla: Ottla, wire: Wire, data_dir: Path) -> None:
    producer = TransactionalProducer(wire, "payments").init()
    assert producer.produce("t", b"v") is ErrorCode.NONE
    index = partition_of("payments", 50)
    segment = data_dir / f"__transaction_state-{index}" / "00000000000000000000.log"
    rows = [json.loads(line) for line in ottla("dump", segment, "--records", "--json").lines]
    states = [(row["transactional_id"], row["state"], row["partitions"]) for row in rows if "state" in row]
    assert states == [("payments", "Empty", []), ("payments", "Ongoing", ["t-0"])]
