"""Counters and their Prometheus text form. No library: a broker has a few dozen series, all known here.

Names follow Prometheus' rules (base units, `_total` on counters); the format is its text exposition 0.0.4.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final

from ottla.protocol.versions import ApiKey

LATENCY_BUCKETS_MS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)

Labels = Mapping[str, str]


class _Latency:
    __slots__ = ("buckets", "count", "sum_ms")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_BUCKETS_MS) + 1)
        self.count = 0
        self.sum_ms = 0

    def observe(self, duration_ms: int) -> None:
        self.buckets[bisect_left(LATENCY_BUCKETS_MS, duration_ms)] += 1
        self.count += 1
        self.sum_ms += duration_ms


class Metrics:
    """What the Python side counts; the native side's own counters join in `exposition.render`."""

    def __init__(self) -> None:
        self.latencies: dict[ApiKey, _Latency] = {}
        self.errors: dict[tuple[ApiKey, str], int] = {}
        self.connections_accepted = 0
        self.connections_refused = 0

    def on_request(self, api: ApiKey, duration_ms: int) -> None:
        latency = self.latencies.get(api)
        if latency is None:
            latency = self.latencies[api] = _Latency()
        latency.observe(duration_ms)

    def families(self) -> Iterable[Family]:
        durations = Family("ottla_request_duration_seconds", "histogram", "Time in handlers, waits included.")
        for api, latency in self.latencies.items():
            labels = {"api": api.name}
            total = 0
            for bound_ms, count in zip((*LATENCY_BUCKETS_MS, None), latency.buckets, strict=True):
                total += count
                bound = "+Inf" if bound_ms is None else f"{bound_ms / 1000:g}"
                durations.add(total, labels | {"le": bound}, suffix="_bucket")
            durations.add(latency.sum_ms / 1000, labels, suffix="_sum")
            durations.add(latency.count, labels, suffix="_count")
        yield durations
        errors = Family("ottla_request_errors_total", "counter", "Requests whose handler failed.")
        for (api, code), count in self.errors.items():
            errors.add(count, {"api": api.name, "error": code})
        yield errors
        accepted = Family("ottla_connections_accepted_total", "counter", "Connections taken in.")
        accepted.add(self.connections_accepted)
        yield accepted


class Family:
    """One metric: its help, its type and its samples."""

    def __init__(self, name: str, kind: str, about: str) -> None:
        self.name = name
        self._lines = [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]

    def add(self, value: float, labels: Labels | None = None, *, suffix: str = "") -> Family:
        shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in (labels or {}).items())
        self._lines.append(f"{self.name}{suffix}{'{' + shown + '}' if shown else ''} {value:g}")
        return self

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render(families: Iterable[Family]) -> str:
    """Return the families in Prometheus' text format."""
    return "".join(family.text() for family in families)
