"""Clients that do nothing wrong, while others attack."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from ottla.errors import ErrorCode
from ottla.testing.broker import BrokerProcess
from tests.integration.wire import Wire

PAUSE_S = 0.005


def memory_bytes(broker: BrokerProcess, what: str = "VmRSS") -> int:
    """What a broker's process holds; `VmHWM`: the most it held since `forget_peak`."""
    status = Path(f"/proc/{broker.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(what))


def forget_peak(broker: BrokerProcess) -> None:
    Path(f"/proc/{broker.pid}/clear_refs").write_text("5")


class Innocent:
    """Produces a record, again and again, and keeps the longest time that it had to wait for an answer.

    ```
    with Innocent(broker) as innocent:
        attack(broker)
    assert innocent.worst_s < 1
    ```
    """

    def __init__(self, broker: BrokerProcess, *, topic: str = "innocent") -> None:
        self._broker = broker
        self._topic = topic
        self._is_served = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.waits_s: list[float] = []
        self.failure: Exception | None = None
        self.grown_bytes = 0
        """How far the broker's memory went above what it was at the start, at most."""

    @property
    def worst_s(self) -> float:
        return max(self.waits_s)

    def _run(self) -> None:
        try:
            with Wire(self._broker.port) as wire:
                wire.create(self._topic)
                is_last = False
                while not is_last:
                    is_last = self._stopping.wait(PAUSE_S)  # one more, which waits for all that the attack left
                    began_s = time.monotonic()
                    answer = wire.produce(self._topic, b"innocent")
                    self.waits_s.append(time.monotonic() - began_s)
                    assert answer.error_code is ErrorCode.NONE
                    self._is_served.set()
        except Exception as error:
            self.failure = error
        finally:
            self._is_served.set()

    def __enter__(self) -> Innocent:
        self._before_bytes = memory_bytes(self._broker)
        forget_peak(self._broker)
        self._thread.start()
        self._is_served.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self.grown_bytes = memory_bytes(self._broker, "VmHWM") - self._before_bytes
        if error is None and self.failure is not None:
            raise self.failure


class Repeating(threading.Thread):
    """Does one thing on a connection of its own, again and again, and keeps how long each time took."""

    def __init__(self, broker: BrokerProcess, act: Callable[[Wire, int], None]) -> None:
        super().__init__(daemon=True)
        self._broker = broker
        self._act = act
        self.waits_s: list[float] = []
        self.failure: Exception | None = None
        self._stopping = threading.Event()

    def run(self) -> None:
        try:
            with Wire(self._broker.port) as wire:
                while not self._stopping.wait(PAUSE_S):
                    began_s = time.monotonic()
                    self._act(wire, len(self.waits_s))
                    self.waits_s.append(time.monotonic() - began_s)
        except Exception as error:
            self.failure = error

    def stop(self) -> None:
        self._stopping.set()
        self.join()
        assert self.failure is None, self.failure
