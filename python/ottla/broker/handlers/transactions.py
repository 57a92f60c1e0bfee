"""The APIs of the transaction coordinator: steps of a transaction, and what administrators ask.

Source: Kafka's `KafkaApis` and `TransactionCoordinator` (KIP-98, KIP-664, KIP-890).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Final

from ottla.broker.context import RequestContext
from ottla.common.expressions import InvalidExpression, compiled
from ottla.common.topics import CONSUMER_OFFSETS
from ottla.coordinator.transaction.transaction import NEVER_LISTED, STATE_LABELS, TopicPartition, Transaction
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest, AddOffsetsToTxnResponse
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopicResult,
    AddPartitionsToTxnTransaction,
)
from ottla.protocol.messages.describe_transactions import (
    DescribeTransactionsRequest,
    DescribeTransactionsResponse,
    TopicData,
)
from ottla.protocol.messages.describe_transactions import TransactionState as DescribedTransaction
from ottla.protocol.messages.end_txn import EndTxnRequest, EndTxnResponse
from ottla.protocol.messages.list_transactions import ListTransactionsRequest, ListTransactionsResponse
from ottla.protocol.messages.list_transactions import TransactionState as ListedTransaction
from ottla.protocol.versions import ApiKey

if TYPE_CHECKING:
    from ottla.coordinator.shard import Instant
    from ottla.coordinator.transaction.machine import TransactionMachine

_FENCED_KNOWN_FROM_VERSION: Final = 2
"""Versions of AddPartitionsToTxn, AddOffsetsToTxn and EndTxn from which on clients know PRODUCER_FENCED."""
_BATCHED_FROM_VERSION: Final = 4
_ADD_BY_NEW_RULES_FROM_VERSION: Final = 5
_END_BY_NEW_RULES_FROM_VERSION: Final = 5
"""Versions that clients use where transaction.version 2 is finalised, and nowhere else."""
_NEW_RULES: Final = 2
_OLD_RULES: Final = 0
_DURATION_FROM_VERSION: Final = 1
_LOADING_KNOWN: Final = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
NOT_ACTIVE: Final = -1


def _known(error: ErrorCode, version: int) -> ErrorCode:
    is_new = error is ErrorCode.PRODUCER_FENCED and version < _FENCED_KNOWN_FROM_VERSION
    return ErrorCode.INVALID_PRODUCER_EPOCH if is_new else error


# Adding to a transaction


async def handle_add_partitions_to_txn(
    context: RequestContext, request: AddPartitionsToTxnRequest
) -> AddPartitionsToTxnResponse:
    if context.version >= _BATCHED_FROM_VERSION:
        results = [
            AddPartitionsToTxnResult(
                transactional_id=transaction.transactional_id, topic_results=await _add(context, transaction)
            )
            for transaction in request.transactions
        ]
        return AddPartitionsToTxnResponse(results_by_transaction=tuple(results))
    transaction = AddPartitionsToTxnTransaction(
        transactional_id=request.v3_and_below_transactional_id,
        producer_id=request.v3_and_below_producer_id,
        producer_epoch=request.v3_and_below_producer_epoch,
        topics=request.v3_and_below_topics,
    )
    return AddPartitionsToTxnResponse(results_by_topic_v3_and_below=await _add(context, transaction))


async def _add(
    context: RequestContext, asked: AddPartitionsToTxnTransaction
) -> tuple[AddPartitionsToTxnTopicResult, ...]:
    """Add or verify the partitions of one transaction: all that exist, or none.

    Answers that tell the partitions apart name each once; Kafka collects those in a map.
    """
    partitions = [(topic.name, index) for topic in asked.topics for index in topic.partitions]
    image = context.broker.metadata.image
    unknown = {at for at in partitions if image.partition(*at) is None}
    if unknown:
        missing, rest = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.OPERATION_NOT_ATTEMPTED
        return _by_topic((at, missing if at in unknown else rest) for at in partitions)
    producer = (asked.transactional_id, asked.producer_id, asked.producer_epoch)
    try:
        if not asked.transactional_id:
            raise KafkaError(ErrorCode.INVALID_REQUEST)
        if asked.verify_only:
            errors = context.broker.transactions.verify(*producer, partitions)
        else:
            rules = _NEW_RULES if context.version >= _ADD_BY_NEW_RULES_FROM_VERSION else _OLD_RULES
            error = await context.broker.transactions.add(*producer, partitions, client_version=rules)
            return _as_asked(asked, _known(error, context.version))
    except KafkaError as failure:
        return _as_asked(asked, _known(failure.code, context.version))
    return _by_topic((at, _known(errors[at], context.version)) for at in partitions)


def _as_asked(asked: AddPartitionsToTxnTransaction, error: ErrorCode) -> tuple[AddPartitionsToTxnTopicResult, ...]:
    """One error for all: entry for entry, as they were named."""
    return tuple(
        AddPartitionsToTxnTopicResult(
            name=topic.name,
            results_by_partition=tuple(
                AddPartitionsToTxnPartitionResult(partition_index=index, partition_error_code=error)
                for index in topic.partitions
            ),
        )
        for topic in asked.topics
    )


def _by_topic(
    errors: Iterable[tuple[TopicPartition, ErrorCode]],
) -> tuple[AddPartitionsToTxnTopicResult, ...]:
    return tuple(
        [
            AddPartitionsToTxnTopicResult(
                name=topic,
                results_by_partition=tuple(
                    [
                        AddPartitionsToTxnPartitionResult(partition_index=index, partition_error_code=error)
                        for (_, index), error in found
                    ]
                ),
            )
            for topic, found in groupby(sorted(dict(errors).items()), key=lambda item: item[0][0])
        ]
    )


async def handle_add_offsets_to_txn(
    context: RequestContext, request: AddOffsetsToTxnRequest
) -> AddOffsetsToTxnResponse:
    """Make the partition of a group's offsets part of the transaction."""
    broker = context.broker
    try:
        if not request.transactional_id:
            raise KafkaError(ErrorCode.INVALID_REQUEST)
        await broker.coordinator.ensure_topic()
        error = await broker.transactions.add(
            request.transactional_id,
            request.producer_id,
            request.producer_epoch,
            [(CONSUMER_OFFSETS, broker.coordinator.partition_for(request.group_id))],
            client_version=_OLD_RULES,
        )
    except KafkaError as failure:
        error = failure.code
    return AddOffsetsToTxnResponse(error_code=_known(error, context.version))


