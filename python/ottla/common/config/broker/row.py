"""How the tables of broker keys are written: one row a key."""

from __future__ import annotations

from typing import Final

from ottla.common.config.definition import ANYTHING, ConfigKey, ConfigType, Importance, UpdateMode, Valid

BOOLEAN: Final = ConfigType.BOOLEAN
STRING: Final = ConfigType.STRING
INT: Final = ConfigType.INT
SHORT: Final = ConfigType.SHORT
LONG: Final = ConfigType.LONG
DOUBLE: Final = ConfigType.DOUBLE
LIST: Final = ConfigType.LIST
CLASS: Final = ConfigType.CLASS
PASSWORD: Final = ConfigType.PASSWORD
HIGH: Final = Importance.HIGH
MEDIUM: Final = Importance.MEDIUM
LOW: Final = Importance.LOW
PER_BROKER: Final = UpdateMode.PER_BROKER
CLUSTER_WIDE: Final = UpdateMode.CLUSTER_WIDE


def key(
    name: str,
    kind: ConfigType,
    default: str | None,
    importance: Importance,
    documentation: str,
    *,
    valid: Valid = ANYTHING,
    mode: UpdateMode = UpdateMode.READ_ONLY,
    synonyms: tuple[str, ...] = (),
    honoured: bool = True,
) -> ConfigKey:
    """A key that does something here."""
    return ConfigKey(
        name=name,
        type=kind,
        default=default,
        valid=valid,
        importance=importance,
        mode=mode,
        synonyms=tuple((synonym, 1) for synonym in synonyms),
        documentation=documentation,
        honoured=honoured,
    )


def unused(
    name: str,
    kind: ConfigType,
    default: str | None,
    importance: Importance,
    documentation: str,
    *,
    valid: Valid = ANYTHING,
    mode: UpdateMode = UpdateMode.READ_ONLY,
) -> ConfigKey:
    """A key of Kafka that is kept and shown, and changes nothing here."""
    return key(name, kind, default, importance, documentation, valid=valid, mode=mode, honoured=False)


def internal(
    name: str,
    kind: ConfigType,
    default: str | None,
    *,
    valid: Valid = ANYTHING,
    mode: UpdateMode = UpdateMode.READ_ONLY,
    honoured: bool = False,
) -> ConfigKey:
    """A key for Kafka's own tests: accepted, never shown."""
    return ConfigKey(name=name, type=kind, default=default, valid=valid, mode=mode, honoured=honoured, internal=True)
