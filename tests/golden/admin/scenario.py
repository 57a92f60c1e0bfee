"""What both brokers are asked, in this order, beginning with an empty cluster of one broker, number 1.

`ask_kafka.py` puts it to a real Apache Kafka and keeps the answers; `tests/unit/controller/test_as_kafka.py` puts it to
our controller.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ottla.protocol.messages import alter_configs as legacy
from ottla.protocol.messages import incremental_alter_configs as incremental
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
from ottla.protocol.messages.elect_leaders import ElectLeadersRequest, TopicPartitions
from ottla.protocol.messages.list_config_resources import ListConfigResourcesRequest
from ottla.protocol.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsTopics,
)
from ottla.protocol.messages.unregister_broker import UnregisterBrokerRequest
from ottla.protocol.messages.update_features import FeatureUpdateKey, UpdateFeaturesRequest
from ottla.protocol.versions import ApiKey

SETTINGS: Final = {
    "node.id": "1",
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "default.replication.factor": "1",
    "log.retention.hours": "100",
    "log.roll.ms": "500000000",
    "log.segment.bytes": "2000000",
    "min.insync.replicas": "1",
    "num.partitions": "2",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.coordinator.rebalance.protocols": "classic,consumer,streams",
}
"""The static configuration under which the answers were given, listeners and directories left out."""

TOPIC, BROKER, LOGGER, METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3
TIMEOUT_MS: Final = 9_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One request; version None is the newest."""

    name: str
    api: ApiKey
    request: Any
    version: int | None = None


def topic(
    name: str,
    partitions: int = 1,
    factor: int = 1,
    *,
    assigned: Sequence[tuple[int, Sequence[int]]] = (),
    configs: Sequence[tuple[str, str | None]] = (),
) -> CreatableTopic:
    return CreatableTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=factor,
        assignments=tuple(
            CreatableReplicaAssignment(partition_index=index, broker_ids=tuple(replicas))
            for index, replicas in assigned
        ),
        configs=tuple(CreatableTopicConfig(name=key, value=value) for key, value in configs),
    )


def create(name: str, *topics: CreatableTopic, really: bool = False, version: int | None = None) -> Step:
    request = CreateTopicsRequest(topics=topics, timeout_ms=TIMEOUT_MS, validate_only=not really)
    return Step(name=f"create: {name}", api=ApiKey.CREATE_TOPICS, request=request, version=version)


def create_assigned(name: str, *assigned: tuple[int, Sequence[int]]) -> Step:
    return create(name, topic("t", -1, -1, assigned=assigned))


def create_with(name: str, *configs: tuple[str, str | None]) -> Step:
    return create(name, topic("t", configs=configs))


def delete(
    name: str, *states: tuple[str | None, int | None], names: Sequence[str] = (), version: int | None = None
) -> Step:
    request = DeleteTopicsRequest(
        topics=tuple(
            DeleteTopicState(name=name, topic_id=None if number is None else uuid.UUID(int=number))
            for name, number in states
        ),
        topic_names=tuple(names),
        timeout_ms=TIMEOUT_MS,
    )
    return Step(name=f"delete: {name}", api=ApiKey.DELETE_TOPICS, request=request, version=version)


def grow(name: str, *topics: tuple[str, int, Sequence[Sequence[int]] | None], really: bool = False) -> Step:
    request = CreatePartitionsRequest(
        topics=tuple(
            CreatePartitionsTopic(
                name=topic_name,
                count=count,
                assignments=None
                if assigned is None
                else tuple(CreatePartitionsAssignment(broker_ids=tuple(replicas)) for replicas in assigned),
            )
            for topic_name, count, assigned in topics
        ),
        timeout_ms=TIMEOUT_MS,
        validate_only=not really,
    )
    return Step(name=f"grow: {name}", api=ApiKey.CREATE_PARTITIONS, request=request)


Change = tuple[str, int, str | None]


def change(name: str, *resources: tuple[int, str, Sequence[Change]], really: bool = True) -> Step:
    request = incremental.IncrementalAlterConfigsRequest(
        resources=tuple(
            incremental.AlterConfigsResource(
                resource_type=kind,
                resource_name=resource,
                configs=tuple(
                    incremental.AlterableConfig(name=key, config_operation=operation, value=value)
                    for key, operation, value in changes
                ),
            )
            for kind, resource, changes in resources
        ),
        validate_only=not really,
    )
    return Step(name=f"change: {name}", api=ApiKey.INCREMENTAL_ALTER_CONFIGS, request=request)


