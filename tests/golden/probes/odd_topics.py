"""Each field wrong in turn: topics, partitions, their description and their configuration."""

from __future__ import annotations

import uuid
from typing import Any

from ottla.protocol.messages.alter_configs import AlterableConfig, AlterConfigsRequest, AlterConfigsResource
from ottla.protocol.messages.create_partitions import (
    CreatePartitionsAssignment,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
)
from ottla.protocol.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
)
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from ottla.protocol.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from ottla.protocol.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsRequestCursor,
    TopicRequest,
)
from ottla.protocol.messages.incremental_alter_configs import AlterableConfig as Change
from ottla.protocol.messages.incremental_alter_configs import AlterConfigsResource as ChangedResource
from ottla.protocol.messages.incremental_alter_configs import IncrementalAlterConfigsRequest
from ottla.protocol.messages.list_config_resources import ListConfigResourcesRequest
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe, versions
from tests.golden.odd import odd
from tests.golden.probes.topics import node_id
from tests.golden.wire import CLOSED

TOPIC_RESOURCE = 2
SOON = ("timeout_ms 1", "timeout_ms 7")
"""Whether that is enough is a matter of luck."""


def without_configs(_lab: Lab, answer: Answer) -> Answer:
    """What CreateTopics tells of configs has a probe of its own."""
    if answer != CLOSED:
        for topic in answer.get("topics", ()):
            topic.pop("configs", None)
    return answer


@odd(ApiKey.CREATE_TOPICS, reduce=without_configs, leave_out=[*SOON, "topics / num_partitions greatest"])
def new_topic(_lab: Lab, name: str) -> Any:
    config = CreatableTopicConfig(name="retention.ms", value="1000")
    topic = CreatableTopic(name=name, num_partitions=1, replication_factor=1, configs=(config,))
    return CreateTopicsRequest(topics=(topic,), timeout_ms=10_000)


@odd(ApiKey.CREATE_TOPICS, stem="-assigned", reduce=without_configs, leave_out=SOON)
def new_topic_with_assignments(lab: Lab, name: str) -> Any:
    assignment = CreatableReplicaAssignment(partition_index=0, broker_ids=(node_id(lab),))
    topic = CreatableTopic(name=name, num_partitions=-1, replication_factor=-1, assignments=(assignment,))
    return CreateTopicsRequest(topics=(topic,), timeout_ms=10_000, validate_only=True)


@odd(ApiKey.DELETE_TOPICS, most=5, leave_out=SOON)
def topic_to_delete(lab: Lab, name: str) -> Any:
    lab.topic(name.removesuffix(f"-{lab.run}"))
    return DeleteTopicsRequest(topic_names=(name,), timeout_ms=10_000)


@odd(ApiKey.DELETE_TOPICS, stem="-by-id", least=6, leave_out=SOON)
def topic_to_delete_by_id(lab: Lab, name: str) -> Any:
    lab.topic(name.removesuffix(f"-{lab.run}"))
    return DeleteTopicsRequest(topics=(DeleteTopicState(topic_id=lab.topic_id(name)),), timeout_ms=10_000)


@odd(ApiKey.DELETE_TOPICS, stem="-by-name", least=6, leave_out=SOON)
def topic_to_delete_by_name(lab: Lab, name: str) -> Any:
    lab.topic(name.removesuffix(f"-{lab.run}"))
    return DeleteTopicsRequest(topics=(DeleteTopicState(name=name),), timeout_ms=10_000)


@odd(ApiKey.CREATE_PARTITIONS, leave_out=[*SOON, "topics / count greatest"])
def grown_topic(lab: Lab, _name: str) -> Any:
    entry = CreatePartitionsTopic(
        name=lab.topic("odd-grown", partitions=2),
        count=3,
        assignments=(CreatePartitionsAssignment(broker_ids=(node_id(lab),)),),
    )
    return CreatePartitionsRequest(topics=(entry,), timeout_ms=10_000, validate_only=True)


