"""The configuration of a broker: Kafka's 360 keys, a few of our own, and where a default differs on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ottla.common.config.broker.group import GROUP_KEYS
from ottla.common.config.broker.log import LOG_KEYS
from ottla.common.config.broker.modern_group import MODERN_GROUP_KEYS
from ottla.common.config.broker.network import NETWORK_KEYS
from ottla.common.config.broker.other import OTHER_KEYS
from ottla.common.config.broker.own import OWN_KEYS
from ottla.common.config.broker.quorum import QUORUM_KEYS
from ottla.common.config.broker.remote import REMOTE_KEYS
from ottla.common.config.broker.replication import REPLICATION_KEYS
from ottla.common.config.broker.security import SECURITY_KEYS
from ottla.common.config.broker.transaction import TRANSACTION_KEYS
from ottla.common.config.definition import ConfigKey, by_name

BROKER_KEYS: Final[Mapping[str, ConfigKey]] = by_name(
    (
        *LOG_KEYS,
        *NETWORK_KEYS,
        *GROUP_KEYS,
        *MODERN_GROUP_KEYS,
        *TRANSACTION_KEYS,
        *REPLICATION_KEYS,
        *QUORUM_KEYS,
        *SECURITY_KEYS,
        *REMOTE_KEYS,
        *OTHER_KEYS,
        *OWN_KEYS,
    )
)
"""Keys by name, internal ones included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A default that differs from Kafka's; `kafka` is None where Kafka demands that the key is set."""

    name: str
    kafka: str | None
    reason: str

    @property
    def ottla(self) -> str | None:
        return BROKER_KEYS[self.name].default


DEVIATIONS: Final = (
    Deviation(
        name="group.initial.rebalance.delay.ms",
        kafka="3000",
        reason="Programs and tests that start a lone consumer would wait three seconds for nothing. Raise it where "
        "many members start at once, so that the first rebalance sees them all.",
    ),
    Deviation(
        name="group.coordinator.rebalance.protocols",
        kafka="classic,consumer,streams",
        reason="Streams groups are not served so far.",
    ),
    Deviation(name="node.id", kafka=None, reason="A single broker runs without a configuration file."),
    Deviation(name="process.roles", kafka=None, reason="A single broker runs without a configuration file."),
    Deviation(
        name="controller.listener.names", kafka=None, reason="A single broker runs without a configuration file."
    ),
)
