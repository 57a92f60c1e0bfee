"""The phases of a rebalance: gather the members, let the leader assign, hand out the assignment.

Source: Kafka's `GroupMetadataManager` (prepareRebalance, completeClassicGroupJoin, expirePendingSync,
tryCompleteInitialRebalanceElseSchedule and what they call).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ottla.coordinator.group import records
from ottla.coordinator.group.classic import ClassicGroup, GroupState, Member
from ottla.coordinator.group.config import GroupConfig
from ottla.coordinator.group.events import TimerEvent
from ottla.coordinator.shard import Instant, Outcome, Reply
from ottla.coordinator.timers import Timers
from ottla.errors import ErrorCode
from ottla.protocol.messages.join_group import JoinGroupResponse
from ottla.protocol.messages.sync_group import SyncGroupResponse

FIRST_GENERATION: Final = 1


class Rebalancing:
    """Moves groups through the phases. It remembers nothing itself."""

    def __init__(self, timers: Timers[TimerEvent], config: GroupConfig) -> None:
        self._timers = timers
        self.config = config

    def renew_session(self, member: Member, now: Instant) -> None:
        self._timers.schedule(member.session, now.now_ms + member.session_timeout_ms)

    def prepare_or_complete(self, group: ClassicGroup, now: Instant, out: Outcome) -> None:
        """Something about the members changed: start a rebalance, or see whether the running one is ready."""
        if group.can_rebalance:
            self.prepare(group, now, out)
        else:
            self.complete_if_ready(group, now, out)

    def prepare(self, group: ClassicGroup, now: Instant, out: Outcome) -> None:
        """Start the join phase."""
        if group.state is GroupState.COMPLETING_REBALANCE:
            self.propagate(group, {}, ErrorCode.REBALANCE_IN_PROGRESS, now, out)
        self.forget_sync_phase(group)
        is_initial = group.state is GroupState.EMPTY
        group.transition_to(GroupState.PREPARING_REBALANCE, wall_ms=now.wall_ms)
        if is_initial:
            # The group is new: more members are likely to come at once, and a rebalance for each would be a waste.
            delay_ms = self.config.group_initial_rebalance_delay_ms
            group.initial_delay_ms = delay_ms
            group.initial_delay_left_ms = max(group.rebalance_timeout_ms - delay_ms, 0)
            self._timers.schedule(group.join_phase, now.now_ms + delay_ms)
        elif group.all_joined:
            self.complete_join(group, now, out)
        else:
            self._timers.schedule(group.join_phase, now.now_ms + group.rebalance_timeout_ms)

    def complete_if_ready(self, group: ClassicGroup, now: Instant, out: Outcome) -> None:
        """End the join phase if all have joined; the initial one is only ended by its delay."""
        if (
            group.state is GroupState.PREPARING_REBALANCE
            and group.previous_state is not GroupState.EMPTY
            and group.all_joined
        ):
            self.complete_join(group, now, out)

    def on_join_phase_ends(self, group: ClassicGroup, now: Instant, out: Outcome) -> None:
        assert group.state is GroupState.PREPARING_REBALANCE
        delay_ms = group.initial_delay_ms
        if delay_ms is not None and group.member_added and group.initial_delay_left_ms:
            group.member_added = False
            next_delay_ms = min(self.config.group_initial_rebalance_delay_ms, group.initial_delay_left_ms)
            group.initial_delay_left_ms = max(group.initial_delay_left_ms - delay_ms, 0)
            group.initial_delay_ms = next_delay_ms
            self._timers.schedule(group.join_phase, now.now_ms + next_delay_ms)
        else:
            self.complete_join(group, now, out)

    def complete_join(self, group: ClassicGroup, now: Instant, out: Outcome) -> None:
        """End the join phase. Dynamic members that have not rejoined are out; static ones keep their place."""
        self._timers.cancel(group.join_phase)
        group.initial_delay_ms = None
        group.member_added = False
        for member in [m for m in group.not_rejoined() if not m.is_static]:
            group.remove(member.member_id)
        if group.members and not group.elect_joined_leader():
            # Only silent static members are left: wait on, until their sessions end or one of them rejoins.
            self._timers.schedule(group.join_phase, now.now_ms + group.rebalance_timeout_ms)
            return
        group.start_generation(wall_ms=now.wall_ms)
        if group.state is GroupState.EMPTY:
            out.write([records.group_metadata(group.group_id, group.to_record({}))])
            return
        replies = []
        for member in group.members.values():
            token = group.unpark_join(member)
            if token is not None:
                replies.append(Reply(token, self.joined(group, member)))
            self.renew_session(member, now)
            member.is_new = False
            group.pending_sync.add(member.member_id)
        if group.generation_id == FIRST_GENERATION and replies:
            # Who is told to be in a group may ask about it: so it has to be committed that there is one.
            out.write((), *replies)
        else:
            out.replies += replies
        self._timers.schedule(group.sync_phase, now.now_ms + group.rebalance_timeout_ms)

    @staticmethod
    def joined(group: ClassicGroup, member: Member) -> JoinGroupResponse:
        """The reply to a member of the current generation; the leader's lists everybody."""
        return JoinGroupResponse(
            generation_id=group.generation_id,
            protocol_type=group.protocol_type,
            protocol_name=group.protocol_name,
            leader=group.leader_id or "",
            member_id=member.member_id,
            members=group.joined_members() if group.leader_id == member.member_id else (),
        )

    def propagate(
        self, group: ClassicGroup, assignments: Mapping[str, bytes], error: ErrorCode, now: Instant, out: Outcome
    ) -> None:
        """Set everybody's assignment, and answer everybody who waits for it."""
        assert group.state is GroupState.COMPLETING_REBALANCE
        is_stored = error is ErrorCode.NONE
        for member in group.members.values():
            member.assignment = assignments.get(member.member_id, b"")
            token, member.sync_token = member.sync_token, None
            if token is not None:
                out.reply(
                    token,
                    SyncGroupResponse(
                        error_code=error,
                        protocol_type=group.protocol_type if is_stored else None,
                        protocol_name=group.protocol_name if is_stored else None,
                        assignment=member.assignment,
                    ),
                )
                # A session that ended while the member waited was excused, and nothing else renews it.
                self.renew_session(member, now)

    def synced(self, group: ClassicGroup, member: Member) -> None:
        """A member asked for its assignment: once all have, the sync phase cannot time out any more."""
        group.pending_sync.discard(member.member_id)
        if not group.pending_sync:
            self._timers.cancel(group.sync_phase)

    def forget_sync_phase(self, group: ClassicGroup) -> None:
        group.pending_sync.clear()
        self._timers.cancel(group.sync_phase)

    def on_sync_phase_ends(self, group: ClassicGroup, now: Instant, out: Outcome) -> None:
        """Members that did not ask for their assignment within the rebalance timeout are out."""
        assert group.state in (GroupState.COMPLETING_REBALANCE, GroupState.STABLE)
        for member_id in list(group.pending_sync):
            self.drop(group, group.members[member_id], out)
        self.prepare(group, now, out)

    def on_session_ends(self, group: ClassicGroup, member_id: str, now: Instant, out: Outcome) -> None:
        if member_id in group.pending_members:
            group.remove(member_id)
            if group.state is GroupState.PREPARING_REBALANCE and group.all_joined:
                self.complete_join(group, now, out)
            return
        member = group.members[member_id]
        if not member.is_excused:
            self.remove(group, member, now, out)

    def remove(self, group: ClassicGroup, member: Member, now: Instant, out: Outcome) -> None:
        """Take a member out and go on without it."""
        self.drop(group, member, out)
        if group.state in (GroupState.STABLE, GroupState.COMPLETING_REBALANCE):
            self.prepare_or_complete(group, now, out)
        elif group.state is GroupState.PREPARING_REBALANCE and group.all_joined:
            self.complete_join(group, now, out)

    @staticmethod
    def drop(group: ClassicGroup, member: Member, out: Outcome) -> None:
        """Take a member out, answering what it has parked."""
        token = group.unpark_join(member)
        if token is not None:
            # The client, if it is still there, comes again.
            out.reply(token, JoinGroupResponse(error_code=ErrorCode.UNKNOWN_MEMBER_ID))
        token, member.sync_token = member.sync_token, None
        if token is not None:
            out.reply(token, SyncGroupResponse(error_code=ErrorCode.UNKNOWN_MEMBER_ID))
        group.remove(member.member_id)
