"""SHELL. Transactions, as an administrator sees and ends them (KIP-664).

A transaction *hangs* when a partition has it open and its coordinator knows nothing of it: nobody will ever end it, and
readers of committed records wait for it. Its marker is then written by hand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from ottla.client.network import Network
from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.describe_producers import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    TopicRequest,
)
from ottla.protocol.messages.describe_transactions import DescribeTransactionsRequest, DescribeTransactionsResponse
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from ottla.protocol.messages.list_transactions import ListTransactionsRequest, ListTransactionsResponse
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)
from ottla.protocol.versions import ApiKey

KEY_TYPE_TRANSACTION: Final = 1
FENCE_TIMEOUT_MS: Final = 60_000
"""The timeout that a producer is fenced with; nobody begins a transaction with it."""
NOT_OPEN: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionListing:
    transactional_id: str
    producer_id: int
    state: str
    coordinator_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionDescription:
    """`start_timestamp_ms` is None where no transaction was begun since the producer started."""

    transactional_id: str
    coordinator_id: int
    state: str
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    start_timestamp_ms: int | None
    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerState:
    """A producer as a partition knows it. `transaction_start_offset` is None where it has no transaction open."""

    partition: TopicPartition
    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_timestamp_ms: int
    coordinator_epoch: int
    transaction_start_offset: int | None


class TransactionsClient:
    def __init__(self, network: Network) -> None:
        self._network = network

    async def list_transactions(
        self,
        *,
        states: Collection[str] = (),
        producer_ids: Collection[int] = (),
        older_than_ms: int = -1,
        pattern: str | None = None,
    ) -> list[TransactionListing]:
        """All transactional ids of all brokers, or those that are asked for.

        Args:
            older_than_ms: Only those whose transaction was begun longer ago than this.
            pattern: Only ids that this regular expression matches as a whole.
        Raises: KafkaError, also for a state that does not exist.
        """
        await self._network.refresh(())
        request = ListTransactionsRequest(
            state_filters=tuple(states),
            producer_id_filters=tuple(producer_ids),
            duration_filter=older_than_ms,
            transactional_id_pattern=pattern,
        )
        found: list[TransactionListing] = []
        for node_id in sorted(self._network.view.brokers):
            response: ListTransactionsResponse = await self._network.send(node_id, ApiKey.LIST_TRANSACTIONS, request)
            if response.error_code is not ErrorCode.NONE:
                raise KafkaError(
                    response.error_code, f"ListTransactions at broker {node_id}: {response.error_code.name}"
                )
            if response.unknown_state_filters:
                raise KafkaError(
                    ErrorCode.INVALID_REQUEST, f"no such state: {', '.join(response.unknown_state_filters)}"
                )
            found += [
                TransactionListing(
                    transactional_id=t.transactional_id,
                    producer_id=t.producer_id,
                    state=t.transaction_state,
                    coordinator_id=node_id,
                )
                for t in response.transaction_states
            ]
        return sorted(found, key=lambda t: t.transactional_id)

    async def describe(self, transactional_id: str) -> TransactionDescription:
        """Raises: KafkaError (TRANSACTIONAL_ID_NOT_FOUND)."""

        async def once() -> TransactionDescription:
            node_id = await self._network.coordinator(transactional_id, key_type=KEY_TYPE_TRANSACTION)
            request = DescribeTransactionsRequest(transactional_ids=(transactional_id,))
            response: DescribeTransactionsResponse = await self._network.send(
                node_id, ApiKey.DESCRIBE_TRANSACTIONS, request
            )
            (found,) = response.transaction_states
            self._check(found.error_code, transactional_id)
            return TransactionDescription(
                transactional_id=transactional_id,
                coordinator_id=node_id,
                state=found.transaction_state,
                producer_id=found.producer_id,
                producer_epoch=found.producer_epoch,
                timeout_ms=found.transaction_timeout_ms,
                start_timestamp_ms=found.transaction_start_time_ms if found.transaction_start_time_ms >= 0 else None,
                partitions=tuple(sorted(TopicPartition(t.topic, p) for t in found.topics for p in t.partitions)),
            )

        return await self._network.retrying(once)

    async def producers(self, partition: TopicPartition) -> list[ProducerState]:
        """Whom a partition remembers as a producer, as its leader says. Raises: KafkaError."""

        async def once() -> list[ProducerState]:
            node_id = await self._leader(partition)
            topic = TopicRequest(name=partition.topic, partition_indexes=(partition.partition,))
            response: DescribeProducersResponse = await self._network.send(
                node_id, ApiKey.DESCRIBE_PRODUCERS, DescribeProducersRequest(topics=(topic,))
            )
            found = response.topics[0].partitions[0]
            if found.error_code is not ErrorCode.NONE:
                raise KafkaError(found.error_code, f"{partition}: {found.error_message or found.error_code.name}")
            return [
                ProducerState(
                    partition=partition,
                    producer_id=p.producer_id,
                    producer_epoch=p.producer_epoch,
                    last_sequence=p.last_sequence,
                    last_timestamp_ms=p.last_timestamp,
                    coordinator_epoch=p.coordinator_epoch,
                    transaction_start_offset=(
                        None if p.current_txn_start_offset == NOT_OPEN else p.current_txn_start_offset
                    ),
                )
                for p in found.active_producers
            ]

        await self._know(partition)
        return await self._network.retrying(once)

    async def find_hanging(
        self, partitions: Iterable[TopicPartition], *, now_ms: int, older_than_ms: int
    ) -> list[ProducerState]:
        """Transactions that are open in these partitions and that no coordinator will end.

        Args:
            now_ms: Unix milliseconds.
            older_than_ms: Younger ones (since their last record) are passed over: they may be about to be ended.
        Raises: KafkaError.
        """
        listed = {t.producer_id: t.transactional_id for t in await self.list_transactions()}
        hanging = []
        for partition in partitions:
            for producer in await self.producers(partition):
                is_old = now_ms - producer.last_timestamp_ms >= older_than_ms
                if producer.transaction_start_offset is None or not is_old:
                    continue
                transactional_id = listed.get(producer.producer_id)
                if transactional_id is None or not await self._covers(transactional_id, producer):
                    hanging.append(producer)
        return hanging

    async def _covers(self, transactional_id: str, producer: ProducerState) -> bool:
        """Whether the coordinator knows that the transaction is open in the partition."""
        described = await self.describe(transactional_id)
        return described.producer_id == producer.producer_id and producer.partition in described.partitions

    async def abort(self, producer: ProducerState) -> None:
        """Write the marker that aborts a hanging transaction in one partition. Raises: KafkaError."""
        partition = producer.partition
        marker = WritableTxnMarker(
            producer_id=producer.producer_id,
            producer_epoch=producer.producer_epoch,
            transaction_result=False,
            coordinator_epoch=max(producer.coordinator_epoch, 0),
            topics=(WritableTxnMarkerTopic(name=partition.topic, partition_indexes=(partition.partition,)),),
        )

        async def once() -> None:
            node_id = await self._leader(partition)
            response: WriteTxnMarkersResponse = await self._network.send(
                node_id, ApiKey.WRITE_TXN_MARKERS, WriteTxnMarkersRequest(markers=(marker,))
            )
            self._check(response.markers[0].topics[0].partitions[0].error_code, str(partition))

        await self._know(partition)
        await self._network.retrying(once)

    async def fence(self, transactional_id: str) -> tuple[int, int]:
        """Abort what a transactional id has open, and shut its producer out; returns the producer id and epoch after.

        Raises: KafkaError.
        """

        async def once() -> tuple[int, int]:
            node_id = await self._network.coordinator(transactional_id, key_type=KEY_TYPE_TRANSACTION)
            request = InitProducerIdRequest(
                transactional_id=transactional_id,
                transaction_timeout_ms=FENCE_TIMEOUT_MS,
                producer_id=-1,
                producer_epoch=-1,
            )
            response: InitProducerIdResponse = await self._network.send(node_id, ApiKey.INIT_PRODUCER_ID, request)
            self._check(response.error_code, transactional_id)
            return response.producer_id, response.producer_epoch

        return await self._network.retrying(once)

    async def _know(self, partition: TopicPartition) -> None:
        """A leader may be waited for; one of no partition would not come. Raises: KafkaError."""
        if self._network.view.leader(partition) is None:
            await self._network.refresh({partition.topic})
            topic = self._network.view.topics.get(partition.topic)
            if topic is None or partition.partition not in topic.partitions:
                raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"{partition} does not exist")

    async def _leader(self, partition: TopicPartition) -> int:
        if self._network.view.leader(partition) is None:
            await self._network.refresh({partition.topic})
        leader = self._network.view.leader(partition)
        if leader is None:
            raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"{partition} has no leader")
        return leader

    def _check(self, error: ErrorCode, what: str) -> None:
        if error is ErrorCode.NOT_COORDINATOR:
            self._network.forget_coordinator(what, key_type=KEY_TYPE_TRANSACTION)
        if error is not ErrorCode.NONE:
            raise KafkaError(error, f"{what}: {error.name}")
