"""What logs need from time to time: due syncs, forgotten producers, checkpoints, retention and compaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from ottla.broker.clock import now_ms, wall_ms
from ottla.broker.event_log import EventLog
from ottla.broker.worker import in_thread
from ottla.errors import KafkaError

if TYPE_CHECKING:
    from ottla._native import DataPlane, LogMaintenance
    from ottla.common.config import BrokerConfig

log = EventLog("logs")

TICK_S: Final = 1.0
CHECKPOINT_S: Final = 60.0
"""Kafka: log.flush.offset.checkpoint.interval.ms."""
RECOVERY_RETRY_S: Final = 5.0
CLEAN_STEP_BYTES: Final = 2 << 20
"""What compaction reads and writes between two looks at the clock: some milliseconds of work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceSettings:
    """Broker configs of retention and compaction, by Kafka's names."""

    retention_check_interval_ms: int
    cleaner_enable: bool
    cleaner_backoff_ms: int
    cleaner_dedupe_buffer_bytes: int
    cleaner_io_max_bytes_per_second: float

    @classmethod
    def of(cls, config: BrokerConfig) -> MaintenanceSettings:
        return cls(
            retention_check_interval_ms=config.integer("log.retention.check.interval.ms"),
            cleaner_enable=config.boolean("log.cleaner.enable"),
            cleaner_backoff_ms=config.integer("log.cleaner.backoff.ms"),
            cleaner_dedupe_buffer_bytes=config.integer("log.cleaner.dedupe.buffer.size"),
            cleaner_io_max_bytes_per_second=config.number("log.cleaner.io.max.bytes.per.second"),
        )


async def maintain_logs(
    plane: DataPlane,
    settings: Callable[[], MaintenanceSettings],
    on_log_start: Callable[[str, int], None],
    on_log_back: Callable[[str, int], None],
) -> None:
    """Look after the logs of all partitions, until cancelled.

    A task for each directory and job: a stalled disk holds up its own only.

    Args:
        settings: As they are now; asked again for every round.
        on_log_start: Told of partitions that have lost their beginning to retention.
        on_log_back: Told of partitions that were offline and may have lost their end.
    """
    from ottla._native import LogMaintenance

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tick, plane, nursery, on_log_back)
        for log_dir in range(len(plane.log_dirs())):
            maintenance = LogMaintenance(plane, log_dir, dedupe_buffer_bytes=settings().cleaner_dedupe_buffer_bytes)
            nursery.start_soon(_write_checkpoints, plane, log_dir)
            nursery.start_soon(_delete_old_segments, maintenance, settings, on_log_start)
            if settings().cleaner_enable:
                nursery.start_soon(_compact, maintenance, settings)


def log_complaints(plane: DataPlane) -> None:
    """Put into the log what was found wrong and takes no partition offline."""
    for complaint in plane.complaints():
        log.warning("log_complaint", reason=complaint)


async def _tick(plane: DataPlane, nursery: trio.Nursery, on_log_back: Callable[[str, int], None]) -> None:
    full: set[str] = set()
    while True:
        await trio.sleep(TICK_S)
        plane.tick(now_ms(), wall_ms())
        full_before, full = full, {info["path"] for info in plane.log_dirs() if info["is_full"]}
        for path in sorted(full - full_before):
            log.error("log_dir_full", log_dir=path)
        for path in sorted(full_before - full):
            log.info("log_dir_has_room", log_dir=path)
        log_complaints(plane)
        for topic, partition, reason in plane.take_offline():
            log.error("log_offline", topic=topic, partition=partition, reason=reason)
            nursery.start_soon(_bring_back, plane, topic, partition, on_log_back)


async def _bring_back(plane: DataPlane, topic: str, partition: int, on_log_back: Callable[[str, int], None]) -> None:
    """Recover a log whose write or sync failed, as often as it takes, until it is back or deleted."""
    while True:
        offline = plane.partition(topic, partition)
        if offline is None:
            return
        try:
            await in_thread(partial(offline.reopen, wall_ms()))
        except (KafkaError, OSError) as error:
            log.error("log_not_recovered", topic=topic, partition=partition, reason=str(error))
            await trio.sleep(RECOVERY_RETRY_S)
        else:
            log.info("log_back", topic=topic, partition=partition)
            on_log_back(topic, partition)
            return


async def _write_checkpoints(plane: DataPlane, log_dir: int) -> None:
    """If one fails the old one stays."""
    while True:
        await trio.sleep(CHECKPOINT_S)
        try:
            await in_thread(partial(plane.write_checkpoints, log_dir))
        except (KafkaError, OSError) as error:
            log.error("checkpoint_failed", log_dir=log_dir, reason=str(error))


async def _delete_old_segments(
    maintenance: LogMaintenance, settings: Callable[[], MaintenanceSettings], on_log_start: Callable[[str, int], None]
) -> None:
    while True:
        await trio.sleep(settings().retention_check_interval_ms / 1000)
        deleted, failed = await in_thread(partial(maintenance.delete_old_segments, wall_ms()))
        for topic, partition, count in deleted:
            log.info("segments_deleted", topic=topic, partition=partition, segments=count)
            on_log_start(topic, partition)
        for topic, partition, reason in failed:
            log.error("retention_failed", topic=topic, partition=partition, reason=reason)


async def _compact(maintenance: LogMaintenance, settings: Callable[[], MaintenanceSettings]) -> None:
    """Compact whatever is due, one log after the other; rest for a while when nothing is, or when something failed."""
    while True:
        picked = None
        try:
            picked = await in_thread(partial(maintenance.pick, wall_ms()))
            if picked is not None:
                await _compact_one(maintenance, *picked, settings)
                continue
        except (KafkaError, OSError) as error:
            topic, partition = picked or (None, None)
            log.error("compaction_failed", topic=topic, partition=partition, reason=str(error))
        await trio.sleep(settings().cleaner_backoff_ms / 1000)


async def _compact_one(
    maintenance: LogMaintenance, topic: str, partition: int, settings: Callable[[], MaintenanceSettings]
) -> None:
    while True:
        moved_bytes, stats = await in_thread(partial(maintenance.clean, CLEAN_STEP_BYTES))
        if stats is not None:
            log.info("log_compacted", topic=topic, partition=partition, **stats)
            return
        await trio.sleep(moved_bytes / settings().cleaner_io_max_bytes_per_second)
