"""The disk of one log directory does not answer for seconds: what has nothing to do with it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ottla._native import build_batch
from ottla.errors import ErrorCode
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest
from ottla.protocol.messages.describe_log_dirs import DescribeLogDirsRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.metadata import MetadataRequest
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerFailed, BrokerProcess
from tests.integration.innocent import Repeating
from tests.integration.wire import Wire

WORST_S = 1.0
STALL_S = 3.0
STOP_S = 10.0
"""Until all else is closed: a thread that waits for the disk is given up meanwhile, and so is a request's."""
GIVE_UP_S = 30.0
CLEAN = ".kafka_cleanshutdown"
HELD_UP_S = 6.0
"""Longer than the metadata waits for a disk (`PATIENCE_S`, once more if it had begun)."""


class StallingDisk:
    """A file system that can be made to let every write wait."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_stalled = False

    def stall(self) -> None:
        subprocess.run(["fsfreeze", "--freeze", self.path], check=True)
        self.is_stalled = True

    def go_on(self) -> None:
        if self.is_stalled:
            subprocess.run(["fsfreeze", "--unfreeze", self.path], check=True)
            self.is_stalled = False


@pytest.fixture
def slow_disk(tmp_path: Path) -> Iterator[StallingDisk]:
    image, path = tmp_path / "image", tmp_path / "slow"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(256 << 20)
    for command in (["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, path]):
        try:
            done = subprocess.run(command, check=False, capture_output=True)
        except FileNotFoundError:
            pytest.skip(f"{command[0]} is not there")
        if done.returncode != 0:
            pytest.skip("mounting takes rights that this user does not have")
    disk = StallingDisk(path)
    yield disk
    disk.go_on()
    subprocess.run(["umount", path], check=True)


def produce(topic: str) -> Callable[[Wire, int], None]:
    def act(wire: Wire, number: int) -> None:
        batch = build_batch([(None, b"%d" % number, int(time.time() * 1000), ())])
        assert wire.produce_batch(topic, batch).error_code is ErrorCode.NONE

    return act


def commit(wire: Wire, number: int) -> None:
    wanted = OffsetCommitRequestPartition(partition_index=0, committed_offset=number)
    request = OffsetCommitRequest(
        group_id="g", topics=(OffsetCommitRequestTopic(name="__consumer_offsets", partitions=(wanted,)),)
    )
    answer = wire.ask(ApiKey.OFFSET_COMMIT, 8, request)
    assert answer.topics[0].partitions[0].error_code is ErrorCode.NONE
    heartbeat = HeartbeatRequest(group_id="g", generation_id=1, member_id="nobody")
    assert wire.ask(ApiKey.HEARTBEAT, 4, heartbeat).error_code is ErrorCode.UNKNOWN_MEMBER_ID


def ask_for_metadata(wire: Wire, number: int) -> None:
    assert wire.ask(ApiKey.METADATA, 9, MetadataRequest(topics=None)).topics


def test_a_disk_that_stalls_holds_up_its_own_partitions_only(tmp_path: Path, slow_disk: StallingDisk) -> None:
    fast = tmp_path / "data"
    with two_disks(fast, slow_disk.path / "data") as broker, Wire(broker.port) as wire:
        topics = create_on_both(wire, fast, slow_disk.path / "data")
        steady = [Repeating(broker, act) for act in (produce(topics["fast"]), commit, ask_for_metadata)]
        stalled = Repeating(broker, produce(topics["slow"]))
        for thread in (*steady, stalled):
            thread.start()
        time.sleep(0.3)
        slow_disk.stall()
        began_s = time.monotonic()
        before = len(stalled.waits_s)
        time.sleep(STALL_S)
        assert wire.ask(ApiKey.DESCRIBE_LOG_DIRS, 4, DescribeLogDirsRequest(topics=None)).results
        assert len(stalled.waits_s) <= before + 1
        slow_disk.go_on()
        time.sleep(0.5)
        for thread in (*steady, stalled):
            thread.stop()
        assert max(stalled.waits_s) > STALL_S / 2
        assert [max(thread.waits_s) < WORST_S for thread in steady] == [True] * 3, [max(t.waits_s) for t in steady]
        assert time.monotonic() - began_s < STALL_S + 5
        values = wire.values(topics["slow"])
        assert values == [b"%d" % n for n in range(len(values))]


class UnreadableDisk:
    """The disk of a mounted file system, which can be made to let a process wait for all that it reads."""

    THROTTLE = Path("/sys/fs/cgroup/blkio")

    def __init__(self, path: Path) -> None:
        device = path.stat().st_dev
        self._device = f"{os.major(device)}:{os.minor(device)}"
        self._group = self.THROTTLE / f"ottla-test-{os.getpid()}"
        try:
            self._group.mkdir()
            self._limit_bytes(0)
        except OSError:
            self.close()
            pytest.skip("reading cannot be slowed down here")

    def _limit_bytes(self, a_second: int) -> None:
        (self._group / "blkio.throttle.read_bps_device").write_text(f"{self._device} {a_second}")

    def stall(self, pid: int) -> None:
        (self._group / "cgroup.procs").write_text(str(pid))
        self._limit_bytes(1)

    def go_on(self) -> None:
        self._limit_bytes(0)

    def close(self) -> None:
        if self._group.exists():
            for pid in (self._group / "cgroup.procs").read_text().split():
                (self.THROTTLE / "cgroup.procs").write_text(pid)
            self._group.rmdir()


@pytest.fixture
def unreadable_disk(slow_disk: StallingDisk) -> Iterator[UnreadableDisk]:
    with closing(UnreadableDisk(slow_disk.path)) as disk:
        yield disk
        disk.go_on()


def forget(directory: Path) -> None:
    """Have the kernel forget what it holds of the files of a directory."""
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_a_disk_that_cannot_be_read_holds_up_its_readers_only(
    tmp_path: Path, slow_disk: StallingDisk, unreadable_disk: UnreadableDisk
) -> None:
    fast, slow = tmp_path / "data", slow_disk.path / "data"
    with two_disks(fast, slow) as broker, Wire(broker.port) as wire:
        topics = create_on_both(wire, fast, slow)
        large = build_batch([(None, bytes(500_000), int(time.time() * 1000), ())])
        for _ in range(20):
            assert wire.produce_batch(topics["slow"], large).error_code is ErrorCode.NONE
        produce(topics["fast"])(wire, 0)
        forget(slow / f"{topics['slow']}-0")

        def read_fast(wire: Wire, _number: int) -> None:
            assert wire.fetch(topics["fast"], 0).records

        steady = [Repeating(broker, act) for act in (produce(topics["fast"]), read_fast, commit, ask_for_metadata)]
        read: list[bytes] = []
        reader = threading.Thread(target=lambda: read.extend(read_all(broker, topics["slow"], 20)))
        for thread in steady:
            thread.start()
        unreadable_disk.stall(broker.pid)
        began_s = time.monotonic()
        reader.start()
        time.sleep(STALL_S)
        assert not read
        unreadable_disk.go_on()
        reader.join(STOP_S)
        waited_s = time.monotonic() - began_s
        for thread in steady:
            thread.stop()
        assert [max(thread.waits_s) < WORST_S for thread in steady] == [True] * 4, [max(t.waits_s) for t in steady]
        assert [len(value) for value in read] == [500_000] * 20
        assert waited_s > STALL_S


def read_all(broker: BrokerProcess, topic: str, count: int) -> list[bytes]:
    with Wire(broker.port) as wire:
        found: list[bytes] = []
        while len(found) < count:
            found += wire.values(topic, len(found))
        return found


def test_topics_are_made_and_deleted_beside_a_disk_that_stalls(tmp_path: Path, slow_disk: StallingDisk) -> None:
    fast = tmp_path / "data"
    with two_disks(fast, slow_disk.path / "data") as broker, Wire(broker.port) as wire:
        topics = create_on_both(wire, fast, slow_disk.path / "data")
        made: dict[str, float] = {}

        def make(name: str) -> None:
            began_s = time.monotonic()
            with Wire(broker.port) as own:
                own.create(name)
            made[name] = time.monotonic() - began_s

        def delete() -> None:
            with Wire(broker.port) as own:
                own.delete(topics["slow"])
            made["deleted"] = time.monotonic() - began_s

        slow_disk.stall()
        began_s = time.monotonic()
        threads = [
            threading.Thread(target=delete),
            *(threading.Thread(target=make, args=(f"new-{n}",)) for n in range(4)),
        ]
        try:
            for number, thread in enumerate(threads):
                thread.start()
                # The deletion first, and each creation when the one before is answered or known to be held up.
                thread.join(HELD_UP_S if number else 0.2)
            answered = {name for name in made if name != "deleted"}
            assert "deleted" not in made
            assert len(answered) >= 2, f"only {made} of four topics within {time.monotonic() - began_s:.1f} s"
            assert all((fast / f"{name}-0").exists() for name in answered)
            metadata = wire.ask(ApiKey.METADATA, 9, MetadataRequest(topics=None))
            assert answered <= {topic.name for topic in metadata.topics}
            assert topics["slow"] not in {topic.name for topic in metadata.topics}
            for name in answered:
                batch = build_batch([(None, b"v", int(time.time() * 1000), ())])
                assert wire.produce_batch(name, batch).error_code is ErrorCode.NONE
        finally:
            slow_disk.go_on()
        for thread in threads:
            thread.join(30)
        assert made.keys() == {"deleted", "new-0", "new-1", "new-2", "new-3"}
        for number in range(4):
            batch = build_batch([(None, b"v", int(time.time() * 1000), ())])
            assert wire.produce_batch(f"new-{number}", batch).error_code is ErrorCode.NONE


def test_a_stop_beside_a_disk_that_stalls_ends(tmp_path: Path, slow_disk: StallingDisk) -> None:
    """All else is closed cleanly; that disk is not said to be clean, and what was acknowledged on it is there later."""
    fast, slow = tmp_path / "data", slow_disk.path / "data"
    with two_disks(fast, slow) as broker:
        with Wire(broker.port) as wire:
            topics = create_on_both(wire, fast, slow)
            for name in ("more-0", "more-1"):
                wire.create(name)
            doomed = next(name for name in ("more-0", "more-1") if (slow / f"{name}-0").exists())
            writers = {topic: Repeating(broker, produce(topic)) for topic in topics.values()}
            for thread in writers.values():
                thread.start()
            time.sleep(0.3)
            slow_disk.stall()
            try:
                # A thread of Python's waits for the disk, too.
                request = DeleteTopicsRequest(topic_names=(doomed,), timeout_ms=60_000)
                wire.send(ApiKey.DELETE_TOPICS, 5, request)
                time.sleep(0.3)
                os.kill(broker.pid, signal.SIGTERM)
                wait_for((fast / CLEAN).exists, STOP_S)
                with pytest.raises(ConnectionRefusedError):
                    Wire(broker.port)
                # The kernel keeps the rest of a process for as long as one of its threads waits for a disk.
                wait_for(lambda: is_over(broker.pid), GIVE_UP_S)
            finally:
                slow_disk.go_on()
        assert broker.terminate() == 1
        said = broker.output_path.read_text()
        assert f'doing="closing {slow}"' in said
        assert f"stopped not_closed={slow}" in said
        assert "_delete_all" in said
        assert "Traceback" not in said
        assert not (slow / CLEAN).exists()
        broker.start()
        with Wire(broker.port) as wire:
            for topic, thread in writers.items():
                thread.join()
                values = wire.values(topic)
                assert values == [b"%d" % n for n in range(len(values))]
                assert len(values) >= len(thread.waits_s) > 0


def test_a_stop_beside_the_stalled_disk_of_the_metadata_ends(tmp_path: Path, slow_disk: StallingDisk) -> None:
    """The metadata log is in the first directory. What is in the other one is found clean by the next start."""
    fast, slow = tmp_path / "data", slow_disk.path / "data"
    broker = two_disks(slow, fast)
    broker.output_path = fast.with_suffix(".log")
    with broker:
        with Wire(broker.port) as wire:
            for number in range(4):
                wire.create(f"topic-{number}")
            topic = next(f"topic-{n}" for n in range(4) if (fast / f"topic-{n}-0").exists())
            slow_disk.stall()
            try:
                produce(topic)(wire, 0)
                # The metadata waits for the disk.
                wire.send(ApiKey.DELETE_TOPICS, 5, DeleteTopicsRequest(topic_names=(topic,), timeout_ms=60_000))
                time.sleep(0.3)
                os.kill(broker.pid, signal.SIGTERM)
                wait_for((fast / CLEAN).exists, STOP_S)
                wait_for(lambda: is_over(broker.pid), GIVE_UP_S)
            finally:
                slow_disk.go_on()
        assert broker.terminate() == 1
        said = broker.output_path.read_text()
        assert f'stopped not_closed="the metadata log, {slow}"' in said
        assert "Traceback" not in said
        assert not (slow / CLEAN).exists()
        broker.start()
        with Wire(broker.port) as wire:
            # The deletion was not answered: it may have been kept, or not.
            if topic in {found.name for found in wire.ask(ApiKey.METADATA, 9, MetadataRequest(topics=None)).topics}:
                assert wire.values(topic) == [b"0"]
            wire.create("more")
            produce("more")(wire, 0)


def test_a_start_beside_a_disk_that_stalls_can_be_stopped(tmp_path: Path, slow_disk: StallingDisk) -> None:
    fast, slow = tmp_path / "data", slow_disk.path / "data"
    broker = two_disks(fast, slow).start()
    with Wire(broker.port) as wire:
        topics = create_on_both(wire, fast, slow)
        for topic in topics.values():
            produce(topic)(wire, 0)
    assert broker.terminate() == 0
    before = broker.output_path.read_text()
    assert "stopped" in before
    assert "not_closed" not in before
    slow_disk.stall()
    failures: list[BrokerFailed] = []

    def start() -> None:
        try:
            broker.start()
        except BrokerFailed as failed:
            failures.append(failed)

    starting = threading.Thread(target=start)
    starting.start()
    try:
        wait_for(lambda: waits_for_disk(broker.pid), STOP_S)
        os.kill(broker.pid, signal.SIGTERM)
        wait_for(lambda: is_over(broker.pid), GIVE_UP_S)
    finally:
        slow_disk.go_on()
    starting.join(GIVE_UP_S)
    assert len(failures) == 1
    assert broker.terminate() == 1
    said = broker.output_path.read_text().removeprefix(before)
    assert "start_given_up" in said
    assert "Traceback" not in said
    with broker, Wire(broker.port) as wire:
        assert [wire.values(topic) for topic in topics.values()] == [[b"0"], [b"0"]]


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s, "not in time"
        time.sleep(0.05)


def is_over(pid: int) -> bool:
    """Whether the main thread of a process has ended (`proc_pid_stat(5)`)."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def waits_for_disk(pid: int) -> bool:
    """Whether a thread of a process does (`proc_pid_stat(5)`)."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return any(stat.rsplit(")", 1)[1].split()[0] == "D" for stat in stats)


def two_disks(first: Path, second: Path) -> BrokerProcess:
    """A broker, not yet started, that keeps the metadata in the first directory and writes its log beside that."""
    broker = BrokerProcess(Path(f"{first},{second}"), settings={"offsets.topic.num.partitions": "1"})
    broker.output_path = first.with_suffix(".log")
    return broker


def create_on_both(wire: Wire, fast: Path, slow: Path) -> dict[str, str]:
    """Topics by where their only partition is; the group's is on the fast disk."""
    wire.ask(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=("g",)))
    assert (fast / "__consumer_offsets-0").exists()
    found: dict[str, str] = {}
    for n in range(4):
        wire.create(f"topic-{n}")
        found["fast" if (fast / f"topic-{n}-0").exists() else "slow"] = f"topic-{n}"
    assert found.keys() == {"fast", "slow"}
    return found
