"""The metadata quorum as tasks: ticks, a thread that writes, messages in and out.

The quorum itself decides (`ottla._native.Quorum`); this shell feeds it and carries out what it says. One task hands
jobs to a thread, one at a time, so that all proposals that come while a write is being synced share the next sync. A
lone voter needs no ticks and costs nothing while idle.

What is learnt goes to one `MetadataLog` listener by plain calls, in order, on the event loop. A proposal's waiter wakes
after the listener has seen the proposal's batch, so what it then reads includes its own write.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio

from ottla._native import (
    Quorum,
    QuorumFailedError,
    QuorumJob,
    QuorumLog,
    QuorumNoSpaceError,
    QuorumNotLeaderError,
)
from ottla.broker.clock import wall_ms
from ottla.broker.event_log import EventLog
from ottla.broker.worker import close_in_thread, in_thread

if TYPE_CHECKING:
    from ottla._native import QuorumEvent

log = EventLog("quorum")

NO_SPACE_RETRY_S: Final = 1.0
BATCH_BYTES_MAX: Final = 8 << 20
"""Kafka: KafkaRaftClient.MAX_BATCH_SIZE_BYTES."""
SNAPSHOT_RECORDS_PER_SLICE: Final = 256
"""Records that are encoded for a snapshot before other tasks get their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumSettings:
    """How a voter runs."""

    directory: str
    """The directory `__cluster_metadata-0`."""
    node_id: int
    voters: Sequence[int]
    """Node ids of all voters, this one included."""
    tick_ms: int = 100
    election_ticks: int = 10
    """A follower that hears nothing for one to two times this many ticks campaigns."""
    heartbeat_ticks: int = 2
    seed: int = 0
    """Decides the order in which voters campaign; the same on every voter."""
    segment_bytes: int = 1 << 30
    """Kafka: metadata.log.segment.bytes."""
    snapshot_bytes: int = 20 << 20
    """Record bytes between snapshots. Kafka: metadata.log.max.record.bytes.between.snapshots."""
    snapshot_interval_ms: int = 3_600_000
    """Time after which a change leads to a snapshot; 0: only bytes count. Kafka:
    metadata.log.max.snapshot.interval.ms."""
    snapshots_kept: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedBatch:
    """A committed batch of the metadata log; a control batch has offsets but no records."""

    base_offset: int
    last_offset: int
    epoch: int
    timestamp_ms: int
    records: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Records that stand for everything below `end_offset`."""

    end_offset: int
    epoch: int
    timestamp_ms: int
    records: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumStatus:
    """The quorum as this node knows it."""

    leader_id: int
    """-1: nobody is known to lead."""
    epoch: int
    is_active: bool
    """Whether this node may propose."""
    high_watermark: int
    """Offset after the last record that was delivered."""
    log_end_offset: int
    snapshot_end_offset: int
    voter_end_offsets: dict[int, int]
    """How far each voter has acknowledged the log; -1 where unknown, as on any but the leader."""


def fits_batch(records: Sequence[bytes]) -> bool:
    """Whether records can be proposed together. Counts the most that the framing of a record can take."""
    return 61 + sum(24 + len(record) for record in records) <= BATCH_BYTES_MAX


class MetadataLog(Protocol):
    """Who learns what the quorum decides. Plain calls on the event loop, in the order of the log. An error in one ends
    `QuorumRuntime.run`, whoever's call led to it: what was not taken in would be missing for good."""

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Start over from a snapshot."""

    def on_committed(self, batches: Sequence[CommittedBatch]) -> None:
        """Batches are committed: replay them. At a start many come at once."""

    def on_leader(self, leader_id: int, epoch: int) -> None:
        """Somebody else leads, or nobody (-1)."""

    def on_claimed(self, epoch: int) -> None:
        """This node leads and may propose. Everything committed in earlier epochs has been delivered."""

    def on_resigned(self, epoch: int) -> None:
        """This node leads no more. What it proposed and did not see committed may still be, by the next leader."""

    def snapshot_records(self) -> Iterable[bytes]:
        """The records that stand for everything delivered so far, taken from state that later calls do not change."""


@dataclass(slots=True, kw_only=True)
class _Waiter:
    last_offset: int
    epoch: int
    done: trio.Event = field(default_factory=trio.Event)
    error: QuorumNotLeaderError | None = None


class QuorumRuntime:
    """One voter: `run` it in a nursery, `propose` while it leads."""

    def __init__(
        self,
        settings: QuorumSettings,
        listener: MetadataLog,
        *,
        send: Callable[[int, bytes], None] | None = None,
        wall_clock: Callable[[], int] = wall_ms,
    ) -> None:
        """Args: send: Takes (voter, message) without waiting, and may lose it. None for a lone voter."""
        self.settings = settings
        self._listener = listener
        self._send = send
        self._wall_ms = wall_clock
        self._quorum: Quorum | None = None
        self._job: QuorumJob | None = None
        self._job_ready = trio.Event()
        self._writer_thread = trio.CapacityLimiter(1)
        """Its own, which no disk of partitions that stalls can take."""
        self._waiters: deque[_Waiter] = deque()
        self._pumping = False
        self._pump_again = False
        self._bytes_since_snapshot = 0
        self._last_timestamp_ms = 0
        self._snapshot_due = trio.Event()
        self._fault: BaseException | None = None
        self._faulted = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the log, report started once everything known to be committed is delivered (a lone voter leads by then),
        and run until cancelled.

        Raises: QuorumDamagedError (the node must not serve); OSError, QuorumFailedError (this process must not go on
        with the log).
        """
        quorum, writer = await self._open()
        self._quorum = quorum
        try:
            self._pump()
            if len(self.settings.voters) == 1:
                while not quorum.status()[2] and self._fault is None:
                    await self._persist_next(writer)
            if self._fault is not None:
                raise self._fault
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._persist, writer)
                nursery.start_soon(self._make_snapshots)
                nursery.start_soon(self._fail_on_fault)
                if len(self.settings.voters) > 1:
                    nursery.start_soon(self._tick)
        finally:
            self._fail_waiters("the quorum was stopped")
            self._quorum = None
            # a log that failed cannot be closed in order; its error is already on the way out
            with trio.CancelScope(shield=True), contextlib.suppress(QuorumFailedError):
                await close_in_thread("the metadata log", writer.close)

    async def _open(self) -> tuple[Quorum, QuorumLog]:
        settings = self.settings
        wall = self._wall_ms()

        def opened() -> tuple[Quorum, QuorumLog, tuple[int, list[str], int]]:
            return Quorum.open(
                settings.directory,
                node_id=settings.node_id,
                voters=list(settings.voters),
                seed=settings.seed,
                election_ticks=settings.election_ticks,
                heartbeat_ticks=settings.heartbeat_ticks,
                segment_bytes=settings.segment_bytes,
                snapshots_kept=settings.snapshots_kept,
                wall_ms=wall,
            )

        quorum, writer, (torn_bytes, damaged_snapshots, batches) = await in_thread(opened)
        if torn_bytes:
            log.warning("metadata_log_tail_cut", bytes=torn_bytes)
        for reason in damaged_snapshots:
            log.warning("metadata_snapshot_damaged", reason=reason)
        log.info("metadata_log_opened", batches=batches, directory=settings.directory)
        return quorum, writer

    def status(self) -> QuorumStatus:
        """Raises: QuorumNotLeaderError if the quorum is not running."""
        leader_id, epoch, is_active, high_watermark, log_end, snapshot_end, voters = self._running().status()
        return QuorumStatus(
            leader_id=leader_id,
            epoch=epoch,
            is_active=is_active,
            high_watermark=high_watermark,
            log_end_offset=log_end,
            snapshot_end_offset=snapshot_end,
            voter_end_offsets=dict(voters),
        )

    def propose_nowait(self, records: Sequence[bytes]) -> tuple[int, int]:
        """Propose one batch, committed whole or not at all; return (base_offset, epoch) that it has if it is.

        Raises: QuorumNotLeaderError, ValueError (no records, or more than 8 MiB of them).
        """
        base_offset, _last_offset, epoch = self._running().propose(records, self._wall_ms())
        self._pump()
        return base_offset, epoch

    async def propose(self, records: Sequence[bytes]) -> int:
        """Propose one batch and wait until it is committed and delivered; return its base offset.

        Raises: QuorumNotLeaderError: refused, or leadership was lost while waiting; then the batch may or may not be
        committed later. ValueError as `propose_nowait`.
        """
        base_offset, epoch = self.propose_nowait(records)
        await self.wait_committed(base_offset + len(records) - 1, epoch)
        return base_offset

    async def wait_committed(self, last_offset: int, epoch: int) -> None:
        """Wait until the batch that ends at `last_offset`, proposed in `epoch`, is committed and delivered.

        Raises: QuorumNotLeaderError as `propose`.
        """
        status = self._running().status()
        if status[3] > last_offset:
            await trio.lowlevel.checkpoint()
            return
        if not status[2] or status[1] != epoch:
            raise QuorumNotLeaderError(f"leadership of epoch {epoch} was lost")
        waiter = _Waiter(last_offset=last_offset, epoch=epoch)
        self._waiters.append(waiter)
        await waiter.done.wait()
        if waiter.error is not None:
            raise waiter.error

    def receive(self, message: bytes) -> None:
        """Take in a message of another voter. Raises: ValueError if it is malformed: close the connection."""
        if self._quorum is not None:
            self._quorum.step(message, self._wall_ms())
            self._pump()

    def on_unreachable(self, voter: int) -> None:
        """Messages to a voter were lost with its connection."""
        if self._quorum is not None:
            self._quorum.on_unreachable(voter, True)
            self._pump()

    def fail(self, fault: Exception) -> None:
        """End `run` with this error: what follows the log here has gone wrong and must not go on."""
        if self._fault is None:
            self._fault = fault
            self._faulted.set()
            self._fail_waiters("the quorum has failed")

    def _running(self) -> Quorum:
        if self._quorum is None or self._fault is not None:
            raise QuorumNotLeaderError("the quorum is not running")
        return self._quorum

    async def _fail_on_fault(self) -> None:
        await self._faulted.wait()
        assert self._fault is not None
        raise self._fault

    def _pump(self) -> None:
        """Carry out what the quorum says until it says nothing more. A listener may propose meanwhile."""
        self._pump_again = True
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._pump_again and self._quorum is not None and self._fault is None:
                self._pump_again = False
                messages, events, job = self._quorum.take_work()
                if self._send is not None:
                    for voter, message in messages:
                        self._send(voter, message)
                if job is not None:
                    self._job = job
                    self._job_ready.set()
                try:
                    self._deliver(events)
                except Exception as fault:
                    self.fail(fault)
                    return
                self._pump_again |= bool(messages or events or job)
        finally:
            self._pumping = False

    def _deliver(self, events: Sequence[QuorumEvent]) -> None:
        batches: list[CommittedBatch] = []
        for event in events:
            if event[0] == "committed":
                _, base_offset, last_offset, epoch, timestamp_ms, records = event
                batch = CommittedBatch(
                    base_offset=base_offset,
                    last_offset=last_offset,
                    epoch=epoch,
                    timestamp_ms=timestamp_ms,
                    records=records,
                )
                batches.append(batch)
                continue
            self._deliver_batches(batches)
            batches = []
            self._deliver_other(event)
        self._deliver_batches(batches)

    def _deliver_batches(self, batches: Sequence[CommittedBatch]) -> None:
        if not batches:
            return
        self._listener.on_committed(batches)
        self._last_timestamp_ms = batches[-1].timestamp_ms
        self._bytes_since_snapshot += sum(len(record) for batch in batches for record in batch.records)
        if self._bytes_since_snapshot >= self.settings.snapshot_bytes:
            self._snapshot_due.set()
        for batch in batches:
            self._wake_waiters(batch.last_offset, batch.epoch)

    def _deliver_other(self, event: QuorumEvent) -> None:
        if event[0] == "snapshot":
            _, end_offset, epoch, timestamp_ms, records = event
            self._last_timestamp_ms = timestamp_ms
            self._bytes_since_snapshot = 0
            self._listener.on_snapshot(
                Snapshot(end_offset=end_offset, epoch=epoch, timestamp_ms=timestamp_ms, records=records)
            )
        elif event[0] == "leader":
            log.info("metadata_leader", leader=event[1], epoch=event[2])
            self._listener.on_leader(event[1], event[2])
        elif event[0] == "claimed":
            log.info("metadata_leadership_claimed", epoch=event[1])
            self._listener.on_claimed(event[1])
        elif event[0] == "resigned":
            log.info("metadata_leadership_resigned", epoch=event[1])
            self._fail_waiters(f"leadership of epoch {event[1]} was lost")
            self._listener.on_resigned(event[1])

    def _wake_waiters(self, last_offset: int, epoch: int) -> None:
        while self._waiters and self._waiters[0].last_offset <= last_offset:
            waiter = self._waiters.popleft()
            if waiter.epoch != epoch:
                waiter.error = QuorumNotLeaderError(f"leadership of epoch {waiter.epoch} was lost")
            waiter.done.set()

    def _fail_waiters(self, reason: str) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            waiter.error = QuorumNotLeaderError(reason)
            waiter.done.set()

    async def _persist(self, writer: QuorumLog) -> None:
        while True:
            await self._persist_next(writer)

    async def _persist_next(self, writer: QuorumLog) -> None:
        await self._job_ready.wait()
        job, self._job = self._job, None
        self._job_ready = trio.Event()
        assert job is not None
        is_full = False
        while True:
            try:
                done = await in_thread(partial(writer.run, job), limiter=self._writer_thread)
                break
            except QuorumNoSpaceError as error:
                # nothing is lost: the same job can be run again, and what waits for it waits on
                if not is_full:
                    log.error("metadata_log_no_space", reason=str(error), retry_s=NO_SPACE_RETRY_S)
                is_full = True
                await trio.sleep(NO_SPACE_RETRY_S)
        if is_full:
            log.info("metadata_log_has_space")
        if self._quorum is not None:
            self._quorum.on_persisted(done)
            self._pump()

    async def _tick(self) -> None:
        while True:
            await trio.sleep(self.settings.tick_ms / 1000)
            if self._quorum is not None:
                self._quorum.tick(self._wall_ms())
                self._pump()

    async def _make_snapshots(self) -> None:
        interval_s = self.settings.snapshot_interval_ms / 1000 or math.inf
        while True:
            with trio.move_on_after(interval_s):
                await self._snapshot_due.wait()
            self._snapshot_due = trio.Event()
            if self._bytes_since_snapshot:
                await self.make_snapshot()

    async def make_snapshot(self) -> None:
        """Write a snapshot of everything delivered so far; the log behind the oldest snapshot kept goes.

        Does nothing if nothing came since the last one, or if one is being written.
        """
        end_offset, timestamp_ms = self._running().status()[3], self._last_timestamp_ms
        if end_offset <= self._running().status()[5]:
            return
        self._bytes_since_snapshot = 0
        records = []
        for record in self._listener.snapshot_records():
            records.append(record)
            if len(records) % SNAPSHOT_RECORDS_PER_SLICE == 0:
                await trio.lowlevel.checkpoint()
        quorum = self._running()
        if end_offset > quorum.status()[5]:  # no newer one came from another voter meanwhile
            started = quorum.create_snapshot(end_offset, timestamp_ms, records)
            log.info("metadata_snapshot", end_offset=end_offset, records=len(records), started=started)
            self._pump()
