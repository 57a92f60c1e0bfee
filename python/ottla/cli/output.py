"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import anyio
from rich.console import Console
from rich.table import Table

T = TypeVar("T")


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run a command's coroutine function."""
    return anyio.run(main, backend="trio")


def print_json(value: Any) -> None:
    print(json.dumps(value, default=str))


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """One row a mapping; `columns` name what is shown and in which order. JSON holds all of each row."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        numeric = all(isinstance(row.get(column), int | None) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*("-" if row.get(c) is None else str(row.get(c)) for c in columns))
    console = Console()
    if not console.is_terminal:
        # A pipe has no width: a column must not be cut there.
        console = Console(width=10_000)
    console.print(table)


def print_done(text: str, *, as_json: bool, **fields: Any) -> None:
    """Say that a change was made: in words, or as an object of what it was made to."""
    if as_json:
        print_json(fields)
    else:
        print(text)
