"""What logs need from time to time: due syncs, forgotten producers, checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from ottla.broker.clock import now_ms, wall_ms
from ottla.broker.event_log import EventLog
from ottla.errors import KafkaError

if TYPE_CHECKING:
    from ottla._native import DataPlane

log = EventLog("logs")

TICK_S: Final = 1.0
CHECKPOINT_S: Final = 60.0
"""Kafka: log.flush.offset.checkpoint.interval.ms."""


async def maintain_logs(plane: DataPlane) -> None:
    """Look after the logs of all partitions, until cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tick, plane)
        for log_dir in range(len(plane.log_dirs())):
            nursery.start_soon(_write_checkpoints, plane, log_dir)


async def _tick(plane: DataPlane) -> None:
    while True:
        await trio.sleep(TICK_S)
        plane.tick(now_ms(), wall_ms())


async def _write_checkpoints(plane: DataPlane, log_dir: int) -> None:
    """A task for each directory: a stalled disk holds up its own checkpoints only. If one fails the old one stays."""
    while True:
        await trio.sleep(CHECKPOINT_S)
        try:
            await trio.to_thread.run_sync(plane.write_checkpoints, log_dir)
        except (KafkaError, OSError) as error:
            log.error("checkpoint_failed", log_dir=log_dir, reason=str(error))