@probe(each=versions(ApiKey.CREATE_PARTITIONS))
def several_faults_in_one_entry(lab: Lab, version: int) -> Answer:
    """Which one is named."""
    topic, own = lab.topic("odd-grown", partitions=2), node_id(lab)

    def ask(name: str, count: int, *replicas: tuple[int, ...], assigned: bool = True) -> Answer:
        assignments = tuple(CreatePartitionsAssignment(broker_ids=brokers) for brokers in replicas)
        entry = CreatePartitionsTopic(name=name, count=count, assignments=assignments if assigned else None)
        request = CreatePartitionsRequest(topics=(entry,), timeout_ms=10_000, validate_only=True)
        return lab.ask(ApiKey.CREATE_PARTITIONS, request, version=version)

    return {
        "absent and fewer": ask(lab.name("absent"), 0, assigned=False),
        "illegal and fewer": ask("a b", 0, assigned=False),
        "fewer and unknown broker": ask(topic, 1, (own + 5,)),
        "same and assigned": ask(topic, 2, (own,)),
        "same and nothing assigned": ask(topic, 2),
        "one more, nothing assigned": ask(topic, 3),
        "too few, unknown broker": ask(topic, 5, (own + 5,)),
        "empty and unknown broker": ask(topic, 4, (), (own + 5,)),
        "twice and unknown broker": ask(topic, 4, (own + 5, own + 5), (own,)),
        "internal": ask("__consumer_offsets", 51, assigned=False),
        "too many": ask(topic, 20_000, assigned=False),
        "far too many": ask(topic, 2147483647, assigned=False),
    }


def known_topic(lab: Lab) -> str:
    """One of several."""
    for number in range(3):
        lab.topic(f"odd-other-{number}")
    return lab.topic("odd-known", partitions=2)


def own_topics(lab: Lab, answer: Answer) -> Answer:
    """Null asks for all topics there are."""
    if answer != CLOSED and len(answer.get("topics", ())) > 3:
        answer["topics"] = "many"
    return answer


@odd(ApiKey.METADATA, reduce=own_topics)
def metadata(lab: Lab, _name: str) -> Any:
    topic = MetadataRequestTopic(name=known_topic(lab))
    return MetadataRequest(topics=(topic,), allow_auto_topic_creation=False)


@odd(ApiKey.METADATA, stem="-by-id", least=10, reduce=own_topics)
def metadata_by_id(lab: Lab, _name: str) -> Any:
    topic = MetadataRequestTopic(name=None, topic_id=lab.topic_id(known_topic(lab)))
    return MetadataRequest(topics=(topic,), allow_auto_topic_creation=False)


@odd(ApiKey.METADATA, stem="-creating", least=4, reduce=own_topics, leave_out=["as it is"])
def metadata_that_creates(lab: Lab, _name: str) -> Any:
    topic = MetadataRequestTopic(name=known_topic(lab))
    return MetadataRequest(topics=(topic,), allow_auto_topic_creation=True)


@odd(ApiKey.DESCRIBE_TOPIC_PARTITIONS, leave_out=["topics none"])
def described_partitions(lab: Lab, _name: str) -> Any:
    topic = lab.topic("odd-described", partitions=3)
    cursor = DescribeTopicPartitionsRequestCursor(topic_name=topic, partition_index=1)
    return DescribeTopicPartitionsRequest(
        topics=(TopicRequest(name=topic),), response_partition_limit=100, cursor=cursor
    )


@probe()
def described_partitions_of_several_topics(lab: Lab) -> Answer:
    """Which of several faults is named, and where a page begins."""
    first, second = lab.topic("odd-described", partitions=3), lab.topic("odd-described-too", partitions=2)

    def ask(*names: str, cursor: tuple[str, int] | None = None, limit: int = 100) -> Answer:
        request = DescribeTopicPartitionsRequest(
            topics=tuple(TopicRequest(name=name) for name in names),
            response_partition_limit=limit,
            cursor=cursor and DescribeTopicPartitionsRequestCursor(topic_name=cursor[0], partition_index=cursor[1]),
        )
        return lab.ask(ApiKey.DESCRIBE_TOPIC_PARTITIONS, request)

    absent = lab.name("odd-describex")
    return {
        "empty name and another": ask("", first),
        "empty name and a bad cursor": ask("", first, cursor=(first, -1)),
        "illegal and another": ask("a b", first),
        "illegal, limit 1": ask("a b", absent, first, limit=1),
        "absent ones count": ask(lab.name("a"), lab.name("b"), lab.name("c"), limit=2),
        "cursor at an absent one": ask(first, absent, second, cursor=(absent, 0)),
        "cursor inside an absent one": ask(first, absent, second, cursor=(absent, 4)),
        "cursor at an unasked one": ask(second, first, cursor=(absent, 0)),
        "cursor at an unasked one, inside": ask(second, first, cursor=(absent, 1)),
        "cursor at an illegal one": ask("a b", first, cursor=("a b", 0)),
        "cursor with an empty name": ask(first, cursor=("", 0)),
        "cursor -2": ask(first, cursor=(first, -2)),
        "cursor beyond, limit 1": ask(first, second, cursor=(first, 3), limit=1),
        "cursor of the last, limit 1": ask(first, second, cursor=(first, 2), limit=1),
        "least limit": ask(first, limit=-2147483648),
        "names in disorder": ask(second, first, second, limit=4),
    }


