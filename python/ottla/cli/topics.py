"""`ottla topics`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ottla.cli.clients import open_admin
from ottla.cli.options import BOOTSTRAP_DEFAULT, AsJson, Bootstrap, key_values
from ottla.cli.output import print_done, print_json, print_rows, run
from ottla.client import NewTopic

PATIENCE_MS = 2_000
"""How long a partition that cannot tell its offsets is asked again."""
app = typer.Typer(add_completion=False, no_args_is_help=True, help="List, create, describe, grow and delete topics.")
Name = Annotated[str, typer.Argument(help="The topic's name.")]


@app.command("list")
def list_topics(
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    internal: Annotated[bool, typer.Option("--internal", help="Show internal topics too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List topics with their partitions and replicas.

    Example: ottla topics list --internal
    """

    async def main() -> list[dict[str, Any]]:
        async with open_admin(bootstrap_server) as admin:
            return [
                {
                    "name": t.name,
                    "partitions": len(t.partitions),
                    "replication_factor": max((len(p.replicas) for p in t.partitions.values()), default=0),
                    "topic_id": str(t.topic_id),
                }
                for t in await admin.topics.list_topics(internal=internal)
            ]

    rows = run(main)
    print_rows(rows, ["name", "partitions", "replication_factor"], as_json=as_json, empty="There are no topics.")


@app.command()
def create(
    name: Name,
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    partitions: Annotated[int, typer.Option("--partitions", "-p", help="-1: the broker's num.partitions.")] = -1,
    replication_factor: Annotated[
        int, typer.Option("--replication-factor", "-r", help="-1: the broker's default.replication.factor.")
    ] = -1,
    config: Annotated[
        list[str] | None, typer.Option("--config", "-c", help="key=value, e.g. cleanup.policy=compact. Repeatable.")
    ] = None,
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Succeed if it is there already.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let the broker check it and create nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create a topic.

    Example: ottla topics create clicks -p 6 -c retention.ms=86400000
    """
    from ottla.errors import ErrorCode, KafkaError

    async def main() -> dict[str, Any]:
        topic = NewTopic(
            name=name, partitions=partitions, replication_factor=replication_factor, configs=key_values(config or [])
        )
        async with open_admin(bootstrap_server) as admin:
            try:
                created = (await admin.topics.create([topic], validate_only=dry_run))[0]
            except KafkaError as error:
                if not (if_not_exists and error.code is ErrorCode.TOPIC_ALREADY_EXISTS):
                    raise
                return {"name": name, "created": False}
            return {
                "name": name,
                "created": not dry_run,
                "partitions": created.partitions,
                "replication_factor": created.replication_factor,
            }

    result = run(main)
    if as_json:
        print_json(result)
    elif result["created"]:
        print(f"Created {name} with {result['partitions']} partitions.")
    else:
        print(f"{name} could be created." if dry_run and "partitions" in result else f"{name} is there already.")


@app.command()
def describe(name: Name, bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT, as_json: AsJson = False) -> None:
    """Show a topic's partitions: leader, replicas, in-sync replicas, offsets.

    Example: ottla topics describe clicks
    """
    from ottla.client import TopicPartition
    from ottla.client.offsets import EARLIEST, LATEST

    async def main() -> list[dict[str, Any]]:
        async with open_admin(bootstrap_server) as admin:
            (topic,) = await admin.topics.describe([name])
            led = [TopicPartition(name, i) for i, p in topic.partitions.items() if p.leader_id >= 0]
            starts, no_starts = await admin.offsets.list_offsets_patiently(
                dict.fromkeys(led, EARLIEST), patience_ms=PATIENCE_MS
            )
            ends, no_ends = await admin.offsets.list_offsets_patiently(dict.fromkeys(starts, LATEST), patience_ms=0)
            errors = {at.partition: error.code.name for at, error in (no_starts | no_ends).items()}
            return [
                {
                    "partition": index,
                    "leader": p.leader_id,
                    "leader_epoch": p.leader_epoch,
                    "replicas": list(p.replicas),
                    "isr": list(p.isr),
                    "log_start_offset": found.offset if (found := starts.get(TopicPartition(name, index))) else None,
                    "high_watermark": found.offset if (found := ends.get(TopicPartition(name, index))) else None,
                    "error": errors.get(index),
                }
                for index, p in topic.partitions.items()
            ]

    columns = ["partition", "leader", "leader_epoch", "replicas", "isr", "log_start_offset", "high_watermark"]
    rows = run(main)
    if any(row["error"] is not None for row in rows):
        columns.append("error")
    print_rows(rows, columns, as_json=as_json, empty="The topic has no partitions.")


@app.command()
def grow(
    name: Name,
    partitions: Annotated[int, typer.Option("--partitions", "-p", help="How many there are to be.")],
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Add partitions. Records with a key may go elsewhere from then on; there is no way back.

    Example: ottla topics grow clicks -p 12
    """

    async def main() -> None:
        async with open_admin(bootstrap_server) as admin:
            await admin.topics.set_partition_count(name, partitions)

    run(main)
    print_done(f"{name} has {partitions} partitions.", as_json=as_json, name=name, partitions=partitions)


@app.command()
def delete(
    names: Annotated[list[str], typer.Argument(help="Topics to delete.")],
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete topics with all their records.

    Example: ottla topics delete clicks payments -y
    """
    if not yes:
        typer.confirm(f"Delete {', '.join(names)} with all records?", abort=True)

    async def main() -> None:
        async with open_admin(bootstrap_server) as admin:
            await admin.topics.delete(names)

    run(main)
    print_done(f"Deleted {', '.join(names)}.", as_json=as_json, deleted=names)


@app.command("delete-records")
def delete_records(
    name: Name,
    before: Annotated[
        list[str], typer.Option("--before", help="partition=offset: records below go; -1 is the high watermark.")
    ],
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Drop the oldest records of partitions.

    Example: ottla topics delete-records clicks --before 0=1000 --before 1=-1
    """
    from ottla.client import TopicPartition

    try:
        offsets = {TopicPartition(name, int(k)): int(v) for k, v in key_values(before).items()}
    except ValueError as error:
        raise typer.BadParameter("--before takes partition=offset, both numbers") from error

    async def main() -> list[dict[str, Any]]:
        async with open_admin(bootstrap_server) as admin:
            low = await admin.topics.delete_records(offsets)
            return [{"partition": p.partition, "log_start_offset": offset} for p, offset in sorted(low.items())]

    print_rows(run(main), ["partition", "log_start_offset"], as_json=as_json, empty="")
