"""A consumer group of KIP-848: what its records say, and what follows from it.

A *target* is what a member shall have, computed for a group epoch; an *assignment* is what it has, and moves towards
the target heartbeat by heartbeat (`reconciliation`). Everything durable is in `TimelineDict`s, one record a key; the
counts and indexes beside them follow each record and are built again after a rollback.

Source: Kafka's `ConsumerGroup`, `ModernGroup` and `ConsumerGroupMember`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from enum import IntEnum, StrEnum
from typing import Final, TypeAlias

from ottla.common.frozen import frozen
from ottla.coordinator.group import consumer_records
from ottla.coordinator.group.assignors.model import Target
from ottla.coordinator.group.consumer_records import (
    AssignedPartitions,
    ConsumerGroupKey,
    ConsumerKey,
    ConsumerValue,
    CurrentAssignmentKey,
    CurrentAssignmentValue,
    GroupEpochValue,
    MemberMetadataKey,
    MemberMetadataValue,
    PartitionMetadataKey,
    RegularExpressionKey,
    RegularExpressionValue,
    TargetMemberKey,
    TargetMemberValue,
    TargetMetadataKey,
    TargetMetadataValue,
    TargetPartitions,
)
from ottla.coordinator.shard import CoordinatorRecord
from ottla.coordinator.timeline import Timeline, TimelineDict
from ottla.errors import ErrorCode

LEAVE_EPOCH: Final = -1
"""The epoch with which a member leaves for good."""
STATIC_LEAVE_EPOCH: Final = -2
"""The epoch with which a static member says that it is coming back, and that it has meanwhile."""

Assignment: TypeAlias = Mapping[uuid.UUID, Mapping[int, int]]
"""Partitions by topic id, each with the epoch at which the member got it; no topic without one."""


class Refused(Exception):
    """A request cannot be served as it stands.

    Attributes:
        message: For people.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


class ConsumerGroupState(StrEnum):
    """Written as the wire spells it."""

    EMPTY = "Empty"
    ASSIGNING = "Assigning"
    RECONCILING = "Reconciling"
    STABLE = "Stable"
    DEAD = "Dead"
    """Never the state of a group here: what describing an unknown group answers."""


class MemberState(IntEnum):
    """Where a member is on its way to its target; written into records."""

    STABLE = 0
    UNREVOKED_PARTITIONS = 1
    """It was asked to give partitions up, and has not said that it did."""
    UNRELEASED_PARTITIONS = 2
    """It waits for partitions that others have not given up."""
    UNKNOWN = 127
    """Written by a version that is not known here."""


_STATES: Final = {int(state): state for state in MemberState}
_NOBODY: Final = MemberMetadataValue(
    instance_id=None,
    rack_id=None,
    client_id="",
    client_host="",
    subscribed_topic_names=(),
    subscribed_topic_regex="",
    server_assignor=None,
    classic_member_metadata=None,
)


