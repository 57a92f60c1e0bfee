"""`ottla configs`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ottla.cli.clients import open_admin
from ottla.cli.options import BOOTSTRAP_DEFAULT, AsJson, Bootstrap, key_values
from ottla.cli.output import print_done, print_rows, run
from ottla.client import AlterOperation, ResourceType
from ottla.errors import ErrorCode, KafkaError

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Show and change configurations of topics, brokers and groups."
)
KINDS = {"topic": ResourceType.TOPIC, "broker": ResourceType.BROKER, "group": ResourceType.GROUP}
Kind = Annotated[str, typer.Argument(help="topic, broker or group.")]
Name = Annotated[str, typer.Argument(help="Name of the topic or group, id of the broker.")]


def _kind(word: str) -> ResourceType:
    if word not in KINDS:
        raise typer.BadParameter(f"{word!r} is none of {', '.join(KINDS)}")
    return KINDS[word]


@app.command()
def describe(
    kind: Kind,
    name: Name,
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    all_keys: Annotated[bool, typer.Option("--all", help="Show defaults too.")] = False,
    documentation: Annotated[bool, typer.Option("--doc", help="Say what each key does.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is configured and where it comes from.

    Example: ottla configs describe topic clicks --all --doc
    """

    async def main() -> list[dict[str, Any]]:
        async with open_admin(bootstrap_server) as admin:
            entries = await admin.configs.describe(_kind(kind), name, documentation=documentation)
            return [
                {
                    "name": e.name,
                    "value": e.value,
                    "source": e.source.name,
                    "read_only": e.read_only,
                    "documentation": e.documentation,
                }
                for e in entries
                if all_keys or not e.is_default
            ]

    columns = ["name", "value", "source"] + (["documentation"] if documentation else [])
    print_rows(run(main), columns, as_json=as_json, empty="Nothing is configured: all values are defaults (--all).")


@app.command("set")
def set_values(
    kind: Kind,
    name: Name,
    values: Annotated[list[str], typer.Argument(help="key=value")],
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Set keys; the others stay as they are.

    Example: ottla configs set topic clicks retention.ms=86400000
    """
    changes: dict[str, tuple[AlterOperation, str | None]] = {
        key: (AlterOperation.SET, value) for key, value in key_values(values).items()
    }

    async def main() -> None:
        async with open_admin(bootstrap_server) as admin:
            await admin.configs.alter(_kind(kind), name, changes)

    run(main)
    print_done(
        f"Set {', '.join(changes)} of {kind} {name}.", as_json=as_json, type=kind, name=name, set=key_values(values)
    )


@app.command()
def unset(
    kind: Kind,
    name: Name,
    keys: Annotated[list[str], typer.Argument(help="Keys that are to have their defaults again.")],
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Give keys back their defaults.

    Example: ottla configs unset topic clicks retention.ms
    """
    changes: dict[str, tuple[AlterOperation, str | None]] = dict.fromkeys(keys, (AlterOperation.DELETE, None))

    async def main() -> None:
        async with open_admin(bootstrap_server) as admin:
            known = {entry.name for entry in await admin.configs.describe(_kind(kind), name)}
            for key in keys:
                if key not in known:  # brokers let it pass, as Kafka's do: a misspelt key would stay as it is
                    raise KafkaError(ErrorCode.INVALID_CONFIG, f"{kind} {name!r} has no key named {key}")
            await admin.configs.alter(_kind(kind), name, changes)

    run(main)
    print_done(f"Unset {', '.join(keys)} of {kind} {name}.", as_json=as_json, type=kind, name=name, unset=keys)
