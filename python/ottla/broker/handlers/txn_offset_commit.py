"""TxnOffsetCommit: the offsets' partition is made part of the transaction, or found to be, and the group decides.

Source: Kafka's `KafkaApis.handleTxnOffsetCommitRequest` and `GroupCoordinatorService.commitTransactionalOffsets`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, cast

from ottla.broker.context import RequestContext
from ottla.broker.group_coordinator import GroupCoordinator
from ottla.broker.handlers.entries import merged
from ottla.broker.transaction_verifier import (
    OFFSETS_ABORTABLE_FROM,
    OFFSETS_ADD_FROM,
    ask_coordinator,
    transaction_error,
)
from ottla.common.topics import CONSUMER_OFFSETS
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.transactional_offsets import txn_commit_error
from ottla.coordinator.shard import Producer
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestTopic,
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)
from ottla.protocol.versions import ApiKey

_LOADING_KNOWN_FROM: Final = 2
"""Version from which on clients know COORDINATOR_LOAD_IN_PROGRESS here."""


async def handle_txn_offset_commit(context: RequestContext, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse:
    accepted, refused = _sort_out(context, request)
    if not accepted.topics:
        return TxnOffsetCommitResponse(topics=merged(refused, (), _name))
    try:
        response = await _commit(context, accepted)
    except KafkaError as failure:
        code = failure.code
        if code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS and context.version < _LOADING_KNOWN_FROM:
            code = ErrorCode.COORDINATOR_NOT_AVAILABLE
        response = txn_commit_error(accepted, code)
    return TxnOffsetCommitResponse(topics=merged(refused, response.topics, _name))


def _name(topic: TxnOffsetCommitResponseTopic) -> str:
    return topic.name


def _sort_out(
    context: RequestContext, request: TxnOffsetCommitRequest
) -> tuple[TxnOffsetCommitRequest, list[TxnOffsetCommitResponseTopic]]:
    """The request without partitions that do not exist, and the answer for those."""
    image = context.broker.metadata.image
    accepted: list[TxnOffsetCommitRequestTopic] = []
    refused: list[TxnOffsetCommitResponseTopic] = []
    for asked in request.topics:
        topic = image.topic(asked.name)
        existing = {} if topic is None else topic.partitions
        unknown = [p.partition_index for p in asked.partitions if p.partition_index not in existing]
        if unknown or topic is None:
            error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            partitions = [TxnOffsetCommitResponsePartition(partition_index=p, error_code=error) for p in unknown]
            refused.append(TxnOffsetCommitResponseTopic(name=asked.name, partitions=tuple(partitions)))
        known = tuple(p for p in asked.partitions if p.partition_index in existing)
        if known:
            accepted.append(replace(asked, partitions=known))
    return replace(request, topics=tuple(accepted)), refused


async def _commit(context: RequestContext, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse:
    """Raises: KafkaError."""
    if not request.group_id:
        raise KafkaError(ErrorCode.INVALID_GROUP_ID)
    coordinator = cast("GroupCoordinator", context.broker.coordinator)
    partition = coordinator.partition_for(request.group_id)
    producer = await _verified(context, request, coordinator, partition)

    def caller(token: int) -> Caller:
        return Caller(
            token=token,
            api_version=context.version,
            client_id=context.client_id or "",
            client_host=f"/{context.connection.peer[0]}",
            unique_id="",
        )

    answered = await coordinator.runtime.ask(
        partition,
        lambda machine, token, now: machine.transactional_offsets.commit(request, caller(token), producer, now),
    )
    return cast(TxnOffsetCommitResponse, answered)


async def _verified(
    context: RequestContext, request: TxnOffsetCommitRequest, coordinator: GroupCoordinator, partition: int
) -> Producer:
    """The request's producer, once its transaction is known to include the partition. Raises: KafkaError."""
    producer_id, epoch = request.producer_id, request.producer_epoch
    adds = context.version >= OFFSETS_ADD_FROM
    config = context.broker.metadata.broker_config
    if not adds and not config.boolean("transaction.partition.verification.enable"):
        return Producer(producer_id, epoch)
    guard = coordinator.begin_verification(partition, producer_id, epoch, supports_epoch_bump=adds)
    if guard:
        at = (CONSUMER_OFFSETS, partition)
        answers = await ask_coordinator(
            context.broker.transactions.add_partitions,
            request.transactional_id,
            producer_id,
            epoch,
            [at],
            adds=adds,
            config=config,
        )
        error = transaction_error(answers[at], knows_abortable=context.version >= OFFSETS_ABORTABLE_FROM)
        if error is not ErrorCode.NONE:
            raise KafkaError(error)
    return Producer(producer_id, epoch, guard)


HANDLERS: Final = {ApiKey.TXN_OFFSET_COMMIT: handle_txn_offset_commit}