def change_topic(name: str, *changes: Change, really: bool = True) -> Step:
    return change(name, (TOPIC, "t1", changes), really=really)


def replace(name: str, kind: int, resource: str, *values: tuple[str, str | None], really: bool = True) -> Step:
    request = legacy.AlterConfigsRequest(
        resources=(
            legacy.AlterConfigsResource(
                resource_type=kind,
                resource_name=resource,
                configs=tuple(legacy.AlterableConfig(name=key, value=value) for key, value in values),
            ),
        ),
        validate_only=not really,
    )
    return Step(name=f"replace: {name}", api=ApiKey.ALTER_CONFIGS, request=request)


def describe(
    name: str, kind: int, resource: str, *keys: str, synonyms: bool = True, version: int | None = None
) -> Step:
    request = DescribeConfigsRequest(
        resources=(
            DescribeConfigsResource(resource_type=kind, resource_name=resource, configuration_keys=keys or None),
        ),
        include_synonyms=synonyms,
    )
    return Step(name=f"describe: {name}", api=ApiKey.DESCRIBE_CONFIGS, request=request, version=version)


def elect(name: str, partitions: Sequence[tuple[str, Sequence[int]]] | None, kind: int = 0) -> Step:
    request = ElectLeadersRequest(
        topic_partitions=None
        if partitions is None
        else tuple(TopicPartitions(topic=topic_name, partitions=tuple(indexes)) for topic_name, indexes in partitions),
        timeout_ms=TIMEOUT_MS,
        election_type=kind,
    )
    return Step(name=f"elect: {name}", api=ApiKey.ELECT_LEADERS, request=request)


def features(name: str, *updates: tuple[str, int, int], version: int | None = None) -> Step:
    request = UpdateFeaturesRequest(
        feature_updates=tuple(
            FeatureUpdateKey(
                feature=feature, max_version_level=level, upgrade_type=kind, allow_downgrade=version == 0 and kind != 1
            )
            for feature, level, kind in updates
        ),
        timeout_ms=TIMEOUT_MS,
    )
    return Step(name=f"features: {name}", api=ApiKey.UPDATE_FEATURES, request=request, version=version)


def list_resources(name: str, *kinds: int, version: int | None = None) -> Step:
    request = ListConfigResourcesRequest(resource_types=kinds)
    return Step(name=f"list: {name}", api=ApiKey.LIST_CONFIG_RESOURCES, request=request, version=version)


