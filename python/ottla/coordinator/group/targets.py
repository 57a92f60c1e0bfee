"""New targets for the members of a consumer group, and who waits until it is time for them.

Targets that are being written are not replaced: who comes meanwhile and would have new ones computed waits, and when
the write is committed one computation serves all of them. Members that join together thereby get what they keep,
where a computation for each of them would give partitions to the first that the last have to wait for.

Source: Kafka's `TargetAssignmentBuilder`; it computes targets for each heartbeat, or once in an interval.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ottla.coordinator.group.assignors import ASSIGNORS
from ottla.coordinator.group.assignors.model import MemberSpec, Target
from ottla.coordinator.group.consumer import Assignment, ConsumerMember
from ottla.coordinator.group.reconciliation import Owned
from ottla.coordinator.group.topic_metadata import Topics


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(slots=True)
class Turns:
    """Whose targets are being written, and who waits for the next ones. Lives in memory alone."""

    _waiting: dict[str, list[Waiting]] = field(default_factory=dict)

    def is_writing(self, group_id: str) -> bool:
        return group_id in self._waiting

    def begin(self, group_id: str) -> None:
        """Targets were handed out to be written. `end` follows, whatever becomes of them."""
        assert group_id not in self._waiting
        self._waiting[group_id] = []

    def wait(self, group_id: str, waiting: Waiting) -> None:
        self._waiting[group_id].append(waiting)

    def end(self, group_id: str) -> list[Waiting]:
        """The write is over; returns who waited, in the order in which they came."""
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
