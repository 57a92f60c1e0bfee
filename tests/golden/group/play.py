"""Plays a scenario against a broker and writes down its answers, with what differs from run to run replaced."""

from __future__ import annotations

import dataclasses
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from ottla.errors import ErrorCode
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.versions import ApiKey
from tests.golden.group.steps import Receive, Send, Step, Wait
from tests.integration.wire import Closed, Wire

TOPIC = "golden"
DESCRIBE_RETRIES_MAX = 10
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Ask = Callable[[str, Send], None]


def substitute(value: Any, names: Mapping[str, Any]) -> Any:
    """Put what names stand for into a message."""
    if isinstance(value, str) and value.startswith("$"):
        for name in sorted(names, key=len, reverse=True):
            if value == f"${name}":
                return names[name]
            if value.startswith(f"${name}"):
                return str(names[name]) + value[len(name) + 1 :]
        raise KeyError(value)
    if isinstance(value, tuple):
        return tuple(substitute(v, names) for v in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: substitute(getattr(value, f.name), names) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **changed)
    return value


def plain(value: Any, names: Mapping[str, Any]) -> Any:
    """A message as JSON, with names for what is not the same twice."""
    if isinstance(value, ErrorCode):
        return value.name
    if isinstance(value, str):
        for name, meaning in names.items():
            if isinstance(meaning, str) and meaning:
                value = value.replace(meaning, f"${name}")
        return _UUID.sub("<uuid>", value)
    if isinstance(value, uuid.UUID):
        return next((f"${name}" for name, meaning in names.items() if meaning == value), str(value))
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple | list):
        return [plain(v, names) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {f.name: plain(getattr(value, f.name), names) for f in dataclasses.fields(value)}
        if found.get("error_message") not in (None, "", "NONE"):
            found["error_message"] = "<text>"
        return {k: v for k, v in found.items() if k != "throttle_time_ms"}
    return value


def settle_order(api: ApiKey, answer: Any, names: Mapping[str, Any]) -> Any:
    """Sort what has no order, and leave out other groups of the broker."""
    if not isinstance(answer, dict):
        return answer
    if api is ApiKey.LIST_GROUPS:
        answer["groups"] = sorted((g for g in answer["groups"] if g["group_id"].startswith("$g")), key=str)
    if api is ApiKey.OFFSET_FETCH:
        for group in [answer, *answer["groups"]]:
            group["topics"] = sorted(group["topics"], key=str)
            for topic in group["topics"]:
                topic["partitions"] = sorted(topic["partitions"], key=str)
    if api is ApiKey.DESCRIBE_GROUPS:
        for group in answer["groups"]:
            group["members"] = sorted(group["members"], key=str)
        answer["groups"] = sorted(answer["groups"], key=str)
    if api is ApiKey.DELETE_GROUPS:
        answer["results"] = sorted(answer["results"], key=str)
    if api is ApiKey.JOIN_GROUP:
        answer["members"] = sorted(answer["members"], key=str)
    if api is ApiKey.FIND_COORDINATOR:
        for found in [answer, *answer["coordinators"]]:
            for key in ("port", "node_id", "host"):
                found[key] = "given" if found[key] not in (-1, "") else found[key]
    return answer


class Player:
    """One broker, reached over sockets."""

    def __init__(self, port: int) -> None:
        self._port = port

    def topic_id(self) -> uuid.UUID:
        with Wire(self._port) as wire:
            request = MetadataRequest(topics=(MetadataRequestTopic(name=TOPIC),))
            (topic,) = wire.ask(ApiKey.METADATA, 12, request).topics
            assert topic.error_code is ErrorCode.NONE, topic
            assert topic.topic_id is not None
            return topic.topic_id  # type: ignore[no-any-return]

    def play(self, steps: list[Step], *, group_id: str) -> list[Any]:
        """Returns the answers in the order of the steps that take them; "closed" for a closed connection."""
        names: dict[str, Any] = {"g": group_id, "topic": TOPIC, "topic-id": self.topic_id()}
        wires: dict[str, Wire] = {}
        sent: dict[str, Send] = {}
        answers = []
        try:
            for step in steps:
                match step:
                    case Wait(ms):
                        time.sleep(ms / 1000)
                    case Send(connection, api, version, message, client_id):
                        wire = wires.get(connection)
                        if wire is None:
                            wire = wires[connection] = Wire(self._port)
                        sent[connection] = step
                        wire.send(api, version, substitute(message, names), client_id=client_id)
                    case Receive(connection, keep):
                        asked = sent[connection]
                        try:
                            response = wires[connection].receive(asked.api, asked.version)
                            for _ in range(DESCRIBE_RETRIES_MAX):
                                if asked.api is not ApiKey.DESCRIBE_GROUPS or response.groups[0].group_state != "Dead":
                                    break
                                # A refused first join creates the group, and is answered before its record is written.
                                time.sleep(0.02)
                                message = substitute(asked.message, names)
                                response = wires[connection].ask(asked.api, asked.version, message)
                        except Closed:
                            wires.pop(connection).close()
                            answers.append("closed")
                            continue
                        for name, field in keep.items():
                            names[name] = getattr(response, field)
                        answers.append(settle_order(asked.api, plain(response, names), names))
        finally:
            for wire in wires.values():
                wire.close()
        return answers
