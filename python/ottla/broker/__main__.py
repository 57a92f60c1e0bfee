"""`python -m ottla.broker`: a broker in the foreground. `ottla serve` is the comfortable way to the same."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import trio

from ottla.broker.data_dirs import InvalidDataDirectory
from ottla.broker.event_log import configure_logging
from ottla.broker.server import SWITCH_INTERVAL_S, Ready, Server, the_error
from ottla.broker.settings import load_settings
from ottla.common.endpoints import InvalidEndpoint


def parse_arguments(arguments: list[str]) -> dict[str, str]:
    """Return the settings that the command line, its files and the environment give."""
    parser = argparse.ArgumentParser(prog="python -m ottla.broker", description=__doc__)
    parser.add_argument("--data-dir", help="where the logs are kept (log.dirs)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on; 0 picks one")
    parser.add_argument("--config", type=Path, help="a Kafka server.properties")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any one key; may be repeated")
    parsed = parser.parse_args(arguments)
    settings = load_settings(file=parsed.config, environment=os.environ, assignments=parsed.set)
    if parsed.data_dir is not None:
        settings["log.dirs"] = parsed.data_dir
    if parsed.port is not None:
        settings["listeners"] = f"PLAINTEXT://{parsed.host}:{parsed.port}"
    return settings


async def serve(settings: dict[str, str]) -> None:
    """Serve until SIGTERM or SIGINT, which stop cleanly; a second one ends the process."""
    server = Server(settings)

    async def stop_on_signal(*, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                server.stop()
                break

    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal)
        ready: Ready = await nursery.start(server.run)
        print(f"listening on {', '.join(map(str, ready.listeners.values()))}", flush=True)
        await server.wait_stopped()
        nursery.cancel_scope.cancel()


def main() -> int:
    settings = parse_arguments(sys.argv[1:])
    configure_logging(
        level=settings.get("ottla.log.level", "info"), as_json=settings.get("ottla.log.format", "text") == "json"
    )
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        trio.run(serve, settings)
    except BaseException as raised:
        error = the_error(raised)
        if not isinstance(error, (OSError, InvalidDataDirectory, InvalidEndpoint)):
            raise
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