CREATE: Final = (
    create("no partitions", topic("t", 0)),
    create("negative partitions", topic("t", -2)),
    create("defaults", topic("t", -1, -1)),
    create("no replicas", topic("t", 1, 0)),
    create("negative replicas", topic("t", 1, -2)),
    create("more replicas than brokers", topic("t", 1, 2)),
    create("neither partitions nor replicas", topic("t", 0, 0)),
    create("twice", topic("t"), topic("t")),
    create("twice beside others", topic("t", 0), topic("t"), topic("u", 1, 7), topic("v")),
    create("nothing"),
    create("empty name", topic("")),
    create("dot", topic(".")),
    create("dots", topic("..")),
    create("longest name", topic("a" * 249)),
    create("too long a name", topic("a" * 250)),
    create("space in the name", topic("x y")),
    create("metadata topic", topic("__cluster_metadata")),
    create("offsets topic", topic("__consumer_offsets")),
    create("10001 partitions", topic("t", 10_001)),
    create("colliding within the request", topic("a.b"), topic("a_b")),
    create_assigned("two partitions", (0, [1]), (1, [1])),
    create_assigned("from 1", (1, [1])),
    create_assigned("one partition twice", (0, [1]), (0, [1])),
    create_assigned("unknown broker", (0, [2])),
    create_assigned("broker twice", (0, [1, 1])),
    create_assigned("no broker", (0, [])),
    create_assigned("a gap", (0, [1]), (2, [1])),
    create_assigned("second without broker", (0, [1]), (1, [])),
    create("assigned with partitions", topic("t", 1, -1, assigned=[(0, [1])])),
    create("assigned with replicas", topic("t", -1, 1, assigned=[(0, [1])])),
    create_with("unknown key", ("foo", "1")),
    create_with("null value", ("retention.ms", None)),
    create_with("no number", ("retention.ms", "x")),
    create_with("below the minimum", ("retention.ms", "-2")),
    create_with("beyond int", ("segment.bytes", "2147483648")),
    create_with("beyond long", ("retention.ms", "9223372036854775808")),
    create_with("plus sign", ("retention.ms", "+5")),
    create_with("fraction for a long", ("retention.ms", "1.0")),
    create_with("empty list", ("cleanup.policy", "")),
    create_with("repeated entry", ("cleanup.policy", "compact,compact")),
    create_with("empty entry", ("cleanup.policy", "compact,,delete")),
    create_with("unknown policy", ("cleanup.policy", "shrink")),
    create_with("spaces in a list", ("cleanup.policy", " compact , delete ")),
    create_with("small segment", ("segment.bytes", "100")),
    create_with("tiered", ("remote.storage.enable", "true")),
    create_with("key twice", ("retention.ms", "1"), ("retention.ms", "2")),
    create_with("lags that contradict", ("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")),
    create_with("internal key", ("internal.segment.bytes", "1000")),
    create_with("throttled, wrong", ("leader.replication.throttled.replicas", "1:2,3")),
    create_with("throttled, all", ("leader.replication.throttled.replicas", "*")),
    create_with("spaces around", ("retention.ms", " 5 ")),
    create_with("capital boolean", ("preallocate", "TRUE")),
    create_with("yes", ("preallocate", "yes")),
    create_with("exponent", ("min.cleanable.dirty.ratio", "1e-1")),
    create_with("ratio above 1", ("min.cleanable.dirty.ratio", "1.5")),
    create_with("local retention", ("local.retention.ms", "5")),
    create_with("lower case enum", ("message.timestamp.type", "logappendtime")),
    create_with("no replicas in sync", ("min.insync.replicas", "0")),
    create_with("gzip level 0", ("compression.gzip.level", "0")),
    create_with("gzip level -1", ("compression.gzip.level", "-1")),
    create_with("unknown codec", ("compression.type", "brotli")),
    *(
        create(f"version {v}", topic(f"v{v}", configs=[("retention.ms", "7")]), really=True, version=v)
        for v in range(2, 8)
    ),
    create("existing", topic("v7"), really=True),
    create("existing, validated", topic("v7")),
    create("dotted", topic("x.y"), really=True),
    create("collides", topic("x_y"), really=True),
    create("t1", topic("t1"), really=True),
    create("three partitions", topic("t3", 3), really=True),
)

