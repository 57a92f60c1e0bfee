"""Bodies that are damaged: cut, too long, or another message. Told is whether there is an answer."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from ottla.protocol.codec import encode_request, is_flexible
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, Probe, register_probe
from tests.golden.odd import GoodRequest, good_requests
from tests.golden.probes import (
    odd_cluster,
    odd_commits,
    odd_groups,
    odd_logs,
    odd_members,
    odd_reassignments,
    odd_topics,
    odd_transactions,
)
from tests.golden.wire import CLOSED, ClosedByBroker

SOURCES = (odd_cluster, odd_commits, odd_groups, odd_logs, odd_members, odd_reassignments, odd_topics, odd_transactions)
"""Imported for the good requests that they register."""

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "last byte missing": lambda body: body[:-1],
    "second half missing": lambda body: body[: len(body) // 2],
    "nothing": lambda body: b"",
    "one byte more": lambda body: body + b"\0",
    "many bytes more": lambda body: body + b"\xff" * 9,
    "all ones": lambda body: b"\xff" * len(body),
    "all zeros": lambda body: bytes(len(body)),
    "first byte inverted": lambda body: bytes(byte ^ 255 if index == 0 else byte for index, byte in enumerate(body)),
    "half of it inverted": lambda body: bytes(byte ^ 255 if index % 2 else byte for index, byte in enumerate(body)),
}

SILENT = {(ApiKey.PRODUCE, "all zeros")}
"""Not asked: nobody awaits an answer to acks=0."""


def told(lab: Lab, api: ApiKey, version: int, body: bytes) -> Answer:
    with lab.connect() as connection:
        try:
            connection.send(api, version, body)
            connection.receive_body(flexible=api is not ApiKey.API_VERSIONS and is_flexible(api, version))
        except ClosedByBroker:
            return CLOSED
    return "answered"


def register(good: GoodRequest) -> None:
    numbers = itertools.count()
    api, name = good.api, f"{good.api.name.lower()}{good.stem}"

    def ask(lab: Lab) -> Answer:
        found: dict[str, dict[str, Answer]] = {}
        for version in good.versions():
            for what, damage in DAMAGES.items():
                if (api, what) not in SILENT:
                    request = good.make(lab, lab.name(f"malformed-{name}-{next(numbers)}"))
                    body = damage(encode_request(api, version, request))
                    found.setdefault(what, {})[str(version)] = told(lab, api, version, body)
        return found

    register_probe(Probe("malformed", name, ask, None, is_by_version=True))


for _good in good_requests:
    register(_good)
