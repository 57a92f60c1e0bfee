"""Configuration of topics, brokers, groups and client metrics subscriptions.

Source of the checks and their codes: Apache Kafka 4.3.1, asked (tests/golden/admin).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

from ottla.common.config import (
    BROKER_KEYS,
    CLIENT_METRICS_KEYS,
    DESCRIBED_TOPIC_KEYS,
    GROUP_KEYS,
    TOPIC_KEYS,
    BrokerConfig,
    ConfigKey,
    ConfigType,
    InvalidConfig,
    ResourceType,
    UpdateMode,
    check_broker_config,
    parse_configs,
    topic_setting,
    validate_topic_configs,
)
from ottla.common.config.group import InvalidSubscription, check_group_bounds, parse_client_metrics
from ottla.common.topics import check_topic_name
from ottla.controller.result import RECORDS_MAX, ControllerResult, Refused
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.image import ConfigResource
from ottla.metadata.records import ConfigRecord
from ottla.protocol.messages import alter_configs, incremental_alter_configs
from ottla.protocol.messages.create_topics import CreatableTopicConfigs

CLUSTER_BROKERS: Final = ConfigResource(ResourceType.BROKER, "")
"""What is set for all brokers."""
_STORE_PREFIXES: Final = ("ssl.key.", "ssl.keystore.", "ssl.truststore.")
"""Kafka's `SslConfigs.RECONFIGURABLE_CONFIGS`: what a listener reads keys and certificates from."""
_READ_AT_START: Final = ("listeners",)
"""Changed by Kafka while it runs; here a listener is opened at start."""


