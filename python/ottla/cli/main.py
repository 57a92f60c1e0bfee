"""The command `ottla`. A noun's module is imported when it is named, so that `ottla serve` starts at once."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

COMMANDS = {
    "serve": "Start a broker in the foreground.",
    "demo": "See a broker, two producers and two consumer groups at work.",
    "topics": "List, create, describe, grow and delete topics.",
    "produce": "Write records from standard input or a file.",
    "consume": "Read records, alone or as a member of a group.",
    "groups": "List and describe groups, reset and delete their offsets.",
    "transactions": "Show transactions, find those that hang, and end them.",
    "configs": "Show and change configurations of topics, brokers and groups.",
    "cluster": "Show brokers and log directories.",
    "dump": "Show what segments, indexes and internal topics hold, without a server.",
    "check": "Verify a data directory offline: says exactly what is damaged and where.",
}


class NounGroup(TyperGroup):
    """Finds a command by importing `ottla.cli.<name>`, whose `app` it is."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(import_module(f"ottla.cli.{cmd_name}").app)
        command.name = cmd_name
        command.short_help = COMMANDS[cmd_name]
        return command


app = typer.Typer(
    cls=NounGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("ottla"))
        raise typer.Exit


@app.callback()
def ottla(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    """Ottla: the Kafka that you pip install.

    Start with [bold]ottla demo[/bold], then [bold]ottla serve[/bold]. Every Kafka client is a client of it.
    """


def main() -> None:
    """The entry point. Errors of a broker, the network or a file are one line on standard error and exit status 1."""
    from ottla.errors import KafkaError

    try:
        app(prog_name="ottla")
    except BrokenPipeError:
        _leave_quietly()
    except (KafkaError, OSError) as refused:
        _fail(refused)
    except BaseExceptionGroup as group:
        expected, rest = group.split((KafkaError, OSError, KeyboardInterrupt))
        if expected is None or rest is not None:
            raise
        error = _first(expected)
        if isinstance(error, BrokenPipeError):
            _leave_quietly()
        if isinstance(error, KeyboardInterrupt):
            sys.exit(130)
        _fail(error)


def _leave_quietly() -> NoReturn:
    """The reader of our output (`| head`) has seen enough; what is left in the buffer has nowhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _fail(error: BaseException) -> NoReturn:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    print(f"ottla: {text}", file=sys.stderr)
    sys.exit(1)
