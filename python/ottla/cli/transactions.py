"""`ottla transactions`."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ottla.cli.clients import open_admin
from ottla.cli.options import BOOTSTRAP_DEFAULT, AsJson, Bootstrap
from ottla.cli.output import print_json, print_rows, run
from ottla.client.admin import Admin
from ottla.client.transactions import ProducerState
from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode, KafkaError

HANGING_AFTER_MINUTES = 15
"""The longest timeout that brokers allow a transaction, unless they are configured otherwise."""
PRODUCER_COLUMNS = [
    "topic",
    "partition",
    "producer_id",
    "producer_epoch",
    "last_sequence",
    "last_timestamp",
    "transaction_start_offset",
]

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Show transactions, find those that hang, and end them."
)


def _partition(text: str) -> TopicPartition:
    topic, colon, index = text.rpartition(":")
    if not colon or not topic or not index.isdigit():
        raise typer.BadParameter(f"{text!r} is not topic:partition")
    return TopicPartition(topic, int(index))


def _time(timestamp_ms: int | None) -> str | None:
    if timestamp_ms is None or timestamp_ms < 0:
        return None
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _producer_row(producer: ProducerState) -> dict[str, Any]:
    row = asdict(producer)
    row |= {"topic": producer.partition.topic, "partition": producer.partition.partition}
    return row | {"last_timestamp": _time(row.pop("last_timestamp_ms"))}


Id = Annotated[str, typer.Argument(help="The transactional id.")]
At = Annotated[str, typer.Argument(help="The partition, as topic:partition.")]


@app.command("list")
def list_transactions(
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    state: Annotated[list[str] | None, typer.Option("--state", help="Only in this state. Repeatable.")] = None,
    pattern: Annotated[str | None, typer.Option("--pattern", help="Only ids that this expression matches.")] = None,
    older_than: Annotated[
        float | None, typer.Option("--older-than", help="Only those begun more than so many seconds ago.", min=0)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List transactional ids with the state of their latest transaction.

    Example: ottla transactions list --state Ongoing --older-than 60
    """

    async def main() -> list[dict[str, Any]]:
        async with open_admin(bootstrap_server) as admin:
            found = await admin.transactions.list_transactions(
                states=state or (),
                pattern=pattern,
                older_than_ms=-1 if older_than is None else round(older_than * 1000),
            )
            return [asdict(t) for t in found]

    columns = ["transactional_id", "producer_id", "state", "coordinator_id"]
    print_rows(run(main), columns, as_json=as_json, empty="There are no transactional ids.")


@app.command()
def describe(transactional_id: Id, bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT, as_json: AsJson = False) -> None:
    """Show one transactional id: its producer, its state, and the partitions of the open transaction.

    Example: ottla transactions describe payments-1
    """

    async def main() -> dict[str, Any]:
        async with open_admin(bootstrap_server) as admin:
            found = await admin.transactions.describe(transactional_id)
            row = asdict(found) | {"partitions": [str(p) for p in found.partitions]}
            return row | {"begun": _time(row.pop("start_timestamp_ms"))}

    found = run(main)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        print(f"{name.replace('_', ' ')}: {', '.join(value) if isinstance(value, list) else value}")


@app.command()
def producers(partition: At, bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT, as_json: AsJson = False) -> None:
    """Show the producers that a partition remembers, and which have a transaction open there.

    Example: ottla transactions producers payments:0
    """
    at = _partition(partition)

    async def main() -> list[dict[str, Any]]:
        async with open_admin(bootstrap_server) as admin:
            return [_producer_row(p) for p in await admin.transactions.producers(at)]

    print_rows(run(main), PRODUCER_COLUMNS, as_json=as_json, empty="There are no producers.")


@app.command("find-hanging")
def find_hanging(
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    topic: Annotated[list[str] | None, typer.Option("--topic", "-t", help="Only this topic. Repeatable.")] = None,
    older_than_minutes: Annotated[
        float, typer.Option("--older-than-minutes", help="Silent for so long. Younger ones may be about to end.", min=0)
    ] = HANGING_AFTER_MINUTES,
    as_json: AsJson = False,
) -> None:
    """Find transactions that are open in a partition although no coordinator knows them: nobody will end them.

    Example: ottla transactions find-hanging --topic payments
    """

    async def main() -> list[dict[str, Any]]:
        async with open_admin(bootstrap_server) as admin:
            topics = await (admin.topics.describe(topic) if topic else admin.topics.list_topics(internal=True))
            partitions = [TopicPartition(t.name, p) for t in topics for p in t.partitions]
            found = await admin.transactions.find_hanging(
                partitions, now_ms=round(time.time() * 1000), older_than_ms=round(older_than_minutes * 60_000)
            )
            return [_producer_row(p) for p in found]

    print_rows(run(main), PRODUCER_COLUMNS, as_json=as_json, empty="No transaction hangs.")


@app.command()
def abort(
    partition: At,
    start_offset: Annotated[int, typer.Option("--start-offset", help="Where the transaction begins in the partition.")],
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Abort a transaction that hangs in a partition, as `find-hanging` and `producers` show it.

    Example: ottla transactions abort payments:0 --start-offset 1200
    """
    at = _partition(partition)

    async def main() -> ProducerState:
        async with open_admin(bootstrap_server) as admin:
            producer = await _open_at(admin, at, start_offset)
            await admin.transactions.abort(producer)
            return producer

    row = _producer_row(run(main))
    if as_json:
        print_json(row)
    else:
        print(f"Aborted the transaction of producer {row['producer_id']} in {at}.")


async def _open_at(admin: Admin, at: TopicPartition, start_offset: int) -> ProducerState:
    """Raises: KafkaError."""
    for producer in await admin.transactions.producers(at):
        if producer.transaction_start_offset == start_offset:
            return producer
    raise KafkaError(ErrorCode.INVALID_TXN_STATE, f"no transaction that is open in {at} begins at {start_offset}")


@app.command()
def fence(transactional_id: Id, bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT, as_json: AsJson = False) -> None:
    """Abort what a transactional id has open, and shut out the producer that uses it.

    Example: ottla transactions fence payments-1
    """

    async def main() -> tuple[int, int]:
        async with open_admin(bootstrap_server) as admin:
            await admin.transactions.describe(transactional_id)  # one that nobody has is not made
            return await admin.transactions.fence(transactional_id)

    producer_id, epoch = run(main)
    if as_json:
        print_json({"transactional_id": transactional_id, "producer_id": producer_id, "producer_epoch": epoch})
    else:
        print(f"{transactional_id}: fenced; producer {producer_id} is at epoch {epoch}.")
