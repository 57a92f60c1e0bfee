"""What a heartbeat does to a consumer group: its epoch, its targets, and one step of the member towards its target.

Source: Kafka's `GroupMetadataManager` (consumerGroupHeartbeat and what it calls).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ottla.coordinator.group import consumer_records, expressions
from ottla.coordinator.group.assignors.model import Target
from ottla.coordinator.group.consumer import ConsumerGroup, ConsumerMember, Wishes, target_value
from ottla.coordinator.group.consumer_records import (
    ConsumerGroupKey,
    ConsumerKey,
    ConsumerValue,
    GroupEpochValue,
    PartitionMetadataKey,
    RegularExpressionKey,
    RegularExpressionValue,
    TargetMemberKey,
    TargetMetadataKey,
    TargetMetadataValue,
)
from ottla.coordinator.group.consumer_sessions import ConsumerSessions
from ottla.coordinator.group.events import TimerEvent
from ottla.coordinator.group.rebalance import Rebalancing
from ottla.coordinator.group.reconciliation import Goal, Owned, reconcile
from ottla.coordinator.group.table import GroupTable
from ottla.coordinator.group.targets import Turns, compute
from ottla.coordinator.group.topic_metadata import Topics
from ottla.coordinator.shard import CoordinatorRecord, Instant
from ottla.coordinator.timers import Timers


@dataclass(slots=True, kw_only=True)
class Step:
    """A heartbeat while it is served."""

    group: ConsumerGroup
    old: ConsumerMember
    """The member before; a blank one if it is new."""
    now: Instant
    records: list[CoordinatorRecord]
    new: ConsumerMember = field(init=False)
    replaced: ConsumerMember | None = None
    """The static member that had the instance id, if it was another one."""
    wishes: Wishes = field(init=False)
    """What members want, this one included."""
    resolved: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Topics of expressions that have just been looked for."""
    subscription_changed: bool = False
    may_wait: bool = False
    """Whether it can be left to somebody else to compute targets, and to take the step towards them."""
    waits: bool = False
    """It is left to somebody else."""
    has_targets: bool = False
    """New targets are among the records."""

    def put(self, key: ConsumerKey, value: ConsumerValue | None) -> None:
        self.records.append(consumer_records.record(key, value))

    def topics_of(self, regex: str | None) -> tuple[str, ...]:
        if regex is None:
            return ()
        found = self.resolved.get(regex)
        return self.group.topics_of(regex) if found is None else found

    def subscribed(self) -> set[str]:
        return set(self.wishes.names).union(*(self.topics_of(regex) for regex in self.wishes.regexes))


