"""Heartbeats that are answered without the machine: what `ottla.broker.standing_heartbeats` does, without sockets."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple

from ottla.coordinator.group.machine import GroupMachine


@dataclass(slots=True)
class _Answer:
    group_id: str
    member_id: str
    is_right: Callable[[], bool]
    heard_ms: int | None = None


class Key(NamedTuple):
    """A request that is the same as another one is equal to it."""

    kind: str
    fields: Hashable


class StandingBeats:
    def __init__(self, machine: GroupMachine) -> None:
        self._machine = machine
        self._answers: dict[Key, _Answer] = {}

    def answer(self, key: Key, now_ms: int) -> bool:
        """Whether the request is answered here."""
        found = self._answers.get(key)
        if found is None:
            return False
        found.heard_ms = now_ms
        return True

    def let_stand(self, key: Key, group_id: str, member_id: str, is_right: Callable[[], bool]) -> None:
        """Args: is_right: Whether the machine would answer just so."""
        self._answers[key] = _Answer(group_id, member_id, is_right)

    def withdraw(self, changed: set[str]) -> None:
        """Something happened to these groups."""
        for key, answer in list(self._answers.items()):
            if answer.group_id in changed:
                self._withdraw(key)

    def withdraw_all(self) -> None:
        for key in list(self._answers):
            self._withdraw(key)

    def hear(self) -> None:
        for answer in self._answers.values():
            self._tell(answer)

    def check(self) -> None:
        for key, answer in self._answers.items():
            assert answer.is_right(), f"{key} is still answered"

    def _withdraw(self, key: Key) -> None:
        self._tell(self._answers.pop(key))

    def _tell(self, answer: _Answer) -> None:
        if answer.heard_ms is not None:
            self._machine.on_heard(answer.group_id, answer.member_id, answer.heard_ms)
            answer.heard_ms = None
