"""What the Python side of a broker counts, and Prometheus' text form of any metric.

No library: a broker has a few dozen families, all known here and in `exposition`. Names follow Prometheus' rules (base
units, `_total` on counters); the format is its text exposition 0.0.4.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ottla.protocol.versions import ApiKey
from ottla.share.acknowledgement import AcknowledgeType

LATENCY_BUCKETS_US: Final = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
                             1_000_000, 5_000_000, 30_000_000)  # fmt: skip

Labels = Mapping[str, str]


class ApiCounters:
    """One API that Python answers."""

    __slots__ = ("errors", "latency_counts", "latency_sum_us", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        """Requests whose handler failed or that were refused."""
        self.latency_counts = [0] * (len(LATENCY_BUCKETS_US) + 1)
        self.latency_sum_us = 0


class ShareCounters:
    """What members of share groups did."""

    __slots__ = ("acknowledged_records", "acknowledgements", "acquired_records")

    def __init__(self) -> None:
        self.acquired_records = 0
        self.acknowledgements = 0
        """Requests with acknowledgements."""
        self.acknowledged_records: Counter[AcknowledgeType] = Counter()


class Metrics:
    """Counters since the start."""

    def __init__(self) -> None:
        self.share = ShareCounters()
        self.apis: dict[ApiKey, ApiCounters] = {}
        self.connections_accepted = 0
        self.malformed_requests = 0

    def on_request(self, api: ApiKey, *, duration_us: int, failed: bool) -> None:
        counters = self.apis.get(api)
        if counters is None:
            counters = self.apis[api] = ApiCounters()
        counters.requests += 1
        counters.errors += failed
        counters.latency_counts[bisect_left(LATENCY_BUCKETS_US, duration_us)] += 1
        counters.latency_sum_us += duration_us


class Family:
    """One metric: its help, its type and its samples."""

    def __init__(self, name: str, kind: str, about: str) -> None:
        """Args: kind: counter, gauge or histogram."""
        self.name = name
        self._lines = [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]

    def add(self, value: float, labels: Labels | None = None, *, suffix: str = "") -> Family:
        shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in (labels or {}).items())
        number = value if isinstance(value, int) else f"{value:.6g}"
        self._lines.append(f"{self.name}{suffix}{'{' + shown + '}' if shown else ''} {number}")
        return self

    def add_histogram(self, counts: Sequence[int], bounds_us: Sequence[int], sum_us: int, labels: Labels) -> Family:
        """Add a histogram of seconds from counts by upper bound; the last count has no bound."""
        total = 0
        for bound_us, count in zip((*bounds_us, None), counts, strict=True):
            total += count
            bound = "+Inf" if bound_us is None else f"{bound_us / 1e6:g}"
            self.add(total, {**labels, "le": bound}, suffix="_bucket")
        return self.add(sum_us / 1e6, labels, suffix="_sum").add(total, labels, suffix="_count")

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render(families: Iterable[Family]) -> str:
    """Return the families in Prometheus' text format."""
    return "".join(family.text() for family in families)
