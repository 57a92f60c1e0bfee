"""Kafka Connect: real workers, standalone and distributed, with the connectors for files."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ottla.testing.broker import BrokerProcess
from tests.compat.batteries import JAVA
from tests.compat.test_java_clients import version

CLIENT = ("Kafka Connect", version)

PATIENCE_S = 60
LINES = 2_000
COMMON = {
    "key.converter": "org.apache.kafka.connect.storage.StringConverter",
    "value.converter": "org.apache.kafka.connect.storage.StringConverter",
    "plugin.discovery": "only_scan",
    "offset.flush.interval.ms": "500",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_properties(path: Path, values: dict[str, str]) -> Path:
    path.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    return path


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class Worker:
    """A Connect worker in a process of its own, asked through its REST interface."""

    def __init__(self, directory: Path, kind: str, *files: Path, port: int) -> None:
        self.command = [*JAVA, f"org.apache.kafka.connect.cli.{kind}", *map(str, files)]
        self.output = directory / f"{kind}.txt"
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def is_answering(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output.read_text()[-3000:]
        try:
            self.ask("GET", "/connectors")
        except (urllib.error.URLError, OSError):
            return False
        return True

    def put(self, name: str, config: dict[str, str]) -> None:
        """Make a connector; a worker that is just joining its group is asked again."""

        def is_done() -> bool:
            try:
                self.ask("PUT", f"/connectors/{name}/config", config)
            except urllib.error.HTTPError as refused:
                if refused.code not in (404, 409, 500, 503):
                    raise
                return False
            return True

        wait_until(is_done, f"{name} is not taken")


@contextmanager
def running(worker: Worker) -> Iterator[Worker]:
    worker.start()
    try:
        wait_until(worker.is_answering, "the worker does not answer")
        yield worker
    finally:
        if worker.process is not None and worker.process.poll() is None:
            worker.kill()


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def source(file: Path, topic: str) -> dict[str, str]:
    return {
        "connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector",
        "tasks.max": "1",
        "file": str(file),
        "topic": topic,
    }


def sink(file: Path, topic: str) -> dict[str, str]:
    return {
        "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector",
        "tasks.max": "1",
        "file": str(file),
        "topics": topic,
    }


def test_standalone(bootstrap: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """A standalone worker moves a file through a topic into another file."""
    topic, port = unique("standalone"), free_port()
    written, read = tmp_path / "in.txt", tmp_path / "out.txt"
    expected = [f"line {number}" for number in range(LINES)]
    written.write_text("\n".join(expected) + "\n")
    worker = write_properties(
        tmp_path / "worker.properties",
        COMMON
        | {
            "bootstrap.servers": bootstrap,
            "listeners": f"http://127.0.0.1:{port}",
            "offset.storage.file.filename": str(tmp_path / "offsets"),
        },
    )
    connectors = [
        write_properties(tmp_path / f"{name}.properties", {"name": f"{topic}-{name}", **config})
        for name, config in (("source", source(written, topic)), ("sink", sink(read, topic)))
    ]
    with running(Worker(tmp_path, "ConnectStandalone", worker, *connectors, port=port)) as standalone:
        wait_until(lambda: len(lines_of(read)) >= LINES, "not all lines arrive")
        standalone.stop()
    assert lines_of(read) == expected


def test_distributed_and_exactly_once(mortal: BrokerProcess, tmp_path: Path) -> None:
    """A distributed worker with exactly-once sources loses and doubles nothing while it and the broker are killed."""
    port = free_port()
    written, read = tmp_path / "in.txt", tmp_path / "out.txt"
    written.touch()
    settings = write_properties(
        tmp_path / "worker.properties",
        COMMON
        | {
            "bootstrap.servers": mortal.bootstrap_servers,
            "listeners": f"http://127.0.0.1:{port}",
            "group.id": "connect",
            "exactly.once.source.support": "enabled",
            "session.timeout.ms": "6000",
            "heartbeat.interval.ms": "1000",
            "scheduled.rebalance.max.delay.ms": "0",
            "reconnect.backoff.max.ms": "500",
            "consumer.isolation.level": "read_committed",
            **{f"{kind}.storage.topic": f"connect-{kind}" for kind in ("config", "offset", "status")},
            **{f"{kind}.storage.replication.factor": "1" for kind in ("config", "offset", "status")},
        },
    )
    worker = Worker(tmp_path, "ConnectDistributed", settings, port=port)
    expected: list[str] = []

    def write() -> None:
        lines = [f"line {number}" for number in range(len(expected), len(expected) + LINES)]
        expected.extend(lines)
        with written.open("a") as file:
            file.write("\n".join(lines) + "\n")

    with running(worker):
        worker.put("source", source(written, "moved"))
        worker.put("sink", sink(tmp_path / "early.txt", "moved"))
        write()
        wait_until(lambda: len(lines_of(tmp_path / "early.txt")) >= LINES, "nothing arrives")
        write()
        worker.kill()
        worker.start()
        wait_until(worker.is_answering, "the worker does not come back")
        write()
        mortal.kill()
        mortal.start()
        write()
        # A sink of its own reads the topic from its beginning: files know no transactions, the topic does.
        worker.put("again", sink(read, "moved"))
        wait_until(lambda: len(lines_of(read)) >= len(expected), f"only {len(lines_of(read))} lines arrive")
        worker.stop()
    assert lines_of(read) == expected
