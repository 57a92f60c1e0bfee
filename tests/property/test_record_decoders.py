"""Records of internal topics that were damaged, or written by somebody else: malformed, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ottla._native import decode_batches
from ottla.client.core.assignors import MalformedSubscription, decode_assignment, decode_subscription
from ottla.coordinator.group import records as group_records
from ottla.coordinator.group.record_schema import MalformedRecord as MalformedGroupRecord
from ottla.coordinator.transaction import records as transaction_records
from ottla.metadata import records as metadata_records

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDS = [
    (record[2] or b"", record[3] or b"")
    for path in sorted(GOLDEN.rglob("*.log"))
    for batch in decode_batches(path.read_bytes())
    for record in batch.records
]
DECODERS: dict[str, Callable[[bytes, bytes], Any]] = {
    "metadata": lambda _, value: metadata_records.decode_record(value),
    "groups": group_records.decode,
    "transactions": transaction_records.decode,
    "subscriptions": lambda _, value: decode_subscription(value),
    "assignments": lambda _, value: decode_assignment(value),
}
MALFORMED = (
    metadata_records.MalformedRecord,
    MalformedGroupRecord,
    transaction_records.MalformedRecord,
    MalformedSubscription,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A key or value as Kafka wrote it, with some bytes cut out, put in or changed."""
    content = bytearray(draw(st.sampled_from(draw(st.sampled_from(RECORDS)))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 4))] = draw(
            st.one_of(st.binary(max_size=6), st.just(b"\x7f\xff\xff\xf0"), st.just(b"\xff\xff"))
        )
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@pytest.mark.parametrize("name", DECODERS)
@given(key=damaged(), value=damaged())
@settings(max_examples=100, deadline=None)
def test_damaged_records_are_malformed_and_nothing_else(name: str, key: bytes, value: bytes) -> None:
    try:
        DECODERS[name](key, value)
    except MALFORMED:
        return
