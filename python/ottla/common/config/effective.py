"""Effective values: what is set where, and which setting wins.

A broker's value comes, in this order, from what was set dynamically on that broker, dynamically on all brokers, in
its file or command line, or from the default. A topic's comes from the topic, otherwise from the broker keys that stand
in for it, otherwise from the default. Source: KIP-226.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from ottla.common.config.broker import BROKER_KEYS
from ottla.common.config.definition import ConfigKey, ConfigSource, InvalidConfig
from ottla.common.config.topic import DESCRIBED_TOPIC_KEYS, TOPIC_KEYS

_NOTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One place where a value is set: `text` as it stands there, in this key's unit."""

    name: str
    text: str
    source: ConfigSource


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """A broker's configuration: three layers of text over the defaults. Immutable; read through the typed methods.

    Keys that Kafka does not have are kept (plugins and clients may have their own) but have no typed value.
    """

    static: Mapping[str, str] = field(default_factory=dict)
    dynamic_default: Mapping[str, str] = field(default_factory=dict)
    dynamic: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, static: Mapping[str, str]) -> BrokerConfig:
        """Check and take what was set in a file or on the command line; node.id and broker.id are one.

        Raises: InvalidConfig.
        """
        for name, text in static.items():
            key = BROKER_KEYS.get(name)
            if key is not None:
                key.parse(text)
        own = dict(static)
        for name, other in (("node.id", "broker.id"), ("broker.id", "node.id")):
            if other in static:
                own.setdefault(name, static[other])
        return cls(static=own)

    def unknown(self) -> set[str]:
        """Keys that were given and that no broker has, most likely misspelt."""
        return set(self.static) - set(BROKER_KEYS)

    def with_dynamic(
        self, *, default: Mapping[str, str] = _NOTHING, broker: Mapping[str, str] = _NOTHING
    ) -> BrokerConfig:
        """The same under other dynamic settings: those of all brokers and those of this one."""
        return BrokerConfig(static=self.static, dynamic_default=default, dynamic=broker)

    def layers(self) -> Iterator[tuple[ConfigSource, Mapping[str, str]]]:
        """What is set, the winning layer first."""
        yield ConfigSource.DYNAMIC_BROKER, self.dynamic
        yield ConfigSource.DYNAMIC_DEFAULT_BROKER, self.dynamic_default
        yield ConfigSource.STATIC_BROKER, self.static

    def text(self, name: str) -> str | None:
        """The value as text; None where the key is not set and has no default."""
        for _, layer in self.layers():
            if name in layer:
                return layer[name]
        return BROKER_KEYS[name].default

    def value(self, name: str) -> Any:
        """The typed value; None where the key is not set and has no default."""
        text = self.text(name)
        return None if text is None else BROKER_KEYS[name].parse(text)

    def integer(self, name: str) -> int:
        value = self.value(name)
        assert isinstance(value, int), name
        return value

    def boolean(self, name: str) -> bool:
        value = self.value(name)
        assert isinstance(value, bool), name
        return value

    def number(self, name: str) -> float:
        value = self.value(name)
        assert isinstance(value, float), name
        return value

    def string(self, name: str) -> str:
        value = self.value(name)
        assert isinstance(value, str), name
        return value

    def names(self, name: str) -> tuple[str, ...]:
        """The value of a key that is a list."""
        value = self.value(name)
        assert isinstance(value, tuple), name
        return value

    def settings(self, key: ConfigKey) -> list[Setting]:
        """Every place where a broker key or one of its synonyms has a value, the winning one first, defaults last.

        As in Kafka's answers, what a synonym says counts only below a place where the key itself has a value.
        """
        names = [name for name, _ in key.synonyms] or [key.name]
        found = [
            Setting(name=name, text=layer[name], source=source)
            for source, layer in self.layers()
            for name in names
            if name in layer
        ]
        for name in names:
            default = BROKER_KEYS[name].default
            if default is not None:
                found.append(Setting(name=name, text=default, source=ConfigSource.DEFAULT))
        while found and found[0].name != key.name:
            found.pop(0)
        return found


def topic_setting(key: ConfigKey, overrides: Mapping[str, str], config: BrokerConfig) -> tuple[Any, ConfigSource]:
    """The effective value of a topic key and where it comes from."""
    if key.name in overrides:
        return key.parse(overrides[key.name]), ConfigSource.TOPIC
    for source, layer in config.layers():
        for synonym, factor in key.synonyms:
            if synonym in layer:
                value = BROKER_KEYS[synonym].parse(layer[synonym])
                return (value * factor if factor != 1 and value >= 0 else value), source
    return (None if key.default is None else key.parse(key.default)), ConfigSource.DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """The effective configuration of a topic's logs, one field a key."""

    cleanup_policy: tuple[str, ...]
    compression_gzip_level: int
    compression_lz4_level: int
    compression_type: str
    compression_zstd_level: int
    delete_retention_ms: int
    file_delete_delay_ms: int
    flush_messages: int
    flush_ms: int
    follower_replication_throttled_replicas: tuple[str, ...]
    index_interval_bytes: int
    leader_replication_throttled_replicas: tuple[str, ...]
    local_retention_bytes: int
    local_retention_ms: int
    max_compaction_lag_ms: int
    max_message_bytes: int
    message_timestamp_after_max_ms: int
    message_timestamp_before_max_ms: int
    message_timestamp_type: str
    min_cleanable_dirty_ratio: float
    min_compaction_lag_ms: int
    min_insync_replicas: int
    preallocate: bool
    remote_log_copy_disable: bool
    remote_log_delete_on_disable: bool
    remote_storage_enable: bool
    retention_bytes: int
    retention_ms: int
    segment_bytes: int
    segment_index_bytes: int
    segment_jitter_ms: int
    segment_ms: int
    unclean_leader_election_enable: bool

    @classmethod
    def resolve(cls, overrides: Mapping[str, str], config: BrokerConfig) -> LogConfig:
        """The configuration of a topic on which `overrides` are set, on a broker with this configuration.

        Raises: InvalidConfig for text that no valid request could have put there.
        """
        values = {key.name.replace(".", "_"): topic_setting(key, overrides, config)[0] for key in DESCRIBED_TOPIC_KEYS}
        for_tests = overrides.get("internal.segment.bytes")
        if for_tests is not None:
            values["segment_bytes"] = TOPIC_KEYS["internal.segment.bytes"].parse(for_tests)
        return cls(**values)

    def texts(self) -> dict[str, str]:
        """Every key with its effective value as text."""
        return {
            f.name.replace("_", "."): TOPIC_KEYS[f.name.replace("_", ".")].format(getattr(self, f.name)) or ""
            for f in fields(self)
        }


def check_broker_config(config: BrokerConfig) -> None:
    """Check the keys of a broker that depend on each other. Raises InvalidConfig."""
    if config.integer("log.cleaner.min.compaction.lag.ms") > config.integer("log.cleaner.max.compaction.lag.ms"):
        raise InvalidConfig("log.cleaner.min.compaction.lag.ms must not be above log.cleaner.max.compaction.lag.ms.")
    if config.integer("group.min.session.timeout.ms") > config.integer("group.max.session.timeout.ms"):
        raise InvalidConfig("group.min.session.timeout.ms must not be above group.max.session.timeout.ms.")
    if not config.names("log.dirs" if config.text("log.dirs") else "log.dir"):
        raise InvalidConfig("log.dirs must name a directory.")
    if config.names("process.roles") and config.integer("node.id") < 0:
        raise InvalidConfig("node.id must be at least 0.")
