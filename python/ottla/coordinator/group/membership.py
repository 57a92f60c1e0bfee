"""JoinGroup, SyncGroup, Heartbeat and LeaveGroup of classic groups.

Source: Kafka's `GroupMetadataManager` (classicGroupJoin, -Sync, -Heartbeat, -Leave and what they call).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ottla.coordinator.group import records
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.classic import ClassicGroup, GroupState, Member
from ottla.coordinator.group.classic_members import ClassicMembers
from ottla.coordinator.group.consumer import tombstones_of
from ottla.coordinator.group.events import (
    AssignmentStored,
    GroupCreated,
    GroupDowngraded,
    SessionEnds,
    StaticMemberReplaced,
    TimerEvent,
    WriteEvent,
)
from ottla.coordinator.group.rebalance import Rebalancing
from ottla.coordinator.group.table import GroupTable
from ottla.coordinator.shard import CoordinatorRecord, Instant, Outcome, Reply, coordinator_error
from ottla.coordinator.timers import Deadline, Timers
from ottla.errors import ErrorCode
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupResponse
from ottla.protocol.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupResponse

MEMBER_ID_REQUIRED_VERSION_MIN = 4
SKIP_ASSIGNMENT_VERSION_MIN = 9


@dataclass(slots=True)
class _Join:
    """A JoinGroup while it is served."""

    group: ClassicGroup
    request: JoinGroupRequest
    caller: Caller
    now: Instant
    out: Outcome

    def refuse(self, member_id: str, error: ErrorCode) -> None:
        self.out.add(_refused(self.caller, member_id, error))


def _refused(caller: Caller, member_id: str, error: ErrorCode) -> Outcome:
    return Outcome().reply(caller.token, JoinGroupResponse(error_code=error, member_id=member_id))


class Membership:
    """Serves members. Its state is the table's."""

    def __init__(
        self,
        table: GroupTable,
        rebalancing: Rebalancing,
        classic_members: ClassicMembers,
        timers: Timers[TimerEvent],
    ) -> None:
        """
        Args:
            classic_members: Serves those that are in consumer groups.
        """
        self._table = table
        self._classic_members = classic_members
        self._rebalancing = rebalancing
        self._timers = timers

    # Joining

    def join(self, request: JoinGroupRequest, caller: Caller, now: Instant) -> Outcome:
        """Answer with an error or the current generation at once, or park the request until the join phase ends."""
        self._table.note_change(request.group_id)
        if caller.api_version == 0:
            request = replace(request, rebalance_timeout_ms=request.session_timeout_ms)
        config = self._rebalancing.config
        if not request.group_id:
            return _refused(caller, request.member_id, ErrorCode.INVALID_GROUP_ID)
        if not config.group_min_session_timeout_ms <= request.session_timeout_ms <= config.group_max_session_timeout_ms:
            return _refused(caller, request.member_id, ErrorCode.INVALID_SESSION_TIMEOUT)
        if self._table.shares.get(request.group_id) is not None:
            return _refused(caller, "", ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        converted: list[CoordinatorRecord] = []
        consumers = self._table.consumers.get(request.group_id)
        if consumers is not None:
            if len(consumers.members):
                return self._classic_members.join(consumers, request, caller, now)
            # An empty consumer group makes way for a classic one.
            converted = tombstones_of(consumers)
        group = self._table.groups.get(request.group_id)
        is_created = group is None
        if group is None:
            if request.member_id:
                return _refused(caller, request.member_id, ErrorCode.UNKNOWN_MEMBER_ID)
            group = self._table.create(request.group_id, wall_ms=now.wall_ms)
        out = Outcome()
        join = _Join(group, request, caller, now, out)
        if not self._has_room(group, request.member_id):
            existing = group.members.get(request.member_id)
            if existing is not None:
                self._rebalancing.drop(group, existing, out)
            join.refuse("", ErrorCode.GROUP_MAX_SIZE_REACHED)
        elif not group.supports(request.protocol_type, request.protocols):
            join.refuse(request.member_id, ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        elif request.member_id:
            self._join_known(join)
        elif request.group_instance_id is not None:
            self._join_static(join, request.group_instance_id)
        else:
            self._join_dynamic(join)
        if is_created and not out.writes:
            # The group exists from now on, also for a coordinator that takes over.
            out.write(
                [records.empty_group_metadata(group.group_id, wall_ms=group.state_timestamp_ms)],
                then=GroupCreated(group.group_id),
            )
        if converted:
            # Whoever is answered finds no consumer group any more: who describes groups sees what is committed.
            first = out.writes[0]
            first.records, first.replies = [*converted, *first.records], [*first.replies, *out.replies]
            out.replies = []
        return out

    def _has_room(self, group: ClassicGroup, member_id: str) -> bool:
        """Whether group.max.size allows this member. Known members stay, unless the limit was lowered meanwhile."""
        limit = self._rebalancing.config.group_max_size
        member = group.members.get(member_id)
        match group.state:
            case GroupState.EMPTY:
                return True
            case GroupState.PREPARING_REBALANCE:
                # Those who wait count, not the members: so the last to rejoin is turned away from too large a group.
                return (member is not None and member.join_token is not None) or group.awaiting_join < limit
            case _:
                return member is not None or len(group.members) < limit

    def _join_dynamic(self, join: _Join) -> None:
        group, caller = join.group, join.caller
        member_id = f"{caller.client_id}-{caller.unique_id}"
        if caller.api_version < MEMBER_ID_REQUIRED_VERSION_MIN:
            self._add(join, member_id)
            return
        # The client has to come back with this id, so that a client that gives up its connection while it waits and
        # tries again does not become a member twice (KIP-394).
        session: Deadline[TimerEvent] = Deadline(SessionEnds(group.group_id, member_id))
        group.pending_members[member_id] = session
        self._timers.schedule(session, join.now.now_ms + join.request.session_timeout_ms)
        join.refuse(member_id, ErrorCode.MEMBER_ID_REQUIRED)

    def _join_static(self, join: _Join, group_instance_id: str) -> None:
        """A static member without an id: a new one, or one that was restarted and takes its place back (KIP-345)."""
        group, now, out = join.group, join.now, join.out
        member_id = f"{group_instance_id}-{join.caller.unique_id}"
        old_member_id = group.static_members.get(group_instance_id)
        if old_member_id is None:
            self._add(join, member_id)
            return
        old = group.members[old_member_id]
        self._fence(group, old, out)
        undo = StaticMemberReplaced(
            group_id=group.group_id,
            group_instance_id=group_instance_id,
            member_id=member_id,
            old_member_id=old_member_id,
            old_leader_id=group.leader_id,
            old_protocols=old.protocols,
            old_rebalance_timeout_ms=old.rebalance_timeout_ms,
            old_session_timeout_ms=old.session_timeout_ms,
            may_skip_assignment=join.caller.api_version >= SKIP_ASSIGNMENT_VERSION_MIN,
        )
        member = group.rename_static_member(old_member_id, member_id)
        self._rebalancing.renew_session(member, now)
        self._update(join, member)
        if group.state is GroupState.STABLE:
            if group.select_protocol() == group.protocol_name:
                # Nothing changes but the id: no rebalance, but the id must be durable before it is used.
                assignments = {m.member_id: m.assignment for m in group.members.values()}
                out.write([records.group_metadata(group.group_id, group.to_record(assignments))], then=undo)
            else:
                self._rebalancing.prepare_or_complete(group, now, out)
        elif group.state is GroupState.COMPLETING_REBALANCE:
            # The leader may be assigning partitions to the old id right now.
            self._rebalancing.prepare(group, now, out)
        else:
            self._rebalancing.complete_if_ready(group, now, out)

    def _join_known(self, join: _Join) -> None:
        """A member, or an id that was handed out, joins with its id."""
        group, request = join.group, join.request
        if request.member_id in group.pending_members:
            if request.group_instance_id is not None:
                # Ids are handed out to dynamic members alone. Kafka trips over this, and answers so.
                join.refuse("", ErrorCode.UNKNOWN_SERVER_ERROR)
            else:
                self._add(join, request.member_id)
            return
        error = group.check_member(request.member_id, request.group_instance_id)
        if error is not ErrorCode.NONE:
            join.refuse(request.member_id, error)
            return
        member = group.members[request.member_id]
        is_unchanged = member.protocols == request.protocols
        if (is_unchanged and group.state is GroupState.COMPLETING_REBALANCE) or (
            is_unchanged and group.state is GroupState.STABLE and group.leader_id != member.member_id
        ):
            # It missed the reply, or asks needlessly: the generation stands. A stable group's leader however asks
            # for a rebalance this way, for reasons of its own, such as new partitions.
            join.out.reply(join.caller.token, self._rebalancing.joined(group, member))
            return
        self._update(join, member)
        self._rebalancing.prepare_or_complete(group, join.now, join.out)

    def _add(self, join: _Join, member_id: str) -> None:
        group, request, caller = join.group, join.request, join.caller
        if group.state is GroupState.PREPARING_REBALANCE and group.previous_state is GroupState.EMPTY:
            group.member_added = True
        pending = group.pending_members.get(member_id)
        if pending is not None:
            self._timers.cancel(pending)
        member = Member(
            member_id=member_id,
            group_instance_id=request.group_instance_id,
            client_id=caller.client_id,
            client_host=caller.client_host,
            rebalance_timeout_ms=request.rebalance_timeout_ms,
            session_timeout_ms=request.session_timeout_ms,
            protocol_type=request.protocol_type,
            protocols=request.protocols,
            session=Deadline(SessionEnds(group.group_id, member_id)),
            is_new=True,
            join_token=caller.token,
        )
        group.add(member)
        # It cannot send heartbeats before it is answered. But clients that vanish and come again while a long
        # rebalance goes on must not pile up, so the wait has an end of its own.
        timeout_ms = self._rebalancing.config.new_member_join_timeout_ms
        self._timers.schedule(member.session, join.now.now_ms + timeout_ms)
        self._rebalancing.prepare_or_complete(group, join.now, join.out)

    @staticmethod
    def _update(join: _Join, member: Member) -> None:
        request = join.request
        join.group.update(
            member,
            request.protocols,
            rebalance_timeout_ms=request.rebalance_timeout_ms,
            session_timeout_ms=request.session_timeout_ms,
        )
        superseded = join.group.park_join(member, join.caller.token)
        if superseded is not None:
            response = JoinGroupResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS, member_id=member.member_id)
            join.out.reply(superseded, response)

    @staticmethod
    def _fence(group: ClassicGroup, member: Member, out: Outcome) -> None:
        """Answer whoever still waits in the name of a static member that has a new incarnation."""
        token = group.unpark_join(member)
        if token is not None:
            out.reply(token, JoinGroupResponse(error_code=ErrorCode.FENCED_INSTANCE_ID, member_id=member.member_id))
        token, member.sync_token = member.sync_token, None
        if token is not None:
            out.reply(token, SyncGroupResponse(error_code=ErrorCode.FENCED_INSTANCE_ID))

    # Syncing

    def sync(self, request: SyncGroupRequest, caller: Caller, now: Instant) -> Outcome:
        """Answer with the assignment, or park the request until the leader's assignment is committed."""
        self._table.note_change(request.group_id)
        out = Outcome()
        if not request.group_id:
            return out.reply(caller.token, SyncGroupResponse(error_code=ErrorCode.INVALID_GROUP_ID))
        consumers = self._table.consumers.get(request.group_id)
        if consumers is not None:
            return self._classic_members.sync(consumers, request, caller, now)
        group = self._table.groups.get(request.group_id)
        if group is None or group.state is GroupState.EMPTY:
            return out.reply(caller.token, SyncGroupResponse(error_code=ErrorCode.UNKNOWN_MEMBER_ID))
        error = group.check_member(request.member_id, request.group_instance_id)
        if error is ErrorCode.NONE:
            error = self._check_sync(group, request)
        if error is not ErrorCode.NONE:
            return out.reply(caller.token, SyncGroupResponse(error_code=error))
        member = group.members[request.member_id]
        self._rebalancing.synced(group, member)
        if group.state is GroupState.STABLE:
            return out.reply(
                caller.token,
                SyncGroupResponse(
                    protocol_type=group.protocol_type, protocol_name=group.protocol_name, assignment=member.assignment
                ),
            )
        if member.sync_token is not None:
            out.reply(member.sync_token, SyncGroupResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS))
        member.sync_token = caller.token
        if group.leader_id == member.member_id:
            assignments = {a.member_id: a.assignment for a in request.assignments}
            out.write(
                [records.group_metadata(group.group_id, group.to_record(assignments))],
                then=AssignmentStored(group.group_id, group.generation_id, assignments),
            )
        return out

    @staticmethod
    def _check_sync(group: ClassicGroup, request: SyncGroupRequest) -> ErrorCode:
        if request.generation_id != group.generation_id:
            return ErrorCode.ILLEGAL_GENERATION
        if (request.protocol_type is not None and group.protocol_type not in (None, request.protocol_type)) or (
            request.protocol_name is not None and group.protocol_name not in (None, request.protocol_name)
        ):
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if group.state is GroupState.PREPARING_REBALANCE:
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    # Staying and leaving

    def heartbeat(
        self, group_id: str, member_id: str, group_instance_id: str | None, generation_id: int, now: Instant
    ) -> ErrorCode:
        """Renew a member's session. The reply rests on nothing durable and is made by the caller."""
        if not group_id:
            return ErrorCode.INVALID_GROUP_ID
        consumers = self._table.consumers.get(group_id)
        if consumers is not None:
            return self._classic_members.heartbeat(consumers, member_id, group_instance_id, generation_id, now)
        group = self._table.groups.get(group_id)
        if group is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        error = group.check_member(member_id, group_instance_id)
        if error is not ErrorCode.NONE:
            return error
        if generation_id != group.generation_id:
            return ErrorCode.ILLEGAL_GENERATION
        member = group.members[member_id]
        self._timers.schedule(member.session, now.now_ms + member.session_timeout_ms)
        if group.state is GroupState.PREPARING_REBALANCE:
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    def is_settled(self, group_id: str) -> bool:
        """Whether all heartbeats of a group's members that are answered without an error go on to be answered so until
        something happens to the group."""
        group = self._table.groups.get(group_id)
        return group is not None and group.state is GroupState.STABLE and self._table.consumers.get(group_id) is None

    def on_heard(self, group_id: str, member_id: str, heard_ms: int) -> None:
        """A member has sent a heartbeat that somebody else answered."""
        group = self._table.groups.get(group_id)
        member = None if group is None else group.members.get(member_id)
        if member is not None:
            self._timers.extend(member.session, heard_ms + member.session_timeout_ms)

    def leave(self, request: LeaveGroupRequest, caller: Caller, now: Instant) -> Outcome:
        """Take members out. Versions before 3 name one, in the request itself."""
        is_batch = caller.api_version >= 3
        self._table.note_change(request.group_id)
        identities = request.members if is_batch else (MemberIdentity(member_id=request.member_id),)
        if not request.group_id:
            return Outcome().reply(caller.token, LeaveGroupResponse(error_code=ErrorCode.INVALID_GROUP_ID))
        out = Outcome()
        consumers = self._table.consumers.get(request.group_id)
        group = self._table.groups.get(request.group_id) if consumers is None else None
        changes = Outcome()
        if consumers is not None:
            errors, changes = self._classic_members.leave(consumers, identities, now)
        else:
            errors = [
                ErrorCode.UNKNOWN_MEMBER_ID if group is None else self._leave_one(group, identity, out)
                for identity in identities
            ]
        if group is not None and ErrorCode.NONE in errors:
            if group.state in (GroupState.STABLE, GroupState.COMPLETING_REBALANCE):
                self._rebalancing.prepare_or_complete(group, now, changes)
            else:
                self._rebalancing.complete_if_ready(group, now, changes)
        if is_batch:
            response = LeaveGroupResponse(
                members=tuple(
                    MemberResponse(member_id=i.member_id, group_instance_id=i.group_instance_id, error_code=error)
                    for i, error in zip(identities, errors, strict=True)
                )
            )
        else:
            response = LeaveGroupResponse(error_code=errors[0])
        if changes.writes:
            write = changes.writes[-1]
            write.replies = (*write.replies, Reply(caller.token, response))
        else:
            out.reply(caller.token, response)
        return out.add(changes)

    def _leave_one(self, group: ClassicGroup, identity: MemberIdentity, out: Outcome) -> ErrorCode:
        member_id = identity.member_id
        if not member_id:
            # An administrator removes a static member by its instance id alone (KIP-345).
            if identity.group_instance_id is None or identity.group_instance_id not in group.static_members:
                return ErrorCode.UNKNOWN_MEMBER_ID
            member_id = group.static_members[identity.group_instance_id]
        elif member_id in group.pending_members:
            group.remove(member_id)
            return ErrorCode.NONE
        else:
            error = group.check_member(member_id, identity.group_instance_id)
            if error is not ErrorCode.NONE:
                return error
        self._rebalancing.drop(group, group.members[member_id], out)
        return ErrorCode.NONE

    # What became of writes

    def on_committed(self, event: WriteEvent, now: Instant) -> Outcome:
        out = Outcome()
        group = self._table.groups.get(event.group_id)
        match event:
            case GroupDowngraded() if group is not None:
                self._take_over(group, now, out)
            case AssignmentStored() if group is not None and self._is_current(group, event):
                self._rebalancing.propagate(group, event.assignments, ErrorCode.NONE, now, out)
                group.transition_to(GroupState.STABLE, wall_ms=now.wall_ms)
            case StaticMemberReplaced() if group is not None and group.state is GroupState.STABLE:
                member = group.members.get(event.member_id)
                token = None if member is None else group.unpark_join(member)
                if member is not None and token is not None:
                    out.reply(token, self._rejoined(group, member, event))
                    self._rebalancing.renew_session(member, now)
        return out

    def on_failed(self, event: WriteEvent, error: ErrorCode, now: Instant) -> Outcome:
        out = Outcome()
        group = self._table.groups.get(event.group_id)
        error = coordinator_error(error)
        match event:
            case _ if group is None:
                return out
            case GroupCreated():
                is_superseded = self._table.consumers.get(event.group_id) is not None
                if is_superseded or not self._table.is_durable(event.group_id):
                    self._table.forget(event.group_id, error, out)
            case GroupDowngraded():
                self._take_over(group, now, out)
            case AssignmentStored():
                if self._is_current(group, event):
                    self._rebalancing.propagate(group, {}, error, now, out)
                    self._rebalancing.prepare_or_complete(group, now, out)
            case StaticMemberReplaced():
                self._restore_static(group, event, error, now, out)
        return out

    def on_rolled_back(self) -> None:
        """Give static members the ids that the log has, where a write was lost after the wait for it had ended."""
        for group in self._table.groups.values():
            if group.state is not GroupState.STABLE:
                continue
            for group_instance_id, member_id in list(group.static_members.items()):
                member = group.members[member_id]
                stored = self._table.static_member_id(group.group_id, group_instance_id)
                # Who still waits for the write is about to hear that it failed.
                if member.join_token is None and stored not in (None, member_id):
                    ends_ms = member.session.at_ms
                    group.rename_static_member(member_id, stored)
                    if ends_ms is not None:
                        self._timers.schedule(member.session, ends_ms)

    def _take_over(self, group: ClassicGroup, now: Instant, out: Outcome) -> None:
        """A consumer group has become a classic one: its members have to join again."""
        self._watch(group, now)
        if group.state is GroupState.STABLE:
            self._rebalancing.prepare(group, now, out)

    def after_rollback(self, now: Instant, out: Outcome) -> None:
        """Look after groups that have another kind than a moment ago."""
        for group_id in self._table.superseded():
            self._table.forget(group_id, ErrorCode.NOT_COORDINATOR, out)
        for group in self._table.groups.values():
            self._watch(group, now)

    def _watch(self, group: ClassicGroup, now: Instant) -> None:
        """Give a session to every member that has none and needs one."""
        for member in group.members.values():
            if member.session.at_ms is None and not member.is_excused:
                self._rebalancing.renew_session(member, now)

    @staticmethod
    def _is_current(group: ClassicGroup, event: AssignmentStored) -> bool:
        return group.state is GroupState.COMPLETING_REBALANCE and group.generation_id == event.generation_id

    def _rejoined(self, group: ClassicGroup, member: Member, event: StaticMemberReplaced) -> JoinGroupResponse:
        response = self._rebalancing.joined(group, member)
        if event.may_skip_assignment:
            return replace(response, skip_assignment=group.leader_id == member.member_id)
        # Older clients that see themselves as leader would assign. So the leader's former id is named as leader.
        return replace(response, leader=event.old_leader_id or "", members=())

    def _restore_static(
        self, group: ClassicGroup, event: StaticMemberReplaced, error: ErrorCode, now: Instant, out: Outcome
    ) -> None:
        """The new id is not known to be stored: the newcomer is told so, and the id that is in the log stays."""
        if group.static_members.get(event.group_instance_id) != event.member_id:
            return
        member = group.members[event.member_id]
        token = group.unpark_join(member)
        if token is None:
            return  # a rebalance went over it in the meantime: the new id is a member in its own right
        out.reply(
            token,
            JoinGroupResponse(
                error_code=error,
                generation_id=group.generation_id,
                protocol_type=group.protocol_type,
                protocol_name=group.protocol_name,
                leader=event.old_leader_id or "",
            ),
        )
        # Not simply the former id: its write may have been lost together with this one. And a write that only takes
        # long is in the log still.
        member_id = self._table.static_member_id(event.group_id, event.group_instance_id) or event.old_member_id
        if member_id != event.member_id:
            group.update(
                member,
                event.old_protocols,
                rebalance_timeout_ms=event.old_rebalance_timeout_ms,
                session_timeout_ms=event.old_session_timeout_ms,
            )
            group.rename_static_member(event.member_id, member_id)
        self._rebalancing.renew_session(member, now)
