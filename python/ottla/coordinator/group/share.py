"""A share group of KIP-932: what its records say, and what follows from it.

Its members share partitions, so nothing is taken from one before another gets it: a member has its whole target as
soon as it hears of it. Which partitions may be given out the share coordinator's states decide: only those that have
one (`StatePartitions`).

Source: Kafka's `ShareGroup`, `ModernGroup` and `ShareGroupMember`.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import field, replace
from enum import StrEnum
from typing import Final, NamedTuple

from ottla.common.frozen import frozen
from ottla.coordinator.group import share_records
from ottla.coordinator.group.assignors.model import Target
from ottla.coordinator.group.share_records import (
    NamedPartitions,
    NamedTopic,
    ShareCurrentAssignmentKey,
    ShareCurrentAssignmentValue,
    ShareGroupEpochValue,
    ShareGroupKey,
    ShareKey,
    ShareMemberMetadataKey,
    ShareMemberMetadataValue,
    SharePartitions,
    ShareStatePartitionsKey,
    ShareStatePartitionsValue,
    ShareTargetMemberKey,
    ShareTargetMemberValue,
    ShareTargetMetadataKey,
    ShareTargetMetadataValue,
    ShareValue,
)
from ottla.coordinator.shard import CoordinatorRecord
from ottla.coordinator.timeline import Timeline, TimelineDict

STABLE: Final = 0
"""The only state of a member on its way to its target: it is there at once."""
_NOBODY: Final = ShareMemberMetadataValue(rack_id=None, client_id="", client_host="", subscribed_topic_names=())


class ShareGroupState(StrEnum):
    """Written as the wire spells it."""

    EMPTY = "Empty"
    STABLE = "Stable"


class NamedSet(NamedTuple):
    """Partitions of a topic, with its name."""

    name: str
    partitions: frozenset[int]


class StatePartitions(NamedTuple):
    """Which partitions the share coordinator keeps states of, by topic id."""

    initializing: Mapping[uuid.UUID, NamedSet] = {}
    initialized: Mapping[uuid.UUID, NamedSet] = {}
    deleting: Mapping[uuid.UUID, str] = {}
    """Names."""

    def record(self, group_id: str) -> CoordinatorRecord:
        value = ShareStatePartitionsValue(
            initializing_topics=_named(self.initializing),
            initialized_topics=_named(self.initialized),
            deleting_topics=tuple(NamedTopic(topic_id=i, topic_name=name) for i, name in self.deleting.items()),
        )
        return share_records.record(ShareStatePartitionsKey(group=group_id), value)

    def known(self) -> Mapping[uuid.UUID, NamedSet]:
        """Those that have a state, or may."""
        return union(self.initializing, self.initialized)

    def without_topics(self, topic_ids: Iterable[uuid.UUID]) -> StatePartitions:
        gone = set(topic_ids)
        return StatePartitions(
            {topic_id: found for topic_id, found in self.initializing.items() if topic_id not in gone},
            {topic_id: found for topic_id, found in self.initialized.items() if topic_id not in gone},
            {topic_id: name for topic_id, name in self.deleting.items() if topic_id not in gone},
        )

    def with_initializing(self, topics: Mapping[uuid.UUID, NamedSet]) -> StatePartitions:
        """Their states are about to begin; what was about to be forgotten of them is not any more."""
        return self._replace(
            initializing=union(self.initializing, topics),
            deleting={i: name for i, name in self.deleting.items() if i not in topics},
        )

    def with_initialized(self, topics: Mapping[uuid.UUID, NamedSet]) -> StatePartitions:
        return self.without_initializing(topics)._replace(initialized=union(self.initialized, topics))

    def without_initializing(self, topics: Mapping[uuid.UUID, NamedSet]) -> StatePartitions:
        left = {}
        for topic_id, found in self.initializing.items():
            partitions = found.partitions - (topics[topic_id].partitions if topic_id in topics else frozenset())
            if partitions:
                left[topic_id] = found._replace(partitions=partitions)
        return self._replace(initializing=left)


def union(*maps: Mapping[uuid.UUID, NamedSet]) -> dict[uuid.UUID, NamedSet]:
    found: dict[uuid.UUID, NamedSet] = {}
    for topics in maps:
        for topic_id, more in topics.items():
            before = found.get(topic_id)
            found[topic_id] = more if before is None else NamedSet(more.name, before.partitions | more.partitions)
    return found


def _named(topics: Mapping[uuid.UUID, NamedSet]) -> tuple[NamedPartitions, ...]:
    return tuple(
        NamedPartitions(topic_id=topic_id, topic_name=found.name, partitions=tuple(sorted(found.partitions)))
        for topic_id, found in topics.items()
    )


def _read_named(topics: Iterable[NamedPartitions]) -> dict[uuid.UUID, NamedSet]:
    return {t.topic_id: NamedSet(t.topic_name, frozenset(t.partitions)) for t in topics}


@frozen
class ShareMember:
    """A member as of its latest records."""

    member_id: str
    metadata: ShareMemberMetadataValue = _NOBODY
    member_epoch: int = 0
    previous_member_epoch: int = -1
    assigned: Target = field(default_factory=dict)

    @property
    def topics(self) -> tuple[str, ...]:
        """Names that it subscribes to."""
        return self.metadata.subscribed_topic_names

    def metadata_record(self, group_id: str) -> CoordinatorRecord:
        return share_records.record(ShareMemberMetadataKey(group=group_id, member=self.member_id), self.metadata)

    def assignment_record(self, group_id: str) -> CoordinatorRecord:
        value = ShareCurrentAssignmentValue(
            member_epoch=self.member_epoch,
            previous_member_epoch=self.previous_member_epoch,
            state=STABLE,
            assigned_partitions=written(self.assigned),
        )
        return share_records.record(ShareCurrentAssignmentKey(group=group_id, member=self.member_id), value)


def written(target: Target) -> tuple[SharePartitions, ...]:
    """Partitions as records have them."""
    return tuple(
        SharePartitions(topic_id=topic_id, partitions=tuple(sorted(partitions)))
        for topic_id, partitions in target.items()
    )


def _read(partitions: Iterable[SharePartitions]) -> Target:
    return {t.topic_id: frozenset(t.partitions) for t in partitions if t.partitions}


class ShareGroup:
    """One group. It exists as long as there is a record of its epoch, of a member or of states."""

    def __init__(self, group_id: str, timeline: Timeline) -> None:
        self.group_id: Final = group_id
        self._facts: TimelineDict[type[ShareKey], ShareValue] = TimelineDict(timeline)
        self.members: TimelineDict[str, ShareMember] = TimelineDict(timeline)
        self.targets: TimelineDict[str, Target] = TimelineDict(timeline)
        self.subscribers: Counter[str] = Counter()
        """How many members subscribe to a topic, by name."""
        self.checked_at_epoch: int | None = None
        """The group epoch that followed the last look at the topics; None: they may have changed since."""
        self.asked_ms: dict[uuid.UUID, int] = {}
        """When the share coordinator was asked to begin the states of a topic, in monotonic milliseconds."""

    @property
    def exists(self) -> bool:
        return ShareGroupKey in self._facts or ShareStatePartitionsKey in self._facts or len(self.members) > 0

    @property
    def is_committed(self) -> bool:
        committed = self._facts.get_committed
        has_fact = committed(ShareGroupKey) is not None or committed(ShareStatePartitionsKey) is not None
        return has_fact or self.members.has_committed

    @property
    def is_blank(self) -> bool:
        """Whether nothing is left of it and nothing can come back."""
        return all(d.is_blank for d in (self._facts, self.members, self.targets))

    @property
    def epoch(self) -> int:
        return _epoch(self._facts.get(ShareGroupKey))

    @property
    def committed_epoch(self) -> int:
        return _epoch(self._facts.get_committed(ShareGroupKey))

    @property
    def metadata_hash(self) -> int:
        value = self._facts.get(ShareGroupKey)
        return value.metadata_hash if isinstance(value, ShareGroupEpochValue) else 0

    @property
    def assignment_epoch(self) -> int:
        """The group epoch for which the targets were computed."""
        return _assignment_epoch(self._facts.get(ShareTargetMetadataKey))

    @property
    def committed_assignment_epoch(self) -> int:
        return _assignment_epoch(self._facts.get_committed(ShareTargetMetadataKey))

    @property
    def assigned_wall_ms(self) -> int:
        """Unix milliseconds at which the targets were computed; 0: not known."""
        value = self._facts.get(ShareTargetMetadataKey)
        return value.assignment_timestamp_ms if isinstance(value, ShareTargetMetadataValue) else 0

    @property
    def states(self) -> StatePartitions | None:
        """None: no partition has, or is to have, a state."""
        return _states(self._facts.get(ShareStatePartitionsKey))

    @property
    def committed_states(self) -> StatePartitions | None:
        return _states(self._facts.get_committed(ShareStatePartitionsKey))

    @property
    def committed_state(self) -> ShareGroupState:
        return ShareGroupState.STABLE if self.members.has_committed else ShareGroupState.EMPTY

    def target_of(self, member_id: str) -> Target:
        return self.targets.get(member_id) or {}

    def has_unassigned(self, existing: Container[uuid.UUID]) -> bool:
        """Whether members subscribe to partitions of existing topics that have states and are in nobody's target."""
        states = self.states
        if states is None or not len(self.members) or not self.subscribers:
            return False
        given: dict[uuid.UUID, set[int]] = {}
        for _, target in self.targets.items():
            for topic_id, partitions in target.items():
                given.setdefault(topic_id, set()).update(partitions)
        return any(
            topic_id in existing and found.name in self.subscribers and given.get(topic_id, set()) != found.partitions
            for topic_id, found in states.initialized.items()
        )

    # What records change

    def replay(self, key: ShareKey, value: ShareValue | None, *, offset: int) -> None:
        if isinstance(key, ShareTargetMemberKey):
            if isinstance(value, ShareTargetMemberValue):
                self.targets.put(key.member, _read(value.topic_partitions), offset=offset)
            else:
                self.targets.remove(key.member, offset=offset)
        elif isinstance(key, ShareCurrentAssignmentKey):
            assert value is None or isinstance(value, ShareCurrentAssignmentValue)
            self._replay_assignment(key.member, value, offset)
        elif isinstance(key, ShareMemberMetadataKey):
            assert value is None or isinstance(value, ShareMemberMetadataValue)
            self._replay_member(key.member, value, offset)
        elif value is None:
            self._facts.remove(type(key), offset=offset)
        else:
            self._facts.put(type(key), value, offset=offset)

    def _replay_member(self, member_id: str, value: ShareMemberMetadataValue | None, offset: int) -> None:
        old = self.members.get(member_id)
        if value is None:
            self.members.remove(member_id, offset=offset)
            new = None
        else:
            new = replace(old or ShareMember(member_id=member_id), metadata=value)
            self.members.put(member_id, new, offset=offset)
        self._follow(old, new)

    def _replay_assignment(self, member_id: str, value: ShareCurrentAssignmentValue | None, offset: int) -> None:
        old = self.members.get(member_id)
        if value is None and old is None:
            return
        new = old or ShareMember(member_id=member_id)
        if value is None:
            new = replace(new, member_epoch=-1, previous_member_epoch=-1, assigned={})
        else:
            new = replace(
                new,
                member_epoch=value.member_epoch,
                previous_member_epoch=value.previous_member_epoch,
                assigned=_read(value.assigned_partitions),
            )
        self.members.put(member_id, new, offset=offset)
        self._follow(old, new)

    def _follow(self, old: ShareMember | None, new: ShareMember | None) -> None:
        for member, change in ((old, -1), (new, 1)):
            for name in () if member is None else member.topics:
                self.subscribers[name] += change
                if not self.subscribers[name]:
                    del self.subscribers[name]

    def rebuild(self) -> None:
        """Records were taken back: derive everything again."""
        self.subscribers.clear()
        for _, member in self.members.items():
            self._follow(None, member)
        self.checked_at_epoch = None
        self.asked_ms.clear()


