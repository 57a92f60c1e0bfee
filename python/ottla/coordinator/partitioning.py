"""Which partition of an internal topic, and so which broker, a group or a transactional id belongs to."""

from __future__ import annotations

import functools


@functools.lru_cache(maxsize=10_000)
def partition_of(key: str, partition_count: int) -> int:
    """The partition of an id: Java's `String.hashCode`, which counts UTF-16 units, modulo the partitions."""
    units = key.encode("utf-16-be", "surrogatepass")
    found = 0
    for i in range(0, len(units), 2):
        found = (31 * found + (units[i] << 8 | units[i + 1])) & 0xFFFFFFFF
    signed = found - (1 << 32) if found & 0x80000000 else found
    # Kafka's `Utils.abs`: the one number that has no positive counterpart counts as 0.
    return (0 if signed == -(1 << 31) else abs(signed)) % partition_count
