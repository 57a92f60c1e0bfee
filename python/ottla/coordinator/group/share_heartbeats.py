"""ShareGroupHeartbeat: joining, staying in and leaving a share group (KIP-932).

A heartbeat takes the steps of a consumer group's (`heartbeats`), the last of them whole: the member has its target at
once. Beside them it finds the partitions that members subscribe to and that have no state yet; when the write is
committed they appear in `take_initializations`, and whoever runs the machine has the share coordinator begin their
states and says so by `initialized`. Only then may they be assigned, with the next heartbeat.

Source: Kafka's `GroupMetadataManager` (shareGroupHeartbeat, shareGroupLeave and what they call) and
`GroupCoordinatorService` (what a request must have, persisterInitialize).
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ottla.coordinator.group import share_records
from ottla.coordinator.group.assignors.model import MemberSpec, Target
from ottla.coordinator.group.assignors.simple import assign_simple
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.consumer import LEAVE_EPOCH, Refused
from ottla.coordinator.group.events import MembersPutOut, ShareSessionEnds, StatesInitializing, TimerEvent
from ottla.coordinator.group.rebalance import Rebalancing
from ottla.coordinator.group.share import (
    NamedSet,
    ShareGroup,
    ShareMember,
    StatePartitions,
    member_tombstones,
    union,
    written,
)
from ottla.coordinator.group.share_records import (
    ShareGroupEpochValue,
    ShareGroupKey,
    ShareTargetMemberKey,
    ShareTargetMemberValue,
    ShareTargetMetadataKey,
    ShareTargetMetadataValue,
)
from ottla.coordinator.group.table import GroupTable
from ottla.coordinator.group.topic_metadata import Topics
from ottla.coordinator.shard import CoordinatorRecord, Instant, Outcome, Reply
from ottla.coordinator.timers import Deadline, Timers
from ottla.errors import ErrorCode
from ottla.protocol.messages.share_group_heartbeat import (
    Assignment,
    ShareGroupHeartbeatRequest,
    ShareGroupHeartbeatResponse,
    TopicPartitions,
)

MEMBER_ID_LENGTH_MAX = 36


class ShareHeartbeats:
    """Serves members of share groups. Its durable state is the table's; sessions live in memory alone."""

    def __init__(self, table: GroupTable, rebalancing: Rebalancing, timers: Timers[TimerEvent]) -> None:
        self._table = table
        self._rebalancing = rebalancing
        self._timers = timers
        self._sessions: dict[tuple[str, str], Deadline[TimerEvent]] = {}
        self._initializations: list[StatesInitializing] = []
        self.topics = Topics()

    def follow(self, topics: Topics) -> None:
        """The cluster's topics are these from now on."""
        changed = topics.changed_since(self.topics)
        self.topics = topics
        if changed:
            for group in self._table.shares:
                if not changed.isdisjoint(group.subscribers):
                    group.checked_at_epoch = None

    def heartbeat(self, request: ShareGroupHeartbeatRequest, caller: Caller, now: Instant) -> Outcome:
        """Serve one request. The reply waits until what it tells of is committed."""
        out = Outcome()
        try:
            _check_request(request)
            if request.member_epoch == LEAVE_EPOCH:
                self._leave(request, caller, out)
            else:
                self._beat(request, caller, now, out)
        except Refused as refused:
            response = ShareGroupHeartbeatResponse(error_code=refused.code, error_message=refused.message)
            return Outcome().reply(caller.token, response)
        return out

    # Staying

    def _beat(self, request: ShareGroupHeartbeatRequest, caller: Caller, now: Instant, out: Outcome) -> None:
        joins = request.member_epoch == 0
        group = self.group_to_begin(request.group_id) if joins else self.known_group(request.group_id)
        limit = self._rebalancing.config.share_group_max_size
        old = group.members.get(request.member_id)
        if old is None and len(group.members) >= limit:
            raise Refused(ErrorCode.GROUP_MAX_SIZE_REACHED, f"The group has {limit} members, which is the most.")
        if old is None and not joins:
            raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"{request.member_id} is no member of {group.group_id}.")
        old = old or ShareMember(member_id=request.member_id)
        _check_epoch(old, request.member_epoch)
        new = _described(old, request, caller)
        records: list[CoordinatorRecord] = []
        if new.metadata != old.metadata:
            records.append(new.metadata_record(group.group_id))
        subscribers = group.subscribers - Counter(old.topics) + Counter(new.topics)
        epoch = self._next_epoch(group, subscribers, records, is_due=new.topics != old.topics)
        target_epoch, target = self._targets(group, new, epoch, now, records)
        new = self._reconciled(new, target_epoch, target, is_due=epoch != group.epoch)
        if (new.member_epoch, new.assigned) != (old.member_epoch, old.assigned):
            records.append(new.assignment_record(group.group_id))
        initializing = self._initialize(group, subscribers, epoch, now, records)
        config = self._rebalancing.config.share_group(group.group_id)
        self._renew(group.group_id, new.member_id, now, timeout_ms=config.session_timeout_ms)
        tells = joins or request.subscribed_topic_names is not None or new.assigned != old.assigned
        response = ShareGroupHeartbeatResponse(
            member_id=new.member_id,
            member_epoch=new.member_epoch,
            heartbeat_interval_ms=config.heartbeat_interval_ms,
            assignment=_wire_assignment(new.assigned) if tells else None,
        )
        out.write(records, Reply(caller.token, response), then=initializing)

    def known_group(self, group_id: str) -> ShareGroup:
        """Raises: Refused (GROUP_ID_NOT_FOUND)."""
        group = self._table.shares.get(group_id)
        if group is None:
            raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"There is no share group {group_id}.")
        return group

    def group_to_begin(self, group_id: str) -> ShareGroup:
        """A share group that is there or may be. Raises: Refused (GROUP_ID_NOT_FOUND: it is of another type)."""
        if group_id in self._table.groups or self._table.consumers.get(group_id) is not None:
            raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {group_id} is not a share group.")
        return self._table.shares.get_or_blank(group_id)

    def _next_epoch(
        self, group: ShareGroup, subscribers: Counter[str], records: list[CoordinatorRecord], *, is_due: bool
    ) -> int:
        """The group's epoch: a new one if subscriptions changed (`is_due`), or the topics, or which have states."""
        epoch = group.epoch
        is_due = is_due or (group.assignment_epoch >= epoch and group.has_unassigned(self.topics.image.topics))
        if not is_due and group.checked_at_epoch is not None and epoch >= group.checked_at_epoch:
            return epoch
        metadata_hash = self.topics.hash_of(subscribers)
        if is_due or metadata_hash != group.metadata_hash:
            epoch += 1
            records.append(_epoch_record(group.group_id, epoch, metadata_hash))
        # Should the record be lost, the group's epoch is below this one, and the next heartbeat looks again.
        group.checked_at_epoch = epoch
        return epoch

    def _targets(
        self, group: ShareGroup, new: ShareMember, epoch: int, now: Instant, records: list[CoordinatorRecord]
    ) -> tuple[int, Target]:
        """The epoch of the targets and the member's, computed anew for a new group epoch."""
        interval_ms = self._rebalancing.config.share_group(group.group_id).assignment_interval_ms
        earliest_ms = group.assigned_wall_ms + interval_ms if group.assigned_wall_ms and interval_ms else now.wall_ms
        if group.assignment_epoch >= epoch or now.wall_ms < earliest_ms:
            return group.assignment_epoch, group.target_of(new.member_id)
        states = group.states or StatePartitions()
        found = assign_simple(
            {
                member_id: MemberSpec(
                    subscribed=self.topics.ids_of(member.topics),
                    current=group.target_of(member_id),
                    rack_id=member.metadata.rack_id,
                )
                for member_id, member in {**dict(group.members.items()), new.member_id: new}.items()
            },
            {topic_id: topic.partitions for topic_id, topic in states.initialized.items()},
        )
        for member_id, target in found.items():
            if group.targets.get(member_id) != target:
                key = ShareTargetMemberKey(group=group.group_id, member=member_id)
                records.append(share_records.record(key, ShareTargetMemberValue(topic_partitions=written(target))))
        value = ShareTargetMetadataValue(assignment_epoch=epoch, assignment_timestamp_ms=now.wall_ms)
        records.append(share_records.record(ShareTargetMetadataKey(group=group.group_id), value))
        return epoch, found[new.member_id]

    def _reconciled(self, member: ShareMember, epoch: int, target: Target, *, is_due: bool) -> ShareMember:
        """The member with its target, as far as it subscribes to what is in it."""
        if not is_due and member.member_epoch == epoch:
            return member
        subscribed = self.topics.ids_of(member.topics)
        assigned = {topic_id: found for topic_id, found in target.items() if topic_id in subscribed}
        if member.member_epoch == epoch:
            return replace(member, assigned=assigned)
        return replace(member, member_epoch=epoch, previous_member_epoch=member.member_epoch, assigned=assigned)

    # States of partitions

    def _initialize(
        self,
        group: ShareGroup,
        subscribers: Iterable[str],
        epoch: int,
        now: Instant,
        records: list[CoordinatorRecord],
    ) -> StatesInitializing | None:
        """Find partitions without a state. Those that were asked for a while ago without an end are asked for again."""
        states = group.states
        retry_ms = self._rebalancing.config.share_initialize_retry_interval_ms
        known: Mapping[uuid.UUID, NamedSet] = {}
        if states is not None:
            recent = {
                topic_id: topic
                for topic_id, topic in states.initializing.items()
                if (asked := group.asked_ms.get(topic_id)) is not None and now.now_ms - asked < retry_ms
            }
            known = union(states.initialized, recent)
        missing = {}
        for topic_id in self.topics.ids_of(subscribers):
            has = known[topic_id].partitions if topic_id in known else frozenset()
            lacks = frozenset(range(self.topics.partition_count(topic_id))) - has
            if lacks:
                missing[topic_id] = NamedSet(self.topics.name_of(topic_id) or "", lacks)
        if not missing:
            return None
        records.append((states or StatePartitions()).with_initializing(missing).record(group.group_id))
        for topic_id in missing:
            group.asked_ms[topic_id] = now.now_ms
        return StatesInitializing(group.group_id, epoch, missing)

    def on_committed(self, event: StatesInitializing) -> None:
        self._initializations.append(event)

    def on_failed(self, event: StatesInitializing) -> None:
        """The write was lost, or is not known to be committed: the next heartbeat looks again."""
        group = self._table.shares.get(event.group_id)
        for topic_id in event.topics if group is not None else ():
            assert group is not None
            group.asked_ms.pop(topic_id, None)

    def take_initializations(self) -> list[StatesInitializing]:
        """States that the share coordinator is to begin now."""
        found, self._initializations = self._initializations, []
        return found

    def initialized(
        self, group_id: str, topics: Mapping[uuid.UUID, NamedSet], failed: Mapping[uuid.UUID, NamedSet]
    ) -> Outcome:
        """The share coordinator has begun the states of some partitions, and could not for others.

        A failed one is asked for again with the next heartbeat.
        """
        group = self._table.shares.get(group_id)
        states = None if group is None else group.states
        if group is None or states is None:
            return Outcome()
        for topic_id in (*topics, *failed):
            group.asked_ms.pop(topic_id, None)
        # What was deleted meanwhile must not come back.
        there = {topic_id: topic for topic_id, topic in topics.items() if topic_id in self.topics.image.topics}
        return Outcome().write(
            [states.without_initializing(union(topics, failed)).with_initialized(there).record(group_id)]
        )

    # Leaving

    def _leave(self, request: ShareGroupHeartbeatRequest, caller: Caller, out: Outcome) -> None:
        group = self.known_group(request.group_id)
        member = group.members.get(request.member_id)
        if member is None:
            raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"{request.member_id} is no member of {group.group_id}.")
        response = ShareGroupHeartbeatResponse(member_id=request.member_id, member_epoch=request.member_epoch)
        out.write(self._removal(group, [member]), Reply(caller.token, response))

    def _removal(self, group: ShareGroup, members: Iterable[ShareMember]) -> list[CoordinatorRecord]:
        """The records that take members out of a group, with an epoch for new targets."""
        found: list[CoordinatorRecord] = []
        subscribers = group.subscribers.copy()
        for member in members:
            found += member_tombstones(group.group_id, member.member_id)
            subscribers -= Counter(member.topics)
            self._forget_session(group.group_id, member.member_id)
        found.append(_epoch_record(group.group_id, group.epoch + 1, self.topics.hash_of(subscribers)))
        return found

    # Time

    def _renew(self, group_id: str, member_id: str, now: Instant, *, timeout_ms: int) -> None:
        at = (group_id, member_id)
        session = self._sessions.get(at)
        if session is None:
            session = self._sessions[at] = Deadline(ShareSessionEnds(group_id, member_id))
        self._timers.schedule(session, now.now_ms + timeout_ms)

    def _forget_session(self, group_id: str, member_id: str) -> None:
        session = self._sessions.pop((group_id, member_id), None)
        if session is not None:
            self._timers.cancel(session)

    def adopt(self, now: Instant) -> None:
        """Give a session to every member that has none: nobody knows when those of the log were last heard of."""
        for group in self._table.shares:
            timeout_ms = self._rebalancing.config.share_group(group.group_id).session_timeout_ms
            for member_id, _ in group.members.items():
                if (group.group_id, member_id) not in self._sessions:
                    self._renew(group.group_id, member_id, now, timeout_ms=timeout_ms)

    def on_overdue(self, events: Iterable[ShareSessionEnds], out: Outcome) -> None:
        """Members were not heard of in time.

        All that is due at one moment: what is decided for one member is not yet replayed when the next is looked at.
        """
        fenced: dict[str, dict[str, ShareMember]] = {}
        for event in events:
            self._sessions.pop((event.group_id, event.member_id), None)
            group = self._table.shares.get(event.group_id)
            member = None if group is None else group.members.get(event.member_id)
            if member is not None:
                fenced.setdefault(event.group_id, {})[event.member_id] = member
        for group_id, members in fenced.items():
            removal = self._removal(self._table.shares.get_or_blank(group_id), members.values())
            out.write(removal, then=MembersPutOut(group_id))


