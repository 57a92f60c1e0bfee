"""What is profiled."""

from __future__ import annotations

from bench.profile import PROFILED
from bench.scenarios import SCENARIOS


def test_every_profiled_load_is_one_of_the_bench() -> None:
    assert set(PROFILED) <= {scenario.name for scenario in SCENARIOS}
