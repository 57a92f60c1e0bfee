"""A classic consumer group in memory: its state, members, votes and waiting requests.

                      member joins or leaves, leader rejoins
        +-------------------------------------------------------------+
        v                                                             |
    PreparingRebalance --all joined, or time is up--> CompletingRebalance --assignment stored--> Stable
        |        ^                                                    |                            |
        |        +------------- member joins or leaves ---------------+----------------------------+
        +--nobody left--> Empty --first member joins--> PreparingRebalance

Only what `GroupMetadataValue` holds is durable: an Empty or a Stable group. Everything else (who is asked to rejoin,
who waits for which reply, every deadline) is rebuilt or forgotten when the shard is loaded elsewhere; clients
then find their requests failed and come again. This module changes one group and knows no clock; the phases are
moved by `rebalance`.

Source: Kafka's `ClassicGroup`, `ClassicGroupMember`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ottla.coordinator.group.events import JoinPhaseEnds, SessionEnds, SyncPhaseEnds, TimerEvent
from ottla.coordinator.group.records import GroupMetadataValue, MemberMetadata
from ottla.coordinator.group.subscription import CONSUMER_PROTOCOL_TYPE, subscribed_topics
from ottla.coordinator.timers import Deadline
from ottla.errors import ErrorCode
from ottla.protocol.messages.join_group import JoinGroupRequestProtocol, JoinGroupResponseMember


class GroupState(StrEnum):
    """Written as the wire spells it."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"
    """Never the state of a group here: what describing an unknown group answers."""


_PREVIOUS: Final = {
    GroupState.PREPARING_REBALANCE: {GroupState.EMPTY, GroupState.COMPLETING_REBALANCE, GroupState.STABLE},
    GroupState.COMPLETING_REBALANCE: {GroupState.PREPARING_REBALANCE},
    GroupState.STABLE: {GroupState.COMPLETING_REBALANCE},
    GroupState.EMPTY: {GroupState.PREPARING_REBALANCE},
}