@frozen
class ConsumerMember:
    """A member as of its latest records."""

    member_id: str
    metadata: MemberMetadataValue = _NOBODY
    member_epoch: int = 0
    previous_member_epoch: int = -1
    state: MemberState = MemberState.STABLE
    assigned: Assignment = field(default_factory=dict)
    revoking: Assignment = field(default_factory=dict)
    """What it was asked to give up. It is the member's until it says that it is not."""

    @property
    def instance_id(self) -> str | None:
        return self.metadata.instance_id

    @property
    def regex(self) -> str | None:
        """The expression that it subscribes to; None if there is none."""
        return self.metadata.subscribed_topic_regex or None

    @property
    def is_classic(self) -> bool:
        """Whether it speaks the classic protocol."""
        return self.metadata.classic_member_metadata is not None

    def described(self, metadata: MemberMetadataValue) -> ConsumerMember:
        """The member as it describes itself now. Made by hand, as `replace` takes thrice as long."""
        return ConsumerMember(
            member_id=self.member_id,
            metadata=metadata,
            member_epoch=self.member_epoch,
            previous_member_epoch=self.previous_member_epoch,
            state=self.state,
            assigned=self.assigned,
            revoking=self.revoking,
        )

    def moved(
        self,
        member_epoch: int,
        previous_member_epoch: int,
        state: MemberState,
        assigned: Assignment,
        revoking: Assignment,
    ) -> ConsumerMember:
        """The member after a step. Made by hand, as `replace` takes thrice as long."""
        return ConsumerMember(
            member_id=self.member_id,
            metadata=self.metadata,
            member_epoch=member_epoch,
            previous_member_epoch=previous_member_epoch,
            state=state,
            assigned=assigned,
            revoking=revoking,
        )

    def is_reconciled(self, assignment_epoch: int) -> bool:
        return self.state is MemberState.STABLE and self.member_epoch == assignment_epoch

    def partitions(self) -> Iterator[tuple[uuid.UUID, int]]:
        """All that nobody else may have."""
        for assignment in (self.assigned, self.revoking):
            for topic_id, partitions in assignment.items():
                for partition in partitions:
                    yield topic_id, partition

    def assignment_epoch(self, topic_id: uuid.UUID | None, partition: int) -> int | None:
        """The epoch at which it got a partition; None if it does not have it."""
        for assignment in (self.assigned, self.revoking):
            epoch = None if topic_id is None else assignment.get(topic_id, {}).get(partition)
            if epoch is not None:
                return epoch
        return None

    def metadata_record(self, group_id: str) -> tuple[MemberMetadataKey, MemberMetadataValue]:
        return MemberMetadataKey(group=group_id, member=self.member_id), self.metadata

    def assignment_record(self, group_id: str) -> tuple[CurrentAssignmentKey, CurrentAssignmentValue]:
        return CurrentAssignmentKey(group=group_id, member=self.member_id), CurrentAssignmentValue(
            member_epoch=self.member_epoch,
            previous_member_epoch=self.previous_member_epoch,
            state=self.state,
            assigned_partitions=_written(self.assigned),
            partitions_pending_revocation=_written(self.revoking),
        )


def _written(assignment: Assignment) -> tuple[AssignedPartitions, ...]:
    return tuple(
        AssignedPartitions(topic_id=topic_id, partitions=tuple(epochs), assignment_epochs=tuple(epochs.values()))
        for topic_id, epochs in assignment.items()
    )


def _read(written: tuple[AssignedPartitions, ...], member_epoch: int) -> Assignment:
    """Partitions without epochs of their own, as versions before 4.3 wrote them, count from the member's."""
    found: dict[uuid.UUID, Mapping[int, int]] = {}
    for topic in written:
        epochs = topic.assignment_epochs
        if epochs is None or len(epochs) != len(topic.partitions):
            epochs = (max(member_epoch, 0),) * len(topic.partitions)
        if topic.partitions:
            found[topic.topic_id] = dict(zip(topic.partitions, epochs, strict=True))
    return found


def target_value(target: Target) -> TargetMemberValue:
    """A target as its record has it."""
    return TargetMemberValue(
        topic_partitions=tuple(
            TargetPartitions(topic_id=topic_id, partitions=tuple(sorted(partitions)))
            for topic_id, partitions in target.items()
        )
    )


def _read_target(value: TargetMemberValue) -> Target:
    return {t.topic_id: frozenset(t.partitions) for t in value.topic_partitions if t.partitions}


class Wishes:
    """How many members subscribe to what, and prefer which assignor."""

    __slots__ = ("assignors", "names", "regexes")

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.regexes: dict[str, int] = {}
        self.assignors: dict[str, int] = {}

    def copy(self) -> Wishes:
        other = Wishes()
        other.names, other.regexes = self.names.copy(), self.regexes.copy()
        other.assignors = self.assignors.copy()
        return other

    def count(self, member: ConsumerMember, change: int) -> Wishes:
        """Count a member in (1) or out (-1)."""
        _add(self.names, member.metadata.subscribed_topic_names, change)
        _add(self.regexes, () if member.regex is None else (member.regex,), change)
        assignor = member.metadata.server_assignor
        _add(self.assignors, () if assignor is None else (assignor,), change)
        return self

    def assignor(self, default: str) -> str:
        return max(self.assignors, key=lambda name: (self.assignors[name], name == default), default=default)


def _add(counts: dict[str, int], keys: Iterable[str], change: int) -> None:
    for key in keys:
        count = counts.get(key, 0) + change
        if count:
            counts[key] = count
        else:
            del counts[key]


