"""Share groups on this broker: what passes between the group coordinator and the share coordinator (KIP-932).

The group coordinator decides which partitions a group reads; the share coordinator keeps where it is in them. Each
change is decided by the first, carried out by the second, and noted by the first again. If the broker dies in between,
the note of what was about to be done is in the log, and the next heartbeat, or request, does it again.

Source: Kafka's `GroupCoordinatorService` (persisterInitialize and its neighbours).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import trio

from ottla._native import DataPlane
from ottla.broker.event_log import EventLog
from ottla.broker.group_coordinator import GroupCoordinator
from ottla.broker.share_coordinator import ShareCoordinator
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.shard import Reply
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import MetadataImage
from ottla.protocol.messages.alter_share_group_offsets import (
    AlterShareGroupOffsetsRequest,
    AlterShareGroupOffsetsResponse,
    AlterShareGroupOffsetsResponseTopic,
)
from ottla.protocol.messages.delete_share_group_offsets import (
    DeleteShareGroupOffsetsRequest,
    DeleteShareGroupOffsetsResponse,
    DeleteShareGroupOffsetsResponseTopic,
)
from ottla.protocol.messages.delete_share_group_state import DeleteShareGroupStateRequest, DeleteStateData
from ottla.protocol.messages.delete_share_group_state import PartitionData as DeletedPartition
from ottla.protocol.messages.describe_share_group_offsets import (
    DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsResponseGroup,
    DescribeShareGroupOffsetsResponsePartition,
    DescribeShareGroupOffsetsResponseTopic,
)
from ottla.protocol.messages.initialize_share_group_state import InitializeShareGroupStateRequest, InitializeStateData
from ottla.protocol.messages.initialize_share_group_state import PartitionData as InitializedPartition
from ottla.protocol.messages.read_share_group_state_summary import PartitionData as SummarizedPartition
from ottla.protocol.messages.read_share_group_state_summary import (
    PartitionResult,
    ReadShareGroupStateSummaryRequest,
    ReadStateSummaryData,
)

if TYPE_CHECKING:
    from ottla.coordinator.group.events import StatesInitializing
    from ottla.coordinator.group.share import NamedSet
    from ottla.coordinator.group.share_states import Forgotten, Moved

log = EventLog("share_groups")

Errors = dict[tuple[uuid.UUID, int], ErrorCode]
"""What was wrong with a partition, by topic id and number."""


class ShareGroups:
    """Keeps the two coordinators in step."""

    def __init__(
        self,
        plane: DataPlane,
        groups: GroupCoordinator,
        states: ShareCoordinator,
        *,
        image: Callable[[], MetadataImage],
        on_moved: Callable[[str, Collection[uuid.UUID]], None],
    ) -> None:
        """
        Args:
            image: The metadata now.
            on_moved: Told of a group and topics in which its states were begun anew or forgotten.
        """
        self._on_moved = on_moved
        self._plane = plane
        self._groups = groups
        self._states = states
        self._image = image
        self._nursery: trio.Nursery | None = None
        groups.initialize_states = self._start_initializing

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    # Beginning states

    def _start_initializing(self, partition: int, asked: StatesInitializing) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._carry_out, partition, asked)

    async def _carry_out(self, partition: int, asked: StatesInitializing) -> None:
        offsets = {topic_id: dict.fromkeys(topic.partitions, -1) for topic_id, topic in asked.topics.items()}
        errors = await self._initialize(asked.group_id, asked.state_epoch, offsets)
        self._note(partition, asked.group_id, asked.topics, errors)

    async def _initialize(
        self, group_id: str, state_epoch: int, offsets: Mapping[uuid.UUID, Mapping[int, int]]
    ) -> Errors:
        """Begin states at offsets (-1: where the group's configuration says)."""
        topics = tuple(
            InitializeStateData(
                topic_id=topic_id,
                partitions=tuple(
                    InitializedPartition(partition=i, state_epoch=state_epoch, start_offset=offset)
                    for i, offset in starts.items()
                ),
            )
            for topic_id, starts in offsets.items()
        )
        try:
            await self._states.ensure_topic()
            request = InitializeShareGroupStateRequest(group_id=group_id, topics=topics)
            response = await self._states.initialize_share_group_state(request)
        except KafkaError as error:
            return {(topic_id, i): error.code for topic_id, starts in offsets.items() for i in starts}
        return _errors(response.results)

    def _note(self, partition: int, group_id: str, topics: Mapping[uuid.UUID, NamedSet], errors: Errors) -> None:
        """Tell the group coordinator which states have begun."""
        begun, failed = _begun_and_failed(group_id, topics, errors)
        self._groups.runtime.command(
            partition, lambda machine, _: machine.share_heartbeats.initialized(group_id, begun, failed)
        )

    async def _note_and_wait(
        self, partition: int, group_id: str, topics: Mapping[uuid.UUID, NamedSet], errors: Errors
    ) -> None:
        """As `_note`; returns when those who ask see it. Raises: KafkaError."""
        begun, failed = _begun_and_failed(group_id, topics, errors)
        await self._groups.runtime.ask(
            partition,
            lambda machine, token, _: machine.share_heartbeats.initialized(group_id, begun, failed).write(
                (), Reply(token)
            ),
        )

    # Moving

    async def alter_offsets(
        self, request: AlterShareGroupOffsetsRequest, caller: Caller
    ) -> AlterShareGroupOffsetsResponse:
        """Let a group begin elsewhere. Raises: KafkaError."""
        partition = self._groups.partition_for(request.group_id)
        moved = cast(
            "Moved",
            await self._groups.runtime.ask(
                partition, lambda machine, token, _: machine.share_states.alter(request, caller._replace(token=token))
            ),
        )
        if not moved.topics:
            return moved.response
        errors = await self._initialize(request.group_id, moved.state_epoch, moved.offsets)
        self._on_moved(request.group_id, moved.offsets.keys())
        await self._note_and_wait(partition, request.group_id, moved.topics, errors)
        return replace(
            moved.response, responses=tuple(_with_errors(topic, errors) for topic in moved.response.responses)
        )

    # Forgetting

    async def delete_offsets(
        self, request: DeleteShareGroupOffsetsRequest, caller: Caller
    ) -> DeleteShareGroupOffsetsResponse:
        """Let a group forget where it is in topics. Raises: KafkaError."""
        group_id = request.group_id
        partition = self._groups.partition_for(group_id)
        names = list(dict.fromkeys(topic.topic_name for topic in request.topics))
        found = cast(
            "Forgotten",
            await self._groups.runtime.ask(
                partition,
                lambda machine, token, _: machine.share_states.begin_forgetting(
                    group_id, names, caller._replace(token=token)
                ),
            ),
        )
        if found.error is not ErrorCode.NONE:
            return DeleteShareGroupOffsetsResponse(error_code=found.error, error_message=found.message)
        errors = await self._delete(group_id, found.topics)
        by_topic = {topic_id: error for (topic_id, _), error in errors.items()}
        await self._groups.runtime.ask(
            partition,
            lambda machine, token, _: machine.share_states.end_forgetting(
                group_id, found.topics.keys() - by_topic.keys(), caller._replace(token=token)
            ),
        )
        answers = [
            DeleteShareGroupOffsetsResponseTopic(
                topic_name=topic.name,
                topic_id=topic_id,
                error_code=by_topic.get(topic_id, ErrorCode.NONE),
                error_message=by_topic[topic_id].name if topic_id in by_topic else None,
            )
            for topic_id, topic in found.topics.items()
        ]
        return DeleteShareGroupOffsetsResponse(responses=(*answers, *found.refused))

    async def forget(self, group_id: str, caller: Caller) -> ErrorCode:
        """Have the states of a group that is to be deleted forgotten; of one that is no share group there are none.

        Raises: KafkaError.
        """
        found = cast(
            "Forgotten",
            await self._groups.runtime.ask(
                self._groups.partition_for(group_id),
                lambda machine, token, _: machine.share_states.begin_deletion(group_id, caller._replace(token=token)),
            ),
        )
        if found.error is not ErrorCode.NONE or not found.topics:
            return found.error
        errors = await self._delete(group_id, found.topics)
        return next(iter(errors.values()), ErrorCode.NONE)

    async def _delete(self, group_id: str, topics: Mapping[uuid.UUID, NamedSet]) -> Errors:
        if not topics:
            return {}
        data = tuple(
            DeleteStateData(
                topic_id=topic_id, partitions=tuple(DeletedPartition(partition=i) for i in sorted(topic.partitions))
            )
            for topic_id, topic in topics.items()
        )
        request = DeleteShareGroupStateRequest(group_id=group_id, topics=data)
        response = await self._states.delete_share_group_state(request)
        self._on_moved(group_id, topics.keys())
        return _errors(response.results)

    # Telling

    async def describe_offsets(
        self, asked: DescribeShareGroupOffsetsRequestGroup
    ) -> DescribeShareGroupOffsetsResponseGroup:
        """Tell where a group is in partitions; in all of which there are states if the request names none.

        Raises: KafkaError.
        """
        image = self._image()
        wanted: dict[uuid.UUID, tuple[int, ...]] = {}
        unknown = []
        if asked.topics is None:
            group_id = asked.group_id
            found = self._groups.runtime.look(
                self._groups.partition_for(group_id), lambda machine, _: machine.share_states.initialized(group_id)
            )
            wanted = {topic_id: tuple(sorted(topic.partitions)) for topic_id, topic in found.items()}
        for topic in asked.topics or ():
            topic_id = image.topic_ids.get(topic.topic_name)
            if topic_id is not None:
                wanted[topic_id] = (*wanted.get(topic_id, ()), *topic.partitions)
            else:
                nowhere = tuple(
                    DescribeShareGroupOffsetsResponsePartition(partition_index=i, start_offset=-1)
                    for i in topic.partitions
                )
                unknown.append(DescribeShareGroupOffsetsResponseTopic(topic_name=topic.topic_name, partitions=nowhere))
        data = tuple(
            ReadStateSummaryData(
                topic_id=topic_id,
                partitions=tuple(SummarizedPartition(partition=i, leader_epoch=-1) for i in partitions),
            )
            for topic_id, partitions in wanted.items()
            if partitions
        )
        request = ReadShareGroupStateSummaryRequest(group_id=asked.group_id, topics=data)
        response = await self._states.read_share_group_state_summary(request)
        topics = []
        for result in response.results:
            assert result.topic_id is not None
            name = image.topics[result.topic_id].name
            partitions = tuple(self._described(name, partition) for partition in result.partitions)
            topics.append(
                DescribeShareGroupOffsetsResponseTopic(topic_name=name, topic_id=result.topic_id, partitions=partitions)
            )
        return DescribeShareGroupOffsetsResponseGroup(group_id=asked.group_id, topics=(*topics, *unknown))

    def _described(self, topic: str, result: PartitionResult) -> DescribeShareGroupOffsetsResponsePartition:
        found = DescribeShareGroupOffsetsResponsePartition(partition_index=result.partition, start_offset=-1)
        if result.error_code is not ErrorCode.NONE:
            return found
        found = replace(found, start_offset=result.start_offset, leader_epoch=result.leader_epoch)
        if result.start_offset == -1 or result.delivery_complete_count == -1:
            return found
        native = self._plane.partition(topic, result.partition)
        if native is None:
            return DescribeShareGroupOffsetsResponsePartition(
                partition_index=result.partition, error_code=ErrorCode.NOT_LEADER_OR_FOLLOWER
            )
        end = native.offsets().high_watermark
        return replace(found, lag=end - result.start_offset - result.delivery_complete_count)


def _begun_and_failed(
    group_id: str, topics: Mapping[uuid.UUID, NamedSet], errors: Errors
) -> tuple[dict[uuid.UUID, NamedSet], dict[uuid.UUID, NamedSet]]:
    """Partitions whose states have begun, and those whose states have not, of which the log tells."""
    failed = {
        topic_id: topic._replace(partitions=bad)
        for topic_id, topic in topics.items()
        if (bad := frozenset(i for i in topic.partitions if (topic_id, i) in errors))
    }
    begun = {
        topic_id: topic._replace(partitions=good)
        for topic_id, topic in topics.items()
        if (good := frozenset(i for i in topic.partitions if (topic_id, i) not in errors))
    }
    if failed:
        codes = sorted({error.name for error in errors.values()})
        log.warning("share_states_not_initialized", group=group_id, partitions=len(errors), errors=codes)
    return begun, failed


def _errors(results: Any) -> Errors:
    return {
        (result.topic_id, partition.partition): partition.error_code
        for result in results
        for partition in result.partitions
        if partition.error_code is not ErrorCode.NONE
    }


def _with_errors(topic: AlterShareGroupOffsetsResponseTopic, errors: Errors) -> AlterShareGroupOffsetsResponseTopic:
    def one(partition: Any) -> Any:
        error = None if topic.topic_id is None else errors.get((topic.topic_id, partition.partition_index))
        if error is None or partition.error_code is not ErrorCode.NONE:
            return partition
        return replace(partition, error_code=error, error_message=error.name)

    return replace(topic, partitions=tuple(one(partition) for partition in topic.partitions))
