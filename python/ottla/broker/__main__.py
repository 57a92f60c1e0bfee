"""`python -m ottla.broker`: a broker in the foreground. `ottla serve` is the comfortable way to the same."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ottla.broker.foreground import run
from ottla.broker.settings import InvalidSetting, load_settings


def parse_arguments(arguments: list[str]) -> dict[str, str]:
    """Return the settings that the command line, its files and the environment give."""
    parser = argparse.ArgumentParser(prog="python -m ottla.broker", description=__doc__)
    parser.add_argument("--data-dir", help="where the logs are kept (log.dirs)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on; 0 picks one")
    parser.add_argument("--config", type=Path, help="a Kafka server.properties")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any one key; may be repeated")
    parsed = parser.parse_args(arguments)
    try:
        settings = load_settings(file=parsed.config, environment=os.environ, assignments=parsed.set)
    except (OSError, InvalidSetting) as error:
        parser.error(str(error))
    if parsed.data_dir is not None:
        settings["log.dirs"] = parsed.data_dir
    if parsed.port is not None:
        settings["listeners"] = f"PLAINTEXT://{parsed.host}:{parsed.port}"
    return settings


if __name__ == "__main__":
    sys.exit(run(parse_arguments(sys.argv[1:])))
