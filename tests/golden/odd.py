"""Odd requests by the dozen: every field of a good request in turn holds what it should not.

A good request is given; here it is bent. One field at a time becomes too small, too large, empty, null, illegal or
unknown, and every list becomes empty or holds its entry twice.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import struct
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ottla.protocol.codec import encode_request
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, Probe, register_probe, versions

AS_IT_IS: Final = "as it is"
UNKNOWN_ID: Final = uuid.UUID(int=0x5A << 64)

_NUMBERS: Final = {"-1": -1, "-2": -2, "0": 0, "1": 1, "7": 7}
_GREATEST: Final = tuple(2**bits - 1 for bits in (63, 32, 31, 16, 15, 7))
_LEAST: Final = tuple(-(2**bits) for bits in (63, 31, 15, 7))

Bend = tuple[str, Any]
"""What was done, and the request or value it was done to."""

Bending = tuple[str, Callable[[], Any]]
"""What can be done, and the doing: of the many bends of a request most are only looked through."""


def bends(
    request: Any, *, api: ApiKey, version: int, wanted: Callable[[str], bool] = lambda what: True
) -> Iterator[Bend]:
    """Yield the request as it is and with each field bent, as far as the version can say it and it is wanted."""
    good = encode_request(api, version, request)
    if wanted(AS_IT_IS):
        yield AS_IT_IS, request
    for what, bend in _bent_fields(request):
        if not wanted(what):
            continue
        bent = bend()
        try:
            found = encode_request(api, version, bent)
        except (TypeError, ValueError, AttributeError, struct.error):
            continue
        if found != good:
            yield what, bent


def _bent_fields(value: Any) -> Iterator[Bending]:
    for field in dataclasses.fields(value):
        for what, odd in _odd(getattr(value, field.name), is_nullable="None" in str(field.type)):
            yield f"{field.name} {what}", partial(_with_field, value, field.name, odd)


def _with_field(value: Any, name: str, odd: Callable[[], Any]) -> Any:
    return dataclasses.replace(value, **{name: odd()})


def _odd(value: Any, *, is_nullable: bool = False) -> Iterator[Bending]:
    for what, odd in _odd_values(value, is_nullable=is_nullable):
        yield what, partial(_same, odd)
    if isinstance(value, tuple) and value:
        inner = _bent_fields(value[0]) if dataclasses.is_dataclass(value[0]) else _odd(value[0])
        yield from ((f"/ {what}", partial(_with_first, value, odd)) for what, odd in inner)
    elif dataclasses.is_dataclass(value):
        yield from ((f"/ {what}", odd) for what, odd in _bent_fields(value))


def _same(value: Any) -> Any:
    return value


def _with_first(values: tuple[Any, ...], odd: Callable[[], Any]) -> tuple[Any, ...]:
    return (odd(), *values[1:])


def _odd_values(value: Any, *, is_nullable: bool) -> Iterator[Bend]:
    if is_nullable and value is not None:
        yield "null", None
    if isinstance(value, bool):
        yield str(not value), not value
    elif isinstance(value, int):
        yield from ((what, odd) for what, odd in _NUMBERS.items() if odd != value)
        yield from (("greatest", odd) for odd in _GREATEST)
        yield from (("least", odd) for odd in _LEAST)
    elif isinstance(value, str) or (is_nullable and value is None):
        yield from {"empty": "", "illegal": f"{value} b", "long": (value or "") + "x" * 300}.items()
    elif isinstance(value, bytes):
        yield from {"empty": b"", "short": b"\0", "odd": b"\xff\xff\xff\xff\xff"}.items()
    elif isinstance(value, uuid.UUID):
        yield from {"zero": None, "unknown": UNKNOWN_ID}.items()
    elif isinstance(value, tuple):
        yield "none", ()
        if value:
            yield "twice", (*value, value[0])


def _once(found: Iterator[Bend]) -> Iterator[Bend]:
    """Of several widths of the greatest number, the first that the field holds."""
    seen: set[str] = set()
    for what, request in found:
        if what not in seen:
            seen.add(what)
            yield what, request


Good = Callable[[Lab, str], Any]
"""Makes a good request. The name is new each time: what the request is about can be made under it."""


@dataclass(frozen=True)
class GoodRequest:
    """What is bent, and in which versions it is sent."""

    api: ApiKey
    stem: str
    make: Good
    least: int
    most: int
    leave_out: Collection[str]
    reduce: Callable[[Lab, Answer], Answer]

    def versions(self) -> list[int]:
        return list(versions(self.api, least=self.least, most=self.most))

    def ask(self, lab: Lab, number: int, version: int, bend: Callable[[Any], Any]) -> Answer:
        """Send one of these requests, bent, under a name of its own."""
        own = lab.name(f"{self.api.name.lower()}{self.stem}-{number}")
        answer = lab.plain(self.reduce(lab, lab.ask(self.api, bend(self.make(lab, own)), version=version)))
        return json.loads(json.dumps(answer).replace(lab.plain(own), "NAME"))


good_requests: list[GoodRequest] = []
"""All that `odd` registered."""


def odd(
    api: ApiKey,
    *,
    stem: str = "",
    least: int = 0,
    most: int = 99,
    leave_out: Collection[str] = (),
    reduce: Callable[[Lab, Answer], Answer] = lambda _, answer: answer,
) -> Callable[[Good], Good]:
    """Register a probe that sends a good request with each field bent, in each version.

    Args:
        stem: tells apart several probes of one API.
        leave_out: bends that are not asked, such as a timeout that nobody waits for.
        reduce: takes out of an answer what is the cluster's own.
    """

    def register(good: Good) -> Good:
        request = GoodRequest(api, stem, good, least, most, leave_out, reduce)
        numbers = itertools.count()
        name = f"{api.name.lower()}{stem}"

        def ask(lab: Lab) -> Answer:
            told: dict[str, dict[str, Answer]] = {}
            for version in request.versions():
                shape = good(lab, lab.name(f"{name}-{next(numbers)}"))
                for what in [what for what, _ in _once(bends(shape, api=api, version=version))]:
                    if what not in leave_out:

                        def bend(base: Any, what: str = what, version: int = version) -> Any:
                            found = bends(base, api=api, version=version, wanted=what.__eq__)
                            return next(bent for _, bent in found)

                        told.setdefault(what, {})[str(version)] = request.ask(lab, next(numbers), version, bend)
            return told

        good_requests.append(request)
        register_probe(Probe(good.__module__.rpartition(".")[2], name, ask, None, is_by_version=True))
        return good

    return register
