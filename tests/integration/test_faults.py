"""Disks that fill up, directories that were damaged while the broker was down, and kills under load."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ottla.errors import ErrorCode
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerFailed, BrokerProcess
from tests.integration.wire import Wire

SEGMENT_BYTES = 1 << 20
VALUES = [b"%04d" % n + b"z" * 40_000 for n in range(80)]
"""Three segments and the beginning of a fourth."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB, of which the broker keeps 16 for itself."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", path], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a tmpfs takes rights that this user does not have")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_full_disk_refuses_records_and_heals_without_a_restart(small_disk: Path) -> None:
    broker = BrokerProcess(small_disk / "data")
    broker.output_path = small_disk.parent / "broker.log"
    hog = small_disk / "hog"
    acknowledged: list[bytes] = []

    def produce(wire: Wire, count: int) -> set[ErrorCode]:
        codes = set()
        for _ in range(count):
            value = b"%06d" % len(acknowledged) + os.urandom(100_000)
            answer = wire.produce("full", value)
            codes.add(answer.error_code)
            if answer.error_code is ErrorCode.NONE:
                assert answer.base_offset == len(acknowledged)
                acknowledged.append(value)
        return codes

    with broker, Wire(broker.port) as wire:
        wire.create("full")
        assert produce(wire, 5) == {ErrorCode.NONE}
        hog.write_bytes(bytes(20 << 20))
        assert produce(wire, 60) <= {ErrorCode.NONE, ErrorCode.KAFKA_STORAGE_ERROR}
        assert produce(wire, 1) == {ErrorCode.KAFKA_STORAGE_ERROR}
        assert wire.values("full") == acknowledged
        wire.create("made-while-full")
        hog.unlink()
        deadline_s = time.monotonic() + 5
        while produce(wire, 1) != {ErrorCode.NONE}:
            assert time.monotonic() < deadline_s, "there is room again, but records are still refused"
            time.sleep(0.05)
        assert wire.values("full") == acknowledged
        time.sleep(1.2)
        broker.kill()
        broker.start()
        with Wire(broker.port) as again:
            assert again.values("full") == acknowledged
    output = broker.output_path.read_text()
    assert output.count("records are refused until there is room") == 1
    assert "has room again" in output


def test_a_broker_starts_on_a_disk_without_any_room_and_serves_what_it_has(small_disk: Path) -> None:
    """Others filled it to the last byte while the broker was down, or brought it down by that."""
    broker = BrokerProcess(small_disk / "data")
    broker.output_path = small_disk.parent / "broker.log"
    values = [b"%d" % n for n in range(50)]
    topics = [f"topic-{n}" for n in range(30)]
    with broker, Wire(broker.port) as wire:
        for topic in topics:
            wire.create(topic)
            for value in values:
                assert wire.produce(topic, value).error_code is ErrorCode.NONE
        wait_for((small_disk / "data" / ".ballast").exists)
        broker.kill()
        hog = small_disk / "hog"
        with contextlib.suppress(OSError), hog.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        for _ in range(2):  # the second start finds what the first one left of the space
            broker.start()
            with Wire(broker.port) as again:
                for topic in topics:
                    assert again.values(topic) == values
                assert again.produce("topic-0", b"more").error_code is ErrorCode.KAFKA_STORAGE_ERROR
            broker.kill()
        broker.start()
        hog.unlink()
        with Wire(broker.port) as again:
            wait_for(lambda: again.produce("topic-0", b"more").error_code is ErrorCode.NONE)
            again.create("new")
            assert again.values("topic-0") == [*values, b"more"]
        wait_for((small_disk / "data" / ".ballast").exists)


