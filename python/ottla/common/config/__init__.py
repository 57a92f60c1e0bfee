"""Configuration with Kafka's own key names: definitions, validation, effective values."""

from ottla.common.config.broker import BROKER_KEYS, DEVIATIONS, Deviation
from ottla.common.config.definition import (
    ConfigKey,
    ConfigSource,
    ConfigType,
    Importance,
    InvalidConfig,
    ResourceType,
    UpdateMode,
)
from ottla.common.config.effective import (
    BrokerConfig,
    LogConfig,
    Setting,
    check_broker_config,
    topic_setting,
)
from ottla.common.config.group import CLIENT_METRICS_KEYS, GROUP_KEYS, parse_configs
from ottla.common.config.topic import DESCRIBED_TOPIC_KEYS, TOPIC_KEYS, validate_topic_configs

__all__ = [
    "BROKER_KEYS",
    "CLIENT_METRICS_KEYS",
    "DESCRIBED_TOPIC_KEYS",
    "DEVIATIONS",
    "GROUP_KEYS",
    "TOPIC_KEYS",
    "BrokerConfig",
    "ConfigKey",
    "ConfigSource",
    "ConfigType",
    "Deviation",
    "Importance",
    "InvalidConfig",
    "LogConfig",
    "ResourceType",
    "Setting",
    "UpdateMode",
    "check_broker_config",
    "parse_configs",
    "topic_setting",
    "validate_topic_configs",
]
