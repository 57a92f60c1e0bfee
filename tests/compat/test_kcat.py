"""kcat, the command line of librdkafka."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ottla.testing.broker import BrokerProcess


def kcat(bootstrap: str, *arguments: str, text: str = "", timeout_s: float = 30) -> str:
    result = subprocess.run(
        ["kcat", "-b", bootstrap, *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def version() -> str:
    lines = subprocess.run(["kcat", "-V"], capture_output=True, text=True, check=True).stdout.splitlines()
    return next(line for line in lines if "librdkafka" in line).split("Version ")[1].split(" (")[0]


CLIENT = ("kcat", version)


def test_lists_the_cluster(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Lists brokers, topics and partitions."""
    topic = unique("listed")
    kcat(bootstrap, "-P", "-t", topic, text="a\n")
    listed = json.loads(kcat(bootstrap, "-L", "-J"))
    assert len(listed["brokers"]) == 1
    found = next(entry for entry in listed["topics"] if entry["topic"] == topic)
    assert [partition["partition"] for partition in found["partitions"]] == list(range(len(found["partitions"])))


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_round_trip(bootstrap: str, unique: Callable[[str], str], codec: str) -> None:
    """Produces and consumes with every codec."""
    topic = unique(f"codec-{codec}")
    lines = "".join(f"key{number}:value {number}\n" for number in range(1000))
    kcat(bootstrap, "-P", "-t", topic, "-p", "0", "-K", ":", "-z", codec, "-X", "linger.ms=10", text=lines)
    assert kcat(bootstrap, "-C", "-t", topic, "-p", "0", "-K", ":", "-o", "beginning", "-e", "-q") == lines


@pytest.mark.parametrize("setting", ["acks=0", "acks=1", "acks=all", "enable.idempotence=true"])
def test_acknowledgements(bootstrap: str, unique: Callable[[str], str], setting: str) -> None:
    """Produces with acks 0, 1 and all, and idempotently."""
    topic = unique("acks")
    kcat(bootstrap, "-P", "-t", topic, "-p", "0", text="created\n")
    kcat(bootstrap, "-P", "-t", topic, "-p", "0", "-X", setting, text="a\nb\n")
    assert kcat(bootstrap, "-C", "-t", topic, "-p", "0", "-e", "-q", "-c", "3") == "created\na\nb\n"


def test_headers_and_format(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Sends and prints headers, keys, offsets and timestamps."""
    topic = unique("headers")
    kcat(bootstrap, "-P", "-t", topic, "-p", "0", "-k", "key", "-H", "a=1", "-H", "b=2", text="value\n")
    printed = kcat(bootstrap, "-C", "-t", topic, "-e", "-q", "-f", "%k|%s|%h|%p|%o|%T\n")
    fields = printed.strip().split("|")
    assert fields[:5] == ["key", "value", "a=1,b=2", "0", "0"]
    assert abs(int(fields[5]) / 1000 - time.time()) < 60


def test_offsets_and_seeking(bootstrap: str, unique: Callable[[str], str]) -> None:
    """Starts at an offset, at a time and near the end, and asks for offsets by time."""
    topic = unique("seek")
    kcat(bootstrap, "-P", "-t", topic, "-p", "0", text="a\nb\nc\n")
    time.sleep(0.05)
    between_ms = int(time.time() * 1000)
    time.sleep(0.05)
    kcat(bootstrap, "-P", "-t", topic, "-p", "0", text="d\ne\n")
    consume = ["-C", "-t", topic, "-p", "0", "-e", "-q"]
    assert kcat(bootstrap, *consume, "-o", "2") == "c\nd\ne\n"
    assert kcat(bootstrap, *consume, "-o", "-1") == "e\n"
    assert kcat(bootstrap, *consume, "-o", f"s@{between_ms}") == "d\ne\n"
    assert kcat(bootstrap, "-Q", "-t", f"{topic}:0:{between_ms}").strip() == f"{topic} [0] offset 3"


def test_group_resumes(bootstrap: str, unique: Callable[[str], str]) -> None:
    """A group of consumers commits and resumes."""
    topic, group = unique("group"), unique("g")
    kcat(bootstrap, "-P", "-t", topic, "-p", "0", text="a\nb\n")
    read = ["-q", "-X", "auto.offset.reset=earliest", "-G", group]
    assert kcat(bootstrap, *read, "-c", "2", topic) == "a\nb\n"
    kcat(bootstrap, "-P", "-t", topic, "-p", "0", text="c\n")
    assert kcat(bootstrap, *read, "-c", "1", topic) == "c\n"


def test_broker_is_killed(mortal: BrokerProcess, unique: Callable[[str], str], tmp_path: Path) -> None:
    """A producer and a group survive a broker that is killed and comes back."""
    topic, group = unique("killed"), unique("g")
    kcat(mortal.bootstrap_servers, "-P", "-t", topic, "-p", "0", text="0\n")
    settings = ["-E", "-X", "reconnect.backoff.max.ms=500", "-X", "enable.idempotence=true"]
    command = ["kcat", "-b", mortal.bootstrap_servers]
    with (
        (tmp_path / "out").open("w") as out,
        subprocess.Popen(
            [*command, "-P", "-t", topic, "-p", "0", *settings], stdin=subprocess.PIPE, text=True
        ) as producer,
        subprocess.Popen(
            [*command, "-q", "-u", *settings[:3], "-X", "auto.offset.reset=earliest", "-c", "400", "-G", group, topic],
            stdout=out,
        ) as consumer,
    ):
        assert producer.stdin is not None
        try:
            for number in range(1, 400):
                producer.stdin.write(f"{number}\n")
                producer.stdin.flush()
                time.sleep(0.002)
                if number == 200:
                    mortal.kill()
                    mortal.start()
            producer.stdin.close()
            assert producer.wait(60) == 0
            assert consumer.wait(60) == 0
        finally:
            producer.kill()
            consumer.kill()
    assert (tmp_path / "out").read_text().split() == [str(number) for number in range(400)]