CHANGE: Final = (
    change_topic("set", ("retention.ms", SET, "5")),
    change("unknown topic", (TOPIC, "nope", [("retention.ms", SET, "5")])),
    change("illegal topic", (TOPIC, "no pe", [("retention.ms", SET, "5")])),
    change("all topics", (TOPIC, "", [("retention.ms", SET, "5")])),
    change_topic("unknown key", ("foo", SET, "5")),
    change_topic("set null", ("retention.ms", SET, None)),
    change_topic("no number", ("retention.ms", SET, "x")),
    change_topic("key twice", ("retention.ms", SET, "5"), ("retention.ms", SET, "6")),
    change(
        "resource twice",
        (TOPIC, "t1", [("retention.ms", SET, "5")]),
        (TOPIC, "t1", [("retention.ms", SET, "6")]),
        (TOPIC, "t3", [("retention.ms", SET, "6")]),
    ),
    change("unknown kind", (77, "t1", [("retention.ms", SET, "5")])),
    change("kind 0", (0, "t1", [("retention.ms", SET, "5")])),
    change_topic("append to a number", ("retention.ms", APPEND, "5")),
    change_topic("append", ("cleanup.policy", APPEND, "compact")),
    describe("appended", TOPIC, "t1", "cleanup.policy"),
    change_topic("append again", ("cleanup.policy", APPEND, "compact")),
    describe("appended once", TOPIC, "t1", "cleanup.policy"),
    change_topic("subtract", ("cleanup.policy", SUBTRACT, "delete")),
    describe("subtracted", TOPIC, "t1", "cleanup.policy"),
    change_topic("subtract the last", ("cleanup.policy", SUBTRACT, "compact")),
    describe("nothing left", TOPIC, "t1", "cleanup.policy"),
    change_topic("append null", ("cleanup.policy", APPEND, None)),
    change_topic("append what is not allowed", ("cleanup.policy", APPEND, "shrink")),
    change_topic("delete what is not set", ("segment.ms", DELETE, None)),
    change_topic("delete with a value", ("segment.ms", DELETE, "5")),
    change_topic("delete an unknown key", ("foo", DELETE, None)),
    change_topic("repeated entry", ("cleanup.policy", SET, "compact,compact")),
    describe("repeated entry", TOPIC, "t1", "cleanup.policy"),
    change_topic(
        "odd spellings",
        ("retention.bytes", SET, " 7 "),
        ("preallocate", SET, "TRUE"),
        ("min.cleanable.dirty.ratio", SET, "1e-1"),
    ),
    describe("odd spellings", TOPIC, "t1", "retention.bytes", "preallocate", "min.cleanable.dirty.ratio", "nokey"),
    change_topic("nothing"),
    change_topic("contradiction", ("min.compaction.lag.ms", SET, "10"), ("max.compaction.lag.ms", SET, "5")),
    change_topic("tiered", ("remote.storage.enable", SET, "true")),
    change_topic("validated only", ("retention.ms", SET, "555"), really=False),
    describe("validated only", TOPIC, "t1", "retention.ms"),
    change("one bad, one good", (TOPIC, "t1", [("foo", SET, "1")]), (TOPIC, "t3", [("segment.ms", SET, "86400000")])),
    describe("the good one", TOPIC, "t3", "segment.ms"),
    change("broker", (BROKER, "1", [("log.retention.ms", SET, "100000")])),
    describe("topics under a broker's value", TOPIC, "t3", "retention.ms", "segment.ms", "segment.bytes"),
    change("all brokers", (BROKER, "", [("log.retention.ms", SET, "200000"), ("log.cleaner.backoff.ms", SET, "7000")])),
    describe("broker", BROKER, "1", "log.retention.ms", "log.retention.hours", "log.roll.ms", "log.cleaner.backoff.ms"),
    describe("all brokers", BROKER, ""),
    describe("topic under both", TOPIC, "t3", "retention.ms"),
    change("read-only key", (BROKER, "1", [("num.partitions", SET, "5")])),
    change("read-only key for all", (BROKER, "", [("num.partitions", SET, "5")])),
    change("foreign key", (BROKER, "1", [("foo.bar", SET, "5")])),
    describe("foreign key", BROKER, "1", "foo.bar"),
    change("broker, no number", (BROKER, "1", [("log.retention.ms", SET, "x")])),
    change("one broker's key for all", (BROKER, "", [("ssl.keystore.type", SET, "PEM")])),
    change("wrong value of an enum", (BROKER, "1", [("ssl.client.auth", SET, "bogus")])),
    change("another broker", (BROKER, "7", [("log.retention.ms", SET, "1")])),
    change("broker without a number", (BROKER, "x", [("log.retention.ms", SET, "1")])),
    change("delete from a broker", (BROKER, "1", [("log.segment.bytes", DELETE, None)])),
    change("append to a broker's list", (BROKER, "1", [("log.cleanup.policy", APPEND, "compact")])),
    describe("a broker's list", BROKER, "1", "log.cleanup.policy"),
    change("a secret", (BROKER, "1", [("ssl.keystore.password", SET, "x")])),
    describe("a secret", BROKER, "1", "ssl.keystore.password"),
    change(
        "clear the broker",
        (BROKER, "1", [("log.retention.ms", DELETE, None), ("log.cleanup.policy", DELETE, None)]),
    ),
    change(
        "clear all brokers",
        (BROKER, "", [("log.retention.ms", DELETE, None), ("log.cleaner.backoff.ms", DELETE, None)]),
    ),
    change("group", (GROUP, "g1", [("consumer.session.timeout.ms", SET, "50000")])),
    describe("group", GROUP, "g1", "consumer.session.timeout.ms"),
    change("group, out of bounds", (GROUP, "g1", [("consumer.session.timeout.ms", SET, "5")])),
    change("group, unknown key", (GROUP, "g1", [("foo", SET, "5")])),
    change("all groups", (GROUP, "", [("consumer.session.timeout.ms", SET, "50000")])),
    change(
        "group, more",
        (
            GROUP,
            "g1",
            [("consumer.heartbeat.interval.ms", SET, "14000"), ("share.auto.offset.reset", SET, "by_duration:PT1H")],
        ),
    ),
    describe("the whole group", GROUP, "g1"),
    change("group, no duration", (GROUP, "g1", [("share.auto.offset.reset", SET, "by_duration:1h")])),
    change("group, isolation", (GROUP, "g1", [("share.isolation.level", SET, "serializable")])),
    change("metrics", (METRICS, "m1", [("interval.ms", SET, "1000"), ("metrics", SET, "a,b")])),
    describe("metrics", METRICS, "m1"),
    change("metrics, unknown key", (METRICS, "m1", [("foo", SET, "1")])),
    change("all metrics", (METRICS, "", [("interval.ms", SET, "1000")])),
    change("metrics, no label", (METRICS, "m1", [("match", SET, "foo=bar")])),
    change("metrics, label", (METRICS, "m1", [("match", SET, "client_id=bar")])),
    replace("topic", TOPIC, "t1", ("segment.ms", "77")),
    describe("replaced", TOPIC, "t1", "segment.ms", "retention.ms", "cleanup.policy"),
    replace("null", TOPIC, "t1", ("segment.ms", None)),
    replace("unknown topic", TOPIC, "nope"),
    replace("key twice", TOPIC, "t1", ("segment.ms", "1"), ("segment.ms", "2")),
    replace("unknown key", TOPIC, "t1", ("x", "1")),
    replace("broker, read-only", BROKER, "1", ("num.partitions", "4")),
    replace("broker", BROKER, "1", ("log.retention.ms", "4")),
    replace("broker, cleared", BROKER, "1"),
    replace("logger", LOGGER, "1", ("root", "INFO")),
    replace("group", GROUP, "g1", ("consumer.session.timeout.ms", "55000")),
    describe("group replaced", GROUP, "g1", "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"),
    replace("validated only", TOPIC, "t1", really=False),
    describe("still there", TOPIC, "t1", "segment.ms"),
    replace("unknown kind", 77, "t1"),
)