class ConsumerGroup:
    """One group. It exists as long as there is a record of its epoch or of a member."""

    def __init__(self, group_id: str, timeline: Timeline) -> None:
        self.group_id: Final = group_id
        self._facts: TimelineDict[type[ConsumerKey], ConsumerValue] = TimelineDict(timeline)
        self.members: TimelineDict[str, ConsumerMember] = TimelineDict(timeline)
        self.targets: TimelineDict[str, Target] = TimelineDict(timeline)
        self.regexes: TimelineDict[str, RegularExpressionValue] = TimelineDict(timeline)
        """Expressions with the topics that they were found to mean."""
        self.static_members: dict[str, str] = {}
        self.owners: dict[tuple[uuid.UUID, int], str] = {}
        """Who has a partition, or was asked to give it up and has not said that it did."""
        self.wishes = Wishes()
        self.classic_count = 0
        """How many members speak the classic protocol."""
        self.checked_at_epoch: int | None = None
        """The group epoch that followed the last look at the topics; None: they may have changed since."""

    # What the records say

    @property
    def exists(self) -> bool:
        return ConsumerGroupKey in self._facts or len(self.members) > 0

    @property
    def is_committed(self) -> bool:
        return self._facts.get_committed(ConsumerGroupKey) is not None or self.members.has_committed

    @property
    def is_blank(self) -> bool:
        """Whether nothing is left of it and nothing can come back."""
        return all(d.is_blank for d in (self._facts, self.members, self.targets, self.regexes))

    @property
    def epoch(self) -> int:
        return _epoch(self._facts.get(ConsumerGroupKey))

    @property
    def committed_epoch(self) -> int:
        return _epoch(self._facts.get_committed(ConsumerGroupKey))

    @property
    def metadata_hash(self) -> int:
        value = self._facts.get(ConsumerGroupKey)
        return value.metadata_hash if isinstance(value, GroupEpochValue) else 0

    @property
    def assignment_epoch(self) -> int:
        """The group epoch for which the targets were computed."""
        return _assignment_epoch(self._facts.get(TargetMetadataKey))

    @property
    def committed_assignment_epoch(self) -> int:
        return _assignment_epoch(self._facts.get_committed(TargetMetadataKey))

    @property
    def assigned_wall_ms(self) -> int:
        """Unix milliseconds at which the targets were computed; 0: not known."""
        value = self._facts.get(TargetMetadataKey)
        return value.assignment_timestamp_ms if isinstance(value, TargetMetadataValue) else 0

    @property
    def has_legacy_metadata(self) -> bool:
        """Whether there is a record of Kafka 4.0 and before that has no use any more."""
        return PartitionMetadataKey in self._facts

    @property
    def state(self) -> ConsumerGroupState:
        return _state((m for _, m in self.members.items()), self.epoch, self.assignment_epoch)

    @property
    def committed_state(self) -> ConsumerGroupState:
        return _state(
            (m for _, m in self.members.committed_items()), self.committed_epoch, self.committed_assignment_epoch
        )

    def topics_of(self, regex: str | None) -> tuple[str, ...]:
        """What an expression was found to mean; nothing as long as nobody looked."""
        resolved = None if regex is None else self.regexes.get(regex)
        return () if resolved is None else resolved.topics

    def is_subscribed_to(self, topic: str) -> bool:
        return topic in self.wishes.names or any(topic in self.topics_of(regex) for regex in self.wishes.regexes)

    def target_of(self, member_id: str) -> Target:
        return self.targets.get(member_id) or {}

    def is_waiting(self, member: ConsumerMember) -> bool:
        """Whether somebody else still has what is in a member's target."""
        return any(
            self.owners.get((topic_id, partition)) not in (None, member.member_id)
            for topic_id, partitions in self.target_of(member.member_id).items()
            for partition in partitions
        )

    def static_member(self, instance_id: str) -> ConsumerMember | None:
        member_id = self.static_members.get(instance_id)
        return None if member_id is None else self.members.get(member_id)

    def committed_assignor(self, default: str) -> str:
        """What most members that say so prefer."""
        wishes = Wishes()
        for _, member in self.members.committed_items():
            wishes.count(member, 1)
        return wishes.assignor(default)

    # How they change

    def replay(self, key: ConsumerKey, value: ConsumerValue | None, *, offset: int) -> None:
        match key:
            case TargetMemberKey():
                if isinstance(value, TargetMemberValue):
                    self.targets.put(key.member, _read_target(value), offset=offset)
                else:
                    self.targets.remove(key.member, offset=offset)
            case CurrentAssignmentKey():
                self._replay_assignment(key.member, value, offset)
            case MemberMetadataKey():
                self._replay_member(key.member, value, offset)
            case RegularExpressionKey():
                if isinstance(value, RegularExpressionValue):
                    self.regexes.put(key.regular_expression, value, offset=offset)
                else:
                    self.regexes.remove(key.regular_expression, offset=offset)
            case _ if value is not None:
                self._facts.put(type(key), value, offset=offset)
            case _:
                self._facts.remove(type(key), offset=offset)

    def _replay_member(self, member_id: str, value: ConsumerValue | None, offset: int) -> None:
        old = self.members.get(member_id)
        if isinstance(value, MemberMetadataValue):
            new = (old or ConsumerMember(member_id=member_id)).described(value)
            self.members.put(member_id, new, offset=offset)
            self._follow(old, new)
        elif old is not None:
            self.members.remove(member_id, offset=offset)
            self._follow(old, None)

    def _replay_assignment(self, member_id: str, value: ConsumerValue | None, offset: int) -> None:
        old = self.members.get(member_id)
        if isinstance(value, CurrentAssignmentValue):
            new = (old or ConsumerMember(member_id=member_id)).moved(
                value.member_epoch,
                value.previous_member_epoch,
                _STATES.get(value.state, MemberState.UNKNOWN),
                _read(value.assigned_partitions, value.member_epoch),
                _read(value.partitions_pending_revocation, value.member_epoch),
            )
        elif old is not None:
            new = old.moved(LEAVE_EPOCH, LEAVE_EPOCH, MemberState.STABLE, {}, {})
        else:
            return
        self.members.put(member_id, new, offset=offset)
        self._follow(old, new)

    def _follow(self, old: ConsumerMember | None, new: ConsumerMember | None) -> None:
        if old is not None:
            for at in old.partitions():
                if self.owners.get(at) == old.member_id:
                    del self.owners[at]
        if new is not None:
            for at in new.partitions():
                self.owners[at] = new.member_id
        if old is not None and new is not None and old.metadata == new.metadata:
            return
        if old is not None:
            self._count(old, -1)
            if old.instance_id is not None and self.static_members.get(old.instance_id) == old.member_id:
                del self.static_members[old.instance_id]
        if new is not None:
            self._count(new, 1)
            if new.instance_id is not None:
                self.static_members[new.instance_id] = new.member_id

    def _count(self, member: ConsumerMember, change: int) -> None:
        self.wishes.count(member, change)
        self.classic_count += change * member.is_classic

    def rebuild(self) -> None:
        """Records were taken back: derive everything again."""
        self.static_members.clear()
        self.owners.clear()
        self.wishes = Wishes()
        self.classic_count = 0
        for _, member in self.members.items():
            self._follow(None, member)
        self.checked_at_epoch = None


