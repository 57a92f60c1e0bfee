"""All groups of one shard: what is durable, and the groups in memory beside it.

`replay` alone changes the durable part: group metadata and committed offsets, both with a committed and a latest view.
The groups in memory are built from it when loading is over, and afterwards live beside it: a group whose first member
just asked for an id has no members in the log, and a group in the middle of a rebalance is in the log as it was before.
A group without metadata but with offsets is a *simple* one: a client that keeps offsets here and assigns itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TypeAlias

from ottla.coordinator.group import records
from ottla.coordinator.group.classic import ClassicGroup
from ottla.coordinator.group.consumer import ConsumerGroup
from ottla.coordinator.group.consumer_records import ConsumerKey, ConsumerValue
from ottla.coordinator.group.offset_store import OffsetStore
from ottla.coordinator.group.record_schema import MalformedRecord, RecordContent
from ottla.coordinator.group.recorded_groups import RecordedGroups
from ottla.coordinator.group.records import GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue
from ottla.coordinator.group.share import ShareGroup
from ottla.coordinator.group.share_records import ShareKey, ShareValue
from ottla.coordinator.shard import LoadedRecord, Outcome, TransactionMarker
from ottla.coordinator.timeline import Timeline, TimelineDict
from ottla.errors import ErrorCode
from ottla.protocol.messages.join_group import JoinGroupResponse
from ottla.protocol.messages.sync_group import SyncGroupResponse

ConsumerGroups: TypeAlias = RecordedGroups[ConsumerGroup, ConsumerKey, ConsumerValue]
ShareGroups: TypeAlias = RecordedGroups[ShareGroup, ShareKey, ShareValue]


class GroupTable:
    """The groups of one partition of `__consumer_offsets`."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.metadata: TimelineDict[str, GroupMetadataValue] = TimelineDict(self.timeline)
        self.offsets = OffsetStore(self.timeline)
        self.consumers: ConsumerGroups = RecordedGroups(partial(ConsumerGroup, timeline=self.timeline))
        self.shares: ShareGroups = RecordedGroups(partial(ShareGroup, timeline=self.timeline))
        self.groups: dict[str, ClassicGroup] = {}
        """Classic groups."""
        self._simple: set[str] = set()
        """Groups that offsets have made. They stay, empty, when the last offset is deleted, until they expire."""
        self.is_live = False
        """Whether loading is over, so that `groups` follows each record."""
        self.foreign_records: dict[int, int] = {}
        """How many records of kinds that are not served here were seen, by kind."""
        self._changed: set[str] = set()
        """Groups to which something happened since `take_changed`."""
        self.malformed_records = 0
        """How many records could not be read. They are passed over: the other groups must not suffer for them."""

    def replay(self, record: LoadedRecord) -> None:
        content = record.content
        if content is None:
            try:
                content = records.decode(record.key, record.value, record_offset=record.offset)
            except MalformedRecord:
                self.malformed_records += 1
                return
        if not isinstance(content, RecordContent):
            assert isinstance(content, int)
            self.foreign_records[content] = self.foreign_records.get(content, 0) + 1
            return
        key, value = content
        if isinstance(key, OffsetCommitKey):
            assert value is None or isinstance(value, OffsetCommitValue)
            self._replay_offset(key, value, record)
            return
        assert isinstance(key, GroupMetadataKey | ShareKey | ConsumerKey)
        self.note_change(key.group)
        if isinstance(key, GroupMetadataKey):
            assert value is None or isinstance(value, GroupMetadataValue)
            self._replay_metadata(key.group, value, record.offset)
        elif isinstance(key, ShareKey):
            assert value is None or isinstance(value, ShareValue)
            self.shares.replay(key, value, offset=record.offset)
        else:
            assert isinstance(key, ConsumerKey)
            assert value is None or isinstance(value, ConsumerValue)
            self.consumers.replay(key, value, offset=record.offset)
            if self.is_live and value is not None and key.group in self.groups:
                # What was here before was simple, or has been ended by a record before this one.
                self._drop(key.group)

    def replay_marker(self, marker: TransactionMarker) -> None:
        self.offsets.end_transaction(marker.producer_id, commit=marker.commit, offset=marker.offset)

    def _replay_offset(self, key: OffsetCommitKey, value: OffsetCommitValue | None, record: LoadedRecord) -> None:
        if value is None:
            self.offsets.remove(key, offset=record.offset)
            return
        if value.record_offset < 0:
            value = value._replace(record_offset=record.offset)
        self.offsets.put(key, value, producer_id=record.producer_id, offset=record.offset)
        if self.is_live and key.group not in self.groups and self.consumers.get(key.group) is None:
            self._create_simple(key.group, wall_ms=value.commit_timestamp_ms)

    def _replay_metadata(self, group_id: str, value: GroupMetadataValue | None, offset: int) -> None:
        if value is not None:
            self.metadata.put(group_id, value, offset=offset)
            if self.is_live and group_id not in self.groups:
                self.groups[group_id] = ClassicGroup.from_record(group_id, value)  # it was a consumer group
            return
        self.metadata.remove(group_id, offset=offset)
        if self.is_live:
            self._drop(group_id)

    def note_change(self, group_id: str) -> None:
        """Something happens to a group that its members may be told of by their next heartbeat."""
        if self.is_live:
            self._changed.add(group_id)

    def take_changed(self) -> set[str]:
        """The groups that something happened to since the last call: offsets do not count."""
        changed, self._changed = self._changed, set()
        return changed

    def go_live(self) -> None:
        """The whole log was replayed: build the groups."""
        self.is_live = True
        self.rebuild_missing()

    def commit(self, high_watermark: int) -> None:
        self.timeline.commit(high_watermark)

    def rollback(self, end_offset: int) -> None:
        """Take back the durable part; groups in memory that only that part had made go or come with it."""
        self._note_all()
        self.timeline.rollback(end_offset)
        self.consumers.rebuild()
        self.shares.rebuild()
        for group_id, group in list(self.groups.items()):
            is_idle = not group.members and not group.pending_members
            if is_idle and (self.consumers.get(group_id) is not None or not self.is_durable(group_id)):
                self._drop(group_id)
        self.rebuild_missing()
        self._note_all()

    def _note_all(self) -> None:
        self._changed.update(self.groups, (group.group_id for group in self.consumers))

    def rebuild_missing(self) -> None:
        for group_id, value in self.metadata.items():
            if group_id not in self.groups and self.consumers.get(group_id) is None:
                self.groups[group_id] = ClassicGroup.from_record(group_id, value)
        for group_id in self.offsets.group_ids():
            if group_id not in self.groups and self.consumers.get(group_id) is None:
                self._create_simple(group_id, wall_ms=-1)

    def create(self, group_id: str, *, wall_ms: int) -> ClassicGroup:
        self.note_change(group_id)
        group = self.groups[group_id] = ClassicGroup(group_id, state_timestamp_ms=wall_ms)
        return group

    def _create_simple(self, group_id: str, *, wall_ms: int) -> None:
        self.create(group_id, wall_ms=wall_ms)
        self._simple.add(group_id)

    def is_durable(self, group_id: str) -> bool:
        """Whether the log, committed or not yet, knows the group."""
        return group_id in self.metadata or self.offsets.has_group(group_id)

    def is_known(self, group_id: str) -> bool:
        """Whether the group may be spoken of: it is committed, or was."""
        return (
            self.metadata.get_committed(group_id) is not None
            or group_id in self._simple
            or self.offsets.has_committed_group(group_id)
        )

    def known_groups(self) -> Iterator[ClassicGroup]:
        return (group for group_id, group in self.groups.items() if self.is_known(group_id))

    def superseded(self) -> list[str]:
        """Classic groups with members where a rollback has brought a consumer group back."""
        return [group_id for group_id in self.groups if self.consumers.get(group_id) is not None]

    def static_member_id(self, group_id: str, group_instance_id: str) -> str | None:
        """The member id of a static member as the log, committed or not yet, has it."""
        value = self.metadata.get(group_id)
        members = () if value is None else value.members
        return next((m.member_id for m in members if m.group_instance_id == group_instance_id), None)

    def forget(self, group_id: str, error: ErrorCode, out: Outcome) -> None:
        """Drop a group from memory, answering everything parked with `error`."""
        self.release(self.groups[group_id], error, out)
        self._drop(group_id)

    @staticmethod
    def release(group: ClassicGroup, error: ErrorCode, out: Outcome) -> None:
        """Answer everything that a group has parked with `error`."""
        for member in group.members.values():
            token = group.unpark_join(member)
            if token is not None:
                out.reply(token, JoinGroupResponse(error_code=error, member_id=member.member_id))
            token, member.sync_token = member.sync_token, None
            if token is not None:
                out.reply(token, SyncGroupResponse(error_code=error))

    def _drop(self, group_id: str) -> None:
        self.note_change(group_id)
        self._simple.discard(group_id)
        group = self.groups.pop(group_id, None)
        if group is not None:
            for member_id in [*group.members, *group.pending_members]:
                group.remove(member_id)
            group.join_phase.at_ms = group.sync_phase.at_ms = None
