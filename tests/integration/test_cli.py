"""The commands, run against a broker: what they print, what they return, and that they end when they should."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ottla.cli.main import COMMANDS, main
from ottla.errors import ErrorCode
from ottla.protocol.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.share_group_heartbeat import ShareGroupHeartbeatRequest
from ottla.protocol.messages.update_features import FeatureUpdateKey, UpdateFeaturesRequest
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess, EmbeddedBroker
from tests.integration.wire import Wire

NOBODY = "127.0.0.1:1"


@dataclass(frozen=True, slots=True)
class Ran:
    status: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[bytes]:
        return self.out.splitlines()


Ottla = Callable[..., Ran]


@pytest.fixture
def ottla(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Ottla:
    """Run a command in this process, as its entry point does."""

    def run(*words: str | Path, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "argv", ["ottla", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            main()
            status: Any = 0
        except SystemExit as ended:
            status = ended.code or 0
        captured = capfdbinary.readouterr()
        return Ran(status, captured.out, captured.err.decode())

    return run


@pytest.fixture
def at(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> EmbeddedBroker:
    """The module's broker, found by commands without -b."""
    monkeypatch.setenv("OTTLA_BOOTSTRAP_SERVER", broker.bootstrap_servers)
    return broker


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches(ottla: Ottla, command: str) -> None:
    ran = ottla(command, "--help")
    assert ran.status == 0
    assert b"Usage: ottla " + command.encode() in ran.out


def test_topics_from_birth_to_death(ottla: Ottla, at: EmbeddedBroker) -> None:
    assert ottla("topics", "create", "life", "-p", "3", "-c", "retention.ms=1000", "--dry-run", "--json").json == {
        "name": "life", "created": False, "partitions": 3, "replication_factor": 1,
    }  # fmt: skip
    assert ottla("topics", "create", "life", "-p", "3").out == b"Created life with 3 partitions.\n"
    again = ottla("topics", "create", "life")
    assert (again.status, again.err) == (1, "ottla: topic 'life': The topic life already exists.\n")
    assert ottla("topics", "create", "life", "--if-not-exists").status == 0
    assert ottla("topics", "grow", "life", "-p", "4").status == 0
    assert ottla("topics", "grow", "life", "-p", "2").status == 1
    listed = {row["name"]: row["partitions"] for row in ottla("topics", "list", "--json").json}
    assert listed["life"] == 4
    assert [row["leader"] for row in ottla("topics", "describe", "life", "--json").json] == [1, 1, 1, 1]
    assert ottla("topics", "delete", "life", "-y").status == 0
    gone = ottla("topics", "describe", "life")
    assert (gone.status, gone.err) == (1, "ottla: topic 'life': UNKNOWN_TOPIC_OR_PARTITION\n")


def test_bytes_of_all_kinds_go_through(ottla: Ottla, at: EmbeddedBroker) -> None:
    lines = [
        b"key:value",
        b"",
        b"\xff\xfe binary \x00",
        b"x" * 300_000,
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}".encode(),
    ]
    ottla("topics", "create", "bytes", "-p", "1")
    sent = ottla("produce", "bytes", "-H", "h=1", "-z", "zstd", "--json", stdin=b"\n".join(lines) + b"\n")
    assert sent.json == {"topic": "bytes", "records": 5}
    assert ottla("consume", "bytes", "--from-beginning", "-n", "5").lines == lines
    rows = [json.loads(line) for line in ottla("consume", "bytes", "-p", "0", "-o", "2", "-n", "1", "--json").lines]
    assert rows[0]["offset"] == 2
    assert rows[0]["value_base64"] == "//4gYmluYXJ5IAA="
    assert rows[0]["headers"] == [{"name": "h", "value": "1"}]


