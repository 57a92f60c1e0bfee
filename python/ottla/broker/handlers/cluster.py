"""Metadata and DescribeCluster: who is there and who leads what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ottla.broker.context import RequestContext
from ottla.broker.event_log import EventLog
from ottla.common.topics import is_internal, is_valid_name
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import PartitionRegistration, TopicImage
from ottla.protocol.messages.create_topics import CreatableTopic, CreateTopicsRequest, CreateTopicsResponse
from ottla.protocol.messages.describe_cluster import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)
from ottla.protocol.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from ottla.protocol.versions import ApiKey

log = EventLog("metadata")

NO_OPERATIONS: Final = -(2**31)
"""Authorised operations were not asked for."""
TOPIC_OPERATIONS: Final = sum(1 << bit for bit in (3, 4, 5, 6, 7, 8, 10, 11))
"""Everything that can be done to a topic: the answer without an authorizer (bits are Kafka's `AclOperation`)."""
CLUSTER_OPERATIONS: Final = sum(1 << bit for bit in (5, 7, 8, 9, 10, 11, 12))

ENDPOINT_BROKERS: Final = 1
ENDPOINT_CONTROLLERS: Final = 2
_IDS_FROM_VERSION: Final = 12


async def handle_metadata(context: RequestContext, request: MetadataRequest) -> MetadataResponse:
    broker = context.broker
    image = broker.metadata.image
    operations = TOPIC_OPERATIONS if request.include_topic_authorized_operations else NO_OPERATIONS
    if request.topics is None or (context.version == 0 and not request.topics):
        topics = tuple(_topic(context, topic, operations) for topic in image.topics.values())
    else:
        complaint = _complaint(context, request.topics)
        if complaint is not None:
            return _refused(request.topics, complaint)
        if request.allow_auto_topic_creation and broker.metadata.config.boolean("auto.create.topics.enable"):
            await _create_missing(context, request.topics)
        topics = tuple(_asked(context, request.topics, operations))
    host, port = context.advertised_endpoint()
    return MetadataResponse(
        brokers=(MetadataResponseBroker(node_id=broker.node_id, host=host, port=port),),
        cluster_id=broker.cluster_id,
        controller_id=broker.node_id,
        topics=topics,
        cluster_authorized_operations=CLUSTER_OPERATIONS
        if request.include_cluster_authorized_operations
        else NO_OPERATIONS,
    )


def _complaint(context: RequestContext, asked: Iterable[MetadataRequestTopic]) -> ErrorCode | None:
    """What is wrong with the request as a whole."""
    for wanted in asked:
        if context.version < _IDS_FROM_VERSION and (wanted.topic_id is not None or wanted.name is None):
            return ErrorCode.INVALID_REQUEST
        if wanted.topic_id is None and wanted.name is None:
            return ErrorCode.UNKNOWN_SERVER_ERROR  # what Apache Kafka 4.3.1 answers
    return None


def _refused(asked: Iterable[MetadataRequestTopic], code: ErrorCode) -> MetadataResponse:
    topics = tuple(MetadataResponseTopic(error_code=code, name=t.name or "", topic_id=t.topic_id) for t in asked)
    return MetadataResponse(topics=topics, error_code=code)


async def _create_missing(context: RequestContext, asked: Iterable[MetadataRequestTopic]) -> None:
    """Create topics that are asked for by name and do not exist, and wait until they are served.

    Kafka answers UNKNOWN_TOPIC_OR_PARTITION at first and has the client ask again; here the first answer has the topic.
    """
    image = context.broker.metadata.image
    names = {
        wanted.name: None
        for wanted in asked
        if wanted.topic_id is None and wanted.name and is_valid_name(wanted.name) and image.topic(wanted.name) is None
    }
    topics = tuple(
        CreatableTopic(name=name, num_partitions=-1, replication_factor=-1) for name in names if not is_internal(name)
    )
    if not topics:
        return
    try:
        created: CreateTopicsResponse = await context.broker.controller.handle(CreateTopicsRequest(topics=topics))
    except KafkaError as error:
        log.warning("topics_not_created", reason=str(error), client_id=context.client_id)
        return
    for topic in created.topics:
        if topic.error_code is ErrorCode.NONE:
            log.info("topic_created", topic=topic.name, client_id=context.client_id)
        elif topic.error_code is not ErrorCode.TOPIC_ALREADY_EXISTS:
            log.warning("topic_not_created", topic=topic.name, reason=topic.error_message or topic.error_code.name)


def _asked(
    context: RequestContext, asked: Iterable[MetadataRequestTopic], operations: int
) -> Iterable[MetadataResponseTopic]:
    image = context.broker.metadata.image
    for wanted in dict.fromkeys(asked):
        if wanted.topic_id is not None:
            topic = image.topics.get(wanted.topic_id)
            missing = MetadataResponseTopic(error_code=ErrorCode.UNKNOWN_TOPIC_ID, name=None, topic_id=wanted.topic_id)
        else:
            name = wanted.name or ""
            topic = image.topic(name)
            code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if is_valid_name(name) else ErrorCode.INVALID_TOPIC_EXCEPTION
            missing = MetadataResponseTopic(error_code=code, name=name, is_internal=is_internal(name))
        yield missing if topic is None else _topic(context, topic, operations)


def _topic(context: RequestContext, topic: TopicImage, operations: int) -> MetadataResponseTopic:
    away = context.broker.metadata.out_of_reach
    return MetadataResponseTopic(
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=is_internal(topic.name),
        partitions=tuple(
            _partition(index, partition, is_away=(topic.name, index) in away)
            for index, partition in topic.partitions.items()
        ),
        topic_authorized_operations=operations,
    )


def _partition(index: int, partition: PartitionRegistration, *, is_away: bool) -> MetadataResponsePartition:
    is_led = partition.leader >= 0 and not is_away
    return MetadataResponsePartition(
        error_code=ErrorCode.NONE if is_led else ErrorCode.LEADER_NOT_AVAILABLE,
        partition_index=index,
        leader_id=partition.leader if is_led else -1,
        leader_epoch=partition.leader_epoch,
        replica_nodes=partition.replicas,
        isr_nodes=partition.isr,
        offline_replicas=(partition.leader,) if is_away else (),
    )


async def handle_describe_cluster(context: RequestContext, request: DescribeClusterRequest) -> DescribeClusterResponse:
    broker = context.broker
    if request.endpoint_type != ENDPOINT_BROKERS:
        if request.endpoint_type == ENDPOINT_CONTROLLERS:
            return DescribeClusterResponse(
                error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE, error_message="this is a broker's listener"
            )
        return DescribeClusterResponse(
            error_code=ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
            error_message=f"endpoint type {request.endpoint_type} is unknown",
        )
    host, port = context.advertised_endpoint()
    return DescribeClusterResponse(
        endpoint_type=ENDPOINT_BROKERS,
        cluster_id=broker.cluster_id,
        controller_id=broker.node_id,
        brokers=(DescribeClusterBroker(broker_id=broker.node_id, host=host, port=port),),
        cluster_authorized_operations=CLUSTER_OPERATIONS
        if request.include_cluster_authorized_operations
        else NO_OPERATIONS,
    )


HANDLERS: Final = {ApiKey.METADATA: handle_metadata, ApiKey.DESCRIBE_CLUSTER: handle_describe_cluster}
