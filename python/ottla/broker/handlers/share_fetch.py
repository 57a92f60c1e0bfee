"""ShareFetch and ShareAcknowledge (KIP-932).

Source: Kafka's `KafkaApis` (handleShareFetchRequest, handleShareAcknowledgeRequest).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ottla.broker.context import RequestContext
from ottla.broker.handlers.share_group import is_share_enabled
from ottla.broker.share_fetches import Acknowledgements, Fetched, Wanted
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages import share_acknowledge, share_fetch
from ottla.protocol.messages.share_acknowledge import ShareAcknowledgeRequest, ShareAcknowledgeResponse
from ottla.protocol.messages.share_fetch import ShareFetchRequest, ShareFetchResponse
from ottla.protocol.versions import ApiKey
from ottla.share.acknowledgement import Acknowledgement
from ottla.share.sessions import FINAL_EPOCH, INITIAL_EPOCH, SessionKey, TopicPartition

UNKNOWN_PARTITIONS_MAX: Final = 1_000
"""So many partitions may be in a session that are not in the cluster."""
BATCH_OPTIMIZED, RECORD_LIMIT = 0, 1
"""How strict `max_records` is (KIP-1206)."""


async def handle_share_fetch(context: RequestContext, request: ShareFetchRequest) -> ShareFetchResponse:
    fetches = context.broker.share_fetches
    try:
        key = _session_key(context, request)
        wanted = _wanted(request)
        acknowledged = _acknowledgements(request.topics)
        session = fetches.sessions.fetch(
            key,
            request.share_session_epoch,
            connection_id=context.connection.session_id,
            wanted=_partitions(request.topics),
            forgotten=((topic.topic_id, i) for topic in request.forgotten_topics_data for i in topic.partitions),
            acknowledges=bool(acknowledged),
            partitions_max=UNKNOWN_PARTITIONS_MAX + context.broker.share_partitions.partition_count,
        )
    except KafkaError as error:
        return ShareFetchResponse(error_code=error.code, error_message=error.message)
    begun = fetches.begin_acknowledging(key, acknowledged, may_renew=request.is_renew_ack)
    found: dict[TopicPartition, Fetched] = {}
    if request.share_session_epoch == FINAL_EPOCH:
        await fetches.finish_acknowledging(begun)
        await fetches.end_session(key, session)
    elif wanted.max_bytes > 0 and wanted.max_records != 0:
        if request.share_session_epoch == INITIAL_EPOCH:
            found = {at: Fetched() for at in session.partitions}
        if wanted.max_records > 0:
            found |= await fetches.fetch(key, session, wanted)
    for at, error_of in (await fetches.finish_acknowledging(begun)).items():
        found.setdefault(at, Fetched()).acknowledge_error = error_of
    return ShareFetchResponse(
        acquisition_lock_timeout_ms=fetches.settings_of(key.group_id).partitions.record_lock_duration_ms,
        responses=tuple(
            share_fetch.ShareFetchableTopicResponse(topic_id=topic_id, partitions=tuple(rows))
            for topic_id, rows in _by_topic((at, _answer(at, one)) for at, one in found.items())
        ),
    )


async def handle_share_acknowledge(
    context: RequestContext, request: ShareAcknowledgeRequest
) -> ShareAcknowledgeResponse:
    fetches = context.broker.share_fetches
    try:
        key = _session_key(context, request)
        session = fetches.sessions.acknowledge(key, request.share_session_epoch)
    except KafkaError as error:
        return ShareAcknowledgeResponse(error_code=error.code, error_message=error.message)
    begun = fetches.begin_acknowledging(key, _acknowledgements(request.topics), may_renew=request.is_renew_ack)
    found = await fetches.finish_acknowledging(begun)
    if request.share_session_epoch == FINAL_EPOCH:
        await fetches.end_session(key, session)
    rows = (
        (
            at,
            share_acknowledge.PartitionData(
                partition_index=at[1],
                error_code=ErrorCode.NONE if error is None else error.code,
                error_message=None if error is None else error.message,
            ),
        )
        for at, error in found.items()
    )
    return ShareAcknowledgeResponse(
        acquisition_lock_timeout_ms=fetches.settings_of(key.group_id).partitions.record_lock_duration_ms,
        responses=tuple(
            share_acknowledge.ShareAcknowledgeTopicResponse(topic_id=topic_id, partitions=tuple(of_topic))
            for topic_id, of_topic in _by_topic(rows)
        ),
    )


def _session_key(context: RequestContext, request: Any) -> SessionKey:
    """Whose request it is. Raises: KafkaError."""
    if not is_share_enabled(context):
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION)
    if not request.group_id or not request.member_id:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "There must be a group id and a member id.")
    return SessionKey(request.group_id, request.member_id)


def _wanted(request: ShareFetchRequest) -> Wanted:
    """Raises: KafkaError (INVALID_REQUEST)."""
    if request.is_renew_ack and (request.max_bytes or request.max_records or request.min_bytes or request.max_wait_ms):
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, "A fetch that renews locks brings no records: its limits must be 0."
        )
    if request.share_acquire_mode not in (BATCH_OPTIMIZED, RECORD_LIMIT):
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"There is no acquire mode {request.share_acquire_mode}.")
    if request.max_bytes < 0:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "The limit of bytes is negative.")
    return Wanted(
        max_wait_ms=request.max_wait_ms,
        min_bytes=request.min_bytes,
        max_bytes=request.max_bytes,
        max_records=request.max_records,
        batch_size=max(1, request.batch_size),
        is_limit_strict=request.share_acquire_mode == RECORD_LIMIT,
    )


def _partitions(topics: Iterable[Any]) -> list[TopicPartition]:
    return [(topic.topic_id, partition.partition_index) for topic in topics for partition in topic.partitions]


def _acknowledgements(topics: Iterable[Any]) -> Acknowledgements:
    """What is acknowledged, by partition; a partition that is named twice has both."""
    found: dict[TopicPartition, list[Acknowledgement]] = {}
    for topic in topics:
        for partition in topic.partitions:
            if partition.acknowledgement_batches:
                found.setdefault((topic.topic_id, partition.partition_index), []).extend(
                    Acknowledgement(batch.first_offset, batch.last_offset, batch.acknowledge_types)
                    for batch in partition.acknowledgement_batches
                )
    return found


def _answer(at: TopicPartition, found: Fetched) -> share_fetch.PartitionData:
    refused = found.acknowledge_error
    return share_fetch.PartitionData(
        partition_index=at[1],
        error_code=ErrorCode.NONE if found.error is None else found.error.code,
        error_message=None if found.error is None else found.error.message,
        acknowledge_error_code=ErrorCode.NONE if refused is None else refused.code,
        acknowledge_error_message=None if refused is None else refused.message,
        records=found.records,
        acquired_records=tuple(
            share_fetch.AcquiredRecords(
                first_offset=one.first_offset, last_offset=one.last_offset, delivery_count=one.delivery_count
            )
            for one in found.acquired
        ),
    )


def _by_topic(rows: Iterable[tuple[TopicPartition, Any]]) -> Iterable[tuple[Any, list[Any]]]:
    found: dict[Any, list[Any]] = {}
    for (topic_id, _), row in rows:
        found.setdefault(topic_id, []).append(row)
    return found.items()


HANDLERS: Final = {
    ApiKey.SHARE_FETCH: handle_share_fetch,
    ApiKey.SHARE_ACKNOWLEDGE: handle_share_acknowledge,
}
