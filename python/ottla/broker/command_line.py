"""The options of a broker in the foreground, for `ottla serve` and `python -m ottla.broker`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from ottla.broker.settings import InvalidSetting, load_settings

HOST_DEFAULT: Final = "127.0.0.1"
PORT_DEFAULT: Final = 9092
DATA_DIR_DEFAULT: Final = "./ottla-data"


class Unclear(ValueError):
    """Options that have to be explained to somebody: unknown, malformed, or a wish for help."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Unclear(message)


def settings_of(
    *, host: str | None, port: int | None, data_dir: str | None, config: Path | None, assignments: Iterable[str]
) -> dict[str, str]:
    """Return a broker's settings by Kafka's keys; later ones win: the file, the environment, assignments, the options.

    Raises: OSError (the file), InvalidSetting.
    """
    settings = load_settings(file=config, environment=os.environ, assignments=assignments)
    if data_dir == "":  # a variable of the shell that is not set
        raise InvalidSetting("--data-dir is empty")
    if data_dir is not None:
        settings["log.dirs"] = data_dir
    elif "log.dirs" not in settings and "log.dir" not in settings:
        settings["log.dirs"] = DATA_DIR_DEFAULT
    if host is not None or port is not None or "listeners" not in settings:
        address = host or HOST_DEFAULT
        bracketed = f"[{address}]" if ":" in address else address
        settings["listeners"] = f"PLAINTEXT://{bracketed}:{PORT_DEFAULT if port is None else port}"
    return settings


def parse(arguments: Sequence[str]) -> dict[str, str]:
    """Return the settings that plain options give. Raises: Unclear."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--host")
    parser.add_argument("--port", "-p", type=int)
    parser.add_argument("--data-dir", "-d")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", action="append", default=[])
    found = parser.parse_args(arguments)
    try:
        return settings_of(
            host=found.host, port=found.port, data_dir=found.data_dir, config=found.config, assignments=found.set
        )
    except (OSError, InvalidSetting) as error:
        raise Unclear(str(error)) from error
