"""Topics and configurations through real sockets: an answer means that it is so."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.errors import ErrorCode
from ottla.protocol.messages import alter_configs
from ottla.protocol.messages.create_partitions import CreatePartitionsRequest, CreatePartitionsTopic
from ottla.protocol.messages.create_topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from ottla.protocol.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from ottla.protocol.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from ottla.protocol.messages.list_config_resources import ListConfigResourcesRequest
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess, EmbeddedBroker
from tests.integration.wire import Wire

TOPIC, BROKER, LOGGER = 2, 4, 8
SET, DELETE = 0, 1


def create(wire: Wire, *names: str, partitions: int = 1, timeout_ms: int = 10_000, **configs: str) -> list[ErrorCode]:
    settings = tuple(CreatableTopicConfig(name=key.replace("_", "."), value=value) for key, value in configs.items())
    topics = tuple(
        CreatableTopic(name=name, num_partitions=partitions, replication_factor=1, configs=settings) for name in names
    )
    response = wire.ask(ApiKey.CREATE_TOPICS, 7, CreateTopicsRequest(topics=topics, timeout_ms=timeout_ms))
    return [topic.error_code for topic in response.topics]


def delete(wire: Wire, name: str, *, version: int = 5) -> ErrorCode:
    request = DeleteTopicsRequest(topic_names=(name,), topics=(DeleteTopicState(name=name),), timeout_ms=10_000)
    code: ErrorCode = wire.ask(ApiKey.DELETE_TOPICS, version, request).responses[0].error_code
    return code


def change(wire: Wire, kind: int, name: str, key: str, value: str | None, operation: int = SET) -> ErrorCode:
    config = AlterableConfig(name=key, config_operation=operation, value=value)
    resource = AlterConfigsResource(resource_type=kind, resource_name=name, configs=(config,))
    response = wire.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, IncrementalAlterConfigsRequest(resources=(resource,)))
    code: ErrorCode = response.responses[0].error_code
    return code


def described(wire: Wire, kind: int, name: str) -> dict[str, str | None]:
    resource = DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=None)
    request = DescribeConfigsRequest(resources=(resource,), include_documentation=True)
    (result,) = wire.ask(ApiKey.DESCRIBE_CONFIGS, 4, request).results
    assert result.error_code is ErrorCode.NONE, result
    return {config.name: config.value for config in result.configs}


def topic_id(wire: Wire, name: str) -> uuid.UUID | None:
    request = MetadataRequest(topics=(MetadataRequestTopic(name=name),), allow_auto_topic_creation=False)
    found: uuid.UUID | None = wire.ask(ApiKey.METADATA, 12, request).topics[0].topic_id
    return found


def leader_epochs(wire: Wire, name: str) -> set[int]:
    request = MetadataRequest(topics=(MetadataRequestTopic(name=name),), allow_auto_topic_creation=False)
    return {partition.leader_epoch for partition in wire.ask(ApiKey.METADATA, 12, request).topics[0].partitions}


def test_a_created_topic_takes_records_at_once(wire: Wire) -> None:
    for number in range(20):
        assert create(wire, f"at-once-{number}", partitions=3) == [ErrorCode.NONE]
        assert wire.produce(f"at-once-{number}", b"x", partition=2).error_code is ErrorCode.NONE


def test_a_deleted_topic_is_gone_at_once_and_its_name_free(wire: Wire) -> None:
    for number in range(5):
        assert create(wire, "again") == [ErrorCode.NONE]
        assert wire.produce("again", b"%d" % number).base_offset == 0
        assert delete(wire, "again") is ErrorCode.NONE
        # While the files go the partition says that it leads no more; clients look again after either.
        gone = {ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.NOT_LEADER_OR_FOLLOWER}
        assert wire.produce("again", b"late").error_code in gone
        assert topic_id(wire, "again") is None
    assert delete(wire, "again") is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_a_topic_can_be_deleted_by_its_id(wire: Wire) -> None:
    create(wire, "by-id")
    request = DeleteTopicsRequest(topics=(DeleteTopicState(topic_id=topic_id(wire, "by-id")),), timeout_ms=10_000)
    (result,) = wire.ask(ApiKey.DELETE_TOPICS, 6, request).responses
    assert (result.name, result.error_code) == ("by-id", ErrorCode.NONE)
    assert topic_id(wire, "by-id") is None


def test_added_partitions_take_records_at_once(wire: Wire) -> None:
    create(wire, "grown")
    request = CreatePartitionsRequest(
        topics=(CreatePartitionsTopic(name="grown", count=4, assignments=None),), timeout_ms=10_000
    )
    (result,) = wire.ask(ApiKey.CREATE_PARTITIONS, 3, request).results
    assert result.error_code is ErrorCode.NONE
    assert wire.produce("grown", b"x", partition=3).error_code is ErrorCode.NONE


def test_whose_time_is_up_is_told_so(wire: Wire) -> None:
    assert create(wire, "hurried", timeout_ms=0) == [ErrorCode.REQUEST_TIMED_OUT]
    assert create(wire, "hurried") in ([ErrorCode.NONE], [ErrorCode.TOPIC_ALREADY_EXISTS])
    request = DeleteTopicsRequest(topics=(DeleteTopicState(name="hurried"),), timeout_ms=0)
    (result,) = wire.ask(ApiKey.DELETE_TOPICS, 6, request).responses
    assert (result.name, result.error_code) == ("hurried", ErrorCode.REQUEST_TIMED_OUT)


def test_a_changed_configuration_counts_at_once(wire: Wire) -> None:
    create(wire, "limited")
    assert wire.produce("limited", b"x" * 1000).error_code is ErrorCode.NONE
    assert change(wire, TOPIC, "limited", "max.message.bytes", "500") is ErrorCode.NONE
    assert described(wire, TOPIC, "limited")["max.message.bytes"] == "500"
    assert wire.produce("limited", b"x" * 1000).error_code is ErrorCode.MESSAGE_TOO_LARGE
    assert change(wire, TOPIC, "limited", "max.message.bytes", None, DELETE) is ErrorCode.NONE
    assert wire.produce("limited", b"x" * 1000).error_code is ErrorCode.NONE


def test_a_brokers_configuration_counts_for_topics_without_their_own(wire: Wire) -> None:
    create(wire, "under-all")
    create(wire, "on-its-own", max_message_bytes="100000")
    assert change(wire, BROKER, "", "message.max.bytes", "500") is ErrorCode.NONE
    try:
        assert wire.produce("under-all", b"x" * 1000).error_code is ErrorCode.MESSAGE_TOO_LARGE
        assert wire.produce("on-its-own", b"x" * 1000).error_code is ErrorCode.NONE
        assert described(wire, BROKER, "") == {"message.max.bytes": "500"}
        assert described(wire, TOPIC, "under-all")["max.message.bytes"] == "500"
    finally:
        assert change(wire, BROKER, "", "message.max.bytes", None, DELETE) is ErrorCode.NONE
    assert wire.produce("under-all", b"x" * 1000).error_code is ErrorCode.NONE


def test_the_old_way_of_altering_replaces_everything(wire: Wire) -> None:
    create(wire, "replaced", retention_ms="5")
    config = alter_configs.AlterableConfig(name="segment.ms", value="7")
    resource = alter_configs.AlterConfigsResource(resource_type=TOPIC, resource_name="replaced", configs=(config,))
    response = wire.ask(ApiKey.ALTER_CONFIGS, 2, alter_configs.AlterConfigsRequest(resources=(resource,)))
    assert response.responses[0].error_code is ErrorCode.NONE
    values = described(wire, TOPIC, "replaced")
    assert (values["segment.ms"], values["retention.ms"]) == ("7", "604800000")


def test_every_key_of_a_broker_is_described(wire: Wire) -> None:
    values = described(wire, BROKER, "1")
    assert len([name for name in values if not name.startswith("ottla.")]) == 340, "as many as Kafka's"
    assert values["ottla.log.format"] == "text"
    assert values["num.partitions"] == "1"


@pytest.fixture
def chatty() -> Iterator[str]:
    """A logger of the broker that may be changed."""
    name = "ottla.broker.connection"
    before = logging.getLogger(name).level
    yield name
    logging.getLogger(name).setLevel(before)


def test_log_levels_are_changed_while_the_broker_runs(wire: Wire, chatty: str) -> None:
    assert change(wire, LOGGER, "1", chatty, "ERROR") is ErrorCode.NONE
    assert described(wire, LOGGER, "1")[chatty] == "ERROR"
    assert not logging.getLogger(chatty).isEnabledFor(logging.WARNING)
    assert change(wire, LOGGER, "1", chatty, None, DELETE) is ErrorCode.NONE
    assert change(wire, LOGGER, "1", chatty, "LOUD") is ErrorCode.INVALID_CONFIG
    assert change(wire, LOGGER, "1", "no.such", "INFO") is ErrorCode.INVALID_CONFIG
    assert change(wire, LOGGER, "1", "root", None, DELETE) is ErrorCode.INVALID_REQUEST
    assert change(wire, LOGGER, "1", chatty, "INFO", operation=2) is ErrorCode.INVALID_REQUEST
    assert change(wire, LOGGER, "2", chatty, "INFO") is ErrorCode.INVALID_REQUEST


def test_resources_are_listed(wire: Wire) -> None:
    create(wire, "listed")
    response = wire.ask(ApiKey.LIST_CONFIG_RESOURCES, 1, ListConfigResourcesRequest(resource_types=(TOPIC,)))
    assert "listed" in {resource.resource_name for resource in response.config_resources}


def test_deletion_can_be_switched_off(data_dir: Path) -> None:
    with EmbeddedBroker(data_dir, settings={"delete.topic.enable": "false"}) as broker, Wire(broker.port) as wire:
        create(wire, "kept")
        assert delete(wire, "kept") is ErrorCode.TOPIC_DELETION_DISABLED
        assert delete(wire, "kept", version=2) is ErrorCode.INVALID_REQUEST
        assert wire.produce("kept", b"x").error_code is ErrorCode.NONE


@pytest.mark.parametrize("ending", ["terminate", "kill"])
def test_metadata_survive_and_every_start_raises_the_leader_epoch(data_dir: Path, ending: str) -> None:
    with BrokerProcess(data_dir) as broker:
        with Wire(broker.port) as wire:
            create(wire, "lasting", partitions=5, retention_ms="777")
            create(wire, "passing")
            delete(wire, "passing")
            change(wire, BROKER, "", "log.retention.ms", "888")
            known_id = topic_id(wire, "lasting")
        epochs = []
        for _ in range(2):
            getattr(broker, ending)()
            broker.start()
            with Wire(broker.port) as wire:
                assert topic_id(wire, "lasting") == known_id
                assert topic_id(wire, "passing") is None
                assert described(wire, TOPIC, "lasting")["retention.ms"] == "777"
                assert described(wire, BROKER, "") == {"log.retention.ms": "888"}
                epochs.append(leader_epochs(wire, "lasting"))
        assert epochs == [{1}, {2}]
