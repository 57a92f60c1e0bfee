"""`ottla groups`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from ottla.cli.clients import open_admin
from ottla.cli.options import BOOTSTRAP_DEFAULT, AsJson, Bootstrap
from ottla.cli.output import print_done, print_json, print_rows, run
from ottla.client import Admin, OffsetAndMetadata, TopicPartition
from ottla.client.group_descriptions import CLASSIC, CONSUMER
from ottla.client.offsets import EARLIEST, LATEST
from ottla.errors import ErrorCode, KafkaError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="List and describe groups, reset and delete the offsets of those that commit them.",
)
KINDS = ("classic", "consumer", "share")
STATES = (
    "PreparingRebalance",
    "CompletingRebalance",
    "Stable",
    "Dead",
    "Empty",
    "Assigning",
    "Reconciling",
)
"""Those of Kafka's `GroupState` that groups of our types have."""
Group = Annotated[str, typer.Argument(help="The group's id.")]


@app.command("list")
def list_groups(
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    state: Annotated[list[str] | None, typer.Option("--state", help="Only groups in this state. Repeatable.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--type", help=f"Only groups of this type: {', '.join(KINDS)}. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List groups with type and state.

    Example: ottla groups list --state Stable --type share
    """
    for words, known in ((kind or [], KINDS), (state or [], STATES)):
        for word in words:
            if word.lower() not in {name.lower() for name in known}:
                raise typer.BadParameter(f"{word!r} is none of {', '.join(known)}")

    async def main() -> list[dict[str, Any]]:
        async with open_admin(bootstrap_server) as admin:
            return [
                {"group": g.group_id, "type": g.kind, "state": g.state, "protocol_type": g.protocol_type}
                for g in await admin.groups.list_groups(states=state or (), kinds=kind or ())
            ]

    print_rows(run(main), ["group", "type", "state", "protocol_type"], as_json=as_json, empty="There are no groups.")


@app.command()
def describe(
    group: Group,
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    members: Annotated[bool, typer.Option("--members", help="Show members instead of partitions.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how far a group is, its lag and who reads what. Of a share group: where it begins in each partition.

    Members of consumer groups (KIP-848) have a target, which the assignor wants, and partitions, which they have
    now: those who have not arrived have an epoch below the group's assignment epoch. --json holds all of it.

    Example: ottla groups describe billing --members
    """

    async def main() -> dict[str, Any]:
        async with open_admin(bootstrap_server) as admin:
            described = await admin.groups.describe(group)
            return {
                "group": group,
                "type": described.kind,
                "state": described.state,
                "assignor": described.assignor,
                "coordinator": described.coordinator_id,
                "epoch": described.epoch,
                "assignment_epoch": described.assignment_epoch,
                "members": [
                    {
                        "member": m.member_id,
                        "instance": m.group_instance_id,
                        "client": m.client_id,
                        "host": m.client_host,
                        "rack": m.rack,
                        "topics": m.topics,
                        "topic_regex": m.topic_regex,
                        "epoch": m.epoch,
                        "by_classic_protocol": m.by_classic_protocol,
                        "partitions": [str(p) for p in m.assignment],
                        "target": None if m.target is None else [str(p) for p in m.target],
                    }
                    for m in described.members
                ],
                "partitions": [
                    {
                        "topic": lag.partition.topic,
                        "partition": lag.partition.partition,
                        "committed": lag.committed,
                        "log_end_offset": lag.log_end_offset,
                        "lag": lag.lag,
                        "member": ", ".join(member.member_id for member in lag.members) or None,
                    }
                    for lag in await admin.groups.lag(described)
                ],
            }

    found = run(main)
    if as_json:
        print_json(found)
        return
    kind, state, count = found["type"], found["state"], len(found["members"])
    print(f"{group}: {kind} group, {state}, {count} members, coordinator {found['coordinator']}")
    if found["epoch"] is not None:
        epoch, assigned = found["epoch"], found["assignment_epoch"]
        print(f"epoch {epoch}, assigned for epoch {assigned} by {found['assignor']}")
    if members:
        columns = ["member", "instance", "client", "host", "partitions"]
        if kind != CLASSIC:
            columns.insert(4, "epoch")
        if kind == CONSUMER:
            columns.append("target")
        print_rows(found["members"], columns, as_json=False, empty="There are no members.")
    else:
        columns = ["topic", "partition", "committed", "log_end_offset", "lag", "member"]
        print_rows(found["partitions"], columns, as_json=False, empty="Nothing is committed.")


@app.command("reset-offsets")
def reset_offsets(
    group: Group,
    topic: Annotated[list[str], typer.Option("--topic", "-t", help="topic, or topic:partition. Repeatable.")],
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    to_earliest: Annotated[bool, typer.Option("--to-earliest", help="To the oldest record.")] = False,
    to_latest: Annotated[bool, typer.Option("--to-latest", help="Behind the newest record.")] = False,
    to_offset: Annotated[int | None, typer.Option("--to-offset", help="To this offset.")] = None,
    shift_by: Annotated[int | None, typer.Option("--shift-by", help="So many offsets on, or back if negative.")] = None,
    to_datetime: Annotated[
        datetime | None, typer.Option("--to-datetime", help="To the first record not older than this.")
    ] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Do it. Without this it is only shown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move a group's committed offsets. The group must have no members. Shows what it would do unless --execute.

    Example: ottla groups reset-offsets billing -t payments --to-earliest --execute
    """
    ways = [to_earliest, to_latest, to_offset is not None, shift_by is not None, to_datetime is not None]
    if sum(ways) != 1:
        raise typer.BadParameter("give one of --to-earliest, --to-latest, --to-offset, --shift-by, --to-datetime")

    async def main() -> list[dict[str, Any]]:
        async with open_admin(bootstrap_server) as admin:
            partitions = await _partitions(admin, topic)
            committed = await admin.offsets.committed(group, partitions)
            starts = await admin.offsets.list_offsets(dict.fromkeys(partitions, EARLIEST))
            ends = await admin.offsets.list_offsets(dict.fromkeys(partitions, LATEST))
            at: dict[TopicPartition, int] = {}
            if to_datetime is not None:
                stamp_ms = round(to_datetime.timestamp() * 1000)
                listed = await admin.offsets.list_offsets(dict.fromkeys(partitions, stamp_ms))
                at = {p: found.offset if found.offset >= 0 else ends[p].offset for p, found in listed.items()}
            target: dict[TopicPartition, int] = {}
            for p in partitions:
                if shift_by is not None and p not in committed:
                    raise KafkaError(ErrorCode.INVALID_REQUEST, f"{group} has no offset of {p} that could be shifted")
                if to_earliest:
                    wanted = starts[p].offset
                elif to_latest:
                    wanted = ends[p].offset
                elif to_offset is not None:
                    wanted = to_offset
                elif shift_by is not None:
                    wanted = committed[p].offset + shift_by
                else:
                    wanted = at[p]
                target[p] = min(max(wanted, starts[p].offset), ends[p].offset)
            if execute:
                await admin.groups.set_offsets(group, {p: OffsetAndMetadata(o) for p, o in target.items()})
            return [
                {
                    "topic": p.topic,
                    "partition": p.partition,
                    "committed": committed[p].offset if p in committed else None,
                    "new_offset": target[p],
                    "executed": execute,
                }
                for p in partitions
            ]

    columns = ["topic", "partition", "committed", "new_offset"]
    print_rows(run(main), columns, as_json=as_json, empty="There are no such partitions.")
    if not execute and not as_json:
        print("Nothing was changed: add --execute to do it.")


async def _partitions(admin: Admin, words: list[str]) -> list[TopicPartition]:
    found: list[TopicPartition] = []
    for word in words:
        name, colon, index = word.rpartition(":")
        one = int(index) if colon and index.isascii() and index.isdigit() else None
        topic = word if one is None else name
        (view,) = await admin.topics.describe([topic])
        if one is not None and one not in view.partitions:
            text = f"{topic} has {len(view.partitions)} partitions: there is no partition {one}"
            raise KafkaError(ErrorCode.INVALID_REQUEST, text)
        found += [TopicPartition(topic, i) for i in (view.partitions if one is None else [one])]
    return found


@app.command()
def delete(
    group: Group,
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete an empty group with its committed offsets.

    Example: ottla groups delete billing -y
    """
    if not yes:
        typer.confirm(f"Delete group {group} with its offsets?", abort=True)

    async def main() -> None:
        async with open_admin(bootstrap_server) as admin:
            await admin.groups.delete(group)

    run(main)
    print_done(f"Deleted {group}.", as_json=as_json, deleted=group)


@app.command("delete-offsets")
def delete_offsets(
    group: Group,
    topic: Annotated[list[str], typer.Option("--topic", "-t", help="topic, or topic:partition. Repeatable.")],
    bootstrap_server: Bootstrap = BOOTSTRAP_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Forget a group's offsets of topics that none of its members reads.

    Example: ottla groups delete-offsets billing -t payments:0
    """

    async def main() -> list[str]:
        async with open_admin(bootstrap_server) as admin:
            partitions = await _partitions(admin, topic)
            await admin.groups.delete_offsets(group, partitions)
            return [str(partition) for partition in partitions]

    forgotten = run(main)
    print_done(f"Deleted the offsets of {len(forgotten)} partitions.", as_json=as_json, group=group, deleted=forgotten)