def _check_request(request: ShareGroupHeartbeatRequest) -> None:
    wrong = None
    if not 0 < len(request.member_id) <= MEMBER_ID_LENGTH_MAX or not request.member_id.strip():
        wrong = f"A member id has 1 to {MEMBER_ID_LENGTH_MAX} characters."
    elif not request.group_id.strip():
        wrong = "There is no group id."
    elif request.rack_id is not None and not request.rack_id.strip():
        wrong = "The rack id is empty."
    elif request.member_epoch == 0 and not request.subscribed_topic_names:
        wrong = "A member that joins has to subscribe."
    elif request.member_epoch < LEAVE_EPOCH:
        wrong = f"There is no member epoch {request.member_epoch}."
    if wrong is not None:
        raise Refused(ErrorCode.INVALID_REQUEST, wrong)


def _check_epoch(member: ShareMember, epoch: int) -> None:
    """The epoch before is accepted from a member that may have missed the answer with the new one."""
    if epoch in (0, member.member_epoch) or (epoch == member.previous_member_epoch and epoch < member.member_epoch):
        return
    raise Refused(
        ErrorCode.FENCED_MEMBER_EPOCH,
        f"The member is at epoch {member.member_epoch}, not {epoch}. It has to start over with nothing.",
    )


def _described(member: ShareMember, request: ShareGroupHeartbeatRequest, caller: Caller) -> ShareMember:
    """The member with what the request says of it; what the request leaves out stays."""
    before, names = member.metadata, request.subscribed_topic_names
    metadata = replace(
        before,
        rack_id=before.rack_id if request.rack_id is None else request.rack_id,
        client_id=caller.client_id,
        client_host=caller.client_host,
        subscribed_topic_names=before.subscribed_topic_names if names is None else tuple(sorted(set(names))),
    )
    return replace(member, metadata=metadata)


def _epoch_record(group_id: str, epoch: int, metadata_hash: int) -> CoordinatorRecord:
    value = ShareGroupEpochValue(epoch=epoch, metadata_hash=metadata_hash)
    return share_records.record(ShareGroupKey(group=group_id), value)


def _wire_assignment(assigned: Target) -> Assignment:
    return Assignment(
        topic_partitions=tuple(
            TopicPartitions(topic_id=topic_id, partitions=tuple(sorted(partitions)))
            for topic_id, partitions in assigned.items()
        )
    )
