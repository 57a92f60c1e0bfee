"""A frame for each of many connections, sent at an even pace: how long the answers take, and what the broker pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from bench.servers import Server
from bench.wire import Client, repeat

SECONDS = 10.0
WARM_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Paced:
    """What came of it."""

    latencies_ms: list[float]
    """Of each answer."""
    cpu_s: float
    """The broker's user and system time."""
    seconds: float
    """How long the load went on."""


def paced(
    server: Server,
    frames: Sequence[bytes],
    *,
    interval_s: float,
    warm_seconds: float = WARM_SECONDS,
    seconds: float = SECONDS,
) -> Paced:
    """Send each frame on a connection of its own every `interval_s` seconds (0: as soon as the last is answered)."""

    async def main() -> Paced:
        async with trio.open_nursery() as nursery:
            clients = [await Client.connect(server.port) for _ in frames]
            latencies: list[float] = []

            async def run(for_seconds: float, into: list[float]) -> None:
                async with trio.open_nursery() as running:
                    for number, (client, frame) in enumerate(zip(clients, frames, strict=True)):
                        lag_s = interval_s * number / len(frames)
                        running.start_soon(repeat, client, frame, into, interval_s, for_seconds, lag_s)

            await run(warm_seconds, [])
            before = server.cpu_seconds()
            began_s = trio.current_time()
            await run(seconds, latencies)
            found = Paced(latencies, server.cpu_seconds() - before, trio.current_time() - began_s)
            for client in clients:
                client.close()
            nursery.cancel_scope.cancel()
        return found

    return trio.run(main)
