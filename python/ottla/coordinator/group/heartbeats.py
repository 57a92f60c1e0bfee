"""ConsumerGroupHeartbeat: joining, staying in and leaving a consumer group (KIP-848).

A heartbeat takes four steps, each with records of its own: who the member is and what it subscribes to; the group's
epoch, if that or the topics changed; the targets, if the epoch did; one step of the member towards its target.

Source: Kafka's `GroupMetadataManager` (consumerGroupHeartbeat, consumerGroupLeave and what they call) and
`GroupCoordinatorService` (what a request must have).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ottla.coordinator.group import consumer_records, records
from ottla.coordinator.group.assignors.model import Target
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.classic import ClassicGroup, GroupState
from ottla.coordinator.group.consumer import (
    LEAVE_EPOCH,
    STATIC_LEAVE_EPOCH,
    ConsumerGroup,
    ConsumerMember,
    Refused,
    target_value,
    tombstones_of,
)
from ottla.coordinator.group.consumer_records import (
    ConsumerGroupKey,
    CurrentAssignmentKey,
    GroupEpochValue,
    MemberMetadataKey,
    MemberMetadataValue,
    RegularExpressionKey,
    TargetMemberKey,
)
from ottla.coordinator.group.consumer_sessions import ConsumerSessions, session_timeout_ms
from ottla.coordinator.group.events import (
    GroupDowngraded,
    MemberOverdue,
    MembersPutOut,
    RevocationOverdue,
    StepPutOff,
    TargetsWritten,
    TimerEvent,
)
from ottla.coordinator.group.heartbeat_request import changes_nothing, check, describes_nothing
from ottla.coordinator.group.migration import as_replayed, downgrade, upgrade
from ottla.coordinator.group.rebalance import Rebalancing
from ottla.coordinator.group.reconciliation import Owned
from ottla.coordinator.group.steps import Step, Steps
from ottla.coordinator.group.table import GroupTable
from ottla.coordinator.group.targets import Waiting
from ottla.coordinator.group.topic_metadata import Topics
from ottla.coordinator.shard import CoordinatorRecord, Instant, Outcome, Reply
from ottla.coordinator.timers import Timers
from ottla.errors import ErrorCode
from ottla.protocol.messages.consumer_group_heartbeat import (
    Assignment as WireAssignment,
)
from ottla.protocol.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    ConsumerGroupHeartbeatResponseTopicPartitions,
)


class ConsumerHeartbeats:
    """Serves members of consumer groups. Its state is the table's."""

    def __init__(
        self, table: GroupTable, rebalancing: Rebalancing, sessions: ConsumerSessions, timers: Timers[TimerEvent]
    ) -> None:
        self._table = table
        self._rebalancing = rebalancing
        self._sessions = sessions
        self.steps = Steps(table, rebalancing, sessions, timers)

    @property
    def topics(self) -> Topics:
        """The cluster's topics."""
        return self.steps.topics

    def heartbeat(self, request: ConsumerGroupHeartbeatRequest, caller: Caller, now: Instant) -> Outcome:
        """Serve one request. The reply waits until what it tells of is committed."""
        out = Outcome()
        try:
            check(request, caller.api_version, self._rebalancing.config.consumer_assignors)
            if request.member_epoch in (LEAVE_EPOCH, STATIC_LEAVE_EPOCH):
                self._leave(request, caller, now, out)
            elif changes_nothing(request, caller, self._table.consumers.get(request.group_id)):
                self._stay(request, caller, now, out)
            else:
                self._beat(request, caller, now, out)
        except Refused as refused:
            return Outcome().reply(caller.token, _refusal(refused))
        return out

    # Staying

    def is_settled(self, request: ConsumerGroupHeartbeatRequest, caller: Caller) -> bool:
        """Whether a heartbeat that was answered a moment ago is answered so again and again, until something happens to
        the group."""
        return changes_nothing(request, caller, self._table.consumers.get(request.group_id))

    def on_heard(self, group_id: str, member_id: str, heard_ms: int) -> None:
        """A member has sent a heartbeat that somebody else answered."""
        group = self._table.consumers.get(group_id)
        member = None if group is None else group.members.get(member_id)
        if member is not None:
            timeout_ms = session_timeout_ms(self._rebalancing.config, group_id, member)
            self._sessions.on_heard(group_id, member_id, heard_ms, timeout_ms=timeout_ms)

    def _stay(self, request: ConsumerGroupHeartbeatRequest, caller: Caller, now: Instant, out: Outcome) -> None:
        """Answer a heartbeat that changes nothing."""
        timeouts = self._rebalancing.config.consumer_group(request.group_id)
        self._sessions.renew(request.group_id, request.member_id, now, timeout_ms=timeouts.session_timeout_ms)
        response = ConsumerGroupHeartbeatResponse(
            member_id=request.member_id,
            member_epoch=request.member_epoch,
            heartbeat_interval_ms=timeouts.heartbeat_interval_ms,
        )
        out.write((), Reply(caller.token, response))

    def _beat(self, request: ConsumerGroupHeartbeatRequest, caller: Caller, now: Instant, out: Outcome) -> None:
        written: list[CoordinatorRecord] = []
        joins = request.member_epoch == 0
        classic = self._table.groups.get(request.group_id) if joins else None
        if classic is not None:
            group = self._from_classic(classic, written)
        elif joins and self._table.shares.get(request.group_id) is None:
            group = self._table.consumers.get_or_blank(request.group_id)
        else:
            group = self._known_group(request.group_id)
        member_id = request.member_id or caller.unique_id
        self.check_room(group, member_id)
        owned = _owned(request)
        step = self._identify(group, member_id, request, owned, now, written)
        step.new = _described(step.old, request, caller)
        step.may_wait = classic is None
        self.steps.take(step, owned)
        timeouts = self._rebalancing.config.consumer_group(group.group_id)
        self._sessions.renew(group.group_id, member_id, now, timeout_ms=timeouts.session_timeout_ms)
        is_full = (
            request.rebalance_timeout_ms != -1
            and (request.subscribed_topic_names is not None or request.subscribed_topic_regex is not None)
            and request.topic_partitions is not None
        )
        wants_all = joins or is_full
        if step.waits:
            out.write(written, then=StepPutOff(group.group_id, caller.token) if written else None)
            waiting = Waiting(
                token=caller.token,
                member_id=member_id,
                owned=owned,
                subscription_changed=step.subscription_changed,
                assigned=step.old.assigned,
                wants_all=wants_all,
            )
            self.steps.turns.wait(group.group_id, waiting, now, quiet_ms=self._rebalancing.config.targets_quiet_ms)
        else:
            tells = wants_all or step.new.assigned != step.old.assigned
            response = self._response(group.group_id, step.new, tells=tells)
            self._write(group.group_id, written, [Reply(caller.token, response)], out, has_targets=step.has_targets)
        if classic is not None:
            # Its members find out by their next request; those that wait are sent to join again.
            self._table.release(classic, ErrorCode.REBALANCE_IN_PROGRESS, out)
            for member in classic.members.values():
                self._sessions.renew(group.group_id, member.member_id, now, timeout_ms=member.session_timeout_ms)

    def _write(
        self,
        group_id: str,
        written: list[CoordinatorRecord],
        replies: Iterable[Reply],
        out: Outcome,
        *,
        has_targets: bool,
    ) -> None:
        if has_targets and not self.steps.turns.is_under_way(group_id):
            self.steps.turns.begin(group_id)
            out.write(written, *replies, then=TargetsWritten(group_id))
        else:
            out.write(written, *replies)

    def _response(self, group_id: str, member: ConsumerMember, *, tells: bool) -> ConsumerGroupHeartbeatResponse:
        return ConsumerGroupHeartbeatResponse(
            member_id=member.member_id,
            member_epoch=member.member_epoch,
            heartbeat_interval_ms=self._rebalancing.config.consumer_group(group_id).heartbeat_interval_ms,
            assignment=_wire_assignment(member) if tells else None,
        )

    def _known_group(self, group_id: str) -> ConsumerGroup:
        group = self._table.consumers.get(group_id)
        if group is None:
            raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"There is no consumer group {group_id}.")
        return group

    def _from_classic(self, classic: ClassicGroup, written: list[CoordinatorRecord]) -> ConsumerGroup:
        """The group that a new member joins where a classic one is: that one, made over with its members."""
        group_id = classic.group_id
        if classic.state is GroupState.EMPTY:
            if group_id in self._table.metadata:
                written.append(records.group_metadata_tombstone(group_id))
            return self._table.consumers.get_or_blank(group_id)
        config = self._rebalancing.config
        if not config.migration_policy.may_upgrade:
            raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"{group_id} is a classic group, and may not change that.")
        if len(classic.members) > config.consumer_group_max_size:
            raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"{group_id} has too many members for a consumer group.")
        written += upgrade(classic, self.topics)
        return as_replayed(group_id, written)

    def check_room(self, group: ConsumerGroup, member_id: str) -> None:
        """Raises: Refused (GROUP_MAX_SIZE_REACHED)."""
        limit = self._rebalancing.config.consumer_group_max_size
        if len(group.members) >= limit and member_id not in group.members:
            raise Refused(ErrorCode.GROUP_MAX_SIZE_REACHED, f"The group has {limit} members, which is the most.")

    def _identify(
        self,
        group: ConsumerGroup,
        member_id: str,
        request: ConsumerGroupHeartbeatRequest,
        owned: Owned | None,
        now: Instant,
        written: list[CoordinatorRecord],
    ) -> Step:
        """Find or make the member, or take over a static one's place."""
        joins = request.member_epoch == 0
        instance_id = request.instance_id
        if instance_id is None:
            member = group.members.get(member_id)
            if member is None and not joins:
                raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"{member_id} is no member of {group.group_id}.")
        else:
            member = group.static_member(instance_id)
            if not joins:
                self.check_static(member, member_id, instance_id)
            elif member is not None:
                if not member.is_classic and member.member_epoch != STATIC_LEAVE_EPOCH:
                    raise Refused(ErrorCode.UNRELEASED_INSTANCE_ID, f"{instance_id} is in use by {member.member_id}.")
                return self.replace_static(group, member, member_id, now, written)
            else:
                member = group.members.get(member_id)
        if member is not None:
            _check_epoch(member, request.member_epoch, owned)
        old = member or ConsumerMember(member_id=member_id)
        return Step(group=group, old=old, now=now, records=written)

    @staticmethod
    def check_static(member: ConsumerMember | None, member_id: str, instance_id: str) -> None:
        """Raises: Refused (UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID)."""
        if member is None:
            raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"{instance_id} is not an instance id of the group.")
        if member.member_id != member_id:
            raise Refused(ErrorCode.FENCED_INSTANCE_ID, f"{instance_id} now is {member.member_id}'s.")

    @staticmethod
    def replace_static(
        group: ConsumerGroup, member: ConsumerMember, member_id: str, now: Instant, written: list[CoordinatorRecord]
    ) -> Step:
        """A static member is back under another id: it takes over all that it had."""
        step = Step(
            group=group,
            old=replace(member, member_id=member_id, member_epoch=0, previous_member_epoch=0),
            now=now,
            records=written,
            replaced=member,
        )
        _remove(step.records, group.group_id, member.member_id)
        step.put(*step.old.metadata_record(group.group_id))
        target_key = TargetMemberKey(group=group.group_id, member=member_id)
        step.put(target_key, target_value(group.target_of(member.member_id)))
        step.put(*step.old.assignment_record(group.group_id))
        return step

    # Waiting for targets

    def serve_waiting(self, group_id: str, now: Instant) -> Outcome:
        """The newest targets are committed, or nobody has come for a moment who would need others: those who wait take
        their step, towards newer targets if need be."""
        out = Outcome()
        waiting = self.steps.turns.end(group_id)
        if not waiting:
            return out
        group = self._table.consumers.get_or_blank(group_id)
        written: list[CoordinatorRecord] = []
        targets: Mapping[str, Target] = {}
        target_epoch = group.assignment_epoch
        if target_epoch < group.epoch:
            step = Step(group=group, old=ConsumerMember(member_id=""), now=now, records=written)
            step.wishes = group.wishes
            targets = self.steps.compute_targets(step, [member for _, member in group.members.items()], group.epoch)
            target_epoch = group.epoch
        replies = []
        moved: dict[str, ConsumerMember] = {}
        for each in waiting:
            member = moved.get(each.member_id) or group.members.get(each.member_id)
            try:
                if member is None or member.member_epoch == STATIC_LEAVE_EPOCH:
                    raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"{each.member_id} has left {group_id} meanwhile.")
                step = Step(group=group, old=member, now=now, records=written)
                step.new, step.subscription_changed = member, each.subscription_changed
                target = targets.get(each.member_id)
                self.steps.reconcile(
                    step, target_epoch, group.target_of(each.member_id) if target is None else target, each.owned
                )
                moved[each.member_id] = step.new
                tells = each.wants_all or step.new.assigned != each.assigned
                response = self._response(group_id, step.new, tells=tells)
            except Refused as refused:
                response = _refusal(refused)
            replies.append(Reply(each.token, response))
        self._write(group_id, written, replies, out, has_targets=bool(targets))
        return out

    def on_targets_lost(self, group_id: str, error: ErrorCode) -> Outcome:
        """The newest targets are lost, or not committed in time: so is what those who came meanwhile wait for."""
        return Outcome(replies=[Reply(each.token, None, error) for each in self.steps.turns.end(group_id)])

    def on_step_lost(self, event: StepPutOff, error: ErrorCode) -> Outcome:
        """What a heartbeat wrote is lost, or not committed in time: it does not wait for targets any more."""
        out = Outcome()
        if self.steps.turns.give_up(event.group_id, event.token):
            out.replies.append(Reply(event.token, None, error))
        return out

    # Leaving

    def _leave(self, request: ConsumerGroupHeartbeatRequest, caller: Caller, now: Instant, out: Outcome) -> None:
        group = self._known_group(request.group_id)
        if request.instance_id is None:
            member = group.members.get(request.member_id)
            if member is None:
                raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"{request.member_id} is no member of {group.group_id}.")
        else:
            member = group.static_member(request.instance_id)
            self.check_static(member, request.member_id, request.instance_id)
            assert member is not None
        response = ConsumerGroupHeartbeatResponse(member_id=request.member_id, member_epoch=request.member_epoch)
        reply = Reply(caller.token, response)
        if request.member_epoch == STATIC_LEAVE_EPOCH:
            # Its partitions stay its own, from epoch 0 on, so that it may commit for them under its next id.
            away = replace(
                member,
                member_epoch=STATIC_LEAVE_EPOCH,
                assigned={t: dict.fromkeys(epochs, 0) for t, epochs in member.assigned.items()},
                revoking={},
            )
            out.write([consumer_records.record(*away.assignment_record(group.group_id))], reply)
        else:
            self.put_out(group, [member], now, out, reply)

    def put_out(
        self, group: ConsumerGroup, members: Collection[ConsumerMember], now: Instant, out: Outcome, *replies: Reply
    ) -> None:
        """Take members out. A group with only members by the classic protocol left is a classic group again."""
        config = self._rebalancing.config
        stay = len(group.members) - len(members)
        stay_classic = group.classic_count - sum(member.is_classic for member in members)
        if not stay or stay_classic < stay or stay > config.group_max_size or not config.migration_policy.may_downgrade:
            out.write(self.removal(group, members), *replies, then=MembersPutOut(group.group_id))
            return
        leaving = {member.member_id for member in members}
        classic = downgrade(group, leaving, self.topics, wall_ms=now.wall_ms)
        written = [*tombstones_of(group), records.group_metadata(group.group_id, classic)]
        out.write(written, *replies, then=GroupDowngraded(group.group_id))

    def removal(self, group: ConsumerGroup, members: Iterable[ConsumerMember]) -> list[CoordinatorRecord]:
        """The records that take members out of a group, with an epoch for new targets."""
        written: list[CoordinatorRecord] = []
        wishes = group.wishes.copy()
        for member in members:
            _remove(written, group.group_id, member.member_id)
            wishes.count(member, -1)
        for regex in group.wishes.regexes:
            if regex not in wishes.regexes:
                key = RegularExpressionKey(group=group.group_id, regular_expression=regex)
                written.append(consumer_records.record(key, None))
        subscribed = set(wishes.names).union(*(group.topics_of(regex) for regex in wishes.regexes))
        value = GroupEpochValue(epoch=group.epoch + 1, metadata_hash=self.topics.hash_of(subscribed))
        written.append(consumer_records.record(ConsumerGroupKey(group=group.group_id), value))
        return written

    # Time

    def on_overdue(self, events: Iterable[MemberOverdue], now: Instant, out: Outcome) -> None:
        """Members were not heard of in time, or did not do in time what they were asked to.

        All that is due at one moment: what is decided for one member is not yet replayed when the next is looked at.
        """
        fenced: dict[str, dict[str, ConsumerMember]] = {}
        for event in events:
            group = self._table.consumers.get(event.group_id)
            member = None if group is None else group.members.get(event.member_id)
            if member is None or (isinstance(event, RevocationOverdue) and event.member_epoch != member.member_epoch):
                continue
            fenced.setdefault(event.group_id, {})[event.member_id] = member
        for group_id, members in fenced.items():
            self.put_out(self._table.consumers.get_or_blank(group_id), members.values(), now, out)


