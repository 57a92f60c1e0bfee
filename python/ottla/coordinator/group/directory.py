"""DescribeGroups, ListGroups and DeleteGroups.

Source: Kafka's `GroupMetadataManager` (describeGroups, listGroups) and `GroupCoordinatorShard` (deleteGroups).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ottla.coordinator.group import records
from ottla.coordinator.group.classic import ClassicGroup, GroupState, Member
from ottla.coordinator.group.membership import Caller
from ottla.coordinator.group.offsets import Offsets
from ottla.coordinator.group.table import GroupTable
from ottla.coordinator.shard import CoordinatorRecord, Instant, Outcome, Reply
from ottla.errors import ErrorCode
from ottla.protocol.messages.delete_groups import DeletableGroupResult
from ottla.protocol.messages.describe_groups import DescribedGroup, DescribedGroupMember
from ottla.protocol.messages.list_groups import ListedGroup

GROUP_TYPE = "classic"
GROUP_ID_NOT_FOUND_VERSION_MIN = 6


class Directory:
    """Tells of groups and deletes them. Its state is the table's."""

    def __init__(self, table: GroupTable, offsets: Offsets) -> None:
        self._table = table
        self._offsets = offsets

    def describe(self, group_id: str, *, api_version: int) -> DescribedGroup:
        group = self._table.groups.get(group_id)
        if group is None or not self._table.is_known(group_id):
            if api_version >= GROUP_ID_NOT_FOUND_VERSION_MIN:
                return DescribedGroup(
                    group_id=group_id,
                    group_state=GroupState.DEAD,
                    error_code=ErrorCode.GROUP_ID_NOT_FOUND,
                    error_message=f"Group {group_id} not found.",
                )
            return DescribedGroup(group_id=group_id, group_state=GroupState.DEAD)
        # What members brought along is told of a finished generation alone: before, no protocol is chosen.
        is_stable = group.state is GroupState.STABLE
        return DescribedGroup(
            group_id=group_id,
            group_state=group.state,
            protocol_type=group.protocol_type or "",
            protocol_data=(group.protocol_name or "") if is_stable else "",
            members=tuple(_described(group, m, in_full=is_stable) for m in group.members.values()),
        )

    def list(self, states: Collection[str], types: Collection[str]) -> list[ListedGroup]:
        """Groups in any of `states` and of any of `types`; an empty filter lets all through. Case does not matter."""
        wanted_states = {s.strip().lower() for s in states}
        wanted_types = {t.lower() for t in types}
        if wanted_types and GROUP_TYPE not in wanted_types:
            return []
        return [
            ListedGroup(
                group_id=group.group_id,
                protocol_type=group.protocol_type or "",
                group_state=group.state,
                group_type=GROUP_TYPE,
            )
            for group in self._table.known_groups()
            if not wanted_states or group.state.lower() in wanted_states
        ]

    def delete(self, group_ids: Sequence[str], caller: Caller) -> Outcome:
        """Delete groups without members, with their offsets. Replies with a list of DeletableGroupResult."""
        results = []
        tombstones: list[CoordinatorRecord] = []
        for group_id in dict.fromkeys(group_ids):
            group = self._table.groups.get(group_id)
            if group is None:
                error = ErrorCode.GROUP_ID_NOT_FOUND
            elif group.state is not GroupState.EMPTY:
                error = ErrorCode.NON_EMPTY_GROUP
            else:
                error = ErrorCode.NONE
                tombstones += self._offsets.tombstones_of_group(group_id)
                tombstones.append(records.group_metadata_tombstone(group_id))
            results.append(DeletableGroupResult(group_id=group_id, error_code=error))
        return Outcome().write_each(tombstones, Reply(caller.token, results))

    def expire(self, now: Instant) -> Outcome:
        """Delete offsets past their retention, and groups of which nothing is left."""
        self._table.offsets.sweep()
        out = Outcome()
        for group in self._table.groups.values():
            tombstones: list[CoordinatorRecord] = []
            is_all_gone = self._offsets.expire(group, wall_ms=now.wall_ms, tombstones=tombstones)
            if is_all_gone and group.state is GroupState.EMPTY and not group.pending_members:
                tombstones.append(records.group_metadata_tombstone(group.group_id))
            if tombstones:
                out.write_each(tombstones)
        return out


def _described(group: ClassicGroup, member: Member, *, in_full: bool) -> DescribedGroupMember:
    return DescribedGroupMember(
        member_id=member.member_id,
        group_instance_id=member.group_instance_id,
        client_id=member.client_id,
        client_host=member.client_host,
        member_metadata=member.metadata(group.protocol_name) if in_full else b"",
        member_assignment=member.assignment,
    )
