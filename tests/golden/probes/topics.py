"""CreateTopics, DeleteTopics and CreatePartitions."""

from __future__ import annotations

import uuid
from typing import Any

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
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe, versions


def create(lab: Lab, *topics: CreatableTopic, version: int = 7, **fields: Any) -> Answer:
    answer = lab.ask(ApiKey.CREATE_TOPICS, CreateTopicsRequest(topics=topics, **fields), version=version)
    for topic in answer["topics"]:
        topic.pop("configs", None)  # have a probe of their own
    return answer


def wanted(name: str, partitions: int = 1, replication_factor: int = 1, **configs: str | None) -> CreatableTopic:
    return CreatableTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=replication_factor,
        configs=tuple(CreatableTopicConfig(name=key.replace("_", "."), value=value) for key, value in configs.items()),
    )


def assigned(
    name: str, *replicas: tuple[int, ...], first: int = 0, partitions: int = -1, factor: int = -1
) -> CreatableTopic:
    assignments = tuple(
        CreatableReplicaAssignment(partition_index=first + index, broker_ids=brokers)
        for index, brokers in enumerate(replicas)
    )
    return CreatableTopic(name=name, num_partitions=partitions, replication_factor=factor, assignments=assignments)


def node_id(lab: Lab) -> int:
    found: int = lab.metadata(lab.topic("for-the-node-id")).partitions[0].leader_id
    return found


@probe(each=versions(ApiKey.CREATE_TOPICS))
def new_topic(lab: Lab, version: int) -> Answer:
    name = lab.name(f"new-{version}")
    return [
        create(lab, wanted(name), version=version, validate_only=True),
        create(lab, wanted(name), version=version),
        create(lab, wanted(name), version=version),
        create(lab, wanted(name), version=version, validate_only=True),
    ]


@probe(each=[2, 3, 4, 7])
def default_counts(lab: Lab, version: int) -> Answer:
    """-1 stands for the broker's default from version 4 on."""
    return create(lab, wanted(lab.name(f"default-{version}"), -1, -1), version=version)


@probe(each=["", ".", "..", "a b", "ä", "a/b", "x" * 249, "x" * 250, "__cluster_metadata", "a\0b"])
def names(lab: Lab, name: str) -> Answer:
    return create(lab, wanted(name), validate_only=True)


@probe()
def names_that_collide(lab: Lab) -> Answer:
    stem = lab.name("collide")
    return [
        create(lab, wanted(stem + ".a")),
        create(lab, wanted(stem + "_a")),
        create(lab, wanted(stem + ".b"), wanted(stem + "_b")),
    ]


@probe(each=[0, -1, -2, 10_001, 2147483647])
def partition_counts(lab: Lab, count: int) -> Answer:
    return create(lab, wanted(lab.name("count"), count), validate_only=True)


@probe(each=[0, -1, -2, 2, 32767])
def replication_factors(lab: Lab, factor: int) -> Answer:
    return create(lab, wanted(lab.name("factor"), 1, factor), validate_only=True)


@probe()
def same_name_twice(lab: Lab) -> Answer:
    name = lab.name("twice")
    return [
        create(lab, wanted(name), wanted(name), wanted(name + "-other")),
        create(lab, wanted(name), validate_only=True),
    ]


@probe()
def manual_assignment(lab: Lab) -> Answer:
    own = node_id(lab)

    def ask(*replicas: tuple[int, ...], **fields: int) -> Answer:
        return create(lab, assigned(lab.name("manual"), *replicas, **fields), validate_only=True)

    return {
        "good": ask((own,), (own,)),
        "with a count": ask((own,), partitions=1),
        "with a factor": ask((own,), factor=1),
        "with both": ask((own,), partitions=1, factor=1),
        "from 1": ask((own,), first=1),
        "unknown broker": ask((own + 7,)),
        "broker twice": ask((own, own)),
        "nobody": ask(()),
        "different factors": ask((own,), (own, own + 1)),
        "negative broker": ask((-1,)),
    }


@probe()
def manual_assignment_of_one_partition_twice(lab: Lab) -> Answer:
    entry = CreatableReplicaAssignment(partition_index=0, broker_ids=(node_id(lab),))
    topic = CreatableTopic(name=lab.name("m"), num_partitions=-1, replication_factor=-1, assignments=(entry, entry))
    return create(lab, topic, validate_only=True)


