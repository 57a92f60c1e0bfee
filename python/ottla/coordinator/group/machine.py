"""The group coordinator's machine: one partition of `__consumer_offsets`, for `ottla.coordinator.shard.Shard`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import assert_never

from ottla.coordinator.group.classic_members import ClassicMembers
from ottla.coordinator.group.config import GroupConfig
from ottla.coordinator.group.consumer_sessions import ConsumerSessions
from ottla.coordinator.group.directory import Directory
from ottla.coordinator.group.events import (
    AdoptionDue,
    ClassicStepOverdue,
    ConsumerSessionEnds,
    ExpiryCheckDue,
    GroupDowngraded,
    JoinPhaseEnds,
    MemberOverdue,
    MembersPutOut,
    RevocationOverdue,
    SessionEnds,
    ShareSessionEnds,
    StatesInitializing,
    StepPutOff,
    SyncPhaseEnds,
    TargetsDue,
    TargetsWritten,
    Then,
    TimerEvent,
)
from ottla.coordinator.group.heartbeats import ConsumerHeartbeats
from ottla.coordinator.group.membership import Membership
from ottla.coordinator.group.offsets import Offsets
from ottla.coordinator.group.rebalance import Rebalancing
from ottla.coordinator.group.record_schema import RecordKind
from ottla.coordinator.group.share_heartbeats import ShareHeartbeats
from ottla.coordinator.group.share_states import ShareStates
from ottla.coordinator.group.table import GroupTable
from ottla.coordinator.group.topic_metadata import Topics
from ottla.coordinator.group.transactional_offsets import TransactionalOffsets
from ottla.coordinator.shard import Instant, LoadedRecord, Outcome, TransactionMarker
from ottla.coordinator.timers import Deadline, Timers
from ottla.errors import ErrorCode
from ottla.protocol.messages.consumer_group_describe import DescribedGroup


class GroupMachine:
    """Groups and offsets. Requests go to its parts: `membership` of classic groups, `heartbeats` of consumer groups,
    `share_heartbeats` and `share_states` of share groups, `offsets` and `directory`."""

    def __init__(self, config: GroupConfig, topics: Topics | None = None) -> None:
        self.table = GroupTable()
        self._timers: Timers[TimerEvent] = Timers()
        self._rebalancing = Rebalancing(self._timers, config)
        self._expiry: Deadline[TimerEvent] = Deadline(ExpiryCheckDue())
        self._sessions = ConsumerSessions(self._timers)
        self.heartbeats = ConsumerHeartbeats(self.table, self._rebalancing, self._sessions, self._timers)
        self.share_heartbeats = ShareHeartbeats(self.table, self._rebalancing, self._timers)
        self.share_states = ShareStates(self.table, self.share_heartbeats)
        self.follow(topics or Topics())
        classic_members = ClassicMembers(self.heartbeats, self._rebalancing, self._sessions)
        self.membership = Membership(self.table, self._rebalancing, classic_members, self._timers)
        self.offsets = Offsets(self.table, self._rebalancing)
        self.transactional_offsets = TransactionalOffsets(
            self.table, self._rebalancing, lambda: self.heartbeats.topics.image.topic_ids
        )
        self.directory = Directory(self.table, self.offsets)

    def configure(self, config: GroupConfig) -> None:
        """Use other settings from now on; deadlines that run already stay."""
        self._rebalancing.config = config

    def follow(self, topics: Topics) -> None:
        """The cluster's topics are these from now on."""
        self.heartbeats.steps.follow(topics)
        self.share_heartbeats.follow(topics)

    def describe_consumers(self, group_id: str) -> DescribedGroup:
        """Describe a consumer group as it is committed."""
        default = self._rebalancing.config.consumer_assignors[0]
        return self.directory.describe_consumers(group_id, self.heartbeats.topics, default_assignor=default)

    def replay(self, record: LoadedRecord) -> None:
        self.table.replay(record)

    def replay_marker(self, marker: TransactionMarker) -> None:
        self.table.replay_marker(marker)

    def commit(self, high_watermark: int) -> None:
        self.table.commit(high_watermark)

    def rollback(self, end_offset: int) -> None:
        self.table.rollback(end_offset)
        self.membership.on_rolled_back()
        self._sessions.adopt_soon()

    def on_loaded(self, now: Instant) -> Outcome:
        """Every member of the log gets a whole session to be heard of again."""
        self.table.go_live()
        out = Outcome()
        for group in self.table.groups.values():
            for member in group.members.values():
                self._rebalancing.renew_session(member, now)
            if len(group.members) > self._rebalancing.config.group_max_size:
                # The limit was lowered: the rebalance keeps those that rejoin first, after they could commit.
                self._rebalancing.prepare(group, now, out)
        self._sessions.adopt(self.table.consumers, self._rebalancing.config, now)
        self.share_heartbeats.adopt(now)
        self._schedule_expiry(now)
        return out

    def load_report(self) -> Mapping[str, object]:
        """How many groups there are; and how many records of each kind that is not served here, or not readable."""
        table = self.table
        report: dict[str, object] = {"groups": len(table.groups) + sum(1 for _ in table.consumers)}
        shares = sum(1 for _ in table.shares)
        if shares:
            report["share_groups"] = shares
        kinds = {kind: RecordKind(kind).name for kind in table.foreign_records if kind in list(RecordKind)}
        for kind, count in sorted(table.foreign_records.items()):
            report[f"ignored_{kinds.get(kind, f'kind_{kind}').lower()}"] = count
        if table.malformed_records:
            report["malformed"] = table.malformed_records
        return report

    def on_committed(self, then: object, now: Instant) -> Outcome:
        assert isinstance(then, Then)
        self.table.note_change(then.group_id)
        if isinstance(then, StatesInitializing):
            self.share_heartbeats.on_committed(then)
            return Outcome()
        if isinstance(then, TargetsWritten):
            return self.heartbeats.serve_waiting(then.group_id, now)
        if isinstance(then, StepPutOff | MembersPutOut):
            return Outcome()
        return self.membership.on_committed(then, now)

    def on_failed(self, then: object, error: ErrorCode, now: Instant) -> Outcome:
        assert isinstance(then, Then)
        self.table.note_change(then.group_id)
        if isinstance(then, StatesInitializing):
            self.share_heartbeats.on_failed(then)
            return Outcome()
        if isinstance(then, TargetsWritten):
            return self.heartbeats.on_targets_lost(then.group_id, error)
        if isinstance(then, StepPutOff):
            return self.heartbeats.on_step_lost(then, error)
        if isinstance(then, MembersPutOut | GroupDowngraded):
            # Whoever was overdue has no deadline any more, and is a member still.
            self._sessions.adopt_soon()
            if isinstance(then, MembersPutOut):
                return Outcome()
        return self.membership.on_failed(then, error, now)

    def on_heard(self, group_id: str, member_id: str, heard_ms: int) -> None:
        """A member sent a heartbeat at a moment before, and was answered as the one before that was."""
        if self.table.consumers.get(group_id) is not None:
            self.heartbeats.on_heard(group_id, member_id, heard_ms)
        else:
            self.membership.on_heard(group_id, member_id, heard_ms)

    def on_topics_deleted(self, deleted: Mapping[str, uuid.UUID]) -> Outcome:
        """Topics, by name with the id they had, do not exist any more: nor shall what groups keep of them."""
        out = Outcome()
        changes = self.offsets.tombstones_of_topics(deleted) + self.share_states.on_topics_deleted(deleted.values())
        return out.write_each(changes) if changes else out

    def on_tick(self, now: Instant) -> Outcome:
        out = Outcome()
        overdue: list[MemberOverdue] = []
        sharers_overdue: list[ShareSessionEnds] = []
        while (event := self._timers.pop_due(now.now_ms)) is not None:
            if not isinstance(event, ExpiryCheckDue | AdoptionDue):
                self.table.note_change(event.group_id)
            match event:
                case SessionEnds(group_id, member_id):
                    self._rebalancing.on_session_ends(self.table.groups[group_id], member_id, now, out)
                case JoinPhaseEnds(group_id):
                    self._rebalancing.on_join_phase_ends(self.table.groups[group_id], now, out)
                case SyncPhaseEnds(group_id):
                    self._rebalancing.on_sync_phase_ends(self.table.groups[group_id], now, out)
                case ConsumerSessionEnds() | RevocationOverdue() | ClassicStepOverdue():
                    self._sessions.on_due(event)
                    overdue.append(event)
                case ShareSessionEnds():
                    sharers_overdue.append(event)
                case TargetsDue(group_id):
                    out.add(self.heartbeats.serve_waiting(group_id, now))
                case AdoptionDue():
                    self.share_heartbeats.adopt(now)
                    self.membership.after_rollback(now, out)
                    self._sessions.adopt(self.table.consumers, self._rebalancing.config, now)
                case ExpiryCheckDue():
                    self._schedule_expiry(now)
                    out.add(self.directory.expire(now))
                case _:
                    assert_never(event)
        self.heartbeats.on_overdue(overdue, now, out)
        self.share_heartbeats.on_overdue(sharers_overdue, out)
        return out

    def next_deadline_ms(self) -> int | None:
        return self._timers.next_deadline_ms()

    def _schedule_expiry(self, now: Instant) -> None:
        interval_ms = self._rebalancing.config.offsets_retention_check_interval_ms
        self._timers.schedule(self._expiry, now.now_ms + interval_ms)
