"""Options that many commands share."""

from __future__ import annotations

from typing import Annotated

import typer


def _servers(value: str) -> str:
    from ottla.client.network import InvalidServers, parse_servers

    try:
        parse_servers(value)
    except InvalidServers as error:
        raise typer.BadParameter(str(error)) from error
    return value


Bootstrap = Annotated[
    str,
    typer.Option(
        "--bootstrap-server",
        "-b",
        callback=_servers,
        envvar="OTTLA_BOOTSTRAP_SERVER",
        help="host:port of any broker; several are separated by commas.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
BOOTSTRAP_DEFAULT = "localhost:9092"


def key_values(pairs: list[str]) -> dict[str, str]:
    """`key=value` words as a dict. Raises typer.BadParameter for a word without an equals sign."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} is not key=value")
        found[key] = value
    return found
