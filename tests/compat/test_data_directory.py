"""What lies in a data directory, read by Apache Kafka's DumpLogSegments."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from ottla.testing.broker import BrokerProcess
from tests.compat.test_confluent_kafka import consumer, create, poll
from tests.compat.test_java_clients import version
from tests.compat.tools import JavaTools

CLIENT = ("DumpLogSegments", version)
COMPLAINT = re.compile(
    r"mismatch|non-consecutive|is followed by|out of order|not found|"
    r"invalid|corrupt|isvalid: false|cannot be|exception|error",
    re.IGNORECASE,
)
RECORD_COUNT = 3000


@pytest.fixture(scope="module")
def tools() -> Iterator[JavaTools]:
    with JavaTools() as running:
        yield running


@pytest.fixture(scope="module", params=["stopped", "killed"])
def data_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a broker leaves behind that has served all codecs, rolled segments, compacted and kept a group's offsets."""
    if os.environ.get("OTTLA_COMPAT_BOOTSTRAP"):
        pytest.skip("the named broker's directory is not ours to read")
    directory = tmp_path_factory.mktemp("dumped") / "data"
    settings = {
        "log.index.interval.bytes": "1024",
        "log.cleaner.backoff.ms": "500",
        "metadata.log.max.record.bytes.between.snapshots": "2000",
    }
    with BrokerProcess(directory, settings=settings) as broker:
        bootstrap = broker.bootstrap_servers
        create(bootstrap, "codecs", segment_bytes="1048576")
        create(bootstrap, "compacted", cleanup_policy="compact", segment_ms="200", min_cleanable_dirty_ratio="0.01")
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            settings = {"compression.type": codec, "enable.idempotence": True, "batch.num.messages": 20}
            producer = Producer({"bootstrap.servers": bootstrap} | settings)
            for number in range(RECORD_COUNT):
                producer.produce("codecs", os.urandom(400), key=str(number), headers=[("a", b"b")])
                if number % 100 == 0:
                    producer.produce("compacted", str(number), key=str(number % 700))
                producer.poll(0)
            assert producer.flush(30) == 0
        with consumer(bootstrap, "readers", "codecs") as running:
            message = poll(running, 5 * RECORD_COUNT)[-1]
            running.commit(message=message, asynchronous=False)
        if request.param == "killed":
            broker.kill()
    return directory


def dump(tools: JavaTools, files: list[Path], *options: str, status: int | None = 0) -> str:
    assert files
    # What is wrong with indexes and offsets it says on standard error, and ends with status 0.
    return tools.run("dump-log", "--files", ",".join(map(str, files)), *options, status=status, complaints=True)


def complaints(printed: str, files: list[Path]) -> list[str]:
    """What the tool found wrong. Values may hold any word, and the offset before the first of any file is -1 to it."""
    starts = "|".join(str(int(file.stem)) for file in files if file.suffix == ".log") or "nothing"
    quirk = rf"Non-consecutive offsets in .*\n +-1 is followed by (?:{starts})\n"
    return COMPLAINT.findall(re.sub(quirk, "", re.sub(r"payload: .*", "", printed)))


def logs(data_dir: Path, partitions: str, suffix: str = "log") -> list[Path]:
    return sorted(data_dir.glob(f"{partitions}/*.{suffix}"))


def test_segments(tools: JavaTools, data_dir: Path) -> None:
    """Segments of all codecs, read to the last record."""
    files = logs(data_dir, "codecs-0")
    assert len(files) > 3
    printed = dump(tools, files, "--deep-iteration", "--print-data-log")
    assert not complaints(printed, files)
    assert printed.count("isvalid: true") == len(re.findall(r"^baseOffset: ", printed, re.MULTILINE)) > 100
    assert len(re.findall(r"^\| offset: ", printed, re.MULTILINE)) == 5 * RECORD_COUNT


def test_indexes(tools: JavaTools, data_dir: Path) -> None:
    """Offset and time indexes are sane and match their segments."""
    for suffix in ("index", "timeindex"):
        files = logs(data_dir, "codecs-0", suffix)
        assert any(file.stat().st_size for file in files)
        for option in ("--index-sanity-check", "--verify-index-only"):
            printed = dump(tools, files, option)
            assert not complaints(printed, files), printed
        for file in files:  # each entry is looked up in the log
            assert not complaints(printed := dump(tools, [file]), [file]), printed


def test_damage_is_complained_of(tools: JavaTools, data_dir: Path, tmp_path: Path) -> None:
    """Finds what was damaged on purpose, so that its silence means something."""
    segment, *_ = logs(data_dir, "codecs-0")
    for suffix, position, bit in (("log", 200, 0x01), ("index", 15, 0x01), ("timeindex", 6, 0x80)):
        spoilt = tmp_path / suffix / "codecs-0"
        shutil.copytree(segment.parent, spoilt)
        file = spoilt / f"{segment.stem}.{suffix}"
        data = bytearray(file.read_bytes())
        data[position] ^= bit
        file.write_bytes(data)
        options = ("--deep-iteration",) if suffix == "log" else ()
        printed = dump(tools, [file], *options, status=None)
        assert complaints(printed, [file]), suffix


def test_producer_snapshots(tools: JavaTools, data_dir: Path) -> None:
    """Producer snapshots name the producers."""
    files = logs(data_dir, "codecs-0", "snapshot")
    printed = dump(tools, files)
    assert "producerId: " in printed
    assert not complaints(printed, files)


def test_compacted(tools: JavaTools, data_dir: Path) -> None:
    """Compacted segments keep their offsets in order."""
    printed = dump(tools, logs(data_dir, "compacted-0"), "--deep-iteration")
    assert "isvalid: false" not in printed
    offsets = [int(found) for found in re.findall(r"^\| offset: (\d+)", printed, re.MULTILINE)]
    assert offsets == sorted(set(offsets))


def test_offsets_topic(tools: JavaTools, data_dir: Path) -> None:
    """The offsets topic holds groups and commits as Kafka writes them."""
    printed = dump(tools, logs(data_dir, "__consumer_offsets-*"), "--offsets-decoder")
    assert '"group":"readers"' in printed
    assert f'"offset":{5 * RECORD_COUNT}' in printed
    assert "Could not read" not in printed


def test_metadata_log(tools: JavaTools, data_dir: Path) -> None:
    """The metadata log holds Kafka's records, behind the note of the leader that wrote them."""
    files = logs(data_dir, "__cluster_metadata-0")
    printed = dump(tools, files, "--cluster-metadata-decoder")
    assert '"type":"TOPIC_RECORD","version":0,"data":{"name":"codecs"' in printed
    assert 'LeaderChange: {"version":0,"leaderId":1,' in printed
    assert not complaints(printed, files)
    assert "Could not read" not in printed
    assert "skipping" not in printed.lower()


def test_metadata_snapshots(tools: JavaTools, data_dir: Path) -> None:
    """Snapshots of the metadata are checkpoint files of Kafka's, whole from header to footer."""
    files = logs(data_dir, "__cluster_metadata-0", "checkpoint")
    assert files
    for file in files:
        end_offset, epoch = file.stem.split("-")
        printed = dump(tools, [file], "--cluster-metadata-decoder")
        assert f"Snapshot end offset: {int(end_offset)}, epoch: {int(epoch)}" in printed
        assert printed.count("SnapshotHeader {") == printed.count("SnapshotFooter {") == 1
        assert '"name":"metadata.version"' in printed
        assert not complaints(printed, [file]), printed
        assert "Could not read" not in printed
