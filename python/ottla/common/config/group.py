"""The configuration of groups and of client metrics subscriptions, which only exist dynamically."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ottla.common.config.definition import (
    ConfigKey,
    ConfigType,
    InvalidConfig,
    UpdateMode,
    Valid,
    at_least,
    by_name,
    one_of,
    unique_list,
)

if TYPE_CHECKING:
    from ottla.common.config.effective import BrokerConfig

_DURATION = re.compile(
    r"by_duration:P(?=[0-9T])([0-9]+D)?(T(?=[0-9])([0-9]+H)?([0-9]+M)?([0-9]+(\.[0-9]+)?S)?)?\Z", re.I
)


def _share_start(value: str) -> str | None:
    if value in ("latest", "earliest") or _DURATION.match(value):
        return None
    return "it must be latest, earliest or by_duration: followed by an ISO 8601 duration"


def _key(
    name: str,
    type: ConfigType,
    default: object,
    documentation: str,
    *,
    valid: Valid | None = None,
    synonym: str | None = None,
    honoured: bool = True,
) -> ConfigKey:
    return ConfigKey(
        name=name,
        type=type,
        default=str(default),
        valid=valid or Valid("", lambda _value: None),
        mode=UpdateMode.CLUSTER_WIDE,
        synonyms=((synonym, 1),) if synonym else (),
        documentation=documentation,
        honoured=honoured,
    )


def _int(
    name: str, default: int, documentation: str, *, low: int, synonym: bool = True, honoured: bool = False
) -> ConfigKey:
    return _key(
        name,
        ConfigType.INT,
        default,
        documentation,
        valid=at_least(low),
        synonym=f"group.{name}" if synonym else None,
        honoured=honoured,
    )


GROUP_KEYS: Final[Mapping[str, ConfigKey]] = by_name(
    [
        _int(
            "consumer.assignment.interval.ms",
            1000,
            "Shortest time between two computations of this consumer group's assignment.",
            low=0,
            honoured=True,
        ),
        _int(
            "consumer.heartbeat.interval.ms",
            5000,
            "How often a member of this consumer group sends a heartbeat.",
            low=1,
            honoured=True,
        ),
        _int(
            "consumer.session.timeout.ms",
            45_000,
            "Silence in milliseconds after which a member of this consumer group is taken for dead.",
            low=1,
            honoured=True,
        ),
        _int(
            "share.assignment.interval.ms",
            1000,
            "Shortest time between two computations of this share group's assignment.",
            low=0,
            honoured=True,
        ),
        _key(
            "share.auto.offset.reset",
            ConfigType.STRING,
            "latest",
            "Where this share group begins in a partition that is new to it: at the end, at the start, or at the given "
            "age.",
            valid=Valid("[latest, earliest, by_duration:PnDTnHnMn.nS]", _share_start),
            honoured=True,
        ),
        _int(
            "share.delivery.count.limit",
            5,
            "How often a record is delivered to this share group before it is given up.",
            low=2,
            honoured=True,
        ),
        _int(
            "share.heartbeat.interval.ms",
            5000,
            "How often a member of this share group sends a heartbeat.",
            low=1,
            honoured=True,
        ),
        _key(
            "share.isolation.level",
            ConfigType.STRING,
            "read_uncommitted",
            "Whether this share group sees records of transactions before they are committed.",
            valid=one_of("read_committed", "read_uncommitted"),
            honoured=True,
        ),
        _int(
            "share.partition.max.record.locks",
            2000,
            "Most records of one partition that this share group may hold without having acknowledged them.",
            low=100,
            honoured=True,
        ),
        _int(
            "share.record.lock.duration.ms",
            30_000,
            "How long a record delivered to this share group stays reserved before it goes to somebody else.",
            low=1000,
            honoured=True,
        ),
        _key(
            "share.renew.acknowledge.enable",
            ConfigType.BOOLEAN,
            "true",
            "Whether members of this share group may extend the reservation of a record.",
            honoured=True,
        ),
        _int(
            "share.session.timeout.ms",
            45_000,
            "Silence in milliseconds after which a member of this share group is taken for dead.",
            low=1,
            honoured=True,
        ),
        _int(
            "streams.assignment.interval.ms",
            1000,
            "Shortest time between two computations of this streams group's assignment.",
            low=0,
        ),
        _int(
            "streams.heartbeat.interval.ms", 5000, "How often a member of this streams group sends a heartbeat.", low=1
        ),
        _int(
            "streams.initial.rebalance.delay.ms",
            3000,
            "How long a new streams group waits for more members before the first assignment.",
            low=0,
        ),
        _int(
            "streams.num.standby.replicas", 0, "Warm copies that this streams group keeps of each stateful task.", low=0
        ),
        _int(
            "streams.session.timeout.ms",
            45_000,
            "Silence in milliseconds after which a member of this streams group is taken for dead.",
            low=1,
        ),
    ]
)

CLIENT_METRICS_KEYS: Final[Mapping[str, ConfigKey]] = by_name(
    [
        _key(
            "interval.ms",
            ConfigType.INT,
            300_000,
            "How often a client that this subscription matches pushes its metrics.",
            honoured=False,
        ),
        _key(
            "match",
            ConfigType.LIST,
            "",
            "Which clients the subscription is for, as key=pattern pairs; empty means all.",
            valid=unique_list(),
            honoured=False,
        ),
        _key(
            "metrics",
            ConfigType.LIST,
            "",
            "Prefixes of the metrics that are wanted; empty means none, * means all.",
            valid=unique_list(),
            honoured=False,
        ),
    ]
)


def parse_configs(keys: Mapping[str, ConfigKey], configs: Mapping[str, str], *, what: str) -> dict[str, Any]:
    """Parse what is set on a group or subscription. Raises InvalidConfig (also for unknown keys)."""
    parsed = {}
    for name, text in configs.items():
        key = keys.get(name)
        if key is None:
            raise InvalidConfig(f"There is no {what} config named {name}.")
        parsed[name] = key.parse(text)
    return parsed


_BOUNDED: Final = {
    "consumer": ("assignment.interval.ms", "heartbeat.interval.ms", "session.timeout.ms"),
    "share": (
        "assignment.interval.ms",
        "delivery.count.limit",
        "heartbeat.interval.ms",
        "partition.max.record.locks",
        "record.lock.duration.ms",
        "session.timeout.ms",
    ),
    "streams": ("assignment.interval.ms", "heartbeat.interval.ms", "session.timeout.ms"),
}
"""Keys of a group that have broker keys with `min.` and `max.` put before the last part of the name."""


def check_group_bounds(values: Mapping[str, Any], config: BrokerConfig) -> None:
    """Check a group's values against what the brokers allow, and against each other. Raises InvalidConfig."""
    for kind, names in _BOUNDED.items():
        for name in names:
            value = values.get(f"{kind}.{name}")
            if value is None:
                continue
            low = config.integer(f"group.{kind}.min.{name}")
            high = config.integer(f"group.{kind}.max.{name}")
            if not low <= value <= high:
                raise InvalidConfig(f"{kind}.{name} must be from {low} to {high}, which the brokers' bounds are.")
        session, heartbeat = (
            values.get(f"{kind}.{name}", config.integer(f"group.{kind}.{name}"))
            for name in ("session.timeout.ms", "heartbeat.interval.ms")
        )
        if heartbeat >= session:
            raise InvalidConfig(f"{kind}.heartbeat.interval.ms must be below {kind}.session.timeout.ms.")
    standbys = values.get("streams.num.standby.replicas")
    if standbys is not None and standbys > config.integer("group.streams.max.standby.replicas"):
        raise InvalidConfig("streams.num.standby.replicas is above what the brokers allow.")


