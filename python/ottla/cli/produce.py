"""`ottla produce`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import anyio.to_thread
import typer

from ottla.cli.clients import REACH_TIMEOUT_MS
from ottla.cli.options import BOOTSTRAP_DEFAULT, AsJson, Bootstrap, key_values
from ottla.cli.output import print_json, run
from ottla.client import Delivery, Producer
from ottla.client.producer import Compression

app = typer.Typer(add_completion=False)
LINES_A_TURN = 1_000
COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")


@app.command()
def produce(
    topic: Annotated[str, typer.Argument(help="Where to write; created if the broker allows it.")],
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Read this instead of standard input.", exists=True, dir_okay=False),
    ] = None,
    key_separator: Annotated[
        str | None, typer.Option("--key-separator", "-K", help="What stands between key and value in a line.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", "-k", help="The key of every record.")] = None,
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="name=value. Repeatable.")] = None,
    partition: Annotated[int | None, typer.Option("--partition", "-p", help="Write to this partition.", min=0)] = None,
    acks: Annotated[str, typer.Option("--acks", help="all, 1 or 0.")] = "all",
    compression: Annotated[str, typer.Option("--compression", "-z", help=", ".join(COMPRESSIONS))] = "none",
    null_marker: Annotated[
        str | None, typer.Option("--null-marker", help="A value that reads like this is written as null (a tombstone).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one record a line.

    Example: echo "user-1:hello" | ottla produce clicks -K :
    """
    if acks not in ("all", "-1", "0", "1"):
        raise typer.BadParameter("--acks takes all, 1 or 0")
    if compression not in COMPRESSIONS:
        raise typer.BadParameter(f"--compression takes one of {', '.join(COMPRESSIONS)}")
    if key_separator == "":
        raise typer.BadParameter("--key-separator is empty")
    headers = tuple((name, value.encode()) for name, value in key_values(header or []).items())

    def record(line: bytes) -> tuple[bytes | None, bytes | None]:
        text = line.rstrip(b"\r\n")
        own_key = key.encode() if key is not None else None
        if key_separator is not None:
            before, separator, after = text.partition(key_separator.encode())
            if separator:
                own_key, text = before, after
        return own_key, None if null_marker is not None and text == null_marker.encode() else text

    async def main(source: BinaryIO) -> int:
        count = 0
        deliveries: list[Delivery] = []
        async with Producer(
            bootstrap_server,
            acks="all" if acks in ("all", "-1") else (1 if acks == "1" else 0),
            compression_type=cast(Compression, compression),
        ) as producer:
            await producer.network.reach(timeout_ms=REACH_TIMEOUT_MS)
            lines = iter(source)
            while some := await anyio.to_thread.run_sync(_take, lines, abandon_on_cancel=True):
                for line in some:
                    own_key, value = record(line)
                    deliveries.append(
                        await producer.send(topic, value, key=own_key, partition=partition, headers=headers)
                    )
                count += len(some)
                deliveries = [d for d in deliveries if not d.is_done or await d.wait() is None]
            await producer.flush()
            for delivery in deliveries:
                await delivery.wait()
        return count

    with ExitStack() as stack:
        source = stack.enter_context(file.open("rb")) if file else sys.stdin.buffer
        count = run(partial(main, source))
    if as_json:
        print_json({"topic": topic, "records": count})
    elif sys.stderr.isatty():
        print(f"Wrote {count} records to {topic}.", file=sys.stderr)


def _take(lines: Iterator[bytes]) -> list[bytes]:
    """Some lines: those that are there already after the first, without waiting for a full turn at a terminal."""
    first = next(lines, None)
    if first is None:
        return []
    if sys.stdin.isatty():
        return [first]
    return [first, *(line for _, line in zip(range(LINES_A_TURN - 1), lines, strict=False))]
