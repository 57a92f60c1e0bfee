"""SHELL. Configurations of topics, brokers and groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum

from ottla.client.network import BOOTSTRAP_NODE, Network
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResponse,
)
from ottla.protocol.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)
from ottla.protocol.versions import ApiKey


class ResourceType(IntEnum):
    """What a configuration belongs to (Kafka: `ConfigResource.Type`)."""

    TOPIC = 2
    BROKER = 4
    CLIENT_METRICS = 16
    GROUP = 32


class ConfigSource(IntEnum):
    """Where a value comes from (Kafka: `DescribeConfigsResponse.ConfigSource`)."""

    UNKNOWN = 0
    TOPIC_CONFIG = 1
    DYNAMIC_BROKER_CONFIG = 2
    DYNAMIC_DEFAULT_BROKER_CONFIG = 3
    STATIC_BROKER_CONFIG = 4
    DEFAULT_CONFIG = 5
    DYNAMIC_BROKER_LOGGER_CONFIG = 6
    CLIENT_METRICS_CONFIG = 7
    GROUP_CONFIG = 8


class AlterOperation(IntEnum):
    """Kafka: `AlterConfigOp.OpType`."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigEntry:
    """`value` is None for a sensitive key. `is_default`: nobody set it."""

    name: str
    value: str | None
    source: ConfigSource
    read_only: bool
    is_sensitive: bool
    documentation: str | None

    @property
    def is_default(self) -> bool:
        return self.source is ConfigSource.DEFAULT_CONFIG


class ConfigsClient:
    def __init__(self, network: Network) -> None:
        self._network = network

    async def describe(
        self, kind: ResourceType, name: str, *, keys: Collection[str] | None = None, documentation: bool = False
    ) -> list[ConfigEntry]:
        """All keys, or these, with values and sources. Raises KafkaError."""
        resource = DescribeConfigsResource(
            resource_type=kind, resource_name=name, configuration_keys=None if keys is None else tuple(keys)
        )
        request = DescribeConfigsRequest(resources=(resource,), include_documentation=documentation)
        node_id = await self._node(kind, name)
        response: DescribeConfigsResponse = await self._network.retrying(
            lambda: self._network.send(node_id, ApiKey.DESCRIBE_CONFIGS, request)
        )
        result = response.results[0]
        _check(result.error_code, result.error_message, kind, name)
        return [
            ConfigEntry(
                name=c.name,
                value=c.value,
                source=ConfigSource(max(c.config_source, 0)),
                read_only=c.read_only,
                is_sensitive=c.is_sensitive,
                documentation=c.documentation,
            )
            for c in sorted(result.configs, key=lambda c: c.name)
        ]

    async def alter(
        self,
        kind: ResourceType,
        name: str,
        changes: Mapping[str, tuple[AlterOperation, str | None]],
        *,
        validate_only: bool = False,
    ) -> None:
        """Change single keys (KIP-339). Raises KafkaError; nothing is changed then."""
        configs = tuple(
            AlterableConfig(name=key, config_operation=operation, value=value)
            for key, (operation, value) in changes.items()
        )
        resource = AlterConfigsResource(resource_type=kind, resource_name=name, configs=configs)
        request = IncrementalAlterConfigsRequest(resources=(resource,), validate_only=validate_only)
        node_id = await self._node(kind, name)
        response: IncrementalAlterConfigsResponse = await self._network.retrying(
            lambda: self._network.send(node_id, ApiKey.INCREMENTAL_ALTER_CONFIGS, request)
        )
        result = response.responses[0]
        _check(result.error_code, result.error_message, kind, name)

    async def _node(self, kind: ResourceType, name: str) -> int:
        """A broker answers for itself; everything else any of them knows."""
        if kind is not ResourceType.BROKER or not name.isdigit():
            return BOOTSTRAP_NODE
        if int(name) not in self._network.view.brokers:
            await self._network.refresh(())
        if int(name) not in self._network.view.brokers:
            raise KafkaError(ErrorCode.BROKER_NOT_AVAILABLE, f"there is no broker {name}")
        return int(name)


def _check(code: ErrorCode, message: str | None, kind: ResourceType, name: str) -> None:
    if code is not ErrorCode.NONE:
        raise KafkaError(code, f"{kind.name.lower()} {name!r}: {message or code.name}")
