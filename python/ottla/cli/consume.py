"""`ottla consume`."""

from __future__ import annotations

import base64
import json
import sys
from typing import Annotated, Any, Literal

import anyio
import typer

from ottla.cli.options import BOOTSTRAP_DEFAULT, AsJson, Bootstrap
from ottla.cli.output import run
from ottla.client import Consumer, ConsumerRecord, TopicPartition
from ottla.errors import KafkaError

app = typer.Typer()


@app.command()
def consume(
    topic: Annotated[str, typer.Argument(help="What to read.")],
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    group: Annotated[
        str | None, typer.Option("--group", "-g", help="Share the partitions with the other members of this group.")
    ] = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Start at the oldest record where no offset is committed.")
    ] = False,
    partition: Annotated[int | None, typer.Option("--partition", "-p", help="Read only this one.")] = None,
    offset: Annotated[int | None, typer.Option("--offset", "-o", help="Start here; needs --partition.")] = None,
    max_messages: Annotated[int | None, typer.Option("--max-messages", "-n", help="Stop after so many.")] = None,
    timeout_ms: Annotated[
        int | None, typer.Option("--timeout-ms", help="Stop when nothing came for so long. Default: never.")
    ] = None,
    read_committed: Annotated[
        bool, typer.Option("--read-committed", help="Leave out records of transactions that were not committed.")
    ] = False,
    keys: Annotated[bool, typer.Option("--keys", help="Print the key and a tab before the value.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print one record a line, as it comes, until interrupted.

    Example: ottla consume clicks --from-beginning -n 10 --json
    """
    if offset is not None and partition is None:
        raise typer.BadParameter("--offset needs --partition")
    if group is not None and partition is not None:
        raise typer.BadParameter("--partition reads without a group: leave --group away")
    isolation: Literal["read_committed", "read_uncommitted"] = (
        "read_committed" if read_committed else "read_uncommitted"
    )

    async def main() -> None:
        left = max_messages
        async with Consumer(
            bootstrap_server,
            group_id=group,
            auto_offset_reset="earliest" if from_beginning else "latest",
            isolation_level=isolation,
        ) as consumer:
            await _start(consumer, topic, group, partition, offset)
            idle_since = anyio.current_time()
            while left is None or left > 0:
                records = await consumer.poll(200, max_records=500 if left is None else min(left, 500))
                for record in records:
                    sys.stdout.buffer.write(_line(record, keys=keys, as_json=as_json) + b"\n")
                sys.stdout.buffer.flush()
                if left is not None:
                    left -= len(records)
                if records:
                    idle_since = anyio.current_time()
                elif timeout_ms is not None and anyio.current_time() - idle_since > timeout_ms / 1000:
                    return

    try:
        run(main)
    except KeyboardInterrupt:
        raise typer.Exit from None


async def _start(consumer: Consumer, topic: str, group: str | None, partition: int | None, offset: int | None) -> None:
    if group is not None:
        await consumer.subscribe([topic])
        return
    await consumer.network.refresh_until_known([topic], auto_create=False, timeout_ms=10_000)
    count = consumer.network.view.partition_count(topic) or 0
    if partition is not None and partition >= count:
        from ottla.errors import ErrorCode

        text = f"{topic} has {count} partitions: there is no partition {partition}"
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, text)
    chosen = [TopicPartition(topic, i) for i in (range(count) if partition is None else [partition])]
    await consumer.assign(chosen)
    if offset is not None:
        consumer.seek(chosen[0], offset)


def _line(record: ConsumerRecord, *, keys: bool, as_json: bool) -> bytes:
    if not as_json:
        value = b"" if record.value is None else record.value
        return (b"" if record.key is None else record.key) + b"\t" + value if keys else value
    row: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        **text_of("key", record.key),
        **text_of("value", record.value),
        "headers": [{"name": name, **text_of("value", value)} for name, value in record.headers],
    }
    return json.dumps(row).encode()


def text_of(name: str, data: bytes | None) -> dict[str, str | None]:
    """Bytes as text; what is not UTF-8 goes under `<name>_base64`."""
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
