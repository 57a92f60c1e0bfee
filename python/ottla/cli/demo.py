"""`ottla demo`: a broker, two producers and two consumer groups in one process, with a live view and a proof."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from ottla.cli.output import print_json, run
from ottla.cli.sample_logs import CLICK_COUNT, PAYMENT_COUNT, write_sample_logs
from ottla.cli.tally import GroupTally
from ottla.client import Admin, Consumer, Delivery, NewTopic, Producer, TopicPartition
from ottla.testing.broker import BrokerFailed, EmbeddedBroker

app = typer.Typer(add_completion=False)
TOPICS = {"clicks": 6, "payments": 4}
GROUPS = {"recommendations": 3, "billing": 2}
VIEW_INTERVAL_SECONDS = 0.25
RECORDS_A_POLL = 2_000
DELIVERIES_MAX = 20_000
LATE_JOIN_SHARE = 0.4
"""The last member of each group comes when so much is written: the others hand partitions over."""


@dataclass(slots=True)
class Progress:
    """All that the live view shows; the tasks write it, nobody else does."""

    expected: dict[str, int]
    sent: dict[str, int] = field(default_factory=dict)
    written: dict[TopicPartition, int] = field(default_factory=dict)
    tallies: dict[str, GroupTally] = field(default_factory=dict)
    assignments: dict[tuple[str, int], list[TopicPartition]] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    late_join: anyio.Event = field(default_factory=anyio.Event)
    started: float = 0.0
    finished: float | None = None

    @property
    def written_all(self) -> bool:
        return sum(self.written.values()) == sum(self.expected.values())

    def read_all(self) -> bool:
        total = sum(self.expected.values())
        return self.written_all and all(t.records >= total for t in self.tallies.values())


@app.command()
def demo(
    clicks: Annotated[int, typer.Option(help="Lines of the click log.", min=1)] = CLICK_COUNT,
    payments: Annotated[int, typer.Option(help="Lines of the payment log.", min=1)] = PAYMENT_COUNT,
    data_dir: Annotated[Path | None, typer.Option(help="Keep the broker's data and the logs here.")] = None,
    logs_dir: Annotated[
        Path | None, typer.Option(help="Where clicks.jsonl and payments.jsonl are; written there if absent.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")] = False,
) -> None:
    """Publish a click log and a payment log, and read both in two independent consumer groups.

    The summary proves that each group read every record once, in order per partition.
    """
    console = Console(stderr=as_json)
    with ExitStack() as stack:
        directory = data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ottla-demo-")))
        paths = write_sample_logs(logs_dir or directory / "logs", clicks=clicks, payments=payments)
        logs = dict(zip(TOPICS, paths, strict=True))
        for path in paths:
            _check_log(path)
        began = time.perf_counter()
        try:
            broker = stack.enter_context(EmbeddedBroker(data_dir=directory / "broker"))
        except BrokerFailed as error:
            print(f"ottla: {error}", file=sys.stderr)
            raise typer.Exit(1) from error
        start_ms = (time.perf_counter() - began) * 1000
        if not as_json:
            console.print(f"A broker serves {broker.bootstrap_servers} after {start_ms:.0f} ms.")
        progress = Progress(expected={topic: sum(1 for _ in _lines(path)) for topic, path in logs.items()})

        async def main() -> None:
            await _run(progress, broker.bootstrap_servers, logs, console if console.is_terminal else None)

        run(main)
    proven = _summary(progress, console, start_ms=start_ms, as_json=as_json)
    if not proven:
        raise typer.Exit(1)


def _check_log(path: Path) -> None:
    """Raises: BadParameter for a file of somebody else's; one look at the beginning is enough to tell."""
    try:
        line = json.loads(next(_lines(path)))
        known = isinstance(line["user"], str) and line["sequence"] == 0
    except (StopIteration, ValueError, TypeError, KeyError):
        known = False
    if not known:
        raise typer.BadParameter(f"{path} is no log of the demonstration's; without it, it is written anew")


async def _run(progress: Progress, servers: str, logs: dict[str, Path], console: Console | None) -> None:
    async with Admin(servers) as admin:
        existing = {t.name for t in await admin.topics.list_topics()} & set(TOPICS)
        if existing:
            await admin.topics.delete(existing)
        await admin.topics.create([NewTopic(name=n, partitions=p) for n, p in TOPICS.items()])
        known = {g.group_id for g in await admin.groups.list_groups()}
        for group_id in known & set(GROUPS):
            await admin.groups.delete(group_id)
    progress.started = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        if console is not None:
            tasks.start_soon(_view, progress, console)
        async with anyio.create_task_group() as work:
            for group_id, members in GROUPS.items():
                progress.tallies[group_id] = GroupTally(group_id)
                for number in range(members):
                    work.start_soon(_consume, progress, servers, group_id, number)
            for topic, path in logs.items():
                work.start_soon(_produce, progress, servers, topic, path)
        progress.finished = time.perf_counter()
        tasks.cancel_scope.cancel()


async def _produce(progress: Progress, servers: str, topic: str, path: Path) -> None:
    async with Producer(servers, client_id=f"demo-{topic}", linger_ms=20) as producer:
        pending: list[Delivery] = []

        async def settle() -> None:
            for delivery in pending:
                metadata = await delivery.wait()
                partition = TopicPartition(topic, metadata.partition)
                progress.written[partition] = progress.written.get(partition, 0) + 1
            pending.clear()
            if sum(progress.written.values()) >= LATE_JOIN_SHARE * sum(progress.expected.values()):
                progress.late_join.set()

        for line in _lines(path):
            user = json.loads(line)["user"]
            pending.append(await producer.send(topic, line, key=user.encode()))
            progress.sent[topic] = progress.sent.get(topic, 0) + 1
            if len(pending) >= DELIVERIES_MAX:
                await settle()
            elif len(pending) % 500 == 0:
                await anyio.lowlevel.checkpoint()
        await producer.flush()
        await settle()


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            yield line.rstrip(b"\n")


