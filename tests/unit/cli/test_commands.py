"""What all commands have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from ottla.cli.main import app


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The commands that do something, with their names."""
    nouns = getattr(command, "list_commands", None)
    if nouns is None:
        yield name, command
        return
    context = typer.Context(command)
    for word in nouns(context):
        yield from leaves(command.get_command(context, word), f"{name} {word}".strip())


COMMANDS = dict(leaves(typer.main.get_command(app)))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "serve"])
def test_programs_can_read_what_a_command_says(name: str) -> None:
    assert any("--json" in option.opts for option in COMMANDS[name].params)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_nothing_that_is_not_the_commands_own(name: str) -> None:
    command = COMMANDS[name]
    if name != "demo":
        assert f"Example: {'echo' if name == 'produce' else f'ottla {name}'}" in command.help
    assert not [option for option in command.params if "completion" in option.name]


def test_all_are_seen() -> None:
    assert {"serve", "topics delete", "groups reset-offsets", "transactions fence"} <= COMMANDS.keys()
