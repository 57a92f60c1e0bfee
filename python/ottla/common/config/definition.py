"""What a configuration key is: its type, its default, what it accepts, who may change it and what it does.

Values are text outside (files, the wire, the metadata log) and typed inside; `ConfigKey.parse` goes one way and
`ConfigKey.format` the other. Source of names, types, defaults and bounds: Apache Kafka 4.3.1, asked. The
documentation is ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Final

LONG_MAX: Final = 2**63 - 1


class ConfigType(IntEnum):
    """Kinds of values, numbered as DescribeConfigs answers them."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class ConfigSource(IntEnum):
    """Where an effective value came from, numbered as DescribeConfigs answers it. Lower ones win."""

    TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5
    BROKER_LOGGER = 6
    CLIENT_METRICS = 7
    GROUP = 8


class ResourceType(IntEnum):
    """What can be configured, numbered as on the wire."""

    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


class UpdateMode(Enum):
    """Whether a broker's key can change while it runs, and for whom."""

    READ_ONLY = "read-only"
    PER_BROKER = "per-broker"
    CLUSTER_WIDE = "cluster-wide"


class Importance(Enum):
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class InvalidConfig(ValueError):
    """A value that its key does not accept, or a key that does not exist. The text is fit for a client."""


@dataclass(frozen=True, slots=True)
class Valid:
    """What a key accepts beyond its type: `text` says it, `check` returns what is wrong with a value, or None."""

    text: str
    check: Callable[[Any], str | None]


def at_least(low: float) -> Valid:
    return Valid(f"[{low},...]", lambda value: f"it must be at least {low}" if value < low else None)


def between(low: float, high: float) -> Valid:
    def check(value: float) -> str | None:
        return None if low <= value <= high else f"it must be from {low} to {high}"

    return Valid(f"[{low},...,{high}]", check)


def one_of(*names: str) -> Valid:
    accepted = ", ".join(names)
    return Valid(f"[{accepted}]", lambda value: None if value in names else f"it must be one of {accepted}")


def one_of_any_case(*names: str) -> Valid:
    accepted = ", ".join(names)

    def check(value: str) -> str | None:
        return None if value.upper() in names else f"it must be one of {accepted}, in any case"

    return Valid(f"(case insensitive) [{accepted}]", check)


def unique_list(*names: str, empty_allowed: bool = True) -> Valid:
    """A list without empty entries, each among `names` if any are given (KIP-1161). Repeated ones count once."""
    accepted = ", ".join(names)

    def check(value: tuple[str, ...]) -> str | None:
        if not value and not empty_allowed:
            return "the list must not be empty"
        if "" in value:
            return "no entry may be empty"
        if names and (unknown := [entry for entry in value if entry not in names]):
            return f"{unknown[0]} is not one of {accepted}"
        return None

    return Valid(f"[{accepted}]" if names else "", check)


NON_EMPTY: Final = Valid("non-empty string", lambda value: None if value else "it must not be empty")
ANYTHING: Final = Valid("", lambda _value: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigKey:
    """One key.

    Attributes:
        default: As text; None where there is none, or where another key stands in.
        mode: Who may change it while a broker runs; keys of topics, groups and client metrics are always dynamic.
        synonyms: Broker keys that stand in when a topic or group does not set the key, with the factor from their
            unit to this key's; or, for a broker key, the other keys of the same quantity. First hit wins.
        documentation: What it does here, in a sentence or two.
        honoured: False if the value is kept and shown but nothing here acts on it.
        internal: Accepted, never described.
    """

    name: str
    type: ConfigType
    default: str | None
    valid: Valid = ANYTHING
    importance: Importance = Importance.MEDIUM
    mode: UpdateMode = UpdateMode.READ_ONLY
    synonyms: tuple[tuple[str, int], ...] = ()
    documentation: str = ""
    honoured: bool = True
    internal: bool = False

    @property
    def is_sensitive(self) -> bool:
        """Whether the value is a secret, which no answer may hold."""
        return self.type is ConfigType.PASSWORD

    @property
    def full_documentation(self) -> str:
        """The documentation as DescribeConfigs answers it."""
        return self.documentation if self.honoured else f"{self.documentation} {NOT_HONOURED}"

    def parse(self, text: str) -> Any:
        """Return the typed value: bool, int, float, str or tuple of str. Raises InvalidConfig."""
        try:
            value = _PARSE[self.type](text.strip())
        except ValueError:
            raise self._refusal(text, f"it is not of type {self.type.name}") from None
        wrong = self.valid.check(value)
        if wrong is not None:
            raise self._refusal(text, wrong)
        return value

    def entries(self, text: str) -> tuple[str, ...]:
        """The entries of a list as they stand in its text, unchecked."""
        return _list(text.strip())

    def _refusal(self, text: str, wrong: str) -> InvalidConfig:
        shown = "the given value" if self.is_sensitive else f"value {text!r}"
        return InvalidConfig(f"{self.name} does not accept {shown}: {wrong}.")

    def format(self, value: Any) -> str | None:
        """The text of a typed value, as Kafka writes it."""
        if value is None:
            return None
        if self.type is ConfigType.BOOLEAN:
            return "true" if value else "false"
        if self.type is ConfigType.DOUBLE:
            return java_double(value)
        if self.type is ConfigType.LIST:
            return ",".join(value)
        return str(value)


NOT_HONOURED: Final = "Kept and shown for compatibility; it has no effect in Ottla."

_INTEGER = re.compile(r"[+-]?[0-9]+\Z")


def _integer(bits: int) -> Callable[[str], int]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def parse(text: str) -> int:
        if not _INTEGER.match(text) or len(text) > 20 or not low <= int(text) <= high:
            raise ValueError(text)
        return int(text)

    return parse


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered not in ("true", "false"):
        raise ValueError(text)
    return lowered == "true"


def _double(text: str) -> float:
    if "_" in text:
        raise ValueError(text)
    return float(text)


def _list(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry.strip() for entry in text.split(","))) if text else ()


_PARSE: Final[Mapping[ConfigType, Callable[[str], Any]]] = {
    ConfigType.BOOLEAN: _boolean,
    ConfigType.STRING: str,
    ConfigType.INT: _integer(32),
    ConfigType.SHORT: _integer(16),
    ConfigType.LONG: _integer(64),
    ConfigType.DOUBLE: _double,
    ConfigType.LIST: _list,
    ConfigType.CLASS: str,
    ConfigType.PASSWORD: str,
}


def java_double(value: float) -> str:
    """A double in the notation of Java's `Double.toString`, which Kafka's answers use."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    tail = "".join(map(str, digits[1:])) or "0"
    return f"{'-' if sign else ''}{digits[0]}.{tail}E{exponent + len(digits) - 1}"


def by_name(keys: Iterable[ConfigKey]) -> dict[str, ConfigKey]:
    """Index keys by name. Two keys of one name are a mistake in the tables."""
    table: dict[str, ConfigKey] = {}
    for key in keys:
        if key.name in table:
            raise ValueError(f"{key.name} is defined twice")
        table[key.name] = key
    return table