# Ending a transaction


async def handle_end_txn(context: RequestContext, request: EndTxnRequest) -> EndTxnResponse:
    rules = _NEW_RULES if context.version >= _END_BY_NEW_RULES_FROM_VERSION else _OLD_RULES
    try:
        if not request.transactional_id:
            raise KafkaError(ErrorCode.INVALID_REQUEST)
        response = await context.broker.transactions.end(request, client_version=rules)
    except KafkaError as failure:
        response = EndTxnResponse(error_code=failure.code, producer_id=-1, producer_epoch=-1)
    if response.error_code is ErrorCode.NONE:
        return response
    error = _known(response.error_code, context.version)
    return EndTxnResponse(error_code=error, producer_id=-1, producer_epoch=-1)


# What administrators ask


async def handle_describe_transactions(
    context: RequestContext, request: DescribeTransactionsRequest
) -> DescribeTransactionsResponse:
    found = [_describe(context, transactional_id) for transactional_id in request.transactional_ids]
    return DescribeTransactionsResponse(transaction_states=tuple(found))


def _describe(context: RequestContext, transactional_id: str) -> DescribedTransaction:
    transactions = context.broker.transactions
    try:
        if not transactional_id:
            raise KafkaError(ErrorCode.INVALID_REQUEST)
        found = transactions.runtime.look(
            transactions.partition_for(transactional_id), lambda machine, _: machine.describe(transactional_id)
        )
        if found is None:
            raise KafkaError(ErrorCode.TRANSACTIONAL_ID_NOT_FOUND)
    except KafkaError as error:
        return DescribedTransaction(
            error_code=error.code, transactional_id=transactional_id, transaction_start_time_ms=0
        )
    by_topic = groupby(sorted(found.partitions), key=lambda at: at[0])
    return DescribedTransaction(
        transactional_id=transactional_id,
        transaction_state=found.state.label,
        transaction_timeout_ms=found.timeout_ms,
        transaction_start_time_ms=found.start_timestamp_ms,
        producer_id=found.producer_id,
        producer_epoch=found.producer_epoch,
        topics=tuple([TopicData(topic=topic, partitions=tuple([i for _, i in rows])) for topic, rows in by_topic]),
    )


async def handle_list_transactions(
    context: RequestContext, request: ListTransactionsRequest
) -> ListTransactionsResponse:
    unknown = [s for s in request.state_filters if s not in STATE_LABELS and s not in NEVER_LISTED]
    try:
        wanted = _filter(request)
        found = [
            ListedTransaction(
                transactional_id=transactional_id,
                producer_id=transaction.producer_id,
                transaction_state=transaction.state.label,
            )
            for machine, now in _machines(context)
            for transactional_id, transaction in machine.transactions()
            if wanted(transactional_id, transaction, now)
        ]
    except KafkaError as error:
        return ListTransactionsResponse(error_code=error.code)
    return ListTransactionsResponse(unknown_state_filters=tuple(unknown), transaction_states=tuple(found))


def _machines(context: RequestContext) -> list[tuple[TransactionMachine, Instant]]:
    """Those of all partitions. Raises: KafkaError (COORDINATOR_LOAD_IN_PROGRESS)."""
    runtime = context.broker.transactions.runtime
    return [runtime.look(p, lambda machine, now: (machine, now)) for p in runtime.partitions()]


def _filter(request: ListTransactionsRequest) -> Callable[[str, Transaction, Instant], bool]:
    """Whether a transaction is asked for. Raises: KafkaError (INVALID_REGULAR_EXPRESSION)."""
    states: Collection[str] = frozenset(request.state_filters)
    producer_ids = frozenset(request.producer_id_filters)
    matches = _pattern(request.transactional_id_pattern)

    def wanted(transactional_id: str, transaction: Transaction, now: Instant) -> bool:
        if producer_ids and transaction.producer_id not in producer_ids:
            return False
        if states and transaction.state.label not in states:
            return False
        age_ms = now.wall_ms - transaction.start_timestamp_ms
        if request.duration_filter >= 0 and age_ms <= request.duration_filter:
            return False
        return matches(transactional_id)

    return wanted


def _pattern(pattern: str | None) -> Callable[[str], bool]:
    """Raises: KafkaError (INVALID_REGULAR_EXPRESSION)."""
    if not pattern:
        return lambda transactional_id: True
    try:
        expression = compiled(pattern)
    except InvalidExpression as error:
        raise KafkaError(ErrorCode.INVALID_REGULAR_EXPRESSION, str(error)) from None
    return lambda transactional_id: expression.fullmatch(transactional_id) is not None


HANDLERS: Final = {
    ApiKey.ADD_PARTITIONS_TO_TXN: handle_add_partitions_to_txn,
    ApiKey.ADD_OFFSETS_TO_TXN: handle_add_offsets_to_txn,
    ApiKey.END_TXN: handle_end_txn,
    ApiKey.DESCRIBE_TRANSACTIONS: handle_describe_transactions,
    ApiKey.LIST_TRANSACTIONS: handle_list_transactions,
}