class Steps:
    """Takes members of consumer groups on. Its state is the table's, and whose targets are being written."""

    def __init__(
        self, table: GroupTable, rebalancing: Rebalancing, sessions: ConsumerSessions, timers: Timers[TimerEvent]
    ) -> None:
        self._table = table
        self._rebalancing = rebalancing
        self._sessions = sessions
        self.turns = Turns(timers)
        self.topics = Topics()

    def follow(self, topics: Topics) -> None:
        """The cluster's topics are these from now on."""
        changed = topics.changed_since(self.topics)
        self.topics = topics
        if changed:
            for group in self._table.consumers:
                if any(group.is_subscribed_to(topic) for topic in changed):
                    group.checked_at_epoch = None

    def take(self, step: Step, owned: Owned | None) -> None:
        """Carry out a heartbeat of `step.new`, as the member describes itself now."""
        group = step.group
        if step.new is step.old and step.replaced is None:
            step.wishes = group.wishes
        else:
            step.wishes = group.wishes.copy().count(step.replaced or step.old, -1).count(step.new, 1)
            if step.new.metadata != step.old.metadata:
                step.put(*step.new.metadata_record(group.group_id))
        regex_changed = self._resolve(step)
        names_changed = step.new.metadata.subscribed_topic_names != step.old.metadata.subscribed_topic_names
        step.subscription_changed = names_changed or step.new.regex != step.old.regex
        epoch = self._next_epoch(step, is_due=names_changed or regex_changed)
        target_epoch, target = self._targets(step, epoch)
        if not step.waits:
            self.reconcile(step, target_epoch, target, owned)

    def _resolve(self, step: Step) -> bool:
        """Find the topics of expressions that need it; returns whether the subscriptions changed thereby."""
        group, old, new = step.group, step.old.regex, step.new.regex
        is_changed = old != new
        if is_changed and old is not None and old not in step.wishes.regexes:
            step.put(RegularExpressionKey(group=group.group_id, regular_expression=old), None)
        if not step.wishes.regexes:
            return is_changed
        if is_changed and new is not None:
            expressions.check(new)
        wanted = expressions.due(
            {regex: group.regexes.get(regex) for regex in step.wishes.regexes},
            self.topics,
            wall_ms=step.now.wall_ms,
            refresh_interval_ms=self._rebalancing.config.consumer_regex_refresh_interval_ms,
        )
        for regex, topics in expressions.resolve(wanted, self.topics.image.topic_ids).items():
            is_changed = is_changed or topics != group.topics_of(regex)
            step.resolved[regex] = topics
            step.put(
                RegularExpressionKey(group=group.group_id, regular_expression=regex),
                RegularExpressionValue(topics=topics, version=self.topics.image.offset, timestamp_ms=step.now.wall_ms),
            )
        return is_changed

    def _next_epoch(self, step: Step, *, is_due: bool) -> int:
        """The group's epoch: a new one if subscriptions changed (`is_due`) or the topics did."""
        group = step.group
        epoch = group.epoch
        if not is_due and group.checked_at_epoch is not None and epoch >= group.checked_at_epoch:
            return epoch
        metadata_hash = self.topics.hash_of(step.subscribed())
        if is_due or metadata_hash != group.metadata_hash:
            epoch += 1
            step.put(ConsumerGroupKey(group=group.group_id), GroupEpochValue(epoch=epoch, metadata_hash=metadata_hash))
        # Should the record be lost, the group's epoch is below this one, and the next heartbeat looks again.
        group.checked_at_epoch = epoch
        if group.has_legacy_metadata:
            step.put(PartitionMetadataKey(group=group.group_id), None)
        return epoch

    def _targets(self, step: Step, epoch: int) -> tuple[int, Target]:
        """The epoch of the targets and the member's, computed anew for a new group epoch."""
        group, new, now = step.group, step.new, step.now
        inherits = step.replaced.member_id if step.replaced is not None else new.member_id
        interval_ms = self._rebalancing.config.consumer_group(group.group_id).assignment_interval_ms
        earliest_ms = group.assigned_wall_ms + interval_ms if group.assigned_wall_ms and interval_ms else now.wall_ms
        if group.assignment_epoch >= epoch or now.wall_ms < earliest_ms:
            return group.assignment_epoch, group.target_of(inherits)
        if step.may_wait and (self._rebalancing.config.targets_quiet_ms or self.turns.is_under_way(group.group_id)):
            step.waits = True
            return group.assignment_epoch, group.target_of(inherits)
        members = dict(group.members.items())
        if step.replaced is not None:
            members.pop(step.replaced.member_id, None)
        members[new.member_id] = new
        found = self.compute_targets(step, members.values(), epoch, inherits)
        return epoch, found[new.member_id]

    def compute_targets(
        self, step: Step, members: Iterable[ConsumerMember], epoch: int, inherits: str | None = None
    ) -> Mapping[str, Target]:
        """New targets for all, put into the step's records.

        Args:
            inherits: Whose target counts as the one that `step.new` was given last; None: everybody has their own.
        """
        group = step.group

        def target_of(member_id: str) -> Target:
            return group.target_of(inherits if inherits is not None and member_id == step.new.member_id else member_id)

        assignor = step.wishes.assignor(self._rebalancing.config.consumer_assignors[0])
        found = compute(members, self.topics, assignor=assignor, topics_of=step.topics_of, target_of=target_of)
        for member_id, target in found.items():
            if group.targets.get(member_id) != target:
                step.put(TargetMemberKey(group=group.group_id, member=member_id), target_value(target))
        step.put(
            TargetMetadataKey(group=group.group_id),
            TargetMetadataValue(assignment_epoch=epoch, assignment_timestamp_ms=step.now.wall_ms),
        )
        step.has_targets = True
        return found

    def reconcile(self, step: Step, target_epoch: int, target: Target, owned: Owned | None) -> None:
        """Take the member a step towards its target."""
        before, group = step.new, step.group
        if not step.subscription_changed and before.is_reconciled(target_epoch):
            return
        mine = {None, before.member_id, None if step.replaced is None else step.replaced.member_id}
        goal = Goal(
            epoch=target_epoch,
            target=target,
            subscribed=self.topics.ids_of({*before.metadata.subscribed_topic_names, *step.topics_of(before.regex)}),
            subscription_changed=step.subscription_changed,
            owned=owned,
            is_taken=lambda topic_id, partition: group.owners.get((topic_id, partition)) not in mine,
        )
        step.new = reconcile(before, goal)
        if step.new != before:
            step.put(*step.new.assignment_record(group.group_id))
            self._sessions.await_revocation(group.group_id, step.new, step.now)
