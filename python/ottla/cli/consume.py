"""`ottla consume`."""

from __future__ import annotations

import base64
import json
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import anyio
import typer

from ottla.cli.clients import REACH_TIMEOUT_MS
from ottla.cli.options import BOOTSTRAP_DEFAULT, AsJson, Bootstrap
from ottla.cli.output import run
from ottla.client import Consumer, ConsumerRecord, TopicPartition
from ottla.errors import ErrorCode, KafkaError

app = typer.Typer(add_completion=False)
POLL_MS = 200
RECORDS_A_POLL = 500
PATIENCE_MS = 2_000
"""How long a broker or a topic may be away before that is said."""


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
    partition: Annotated[int | None, typer.Option("--partition", "-p", help="Read only this one.", min=0)] = None,
    offset: Annotated[int | None, typer.Option("--offset", "-o", help="Start here; needs --partition.", min=0)] = None,
    max_messages: Annotated[int | None, typer.Option("--max-messages", "-n", help="Stop after so many.", min=0)] = None,
    timeout_ms: Annotated[
        int | None, typer.Option("--timeout-ms", help="Stop when nothing came for so long. Default: never.", min=0)
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
        async with Consumer(
            bootstrap_server,
            group_id=group,
            auto_offset_reset="earliest" if from_beginning else "latest",
            isolation_level=isolation,
            allow_auto_create_topics=False,
        ) as consumer:
            await consumer.network.reach(timeout_ms=REACH_TIMEOUT_MS)
            await _start(consumer, topic, group, partition, offset)
            async with anyio.create_task_group() as tasks:
                # Interrupted or not, a member commits and leaves, so that others have its partitions at once.
                tasks.start_soon(_cancel_on_signal, tasks.cancel_scope)
                await _read(consumer, write, count_max=max_messages, idle_ms_max=timeout_ms)
                tasks.cancel_scope.cancel()

    def write(record: ConsumerRecord) -> None:
        sys.stdout.buffer.write(_line(record, keys=keys, as_json=as_json) + b"\n")

    run(main)


async def _cancel_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return


async def _read(
    consumer: Consumer, write: Callable[[ConsumerRecord], None], *, count_max: int | None, idle_ms_max: int | None
) -> None:
    """Read until so many came, or nothing for so long. Says on standard error what keeps it from reading."""
    left = count_max
    idle_since = trouble_since = anyio.current_time()
    said: str | None = None
    while left is None or left > 0:
        wait_ms = POLL_MS if idle_ms_max is None else min(POLL_MS, idle_ms_max)
        records = await consumer.poll(
            wait_ms, max_records=RECORDS_A_POLL if left is None else min(left, RECORDS_A_POLL)
        )
        for record in records:
            write(record)
        sys.stdout.buffer.flush()
        if left is not None:
            left -= len(records)
        now, trouble = anyio.current_time(), consumer.trouble
        if records:
            idle_since = now
        elif idle_ms_max is not None and now - idle_since >= idle_ms_max / 1000:
            if trouble is not None:
                raise trouble
            return
        if trouble is None:
            trouble_since, said = now, None
        elif now - trouble_since >= PATIENCE_MS / 1000:
            if trouble.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                raise trouble
            if said is None:
                said = str(trouble)
                print(f"ottla: {said}; trying again", file=sys.stderr)


async def _start(consumer: Consumer, topic: str, group: str | None, partition: int | None, offset: int | None) -> None:
    if group is not None:
        await consumer.subscribe([topic])
        return
    await consumer.network.refresh_until_known([topic], auto_create=False, timeout_ms=PATIENCE_MS)
    count = consumer.network.view.partition_count(topic) or 0
    if partition is not None and partition >= count:
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
