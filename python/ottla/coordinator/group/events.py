"""What the machine tells its later self: deadlines that end, and writes that were committed or lost."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from ottla.coordinator.group.share import NamedSet
from ottla.protocol.messages.join_group import JoinGroupRequestProtocol


class SessionEnds(NamedTuple):
    """A member, or an id handed out and not yet used, was not heard of in time."""

    group_id: str
    member_id: str


class JoinPhaseEnds(NamedTuple):
    group_id: str


class SyncPhaseEnds(NamedTuple):
    group_id: str


class ExpiryCheckDue(NamedTuple):
    """Look for offsets and groups past their retention."""


class ConsumerSessionEnds(NamedTuple):
    """A member of a consumer group was not heard of in time."""

    group_id: str
    member_id: str


class RevocationOverdue(NamedTuple):
    """A member of a consumer group was to give partitions up, and the time for it is over."""

    group_id: str
    member_id: str
    member_epoch: int
    """What it was then. If it has moved on, all is well."""


class ClassicStepOverdue(NamedTuple):
    """A member of a consumer group that speaks the classic protocol was to join again, or to sync."""

    group_id: str
    member_id: str


class ShareSessionEnds(NamedTuple):
    """A member of a share group was not heard of in time."""

    group_id: str
    member_id: str


class TargetsDue(NamedTuple):
    """Members of a consumer group wait for new targets, and no others have come for a moment."""

    group_id: str


class AdoptionDue(NamedTuple):
    """Records were taken back a moment ago, or could not be written: look after whom nobody looks after."""


MemberOverdue: TypeAlias = ConsumerSessionEnds | RevocationOverdue | ClassicStepOverdue
TimerEvent: TypeAlias = (
    SessionEnds
    | JoinPhaseEnds
    | SyncPhaseEnds
    | ExpiryCheckDue
    | MemberOverdue
    | ShareSessionEnds
    | TargetsDue
    | AdoptionDue
)


class GroupCreated(NamedTuple):
    group_id: str


class AssignmentStored(NamedTuple):
    """The leader's assignment of one generation."""

    group_id: str
    generation_id: int
    assignments: Mapping[str, bytes]


class StaticMemberReplaced(NamedTuple):
    """A static member came back under a new id while the group was stable; the rest is to undo it."""

    group_id: str
    group_instance_id: str
    member_id: str
    old_member_id: str
    old_leader_id: str | None
    old_protocols: tuple[JoinGroupRequestProtocol, ...]
    old_rebalance_timeout_ms: int
    old_session_timeout_ms: int
    may_skip_assignment: bool
    """The client knows JoinGroup 9: as leader it can be told that no assignment is wanted of it (KIP-814)."""


class GroupDowngraded(NamedTuple):
    """A consumer group whose members all speak the classic protocol has become a classic group."""

    group_id: str


class MembersPutOut(NamedTuple):
    """Members of a consumer or share group were taken out, perhaps because they were overdue."""

    group_id: str


class TargetsWritten(NamedTuple):
    """New targets of a consumer group."""

    group_id: str


class StepPutOff(NamedTuple):
    """What a heartbeat of a consumer group writes that waits for targets."""

    group_id: str
    token: int


class StatesInitializing(NamedTuple):
    """It was written that the states of partitions are to begin for a share group."""

    group_id: str
    state_epoch: int
    topics: Mapping[uuid.UUID, NamedSet]


WriteEvent: TypeAlias = GroupCreated | AssignmentStored | StaticMemberReplaced | GroupDowngraded
Then: TypeAlias = WriteEvent | MembersPutOut | TargetsWritten | StepPutOff | StatesInitializing
"""What a write may name to be told what became of it."""