def wait_for(is_so: Callable[[], bool], *, timeout_s: float = 10) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_connections_do_not_take_the_descriptors_that_logs_need(tmp_path: Path) -> None:
    settings = {"log.segment.bytes": str(SEGMENT_BYTES)}
    with BrokerProcess(tmp_path / "data", settings=settings) as broker, Wire(broker.port) as wire:
        wire.create("before")
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (80, 80))
        with contextlib.ExitStack() as stack:
            for _ in range(120):
                stack.enter_context(socket.create_connection(("127.0.0.1", broker.port)))
            for value in VALUES:  # three new segments
                assert wire.produce("before", value).error_code is ErrorCode.NONE
            wire.create("beside")
            assert wire.produce("beside", b"x").error_code is ErrorCode.NONE
            assert wire.values("before") == VALUES
    assert 'limit="open files"' in broker.output_path.read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a broker that was killed."""
    data_dir = tmp_path_factory.mktemp("whole") / "data"
    broker = BrokerProcess(data_dir, settings={"log.segment.bytes": str(SEGMENT_BYTES)}).start()
    with Wire(broker.port) as wire:
        wire.create("topic")
        for value in VALUES:
            assert wire.produce("topic", value).error_code is ErrorCode.NONE
    broker.kill()
    return data_dir


def garbage(pattern: str) -> Callable[[Path], None]:
    def spoil(data_dir: Path) -> None:
        for path in data_dir.glob(pattern):
            path.write_bytes(random.Random(path.name).randbytes(77))

    return spoil


def without(pattern: str) -> Callable[[Path], None]:
    def spoil(data_dir: Path) -> None:
        for path in data_dir.glob(pattern):
            path.unlink()

    return spoil


def with_tail(tail: bytes) -> Callable[[Path], None]:
    def spoil(data_dir: Path) -> None:
        with max(data_dir.glob("topic-0/*.log")).open("ab") as file:
            file.write(tail)

    return spoil


def with_leftovers(data_dir: Path) -> None:
    segment = min(data_dir.glob("topic-0/*.log"))
    for suffix in (".cleaned", ".deleted"):
        segment.with_name(segment.name + suffix).write_bytes(b"left over")
    shutil.copy(segment, segment.with_name(segment.name + ".swap"))


def with_strangers(data_dir: Path) -> None:
    (data_dir / "topic-0" / "notes.txt").write_text("mine")
    for name in ("not a topic", "unknown-0", "topic-9", "topic-0.0123456789abcdef0123456789abcdef-delete"):
        (data_dir / name).mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(garbage("topic-0/*index"), id="garbage in indexes"),
        pytest.param(without("topic-0/*index"), id="no indexes"),
        pytest.param(garbage("topic-0/*.snapshot"), id="garbage in producer snapshots"),
        pytest.param(without("topic-0/*.snapshot"), id="no producer snapshots"),
        pytest.param(garbage("*checkpoint"), id="garbage in checkpoints"),
        pytest.param(without("*checkpoint"), id="no checkpoints"),
        pytest.param(garbage("topic-0/leader-epoch-checkpoint"), id="garbage in leader epochs"),
        pytest.param(with_tail(bytes(5000)), id="zeros behind the end"),
        pytest.param(with_tail(random.Random(1).randbytes(333)), id="garbage behind the end"),
        pytest.param(with_leftovers, id="left over by a cleaner"),
        pytest.param(with_strangers, id="strangers"),
    ],
)
def test_what_can_be_made_again_is(whole: Path, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(whole, data_dir)
    spoil(data_dir)
    settings = {"log.segment.bytes": str(SEGMENT_BYTES)}
    with BrokerProcess(data_dir, settings=settings) as broker, Wire(broker.port) as wire:
        assert wire.values("topic") == VALUES
        assert wire.produce("topic", b"next").base_offset == len(VALUES)


def test_records_that_are_gone_are_told_of(whole: Path, tmp_path: Path) -> None:
    """What is missing cannot be served; nobody should have to find that out by counting."""
    data_dir = tmp_path / "data"
    shutil.copytree(whole, data_dir)
    segments = sorted((data_dir / "topic-0").glob("*.log"))
    missing, behind = segments[1], int(segments[2].stem)
    missing.unlink()
    broker = BrokerProcess(data_dir, settings={"log.segment.bytes": str(SEGMENT_BYTES)})
    with broker, Wire(broker.port) as wire:
        assert wire.values("topic") == VALUES[: int(missing.stem)] + VALUES[behind:]
    gap = f"no segment of topic-0 holds the offsets {int(missing.stem)} to {behind - 1}"
    assert broker.output_path.read_text().count(gap) == 1
    shutil.rmtree(data_dir / "topic-0")
    with broker, Wire(broker.port) as wire:
        assert wire.values("topic") == []
    assert broker.output_path.read_text().count("partition_made_anew topic=topic partition=0") == 1


@pytest.mark.parametrize(
    ("end", "told"), [("terminate", "ERROR partition_made_anew"), ("kill", "WARNING partition_not_found")]
)
def test_a_partition_that_is_gone_at_the_first_start_after_it_was_made_is_told_of(
    tmp_path: Path, end: str, told: str
) -> None:
    """After a kill it may as well have never been made."""
    broker = BrokerProcess(tmp_path / "data").start()
    with Wire(broker.port) as wire:
        wire.create("topic")
        wire.produce("topic", b"value")
    getattr(broker, end)()
    shutil.rmtree(tmp_path / "data" / "topic-0")
    with broker, Wire(broker.port) as wire:
        assert wire.values("topic") == []
    assert broker.output_path.read_text().count(f"{told} topic=topic partition=0") == 1


def test_a_damaged_partition_is_fenced_off_and_said_to_be(whole: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(whole, data_dir)
    segment = max((data_dir / "topic-0").glob("*.log"))
    content = bytearray(segment.read_bytes())
    content[100] ^= 0xFF
    segment.write_bytes(content)
    for checkpoint in data_dir.glob("*checkpoint"):
        checkpoint.unlink()
    settings = {"log.segment.bytes": str(SEGMENT_BYTES)}
    with BrokerProcess(data_dir, settings=settings) as broker, Wire(broker.port) as wire:
        assert wire.produce("topic", b"more").error_code is ErrorCode.KAFKA_STORAGE_ERROR
        wire.create("other")
        assert wire.produce("other", b"more").error_code is ErrorCode.NONE
        for command in (
            ["topics", "describe", "topic"],
            ["consume", "topic", "--from-beginning", "--timeout-ms", "1000"],
        ):
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-c", "from ottla.cli.entry import main; main()", *command,
                 "--bootstrap-server", f"127.0.0.1:{broker.port}"],
                check=False, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert "KAFKA_STORAGE_ERROR" in done.stdout + done.stderr, command
            assert (done.returncode == 0) == (command[0] == "topics"), command
            assert time.monotonic() - began < 15, command
    assert segment.name in broker.output_path.read_text()
    assert segment.read_bytes() == bytes(content)


def commit_offset(wire: Wire, offset: int) -> ErrorCode:
    """As a group without members does."""
    wanted = OffsetCommitRequestPartition(partition_index=0, committed_offset=offset)
    commit = OffsetCommitRequest(
        group_id="group", topics=(OffsetCommitRequestTopic(name="topic", partitions=(wanted,)),)
    )
    found = wire.ask(ApiKey.OFFSET_COMMIT, 7, commit).topics[0].partitions[0].error_code
    assert isinstance(found, ErrorCode)
    return found


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (0, "a batch claims to end at -"),
        (7, "a batch claims to end at 230 where 25 or more"),
        (70, "batch at offset 25: batch crc: "),
    ],
    ids=["offset far below", "offset far above", "value"],
)
def test_a_coordinator_whose_log_is_damaged_is_named_with_the_place(tmp_path: Path, at: int, said: str) -> None:
    data_dir = tmp_path / "data"
    broker = BrokerProcess(data_dir, settings={"offsets.topic.num.partitions": "1"})
    with broker, Wire(broker.port) as wire:
        wire.create("topic")
        wire.ask(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=("group",)))
        for offset in range(50):
            assert commit_offset(wire, offset) is ErrorCode.NONE
    (segment,) = (data_dir / "__consumer_offsets-0").glob("*.log")
    content = bytearray(segment.read_bytes())
    batch = content.index((25).to_bytes(8, "big") + bytes(2))  # the size follows
    content[batch + at] ^= 0xFF
    segment.write_bytes(content)
    with broker, Wire(broker.port) as wire:
        assert commit_offset(wire, 50) is ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert wire.produce("topic", b"value").error_code is ErrorCode.NONE
    failed = next(line for line in broker.output_path.read_text().splitlines() if "coordinator_load_failed" in line)
    assert "topic=__consumer_offsets partition=0 read_to=" in failed
    assert said in failed
    checked = subprocess.run(
        [sys.executable, "-c", "from ottla.cli.entry import main; main()", "check", str(data_dir)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert checked.returncode == 1
    assert segment.name in checked.stdout
    assert segment.read_bytes() == bytes(content)


@pytest.mark.parametrize(
    "pattern", ["meta.properties", "__cluster_metadata-0/quorum-state", "__cluster_metadata-0/*.log"]
)
def test_what_cannot_is_named_in_one_line(whole: Path, tmp_path: Path, pattern: str) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(whole, data_dir)
    path = next(data_dir.glob(pattern))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    broker = BrokerProcess(data_dir)
    with pytest.raises(BrokerFailed, match="cannot start: "):
        broker.start()
    output = broker.output_path.read_text()
    assert "Traceback" not in output
    assert path.name in output
