"""DescribeConfigs, AlterConfigs, IncrementalAlterConfigs and ListConfigResources."""

from __future__ import annotations

from typing import Any

from ottla.protocol.messages.alter_configs import AlterableConfig, AlterConfigsRequest, AlterConfigsResource
from ottla.protocol.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from ottla.protocol.messages.incremental_alter_configs import AlterableConfig as Change
from ottla.protocol.messages.incremental_alter_configs import AlterConfigsResource as ChangedResource
from ottla.protocol.messages.incremental_alter_configs import IncrementalAlterConfigsRequest
from ottla.protocol.messages.list_config_resources import ListConfigResourcesRequest
from ottla.protocol.versions import ApiKey
from tests.golden.lab import Answer, Lab, probe, versions
from tests.golden.probes.topics import node_id

TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = range(4)

PATHS_AND_NUMBERS_OF_THE_MACHINE = {
    "advertised.listeners",
    "broker.id",
    "controller.listener.names",
    "controller.quorum.bootstrap.servers",
    "controller.quorum.voters",
    "listeners",
    "log.dir",
    "log.dirs",
    "node.id",
    "process.roles",
}


RECORDED_WITH = {
    "default.replication.factor",
    "group.initial.rebalance.delay.ms",
    "min.insync.replicas",
    "offsets.topic.replication.factor",
    "share.coordinator.state.topic.min.isr",
    "share.coordinator.state.topic.replication.factor",
    "transaction.state.log.min.isr",
    "transaction.state.log.replication.factor",
}
"""Set in the configuration of the Kafka that was asked: value and source are not its defaults."""


def without_own_settings(configs: list[dict[str, Any]]) -> None:
    for config in configs:
        if config["name"] in PATHS_AND_NUMBERS_OF_THE_MACHINE | RECORDED_WITH:
            for field in ("value", "config_source", "synonyms"):
                config.pop(field, None)


def describe(
    lab: Lab, kind: int, name: str, *keys: str, version: int = 4, every_key: bool = False, **fields: Any
) -> Answer:
    entry = DescribeConfigsResource(
        resource_type=kind, resource_name=name, configuration_keys=None if every_key else keys
    )
    request = DescribeConfigsRequest(resources=(entry,), **fields)
    answer = lab.ask(ApiKey.DESCRIBE_CONFIGS, request, version=version)
    if kind in {TOPIC, BROKER} and answer["results"][0].get("configs"):
        configs = answer["results"][0]["configs"]  # a cluster with eligible leader replicas sets this for all brokers
        answer["results"][0]["configs"] = [c for c in configs if c["name"] != "min.insync.replicas"]
    if kind == TOPIC:
        without_own_settings(answer["results"][0].get("configs", []))
    return answer


@probe(each=versions(ApiKey.DESCRIBE_CONFIGS))
def topic_configs(lab: Lab, version: int) -> Answer:
    topic = lab.topic(f"configured-{version}", segment_ms="1000", cleanup_policy="compact")
    documentation = {"include_documentation": True} if version >= 3 else {}
    return {
        "all": describe(lab, TOPIC, topic, version=version, every_key=True),
        "synonyms": describe(
            lab, TOPIC, topic, version=version, every_key=True, include_synonyms=True, **documentation
        ),
        "two": describe(lab, TOPIC, topic, "segment.ms", "retention.ms", "no.such.key", version=version),
        "no keys": describe(lab, TOPIC, topic, version=version),
        "absent": describe(lab, TOPIC, lab.name("absent"), version=version),
        "illegal": describe(lab, TOPIC, "a b", version=version),
        "empty": describe(lab, TOPIC, "", version=version),
    }


@probe()
def broker_configs(lab: Lab) -> Answer:
    """Each key with its source, type and flags. Values that name this machine are left out."""
    answer = describe(lab, BROKER, str(node_id(lab)), every_key=True, include_synonyms=True, include_documentation=True)
    without_own_settings(answer["results"][0]["configs"])
    return {config.pop("name"): config for config in answer["results"][0]["configs"]}


@probe(each=["", "x", "999", "-1"])
def other_broker(lab: Lab, name: str) -> Answer:
    return describe(lab, BROKER, name, "log.retention.ms", "log.cleaner.threads")


@probe(each=[0, 1, 3, 5, 99, -1])
def other_resource_type(lab: Lab, kind: int) -> Answer:
    return [describe(lab, kind, "x"), *[alter(lab, kind, "x", Change(name="a", value="b"))]]


@probe()
def group_and_client_metrics_configs(lab: Lab) -> Answer:
    return {
        "group": describe(lab, GROUP, lab.name("group"), every_key=True, include_synonyms=True),
        "group without a name": describe(lab, GROUP, "", every_key=True),
        "client metrics": describe(lab, CLIENT_METRICS, lab.name("metrics"), every_key=True),
        "client metrics without a name": describe(lab, CLIENT_METRICS, "", every_key=True),
    }


@probe()
def broker_logger(lab: Lab) -> Answer:
    return [describe(lab, BROKER_LOGGER, "999", every_key=True), describe(lab, BROKER_LOGGER, "", every_key=True)]