def test_produce_takes_keys_null_values_files_and_nothing(ottla: Ottla, at: EmbeddedBroker, tmp_path: Path) -> None:
    ottla("topics", "create", "keys", "-p", "1")
    file = tmp_path / "lines"
    file.write_bytes(b"a=1\na=NULL\nnokey")
    assert ottla("produce", "keys", "-f", file, "-K", "=", "--null-marker", "NULL").status == 0
    assert ottla("produce", "keys", stdin=b"").status == 0
    rows = [json.loads(line) for line in ottla("consume", "keys", "--from-beginning", "-n", "3", "--json").lines]
    assert [(row["key"], row["value"]) for row in rows] == [("a", "1"), ("a", None), (None, "nokey")]
    assert ottla("produce", "keys", "-f", tmp_path / "absent").status == 2
    assert ottla("produce", "keys", "-p", "7", stdin=b"x\n").err == "ottla: keys-7 does not exist\n"


def test_what_makes_no_sense_is_refused_with_a_reason(ottla: Ottla, at: EmbeddedBroker, tmp_path: Path) -> None:
    taken, not_logs = tmp_path / "taken", tmp_path / "not logs"
    (taken / "broker" / "somebody's").mkdir(parents=True)
    not_logs.mkdir()
    (not_logs / "clicks.jsonl").write_bytes(b"not \xff JSON\n")
    ottla("topics", "create", "whole")
    for words in (
        ("topics", "list", "-b", "nonsense"),
        ("topics", "list", "-b", "host:99999"),
        ("topics", "create", "t", "-c", "novalue"),
        ("topics", "delete-records", "t", "--before", "x=y"),
        ("consume", "t", "-o", "3"),
        ("consume", "t", "-g", "g", "-p", "0"),
        ("consume", "t", "-p", "-1"),
        ("consume", "t", "-p", "0", "-o", "-1"),
        ("consume", "t", "-n", "-1"),
        ("consume", "t", "--timeout-ms", "-1"),
        ("produce", "t", "-p", "-1"),
        ("produce", "t", "-K", ""),
        ("produce", "t", "--acks", "2"),
        ("produce", "t", "-z", "rar"),
        ("configs", "describe", "cow", "t"),
        ("groups", "list", "--type", "cow"),
        ("groups", "list", "--state", "asleep"),
        ("serve", "--data-dir", ""),
        ("demo", "--clicks", "0"),
        ("demo", "--logs-dir", not_logs, "--data-dir", tmp_path / "fresh"),
        ("groups", "reset-offsets", "g", "-t", "t"),
        ("groups", "reset-offsets", "g", "-t", "t", "--to-earliest", "--to-latest"),
        ("check", "/nowhere"),
        ("nothing",),
    ):
        ran = ottla(*words)
        assert ran.status == 2, words
        assert "Traceback" not in ran.err
    for words, text in (
        (("consume", "absent"), "topic 'absent': UNKNOWN_TOPIC_OR_PARTITION"),
        (("groups", "describe", "absent"), "group 'absent': Group absent not found."),
        (("groups", "delete", "absent", "-y"), "absent"),
        (("configs", "describe", "broker", "9"), "there is no broker 9"),
        (("topics", "create", "a b"), "is not legal"),
        (("configs", "unset", "topic", "whole", "retention"), "topic 'whole' has no key named retention"),
        (("transactions", "find-hanging", "-t", "absent"), "topic 'absent': UNKNOWN_TOPIC_OR_PARTITION"),
        (("topics", "delete", "whole", "absent", "-y"), "There is no topic named absent. Deleted: whole."),
        (("dump", not_logs / "clicks.jsonl"), "clicks.jsonl: its first line is 'not \\ufffd JSON', not 0"),
        (("demo", "--logs-dir", not_logs / "clicks.jsonl"), "clicks.jsonl: File exists"),
        (("demo", "--data-dir", taken, "--clicks", "1", "--payments", "1"), "broker is not empty and has no meta"),
    ):
        ran = ottla(*words)
        assert ran.status == 1, words
        assert ran.err.startswith("ottla: ")
        assert text in ran.err
        assert ran.err.count("\n") == 1