def without_recorded_settings(_lab: Lab, answer: Answer) -> Answer:
    """Where `min.insync.replicas` comes from depends on the configuration of the broker."""
    for result in answer.get("results", ()) if isinstance(answer, dict) else ():
        if "configs" in result:
            result["configs"] = [config for config in result["configs"] if config["name"] != "min.insync.replicas"]
    return answer


@odd(ApiKey.DESCRIBE_CONFIGS, reduce=without_recorded_settings)
def described_configs(lab: Lab, _name: str) -> Any:
    entry = DescribeConfigsResource(
        resource_type=TOPIC_RESOURCE, resource_name=lab.topic("odd-known"), configuration_keys=("retention.ms",)
    )
    return DescribeConfigsRequest(resources=(entry,))


@odd(ApiKey.ALTER_CONFIGS, leave_out=["resources twice"])  # Kafka never answers that
def altered_configs(lab: Lab, _name: str) -> Any:
    entry = AlterConfigsResource(
        resource_type=TOPIC_RESOURCE,
        resource_name=lab.topic("odd-altered"),
        configs=(AlterableConfig(name="retention.ms", value="1000"),),
    )
    return AlterConfigsRequest(resources=(entry,), validate_only=True)


@odd(ApiKey.INCREMENTAL_ALTER_CONFIGS)
def changed_configs(lab: Lab, _name: str) -> Any:
    entry = ChangedResource(
        resource_type=TOPIC_RESOURCE,
        resource_name=lab.topic("odd-altered"),
        configs=(Change(name="retention.ms", config_operation=0, value="1000"),),
    )
    return IncrementalAlterConfigsRequest(resources=(entry,), validate_only=True)


@probe(each=["-1", "", "a b", "1", "99"])
def resources_of_each_type(lab: Lab, name: str) -> Answer:
    """Described and changed under names that may not fit their type, all of one type twice."""
    told = {}
    for kind in (-128, 0, 1, 2, 4, 8, 16, 32, 64, 127):
        if kind == 4 and name in {"1", ""}:
            continue  # that succeeds
        wanted = DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=("x",))
        change = Change(name="no.such.key", config_operation=0, value="1")
        entry = ChangedResource(resource_type=kind, resource_name=name, configs=(change,))
        old = AlterConfigsResource(
            resource_type=kind, resource_name=name, configs=(AlterableConfig(name="no.such.key", value="1"),)
        )
        told[str(kind)] = [
            lab.ask(ApiKey.DESCRIBE_CONFIGS, DescribeConfigsRequest(resources=(wanted, wanted))),
            lab.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, IncrementalAlterConfigsRequest(resources=(entry,))),
            lab.ask(ApiKey.ALTER_CONFIGS, AlterConfigsRequest(resources=(old,))),
            lab.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, IncrementalAlterConfigsRequest(resources=(entry, entry))),
        ]
    return told


def kinds_listed(_lab: Lab, answer: Answer) -> Answer:
    """All the cluster's resources are listed."""
    if answer != CLOSED and answer.get("config_resources"):
        answer["config_resources"] = sorted({entry.get("resource_type", 0) for entry in answer["config_resources"]})
    return answer


@odd(ApiKey.LIST_CONFIG_RESOURCES, reduce=kinds_listed)
def listed_resources(lab: Lab, _name: str) -> Any:
    lab.topic("odd-known", partitions=2)
    return ListConfigResourcesRequest(resource_types=(TOPIC_RESOURCE,))


@probe()
def deletions_by_id_that_is_shared(lab: Lab) -> Answer:
    """The same topic by name and by id, with others beside it."""
    topic, other = lab.topic("odd-doomed"), lab.topic("odd-doomed-too")
    by_id = DeleteTopicState(topic_id=lab.topic_id(topic))
    unknown = DeleteTopicState(topic_id=uuid.UUID(int=0x4D << 64))

    def ask(*entries: DeleteTopicState) -> Answer:
        return lab.ask(ApiKey.DELETE_TOPICS, DeleteTopicsRequest(topics=entries, timeout_ms=10_000))

    return [
        ask(by_id, DeleteTopicState(name=topic), unknown),
        ask(unknown, unknown, DeleteTopicState(name="a b"), DeleteTopicState(name="a b")),
        ask(DeleteTopicState(name=topic), by_id, DeleteTopicState(name=other)),
        ask(DeleteTopicState(name=topic), DeleteTopicState(name=topic)),
        ask(DeleteTopicState(name="", topic_id=lab.topic_id(topic))),
    ]
