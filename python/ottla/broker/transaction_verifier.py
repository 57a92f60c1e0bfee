"""Asks the transaction coordinator about Produce requests that the native session holds back.

The first batch of a transaction in a partition waits until the coordinator knows that the partition is part of it:
clients before Produce 12 have said so themselves and are checked, later ones have it added (KIP-890). Records never
come here; while a transaction is open in a partition, neither do requests.

Source: Kafka's `ReplicaManager.handleProduceAppend` and `AddPartitionsToTxnManager`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import trio

from ottla.broker.clock import now_ms, wall_ms
from ottla.broker.event_log import EventLog
from ottla.common.config import BrokerConfig
from ottla.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from ottla._native import DataPlane, Request, Unverified

log = EventLog("transaction_verifier")

TopicPartition: TypeAlias = tuple[str, int]

PRODUCE_ADDS_FROM: Final = 12
"""Version of Produce from which on partitions are added by producing to them."""
PRODUCE_ABORTABLE_FROM: Final = 11
"""Version of Produce from which on clients know TRANSACTION_ABORTABLE."""
OFFSETS_ADD_FROM: Final = 5
"""As `PRODUCE_ADDS_FROM`, of TxnOffsetCommit."""
OFFSETS_ABORTABLE_FROM: Final = 4

_TRANSIENT: Final = frozenset(
    {
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)


class AddPartitions(Protocol):
    """The transaction coordinator, as far as it is asked here."""

    async def __call__(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: Collection[TopicPartition],
        *,
        verify_only: bool,
    ) -> Mapping[TopicPartition, ErrorCode]:
        """Add partitions to a transaction, or find out whether they are part of it. Raises: KafkaError."""


def transaction_error(error: ErrorCode, *, knows_abortable: bool) -> ErrorCode:
    """What the coordinator's answer about a partition means to whoever wants to write there."""
    if error is ErrorCode.PRODUCER_FENCED:
        return ErrorCode.INVALID_PRODUCER_EPOCH  # the one that producers expect here
    if error is ErrorCode.TRANSACTION_ABORTABLE and not knows_abortable:
        return ErrorCode.INVALID_TXN_STATE
    if error is ErrorCode.CLUSTER_AUTHORIZATION_FAILED:
        return ErrorCode.INVALID_TXN_STATE
    return error


def produce_error(error: ErrorCode, *, version: int) -> tuple[ErrorCode, str | None]:
    """How a client of a version of Produce is told of the coordinator's answer: code and words."""
    known = transaction_error(error, knows_abortable=version >= PRODUCE_ABORTABLE_FROM)
    if known is ErrorCode.INVALID_TXN_STATE:
        return known, "The partition was not added to the transaction."
    is_concurrent = known is ErrorCode.CONCURRENT_TRANSACTIONS and version < PRODUCE_ADDS_FROM
    if known in _TRANSIENT or is_concurrent:
        # Older clients retry this one right, and do not look for the partition's leader first.
        return ErrorCode.NOT_ENOUGH_REPLICAS, f"The transaction could not be verified: {known.name}."
    return known, None


class TransactionVerifier:
    """Answers the requests of `DataPlane.poll`'s third list, one task each."""

    def __init__(
        self,
        plane: DataPlane,
        add_partitions: AddPartitions,
        *,
        config: Callable[[], BrokerConfig],
        on_news: Callable[[int, bool, list[Request]], None],
    ) -> None:
        """
        Args:
            config: This broker's configuration now.
            on_news: Told, by session id, what the data plane says of a session that goes on.
        """
        self._plane = plane
        self._add_partitions = add_partitions
        self._config = config
        self._on_news = on_news
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self.configure(self._config())
            task_status.started()
            await trio.sleep_forever()

    def configure(self, config: BrokerConfig) -> None:
        """Take settings that have changed."""
        if self._nursery is not None:
            self._plane.verify_transactions(verifies=config.boolean("transaction.partition.verification.enable"))

    def start(self, unverified: Iterable[Unverified]) -> None:
        """Take requests that `poll` named."""
        assert self._nursery is not None, "nothing is held back before the verifier runs"
        for request in unverified:
            self._nursery.start_soon(self._verify, request)

    async def _verify(self, request: Unverified) -> None:
        session_id, request_id, version, transactional_id, producer_id, producer_epoch, partitions = request

        try:
            answers = await ask_coordinator(
                self._add_partitions,
                transactional_id,
                producer_id,
                producer_epoch,
                partitions,
                adds=version >= PRODUCE_ADDS_FROM,
                config=self._config(),
            )
        except Exception as error:
            log.error("verification_failed", transactional_id=transactional_id, error=error)
            answers = dict.fromkeys(partitions, ErrorCode.UNKNOWN_SERVER_ERROR)
        refused = [
            (*at, *produce_error(error, version=version))
            for at, error in answers.items()
            if error is not ErrorCode.NONE
        ]
        news = self._plane.verified(session_id, request_id, refused, now_ms(), wall_ms())
        if news is not None:
            self._on_news(session_id, *news)


async def ask_coordinator(
    add_partitions: AddPartitions,
    transactional_id: str,
    producer_id: int,
    producer_epoch: int,
    partitions: Collection[TopicPartition],
    *,
    adds: bool,
    config: BrokerConfig,
) -> Mapping[TopicPartition, ErrorCode]:
    """Add partitions to a transaction, or (`adds` is False) have it verified; returns an answer for each.

    An earlier transaction that is still being ended is waited for a moment when partitions are added: the client has
    sent its records, and sending them again would cost it more.
    """
    patience_ms = config.integer("add.partitions.to.txn.retry.backoff.max.ms")
    backoff_ms = config.integer("add.partitions.to.txn.retry.backoff.ms")
    started_ms = now_ms()
    while True:
        try:
            found = await add_partitions(
                transactional_id, producer_id, producer_epoch, partitions, verify_only=not adds
            )
            answers = {at: found.get(at, ErrorCode.INVALID_TXN_STATE) for at in partitions}
        except KafkaError as error:
            answers = dict.fromkeys(partitions, error.code)
        is_concurrent = adds and ErrorCode.CONCURRENT_TRANSACTIONS in answers.values()
        if not is_concurrent or now_ms() - started_ms >= patience_ms:
            return answers
        await trio.sleep(backoff_ms / 1000)
