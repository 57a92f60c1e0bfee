"""Commits that are carried out without the machine: what the data plane and `ottla.broker.standing_commits` do, over a
log in a list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.commit_pattern import CommitPattern
from ottla.coordinator.group.machine import GroupMachine
from ottla.coordinator.shard import CoordinatorRecord, LoadedRecord
from ottla.protocol.messages.offset_commit import OffsetCommitRequest, OffsetCommitResponse
from tests.unit.coordinator.group.standing import Key


@dataclass(slots=True)
class Stands:
    """How requests like one are carried out."""

    group_id: str
    member_id: str
    pattern: CommitPattern
    response: OffsetCommitResponse
    is_right: Callable[[], bool]


class Asked(NamedTuple):
    """A request that was carried out so."""

    request: OffsetCommitRequest
    caller: Caller


@dataclass(slots=True)
class _Append:
    key: Key
    stands: Stands
    asked: Asked
    base_offset: int
    records: list[CoordinatorRecord]
    heard_ms: int
    is_taken: bool = False

    @property
    def end_offset(self) -> int:
        return self.base_offset + len(self.records)


class StandingWrites:
    def __init__(self, machine: GroupMachine) -> None:
        self._machine = machine
        self._stands: dict[Key, Stands] = {}
        self._waiting: list[_Append] = []
        self._committed: dict[Key, _Append] = {}
        """The last of each that was not taken in."""

    def find(self, key: Key) -> Stands | None:
        """How a request is carried out; one of a connection at a time."""
        return None if any(append.key == key for append in self._waiting) else self._stands.get(key)

    def let_stand(self, key: Key, stands: Stands) -> None:
        self._stands[key] = stands

    def note(
        self,
        key: Key,
        stands: Stands,
        asked: Asked,
        base_offset: int,
        records: list[CoordinatorRecord],
        *,
        heard_ms: int,
    ) -> None:
        """Records were appended for a request."""
        self._waiting.append(_Append(key, stands, asked, base_offset, records, heard_ms))

    def settle(self, high_watermark: int) -> tuple[list[tuple[int, OffsetCommitResponse]], int]:
        """The answers to what is committed by now, by token, and how many offsets of it nobody knows of."""
        settled = [append for append in self._waiting if append.end_offset <= high_watermark]
        self._waiting = [append for append in self._waiting if append.end_offset > high_watermark]
        unknown = [append for append in settled if not append.is_taken]
        for append in unknown:
            self._committed[append.key] = append
        answers = [(append.asked.caller.token, append.stands.response) for append in settled]
        return answers, sum(len(append.records) for append in unknown)

    def lose(self) -> list[Asked]:
        """What waits is lost, and nothing stands; returns the requests, which the machine must see after all."""
        lost, self._waiting = [append.asked for append in self._waiting], []
        self._stands.clear()
        return lost

    def take(self) -> list[LoadedRecord]:
        """What the machine must take in; it hears of the members."""
        taken = sorted(self._committed.values(), key=lambda append: append.base_offset)
        taken += [append for append in self._waiting if not append.is_taken]
        self._committed.clear()
        for append in taken:
            append.is_taken = True
            self._machine.membership.on_heard(append.stands.group_id, append.stands.member_id, append.heard_ms)
        return [
            LoadedRecord(offset, record.key, record.value, content=record.content)
            for append in taken
            for offset, record in enumerate(append.records, append.base_offset)
        ]

    def withdraw(self, group_ids: set[str]) -> None:
        """Something happened to these groups."""
        self._stands = {key: stands for key, stands in self._stands.items() if stands.group_id not in group_ids}

    def withdraw_all(self) -> None:
        self._stands.clear()

    def check(self) -> None:
        for key, stands in self._stands.items():
            assert stands.is_right(), f"{key} is still carried out"
