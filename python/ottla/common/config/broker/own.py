"""Keys that Kafka does not have."""

from __future__ import annotations

from typing import Final

from ottla.common.config.broker.row import LIST, LONG, LOW, MEDIUM, STRING, key
from ottla.common.config.definition import ConfigKey, at_least, one_of, one_of_any_case

OWN_KEYS: Final[tuple[ConfigKey, ...]] = (
    key(
        "ottla.http.listeners",
        LIST,
        "",
        MEDIUM,
        "Where /metrics, /livez and /readyz are served, as NAME://host:port; empty means nowhere.",
    ),
    key(
        "ottla.log.dir.tail.max.bytes",
        LONG,
        "67108864",
        LOW,
        "Bytes that a log directory may have taken and not yet written; beyond that, producers wait.",
        valid=at_least(1),
    ),
    key(
        "ottla.log.format",
        STRING,
        "text",
        LOW,
        "Form of the broker's own log, one line an event: text or json.",
        valid=one_of("text", "json"),
    ),
    key(
        "ottla.log.level",
        STRING,
        "info",
        LOW,
        "The least important events that the broker's own log shows.",
        valid=one_of_any_case("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    ),
)