@probe()
def one_resource_twice(lab: Lab) -> Answer:
    topic = lab.topic("configured")
    entry = DescribeConfigsResource(resource_type=TOPIC, resource_name=topic, configuration_keys=("segment.ms",))
    return lab.ask(ApiKey.DESCRIBE_CONFIGS, DescribeConfigsRequest(resources=(entry, entry)))


def alter(lab: Lab, kind: int, name: str, *changes: Change, version: int = 1, validate_only: bool = False) -> Answer:
    entry = ChangedResource(resource_type=kind, resource_name=name, configs=changes)
    request = IncrementalAlterConfigsRequest(resources=(entry,), validate_only=validate_only)
    return lab.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, request, version=version)


def changed(lab: Lab, topic: str) -> Answer:
    """What is set on the topic itself."""
    lab.settle()
    answer = describe(lab, TOPIC, topic, every_key=True)["results"][0]["configs"]
    return {config["name"]: config.get("value") for config in answer if config.get("config_source") == 1}


@probe(each=versions(ApiKey.INCREMENTAL_ALTER_CONFIGS))
def incremental_changes(lab: Lab, version: int) -> Answer:
    topic = lab.topic(f"altered-{version}")

    def change(*changes: Change, validate_only: bool = False) -> Answer:
        return [
            alter(lab, TOPIC, topic, *changes, version=version, validate_only=validate_only),
            changed(lab, topic),
        ]

    return {
        "set": change(Change(name="retention.ms", config_operation=SET, value="5000")),
        "validate": change(Change(name="retention.ms", config_operation=SET, value="6000"), validate_only=True),
        "bad value": change(Change(name="retention.ms", config_operation=SET, value="-9")),
        "unknown key": change(Change(name="no.such.key", config_operation=SET, value="1")),
        "null": change(Change(name="retention.ms", config_operation=SET)),
        "one of two bad": change(
            Change(name="segment.ms", config_operation=SET, value="77"),
            Change(name="retention.ms", config_operation=SET, value="x"),
        ),
        "append to a list": change(Change(name="cleanup.policy", config_operation=APPEND, value="compact")),
        "append again": change(Change(name="cleanup.policy", config_operation=APPEND, value="compact")),
        "append to a number": change(Change(name="segment.ms", config_operation=APPEND, value="7")),
        "subtract": change(Change(name="cleanup.policy", config_operation=SUBTRACT, value="delete")),
        "subtract what is not there": change(Change(name="cleanup.policy", config_operation=SUBTRACT, value="delete")),
        "delete": change(Change(name="cleanup.policy", config_operation=DELETE)),
        "delete what is not set": change(Change(name="cleanup.policy", config_operation=DELETE)),
        "delete with a value": change(Change(name="retention.ms", config_operation=DELETE, value="1")),
        "delete an unknown key": change(Change(name="no.such.key", config_operation=DELETE)),
        "unknown operation": change(Change(name="retention.ms", config_operation=9, value="1")),
        "key twice": change(
            Change(name="retention.ms", config_operation=SET, value="1"),
            Change(name="retention.ms", config_operation=SET, value="2"),
        ),
        "nothing": change(),
    }


@probe()
def incremental_changes_of_what_is_absent(lab: Lab) -> Answer:
    change = Change(name="retention.ms", config_operation=SET, value="5000")
    topic = lab.topic("altered-twice")
    entry = ChangedResource(resource_type=TOPIC, resource_name=topic, configs=(change,))
    return {
        "topic": alter(lab, TOPIC, lab.name("absent"), change),
        "illegal name": alter(lab, TOPIC, "a b", change),
        "empty name": alter(lab, TOPIC, "", change),
        "broker 999": alter(lab, BROKER, "999", Change(name="log.cleaner.threads", value="2")),
        "broker x": alter(lab, BROKER, "x", Change(name="log.cleaner.threads", value="2")),
        "resource twice": lab.ask(
            ApiKey.INCREMENTAL_ALTER_CONFIGS, IncrementalAlterConfigsRequest(resources=(entry, entry))
        ),
    }


BROKER_CHANGES = [
    ("log.retention.ms", "1000000"),
    ("log.retention.ms", "x"),
    ("log.cleaner.threads", "2"),
    ("log.cleaner.threads", "0"),
    ("message.max.bytes", "2000000"),
    ("auto.create.topics.enable", "false"),
    ("num.partitions", "3"),
    ("log.dirs", "/elsewhere"),
    ("node.id", "9"),
    ("background.threads", "11"),
    ("max.connections", "100"),
    ("max.connections.per.ip", "100"),
    ("listeners", "PLAINTEXT://:1"),
    ("no.such.key", "1"),
    ("min.insync.replicas", "1"),
    ("group.initial.rebalance.delay.ms", "5"),
    ("follower.replication.throttled.rate", "1000"),
]