DESCRIBE: Final = (
    describe("topic", TOPIC, "t1"),
    describe("topic with settings", TOPIC, "v7"),
    describe("topic, version 1", TOPIC, "v7", version=1),
    describe("topic without synonyms", TOPIC, "v7", synonyms=False),
    describe("whole broker", BROKER, "1"),
    describe("broker without synonyms", BROKER, "1", synonyms=False),
    describe("unknown topic", TOPIC, "nope"),
    describe("illegal topic", TOPIC, "n o"),
    describe("no topic", TOPIC, ""),
    describe("another broker's", BROKER, "9"),
    describe("no number", BROKER, "x"),
    describe("unknown kind", 77, "x"),
    describe("group without settings", GROUP, "never"),
    describe("no group", GROUP, ""),
    describe("metrics without settings", METRICS, "never"),
    describe("no metrics", METRICS, ""),
    describe("another broker's loggers", LOGGER, "9"),
    describe("internal keys", TOPIC, "t1", "internal.segment.bytes"),
    describe("internal keys of a broker", BROKER, "1", "log.initial.task.delay.ms"),
    list_resources("everything"),
    *(list_resources(f"kind {kind}", kind) for kind in (TOPIC, BROKER, LOGGER, METRICS, GROUP, 77)),
    list_resources("two kinds", TOPIC, BROKER),
    list_resources("version 0", version=0),
)

