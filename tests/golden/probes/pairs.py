"""Two fields wrong at once: which fault is named tells the order in which an API checks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, Probe, register_probe
from tests.golden.odd import Bend, GoodRequest, bends, good_requests
from tests.golden.probes.malformed import SOURCES

TELLING = {"-2", "empty", "illegal", "unknown", "null", "none"}
"""Values that are refused in most places; others would tell little more."""

UNASKED = {ApiKey.API_VERSIONS, ApiKey.LIST_GROUPS, ApiKey.LIST_CONFIG_RESOURCES, ApiKey.LIST_TRANSACTIONS}
"""They filter what others have made."""

WAITS = (ApiKey.JOIN_GROUP, "-again")
"""Some of these begin a rebalance."""


def codes(answer: Answer) -> Answer:
    """The error codes of an answer, or that there is none: its form is told where one field is wrong."""
    if not isinstance(answer, dict):
        return answer
    found = set()
    open_values: list[Any] = [answer]
    while open_values:
        value = open_values.pop()
        if isinstance(value, dict):
            found |= {code for key, code in value.items() if key.endswith("error_code")}
            open_values += value.values()
        elif isinstance(value, list):
            open_values += value
    return sorted(found)


def field_of(what: str) -> str:
    return what.rpartition(" ")[0]


def telling(good: GoodRequest, request: Any, *, only: str | None = None) -> Iterator[Bend]:
    """Yield those bends that tell something; or just one of them."""

    def wanted(what: str) -> bool:
        is_telling = what.rpartition(" ")[2] in TELLING and what not in good.leave_out
        return is_telling if only is None else what == only

    return bends(request, api=good.api, version=good.versions()[-1], wanted=wanted)


def pairs(good: GoodRequest, request: Any) -> Iterator[Bend]:
    """Bend two fields, in the order in which the request has them."""
    order = {what: index for index, (what, _) in enumerate(telling(good, request))}
    for first, bent in telling(good, request):
        for second, both in telling(good, bent):
            if field_of(first) != field_of(second) and order[first] < order.get(second, -1):
                yield f"{first}, {second}", both


def register(good: GoodRequest) -> None:
    name = f"{good.api.name.lower()}{good.stem}"
    numbers = itertools.count()
    version = good.versions()[-1]

    def ask(lab: Lab) -> Answer:
        told: dict[str, dict[str, Answer]] = {}
        shape = good.make(lab, lab.name(f"{name}-pairs"))
        for what in [what for what, _ in pairs(good, shape)]:

            def bend(base: Any, what: str = what) -> Any:
                for one in what.split(", "):
                    base = next(bent for _, bent in telling(good, base, only=one))
                return base

            told[what] = {str(version): codes(good.ask(lab, 100_000 + next(numbers), version, bend))}
        return told

    register_probe(Probe("pairs", name, ask, None, is_by_version=True))


assert SOURCES, "the modules that register good requests"
for _good in good_requests:
    if _good.api not in UNASKED and (_good.api, _good.stem) != WAITS:
        register(_good)