def member_tombstones(group_id: str, member_id: str) -> list[CoordinatorRecord]:
    """What takes a member away."""
    return [
        share_records.record(kind(group=group_id, member=member_id), None)
        for kind in (ShareCurrentAssignmentKey, ShareTargetMemberKey, ShareMemberMetadataKey)
    ]


def share_tombstones_of(group: ShareGroup) -> list[CoordinatorRecord]:
    """What takes a whole group away."""
    found = [r for member_id, _ in group.members.items() for r in member_tombstones(group.group_id, member_id)]
    kinds = (ShareTargetMetadataKey, ShareStatePartitionsKey, ShareGroupKey)
    return found + [share_records.record(kind(group=group.group_id), None) for kind in kinds]


def _epoch(value: ShareValue | None) -> int:
    """Groups begin at 1, so that their first member makes it 2."""
    return value.epoch if isinstance(value, ShareGroupEpochValue) else 1


def _assignment_epoch(value: ShareValue | None) -> int:
    return value.assignment_epoch if isinstance(value, ShareTargetMetadataValue) else 1


def _states(value: ShareValue | None) -> StatePartitions | None:
    if not isinstance(value, ShareStatePartitionsValue):
        return None
    return StatePartitions(
        _read_named(value.initializing_topics),
        _read_named(value.initialized_topics),
        {t.topic_id: t.topic_name for t in value.deleting_topics},
    )