@dataclass(slots=True, eq=False, kw_only=True)
class Member:
    """A member of a classic group."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    protocol_type: str
    protocols: tuple[JoinGroupRequestProtocol, ...]
    session: Deadline[TimerEvent]
    assignment: bytes = b""
    is_new: bool = False
    """Joined for the first time and not yet answered: it cannot send heartbeats, so its parked request may time out."""
    join_token: int | None = None
    sync_token: int | None = None

    @property
    def is_static(self) -> bool:
        return self.group_instance_id is not None

    @property
    def is_excused(self) -> bool:
        """Whether an ended session is no offence: the member waits for us."""
        return not self.is_new and (self.join_token is not None or self.sync_token is not None)

    def metadata(self, protocol_name: str | None) -> bytes:
        return next(p.metadata for p in self.protocols if p.name == protocol_name)


class ClassicGroup:
    """One group. Members keep the order in which they joined."""

    __slots__ = (
        "_support",
        "awaiting_join",
        "generation_id",
        "group_id",
        "initial_delay_left_ms",
        "initial_delay_ms",
        "join_phase",
        "leader_id",
        "member_added",
        "members",
        "pending_members",
        "pending_sync",
        "previous_state",
        "protocol_name",
        "protocol_type",
        "state",
        "state_timestamp_ms",
        "static_members",
        "subscribed",
        "sync_phase",
    )

    def __init__(self, group_id: str, *, state_timestamp_ms: int) -> None:
        """An empty group that was never anything else. `state_timestamp_ms`: Unix milliseconds."""
        self.group_id: Final = group_id
        self.state = GroupState.EMPTY
        self.previous_state: GroupState | None = None
        self.state_timestamp_ms = state_timestamp_ms
        self.protocol_type: str | None = None
        self.protocol_name: str | None = None
        self.generation_id = 0
        self.leader_id: str | None = None
        self.members: dict[str, Member] = {}
        self.static_members: dict[str, str] = {}
        self.pending_members: dict[str, Deadline[TimerEvent]] = {}
        """Ids handed out with MEMBER_ID_REQUIRED and not yet used, each with its deadline."""
        self.awaiting_join = 0
        self.pending_sync: set[str] = set()
        """Members of this generation that have not yet asked for their assignment."""
        self.subscribed: frozenset[str] | None = None
        """Topics that any member subscribes to. None: not known, as these are no consumers or not readable."""
        self.member_added = False
        """A member came during the initial delay, which is therefore to be extended."""
        self.initial_delay_ms: int | None = None
        self.initial_delay_left_ms = 0
        self.join_phase: Deadline[TimerEvent] = Deadline(JoinPhaseEnds(group_id))
        self.sync_phase: Deadline[TimerEvent] = Deadline(SyncPhaseEnds(group_id))
        self._support: Counter[str] = Counter()

    @classmethod
    def from_record(cls, group_id: str, value: GroupMetadataValue) -> ClassicGroup:
        """The group as the log has it: Stable with its members, or Empty."""
        group = cls(group_id, state_timestamp_ms=value.current_state_timestamp_ms)
        group.state = GroupState.STABLE if value.members else GroupState.EMPTY
        group.generation_id = value.generation
        group.protocol_type = value.protocol_type or None
        group.protocol_name = (value.protocol or "") if value.members else value.protocol
        for m in value.members:
            has_timeout = m.rebalance_timeout_ms != -1  # version 0 of the record had none
            group.add(
                Member(
                    member_id=m.member_id,
                    group_instance_id=m.group_instance_id,
                    client_id=m.client_id,
                    client_host=m.client_host,
                    rebalance_timeout_ms=m.rebalance_timeout_ms if has_timeout else m.session_timeout_ms,
                    session_timeout_ms=m.session_timeout_ms,
                    protocol_type=value.protocol_type,
                    protocols=(JoinGroupRequestProtocol(name=value.protocol or "", metadata=m.subscription),),
                    session=Deadline(SessionEnds(group_id, m.member_id)),
                    assignment=m.assignment,
                )
            )
        group.leader_id = value.leader
        group.subscribed = group.compute_subscribed()
        return group

    def to_record(self, assignments: Mapping[str, bytes]) -> GroupMetadataValue:
        """The group as the log shall have it. Members without an assignment get an empty one."""
        return GroupMetadataValue(
            protocol_type=self.protocol_type or "",
            generation=self.generation_id,
            protocol=self.protocol_name,
            leader=self.leader_id,
            current_state_timestamp_ms=self.state_timestamp_ms,
            members=tuple(
                MemberMetadata(
                    member_id=m.member_id,
                    group_instance_id=m.group_instance_id,
                    client_id=m.client_id,
                    client_host=m.client_host,
                    rebalance_timeout_ms=m.rebalance_timeout_ms,
                    session_timeout_ms=m.session_timeout_ms,
                    subscription=m.metadata(self.protocol_name),
                    assignment=assignments.get(m.member_id, b""),
                )
                for m in self.members.values()
            ),
        )

    # State

    def transition_to(self, state: GroupState, *, wall_ms: int) -> None:
        assert self.state in _PREVIOUS[state], f"{self.group_id}: {self.state} to {state}"
        self.previous_state, self.state = self.state, state
        self.state_timestamp_ms = wall_ms

    @property
    def can_rebalance(self) -> bool:
        return self.state in _PREVIOUS[GroupState.PREPARING_REBALANCE]

    @property
    def is_consumer_group(self) -> bool:
        return self.protocol_type == CONSUMER_PROTOCOL_TYPE

    @property
    def all_joined(self) -> bool:
        """Every member has rejoined, and no handed out id is still unused."""
        return self.awaiting_join == len(self.members) and not self.pending_members

    @property
    def rebalance_timeout_ms(self) -> int:
        """The longest of the members'."""
        return max((m.rebalance_timeout_ms for m in self.members.values()), default=0)

    def is_subscribed_to(self, topic: str) -> bool:
        """Whether offsets of `topic` are in use. Of consumers with unreadable subscriptions, all are."""
        return self.is_consumer_group if self.subscribed is None else topic in self.subscribed

    # Members

    def add(self, member: Member) -> None:
        assert member.member_id not in self.members
        if member.group_instance_id is not None:
            assert member.group_instance_id not in self.static_members
            self.static_members[member.group_instance_id] = member.member_id
        if not self.members:
            self.protocol_type = member.protocol_type
        assert self.protocol_type == member.protocol_type
        if self.leader_id is None:
            self.leader_id = member.member_id
        self.members[member.member_id] = member
        self._count(member.protocols, 1)
        self.awaiting_join += member.join_token is not None
        self.pending_members.pop(member.member_id, None)

    def remove(self, member_id: str) -> None:
        """Forget a member or a pending id, which may have no request parked."""
        member = self.members.pop(member_id, None)
        if member is not None:
            assert member.sync_token is None
            assert member.join_token is None
            member.session.at_ms = None
            self._count(member.protocols, -1)
            if member.group_instance_id is not None:
                del self.static_members[member.group_instance_id]
            if self.leader_id == member_id:
                self.leader_id = next(iter(self.members), None)
        pending = self.pending_members.pop(member_id, None)
        if pending is not None:
            pending.at_ms = None
        self.pending_sync.discard(member_id)

    def rename_static_member(self, old_member_id: str, new_member_id: str) -> Member:
        """Give a static member, which may have no request parked, a new id; everything else stays."""
        member = self.members.pop(old_member_id)
        assert member.group_instance_id is not None
        assert member.join_token is None
        assert member.sync_token is None
        member.session.at_ms = None
        member.member_id = new_member_id
        member.session = Deadline(SessionEnds(self.group_id, new_member_id))
        member.is_new = False
        self.members[new_member_id] = member
        self.static_members[member.group_instance_id] = new_member_id
        if self.leader_id == old_member_id:
            self.leader_id = new_member_id
        if old_member_id in self.pending_sync:
            self.pending_sync.remove(old_member_id)
            self.pending_sync.add(new_member_id)
        return member

    def update(
        self,
        member: Member,
        protocols: tuple[JoinGroupRequestProtocol, ...],
        *,
        rebalance_timeout_ms: int,
        session_timeout_ms: int,
    ) -> None:
        self._count(member.protocols, -1)
        member.protocols = protocols
        self._count(protocols, 1)
        member.rebalance_timeout_ms = rebalance_timeout_ms
        member.session_timeout_ms = session_timeout_ms

    def park_join(self, member: Member, token: int) -> int | None:
        """Let `token` wait for the join phase; returns the token that it supersedes."""
        superseded, member.join_token = member.join_token, token
        self.awaiting_join += superseded is None
        return superseded

    def unpark_join(self, member: Member) -> int | None:
        token, member.join_token = member.join_token, None
        self.awaiting_join -= token is not None
        return token

    def check_member(self, member_id: str, group_instance_id: str | None) -> ErrorCode:
        """NONE, UNKNOWN_MEMBER_ID, or FENCED_INSTANCE_ID where another member now has that instance id."""
        if group_instance_id is not None:
            existing = self.static_members.get(group_instance_id)
            if existing is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if existing != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        return ErrorCode.NONE if member_id in self.members else ErrorCode.UNKNOWN_MEMBER_ID

    def not_rejoined(self) -> Iterator[Member]:
        return (m for m in self.members.values() if m.join_token is None)

    def elect_joined_leader(self) -> bool:
        """Make sure that the leader is a member that has joined. False: there is none."""
        if self.leader_id is None:
            return False
        # A leader read from the log may be no member: Kafka writes groups whose leader has just been removed.
        leader = self.members.get(self.leader_id)
        if leader is None or leader.join_token is None:
            joined = next((m.member_id for m in self.members.values() if m.join_token is not None), None)
            if joined is None:
                return False
            self.leader_id = joined
        return True

    # Protocols

    def supports(self, protocol_type: str, protocols: tuple[JoinGroupRequestProtocol, ...]) -> bool:
        """Whether a member with these protocols can be in the group: of its type, and one protocol common to all."""
        if self.state is GroupState.EMPTY:
            return bool(protocol_type) and bool(protocols)
        everyone = len(self.members)
        return self.protocol_type == protocol_type and any(self._support[p.name] == everyone for p in protocols)

    def select_protocol(self) -> str:
        """The protocol that all support and most prefer; each votes for the first on its list."""
        candidates = {name for name, count in self._support.items() if count == len(self.members)}
        votes = Counter(next(p.name for p in m.protocols if p.name in candidates) for m in self.members.values())
        return max(votes, key=lambda name: votes[name])

    def start_generation(self, *, wall_ms: int) -> None:
        """The join phase is over: on to CompletingRebalance, or to Empty when nobody is left."""
        self.generation_id += 1
        self.protocol_name = self.select_protocol() if self.members else None
        self.subscribed = self.compute_subscribed()
        self.transition_to(
            GroupState.COMPLETING_REBALANCE if self.members else GroupState.EMPTY,
            wall_ms=wall_ms,
        )
        self.pending_sync.clear()

    def compute_subscribed(self) -> frozenset[str] | None:
        if not self.is_consumer_group:
            return None
        if not self.members:
            return frozenset()
        if self.protocol_name is None:
            return None
        topics: set[str] = set()
        for member in self.members.values():
            subscribed = subscribed_topics(member.metadata(self.protocol_name))
            if subscribed is None:
                return None
            topics |= subscribed
        return frozenset(topics)

    def joined_members(self) -> tuple[JoinGroupResponseMember, ...]:
        """What the leader is told of the others."""
        return tuple(
            JoinGroupResponseMember(
                member_id=m.member_id,
                group_instance_id=m.group_instance_id,
                metadata=m.metadata(self.protocol_name),
            )
            for m in self.members.values()
        )

    def _count(self, protocols: tuple[JoinGroupRequestProtocol, ...], change: int) -> None:
        for name in {p.name for p in protocols}:
            self._support[name] += change
            if not self._support[name]:
                del self._support[name]
