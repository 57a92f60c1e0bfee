"""How a broker in the foreground ends: its exit status, and what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import trio

from ottla.broker import foreground
from ottla.broker.server import Ready
from ottla.broker.worker import close_in_thread
from ottla.common.endpoints import Endpoint
from tests.unit.broker.test_worker import Held

READY = Ready(node_id=1, cluster_id="c", listeners={"P": Endpoint(name="P", host="127.0.0.1", port=9092)}, http=None)


class FakeServer:
    """Serves until SIGTERM, which comes when it has started."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.stopping = trio.Event()
        self.stopped = trio.Event()

    def stop(self) -> None:
        self.stopping.set()

    async def wait_stopped(self) -> None:
        await self.stopped.wait()

    async def run(self, *, task_status: trio.TaskStatus[Ready]) -> None:
        await self.start()
        os.kill(os.getpid(), signal.SIGTERM)
        task_status.started(READY)
        await self.stopping.wait()
        await self.close()
        self.stopped.set()

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass


def fail(_server: Any) -> Any:
    raise OSError("the disk is broken")


def serve(monkeypatch: pytest.MonkeyPatch, **ways: Any) -> int:
    monkeypatch.setattr(foreground, "Server", type("Server", (FakeServer,), ways))
    return trio.run(foreground.serve, {})


def test_a_stop_in_order(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve(monkeypatch) == 0
    assert capsys.readouterr() == ("listening on P://127.0.0.1:9092\n", "")


def test_who_waits_for_the_start_is_told_before_anybody_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(foreground, "Server", FakeServer)
    assert trio.run(foreground.serve, {}, lambda: print("started")) == 0
    assert capsys.readouterr().out.startswith("started\nlistening on ")


def test_the_collector_spares_what_is_there() -> None:
    """In a process of its own: the collector is the process's."""
    program = (
        "import gc; from ottla.broker import foreground as f; before = len(gc.get_objects()); f.spare_what_is_there(); "
        "print(gc.get_freeze_count() >= before > len(gc.get_objects()), gc.get_threshold() == f.COLLECTED_AFTER)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "True True\n"


def test_a_start_that_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve(monkeypatch, start=fail) == 1
    assert capsys.readouterr() == ("", "cannot start: the disk is broken\n")


def test_a_stop_that_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve(monkeypatch, close=fail) == 1
    assert capsys.readouterr().err == "failed: the disk is broken\n"


def test_a_start_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(_server: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()

    monkeypatch.setattr(foreground, "STARTING_S", 0.01)
    assert serve(monkeypatch, start=start) == 1


def test_a_stop_that_leaves_something_open(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Held] = []

    async def close(_server: Any) -> None:
        held.append(Held())
        await close_in_thread("a directory", held[0], patience_s=0.01)

    try:
        assert serve(monkeypatch, close=close) == 1
    finally:
        held[0].let_go.set()
