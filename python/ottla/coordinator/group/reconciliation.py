"""How a member moves from what it has towards its target.

    STABLE --new target--> gives up what is not in it --UNREVOKED_PARTITIONS--> until it says that it has not any more;
    then it takes the new epoch with all that is free --UNRELEASED_PARTITIONS--> while others still have the rest
    --> STABLE

A partition changes hands only through a heartbeat of its old owner that does not list it any more, so that no two
members ever have it.

Source: Kafka's `CurrentAssignmentBuilder`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

from ottla.common.frozen import frozen
from ottla.coordinator.group.assignors.model import Target
from ottla.coordinator.group.consumer import Assignment, ConsumerMember, MemberState, Refused
from ottla.errors import ErrorCode

Owned: TypeAlias = Mapping[uuid.UUID, Collection[int]]
"""What a member says that it has, by topic id."""


@frozen
class Goal:
    """What is known at a heartbeat."""

    epoch: int
    """Of the target."""
    target: Target
    subscribed: frozenset[uuid.UUID]
    """Topics that the member subscribes to and that exist. What is in the target beyond them does not count."""
    subscription_changed: bool
    """The member has just changed its subscription, which the target may not know of yet."""
    owned: Owned | None
    """None: the member does not say, and so still has whatever it had."""
    is_taken: Callable[[uuid.UUID, int], bool]
    """Whether another member has a partition."""


def reconcile(member: ConsumerMember, goal: Goal) -> ConsumerMember:
    """The member after one step; the same one if there is none to take. Raises: Refused (FENCED_MEMBER_EPOCH)."""
    match member.state:
        case MemberState.STABLE:
            if member.member_epoch != goal.epoch:
                return _advance(member, goal, member.member_epoch)
            return _drop_unsubscribed(member, goal) if goal.subscription_changed else member
        case MemberState.UNREVOKED_PARTITIONS if _still_owns(goal.owned, member.revoking):
            return _drop_unsubscribed(member, goal) if goal.subscription_changed else member
        case MemberState.UNREVOKED_PARTITIONS | MemberState.UNRELEASED_PARTITIONS:
            return _advance(member, goal, member.member_epoch)
        case MemberState.UNKNOWN:
            # A state of a later version: only a member that has nothing can be brought to a known one.
            if goal.owned is None or goal.owned:
                raise Refused(
                    ErrorCode.FENCED_MEMBER_EPOCH, "The member's state is not known. It has to start over with nothing."
                )
            return _advance(member, goal, goal.epoch)


def _still_owns(owned: Owned | None, revoking: Assignment) -> bool:
    if owned is None:
        return True
    return any(p in revoking.get(topic_id, ()) for topic_id, partitions in owned.items() for p in partitions)


def _drop_unsubscribed(member: ConsumerMember, goal: Goal) -> ConsumerMember:
    """Take away what the member does not subscribe to any more; a new target will see to the rest."""
    dropped = {t: epochs for t, epochs in member.assigned.items() if t not in goal.subscribed}
    if not dropped:
        return member
    assigned = {t: epochs for t, epochs in member.assigned.items() if t in goal.subscribed}
    revoking = {t: dict(epochs) for t, epochs in member.revoking.items()}
    for topic_id, epochs in dropped.items():
        revoking.setdefault(topic_id, {}).update(epochs)
    if _still_owns(goal.owned, revoking):
        return _moved(member, member.member_epoch, MemberState.UNREVOKED_PARTITIONS, assigned, revoking)
    # It has given them up by itself.
    return _moved(member, member.member_epoch, member.state, assigned, member.revoking)


def _advance(member: ConsumerMember, goal: Goal, member_epoch: int) -> ConsumerMember:
    assigned: dict[uuid.UUID, dict[int, int]] = {}
    revoking: dict[uuid.UUID, dict[int, int]] = {}
    free: dict[uuid.UUID, list[int]] = {}
    waits = False
    for topic_id in dict.fromkeys([*member.assigned, *goal.target]):
        target = goal.target.get(topic_id, frozenset()) if topic_id in goal.subscribed else frozenset()
        had = member.assigned.get(topic_id, {})
        # What it is giving up is its own still, and may come back to it.
        giving = member.revoking.get(topic_id, ())
        keeps = {p: epoch for p, epoch in had.items() if p in target}
        if keeps:
            assigned[topic_id] = keeps
        if len(keeps) < len(had):
            revoking[topic_id] = {p: epoch for p, epoch in had.items() if p not in target}
        for partition in sorted(target - had.keys()):
            if partition not in giving and goal.is_taken(topic_id, partition):
                waits = True
            else:
                free.setdefault(topic_id, []).append(partition)
    if revoking and _still_owns(goal.owned, revoking):
        return _moved(member, member_epoch, MemberState.UNREVOKED_PARTITIONS, assigned, revoking)
    for topic_id, partitions in free.items():
        assigned.setdefault(topic_id, {}).update(dict.fromkeys(partitions, goal.epoch))
    state = MemberState.UNRELEASED_PARTITIONS if waits else MemberState.STABLE
    return _moved(member, goal.epoch, state, assigned, {})


def _moved(
    member: ConsumerMember, epoch: int, state: MemberState, assigned: Assignment, revoking: Assignment
) -> ConsumerMember:
    return member.moved(epoch, member.member_epoch, state, assigned, revoking)
