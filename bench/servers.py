"""The two brokers under test as processes: start, stop, CPU time, resident memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
START_SECONDS_MAX = 300.0
BOTH = {"group.initial.rebalance.delay.ms": 0, "group.consumer.assignment.interval.ms": 0}
"""What both brokers are set to: no rebalance waits for a moment that has nothing to do with the work."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return once something listens. Raises RuntimeError when the process ends or the time is up."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the broker ended with status {process.returncode} before it listened")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.005)
    raise RuntimeError(f"nothing listens on port {port}")


class Server(ABC):
    """One broker on loopback. Use as a context manager; `restart` keeps the data."""

    name: str

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0
        """When the process was last started, by the monotonic clock."""
        self._used: Counter[str] = Counter()

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the broker is not running"
        return self._process

    @abstractmethod
    def command(self) -> list[str]:
        """What starts the broker in the foreground."""

    def start(self) -> float:
        """Start and wait until the port listens; returns the seconds that took."""
        self.directory.mkdir(parents=True, exist_ok=True)
        began = self.started_s = time.monotonic()
        log = (self.directory / "broker.log").open("ab")
        self._process = subprocess.Popen(self.command(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        log.close()
        wait_for_port(self.port, self._process)
        return time.monotonic() - began

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, how)
            self._process.wait(timeout=60)
            self._process = None

    def pause(self) -> None:
        """Have the process do nothing at all until `resume`: as little as another one beside it could wish."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def fresh(self, name: str) -> str:
        """A name for a topic that no earlier round of the same load has used."""
        self._used[name] += 1
        return name if self._used[name] == 1 else f"{name}-{self._used[name]}"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def cpu_seconds(self) -> float:
        """User and system time of the broker's process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


class Ottla(Server):
    name = "Ottla"

    def command(self) -> list[str]:
        ottla = Path(sys.executable).with_name("ottla")
        data = str(self.directory / "data")
        command = [str(ottla), "serve", "--host", "127.0.0.1", "--port", str(self.port), "--data-dir", data]
        return command + [f"--set={key}={value}" for key, value in BOTH.items()]


class KeepsNothing(Server):
    """Receives what is produced, and forgets it (`bench.discarding`)."""

    name = "a broker that keeps nothing"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "bench.discarding", str(self.port), str(self.directory)]


class ApacheKafka(Server):
    """Kafka's jars with the settings of its own start script: 1 GiB of heap and G1."""

    name = "Apache Kafka"

    def __init__(self, directory: Path, jars: Path) -> None:
        super().__init__(directory)
        self.jars = jars
        self.controller_port = free_port()

    def _java(self) -> list[str]:
        return ["java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{self.jars}/*"]

    def start(self) -> float:
        self.directory.mkdir(parents=True, exist_ok=True)
        properties = self.directory / "server.properties"
        properties.write_text(
            "process.roles=broker,controller\nnode.id=1\n"
            f"controller.quorum.voters=1@127.0.0.1:{self.controller_port}\n"
            f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}\n"
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}\n"
            f"controller.listener.names=CONTROLLER\nlog.dirs={self.directory / 'data'}\n"
            "offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n"
            "transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n"
            "share.coordinator.state.topic.min.isr=1\n" + "".join(f"{key}={value}\n" for key, value in BOTH.items())
        )
        if not (self.directory / "data" / "meta.properties").exists():
            tool = [
                "org.apache.kafka.tools.StorageTool",
                "format",
                "-t",
                "MkU3OEVBNTcwNTJENDM2Qg",
                "-c",
                str(properties),
            ]
            done = subprocess.run([*self._java(), *tool], check=False, capture_output=True)
            if done.returncode:
                tool[0] = "kafka.tools.StorageTool"
                subprocess.run([*self._java(), *tool], check=True, capture_output=True)
        return super().start()

    def command(self) -> list[str]:
        heap = ["-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]
        heap += ["-XX:InitiatingHeapOccupancyPercent=35"]
        java, *rest = self._java()
        return [java, *heap, *rest, "kafka.Kafka", str(self.directory / "server.properties")]