@probe(each=range(len(BROKER_CHANGES)))
def broker_changes(lab: Lab, number: int) -> Answer:
    """Validated only: on one broker, and for all brokers (an empty name)."""
    key, value = BROKER_CHANGES[number]
    change = Change(name=key, config_operation=SET, value=value)
    told = [f"{key}={value}"]
    for name in (str(node_id(lab)), ""):
        answer = alter(lab, BROKER, name, change, validate_only=True)
        told.append(answer["responses"][0].get("error_code", "NONE"))
    return told


@probe(
    each=(
        "principal.builder.class",
        "sasl.enabled.mechanisms",
        "sasl.jaas.config",
        "sasl.kerberos.min.time.before.relogin",
        "sasl.kerberos.principal.to.local.rules",
        "sasl.login.refresh.window.factor",
        "sasl.mechanism.inter.broker.protocol",
        "ssl.cipher.suites",
        "ssl.client.auth",
        "ssl.enabled.protocols",
        "ssl.endpoint.identification.algorithm",
        "ssl.key.password",
        "ssl.keystore.certificate.chain",
        "ssl.keystore.key",
        "ssl.keystore.location",
        "ssl.keystore.password",
        "ssl.keystore.type",
        "ssl.protocol",
        "ssl.truststore.certificates",
        "ssl.truststore.location",
        "ssl.truststore.password",
        "ssl.truststore.type",
    )
)
def security_without_a_listener(lab: Lab, key: str) -> Answer:
    """Keys that may be set for single listeners, set for a broker and for all of them with the value that they have."""
    values = {
        "principal.builder.class": "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder",
        "sasl.enabled.mechanisms": "GSSAPI",
        "sasl.kerberos.min.time.before.relogin": "58000",
        "sasl.login.refresh.window.factor": "0.8",
        "ssl.client.auth": "none",
        "ssl.enabled.protocols": "TLSv1.2,TLSv1.3",
        "ssl.endpoint.identification.algorithm": "https",
        "ssl.keystore.type": "JKS",
        "ssl.protocol": "TLSv1.3",
        "ssl.truststore.type": "JKS",
        "ssl.cipher.suites": "",
    }
    change = Change(name=key, config_operation=SET, value=values.get(key, "DEFAULT"))
    told = []
    for name in (str(node_id(lab)), ""):
        answer = alter(lab, BROKER, name, change, validate_only=True)
        told.append(answer["responses"][0].get("error_code", "NONE"))
    return told


@probe()
def broker_default_is_seen_by_topics(lab: Lab) -> Answer:
    """A changed cluster default shows at a topic, with its source among the synonyms, and goes again."""
    topic = lab.topic("inherits")
    keys = ("segment.ms", "flush.ms")
    own = str(node_id(lab))
    told = []
    for name, value in (("", "123456"), (own, "654321")):
        told.append(alter(lab, BROKER, name, Change(name="log.roll.ms", config_operation=SET, value=value)))
        lab.settle()
        told.append(describe(lab, TOPIC, topic, *keys, include_synonyms=True))
    told.append(describe(lab, BROKER, own, "log.roll.ms", "log.roll.hours", include_synonyms=True))
    told.append(describe(lab, BROKER, "", every_key=True, include_synonyms=True))
    told += [alter(lab, BROKER, name, Change(name="log.roll.ms", config_operation=DELETE)) for name in (own, "")]
    lab.settle()
    told.append(describe(lab, TOPIC, topic, *keys, include_synonyms=True))
    return told


@probe(each=versions(ApiKey.ALTER_CONFIGS))
def full_replacement(lab: Lab, version: int) -> Answer:
    topic = lab.topic(f"replaced-{version}", segment_ms="1000")

    def replace(name: str = topic, validate_only: bool = False, **configs: str | None) -> Answer:
        entries = tuple(AlterableConfig(name=key.replace("_", "."), value=value) for key, value in configs.items())
        entry = AlterConfigsResource(resource_type=TOPIC, resource_name=name, configs=entries)
        request = AlterConfigsRequest(resources=(entry,), validate_only=validate_only)
        return [lab.ask(ApiKey.ALTER_CONFIGS, request, version=version), changed(lab, topic)]

    return {
        "validate": replace(validate_only=True, retention_ms="1"),
        "one": replace(retention_ms="70000"),
        "bad value": replace(retention_ms="x"),
        "null": replace(retention_ms=None),
        "unknown key": replace(no_such_key="1"),
        "absent topic": replace(lab.name("absent"), retention_ms="1"),
        "nothing": replace(),
    }


@probe(each=[0, 1])
def list_config_resources(lab: Lab, version: int) -> Answer:
    topic = lab.topic("configured")

    def ask(*kinds: int) -> Answer:
        request = ListConfigResourcesRequest(resource_types=kinds)
        answer = lab.call(ApiKey.LIST_CONFIG_RESOURCES, request, version=version)
        kinds_found = sorted({entry.resource_type for entry in answer.config_resources})
        own = [entry for entry in answer.config_resources if entry.resource_name == topic]
        return [answer.error_code, kinds_found, own]

    if version == 0:
        return ask()
    return {
        str(kinds): ask(*kinds)
        for kinds in ((TOPIC,), (BROKER,), (GROUP,), (TOPIC, BROKER), (99,), (0,), (BROKER_LOGGER,))
    }