CONFIGS: list[tuple[str, str | None]] = [
    ("cleanup.policy", "compact"),
    ("cleanup.policy", "compact,delete"),
    ("cleanup.policy", " delete , compact "),
    ("cleanup.policy", ""),
    ("cleanup.policy", "erase"),
    ("cleanup.policy", "delete,delete"),
    ("compression.type", "zstd"),
    ("compression.type", "ZSTD"),
    ("compression.type", "brotli"),
    ("compression.gzip.level", "0"),
    ("compression.gzip.level", "9"),
    ("compression.gzip.level", "10"),
    ("compression.lz4.level", "17"),
    ("compression.lz4.level", "18"),
    ("compression.zstd.level", "22"),
    ("compression.zstd.level", "23"),
    ("segment.bytes", "1048576"),
    ("segment.bytes", "1048575"),
    ("segment.bytes", "2147483648"),
    ("segment.bytes", "1e6"),
    ("segment.bytes", " 1048576 "),
    ("segment.bytes", ""),
    ("segment.bytes", None),
    ("segment.ms", "0"),
    ("segment.ms", "1"),
    ("segment.jitter.ms", "-1"),
    ("segment.index.bytes", "3"),
    ("segment.index.bytes", "4"),
    ("retention.ms", "-2"),
    ("retention.ms", "9223372036854775807"),
    ("retention.bytes", "-5"),
    ("max.message.bytes", "-1"),
    ("max.message.bytes", "0"),
    ("index.interval.bytes", "-1"),
    ("file.delete.delay.ms", "-1"),
    ("delete.retention.ms", "-1"),
    ("min.compaction.lag.ms", "-1"),
    ("max.compaction.lag.ms", "0"),
    ("min.cleanable.dirty.ratio", "1.01"),
    ("min.cleanable.dirty.ratio", "1"),
    ("min.cleanable.dirty.ratio", "-0.1"),
    ("min.insync.replicas", "0"),
    ("min.insync.replicas", "5"),
    ("flush.messages", "0"),
    ("flush.ms", "-1"),
    ("message.timestamp.type", "createtime"),
    ("message.timestamp.type", "CreateTime"),
    ("message.timestamp.before.max.ms", "-1"),
    ("message.timestamp.after.max.ms", "0"),
    ("message.timestamp.difference.max.ms", "1000"),
    ("message.format.version", "2.8"),
    ("message.downconversion.enable", "true"),
    ("unclean.leader.election.enable", "True"),
    ("unclean.leader.election.enable", "yes"),
    ("preallocate", "true"),
    ("remote.storage.enable", "true"),
    ("remote.storage.enable", "false"),
    ("local.retention.ms", "-3"),
    ("local.retention.ms", "1000"),
    ("leader.replication.throttled.replicas", "*"),
    ("leader.replication.throttled.replicas", "0:1,1:1"),
    ("leader.replication.throttled.replicas", "x"),
    ("no.such.config", "1"),
    ("", "1"),
]


@probe(each=range(len(CONFIGS)))
def config(lab: Lab, number: int) -> Answer:
    key, value = CONFIGS[number]
    topic = CreatableTopic(
        name=lab.name("config"),
        num_partitions=1,
        replication_factor=1,
        configs=(CreatableTopicConfig(name=key, value=value),),
    )
    answer = create(lab, topic, validate_only=True)["topics"][0]
    return [f"{key}={value}", answer.get("error_code", "NONE")]


@probe()
def configs_that_exclude_each_other(lab: Lab) -> Answer:
    return [
        create(lab, wanted(lab.name("lag"), min_compaction_lag_ms="10", max_compaction_lag_ms="5"), validate_only=True),
        create(lab, wanted(lab.name("local"), retention_ms="10", local_retention_ms="50"), validate_only=True),
        create(lab, wanted(lab.name("size"), segment_bytes="1048576", max_message_bytes="9000000"), validate_only=True),
    ]


@probe()
def config_given_twice(lab: Lab) -> Answer:
    entries = tuple(CreatableTopicConfig(name="retention.ms", value=value) for value in ("1000", "2000"))
    topic = CreatableTopic(name=lab.name("twice-config"), num_partitions=1, replication_factor=1, configs=entries)
    return create(lab, topic, validate_only=True)


@probe(each=[5, 7])
def configs_in_the_answer(lab: Lab, version: int) -> Answer:
    topic = wanted(lab.name(f"with-configs-{version}"), retention_ms="1000", cleanup_policy="compact")
    answer = lab.ask(ApiKey.CREATE_TOPICS, CreateTopicsRequest(topics=(topic,)), version=version)
    configs = answer["topics"][0]["configs"]
    # Its source depends on the configuration of the broker.
    answer["topics"][0]["configs"] = [config for config in configs if config["name"] != "min.insync.replicas"]
    return answer


