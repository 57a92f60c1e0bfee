"""What a share group has done with a partition: from where on it delivers, and what became of the records behind."""

from __future__ import annotations

import base64
import heapq
import uuid
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple

NO_OFFSET: Final = -1
"""As a start offset: not known yet, or not to be changed."""
NO_EPOCH: Final = -1
"""As an epoch in a request: not to be looked at."""
NO_COUNT: Final = -1
"""As a count of completed deliveries: not known."""

_ZERO_ID: Final = uuid.UUID(int=0)


class SharePartition(NamedTuple):
    """A partition as one share group reads it (Kafka: `SharePartitionKey`)."""

    group_id: str
    topic_id: uuid.UUID | None
    """None: all zeros."""
    partition: int

    @property
    def coordinator_key(self) -> str:
        """What decides which partition of `__share_group_state` it lives in."""
        topic_id = base64.urlsafe_b64encode((self.topic_id or _ZERO_ID).bytes).rstrip(b"=").decode()
        return f"{self.group_id}:{topic_id}:{self.partition}"


def is_share_partition_key(text: str) -> bool:
    """Whether a text can be a `SharePartition.coordinator_key` (Kafka: `SharePartitionKey.validate`)."""
    parts = text.rsplit(":", 2)  # a group's id may have colons of its own
    if len(parts) != 3 or not parts[0].strip():
        return False
    try:
        return len(base64.b64decode(parts[1] + "==", altchars=b"-_", validate=True)) == 16 and int(parts[2]) >= -(2**31)
    except ValueError:
        return False


class StateBatch(NamedTuple):
    """Records of one range of offsets, both ends included, that are in the same state."""

    first_offset: int
    last_offset: int
    delivery_state: int
    """0 available, 2 acknowledged, 4 archived."""
    delivery_count: int


class ShareState(NamedTuple):
    """The state of a share partition (Kafka: `ShareGroupOffset`, and what the shard keeps beside it)."""

    snapshot_epoch: int
    state_epoch: int
    leader_epoch: int
    start_offset: int
    """Everything before it is done with; -1: nobody has read yet, where to begin is up to the reader."""
    delivery_complete_count: int
    """How many records from the start offset on are done with; -1: not known."""
    batches: tuple[StateBatch, ...]
    create_timestamp_ms: int = 0
    """Unix milliseconds."""
    write_timestamp_ms: int = 0
    """Unix milliseconds; later than the creation if the snapshot was only written anew."""
    update_count: int = 0
    """Updates since the snapshot."""
    leader_epoch_max: int = 0
    """The highest of all: who comes with a lower one has been succeeded."""
    state_epoch_max: int = 0
    snapshot_offset: int = 0
    """Where the snapshot stands in the log."""


def combine(batches: Iterable[StateBatch], start_offset: int = NO_OFFSET) -> tuple[StateBatch, ...]:
    """Make batches that may overlap into ones that do not, in order and as few as can be.

    Where they overlap the higher delivery count counts, and among equal ones the higher state: deliveries only go on.

    Args:
        start_offset: What lies before it is left out; -1: nothing is.

    Source: Kafka's `PersisterStateBatchCombiner`.
    """
    waiting = sorted(
        batch if batch.first_offset >= start_offset else batch._replace(first_offset=start_offset)
        for batch in batches
        if start_offset <= batch.last_offset
    )
    found: list[StateBatch] = []
    if all(one.last_offset < other.first_offset for one, other in pairwise(waiting)):
        for batch in waiting:
            if found and found[-1].last_offset + 1 == batch.first_offset and found[-1][2:] == batch[2:]:
                found[-1] = found[-1]._replace(last_offset=batch.last_offset)
            else:
                found.append(batch)
        return tuple(found)
    open_batches: list[
        tuple[int, int, int]
    ] = []  # (-count, -state, last offset) of those that reach to `at` or further
    at = next_start = 0
    while open_batches or next_start < len(waiting):
        if not open_batches:
            at = waiting[next_start].first_offset
        while next_start < len(waiting) and waiting[next_start].first_offset <= at:
            batch = waiting[next_start]
            heapq.heappush(open_batches, (-batch.delivery_count, -batch.delivery_state, batch.last_offset))
            next_start += 1
        count, state, last = open_batches[0]
        if last < at:
            heapq.heappop(open_batches)
            continue
        if next_start < len(waiting):
            last = min(last, waiting[next_start].first_offset - 1)
        before = found[-1] if found else None
        if (
            before is not None
            and before.last_offset + 1 == at
            and (before.delivery_count, before.delivery_state) == (-count, -state)
        ):
            found[-1] = before._replace(last_offset=last)
        else:
            found.append(StateBatch(at, last, -state, -count))
        at = last + 1
    return tuple(found)
