"""Apache Kafka's command-line tools."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.compat.batteries import JAVA
from tests.compat.test_java_clients import version
from tests.compat.tools import CLASSES, JavaTools, run_alone

CLIENT = ("Java tools", version)


@pytest.fixture(scope="module")
def tools() -> Iterator[JavaTools]:
    with JavaTools() as running:
        yield running


def table(printed: str) -> list[dict[str, str]]:
    """Read a table with a heading in capitals."""
    lines = [line.split() for line in printed.splitlines() if line.strip()]
    start = next(index for index, line in enumerate(lines) if line[0] in {"GROUP", "COORDINATOR"})
    return [dict(zip(lines[start], line, strict=False)) for line in lines[start + 1 :]]


def test_topics(tools: JavaTools, bootstrap: str, unique: Callable[[str], str]) -> None:
    """kafka-topics creates, lists, describes, extends and deletes topics."""
    topic, where = unique("tool-topics"), ("--bootstrap-server", bootstrap)
    name = ("--topic", topic)
    created = tools.run("topics", *where, "--create", *name, "--partitions", "2", "--config", "retention.ms=1000000")
    assert f"Created topic {topic}" in created
    assert "already" in tools.run("topics", *where, "--create", *name, status=1)
    assert topic in tools.run("topics", *where, "--list").splitlines()
    described = tools.run("topics", *where, "--describe", *name)
    assert "PartitionCount: 2\tReplicationFactor: 1" in described
    assert "retention.ms=1000000" in described
    assert described.count("Isr: ") == 2
    tools.run("topics", *where, "--alter", *name, "--partitions", "3")
    assert "PartitionCount: 3" in tools.run("topics", *where, "--describe", *name)
    for selection in ("--under-replicated-partitions", "--unavailable-partitions", "--under-min-isr-partitions"):
        assert topic not in tools.run("topics", *where, "--describe", selection)
    tools.run("topics", *where, "--delete", *name)
    assert topic not in tools.run("topics", *where, "--list").splitlines()


def test_configs(tools: JavaTools, bootstrap: str, unique: Callable[[str], str]) -> None:
    """kafka-configs describes and alters topics and brokers."""
    topic, where = unique("tool-configs"), ("--bootstrap-server", bootstrap)
    entity = ("--entity-type", "topics", "--entity-name", topic)
    tools.run("topics", *where, "--create", "--topic", topic)
    tools.run(
        "configs", *where, *entity, "--alter", "--add-config", "retention.ms=5000,cleanup.policy=[compact,delete]"
    )
    described = tools.run("configs", *where, *entity, "--describe")
    assert "retention.ms=5000 sensitive=false" in described
    assert "cleanup.policy=compact,delete" in described
    tools.run("configs", *where, *entity, "--alter", "--delete-config", "retention.ms")
    assert "retention.ms=5000" not in tools.run("configs", *where, *entity, "--describe")
    every = tools.run("configs", *where, *entity, "--describe", "--all")
    assert "retention.ms=604800000" in every
    assert "DEFAULT_CONFIG:log.cleaner.delete.retention.ms=86400000" in every
    assert "nonsense" in tools.run("configs", *where, *entity, "--alter", "--add-config", "nonsense=1", status=1)
    default = ("--entity-type", "brokers", "--entity-default")
    tools.run("configs", *where, *default, "--alter", "--add-config", "log.cleaner.threads=2")
    assert "log.cleaner.threads=2" in tools.run("configs", *where, *default, "--describe")
    tools.run("configs", *where, *default, "--alter", "--delete-config", "log.cleaner.threads")


def test_share_groups(tools: JavaTools, bootstrap: str, unique: Callable[[str], str]) -> None:
    """kafka-share-groups lists and describes share groups, resets and deletes their offsets, and deletes them."""
    topic, group, where = unique("tool-shared"), unique("tool-sharers"), ("--bootstrap-server", bootstrap)
    tools.run("topics", *where, "--create", "--topic", topic, "--partitions", "2")
    tools.run("console-producer", *where, "--topic", topic, text="one\ntwo\nthree\n")
    mine, of_topic = ("--group", group), ("--topic", topic)
    moved = tools.run("share-groups", *where, *mine, "--reset-offsets", *of_topic, "--to-earliest", "--execute")
    assert [row["NEW-OFFSET"] for row in table(moved)] == ["0", "0"]
    assert group in tools.run("share-groups", *where, "--list").splitlines()
    listed = {row["GROUP"]: row["STATE"] for row in table(tools.run("share-groups", *where, "--list", "--state"))}
    assert listed[group] == "Empty"
    described = table(tools.run("share-groups", *where, *mine, "--describe", "--offsets"))
    assert {row["PARTITION"]: row["START-OFFSET"] for row in described} == {"0": "0", "1": "0"}
    assert sum(int(row["LAG"]) for row in described) == 3
    assert "Successful" in tools.run("share-groups", *where, *mine, "--delete-offsets", *of_topic)
    assert "no offset information" in tools.run("share-groups", *where, *mine, "--describe", "--offsets")
    assert "successful" in tools.run("share-groups", *where, *mine, "--delete")
    assert group not in tools.run("share-groups", *where, "--list").splitlines()


def test_console(tools: JavaTools, bootstrap: str, unique: Callable[[str], str]) -> None:
    """kafka-console-producer and kafka-console-consumer pass keys, values and headers."""
    topic, where = unique("tool-console"), ("--bootstrap-server", bootstrap)
    lines = "".join(f"h:{number}\tkey{number}\tvalue {number}\n" for number in range(20))
    properties = ["parse.key=true", "parse.headers=true"]
    options = [part for text in properties for part in ("--reader-property", text)]
    tools.run("console-producer", *where, "--topic", topic, *options, text=lines)
    options = [part for text in ("print.key=true", "print.headers=true") for part in ("--formatter-property", text)]
    printed = tools.run(
        "console-consumer", *where, "--topic", topic, "--from-beginning", "--max-messages", "20", *options
    )
    assert printed == lines
    ranged = ("--partition", "0", "--offset", "15", "--max-messages", "5")
    assert len(tools.run("console-consumer", *where, "--topic", topic, *ranged).splitlines()) == 5


def test_offsets(tools: JavaTools, bootstrap: str, unique: Callable[[str], str]) -> None:
    """kafka-get-offsets knows both ends and offsets by time; kafka-delete-records moves the start."""
    topic, where = unique("tool-offsets"), ("--bootstrap-server", bootstrap)
    tools.run("console-producer", *where, "--topic", topic, text="a\nb\nc\n")

    def offset(when: str) -> str:
        return tools.run("get-offsets", *where, "--topic", topic, "--time", when).strip()

    assert offset("latest") == f"{topic}:0:3"
    assert offset("earliest") == f"{topic}:0:0"
    assert offset("max-timestamp").startswith(f"{topic}:0:")
    assert offset("0") == f"{topic}:0:0"
    assert offset("earliest-local") == f"{topic}:0:0"
    path = Path(f"/tmp/{topic}.json")
    path.write_text(json.dumps({"partitions": [{"topic": topic, "partition": 0, "offset": 2}], "version": 1}))
    try:
        assert "low_watermark: 2" in tools.run("delete-records", *where, "--offset-json-file", str(path))
    finally:
        path.unlink()
    assert offset("earliest") == f"{topic}:0:2"


def test_consumer_groups(tools: JavaTools, bootstrap: str, unique: Callable[[str], str]) -> None:
    """kafka-consumer-groups describes lag, resets offsets and deletes groups; kafka-groups lists them."""
    topic, group, where = unique("tool-groups"), unique("tool-group"), ("--bootstrap-server", bootstrap)
    tools.run("console-producer", *where, "--topic", topic, text="a\nb\nc\nd\n")
    reading = ("--topic", topic, "--group", group, "--from-beginning", "--max-messages", "4")
    tools.run("console-consumer", *where, *reading)
    assert group in tools.run("consumer-groups", *where, "--list").split()
    assert group in tools.run("groups", *where, "--list")
    described = table(tools.run("consumer-groups", *where, "--describe", "--group", group))
    assert [(row["CURRENT-OFFSET"], row["LOG-END-OFFSET"], row["LAG"]) for row in described] == [("4", "4", "0")]
    assert "Empty" in tools.run("consumer-groups", *where, "--describe", "--group", group, "--state")
    reset = ("--reset-offsets", "--group", group, "--topic", topic)
    assert "1" in tools.run("consumer-groups", *where, *reset, "--to-offset", "1", "--dry-run")
    tools.run("consumer-groups", *where, *reset, "--shift-by", "-3", "--execute")
    described = table(tools.run("consumer-groups", *where, "--describe", "--group", group))
    assert [(row["CURRENT-OFFSET"], row["LAG"]) for row in described] == [("1", "3")]
    tools.run("consumer-groups", *where, "--delete-offsets", "--group", group, "--topic", topic)
    tools.run("consumer-groups", *where, *reset, "--to-earliest", "--execute")
    tools.run("consumer-groups", *where, "--delete", "--group", group)
    assert group not in tools.run("consumer-groups", *where, "--list").split()


@contextmanager
def member(bootstrap: str, topic: str, group: str, protocol: str, records: int) -> Iterator[None]:
    """A console consumer that has read `records` records; it commits when it is stopped."""
    where = ("--bootstrap-server", bootstrap, "--topic", topic, "--group", group, "--from-beginning")
    command = [*JAVA, CLASSES["console-consumer"], *where, "--command-property", f"group.protocol={protocol}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        guard = threading.Timer(90, process.kill)
        guard.start()
        try:
            assert process.stdout is not None
            assert all(process.stdout.readline() for _ in range(records)), "the console consumer ended early"
            yield
            process.terminate()
            process.communicate()
        finally:
            guard.cancel()
            process.kill()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_consumer_groups_of_both_protocols(
    tools: JavaTools, bootstrap: str, unique: Callable[[str], str], protocol: str
) -> None:
    """kafka-consumer-groups describes members and epochs, refuses changes to groups in use, resets in every way."""
    topic, group, where = unique("tool-use"), unique(f"tool-{protocol}"), ("--bootstrap-server", bootstrap)
    tools.run("topics", *where, "--create", "--topic", topic, "--partitions", "1")
    tools.run("console-producer", *where, "--topic", topic, text="a\nb\nc\nd\n")

    def groups(*arguments: str, status: int | None = 0) -> str:
        return tools.run("consumer-groups", *where, *arguments, status=status)

    describe, reset = ("--describe", "--group", group), ("--reset-offsets", "--group", group)
    epoch = "-" if protocol == "classic" else "2"  # 1 for the subscription, 2 for its topics
    with member(bootstrap, topic, group, protocol, records=4):
        (state,) = table(groups(*describe, "--state", "--verbose").replace("COORDINATOR (ID)", "COORDINATOR ID"))
        assignor = "range" if protocol == "classic" else "uniform"
        assert (state["ASSIGNMENT-STRATEGY"], state["STATE"], state["#MEMBERS"]) == (assignor, "Stable", "1")
        assert (state["GROUP-EPOCH"], state["TARGET-ASSIGNMENT-EPOCH"]) == (epoch, epoch)
        (row,) = table(groups(*describe, "--members", "--verbose"))
        assert (row["#PARTITIONS"], row["CURRENT-ASSIGNMENT"]) == ("1", f"{topic}:0")
        assert (row["CURRENT-EPOCH"], row["TARGET-EPOCH"]) == (epoch, epoch)
        assert row["TARGET-ASSIGNMENT"] == ("-" if protocol == "classic" else f"{topic}:0")
        in_use = groups(*reset, "--topic", topic, "--to-earliest", "--execute", status=None)
        assert "inactive, but the current state is Stable" in in_use
        in_use = groups("--delete-offsets", "--group", group, "--topic", topic, status=None)
        assert "GroupSubscribedToTopicException" in in_use
        assert "GroupNotEmptyException" in groups("--delete", "--group", group, status=None)

    (row,) = table(groups(*describe, "--offsets", "--verbose"))
    assert (row["LEADER-EPOCH"], row["CURRENT-OFFSET"], row["LAG"]) == ("0", "4", "0")
    assert f"Consumer group '{group}' has no active members." in groups(*describe, "--members", status=None)
    for way, expected in {
        ("--to-earliest",): "0",
        ("--to-latest",): "4",
        ("--shift-by", "-3"): "1",
        ("--to-current",): "1",
        ("--to-offset", "3"): "3",
        ("--to-offset", "99"): "4",
        ("--to-datetime", "2000-01-01T00:00:00.000"): "0",
        ("--by-duration", "PT0S"): "4",
    }.items():
        (row,) = table(groups(*reset, "--all-topics", *way, "--execute"))
        assert (way, row["NEW-OFFSET"]) == (way, expected)
    exported = groups(*reset, "--topic", f"{topic}:0", "--to-offset", "2", "--dry-run", "--export")
    assert f"{topic},0,2" in exported.replace('"', "")
    (row,) = table(groups(*describe))
    assert row["CURRENT-OFFSET"] == "4", "a dry run changes nothing"
    listed = groups("--list", "--type", protocol, "--state", "Empty")
    assert [group, protocol.capitalize(), "Empty"] in [line.split() for line in listed.splitlines()]
    deleted = groups("--delete-offsets", "--group", group, "--topic", f"{topic}:0", "--topic", "absent", status=None)
    assert [topic, "0", "Successful"] in [line.split() for line in deleted.splitlines()]
    assert "UnknownTopicOrPartitionException" in deleted
    assert "GroupIdNotFoundException" in groups("--describe", "--group", unique("absent"), status=None)


def test_transactions(tools: JavaTools, bootstrap: str, unique: Callable[[str], str]) -> None:
    """kafka-transactions lists and describes transactions and producers, and finds none that hangs."""
    topic, identity, where = unique("tool-txn"), unique("tool-txn-id"), ("--bootstrap-server", bootstrap)
    tools.run("topics", *where, "--create", "--topic", topic)
    sending = ("--topic", topic, "--num-records", "20", "--record-size", "10", "--throughput", "-1")
    tools.run("producer-perf-test", *where, *sending, "--transactional-id", identity)

    def transactions(*arguments: str, status: int | None = 0) -> str:
        return tools.run("transactions", *where, *arguments, status=status)

    def rows(printed: str) -> list[dict[str, str]]:
        heading, *lines = (line.split("\t") for line in printed.splitlines() if "\t" in line)
        return [dict(zip((h.strip() for h in heading), (c.strip() for c in line), strict=False)) for line in lines]

    # The producer may end before the markers of its last transaction are written.
    for _ in range(20):
        (listed,) = rows(transactions("list", "--transactional-id-pattern", f"{identity}.*"))
        if listed["TransactionState"] != "PrepareCommit":
            break
    assert (listed["TransactionalId"], listed["TransactionState"]) == (identity, "CompleteCommit")
    (described,) = rows(transactions("describe", "--transactional-id", identity))
    assert (described["ProducerId"], described["TransactionState"]) == (listed["ProducerId"], "CompleteCommit")
    (producer,) = rows(transactions("describe-producers", "--topic", topic, "--partition", "0"))
    assert (producer["ProducerId"], producer["CurrentTransactionStartOffset"]) == (listed["ProducerId"], "None")
    assert rows(transactions("find-hanging", "--topic", topic)) == []
    aborting = ("abort", "--topic", topic, "--partition", "0", "--start-offset", "0")
    assert "Could not find any open transactions" in transactions(*aborting, status=None)
    transactions("forceTerminateTransaction", "--transactionalId", identity)
    assert "could not be found" in transactions("describe", "--transactional-id", unique("absent"), status=None)


def test_performance(tools: JavaTools, bootstrap: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """kafka-producer-perf-test, kafka-consumer-perf-test and kafka-e2e-latency run to their end."""
    topic, where = unique("tool-perf"), ("--bootstrap-server", bootstrap)
    tools.run("topics", *where, "--create", "--topic", topic, "--partitions", "3")
    sending = ("--topic", topic, "--num-records", "50000", "--record-size", "100", "--throughput", "-1")
    sent = tools.run("producer-perf-test", *where, *sending, "--command-property", "acks=all")
    assert "50000 records sent" in sent
    read = tools.run("consumer-perf-test", *where, "--topic", topic, "--num-records", "50000", "--timeout", "20000")
    assert int(read.splitlines()[-1].split(", ")[4]) >= 50000
    tools.run("topics", *where, "--create", "--topic", topic + "-e2e")
    measuring = ("--topic", topic + "-e2e", "--num-records", "500", "--producer-acks", "all", "--record-size", "100")
    assert "Avg latency" in tools.run("e2e-latency", *where, *measuring)


def test_verifiable_clients(bootstrap: str, unique: Callable[[str], str]) -> None:
    """kafka-verifiable-producer and kafka-verifiable-consumer agree on every record."""
    topic, where = unique("tool-verify"), ("--bootstrap-server", bootstrap)
    produced = run_alone("verifiable-producer", *where, "--topic", topic, "--max-messages", "2000", "--acks", "-1")
    events = [json.loads(line) for line in produced.splitlines() if line.startswith("{")]
    assert sorted(event["offset"] for event in events if event["name"] == "producer_send_success") == list(range(2000))
    reading = ("--topic", topic, "--group-id", unique("g"), "--max-messages", "2000", "--reset-policy", "earliest")
    consumed = run_alone("verifiable-consumer", *where, *reading)
    events = [json.loads(line) for line in consumed.splitlines() if line.startswith("{")]
    assert sum(event["count"] for event in events if event["name"] == "records_consumed") == 2000
    committed = [event for event in events if event["name"] == "offsets_committed"]
    assert committed
    assert all(event["success"] for event in committed)


def test_share_consumers(tools: JavaTools, bootstrap: str, unique: Callable[[str], str]) -> None:
    """kafka-console-share-consumer, kafka-share-consumer-perf-test and kafka-verifiable-share-consumer share it."""
    topic, group, where = unique("tool-share"), unique("tool-sharers"), ("--bootstrap-server", bootstrap)
    of_topic, of_group = ("--topic", topic), ("--group", group)
    tools.run("topics", *where, "--create", *of_topic, "--partitions", "2")
    of_entity = ("--alter", "--entity-type", "groups", "--entity-name", group)
    tools.run("configs", *where, *of_entity, "--add-config", "share.auto.offset.reset=earliest")
    tools.run("console-producer", *where, *of_topic, text="one\ntwo\nthree\n")
    shown = tools.run("console-share-consumer", *where, *of_topic, *of_group, "--max-messages", "3")
    assert sorted(line for line in shown.splitlines() if line in ("one", "two", "three")) == ["one", "three", "two"]
    sending = ("--num-records", "50000", "--record-size", "100", "--throughput", "-1")
    tools.run("producer-perf-test", *where, *of_topic, *sending)
    read = tools.run("share-consumer-perf-test", *where, *of_topic, *of_group, "--num-records", "50000")
    assert int(read.splitlines()[-1].split(", ")[5]) >= 50_000
    described = table(tools.run("share-groups", *where, *of_group, "--describe", "--offsets"))
    assert sum(int(row["LAG"]) for row in described) == 0
    reading = ("--group-id", unique("v"), "--max-messages", "2000", "--offset-reset-strategy", "earliest")
    consumed = run_alone("verifiable-share-consumer", *where, *of_topic, *reading)
    events = [json.loads(line) for line in consumed.splitlines() if line.startswith("{")]
    assert sum(event["count"] for event in events if event["name"] == "records_consumed") >= 2000
    acknowledged = [event for event in events if event["name"] == "offsets_acknowledged"]
    assert acknowledged
    assert all(event["success"] for event in acknowledged)


def test_cluster_tools(tools: JavaTools, bootstrap: str, unique: Callable[[str], str]) -> None:
    """kafka-broker-api-versions, -cluster, -log-dirs, -metadata-quorum, -features and -leader-election are answered."""
    topic, where = unique("tool-cluster"), ("--bootstrap-server", bootstrap)
    tools.run("topics", *where, "--create", "--topic", topic)
    assert "Produce(0): 0 to 13" in tools.run("broker-api-versions", *where)
    assert "Cluster ID: " in tools.run("cluster", "cluster-id", *where)
    assert topic in tools.run("log-dirs", *where, "--describe", "--topic-list", topic)
    status = tools.run("metadata-quorum", *where, "describe", "--status")
    assert "LeaderId:" in status
    assert "Leader" in tools.run("metadata-quorum", *where, "describe", "--replication")
    assert "metadata.version" in tools.run("features", *where, "describe")
    elected = tools.run(
        "leader-election", *where, "--election-type", "preferred", "--topic", topic, "--partition", "0", status=None
    )
    assert topic in elected
