"""Kafka Streams: an application that counts words exactly once, while it and the broker are killed."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from ottla.testing.broker import BrokerProcess
from tests.compat.batteries import JAVA
from tests.compat.test_java_clients import version

CLIENT = ("Kafka Streams", version)

WORDS = ("one", "two", "three", "five", "eight")
PARTITIONS = 2
SOAK_SECONDS = int(os.environ.get("SOAK_SECONDS", "300"))


class Application:
    """The word count in a process that can be killed."""

    def __init__(self, bootstrap: str, directory: Path) -> None:
        self.command = [*JAVA, "WordCount", bootstrap, str(directory / "state")]
        self.output = directory / "word-count.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def wait_running(self, times: int) -> None:
        deadline = time.monotonic() + 60
        while self.output.read_text().count("running") < times:
            assert self.process is not None
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.05)


def counts(bootstrap: str, until: Counter[str], timeout_s: float) -> dict[str, list[int]]:
    """All counts of each word in the order in which readers of committed records see them, up to these totals."""
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    reader.assign([TopicPartition("counts", partition, 0) for partition in range(PARTITIONS)])
    found: dict[str, list[int]] = {word: [] for word in until}
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            message = reader.poll(0.2)
            if message is None or ((error := message.error()) and error.code() == KafkaError._PARTITION_EOF):
                if all(found[word] and found[word][-1] >= total for word, total in until.items()):
                    break
            elif message.error() is None:
                found[message.key().decode()].append(int(message.value()))
    finally:
        reader.close()
    return found


def count_through_kills(broker: BrokerProcess, directory: Path, *, kills: int, lines_per_kill: int) -> None:
    chance = random.Random(os.environ.get("OTTLA_SEED"))
    bootstrap = broker.bootstrap_servers
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for topic in ("lines", "counts"):
        admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()
    writer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "reconnect.backoff.max.ms": 500})
    total: Counter[str] = Counter()

    def write() -> None:
        for number in range(lines_per_kill):
            words = [chance.choice(WORDS) for _ in range(4)]
            total.update(words)
            writer.produce("lines", " ".join(words), partition=number % PARTITIONS)
        assert writer.flush(60) == 0

    application = Application(bootstrap, directory)
    application.start()
    try:
        application.wait_running(1)
        for kill in range(kills):
            write()
            time.sleep(chance.uniform(0, 0.5))
            if kill % 2 == 0:
                broker.kill()
                broker.start()
            else:
                application.kill()
                application.start()
        write()
        found = counts(bootstrap, total, timeout_s=120)
    finally:
        application.kill()
    expected = {word: list(range(1, count + 1)) for word, count in total.items()}
    wrong = {word: (len(found[word]), total[word]) for word in total if found[word] != expected[word]}
    assert not wrong, f"{wrong}; {application.output.read_text()[-3000:]}"


def test_words_are_counted_exactly_once(mortal: BrokerProcess, tmp_path: Path) -> None:
    """Counts words exactly once (exactly_once_v2) while the broker and the application are killed."""
    count_through_kills(mortal, tmp_path, kills=2, lines_per_kill=500)


@pytest.mark.soak
def test_words_are_counted_exactly_once_for_long(tmp_path: Path) -> None:
    """Counts words exactly once while the broker and the application are killed again and again."""
    with BrokerProcess(tmp_path / "data") as broker:
        count_through_kills(broker, tmp_path, kills=max(SOAK_SECONDS // 12, 4), lines_per_kill=2_000)