class Operation(IntEnum):
    """What an incremental change does with a key (KIP-339)."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


_KEYS: Final[Mapping[int, Mapping[str, ConfigKey]]] = {
    ResourceType.TOPIC: TOPIC_KEYS,
    ResourceType.BROKER: BROKER_KEYS,
    ResourceType.CLIENT_METRICS: CLIENT_METRICS_KEYS,
    ResourceType.GROUP: GROUP_KEYS,
}


class ConfigurationControl:
    """Changes configuration; reads it for new topics."""

    def __init__(self, metadata: MetadataDelta, config: BrokerConfig, *, node_id: int) -> None:
        self._metadata = metadata
        self._config = config
        self._node_id = node_id

    def effective_config(self) -> BrokerConfig:
        """This node's configuration under what is set dynamically."""
        return self._config.with_dynamic(
            default=self._metadata.config(*CLUSTER_BROKERS),
            broker=self._metadata.config(ResourceType.BROKER, str(self._node_id)),
        )

    def topic_value(self, topic: str, name: str) -> Any:
        """The effective value of one key of a topic."""
        overrides = self._metadata.config(ResourceType.TOPIC, topic)
        return topic_setting(TOPIC_KEYS[name], overrides, self.effective_config())[0]

    def new_topic_configs(self, pairs: Iterable[tuple[str, str | None]]) -> dict[str, str]:
        """Check what a new topic is to be created with; the last of repeated keys counts. Raises Refused."""
        configs: dict[str, str] = {}
        for name, value in pairs:
            if value is None:
                raise Refused(ErrorCode.INVALID_CONFIG, f"{name} has no value.")
            configs[name] = value
        if configs:
            self._check_topic_configs(configs)
        return configs

    def described_topic_configs(self, overrides: Mapping[str, str]) -> tuple[CreatableTopicConfigs, ...]:
        """The effective configuration of a new topic, as CreateTopics answers it."""
        config = self.effective_config()
        keys = [*DESCRIBED_TOPIC_KEYS, *(TOPIC_KEYS[name] for name in overrides if TOPIC_KEYS[name].internal)]
        described = []
        for key in keys:
            value, source = topic_setting(key, overrides, config)
            text = overrides.get(key.name, key.format(value))
            described.append(CreatableTopicConfigs(name=key.name, value=text, config_source=source))
        return tuple(described)

    def incremental_alter_configs(
        self, request: incremental_alter_configs.IncrementalAlterConfigsRequest
    ) -> ControllerResult[incremental_alter_configs.IncrementalAlterConfigsResponse]:
        counts = Counter((resource.resource_type, resource.resource_name) for resource in request.resources)
        records: list[ConfigRecord] = []
        responses = []
        for wanted in request.resources:
            resource = ConfigResource(wanted.resource_type, wanted.resource_name)
            code, text = ErrorCode.NONE, None
            try:
                changes = [(c.name, _operation(c.config_operation), c.value) for c in wanted.configs]
                _check_values(changes)
                self._check_resource(resource, count=counts[resource.type, resource.name])
                records += self._altered(resource, changes, records_left=RECORDS_MAX - len(records))
            except KafkaError as refused:
                code, text = refused.code, refused.message
            responses.append(
                incremental_alter_configs.AlterConfigsResourceResponse(
                    error_code=code, error_message=text, resource_type=resource.type, resource_name=resource.name
                )
            )
        response = incremental_alter_configs.IncrementalAlterConfigsResponse(responses=tuple(responses))
        return ControllerResult(response=response, records=() if request.validate_only else records)

    def legacy_alter_configs(
        self, request: alter_configs.AlterConfigsRequest
    ) -> ControllerResult[alter_configs.AlterConfigsResponse]:
        """Replace a resource's whole configuration: what is not named is removed."""
        counts = Counter((resource.resource_type, resource.resource_name) for resource in request.resources)
        records: list[ConfigRecord] = []
        responses = []
        for wanted in request.resources:
            resource = ConfigResource(wanted.resource_type, wanted.resource_name)
            code, text = ErrorCode.NONE, None
            try:
                changes: list[tuple[str, Operation, str | None]] = [
                    (config.name, Operation.SET, config.value) for config in wanted.configs
                ]
                _check_values(changes)
                self._check_resource(resource, count=counts[resource.type, resource.name])
                named = {config.name for config in wanted.configs}
                unnamed = [name for name in self._metadata.config(*resource) if name not in named]
                changes += [(name, Operation.DELETE, None) for name in unnamed]
                records += self._altered(resource, changes, records_left=RECORDS_MAX - len(records))
            except KafkaError as refused:
                code, text = refused.code, refused.message
            responses.append(
                alter_configs.AlterConfigsResourceResponse(
                    error_code=code, error_message=text, resource_type=resource.type, resource_name=resource.name
                )
            )
        response = alter_configs.AlterConfigsResponse(responses=tuple(responses))
        return ControllerResult(response=response, records=() if request.validate_only else records)

    def _check_resource(self, resource: ConfigResource, *, count: int) -> None:
        if count > 1:
            raise Refused(ErrorCode.INVALID_REQUEST, "The resource is named more than once.")
        if resource.type not in _KEYS:
            raise Refused(ErrorCode.INVALID_REQUEST, f"Resources of type {resource.type} have no configuration here.")
        if resource.type == ResourceType.BROKER:
            self._check_broker(resource.name)
            return
        if not resource.name:
            raise Refused(ErrorCode.INVALID_REQUEST, "Only brokers have a configuration for all; name the resource.")
        if resource.type == ResourceType.TOPIC:
            check_topic_name(resource.name)

    def _check_broker(self, name: str) -> None:
        if not name:
            return
        if not name.isascii() or not name.isdigit():
            raise Refused(ErrorCode.INVALID_REQUEST, f"A broker is named by its number, not by {name!r}.")
        if int(name) not in self._metadata.brokers:
            raise Refused(ErrorCode.INVALID_REQUEST, f"There is no broker {name}.")

    def _altered(
        self, resource: ConfigResource, changes: Sequence[tuple[str, Operation, str | None]], *, records_left: int
    ) -> list[ConfigRecord]:
        if len({name for name, _, _ in changes}) != len(changes):
            raise Refused(ErrorCode.INVALID_REQUEST, "A key is named more than once.")
        before = self._metadata.config(*resource)
        after = dict(before)
        for name, operation, value in changes:
            new = self._new_value(resource, name, operation, value, before.get(name))
            if new is None:
                after.pop(name, None)
            else:
                after[name] = new
        self._check_configs(resource, after, changed=[name for name, _, _ in changes])
        if resource.type == ResourceType.TOPIC and resource.name not in self._metadata.topic_ids:
            raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"There is no topic named {resource.name}.")
        # A broker's keys are written even if unchanged: it then reads files that they name anew.
        rewrite = resource.type == ResourceType.BROKER
        records = [
            ConfigRecord(resource_type=resource.type, resource_name=resource.name, name=name, value=after.get(name))
            for name, _, _ in changes
            if after.get(name) != before.get(name) or (rewrite and name in after)
        ]
        if len(records) > records_left:
            raise Refused(ErrorCode.POLICY_VIOLATION, f"One request may change at most {RECORDS_MAX} keys.")
        return records

    def _new_value(
        self, resource: ConfigResource, name: str, operation: Operation, value: str | None, current: str | None
    ) -> str | None:
        if operation is Operation.DELETE:
            return None
        if operation is Operation.SET:
            return value
        key = _KEYS[resource.type].get(name)
        if key is None or key.type is not ConfigType.LIST:
            raise Refused(ErrorCode.INVALID_CONFIG, f"{name} is not a list, nothing can be added or taken away.")
        entries = list(key.entries(key.default or "" if current is None else current))
        for entry in key.entries(value or ""):
            if operation is Operation.SUBTRACT and entry in entries:
                entries.remove(entry)
            elif operation is Operation.APPEND and entry not in entries:
                entries.append(entry)
        return ",".join(entries)

    def _check_configs(self, resource: ConfigResource, configs: Mapping[str, str], *, changed: Sequence[str]) -> None:
        try:
            if resource.type == ResourceType.TOPIC:
                self._check_topic_configs(configs)
            elif resource.type == ResourceType.GROUP:
                check_group_bounds(parse_configs(GROUP_KEYS, configs, what="group"), self.effective_config())
            elif resource.type == ResourceType.CLIENT_METRICS:
                parse_client_metrics(configs)
            else:
                self._check_broker_configs(resource, configs, changed=changed)
        except InvalidConfig as wrong:
            blames_request = resource.type == ResourceType.BROKER or isinstance(wrong, InvalidSubscription)
            code = ErrorCode.INVALID_REQUEST if blames_request else ErrorCode.INVALID_CONFIG
            raise Refused(code, str(wrong)) from wrong

    def _check_topic_configs(self, configs: Mapping[str, str]) -> None:
        config = self.effective_config()
        try:
            validate_topic_configs(
                configs, effective={key.name: topic_setting(key, {}, config)[0] for key in DESCRIBED_TOPIC_KEYS}
            )
        except InvalidConfig as wrong:
            raise Refused(ErrorCode.INVALID_CONFIG, str(wrong)) from wrong

    def _check_broker_configs(
        self, resource: ConfigResource, configs: Mapping[str, str], *, changed: Sequence[str]
    ) -> None:
        for name in changed:
            key = BROKER_KEYS.get(name)
            if key is None:
                continue
            if key.mode is UpdateMode.READ_ONLY or name in _READ_AT_START:
                raise InvalidConfig(f"{name} is read at start only and cannot be changed while the broker runs.")
            if key.name.startswith(_STORE_PREFIXES) and name in configs:
                raise InvalidConfig(f"{name} is changed per listener, under the prefix listener.name. and its name.")
            if key.mode is UpdateMode.PER_BROKER and not resource.name and name in configs:
                raise InvalidConfig(f"{name} belongs to each broker and cannot be set for all.")
        for name, text in configs.items():
            if name in BROKER_KEYS:
                BROKER_KEYS[name].parse(text)
        default = configs if not resource.name else self._metadata.config(*CLUSTER_BROKERS)
        check_broker_config(self._config.with_dynamic(default=default, broker=configs if resource.name else {}))


def _check_values(changes: Sequence[tuple[str, Operation, str | None]]) -> None:
    without = [name for name, operation, value in changes if value is None and operation is not Operation.DELETE]
    if without:
        raise Refused(ErrorCode.INVALID_REQUEST, f"{', '.join(without)}: there is no value.")


def _operation(number: int) -> Operation:
    try:
        return Operation(number)
    except ValueError:
        raise Refused(ErrorCode.INVALID_REQUEST, f"There is no operation {number} on a key.") from None