_PUSH_INTERVAL_MS: Final = (100, 3_600_000)
_CLIENT_LABELS: Final = frozenset(
    {
        "client_instance_id",
        "client_id",
        "client_software_name",
        "client_software_version",
        "client_source_address",
        "client_source_port",
    }
)


class InvalidSubscription(InvalidConfig):
    """What a client metrics subscription does not have or allow, where Kafka blames the request."""


def parse_client_metrics(configs: Mapping[str, str]) -> dict[str, Any]:
    """Parse what is set on a client metrics subscription (KIP-714). Raises InvalidConfig, InvalidSubscription."""
    unknown = configs.keys() - CLIENT_METRICS_KEYS.keys()
    if unknown:
        raise InvalidSubscription(f"There is no client metrics config named {min(unknown)}.")
    parsed = parse_configs(CLIENT_METRICS_KEYS, configs, what="client metrics")
    low, high = _PUSH_INTERVAL_MS
    if not low <= parsed.get("interval.ms", low) <= high:
        raise InvalidSubscription(f"interval.ms must be from {low} to {high}.")
    for entry in parsed.get("match", ()):
        label, equals, pattern = entry.partition("=")
        if label.strip() not in _CLIENT_LABELS or not equals or not pattern.strip():
            raise InvalidConfig(f"match has {entry!r}, which is not a client's label and a pattern.")
    return parsed
