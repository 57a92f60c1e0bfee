"""A broker that is killed again and again, while it serves and while it recovers: what was promised is kept."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from ottla.testing.broker import BrokerFailed, BrokerProcess
from tests.integration.wire import Wire
from tests.integration.workload import SETTINGS, Churn, Client, clients, leftover_directories

PROMISES = 3


def kill_while_it_starts(broker: BrokerProcess, *, after_s: float) -> None:
    """Start a broker and kill it after a while, wherever it then is in its recovery."""

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(broker.pid, signal.SIGKILL)

    timer = threading.Timer(after_s, kill)
    timer.start()
    with contextlib.suppress(BrokerFailed):
        broker.start()
    timer.join()
    broker.kill()


def check_all(broker: BrokerProcess, data_dir: Path, everybody: list[Client]) -> None:
    assert [client.failure for client in everybody if client.failure] == []
    with Wire(broker.port) as wire:
        for client in everybody:
            client.check(wire)
    output = broker.output_path.read_text()
    assert "Traceback" not in output
    assert "partition_made_anew" not in output
    deleted = next(client.deleted for client in everybody if isinstance(client, Churn))
    deadline_s = time.monotonic() + 10
    while leftover := leftover_directories(data_dir, deleted):
        assert time.monotonic() < deadline_s, leftover
        time.sleep(0.05)


def wait_for_promises(everybody: list[Client]) -> None:
    """Let the broker serve until each has something to be held to: a kill may come before the slowest was answered."""
    deadline_s = time.monotonic() + 30
    while any(client.promises < PROMISES and not client.failure for client in everybody):
        if time.monotonic() > deadline_s:
            break
        time.sleep(0.05)


def battle(data_dir: Path, *, seed: int, kills: int, seconds: float) -> int:
    """Kill until both bounds are reached, the first or the second; returns how often."""
    chance = random.Random(seed)
    with BrokerProcess(data_dir, settings=SETTINGS) as broker:
        everybody = clients(broker)
        with Wire(broker.port) as wire:
            for client in everybody:
                client.prepare(wire)
        for client in everybody:
            client.start()
        ends_s = time.monotonic() + seconds
        count = 0
        while count < kills and time.monotonic() < ends_s and not any(client.failure for client in everybody):
            time.sleep(chance.uniform(0.05, 1.0))
            broker.kill()
            for _ in range(chance.choice((0, 0, 1, 2))):
                kill_while_it_starts(broker, after_s=chance.uniform(0.1, 0.8))
            broker.start()
            count += 1
        wait_for_promises(everybody)
        for client in everybody:
            client.stop()
        check_all(broker, data_dir, everybody)
        assert {client.name: client.promises for client in everybody if client.promises < PROMISES} == {}
        broker.kill()
        broker.start()
        check_all(broker, data_dir, everybody)
        assert broker.terminate() == 0
    return count


def test_what_was_promised_is_kept_through_some_kills(tmp_path: Path) -> None:
    assert battle(tmp_path / "data", seed=1, kills=3, seconds=60) == 3


@pytest.mark.soak
def test_what_was_promised_is_kept_through_many_kills(tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    seconds = float(os.environ.get("SOAK_SECONDS", "60"))
    assert battle(tmp_path / "data", seed=seed, kills=1 << 30, seconds=seconds) > 0
