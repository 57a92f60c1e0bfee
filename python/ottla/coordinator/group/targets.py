"""New targets for the members of a consumer group, and who waits until it is time for them.

Members that start together come within milliseconds of each other. So who would have new targets computed waits for a
moment, and as long as others come; one computation serves all of them, and all get what they keep, where a computation
for each of them would give partitions to the first that the last have to wait for. Targets that are being written are
not replaced either: who comes meanwhile waits until the write is committed, and then is served with the others.

Source: Kafka's `TargetAssignmentBuilder`; it computes targets for each heartbeat, or once in an interval.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ottla.common.frozen import frozen
from ottla.coordinator.group.assignors import ASSIGNORS
from ottla.coordinator.group.assignors.model import MemberSpec, Target
from ottla.coordinator.group.consumer import Assignment, ConsumerMember
from ottla.coordinator.group.events import TargetsDue, TimerEvent
from ottla.coordinator.group.reconciliation import Owned
from ottla.coordinator.group.topic_metadata import Topics
from ottla.coordinator.shard import Instant
from ottla.coordinator.timers import Deadline, Timers

QUIETS_MAX: Final = 10
"""How many times as long as it would be for one that comes alone targets may be put off while others come."""


@frozen
class Waiting:
    """A heartbeat of which everything is written but the step towards the target that is to come."""

    token: int
    member_id: str
    owned: Owned | None
    """As in `reconciliation.Goal`."""
    subscription_changed: bool
    assigned: Assignment
    """What the member had before."""
    wants_all: bool
    """The answer tells the whole assignment, whether it has changed or not."""


@dataclass(frozen=True, slots=True)
class _Open:
    due: Deadline[TimerEvent]
    quiet_ms: int
    closes_ms: int
    """When it is over, whoever may still come."""


class Turns:
    """For which groups targets are about to be computed or being written, and who waits. Lives in memory alone.

    A group's turn begins with the first that waits and lasts until nobody has come for a moment (`TargetsDue`), or
    begins when targets are handed out and lasts until they are written (`TargetsWritten`); `end` ends both.
    """

    def __init__(self, timers: Timers[TimerEvent]) -> None:
        self._timers = timers
        self._waiting: dict[str, list[Waiting]] = {}
        self._open: dict[str, _Open] = {}

    def is_under_way(self, group_id: str) -> bool:
        """Whether a step that needs new targets is to wait for others."""
        return group_id in self._waiting

    def begin(self, group_id: str) -> None:
        """Targets were handed out to be written. `end` follows, whatever becomes of them."""
        assert group_id not in self._waiting
        self._waiting[group_id] = []

    def wait(self, group_id: str, waiting: Waiting, now: Instant, *, quiet_ms: int) -> None:
        """Have a step wait for the end of the turn, and open one if there is none: it ends once nobody has come for
        `quiet_ms`."""
        if group_id not in self._waiting:
            self.begin(group_id)
            closes_ms = now.now_ms + QUIETS_MAX * quiet_ms
            self._open[group_id] = _Open(Deadline(TargetsDue(group_id)), quiet_ms, closes_ms)
        self._waiting[group_id].append(waiting)
        turn = self._open.get(group_id)
        if turn is not None:
            self._timers.schedule(turn.due, min(now.now_ms + turn.quiet_ms, turn.closes_ms))

    def give_up(self, group_id: str, token: int) -> bool:
        """Wait no longer in the name of a token; returns whether it did."""
        waiting = self._waiting.get(group_id, [])
        kept = [each for each in waiting if each.token != token]
        if len(kept) == len(waiting):
            return False
        waiting[:] = kept
        return True

    def end(self, group_id: str) -> list[Waiting]:
        """The turn is over; returns who waited, in the order in which they came."""
        self._open.pop(group_id, None)
        return self._waiting.pop(group_id)


def compute(
    members: Iterable[ConsumerMember],
    topics: Topics,
    *,
    assignor: str,
    topics_of: Callable[[str | None], Iterable[str]],
    target_of: Callable[[str], Target],
) -> Mapping[str, Target]:
    """The targets of all members.

    Args:
        topics_of: What an expression means.
        target_of: What a member was given last.
    """
    subscriptions: dict[tuple[tuple[str, ...], str | None], frozenset[uuid.UUID]] = {}
    specs = {}
    for member in members:
        metadata = member.metadata
        wish = metadata.subscribed_topic_names, member.regex
        subscribed = subscriptions.get(wish)
        if subscribed is None:
            subscribed = subscriptions[wish] = topics.ids_of({*wish[0], *topics_of(wish[1])})
        specs[member.member_id] = MemberSpec(
            subscribed=subscribed,
            current=target_of(member.member_id),
            instance_id=metadata.instance_id,
            rack_id=metadata.rack_id,
        )
    return ASSIGNORS[assignor](specs, topics)