GROW: Final = (
    grow("by one", ("t1", 2, None)),
    grow("by none", ("t1", 1, None)),
    grow("to none", ("t1", 0, None)),
    grow("to less than none", ("t1", -1, None)),
    grow("unknown topic", ("nope", 2, None)),
    grow("twice", ("t1", 2, None), ("t1", 3, None)),
    grow("assigned", ("t1", 2, [[1]])),
    grow("too few assigned", ("t1", 3, [[1]])),
    grow("unknown broker", ("t1", 2, [[9]])),
    grow("more replicas", ("t1", 2, [[1, 2]])),
    grow("no replica", ("t1", 2, [[]])),
    grow("broker twice", ("t1", 2, [[1, 1]])),
    grow("none assigned", ("t1", 3, [])),
    grow("10000 more", ("t1", 10_001, None)),
    grow("10001 more", ("t1", 10_002, None)),
    grow("nothing"),
    grow("really", ("t1", 2, None), really=True),
    grow("to what it is", ("t1", 2, None)),
)

ELECT: Final = (
    elect("preferred", [("t1", [0])]),
    elect("unclean", [("t1", [0])], 1),
    elect("unknown topic", [("nope", [0])]),
    elect("unknown partition", [("t1", [9])]),
    elect("everywhere", None),
    elect("everywhere, unclean", None, 1),
    elect("unknown kind", [("t1", [0])], 5),
    elect("twice", [("t1", [0, 0])]),
    elect("nowhere", []),
    Step(
        name="reassignments: all",
        api=ApiKey.LIST_PARTITION_REASSIGNMENTS,
        request=ListPartitionReassignmentsRequest(topics=None, timeout_ms=TIMEOUT_MS),
    ),
    Step(
        name="reassignments: some",
        api=ApiKey.LIST_PARTITION_REASSIGNMENTS,
        request=ListPartitionReassignmentsRequest(
            topics=(
                ListPartitionReassignmentsTopics(name="t1", partition_indexes=(0, 5)),
                ListPartitionReassignmentsTopics(name="nope", partition_indexes=(0,)),
            ),
            timeout_ms=TIMEOUT_MS,
        ),
    ),
)

FEATURES: Final = (
    features("as it is", ("metadata.version", 30, 1)),
    features("higher", ("metadata.version", 31, 1)),
    features("lower", ("metadata.version", 29, 1)),
    features("safe downgrade", ("metadata.version", 29, 2)),
    features("unknown", ("foo.version", 1, 1)),
    features("unknown, to 0", ("foo.version", 0, 2)),
    features("to 0", ("metadata.version", 0, 2)),
    features("negative", ("metadata.version", -1, 1)),
    features("no kind", ("metadata.version", 30, 0)),
    features("unknown kind", ("metadata.version", 30, 9)),
    features("version 0", ("metadata.version", 30, 1), version=0),
    features("version 1", ("metadata.version", 30, 1), version=1),
    features("version 1, unknown", ("foo.version", 1, 1), version=1),
    features("nothing"),
    features("one good, one bad", ("metadata.version", 30, 1), ("foo.version", 1, 1)),
    Step(name="unregister: unknown", api=ApiKey.UNREGISTER_BROKER, request=UnregisterBrokerRequest(broker_id=9)),
)

DELETE_TOPICS: Final = (
    delete("unknown", ("nope", None)),
    delete("unknown id", (None, 77)),
    delete("neither", (None, None)),
    delete("both", ("t1", 5)),
    delete("twice", ("nope", None), ("nope", None)),
    delete("id twice", (None, 77), (None, 77)),
    delete("metadata topic", ("__cluster_metadata", None)),
    delete("version 1", names=["nope"], version=1),
    delete("version 1, twice", names=["nope", "nope"], version=1),
    delete("version 5", names=["nope", "x y", "v2"], version=5),
    delete("version 4", names=["v3"], version=4),
    delete("nothing"),
    delete("one", ("t1", None)),
    delete("gone", ("t1", None)),
    describe("gone with its topic", TOPIC, "t1"),
    create("again", topic("t1"), really=True),
    describe("nothing is left of the old one", TOPIC, "t1", "segment.ms"),
)

FORMAT: Final = change("cluster default", (BROKER, "", [("min.insync.replicas", SET, "1")]))
"""Kafka's format tool sets this by itself, as its ELR feature needs it; set again, it changes nothing there."""

STEPS: Final = (FORMAT, *CREATE, *CHANGE, *DESCRIBE, *GROW, *ELECT, *FEATURES, *DELETE_TOPICS)
