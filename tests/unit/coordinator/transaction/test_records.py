"""Records of `__transaction_state` against those of a real Kafka, which said itself what they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ottla.coordinator.transaction import records
from ottla.coordinator.transaction.records import MalformedRecord, RecordContent
from ottla.coordinator.transaction.transaction import Transaction

RECORDED = json.loads((Path(__file__).parents[3] / "golden" / "transaction_state" / "kafka-4.3.1.json").read_text())


def meaning(transaction: Transaction) -> dict[str, Any]:
    return {
        "producerId": transaction.producer_id,
        "previousProducerId": transaction.previous_producer_id,
        "nextProducerId": transaction.next_producer_id,
        "producerEpoch": transaction.producer_epoch,
        "transactionTimeoutMs": transaction.timeout_ms,
        "transactionStatus": int(transaction.state),
        "transactionPartitions": transaction.partitions,
        "transactionLastUpdateTimestampMs": transaction.last_update_timestamp_ms,
        "transactionStartTimestampMs": transaction.start_timestamp_ms,
        "clientTransactionVersion": transaction.client_version,
    }


def kafkas_meaning(data: dict[str, Any]) -> dict[str, Any]:
    absent = {"previousProducerId": -1, "nextProducerId": -1, "clientTransactionVersion": 0}
    partitions = {(p["topic"], i) for p in data["transactionPartitions"] or () for i in p["partitionIds"]}
    return {**absent, **data, "transactionPartitions": partitions}


@pytest.mark.parametrize("row", RECORDED, ids=[f"{i}-v{row['says']['version']}" for i, row in enumerate(RECORDED)])
def test_kafkas_records_are_read_and_written(row: dict[str, Any]) -> None:
    key, value = bytes.fromhex(row["key"]), bytes.fromhex(row["value"])
    content = records.decode(key, value)
    assert isinstance(content, RecordContent)
    assert content.transaction is not None
    assert meaning(content.transaction) == kafkas_meaning(row["says"]["data"])
    written = records.record(content.transactional_id, content.transaction, transaction_version=row["says"]["version"])
    assert written.key == key
    assert written.value is not None
    # Partitions of a topic stand in no order in Kafka's: compared is what is read from them.
    assert len(written.value) == len(value)
    assert records.decode(written.key, written.value) == content


def test_both_versions_of_all_states_are_recorded() -> None:
    seen = {(row["says"]["version"], row["says"]["data"]["transactionStatus"]) for row in RECORDED}
    assert seen == {(version, state) for version in (0, 1) for state in range(6)}


def test_a_tombstone_forgets_the_id() -> None:
    written = records.tombstone("tx")
    assert written.value is None
    assert records.decode(written.key, None) == RecordContent("tx", None)


def test_unknown_kinds_are_told_apart_from_damage() -> None:
    assert records.decode(b"\0\7whatever", b"") == 7
    good = records.record("tx", Transaction(1, 2), transaction_version=2)
    assert good.value is not None
    damaged = [
        (b"\0", good.value),
        (b"\0\0\0\7tx", good.value),
        (good.key, b"\0"),
        (good.key, b"\0\7" + good.value[2:]),
        (good.key, good.value[:-3]),
        (good.key, good.value[:16] + b"\x09" + good.value[17:]),
    ]
    for key, value in damaged:
        with pytest.raises(MalformedRecord):
            records.decode(key, value)
