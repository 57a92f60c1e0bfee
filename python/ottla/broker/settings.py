"""Where a broker's configuration comes from: a properties file, the environment, single keys; later ones win."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ottla.broker.properties import parse_properties

ENVIRONMENT_PREFIX: Final = "OTTLA_"
OTHERS_VARIABLES: Final = frozenset({"OTTLA_BOOTSTRAP_SERVER"})
"""Read by the commands that are clients, and no key of a broker."""


class InvalidSetting(ValueError):
    """A `key=value` or a variable that cannot be understood."""


def key_of_variable(name: str) -> str:
    """The key that an environment variable sets, by the rule of Kafka's container images.

    `OTTLA_LOG_RETENTION_MS` is `log.retention.ms`; a double underscore is an underscore, a triple one a dash.
    """
    text = name.removeprefix(ENVIRONMENT_PREFIX).lower()
    return text.replace("___", "-").replace("__", "\\0").replace("_", ".").replace("\\0", "_")


def load_settings(
    *, file: Path | None = None, environment: Mapping[str, str] | None = None, assignments: Iterable[str] = ()
) -> dict[str, str]:
    """Return keys and values as given.

    Args:
        file: A Kafka `server.properties`.
        environment: Variables that start with OTTLA_ set keys, see `key_of_variable`.
        assignments: `key=value`, from the command line.
    Raises: OSError (the file), InvalidSetting.
    """
    try:
        settings = parse_properties(file.read_text()) if file is not None else {}
    except ValueError as error:  # InvalidProperties, or bytes that are no text
        raise InvalidSetting(f"{file}: {error}") from error
    for name, value in (environment or {}).items():
        if name.startswith(ENVIRONMENT_PREFIX) and name not in OTHERS_VARIABLES:
            settings[key_of_variable(name)] = value
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise InvalidSetting(f"{assignment!r} is not key=value")
        settings[key.strip()] = value.strip()
    return settings
