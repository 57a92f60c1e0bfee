"""The share coordinator of this broker: the states of share partitions, in the shards of `__share_group_state`.

The methods are the APIs 83 to 87 (KIP-932): the group coordinator and the leaders of partitions on this broker call
them, others send the requests. A request is cut into its share partitions, as each lives where its own hash says.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import trio

from ottla._native import DataPlane
from ottla.broker.coordinated_topic import CoordinatedTopic
from ottla.broker.coordinator_runtime import CoordinatorRuntime
from ottla.broker.event_log import EventLog
from ottla.broker.metadata_publisher import Published
from ottla.common.config import BrokerConfig
from ottla.common.topics import SHARE_GROUP_STATE
from ottla.coordinator.shard import Instant, Outcome
from ottla.coordinator.share.config import ShareCoordinatorConfig
from ottla.coordinator.share.state import SharePartition
from ottla.errors import KafkaError
from ottla.metadata.image import MetadataImage
from ottla.protocol.messages.create_topics import CreateTopicsRequest, CreateTopicsResponse
from ottla.protocol.messages.delete_share_group_state import (
    DeleteShareGroupStateRequest,
    DeleteShareGroupStateResponse,
    DeleteStateResult,
)
from ottla.protocol.messages.delete_share_group_state import PartitionResult as DeleteResult
from ottla.protocol.messages.initialize_share_group_state import (
    InitializeShareGroupStateRequest,
    InitializeShareGroupStateResponse,
    InitializeStateResult,
)
from ottla.protocol.messages.initialize_share_group_state import PartitionResult as InitializeResult
from ottla.protocol.messages.read_share_group_state import PartitionResult as ReadResult
from ottla.protocol.messages.read_share_group_state import (
    ReadShareGroupStateRequest,
    ReadShareGroupStateResponse,
    ReadStateResult,
)
from ottla.protocol.messages.read_share_group_state_summary import PartitionResult as SummaryResult
from ottla.protocol.messages.read_share_group_state_summary import (
    ReadShareGroupStateSummaryRequest,
    ReadShareGroupStateSummaryResponse,
    ReadStateSummaryResult,
)
from ottla.protocol.messages.write_share_group_state import PartitionResult as WriteResult
from ottla.protocol.messages.write_share_group_state import (
    WriteShareGroupStateRequest,
    WriteShareGroupStateResponse,
    WriteStateResult,
)

if TYPE_CHECKING:
    from ottla.coordinator.share.machine import ShareCoordinatorMachine

log = EventLog("share_coordinator")

CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
"""By the numbers of `share.coordinator.state.topic.compression.codec`."""

R = TypeVar("R")
Decide = Callable[["ShareCoordinatorMachine", SharePartition, Any, int, Instant], Outcome]


class ShareCoordinator:
    """The states of share partitions on this broker."""

    def __init__(
        self,
        plane: DataPlane,
        *,
        node_id: int,
        image: Callable[[], MetadataImage],
        create_topics: Callable[[CreateTopicsRequest], Awaitable[CreateTopicsResponse]],
        config: BrokerConfig,
        is_alone: bool,
    ) -> None:
        """
        Args:
            image: The metadata now.
            create_topics: Has topics made; returns when they are served.
            config: This broker's; later changes come with `on_published`.
            is_alone: The node was formatted as a lone broker, so that one replica is all there can be.
        """
        self._plane = plane
        self._image = image
        self._config = config
        self._is_alone = is_alone
        self.runtime: CoordinatorRuntime[ShareCoordinatorMachine] = CoordinatorRuntime(
            SHARE_GROUP_STATE,
            self._new_machine,
            write_timeout_ms=config.integer("share.coordinator.write.timeout.ms"),
            is_compacted=False,  # what changed is a record of its own
            on_decided=self._prune,
        )
        self.topic = CoordinatedTopic(
            SHARE_GROUP_STATE, self.runtime, plane=plane, node_id=node_id, image=image, create_topics=create_topics
        )

    def _new_machine(self) -> ShareCoordinatorMachine:
        # Imported here, as most brokers start without share groups.
        from ottla.coordinator.share.machine import ShareCoordinatorMachine

        return ShareCoordinatorMachine(share_coordinator_config(self._config), self._image())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Coordinate until cancelled."""
        await self.runtime.run(task_status=task_status)

    async def wait_loaded(self) -> None:
        """Return when no states are being loaded."""
        await self.runtime.wait_loaded()

    def on_high_watermark(self, topic: str, partition: int) -> None:
        """A watched partition has moved."""
        if topic == SHARE_GROUP_STATE:
            self.runtime.on_partition_moved(partition)

    def on_published(self, published: Published) -> None:
        """Follow the metadata, once its partitions are served: lead, resign, forget what is deleted."""
        self._config = published.config
        before, after = published.delta.base, published.image
        if before.topics is after.topics and not published.is_retry:
            return
        self.runtime.for_each_machine(lambda machine: machine.follow(after))
        self.topic.follow(
            after, compression=CODECS[self._config.integer("share.coordinator.state.topic.compression.codec")]
        )
        deleted = before.topics.keys() - after.topics.keys()
        if deleted:
            for partition in self.runtime.partitions():
                self.runtime.command(partition, lambda machine, _: machine.on_topics_deleted(deleted))

    def _prune(self, partition: int, machine: ShareCoordinatorMachine) -> None:
        """Delete the records that nobody needs any more."""
        prunable = machine.take_prunable()
        native = None if prunable is None else self._plane.partition(SHARE_GROUP_STATE, partition)
        if prunable is None or native is None or prunable <= native.offsets().log_start_offset:
            return
        try:
            native.delete_records(prunable)
        except KafkaError as error:
            log.warning("share_state_not_pruned", partition=partition, offset=prunable, error=error)

    # Finding the way

    def partition_for(self, key: str) -> int:
        """Where a share partition lives: its key is group:topic id:partition, the id in Kafka's base 64.

        Raises: KafkaError (NOT_COORDINATOR: there is no topic yet, so nobody is).
        """
        return self.topic.partition_for(key)

    def leader_of(self, partition: int) -> int:
        """The broker that coordinates a partition of states; -1: none."""
        return self.topic.leader_of(partition)

    async def ensure_topic(self) -> None:
        """Make `__share_group_state` unless it is there. Raises: KafkaError (COORDINATOR_NOT_AVAILABLE)."""
        config = self._config
        replicas = config.integer("share.coordinator.state.topic.replication.factor")
        await self.topic.ensure(
            partitions=config.integer("share.coordinator.state.topic.num.partitions"),
            replication_factor=1 if self._is_alone else replicas,
            configs={
                "cleanup.policy": "delete",
                "compression.type": "producer",
                "min.insync.replicas": str(config.integer("share.coordinator.state.topic.min.isr")),
                "retention.ms": "-1",
                "segment.bytes": str(config.integer("share.coordinator.state.topic.segment.bytes")),
            },
        )

    # The APIs. Errors are in the results, a partition each.

    async def initialize_share_group_state(
        self, request: InitializeShareGroupStateRequest
    ) -> InitializeShareGroupStateResponse:
        """Begin states, or begin them anew."""
        found = await self._ask_each(
            request, lambda machine, *rest: machine.initialize(*rest), InitializeResult, may_be_empty=True
        )
        return InitializeShareGroupStateResponse(
            results=tuple(InitializeStateResult(topic_id=i, partitions=tuple(p)) for i, p in found)
        )

    async def read_share_group_state(self, request: ReadShareGroupStateRequest) -> ReadShareGroupStateResponse:
        """Tell leaders the states, and keep their epochs."""
        found = await self._ask_each(request, lambda machine, *rest: machine.read(*rest), ReadResult)
        return ReadShareGroupStateResponse(
            results=tuple(ReadStateResult(topic_id=i, partitions=tuple(p)) for i, p in found)
        )

    async def write_share_group_state(self, request: WriteShareGroupStateRequest) -> WriteShareGroupStateResponse:
        """Keep what leaders say of records; returns when it is committed."""
        found = await self._ask_each(request, lambda machine, *rest: machine.write(*rest), WriteResult)
        return WriteShareGroupStateResponse(
            results=tuple(WriteStateResult(topic_id=i, partitions=tuple(p)) for i, p in found)
        )

    async def delete_share_group_state(self, request: DeleteShareGroupStateRequest) -> DeleteShareGroupStateResponse:
        """Forget states."""
        found = await self._ask_each(request, lambda machine, *rest: machine.delete(*rest), DeleteResult)
        return DeleteShareGroupStateResponse(
            results=tuple(DeleteStateResult(topic_id=i, partitions=tuple(p)) for i, p in found)
        )

    async def read_share_group_state_summary(
        self, request: ReadShareGroupStateSummaryRequest
    ) -> ReadShareGroupStateSummaryResponse:
        """Tell where share partitions are."""
        found = await self._ask_each(request, lambda machine, *rest: machine.summarize(*rest), SummaryResult)
        return ReadShareGroupStateSummaryResponse(
            results=tuple(ReadStateSummaryResult(topic_id=i, partitions=tuple(p)) for i, p in found)
        )

    async def _ask_each(
        self, request: Any, decide: Decide, result: Callable[..., R], *, may_be_empty: bool = False
    ) -> list[tuple[uuid.UUID | None, list[R]]]:
        """Let the machine of each share partition decide, all at once; nothing without a group or partitions."""
        topics: Sequence[Any] = request.topics
        if not request.group_id or (not may_be_empty and any(not topic.partitions for topic in topics)):
            return []
        # One entry a topic and partition, however often it is named; the last one counts, as in Kafka.
        asked = {SharePartition(request.group_id, t.topic_id, p.partition): p for t in topics for p in t.partitions}
        results: dict[SharePartition, R] = {}

        async def ask(key: SharePartition, data: Any) -> None:
            try:
                answer = await self.runtime.ask(
                    self.partition_for(key.coordinator_key),
                    lambda machine, token, now: decide(machine, key, data, token, now),
                )
                results[key] = cast(R, answer)
            except KafkaError as error:
                results[key] = result(partition=key.partition, error_code=error.code, error_message=str(error))

        if len(asked) == 1:
            for key, data in asked.items():
                await ask(key, data)
        else:
            async with trio.open_nursery() as nursery:
                for key, data in asked.items():
                    nursery.start_soon(ask, key, data)
        return _by_topic((key, results[key]) for key in asked)


def _by_topic(results: Iterable[tuple[SharePartition, R]]) -> list[tuple[uuid.UUID | None, list[R]]]:
    found: dict[uuid.UUID | None, list[R]] = {}
    for key, result in results:
        found.setdefault(key.topic_id, []).append(result)
    return list(found.items())


def share_coordinator_config(config: BrokerConfig) -> ShareCoordinatorConfig:
    """The machine's settings out of the broker's."""
    return ShareCoordinatorConfig(
        snapshot_update_records_per_snapshot=config.integer("share.coordinator.snapshot.update.records.per.snapshot"),
        state_topic_prune_interval_ms=config.integer("share.coordinator.state.topic.prune.interval.ms"),
        cold_partition_snapshot_interval_ms=config.integer("share.coordinator.cold.partition.snapshot.interval.ms"),
    )
