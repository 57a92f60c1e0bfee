"""A broker for a test: in a thread of this process, or in a process of its own that may be killed."""

from __future__ import annotations

import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

import trio

from ottla.broker.server import Ready, Server, the_error

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 30.0


class BrokerFailed(Exception):
    """The broker did not start, or did not end as it should."""


def _settings(data_dir: Path, port: int, settings: Mapping[str, str] | None) -> dict[str, str]:
    return {"log.dirs": str(data_dir), "listeners": f"PLAINTEXT://127.0.0.1:{port}"} | dict(settings or {})


class EmbeddedBroker:
    """A broker in a thread with an event loop of its own.

    ```
    with EmbeddedBroker(tmp_path) as broker:
        Producer(broker.bootstrap_servers)
    ```
    """

    def __init__(self, data_dir: Path, *, port: int = 0, settings: Mapping[str, str] | None = None) -> None:
        """Args: data_dir: Kept after the end. port: 0 picks one. settings: By Kafka's keys."""
        self.server = Server(_settings(data_dir, port, settings))
        self._outcome: queue.Queue[Ready | BaseException | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="ottla-broker", daemon=True)
        self._token: trio.lowlevel.TrioToken | None = None
        self.ready: Ready

    @property
    def port(self) -> int:
        return self.ready.port

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> EmbeddedBroker:
        self._thread.start()
        outcome = self._outcome.get(timeout=START_TIMEOUT_S)
        if not isinstance(outcome, Ready):
            raise BrokerFailed(f"the broker did not start: {outcome}") from outcome
        self.ready = outcome
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        try:
            self._token.run_sync_soon(self.server.stop)
        except trio.RunFinishedError:
            self._thread.join()
        outcome = self._outcome.get(timeout=STOP_TIMEOUT_S)
        self._thread.join()
        if isinstance(outcome, BaseException):
            raise BrokerFailed("the broker failed") from outcome

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:
            self._outcome.put(the_error(error))
        else:
            self._outcome.put(None)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._outcome.put(await nursery.start(self.server.run))


class BrokerProcess:
    """A broker in a process of its own; `kill` ends it as a crash would."""

    def __init__(self, data_dir: Path, *, port: int = 0, settings: Mapping[str, str] | None = None) -> None:
        self._data_dir = data_dir
        self._settings = dict(settings or {})
        self.port = port
        """0 until `start` knows which one was picked; later starts use that one."""
        self.output_path = data_dir.parent / f"{data_dir.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> BrokerProcess:
        """Start, and return when it serves."""
        command = [sys.executable, "-m", "ottla.broker", "--data-dir", str(self._data_dir), "--port", str(self.port)]
        for key, value in self._settings.items():
            command += ["--set", f"{key}={value}"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OTTLA_")}
        with self.output_path.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=output, env=environment)
        line = self._first_line(self._process)
        if not line.startswith("listening on "):
            self.kill()
            raise BrokerFailed(f"the broker did not start; its log ends: {self.output_path.read_text()[-2000:]}")
        self.port = int(line.split(",")[0].rsplit(":", 1)[1])
        return self

    @staticmethod
    def _first_line(process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        deadline_s = time.monotonic() + START_TIMEOUT_S
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline_s - time.monotonic()))
        return process.stdout.readline().decode().strip() if ready else ""

    def kill(self) -> None:
        """End it at once, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._close_pipe()

    def terminate(self) -> int:
        """Ask for a clean stop and return the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(timeout=STOP_TIMEOUT_S)
        self._close_pipe()
        return status

    def _close_pipe(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> BrokerProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.terminate()
        self._close_pipe()