async def _consume(progress: Progress, servers: str, group_id: str, number: int) -> None:
    tally = progress.tallies[group_id]
    if number == GROUPS[group_id] - 1:
        await progress.late_join.wait()
    async with Consumer(
        servers,
        group_id=group_id,
        client_id=f"{group_id}-{number}",
        auto_offset_reset="earliest",
        fetch_max_wait_ms=100,
    ) as consumer:
        await consumer.subscribe(list(TOPICS))
        while not progress.read_all():
            for record in await consumer.poll(100, max_records=RECORDS_A_POLL):
                line = json.loads(record.value or b"{}")
                partition = TopicPartition(record.topic, record.partition)
                tally.on_record(partition, record.offset, user=line["user"], sequence=line["sequence"])
            progress.assignments[(group_id, number)] = consumer.assignment()
            progress.generations[group_id] = max(progress.generations.get(group_id, 0), consumer.generation_id())
            await anyio.lowlevel.checkpoint()


async def _view(progress: Progress, console: Console) -> None:
    with Live(_picture(progress), console=console, auto_refresh=False) as live:
        try:
            while True:
                await anyio.sleep(VIEW_INTERVAL_SECONDS)
                live.update(_picture(progress), refresh=True)
        finally:
            live.update(_picture(progress), refresh=True)


def _picture(progress: Progress) -> Group:
    elapsed = max((progress.finished or time.perf_counter()) - progress.started, 1e-9)
    topics = Table(title="producers", title_justify="left", box=None)
    for column in ("topic", "partitions", "written", "of", "records/s"):
        topics.add_column(column, justify="left" if column == "topic" else "right")
    for topic, partitions in TOPICS.items():
        written = sum(n for p, n in progress.written.items() if p.topic == topic)
        sent = progress.sent.get(topic, 0)
        topics.add_row(
            topic, str(partitions), f"{written:,}", f"{progress.expected[topic]:,}", f"{sent / elapsed:,.0f}"
        )
    groups = Table(title="consumer groups", title_justify="left", box=None)
    for column in ("group", "member", "partitions", "read", "lag", "records/s", "generation"):
        groups.add_column(column, justify="left" if column in ("group", "member", "partitions") else "right")
    total = sum(progress.written.values())
    for group_id, tally in progress.tallies.items():
        lag = max(0, total - tally.records)
        speed, generation = f"{tally.records / elapsed:,.0f}", str(progress.generations.get(group_id, 0))
        groups.add_row(group_id, "", "", f"{tally.records:,}", f"{lag:,}", speed, generation)
        for number in range(GROUPS[group_id]):
            assigned = progress.assignments.get((group_id, number), [])
            groups.add_row("", str(number), " ".join(str(p) for p in assigned) or "-", "", "", "", "")
    return Group(topics, groups)


def _summary(progress: Progress, console: Console, *, start_ms: float, as_json: bool) -> bool:
    seconds = (progress.finished or progress.started) - progress.started
    total = sum(progress.written.values())
    proofs = {g: t.is_proven(progress.written) for g, t in progress.tallies.items()}
    if as_json:
        groups: dict[str, Any] = {
            g: {"records": t.records, "out_of_order": t.out_of_order, "proven": proofs[g], "fault": t.first_fault}
            for g, t in progress.tallies.items()
        }
        print_json({"start_ms": start_ms, "seconds": seconds, "written": total, "groups": groups})
        return all(proofs.values())
    console.print(f"\n{total:,} records written and read by {len(proofs)} groups in {seconds:.1f} s.")
    for group_id, tally in progress.tallies.items():
        if proofs[group_id]:
            partitions = len(tally.next_offsets)
            console.print(
                f"[green]proven[/green]  {group_id}: {tally.records:,} of {total:,} records read, each once, "
                f"in order in each of {partitions} partitions",
                soft_wrap=True,
            )
        else:
            fault = tally.first_fault or "records are missing"
            console.print(f"[red]failed[/red]  {group_id}: {tally.records:,} of {total:,} records read; {fault}")
    console.print(
        f"\nTry next:\n{_activation()}"
        "  ottla serve --data-dir ./data                          a broker that stays\n"
        "  kcat -b localhost:9092 -t hello -P <<< 'hello'         any Kafka client writes to it\n"
        "  ottla consume hello --from-beginning                   and reads from it\n"
        "  python - <<'PY'\n"
        "  import trio\n"
        "  from ottla.client import Producer\n"
        "  async def main():\n"
        "      async with Producer('localhost:9092') as producer:\n"
        "          print(await producer.send_and_wait('hello', b'from Python'))\n"
        "  trio.run(main)\n"
        "  PY",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return all(proofs.values())


def _activation() -> str:
    """The line after which a shell finds this interpreter's `ottla`; empty where it does, or where nothing helps."""
    here = Path(sys.executable).parent
    found, script = shutil.which("ottla"), here / "activate"
    if not script.exists() or (found is not None and Path(found).parent == here):
        return ""
    return f"  . {script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script}\n"