@pytest.mark.parametrize("words", [("topics", "list"), ("consume", "t"), ("produce", "t"), ("groups", "list")])
def test_nobody_there_is_said_soon(ottla: Ottla, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.setattr("ottla.cli.clients.REACH_TIMEOUT_MS", 200)
    monkeypatch.setattr("ottla.cli.consume.REACH_TIMEOUT_MS", 200)
    monkeypatch.setattr("ottla.cli.produce.REACH_TIMEOUT_MS", 200)
    began = time.monotonic()
    ran = ottla(*words, "-b", NOBODY, stdin=b"x\n")
    assert ran.status == 1
    assert ran.err.startswith(f"ottla: {NOBODY} cannot be reached")
    assert time.monotonic() - began < 5


def test_somebody_who_does_not_answer_is_named(ottla: Ottla, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ottla.cli.clients.REACH_TIMEOUT_MS", 200)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        ran = ottla("topics", "list", "-b", address)
    assert (ran.status, ran.err) == (1, f"ottla: {address} cannot be reached: no answer came within 200 ms\n")


def test_changes_are_told_to_programs(ottla: Ottla, at: EmbeddedBroker) -> None:
    topic = "told-to-programs"
    ottla("topics", "create", topic, "-p", "1")
    assert ottla("topics", "grow", topic, "-p", "2", "--json").json == {"name": topic, "partitions": 2}
    of_topic = {"type": "topic", "name": topic}
    change = ottla("configs", "set", "topic", topic, "retention.ms=5", "--json")
    assert change.json == of_topic | {"set": {"retention.ms": "5"}}
    assert ottla("configs", "unset", "topic", topic, "retention.ms", "--json").json == of_topic | {
        "unset": ["retention.ms"]
    }
    ottla("groups", "reset-offsets", "programs", "-t", topic, "--to-earliest", "--execute")
    forgotten = ottla("groups", "delete-offsets", "programs", "-t", f"{topic}:1", "--json")
    assert forgotten.json == {"group": "programs", "deleted": [f"{topic}-1"]}
    assert ottla("groups", "delete", "programs", "-y", "--json").json == {"deleted": "programs"}
    assert ottla("topics", "delete", topic, "-y", "--json").json == {"deleted": [topic]}


def _new_offsets(ran: Ran) -> list[int]:
    assert ran.status == 0, ran.err
    return [row["new_offset"] for row in ran.json]


def test_a_group_is_described_reset_and_deleted(ottla: Ottla, at: EmbeddedBroker) -> None:
    ottla("topics", "create", "read", "-p", "1")
    ottla("produce", "read", stdin=b"1\n2\n3\n4\n5\n")
    assert len(ottla("consume", "read", "-g", "readers", "--from-beginning", "-n", "4").lines) == 4
    described = ottla("groups", "describe", "readers", "--json").json
    assert [(p["committed"], p["lag"]) for p in described["partitions"]] == [(4, 1)]
    assert described["members"] == []
    assert [g["group"] for g in ottla("groups", "list", "--json").json] == ["readers"]

    reset = ("groups", "reset-offsets", "readers", "-t", "read", "--json")
    assert _new_offsets(ottla(*reset, "--to-earliest")) == [0]
    assert _new_offsets(ottla(*reset, "--to-latest")) == [5]
    assert _new_offsets(ottla(*reset, "--to-offset", "3")) == [3]
    assert _new_offsets(ottla(*reset, "--to-offset", "99")) == [5]
    assert _new_offsets(ottla(*reset, "--shift-by", "-2")) == [2]
    assert _new_offsets(ottla(*reset, "--to-datetime", "2001-01-01")) == [0]
    assert _new_offsets(ottla(*reset, "--to-datetime", "2999-01-01")) == [5]
    assert ottla("groups", "describe", "readers", "--json").json["partitions"][0]["committed"] == 4

    assert _new_offsets(ottla(*reset, "--shift-by", "-2", "--execute")) == [2]
    assert ottla("consume", "read", "-g", "readers", "-n", "3").lines == [b"3", b"4", b"5"]
    assert ottla("groups", "reset-offsets", "readers", "-t", "read:9", "--to-earliest").status == 1
    assert ottla("groups", "delete-offsets", "readers", "-t", "read:0").status == 0
    assert ottla("groups", "delete", "readers", "-y").out == b"Deleted readers.\n"
    assert ottla("groups", "describe", "readers").status == 1


def test_groups_of_every_type_are_listed_and_described(ottla: Ottla, at: EmbeddedBroker) -> None:
    ottla("topics", "create", "both", "-p", "1")
    ottla("produce", "both", stdin=b"1\n2\n3\n")
    find = FindCoordinatorRequest(coordinator_keys=("consumers", "sharers"))
    update = FeatureUpdateKey(feature="share.version", max_version_level=1, upgrade_type=1)
    consumer = ConsumerGroupHeartbeatRequest(
        group_id="consumers",
        member_id="c",
        member_epoch=0,
        rebalance_timeout_ms=30_000,
        topic_partitions=(),
        subscribed_topic_names=("both",),
    )
    sharer = ShareGroupHeartbeatRequest(
        group_id="sharers", member_id="s", member_epoch=0, subscribed_topic_names=("both",)
    )
    with Wire(at.port) as wire:
        wire.ask(ApiKey.FIND_COORDINATOR, 6, find)
        wire.ask(ApiKey.UPDATE_FEATURES, 1, UpdateFeaturesRequest(feature_updates=(update,), timeout_ms=10_000))
        assert wire.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, consumer).error_code is ErrorCode.NONE
        assert wire.ask(ApiKey.SHARE_GROUP_HEARTBEAT, 1, sharer).error_code is ErrorCode.NONE
    listed = {(g["group"], g["type"], g["state"]) for g in ottla("groups", "list", "--json").json}
    assert listed == {("consumers", "consumer", "Stable"), ("sharers", "share", "Stable")}
    assert [g["group"] for g in ottla("groups", "list", "--type", "share", "--json").json] == ["sharers"]

    consumers = ottla("groups", "describe", "consumers", "--json").json
    assert (consumers["type"], consumers["assignor"]) == ("consumer", "uniform")
    (partition,) = consumers["partitions"]
    assert (partition["committed"], partition["log_end_offset"], partition["member"]) == (None, 3, "c")
    sharers = ottla("groups", "describe", "sharers", "--json").json
    assert (sharers["type"], sharers["assignor"]) == ("share", "simple")
    assert [member["member"] for member in sharers["members"]] == ["s"]


def test_members_of_a_consumer_group_are_described_on_their_way_to_their_targets(
    ottla: Ottla, at: EmbeddedBroker
) -> None:
    ottla("topics", "create", "halves", "-p", "2")
    at_once = "consumer.assignment.interval.ms=0"
    assert ottla("configs", "set", "group", "moving", at_once).status == 0
    first, second = (
        ConsumerGroupHeartbeatRequest(
            group_id="moving",
            member_id=member_id,
            member_epoch=0,
            rack_id=f"rack of {member_id}",
            rebalance_timeout_ms=30_000,
            topic_partitions=(),
            **subscription,
        )
        for member_id, subscription in (
            ("first", {"subscribed_topic_names": ("halves",)}),
            ("second", {"subscribed_topic_names": (), "subscribed_topic_regex": "halves|none"}),
        )
    )
    with Wire(at.port) as wire:
        wire.ask(ApiKey.FIND_COORDINATOR, 6, FindCoordinatorRequest(coordinator_keys=("moving",)))
        assert wire.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, first).error_code is ErrorCode.NONE
        assert wire.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, second).error_code is ErrorCode.NONE
    described = ottla("groups", "describe", "moving", "--json").json
    assert described["state"] == "Reconciling"
    assert described["epoch"] == described["assignment_epoch"]
    members = {member["member"]: member for member in described["members"]}
    old, new = members["first"], members["second"]
    assert (old["topics"], old["topic_regex"], old["rack"]) == (["halves"], None, "rack of first")
    assert (new["topics"], new["topic_regex"], new["rack"]) == ([], "halves|none", "rack of second")
    assert (old["by_classic_protocol"], new["by_classic_protocol"]) == (False, False)
    assert old["partitions"] == ["halves-0", "halves-1"], "nobody told the first member to give one up"
    assert new["partitions"] == []
    assert old["epoch"] < described["assignment_epoch"]
    assert sorted(old["target"] + new["target"]) == ["halves-0", "halves-1"]
    assert len(old["target"]) == len(new["target"]) == 1

    printed = ottla("groups", "describe", "moving", "--members").lines
    epoch = described["epoch"]
    assert printed[1].decode() == f"epoch {epoch}, assigned for epoch {epoch} by uniform"
    assert printed[2].split() == [b"member", b"instance", b"client", b"host", b"epoch", b"partitions", b"target"]