def delete(lab: Lab, *names: str, version: int) -> Answer:
    if version >= 6:
        request = DeleteTopicsRequest(topics=tuple(DeleteTopicState(name=name) for name in names), timeout_ms=5000)
    else:
        request = DeleteTopicsRequest(topic_names=names, timeout_ms=5000)
    return lab.ask(ApiKey.DELETE_TOPICS, request, version=version)


@probe(each=versions(ApiKey.DELETE_TOPICS))
def deletion(lab: Lab, version: int) -> Answer:
    topic = lab.topic(f"doomed-{version}")
    return {
        "absent": delete(lab, lab.name("absent"), version=version),
        "illegal": delete(lab, "a b", version=version),
        "twice": delete(lab, topic, topic, version=version),
        "good": delete(lab, topic, lab.name("absent"), version=version),
        "gone": delete(lab, topic, version=version),
        "nothing": delete(lab, version=version),
        "metadata log": delete(lab, "__cluster_metadata", version=version),
    }


@probe()
def deletion_by_id(lab: Lab) -> Answer:
    topic, other = lab.topic("doomed-by-id"), lab.topic("doomed-other")
    topic_id, other_id = lab.topic_id(topic), lab.topic_id(other)

    def ask(*entries: DeleteTopicState) -> Answer:
        return lab.ask(ApiKey.DELETE_TOPICS, DeleteTopicsRequest(topics=entries, timeout_ms=5000))

    return {
        "unknown": ask(DeleteTopicState(topic_id=uuid.UUID(int=0x44 << 64))),
        "neither": ask(DeleteTopicState()),
        "both": ask(DeleteTopicState(name=topic, topic_id=topic_id)),
        "id and name": ask(DeleteTopicState(topic_id=topic_id), DeleteTopicState(name=topic)),
        "id twice": ask(DeleteTopicState(topic_id=topic_id), DeleteTopicState(topic_id=topic_id)),
        "good": ask(DeleteTopicState(topic_id=topic_id), DeleteTopicState(topic_id=other_id)),
        "gone": ask(DeleteTopicState(topic_id=topic_id)),
    }


@probe()
def created_again(lab: Lab) -> Answer:
    """A topic of the same name has another id and begins empty."""
    topic = lab.topic("again")
    before = lab.topic_id(topic)
    delete(lab, topic, version=6)
    lab.topic("again")
    return {"same id": lab.topic_id(topic) == before, "end": lab.end_offset(topic)}


@probe(each=versions(ApiKey.CREATE_PARTITIONS))
def more_partitions(lab: Lab, version: int) -> Answer:
    topic = lab.topic(f"grow-{version}", partitions=2)

    def grow(count: int, *replicas: tuple[int, ...], name: str = topic, validate_only: bool = False) -> Answer:
        assignments = tuple(CreatePartitionsAssignment(broker_ids=brokers) for brokers in replicas) or None
        entry = CreatePartitionsTopic(name=name, count=count, assignments=assignments)
        request = CreatePartitionsRequest(topics=(entry,), timeout_ms=5000, validate_only=validate_only)
        return lab.ask(ApiKey.CREATE_PARTITIONS, request, version=version)

    own = node_id(lab)
    told = {
        "fewer": grow(1),
        "same": grow(2),
        "zero": grow(0),
        "negative": grow(-1),
        "absent": grow(3, name=lab.name("absent")),
        "assignment too short": grow(4, (own,)),
        "assignment too long": grow(3, (own,), (own,)),
        "unknown broker": grow(3, (own + 5,)),
        "broker twice": grow(3, (own, own)),
        "empty assignment": grow(3, ()),
        "validate": grow(3, validate_only=True),
        "good": grow(3),
        "assigned": grow(4, (own,)),
    }
    lab.wait_for_topic(topic)
    return told | {"partitions": len(lab.metadata(topic).partitions)}


@probe()
def more_partitions_of_one_topic_twice(lab: Lab) -> Answer:
    entry = CreatePartitionsTopic(name=lab.topic("grow-twice"), count=2, assignments=None)
    return lab.ask(ApiKey.CREATE_PARTITIONS, CreatePartitionsRequest(topics=(entry, entry), timeout_ms=5000))
