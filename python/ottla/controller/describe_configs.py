"""DescribeConfigs and ListConfigResources, answered from an image and a broker's own configuration.

Any broker answers for topics, groups, client metrics and the defaults of all brokers; for a broker's own
configuration only that broker does. Source of the form of the answers: Apache Kafka 4.3.1, asked
(tests/golden/admin).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ottla.common.config import (
    BROKER_KEYS,
    CLIENT_METRICS_KEYS,
    DESCRIBED_TOPIC_KEYS,
    GROUP_KEYS,
    BrokerConfig,
    ConfigKey,
    ConfigSource,
    ResourceType,
    Setting,
    UpdateMode,
    topic_setting,
)
from ottla.common.topics import check_topic_name
from ottla.controller.result import Refused
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import MetadataImage
from ottla.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)
from ottla.protocol.messages.list_config_resources import (
    ConfigResource,
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
)

_UNKNOWN_TYPE: Final = 0
_ALL_TYPES: Final = (
    ResourceType.TOPIC,
    ResourceType.BROKER,
    ResourceType.BROKER_LOGGER,
    ResourceType.CLIENT_METRICS,
    ResourceType.GROUP,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One key in an answer.

    Attributes:
        settings: Every place where it has a value, the winning one first.
        key: None for what Kafka does not define.
        secret: Whether values are withheld.
        source: Given where it is not that of the first setting.
    """

    name: str
    value: str | None
    settings: Sequence[Setting] = ()
    key: ConfigKey | None = None
    read_only: bool = False
    secret: bool = False
    source: ConfigSource | None = None

    def result(self, *, with_synonyms: bool, with_documentation: bool) -> DescribeConfigsResourceResult:
        source = self.source or (self.settings[0].source if self.settings else ConfigSource.DEFAULT)
        synonyms = (
            DescribeConfigsSynonym(
                name=setting.name, value=None if self.secret else setting.text, source=setting.source
            )
            for setting in self.settings
        )
        return DescribeConfigsResourceResult(
            name=self.name,
            value=None if self.secret else self.value,
            read_only=self.read_only,
            config_source=source,
            is_sensitive=self.secret,
            synonyms=tuple(synonyms) if with_synonyms else (),
            config_type=_UNKNOWN_TYPE if self.key is None else self.key.type,
            documentation=self.key.full_documentation if with_documentation and self.key is not None else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigDescriber:
    """What a broker knows when it is asked for configurations.

    Attributes:
        static: The broker's own configuration, without what is set dynamically.
        log_levels: The broker's loggers and their levels, by Kafka's names of levels.
    """

    node_id: int
    image: MetadataImage
    static: BrokerConfig
    log_levels: Mapping[str, str]

    @property
    def config(self) -> BrokerConfig:
        """The broker's configuration under what is set dynamically."""
        return self.static.with_dynamic(
            default=self.image.config(ResourceType.BROKER, ""),
            broker=self.image.config(ResourceType.BROKER, str(self.node_id)),
        )

    def describe(self, request: DescribeConfigsRequest) -> DescribeConfigsResponse:
        return DescribeConfigsResponse(
            results=tuple(
                self._result(
                    resource,
                    with_synonyms=request.include_synonyms,
                    with_documentation=request.include_documentation,
                )
                for resource in request.resources
            )
        )

    def _result(
        self, resource: DescribeConfigsResource, *, with_synonyms: bool, with_documentation: bool
    ) -> DescribeConfigsResult:
        wanted = set(resource.configuration_keys or ())
        try:
            configs = tuple(
                entry.result(with_synonyms=with_synonyms, with_documentation=with_documentation)
                for entry in self._entries(resource)
                if not wanted or entry.name in wanted
            )
        except KafkaError as refused:
            return DescribeConfigsResult(
                error_code=refused.code,
                error_message=refused.message,
                resource_type=resource.resource_type,
                resource_name=resource.resource_name,
            )
        return DescribeConfigsResult(
            resource_type=resource.resource_type, resource_name=resource.resource_name, configs=configs
        )

    def _entries(self, resource: DescribeConfigsResource) -> Iterator[_Entry]:
        name = resource.resource_name
        if resource.resource_type == ResourceType.TOPIC:
            check_topic_name(name)
            if name not in self.image.topic_ids:
                raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"There is no topic named {name}.")
            return self._topic_entries(self.image.config(ResourceType.TOPIC, name))
        if resource.resource_type == ResourceType.BROKER:
            if not name:
                return self._default_broker_entries()
            self._check_own_id(name)
            return self._broker_entries()
        if resource.resource_type == ResourceType.BROKER_LOGGER:
            self._check_own_id(name)
            return (
                _Entry(name=logger, value=level, source=ConfigSource.BROKER_LOGGER)
                for logger, level in sorted(self.log_levels.items())
            )
        if not name:
            raise Refused(ErrorCode.INVALID_REQUEST, "The resource has no name.")
        if resource.resource_type == ResourceType.CLIENT_METRICS:
            return _subscription_entries(self.image.config(ResourceType.CLIENT_METRICS, name))
        if resource.resource_type == ResourceType.GROUP:
            return self._group_entries(self.image.config(ResourceType.GROUP, name))
        raise Refused(ErrorCode.INVALID_REQUEST, f"Resources of type {resource.resource_type} have no configuration.")

    def _check_own_id(self, name: str) -> None:
        if name != str(self.node_id):
            raise Refused(ErrorCode.INVALID_REQUEST, f"This is broker {self.node_id}; ask {name!r} for its own.")

    def _topic_entries(self, overrides: Mapping[str, str]) -> Iterator[_Entry]:
        config = self.config
        for key in DESCRIBED_TOPIC_KEYS:
            value, _ = topic_setting(key, overrides, config)
            settings = []
            if key.name in overrides:
                text = key.format(value) or ""
                settings.append(Setting(name=key.name, text=text, source=ConfigSource.TOPIC))
            if key.synonyms:
                settings += config.settings(BROKER_KEYS[key.synonyms[0][0]])
            yield _Entry(name=key.name, value=key.format(value), settings=settings, key=key)

    def _broker_entries(self) -> Iterator[_Entry]:
        config = self.config
        for name, key in sorted(BROKER_KEYS.items()):
            if not key.internal:
                yield _Entry(
                    name=name,
                    value=key.format(config.value(name)),
                    settings=config.settings(key),
                    key=key,
                    read_only=key.mode is UpdateMode.READ_ONLY,
                    secret=key.is_sensitive,
                )
        foreign = {name for _, layer in config.layers() for name in layer if name not in BROKER_KEYS}
        for name in sorted(foreign):
            # Nobody knows whether a foreign key holds a secret: as in Kafka it is shown as if it did.
            settings = [
                Setting(name=name, text=layer[name], source=source)
                for source, layer in config.layers()
                if name in layer
            ]
            yield _Entry(name=name, value=None, settings=settings, read_only=True, secret=True)

    def _default_broker_entries(self) -> Iterator[_Entry]:
        """What is set for all brokers, and nothing else."""
        for name, text in sorted(self.image.config(ResourceType.BROKER, "").items()):
            key = BROKER_KEYS.get(name)
            setting = Setting(name=name, text=text, source=ConfigSource.DYNAMIC_DEFAULT_BROKER)
            yield _Entry(
                name=name,
                value=None if key is None else key.format(key.parse(text)),
                settings=(setting,),
                key=key,
                read_only=key is None or key.mode is UpdateMode.READ_ONLY,
                secret=key is None or key.is_sensitive,
            )

    def _group_entries(self, overrides: Mapping[str, str]) -> Iterator[_Entry]:
        config = self.config
        for name, key in sorted(GROUP_KEYS.items()):
            if key.synonyms:
                settings = config.settings(BROKER_KEYS[key.synonyms[0][0]])
            else:
                settings = [Setting(name=name, text=key.default or "", source=ConfigSource.DEFAULT)]
            value = key.parse(settings[0].text)
            if name in overrides:
                value = key.parse(overrides[name])
                settings.insert(0, Setting(name=name, text=key.format(value) or "", source=ConfigSource.GROUP))
            yield _Entry(name=name, value=key.format(value), settings=settings, key=key)

    def list_resources(self, request: ListConfigResourcesRequest, *, api_version: int) -> ListConfigResourcesResponse:
        """Name what has, or by its existence could have, a configuration."""
        # Version 0 only knew client metrics subscriptions (KIP-1000).
        types = (ResourceType.CLIENT_METRICS,) if api_version == 0 else request.resource_types or _ALL_TYPES
        if not set(types) <= set(_ALL_TYPES):
            return ListConfigResourcesResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
        return ListConfigResourcesResponse(
            config_resources=tuple(
                ConfigResource(resource_name=name, resource_type=kind)
                for kind in dict.fromkeys(types)
                for name in self._names(kind)
            )
        )

    def _names(self, kind: int) -> Iterable[str]:
        if kind == ResourceType.TOPIC:
            return sorted(self.image.topic_ids)
        if kind in (ResourceType.BROKER, ResourceType.BROKER_LOGGER):
            return [str(broker_id) for broker_id in sorted(self.image.brokers)]
        return sorted(resource.name for resource in self.image.configs if resource.type == kind)


def _subscription_entries(overrides: Mapping[str, str]) -> Iterator[_Entry]:
    for name, key in sorted(CLIENT_METRICS_KEYS.items()):
        if name in overrides:
            value = key.format(key.parse(overrides[name]))
            setting = Setting(name=name, text=value or "", source=ConfigSource.CLIENT_METRICS)
            yield _Entry(name=name, value=value, settings=(setting,), key=key)
        else:
            yield _Entry(name=name, value=key.default, key=key)