def test_records_are_deleted_from_the_front(ottla: Ottla, at: EmbeddedBroker) -> None:
    ottla("topics", "create", "front", "-p", "1")
    ottla("produce", "front", stdin=b"1\n2\n3\n")
    assert ottla("topics", "delete-records", "front", "--before", "0=2", "--json").json == [
        {"partition": 0, "log_start_offset": 2}
    ]
    assert ottla("consume", "front", "--from-beginning", "-n", "1").out == b"3\n"
    assert ottla("topics", "delete-records", "front", "--before", "0=9").status == 1


def test_configs_of_topics_brokers_and_groups(ottla: Ottla, at: EmbeddedBroker) -> None:
    ottla("topics", "create", "configured", "-p", "1")
    for kind, name, key, value, wrong in (
        ("topic", "configured", "retention.ms", "86400000", "soon"),
        ("broker", "1", "log.retention.ms", "3600000", "soon"),
        ("group", "configured", "consumer.session.timeout.ms", "50000", "soon"),
    ):
        assert ottla("configs", "set", kind, name, f"{key}={value}").status == 0
        entries = {e["name"]: e["value"] for e in ottla("configs", "describe", kind, name, "--json").json}
        assert entries[key] == value
        refused = ottla("configs", "set", kind, name, f"{key}={wrong}")
        assert refused.status == 1
        assert key in refused.err
        assert ottla("configs", "unset", kind, name, key).status == 0
        entries = {e["name"]: e["value"] for e in ottla("configs", "describe", kind, name, "--json").json}
        assert key not in entries
    documented = ottla("configs", "describe", "topic", "configured", "--all", "--doc", "--json").json
    assert all(entry["documentation"] for entry in documented)


