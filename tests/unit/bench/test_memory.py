"""What the bench reads of the machine's memory."""

from __future__ import annotations

from bench.memory import free_bytes


def test_free_memory_is_what_nothing_is_in() -> None:
    meminfo = "MemTotal:       24732012 kB\nMemFree:        11911680 kB\nMemAvailable:   23586848 kB\n"
    assert free_bytes(meminfo) == 11911680 * 1024
