"""Groups live where Kafka puts them."""

from __future__ import annotations

import pytest

from ottla.coordinator.partitioning import partition_of


@pytest.mark.parametrize(
    ("group_id", "partition"),
    [
        # java.lang.String.hashCode, asked of a JVM
        ("", 0),
        ("a", 47),
        ("golden-848", 32),
        ("polygenelubricants", 0),  # hash code Integer.MIN_VALUE
        ("\U0001f600", 49),
        ("group-é", 33),
    ],
)
def test_the_partition_is_javas_hash(group_id: str, partition: int) -> None:
    assert partition_of(group_id, 50) == partition
