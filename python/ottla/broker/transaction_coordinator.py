"""The transaction coordinator of this broker: transactional ids, in the shards of `__transaction_state`.

The machine decides. What happens here is what it cannot do itself: take producer ids, and have the markers of ended
transactions written, again and again until each partition has its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final, cast

import trio

from ottla._native import DataPlane
from ottla.broker.coordinated_topic import CoordinatedTopic
from ottla.broker.coordinator_runtime import CoordinatorRuntime
from ottla.broker.event_log import EventLog
from ottla.broker.metadata_publisher import Published
from ottla.broker.producer_ids import ProducerIds
from ottla.broker.transaction_markers import TransactionMarkers
from ottla.common.config import BrokerConfig
from ottla.common.topics import TRANSACTION_STATE
from ottla.coordinator.transaction.config import TransactionConfig
from ottla.errors import ErrorCode
from ottla.metadata.features import TRANSACTION_VERSION_FEATURE
from ottla.metadata.image import MetadataImage
from ottla.protocol.messages.create_topics import CreateTopicsRequest, CreateTopicsResponse

if TYPE_CHECKING:
    from ottla.coordinator.transaction.ending import Ending
    from ottla.coordinator.transaction.machine import TransactionMachine
    from ottla.protocol.messages.end_txn import EndTxnRequest, EndTxnResponse
    from ottla.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

log = EventLog("transaction_coordinator")

TopicPartition = tuple[str, int]

WRITE_TIMEOUT_MS: Final = 5_000
"""How long a step may stay uncommitted before its client is told to try again (Kafka: the same, as a constant)."""
RETRY_MS_MIN: Final = 20
RETRY_MS_MAX: Final = 1_000
"""Pauses between attempts to write markers."""
_REFUSALS: Final = (ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.TRANSACTION_COORDINATOR_FENCED)
ADDED_BY_BROKERS: Final = 2
"""The transaction.version of clients that have partitions added by producing to them (KIP-890)."""


class TransactionCoordinator:
    """Transactional ids on this broker."""

    def __init__(
        self,
        plane: DataPlane,
        markers: TransactionMarkers,
        producer_ids: ProducerIds,
        *,
        node_id: int,
        image: Callable[[], MetadataImage],
        create_topics: Callable[[CreateTopicsRequest], Awaitable[CreateTopicsResponse]],
        config: BrokerConfig,
        is_alone: bool,
    ) -> None:
        """
        Args:
            markers: Writes markers into the partitions of this broker.
            image: The metadata now.
            create_topics: Has topics made; returns when they are served.
            config: This broker's; later changes come with `on_published`.
            is_alone: The node was formatted as a lone broker, so that one replica is all there can be.
        """
        self._markers = markers
        self._producer_ids = producer_ids
        self._image = image
        self._config = config
        self._machine_config = transaction_config(config, image())
        self._is_alone = is_alone
        self._nursery: trio.Nursery | None = None
        self._being_ended: set[Ending] = set()
        self.runtime: CoordinatorRuntime[TransactionMachine] = CoordinatorRuntime(
            TRANSACTION_STATE,
            self._new_machine,
            write_timeout_ms=WRITE_TIMEOUT_MS,
            on_decided=self._take_endings,
        )
        self.topic = CoordinatedTopic(
            TRANSACTION_STATE, self.runtime, plane=plane, node_id=node_id, image=image, create_topics=create_topics
        )

    def _new_machine(self) -> TransactionMachine:
        # Imported here, as most brokers start without a transaction.
        from ottla.coordinator.transaction.machine import TransactionMachine

        return TransactionMachine(self._machine_config)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Coordinate until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self.runtime.run)
            task_status.started()

    async def wait_loaded(self) -> None:
        """Return when no transactions are being loaded."""
        await self.runtime.wait_loaded()

    def on_high_watermark(self, topic: str, partition: int) -> None:
        """A watched partition has moved."""
        if topic == TRANSACTION_STATE:
            self.runtime.on_partition_moved(partition)

    def on_published(self, published: Published) -> None:
        """Follow the metadata, once its partitions are served: lead, resign, take settings."""
        self._config = published.config
        changed = transaction_config(published.config, published.image)
        if changed != self._machine_config:
            self._machine_config = changed
            self.runtime.for_each_machine(lambda machine: setattr(machine, "config", changed))
        if published.delta.base.topics is not published.image.topics or published.is_retry:
            self.topic.follow(published.image, compression="none")

    # Finding the way

    def partition_for(self, transactional_id: str) -> int:
        """Where a transactional id lives. Raises: KafkaError (NOT_COORDINATOR: there is no topic yet, so nobody is)."""
        return self.topic.partition_for(transactional_id)

    def leader_of(self, partition: int) -> int:
        """The broker that coordinates a partition of transactional ids; -1: none."""
        return self.topic.leader_of(partition)

    async def ensure_topic(self) -> None:
        """Make `__transaction_state` unless it is there. Raises: KafkaError (COORDINATOR_NOT_AVAILABLE)."""
        config = self._config
        replicas = config.integer("transaction.state.log.replication.factor")
        await self.topic.ensure(
            partitions=config.integer("transaction.state.log.num.partitions"),
            replication_factor=1 if self._is_alone else replicas,
            configs={
                "cleanup.policy": "compact",
                "compression.type": "uncompressed",
                "min.insync.replicas": str(config.integer("transaction.state.log.min.isr")),
                "segment.bytes": str(config.integer("transaction.state.log.segment.bytes")),
                "unclean.leader.election.enable": "false",
            },
        )

    # Requests

    async def init_producer_id(self, request: InitProducerIdRequest) -> InitProducerIdResponse:
        """Start a transactional producer. Raises: KafkaError."""
        transactional_id = request.transactional_id or ""
        partition = self.partition_for(transactional_id)
        spare = await self._spare_producer_id(partition, transactional_id)
        answered = await self.runtime.ask(
            partition,
            lambda machine, token, now: machine.init_producer_id(request, token, now, spare_producer_id=spare),
        )
        return cast("InitProducerIdResponse", answered)

    async def end(self, request: EndTxnRequest, *, client_version: int) -> EndTxnResponse:
        """Commit or abort a transaction. Raises: KafkaError."""
        partition = self.partition_for(request.transactional_id)
        spare = await self._spare_producer_id(partition, request.transactional_id)
        answered = await self.runtime.ask(
            partition,
            lambda machine, token, now: machine.end(
                request, token, now, client_version=client_version, spare_producer_id=spare
            ),
        )
        return cast("EndTxnResponse", answered)

    async def _spare_producer_id(self, partition: int, transactional_id: str) -> int | None:
        """A fresh producer id, if the next step of the transactional id may need one."""
        if not self.runtime.look(partition, lambda machine, _: machine.needs_producer_id(transactional_id)):
            return None
        return await self._producer_ids.take()

    async def add(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: Collection[TopicPartition],
        *,
        client_version: int,
    ) -> ErrorCode:
        """Add partitions to a transaction, all or none. Raises: KafkaError."""
        answered = await self.runtime.ask(
            self.partition_for(transactional_id),
            lambda machine, token, now: machine.add_partitions(
                transactional_id, producer_id, producer_epoch, partitions, token, now, client_version=client_version
            ),
        )
        return cast(ErrorCode, answered)

    def verify(
        self, transactional_id: str, producer_id: int, producer_epoch: int, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, ErrorCode]:
        """Whether partitions are part of a transaction. Raises: KafkaError."""
        return self.runtime.look(
            self.partition_for(transactional_id),
            lambda machine, _: machine.verify_partitions(transactional_id, producer_id, producer_epoch, partitions),
        )

    async def add_partitions(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: Collection[TopicPartition],
        *,
        verify_only: bool,
    ) -> Mapping[TopicPartition, ErrorCode]:
        """As `ottla.broker.transaction_verifier` asks, for partitions that are being written to. Raises: KafkaError."""
        if verify_only:
            return self.verify(transactional_id, producer_id, producer_epoch, partitions)
        error = await self.add(
            transactional_id, producer_id, producer_epoch, partitions, client_version=ADDED_BY_BROKERS
        )
        return dict.fromkeys(partitions, error)

    # Ending transactions

    def _take_endings(self, partition: int, machine: TransactionMachine) -> None:
        for ending in machine.take_endings():
            if ending not in self._being_ended and self._nursery is not None:
                self._being_ended.add(ending)
                self._nursery.start_soon(self._carry_out, partition, ending)

    async def _carry_out(self, partition: int, ending: Ending) -> None:
        try:
            await self._write_markers(partition, ending)
        finally:
            self._being_ended.discard(ending)
        self.runtime.command(partition, lambda machine, now: machine.complete(ending, now))

    async def _write_markers(self, partition: int, ending: Ending) -> None:
        """Write the markers of a transaction; returns when each of its partitions has one or can do without."""
        left = set(ending.partitions)
        told: Mapping[TopicPartition, ErrorCode] = {}
        pause_ms = RETRY_MS_MIN
        while left:
            epoch = self.topic.leader_epoch(partition)
            if epoch is None:
                return  # somebody else's now: that one finds the decision in the log
            results = await self._markers.write(
                producer_id=ending.producer_id,
                producer_epoch=ending.producer_epoch,
                commit=ending.commit,
                coordinator_epoch=epoch,
                transaction_version=ending.transaction_version,
                partitions=sorted(left),
            )
            left = {at for at, error in results.items() if not self._is_settled(at, error, ending)}
            for at, error in results.items():
                if error is not told.get(at, ErrorCode.NONE) and (at in left or error in _REFUSALS):
                    about = {"transactional_id": ending.transactional_id, "topic": at[0], "partition": at[1]}
                    log.warning("marker_not_written", reason=error.name, is_open=at in left, **about)
            told = results
            if left:
                await trio.sleep(pause_ms / 1000)
                pause_ms = min(2 * pause_ms, RETRY_MS_MAX)

    def _is_settled(self, at: TopicPartition, error: ErrorCode, ending: Ending) -> bool:
        """Whether a partition needs no marker any more."""
        if error is ErrorCode.NONE:
            return True
        if error is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION and self._image().partition(*at) is None:
            return True  # it was deleted
        if error in _REFUSALS:
            # The partition has seen a later end of a transaction of this producer, so that this one is not open there;
            # or a marker of a coordinator that there never was, sent by hand, and the transaction stands open.
            return not self._markers.is_open(at, ending.producer_id, ending.producer_epoch)
        return False


def transaction_config(config: BrokerConfig, image: MetadataImage) -> TransactionConfig:
    """The machine's settings out of the broker's and the cluster's."""
    return TransactionConfig(
        transaction_max_timeout_ms=config.integer("transaction.max.timeout.ms"),
        transactional_id_expiration_ms=config.integer("transactional.id.expiration.ms"),
        transaction_remove_expired_transaction_cleanup_interval_ms=config.integer(
            "transaction.remove.expired.transaction.cleanup.interval.ms"
        ),
        add_partitions_to_txn_retry_backoff_max_ms=config.integer("add.partitions.to.txn.retry.backoff.max.ms"),
        transaction_version=image.features.get(TRANSACTION_VERSION_FEATURE, 0),
    )