def _epoch(value: ConsumerValue | None) -> int:
    """Groups begin at 1, so that their first member makes it 2."""
    return value.epoch if isinstance(value, GroupEpochValue) else 1


def _assignment_epoch(value: ConsumerValue | None) -> int:
    return value.assignment_epoch if isinstance(value, TargetMetadataValue) else 1


def _state(members: Iterable[ConsumerMember], epoch: int, assignment_epoch: int) -> ConsumerGroupState:
    everybody = list(members)
    if not everybody:
        return ConsumerGroupState.EMPTY
    if epoch > assignment_epoch:
        return ConsumerGroupState.ASSIGNING
    if all(member.is_reconciled(assignment_epoch) for member in everybody):
        return ConsumerGroupState.STABLE
    return ConsumerGroupState.RECONCILING


def tombstones_of(group: ConsumerGroup) -> list[CoordinatorRecord]:
    """What takes a whole group away."""
    group_id = group.group_id
    keys: list[ConsumerKey] = []
    for kind in (CurrentAssignmentKey, TargetMemberKey):
        keys += [kind(group=group_id, member=member_id) for member_id, _ in group.members.items()]
    keys.append(TargetMetadataKey(group=group_id))
    keys += [MemberMetadataKey(group=group_id, member=member_id) for member_id, _ in group.members.items()]
    keys += [RegularExpressionKey(group=group_id, regular_expression=regex) for regex, _ in group.regexes.items()]
    keys += [PartitionMetadataKey(group=group_id), ConsumerGroupKey(group=group_id)]
    return [consumer_records.record(key, None) for key in keys]
