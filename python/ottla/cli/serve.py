"""`ottla serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
PORT_DEFAULT = 9092


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on. Default: 127.0.0.1; 0.0.0.0 is every address.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="0 picks a free one. Default: 9092.")] = None,
    data_dir: Annotated[
        str | None, typer.Option("--data-dir", "-d", help="Where records are kept (log.dirs). Default: ./ottla-data.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A Kafka server.properties.", exists=True, dir_okay=False)
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any one key of Kafka's. Repeatable.")
    ] = None,
) -> None:
    """Start a broker in the foreground. A fresh directory is formatted; SIGTERM and Ctrl-C stop cleanly.

    Later ones win: --config, variables (OTTLA_LOG_RETENTION_MS sets log.retention.ms), --set, the other options.
    Without advertised.listeners clients are told the address that they connected to.

    Example: ottla serve --port 9092 --data-dir ./data --set num.partitions=6
    """
    from ottla.broker.foreground import run
    from ottla.broker.settings import InvalidSetting, load_settings

    try:
        settings = load_settings(file=config, environment=os.environ, assignments=assignments or [])
    except InvalidSetting as error:
        raise typer.BadParameter(str(error)) from error
    if data_dir is not None:
        settings["log.dirs"] = data_dir
    elif "log.dirs" not in settings and "log.dir" not in settings:
        settings["log.dirs"] = "./ottla-data"
    if host is not None or port is not None or "listeners" not in settings:
        address = host or "127.0.0.1"
        bracketed = f"[{address}]" if ":" in address else address
        settings["listeners"] = f"PLAINTEXT://{bracketed}:{PORT_DEFAULT if port is None else port}"
    raise typer.Exit(run(settings))
