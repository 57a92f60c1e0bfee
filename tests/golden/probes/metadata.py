"""Metadata, DescribeTopicPartitions, DescribeCluster and ApiVersions."""

from __future__ import annotations

import time
import uuid
from typing import Any

from ottla.errors import ErrorCode
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.describe_cluster import DescribeClusterRequest
from ottla.protocol.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsRequestCursor,
    TopicRequest,
)
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.versions import API_VERSIONS, ApiKey
from tests.golden.lab import Answer, Lab, probe, versions

BAD_NAMES = ["", ".", "..", "a b", "ä", "a/b", "x" * 250, "__cluster_metadata"]


def metadata(lab: Lab, *names: str, version: int, create: bool = False, **fields: Any) -> Answer:
    topics = tuple(MetadataRequestTopic(name=name) for name in names)
    request = MetadataRequest(topics=topics, allow_auto_topic_creation=create, **fields)
    return lab.ask(ApiKey.METADATA, request, version=version)


@probe(each=versions(ApiKey.METADATA))
def known_topic(lab: Lab, version: int) -> Answer:
    return metadata(lab, lab.topic("known", partitions=2), version=version)


@probe(each=versions(ApiKey.METADATA, least=4))
def unknown_topic(lab: Lab, version: int) -> Answer:
    return metadata(lab, lab.name("absent"), version=version)


@probe(each=versions(ApiKey.METADATA))
def all_or_none(lab: Lab, version: int) -> Answer:
    """Null asks for all from version 1 on, an empty list for none; in version 0 an empty list asks for all."""
    topic = lab.topic("known", partitions=2)
    told = {}
    for kind, topics in (("null", None), ("empty", ())):
        if topics is None and version == 0:
            continue
        answer = lab.call(ApiKey.METADATA, MetadataRequest(topics=topics), version=version)
        own = tuple(entry for entry in answer.topics if entry.name == topic)
        told[kind] = {"own": own, "any": bool(answer.topics), "brokers": len(answer.brokers)}
    return told


@probe(each=BAD_NAMES)
def illegal_name(lab: Lab, name: str) -> Answer:
    return [metadata(lab, name, version=version, create=create) for version in (1, 12) for create in (False, True)]


@probe()
def several_topics(lab: Lab) -> Answer:
    topic = lab.topic("known", partitions=2)
    return [metadata(lab, topic, lab.name("absent"), topic, version=12), metadata(lab, "a b", topic, version=12)]


@probe(each=[10, 11, 12, 13])
def by_id(lab: Lab, version: int) -> Answer:
    topic = lab.topic("known", partitions=2)
    unknown = uuid.UUID(int=0x55 << 64)
    entries = {
        "id": MetadataRequestTopic(topic_id=lab.topic_id(topic)),
        "unknown id": MetadataRequestTopic(topic_id=unknown),
        "name and unknown id": MetadataRequestTopic(name=topic, topic_id=unknown),
        "no name, no id": MetadataRequestTopic(),
    }
    if version < 12:  # a name could not be null, and an id was refused
        entries = {"name and id": MetadataRequestTopic(name=topic, topic_id=lab.topic_id(topic))}
    told = {}
    for kind, entry in entries.items():
        request = MetadataRequest(topics=(entry,), allow_auto_topic_creation=False)
        told[kind] = lab.ask(ApiKey.METADATA, request, version=version)
    return told


@probe(each=[8, 10, 11, 12])
def authorized_operations(lab: Lab, version: int) -> Answer:
    topic = lab.topic("known", partitions=2)
    cluster = {"include_cluster_authorized_operations": True} if version <= 10 else {}
    return metadata(lab, topic, version=version, include_topic_authorized_operations=True, **cluster)


@probe(each=[0, 1, 3, 4, 9, 12])
def auto_creation(lab: Lab, version: int) -> Answer:
    """The first answer may come before the topic is there; a later one has it."""
    name = lab.name(f"auto-{version}")
    for _ in range(200):
        request = MetadataRequest(topics=(MetadataRequestTopic(name=name),), allow_auto_topic_creation=True)
        answer = lab.call(ApiKey.METADATA, request, version=version)
        topic = answer.topics[0]
        if topic.error_code is ErrorCode.NONE:
            return topic
        assert topic.error_code in {ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.LEADER_NOT_AVAILABLE}
        time.sleep(0.05)
    return "never"


@probe()
def internal_topic(lab: Lab) -> Answer:
    return metadata(lab, "__consumer_offsets", version=12)["topics"][0]["is_internal"]


def describe(lab: Lab, *names: str, limit: int = 2000, cursor: tuple[str, int] | None = None) -> Answer:
    request = DescribeTopicPartitionsRequest(
        topics=tuple(TopicRequest(name=name) for name in names),
        response_partition_limit=limit,
        cursor=cursor and DescribeTopicPartitionsRequestCursor(topic_name=cursor[0], partition_index=cursor[1]),
    )
    return lab.ask(ApiKey.DESCRIBE_TOPIC_PARTITIONS, request)


@probe()
def describe_topic_partitions(lab: Lab) -> Answer:
    one, two = lab.topic("page-1", partitions=3), lab.topic("page-2", partitions=3)
    return {
        "both": describe(lab, two, one),
        "absent": describe(lab, lab.name("absent"), one),
        "twice": describe(lab, one, one),
        "illegal": describe(lab, "a b"),
        "empty name": describe(lab, ""),
        "limit 2": describe(lab, one, two, limit=2),
        "limit 4": describe(lab, one, two, limit=4),
        "limit 3": describe(lab, one, two, limit=3),
        "from a cursor": describe(lab, one, two, limit=2, cursor=(one, 2)),
        "cursor at the end": describe(lab, one, two, cursor=(two, 2)),
        "cursor beyond the partitions": describe(lab, one, two, cursor=(one, 9)),
        "cursor between topics": describe(lab, one, two, cursor=(lab.name("page-11"), 0)),
        "cursor after all": describe(lab, one, cursor=("zzz", 0)),
        "cursor -1": describe(lab, one, cursor=(one, -1)),
        "limit 0": describe(lab, one, limit=0),
        "limit -1": describe(lab, one, limit=-1),
    }


@probe(each=versions(ApiKey.DESCRIBE_CLUSTER))
def describe_cluster(lab: Lab, version: int) -> Answer:
    def ask(**fields: Any) -> Answer:
        return lab.ask(ApiKey.DESCRIBE_CLUSTER, DescribeClusterRequest(**fields), version=version)

    told = {"plain": ask(), "operations": ask(include_cluster_authorized_operations=True)}
    if version >= 1:
        told |= {f"endpoint type {kind}": ask(endpoint_type=kind) for kind in (0, 2, 3, -1)}
    if version >= 2:
        told |= {"fenced too": ask(include_fenced_brokers=True)}
    return told


@probe(each=versions(ApiKey.API_VERSIONS))
def api_versions(lab: Lab, version: int) -> Answer:
    """The APIs whose range is not Kafka's. What a broker lacks altogether shows in the table of APIs."""
    request = ApiVersionsRequest(client_software_name="a", client_software_version="1")
    answer = lab.call(ApiKey.API_VERSIONS, request, version=version)
    ranges = {ApiKey(entry.api_key): (entry.min_version, entry.max_version) for entry in answer.api_keys}
    return {api.name: found for api, found in ranges.items() if found != API_VERSIONS[api]}