def _refusal(refused: Refused) -> ConsumerGroupHeartbeatResponse:
    return ConsumerGroupHeartbeatResponse(error_code=refused.code, error_message=refused.message)


def _remove(written: list[CoordinatorRecord], group_id: str, member_id: str) -> None:
    for kind in (CurrentAssignmentKey, TargetMemberKey, MemberMetadataKey):
        written.append(consumer_records.record(kind(group=group_id, member=member_id), None))


def _check_epoch(member: ConsumerMember, epoch: int, owned: Owned | None) -> None:
    """An earlier epoch is accepted from a member that may have missed the answer with the new one."""
    if epoch in (0, member.member_epoch):
        return
    is_retry = (
        epoch == member.previous_member_epoch
        and epoch < member.member_epoch
        and owned is not None
        and all(p in member.assigned.get(topic_id, ()) for topic_id, parts in owned.items() for p in parts)
    )
    if not is_retry:
        raise Refused(
            ErrorCode.FENCED_MEMBER_EPOCH,
            f"The member is at epoch {member.member_epoch}, not {epoch}. It has to start over with nothing.",
        )


def _described(member: ConsumerMember, request: ConsumerGroupHeartbeatRequest, caller: Caller) -> ConsumerMember:
    """The member with what the request says of it; what the request leaves out stays."""
    if describes_nothing(request, caller, member):
        return member
    before = member.metadata
    names = request.subscribed_topic_names
    has_timeout = request.rebalance_timeout_ms != -1
    metadata = MemberMetadataValue(
        instance_id=before.instance_id if request.instance_id is None else request.instance_id,
        rack_id=before.rack_id if request.rack_id is None else request.rack_id,
        client_id=caller.client_id,
        client_host=caller.client_host,
        subscribed_topic_names=before.subscribed_topic_names if names is None else tuple(sorted(set(names))),
        subscribed_topic_regex=(
            before.subscribed_topic_regex if request.subscribed_topic_regex is None else request.subscribed_topic_regex
        ),
        rebalance_timeout_ms=request.rebalance_timeout_ms if has_timeout else before.rebalance_timeout_ms,
        server_assignor=before.server_assignor if request.server_assignor is None else request.server_assignor,
        classic_member_metadata=None,
    )
    return member.described(metadata)


def _owned(request: ConsumerGroupHeartbeatRequest) -> Owned | None:
    if request.topic_partitions is None:
        return None
    return {t.topic_id: t.partitions for t in request.topic_partitions if t.topic_id is not None}


def _wire_assignment(member: ConsumerMember) -> WireAssignment:
    return WireAssignment(
        topic_partitions=tuple(
            ConsumerGroupHeartbeatResponseTopicPartitions(topic_id=topic_id, partitions=tuple(sorted(epochs)))
            for topic_id, epochs in member.assigned.items()
        )
    )
