"""Heartbeats that the data plane answers by itself.

Nearly every heartbeat says in the same bytes that a member is still there, and gets the same answer. Once the machine
has said so of one (`is_settled`), its answer stands: the data plane gives it again on the same connection, until
something happens to the group (`GroupTable.take_changed`). When the member was heard of, the machine learns before any
of its deadlines are looked at, and whenever an answer is withdrawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ottla._native import DataPlane

if TYPE_CHECKING:
    from ottla._native import Request
    from ottla.broker.connection import Connection
    from ottla.broker.coordinator_runtime import CoordinatorRuntime
    from ottla.coordinator.group.machine import GroupMachine


class Beating(NamedTuple):
    """Whose heartbeat it is."""

    partition: int
    """Of `__consumer_offsets`."""
    group_id: str
    member_id: str


class StandingHeartbeats:
    """The answers to heartbeats that stand in the data plane."""

    def __init__(self, plane: DataPlane, runtime: CoordinatorRuntime[GroupMachine]) -> None:
        self._plane = plane
        self._runtime = runtime
        self._last_id = 0
        self._beating: dict[int, Beating] = {}
        """By the ids of the answers."""
        self._of_partitions: dict[int, dict[str, set[int]]] = {}
        """The ids of the answers by partition and group."""

    def __len__(self) -> int:
        return len(self._beating)

    def let_stand(self, beating: Beating, connection: Connection, request: Request, response: bytes) -> None:
        """Have the data plane answer so whatever is the same as this request."""
        connection.end_standing()
        self._last_id += 1
        standing_id = self._last_id
        self._beating[standing_id] = beating
        groups = self._of_partitions.setdefault(beating.partition, {})
        groups.setdefault(beating.group_id, set()).add(standing_id)
        self._plane.let_stand(connection.session_id, standing_id, request, response)
        connection.standing = partial(self._withdraw, (standing_id,))

    def withdraw_groups(self, partition: int, group_ids: Iterable[str]) -> None:
        """Something happens to these groups."""
        groups = self._of_partitions.get(partition)
        if groups:
            self._withdraw([standing_id for group_id in group_ids for standing_id in groups.get(group_id, ())])

    def withdraw_partition(self, partition: int) -> None:
        """The partition is not coordinated here any more, or anew."""
        self.withdraw_groups(partition, list(self._of_partitions.get(partition, ())))

    def withdraw_all(self) -> None:
        """Something happens that may concern any group."""
        self._withdraw(list(self._beating))

    def hear(self, partition: int) -> None:
        """Tell the partition's machine which members were heard of."""
        groups = self._of_partitions.get(partition)
        if groups:
            ids = [standing_id for of_group in groups.values() for standing_id in of_group]
            for standing_id, heard_ms in self._plane.take_given(ids):
                self._tell(self._beating[standing_id], heard_ms)

    def _withdraw(self, standing_ids: Iterable[int]) -> None:
        standing_ids = [standing_id for standing_id in standing_ids if standing_id in self._beating]
        if not standing_ids:
            return
        given = dict(self._plane.withdraw(standing_ids))
        for standing_id in standing_ids:
            beating = self._beating.pop(standing_id)
            groups = self._of_partitions[beating.partition]
            groups[beating.group_id].discard(standing_id)
            if not groups[beating.group_id]:
                del groups[beating.group_id]
                if not groups:
                    del self._of_partitions[beating.partition]
            heard_ms = given.get(standing_id)
            if heard_ms is not None:
                self._tell(beating, heard_ms)

    def _tell(self, beating: Beating, heard_ms: int) -> None:
        self._runtime.inform(
            beating.partition, lambda machine: machine.on_heard(beating.group_id, beating.member_id, heard_ms)
        )
