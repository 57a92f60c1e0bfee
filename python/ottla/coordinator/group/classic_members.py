"""Members of a consumer group that speak the classic protocol (KIP-848: groups in migration).

To them a member epoch is a generation: JoinGroup is a heartbeat that says everything anew, SyncGroup hands out what the
member has, and Heartbeat tells it to join again whenever there is a step to take.

Source: Kafka's `GroupMetadataManager` (classicGroupJoinToConsumerGroup, -Sync-, -Heartbeat-, -Leave-).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.config import MigrationPolicy
from ottla.coordinator.group.consumer import ConsumerGroup, ConsumerMember, MemberState, Refused
from ottla.coordinator.group.consumer_records import ClassicMemberMetadata, ClassicProtocol
from ottla.coordinator.group.consumer_sessions import ConsumerSessions
from ottla.coordinator.group.heartbeats import ConsumerHeartbeats
from ottla.coordinator.group.rebalance import Rebalancing
from ottla.coordinator.group.steps import Step
from ottla.coordinator.group.subscription import CONSUMER_PROTOCOL_TYPE, encode_assignment, parse_subscription
from ottla.coordinator.shard import CoordinatorRecord, Instant, Outcome, Reply
from ottla.errors import ErrorCode
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from ottla.protocol.messages.leave_group import MemberIdentity
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupResponse

MEMBER_ID_REQUIRED_VERSION_MIN = 4


class ClassicMembers:
    """Serves classic requests to consumer groups that have members."""

    def __init__(self, heartbeats: ConsumerHeartbeats, rebalancing: Rebalancing, sessions: ConsumerSessions) -> None:
        self._heartbeats = heartbeats
        self._rebalancing = rebalancing
        self._sessions = sessions

    def join(self, group: ConsumerGroup, request: JoinGroupRequest, caller: Caller, now: Instant) -> Outcome:
        written: list[CoordinatorRecord] = []
        try:
            response = self._join(group, request, caller, now, written)
        except Refused as refused:
            return Outcome().reply(caller.token, JoinGroupResponse(error_code=refused.code))
        return Outcome().write(written, Reply(caller.token, response))

    def _join(
        self,
        group: ConsumerGroup,
        request: JoinGroupRequest,
        caller: Caller,
        now: Instant,
        written: list[CoordinatorRecord],
    ) -> JoinGroupResponse:
        if self._rebalancing.config.migration_policy is MigrationPolicy.DISABLED:
            raise Refused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, "Groups may not be of both kinds.")
        member_id = request.member_id or caller.unique_id
        self._heartbeats.check_room(group, member_id)
        _check_protocols(group, request.protocol_type, request.protocols)
        instance_id = request.group_instance_id
        is_new = not request.member_id
        if is_new and instance_id is None and caller.api_version >= MEMBER_ID_REQUIRED_VERSION_MIN:
            return JoinGroupResponse(error_code=ErrorCode.MEMBER_ID_REQUIRED, member_id=member_id)
        subscription = parse_subscription(request.protocols[0].metadata)
        if subscription is None:
            raise Refused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, "The subscription cannot be read.")
        step = self._identify(group, member_id, instance_id, now, written, is_new=is_new)
        before = step.old.metadata
        metadata = replace(
            before,
            instance_id=instance_id or before.instance_id,
            rack_id=subscription.rack_id or before.rack_id,
            client_id=caller.client_id,
            client_host=caller.client_host,
            subscribed_topic_names=tuple(sorted(set(subscription.topics))),
            subscribed_topic_regex="",
            rebalance_timeout_ms=request.rebalance_timeout_ms,
            classic_member_metadata=ClassicMemberMetadata(
                session_timeout_ms=request.session_timeout_ms,
                supported_protocols=tuple(ClassicProtocol(name=p.name, metadata=p.metadata) for p in request.protocols),
            ),
        )
        step.new = step.old.described(metadata)
        topic_ids = self._heartbeats.topics.image.topic_ids
        owned = {topic_ids[name]: parts for name, parts in subscription.owned.items() if name in topic_ids}
        self._heartbeats.steps.take(step, owned)
        self._sessions.renew(group.group_id, member_id, now, timeout_ms=request.session_timeout_ms)
        self._sessions.await_classic_step(group.group_id, step.new, now, is_new=True)
        return JoinGroupResponse(
            member_id=member_id,
            generation_id=step.new.member_epoch,
            protocol_type=CONSUMER_PROTOCOL_TYPE,
            protocol_name=request.protocols[0].name,
        )

    def _identify(
        self,
        group: ConsumerGroup,
        member_id: str,
        instance_id: str | None,
        now: Instant,
        written: list[CoordinatorRecord],
        *,
        is_new: bool,
    ) -> Step:
        if instance_id is None:
            member = group.members.get(member_id)
        else:
            member = group.static_member(instance_id)
            if not is_new:
                self._heartbeats.check_static(member, member_id, instance_id)
            elif member is not None:
                return self._heartbeats.replace_static(group, member, member_id, now, written)
        return Step(group=group, old=member or ConsumerMember(member_id=member_id), now=now, records=written)

    def sync(self, group: ConsumerGroup, request: SyncGroupRequest, caller: Caller, now: Instant) -> Outcome:
        try:
            member = self._classic_member(group, request.member_id, request.group_instance_id, request.generation_id)
            (protocol, *_) = _classic(member).supported_protocols
            if request.protocol_type not in (None, CONSUMER_PROTOCOL_TYPE) or (
                request.protocol_name not in (None, protocol.name)
            ):
                raise Refused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, "That is not the protocol of the group.")
            if group.assignment_epoch > member.member_epoch and member.state is not MemberState.UNREVOKED_PARTITIONS:
                self._sessions.await_classic_step(group.group_id, member, now, is_new=False)
                raise Refused(ErrorCode.REBALANCE_IN_PROGRESS, "There is a new assignment to join for.")
        except Refused as refused:
            return Outcome().reply(caller.token, SyncGroupResponse(error_code=refused.code))
        self._sessions.forget_classic_step(group.group_id, member.member_id)
        self._sessions.renew(group.group_id, member.member_id, now, timeout_ms=_classic(member).session_timeout_ms)
        subscription = parse_subscription(protocol.metadata)
        topics = self._heartbeats.topics
        partitions = {name: p for t, p in member.assigned.items() if (name := topics.name_of(t)) is not None}
        response = SyncGroupResponse(
            protocol_type=request.protocol_type,
            protocol_name=request.protocol_name,
            assignment=encode_assignment(partitions, version=0 if subscription is None else subscription.version),
        )
        return Outcome().write((), Reply(caller.token, response))

    def heartbeat(
        self, group: ConsumerGroup, member_id: str, instance_id: str | None, generation_id: int, now: Instant
    ) -> ErrorCode:
        try:
            member = self._classic_member(group, member_id, instance_id, generation_id)
        except Refused as refused:
            return refused.code
        self._sessions.renew(group.group_id, member_id, now, timeout_ms=_classic(member).session_timeout_ms)
        if (
            member.member_epoch < group.assignment_epoch
            or member.state is MemberState.UNREVOKED_PARTITIONS
            or (member.state is MemberState.UNRELEASED_PARTITIONS and not group.is_waiting(member))
        ):
            self._sessions.await_classic_step(group.group_id, member, now, is_new=False)
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    def leave(
        self, group: ConsumerGroup, identities: tuple[MemberIdentity, ...], now: Instant
    ) -> tuple[list[ErrorCode], Outcome]:
        """Take members out, of either protocol: administrators do so with static ones. Returns an error for each."""
        leaving: dict[str, ConsumerMember] = {}
        errors = []
        for identity in identities:
            instance_id = identity.group_instance_id
            member = group.members.get(identity.member_id) if instance_id is None else group.static_member(instance_id)
            if member is None:
                errors.append(ErrorCode.UNKNOWN_MEMBER_ID)
            elif instance_id is not None and identity.member_id not in ("", member.member_id):
                errors.append(ErrorCode.FENCED_INSTANCE_ID)
            else:
                errors.append(ErrorCode.NONE)
                leaving[member.member_id] = member
        out = Outcome()
        if leaving:
            self._heartbeats.put_out(group, leaving.values(), now, out)
        return errors, out

    def _classic_member(
        self, group: ConsumerGroup, member_id: str, instance_id: str | None, generation_id: int
    ) -> ConsumerMember:
        """Raises: Refused."""
        if instance_id is None:
            member = group.members.get(member_id)
        else:
            member = group.static_member(instance_id)
            self._heartbeats.check_static(member, member_id, instance_id)
        if member is None or not member.is_classic:
            raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"{member_id} is no member by the classic protocol.")
        if generation_id != member.member_epoch:
            raise Refused(ErrorCode.ILLEGAL_GENERATION, f"The member is at {member.member_epoch}.")
        return member


def _classic(member: ConsumerMember) -> ClassicMemberMetadata:
    assert member.metadata.classic_member_metadata is not None
    return member.metadata.classic_member_metadata


def _check_protocols(group: ConsumerGroup, protocol_type: str, protocols: tuple[JoinGroupRequestProtocol, ...]) -> None:
    """One protocol has to be common to all members that speak the classic one."""
    named: list[Mapping[str, None]] = [
        {p.name: None for p in _classic(m).supported_protocols} for _, m in group.members.items() if m.is_classic
    ]
    if protocol_type != CONSUMER_PROTOCOL_TYPE or not any(all(p.name in n for n in named) for p in protocols):
        raise Refused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, "No protocol is common to all members.")
