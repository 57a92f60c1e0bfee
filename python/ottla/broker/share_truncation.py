"""The state of a share partition as its leader begins with it: not further than the log goes.

A power failure may take from a log what was not synced, and leave in `__share_group_state` what a group had done with
it. New records get the same offsets: they would be passed over as done with. Which leader's time a state is of is kept
with it, and the log knows where each leader's records end (as for followers and consumers, KIP-320): what lies behind
that is forgotten, however much the log has grown again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ottla._native import Partition
from ottla.broker.event_log import EventLog
from ottla.broker.share_coordinator import ShareCoordinator
from ottla.coordinator.share.state import NO_EPOCH, NO_OFFSET
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages import (
    initialize_share_group_state,
    read_share_group_state,
    read_share_group_state_summary,
    write_share_group_state,
)
from ottla.share.records import RecordState

if TYPE_CHECKING:
    from ottla.broker.share_partitions import ShareKey
    from ottla.protocol.messages.read_share_group_state import PartitionResult

log = EventLog("share_partitions")

_UNKNOWN: Final = -1


async def read_state(
    states: ShareCoordinator, key: ShareKey, native: Partition, *, leader_epoch: int
) -> PartitionResult:
    """Read a state for the leader of this epoch; leaders before it cannot write any more.

    Raises: KafkaError: what the share coordinator says.
    """
    written_by, start_offset = await _summary(states, key)
    if start_offset != NO_OFFSET and written_by < leader_epoch:
        _, end_offset = native.end_offset_for_epoch(written_by)
        if end_offset == _UNKNOWN:
            # It had not a single record of that time or before, and none was appended since.
            end_offset = native.offsets().log_end_offset
        await _cut(states, key, end_offset, leader_epoch=leader_epoch)
    return await _read(states, key, leader_epoch)


async def _cut(states: ShareCoordinator, key: ShareKey, end_offset: int, *, leader_epoch: int) -> None:
    """Have a state forget what it says of offsets from an end on."""
    state = await _read(states, key, NO_EPOCH)
    if state.start_offset <= end_offset and all(batch.last_offset < end_offset for batch in state.state_batches):
        return
    start_offset = min(state.start_offset, end_offset)
    kept = [
        write_share_group_state.StateBatch(
            first_offset=batch.first_offset,
            last_offset=min(batch.last_offset, end_offset - 1),
            delivery_state=batch.delivery_state,
            delivery_count=batch.delivery_count,
        )
        for batch in state.state_batches
        if batch.first_offset < end_offset
    ]
    log.warning(
        "share_state_cut",
        group=key.group_id,
        topic_id=key.topic_id,
        partition=key.partition,
        start_offset=state.start_offset,
        log_end_offset=end_offset,
        reason="the log has lost records that the group had",
    )
    # What was written once counts beside all that comes later, so it is begun anew. Should this broker die before the
    # rest is kept, records are delivered again.
    begun = initialize_share_group_state.PartitionData(
        partition=key.partition, state_epoch=state.state_epoch, start_offset=start_offset
    )
    beginning = initialize_share_group_state.InitializeStateData(topic_id=key.topic_id, partitions=(begun,))
    _result(
        await states.initialize_share_group_state(
            initialize_share_group_state.InitializeShareGroupStateRequest(group_id=key.group_id, topics=(beginning,))
        )
    )
    if kept:
        data = write_share_group_state.PartitionData(
            partition=key.partition,
            state_epoch=state.state_epoch,
            leader_epoch=leader_epoch,
            start_offset=start_offset,
            delivery_complete_count=sum(
                batch.last_offset - batch.first_offset + 1
                for batch in kept
                if RecordState(batch.delivery_state).is_final
            ),
            state_batches=tuple(kept),
        )
        rest = write_share_group_state.WriteStateData(topic_id=key.topic_id, partitions=(data,))
        _result(
            await states.write_share_group_state(
                write_share_group_state.WriteShareGroupStateRequest(group_id=key.group_id, topics=(rest,))
            )
        )


async def _summary(states: ShareCoordinator, key: ShareKey) -> tuple[int, int]:
    """The epoch of the leader that has written a state, and where it starts; offset -1: there is none yet."""
    wanted = read_share_group_state_summary.PartitionData(partition=key.partition, leader_epoch=NO_EPOCH)
    topic = read_share_group_state_summary.ReadStateSummaryData(topic_id=key.topic_id, partitions=(wanted,))
    request = read_share_group_state_summary.ReadShareGroupStateSummaryRequest(group_id=key.group_id, topics=(topic,))
    found = _result(await states.read_share_group_state_summary(request))
    return found.leader_epoch, found.start_offset


async def _read(states: ShareCoordinator, key: ShareKey, leader_epoch: int) -> PartitionResult:
    wanted = read_share_group_state.PartitionData(partition=key.partition, leader_epoch=leader_epoch)
    topic = read_share_group_state.ReadStateData(topic_id=key.topic_id, partitions=(wanted,))
    request = read_share_group_state.ReadShareGroupStateRequest(group_id=key.group_id, topics=(topic,))
    found: PartitionResult = _result(await states.read_share_group_state(request))
    return found


def _result(response: Any) -> Any:
    """What a response says of the one partition that was asked for. Raises: KafkaError."""
    found = [result for topic in response.results for result in topic.partitions]
    if not found:
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "The share coordinator knows nothing.")
    (result,) = found
    if result.error_code is not ErrorCode.NONE:
        raise KafkaError(result.error_code, result.error_message)
    return result