def test_the_cluster_and_its_directories(ottla: Ottla, at: EmbeddedBroker) -> None:
    described = ottla("cluster", "describe", "--json").json
    assert [(b["id"], b["port"]) for b in described["brokers"]] == [(1, at.port)]
    (directory,) = ottla("cluster", "log-dirs", "--json").json
    assert directory["error"] == "NONE"
    assert directory["usable_bytes"] > 0


def test_directories_have_names_that_say_where_they_are(
    ottla: Ottla, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with EmbeddedBroker(Path("near")) as broker:
        (directory,) = ottla("cluster", "log-dirs", "--json", "-b", broker.bootstrap_servers).json
    assert directory["path"] == str(tmp_path / "near")


def _process(*words: str, **how: Any) -> subprocess.Popen[bytes]:
    program = "import sys; from ottla.cli.main import main; sys.exit(main())"
    return subprocess.Popen([sys.executable, "-c", program, *words], **how)


@pytest.fixture
def mortal(data_dir: Path) -> Iterator[BrokerProcess]:
    with BrokerProcess(data_dir) as running:
        yield running


def test_consume_ends_in_time_when_the_broker_dies_and_the_directory_is_sound(
    mortal: BrokerProcess, ottla: Ottla, data_dir: Path
) -> None:
    servers = mortal.bootstrap_servers
    ottla("topics", "create", "t", "-p", "2", "-b", servers)
    ottla("produce", "t", "-b", servers, stdin=b"1\n2\n")
    live = ottla("check", data_dir, "--json")
    assert (live.status, live.json["damaged"]) == (0, False)
    words = ("consume", "t", "-b", servers, "--from-beginning", "--timeout-ms", "2000")
    readers = [_process(*words, *group, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for group in ((), ("-g", "g"))]
    forever = _process(*words[:-2], "-g", "g2", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for reader in (*readers, forever):
        assert reader.stdout is not None
        assert sorted(reader.stdout.readline() for _ in range(2)) == [b"1\n", b"2\n"]
    mortal.kill()
    began = time.monotonic()
    for reader in readers:
        _, err = reader.communicate(timeout=10)
        assert reader.returncode == 1
        assert b"Traceback" not in err
        assert err.startswith(b"ottla: ")
    assert time.monotonic() - began < 6
    forever.send_signal(signal.SIGINT)
    began = time.monotonic()
    forever.communicate(timeout=10)
    assert time.monotonic() - began < 4

    after_kill = ottla("check", data_dir, "--json")
    assert (after_kill.status, after_kill.json["damaged"]) == (0, False)
    assert {finding["severity"] for finding in after_kill.json["findings"]} == {"note"}
    mortal.start()
    assert ottla("consume", "t", "-b", servers, "--from-beginning", "-n", "2").status == 0
    assert mortal.terminate() == 0
    stopped = ottla("check", data_dir, "--json")
    assert (stopped.status, stopped.json["findings"]) == (0, [])
    assert stopped.json["records"] > 2


def test_interrupted_members_commit_and_leave(at: EmbeddedBroker, ottla: Ottla) -> None:
    ottla("topics", "create", "interrupted", "-p", "1")
    ottla("produce", "interrupted", stdin=b"1\n2\n")
    words = ("consume", "interrupted", "-g", "ctrl-c", "--from-beginning")
    reader = _process(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reader.stdout is not None
    assert [reader.stdout.readline() for _ in range(2)] == [b"1\n", b"2\n"]
    reader.send_signal(signal.SIGINT)
    assert reader.communicate(timeout=10) == (b"", b"")
    described = ottla("groups", "describe", "ctrl-c", "--json").json
    assert described["state"] == "Empty"
    assert described["partitions"][0]["committed"] == 2


def test_a_deleted_topic_ends_its_reader(at: EmbeddedBroker, ottla: Ottla) -> None:
    ottla("topics", "create", "doomed", "-p", "1")
    ottla("produce", "doomed", stdin=b"1\n")
    reader = _process("consume", "doomed", "--from-beginning", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"1\n"
    ottla("topics", "delete", "doomed", "-y")
    _, err = reader.communicate(timeout=15)
    assert (reader.returncode, err) == (1, b"ottla: topic 'doomed': UNKNOWN_TOPIC_OR_PARTITION\n")


def test_a_reader_of_our_output_may_leave_early(at: EmbeddedBroker, ottla: Ottla) -> None:
    ottla("topics", "create", "piped", "-p", "1")
    ottla("produce", "piped", stdin=b"line of text\n" * 50_000)
    reader = _process("consume", "piped", "--from-beginning", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"line of text\n"
    reader.stdout.close()
    assert reader.stderr is not None
    with reader.stderr as err:
        assert err.read() == b""
    assert reader.wait(timeout=10) == 1


def test_dump_and_check_say_what_is_where(ottla: Ottla, tmp_path: Path) -> None:
    directory = tmp_path / "d"
    with EmbeddedBroker(directory) as broker:
        servers = broker.bootstrap_servers
        ottla("topics", "create", "t", "-p", "1", "-b", servers)
        ottla("produce", "t", "-b", servers, stdin=b"one\ntwo\n")
        ottla("consume", "t", "-g", "g", "-b", servers, "--from-beginning", "-n", "2")
    segment = directory / "t-0" / "00000000000000000000.log"
    rows = [json.loads(line) for line in ottla("dump", segment, "--records", "--json").lines]
    assert [row["value"] for row in rows if "value" in row] == ["one", "two"]
    for path in directory.rglob("*"):
        if path.is_file() and not path.name.startswith(".") and path.name != "recovery-point":
            ran = ottla("dump", path)
            assert (ran.status, ran.err) == (0, ""), path
    (offsets,) = (p for p in directory.glob("__consumer_offsets-*/*.log") if p.stat().st_size)
    assert b"OffsetCommitKey" in ottla("dump", offsets, "--records").out

    raw = bytearray(segment.read_bytes())
    raw[-2] ^= 1
    segment.write_bytes(raw)
    checked = ottla("check", directory)
    assert checked.status == 1
    assert str(segment).encode() in checked.out
    assert b"at byte 0" in checked.out
    assert b"DAMAGED" in checked.out


def test_a_started_interpreter_is_told_by_the_environment(ottla: Ottla, at: EmbeddedBroker) -> None:
    ottla("topics", "create", "told")
    reader = _process("topics", "list", "--json", stdout=subprocess.PIPE, env=os.environ.copy())
    out, _ = reader.communicate(timeout=20)
    assert "told" in {row["name"] for row in json.loads(out)}
