"""How long members of consumer groups may be silent, and how long they may take to give partitions up.

Nothing here is durable: whoever takes a group over gives every member a whole session, and a whole time for what it
was asked to give up. A deadline may outlive its member; whoever it wakes looks whether there still is one.
"""

from __future__ import annotations

from collections.abc import Iterable

from ottla.coordinator.group.config import GroupConfig
from ottla.coordinator.group.consumer import ConsumerGroup, ConsumerMember, MemberState
from ottla.coordinator.group.events import (
    AdoptionDue,
    ClassicStepOverdue,
    ConsumerSessionEnds,
    MemberOverdue,
    RevocationOverdue,
    TimerEvent,
)
from ottla.coordinator.shard import Instant
from ottla.coordinator.timers import Deadline, Timers


class ConsumerSessions:
    """The deadlines of the members of all consumer groups of a shard."""

    def __init__(self, timers: Timers[TimerEvent]) -> None:
        self._timers = timers
        self._sessions: dict[tuple[str, str], Deadline[TimerEvent]] = {}
        self._revocations: dict[tuple[str, str], Deadline[TimerEvent]] = {}
        self._classic_steps: dict[tuple[str, str], Deadline[TimerEvent]] = {}
        self._adoption: Deadline[TimerEvent] = Deadline(AdoptionDue())

    def renew(self, group_id: str, member_id: str, now: Instant, *, timeout_ms: int) -> None:
        """The member was heard of."""
        at = (group_id, member_id)
        session = self._sessions.get(at)
        if session is None:
            session = self._sessions[at] = Deadline(ConsumerSessionEnds(group_id, member_id))
        self._timers.schedule(session, now.now_ms + timeout_ms)

    def on_heard(self, group_id: str, member_id: str, heard_ms: int, *, timeout_ms: int) -> None:
        """The member has sent a heartbeat that somebody else answered."""
        session = self._sessions.get((group_id, member_id))
        if session is not None:
            self._timers.extend(session, heard_ms + timeout_ms)

    def await_revocation(self, group_id: str, member: ConsumerMember, now: Instant) -> None:
        """Give a member that was just asked to give partitions up its time for it; forget about it otherwise."""
        at = (group_id, member.member_id)
        running = self._revocations.pop(at, None)
        if running is not None:
            self._timers.cancel(running)
        if member.state is MemberState.UNREVOKED_PARTITIONS and not member.is_classic:
            event = RevocationOverdue(group_id, member.member_id, member.member_epoch)
            deadline: Deadline[TimerEvent] = Deadline(event)
            self._revocations[at] = deadline
            self._timers.schedule(deadline, now.now_ms + member.metadata.rebalance_timeout_ms)

    def await_classic_step(self, group_id: str, member: ConsumerMember, now: Instant, *, is_new: bool) -> None:
        """Give a member by the classic protocol its time to join again, or after a join (`is_new`) to sync."""
        at = (group_id, member.member_id)
        if is_new:
            self.forget_classic_step(*at)
        if at not in self._classic_steps:
            deadline: Deadline[TimerEvent] = Deadline(ClassicStepOverdue(*at))
            self._classic_steps[at] = deadline
            self._timers.schedule(deadline, now.now_ms + member.metadata.rebalance_timeout_ms)

    def forget_classic_step(self, group_id: str, member_id: str) -> None:
        running = self._classic_steps.pop((group_id, member_id), None)
        if running is not None:
            self._timers.cancel(running)

    def on_due(self, event: MemberOverdue) -> None:
        """A deadline has passed: whoever is heard of again gets a new one."""
        match event:
            case ConsumerSessionEnds():
                self._sessions.pop((event.group_id, event.member_id), None)
            case RevocationOverdue():
                self._revocations.pop((event.group_id, event.member_id), None)
            case ClassicStepOverdue():
                self._classic_steps.pop((event.group_id, event.member_id), None)

    def adopt_soon(self) -> None:
        """Members may be there for whom no deadline runs: have `adopt` called."""
        self._timers.schedule(self._adoption, 0)

    def adopt(self, consumers: Iterable[ConsumerGroup], config: GroupConfig, now: Instant) -> None:
        """Give a session to every member that has none, and time to those that are to give something up."""
        for group in consumers:
            group_id = group.group_id
            for member_id, member in group.members.items():
                at = (group_id, member_id)
                if at not in self._sessions:
                    self.renew(*at, now, timeout_ms=session_timeout_ms(config, group_id, member))
                running = self._revocations.get(at)
                if running is None or running.event != RevocationOverdue(*at, member.member_epoch):
                    self.await_revocation(group_id, member, now)


def session_timeout_ms(config: GroupConfig, group_id: str, member: ConsumerMember) -> int:
    """How long a member may be silent: those that speak the classic protocol say so themselves."""
    classic = member.metadata.classic_member_metadata
    return config.consumer_group(group_id).session_timeout_ms if classic is None else classic.session_timeout_ms
