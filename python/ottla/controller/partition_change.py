"""The next leader and in-sync replicas of one partition, as a value computation.

Source: KIP-841 (fenced brokers leave the ISR), Kafka's PartitionChangeBuilder for the order in which leaders are
tried: a sitting leader that may stay, then the preferred replica, then the others in replica order.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from enum import Enum
from typing import Final

from ottla.metadata.image import PartitionRegistration
from ottla.metadata.records import NO_LEADER, NO_LEADER_CHANGE, PartitionChangeRecord

RECOVERING: Final = 1
"""Leader recovery state of a partition whose leader was elected uncleanly (KIP-704)."""
NO_RECOVERY_CHANGE: Final = -1


class Election(Enum):
    """How a leader is sought."""

    PREFERRED = 0
    """The first replica takes over if it is in sync and live, whoever leads now."""
    UNCLEAN = 1
    """As ONLINE, and if nobody in sync is live, any live replica."""
    ONLINE = 2
    """A leader that is in sync and live stays, otherwise the first such replica takes over."""


def elect(
    partition: PartitionRegistration, *, isr: tuple[int, ...], is_live: Callable[[int], bool], election: Election
) -> tuple[int, bool]:
    """Return (leader or NO_LEADER, whether the choice was clean) for a partition with this ISR."""

    def can_lead(replica: int) -> bool:
        return replica in isr and is_live(replica)

    candidates = list(partition.replicas)
    if election is not Election.PREFERRED or not can_lead(partition.preferred_leader):
        candidates.insert(0, partition.leader)
    for replica in candidates:
        if can_lead(replica):
            return replica, True
    if election is Election.UNCLEAN:
        for replica in partition.replicas:
            if is_live(replica):
                return replica, False
    return NO_LEADER, True


def change_partition(
    topic_id: uuid.UUID,
    partition_id: int,
    partition: PartitionRegistration,
    *,
    is_live: Callable[[int], bool],
    leaving: int | None = None,
    returning: int | None = None,
    election: Election = Election.ONLINE,
) -> PartitionChangeRecord | None:
    """Return the change that a broker's leaving (fenced) or returning (a new start, unfenced) makes, or an election.

    A leaving broker drops out of the ISR unless it is the last one there: then the partition waits for it without a
    leader. Where somebody leads, whoever is not live drops out. A returning broker that leads gets a new leader epoch,
    as its log may have lost its tail (a restart). None: nothing changes.
    """
    isr = partition.isr
    if leaving is not None and leaving in isr and len(isr) > 1:
        isr = tuple(replica for replica in isr if replica != leaving)
    leader, clean = elect(partition, isr=isr, is_live=is_live, election=election)
    if not clean:
        isr = (leader,)
    elif leader != NO_LEADER:
        isr = tuple(replica for replica in isr if is_live(replica))
    new_term = leader != partition.leader or (returning is not None and leader == returning)
    if not new_term and isr == partition.isr:
        return None
    return PartitionChangeRecord(
        partition_id=partition_id,
        topic_id=topic_id,
        isr=None if isr == partition.isr else isr,
        leader=leader if new_term else NO_LEADER_CHANGE,
        leader_recovery_state=NO_RECOVERY_CHANGE if clean else RECOVERING,
    )
