"""`ottla serve`, where its options have to be explained; plain ones are taken by `ottla.cli.entry`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


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
    from ottla.broker.command_line import settings_of
    from ottla.broker.foreground import run
    from ottla.broker.settings import InvalidSetting

    try:
        settings = settings_of(host=host, port=port, data_dir=data_dir, config=config, assignments=assignments or [])
    except InvalidSetting as error:
        raise typer.BadParameter(str(error)) from error
    raise typer.Exit(run(settings))
