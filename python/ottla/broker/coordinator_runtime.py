"""Runs the shards of one internal topic: appends what they decide, parks their replies, wakes them in time.

A shard (`ottla.coordinator.shard`) decides everything; this module gives it a partition to write to, the high
watermark, and a clock. `CoordinatorRuntime.ask` is the whole life of a request: the machine decides, records are
appended and replayed at once, and the caller is called back when the reply's token comes up, which may be in the same
call, when the high watermark has moved, when another member has spoken or when a deadline has passed.

A shard that breaks (a bug of ours, a log that cannot be read) is given up and, if its log can be read, loaded
again: its clients are told to look for their coordinator, and the others are not touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeVar

import trio

from ottla.broker.clock import now_ms, trio_time, wall_ms
from ottla.broker.event_log import EventLog
from ottla.broker.later import Later
from ottla.coordinator.replaying import latest_offsets, to_replay
from ottla.coordinator.shard import (
    CoordinatorRecord,
    Instant,
    LoadedRecord,
    Machine,
    Outcome,
    Producer,
    Reply,
    Shard,
    TransactionEnd,
    TransactionMarker,
    coordinator_error,
)
from ottla.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from ottla._native import RecordBatch

log = EventLog("coordinator")

M = TypeVar("M", bound=Machine)
R = TypeVar("R")

LOAD_BYTES: Final = 1 << 18
REPLAY_RECORDS_PER_TURN: Final = 500
"""Records replayed before other tasks may run: about a millisecond."""
LOADS_AT_ONCE: Final = 2
LOAD_RETRY_S: Final = 5.0
"""Before a log is read once more that the disk did not let be read; then twice as long each time."""
LOAD_RETRY_MAX_S: Final = 60.0


class PartitionLog(Protocol):
    """What a shard needs of its partition."""

    def append(self, records: Sequence[CoordinatorRecord], *, wall_ms: int, producer: Producer | None = None) -> int:
        """Append one batch, as part of the producer's transaction if there is one; returns its base offset.

        Touches no disk. Raises: KafkaError.
        """

    def append_marker(self, end: TransactionEnd, *, wall_ms: int) -> int:
        """Append the marker that ends a transaction; returns its offset. Touches no disk. Raises: KafkaError."""

    async def read(self, offset: int, *, bytes_max: int) -> Sequence[RecordBatch]:
        """Committed batches from `offset` on; none at the high watermark. Raises: KafkaError, OSError, ValueError."""

    def offsets(self) -> tuple[int, int, int]:
        """(log start offset, high watermark, log end offset)."""

    def take_cut(self) -> Cut | None:
        """What was lost of the log since the last call. Until that is asked for, every append raises KafkaError."""


class Cut(NamedTuple):
    """What of a log was lost to a failed write."""

    offset: int
    """Nothing that was appended from here on is in the log."""
    is_reloaded: bool
    """The log went through recovery: only the log itself says what is in it."""


class AppendedElsewhere(NamedTuple):
    """What the data plane appended to a partition by itself, and the partition's high watermark."""

    high_watermark: int
    records: Sequence[LoadedRecord]
    """By rising offset, without those that others of them have overtaken."""


class _GivenUp(KafkaError):
    """The shard was given up, and is loaded again."""


class _Parked(NamedTuple):
    """A request whose reply is not there yet."""

    partition: int
    later: Later
    """Who is called back."""


class _Served(Generic[M]):
    """One partition that this broker coordinates."""

    __slots__ = ("commands", "is_broken", "log", "moved", "partition", "scope", "settled", "shard")

    def __init__(self, partition: int, partition_log: PartitionLog, shard: Shard[M]) -> None:
        self.partition = partition
        self.log = partition_log
        self.shard = shard
        self.commands: list[Callable[[M, Instant], Outcome]] = []
        """What is to be decided as soon as loading is over."""
        self.is_broken = False
        """The log cannot be read: nothing can be answered from it."""
        self.moved = trio.Event()
        """Set, and replaced, when the high watermark has moved."""
        self.scope = trio.CancelScope()
        """Ends the loading."""
        self.settled = trio.Event()
        """Loading is over, one way or the other."""


class CoordinatorRuntime(Generic[M]):
    """The shards of one internal topic on this broker."""

    def __init__(
        self,
        topic: str,
        make_machine: Callable[[], M],
        *,
        write_timeout_ms: int,
        is_compacted: bool = True,
        on_decided: Callable[[int, M], None] | None = None,
        on_stopped: Callable[[int], None] = lambda _: None,
        before_tick: Callable[[int], None] = lambda _: None,
        take_appended: Callable[[int], AppendedElsewhere | None] = lambda _: None,
        together: AbstractContextManager[None] | None = None,
        clock: Callable[[], Instant] = lambda: Instant(now_ms(), wall_ms()),
        to_trio_time: Callable[[int], float] = trio_time,
    ) -> None:
        """
        Args:
            topic: For the log.
            make_machine: Makes an empty machine for a shard that is about to be loaded.
            write_timeout_ms: As for `Shard`.
            is_compacted: Of records with one key only the last one counts.
            on_decided: Told, by partition, whenever a machine has decided something: it may have work to hand out.
            on_stopped: Told of a partition that is not coordinated any more, or anew.
            before_tick: Called with the partition before its machine looks at its deadlines: to `inform` it.
            take_appended: Asked, by partition, before anything else is done with a machine (see `catch_up`). None:
                nothing can have been appended but from here.
            together: Around answers to many at a time.
            clock: Both clocks now.
            to_trio_time: The moment of a monotonic deadline on Trio's clock.
        """
        self._topic = topic
        self._make_machine = make_machine
        self._write_timeout_ms = write_timeout_ms
        self._is_compacted = is_compacted
        self._on_decided = on_decided
        self._on_stopped = on_stopped
        self._before_tick = before_tick
        self._take_appended = take_appended
        self._together = together or nullcontext()
        self._clock = clock
        self._to_trio_time = to_trio_time
        self._served: dict[int, _Served[M]] = {}
        self._parked: dict[int, _Parked] = {}
        """By the tokens of their replies."""
        self._last_token = 0
        self._nursery: trio.Nursery | None = None
        self._loads = trio.CapacityLimiter(LOADS_AT_ONCE)
        self._timer = trio.CancelScope()
        self._armed_ms: float = math.inf

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Load shards and keep their deadlines, until cancelled. Replies parked then are given up."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await self._keep_deadlines()
        finally:
            self._nursery = None
            for partition in list(self._served):
                self.stop(partition)

    # Shards come and go

    def start(self, partition: int, partition_log: PartitionLog) -> None:
        """Coordinate a partition from now on: at once if its log is empty, else once it is loaded in the background."""
        assert self._nursery is not None, "the runtime does not run"
        self.stop(partition)
        partition_log.take_cut()  # what is loaded from now on knows of it
        served = _Served(partition, partition_log, self._new_shard())
        self._served[partition] = served
        start_offset, _, end_offset = partition_log.offsets()
        if start_offset == end_offset:
            served.shard.load((), end_offset=end_offset, high_watermark=end_offset)
            self._finish_loading(served)
        else:
            self._nursery.start_soon(self._load, served)

    def stop(self, partition: int, error: ErrorCode = ErrorCode.NOT_COORDINATOR) -> None:
        """Coordinate a partition no more; whoever waits is answered with `error`."""
        served = self._served.pop(partition, None)
        if served is not None:
            self._on_stopped(partition)
            served.scope.cancel()
            self._deliver([Reply(t, None, error) for t, p in self._parked.items() if p.partition == partition])

    def partitions(self) -> list[int]:
        return list(self._served)

    def is_ready(self, partition: int) -> bool:
        """Whether requests for the partition are answered."""
        served = self._served.get(partition)
        return served is not None and served.shard.loaded

    def _new_shard(self) -> Shard[M]:
        return Shard(self._make_machine(), write_timeout_ms=self._write_timeout_ms)

    async def wait_loaded(self) -> None:
        """Return when no shard is being loaded."""
        for served in list(self._served.values()):
            await served.settled.wait()

    async def _load(self, served: _Served[M]) -> None:
        where: dict[str, Any] = {"topic": self._topic, "partition": served.partition}
        retry_s = LOAD_RETRY_S
        with served.scope:
            while True:
                try:
                    async with self._loads:
                        started_ms = self._clock().now_ms
                        await self._replay_log(served)
                except (KafkaError, OSError, ValueError) as error:
                    served.is_broken = True
                    read_to = served.shard.end_offset
                    log.error("coordinator_load_failed", **where, read_to=read_to, reason=str(error))
                    if isinstance(error, ValueError):
                        break  # damage stays: the partition needs to be repaired first
                    served.settled.set()
                    await trio.sleep(retry_s)
                    retry_s = min(2 * retry_s, LOAD_RETRY_MAX_S)
                    served.shard = self._new_shard()
                else:
                    served.is_broken = False
                    self._finish_loading(served)
                    ms = self._clock().now_ms - started_ms
                    report = served.shard.machine.load_report()
                    log.info("coordinator_loaded", **where, end_offset=served.shard.end_offset, ms=ms, **report)
                    break
        served.settled.set()

    def _finish_loading(self, served: _Served[M]) -> None:
        now = self._clock()
        self._carry_out(served, served.shard.finish_loading(now), now)
        for decide in served.commands:
            self.command(served.partition, decide)
        served.commands.clear()
        served.settled.set()

    async def _replay_log(self, served: _Served[M]) -> None:
        """Replay all that was in the log when this began, waiting for what of it is not yet committed."""
        offset, _, end_offset = served.log.offsets()
        shard = served.shard
        shard.load((), end_offset=offset, high_watermark=offset)
        while offset < end_offset:
            moved = served.moved
            batches = await served.log.read(offset, bytes_max=LOAD_BYTES)
            if not batches:
                await moved.wait()
                continue
            read = [(batch, batch.records) for batch in batches]
            latest = latest_offsets(read) if self._is_compacted else {}
            log_end_offset = served.log.offsets()[2]
            turn: list[LoadedRecord | TransactionMarker] = []
            for batch, records in read:
                next_offset = batch.last_offset + 1
                if not offset < next_offset <= log_end_offset:
                    # No checksum covers where a batch says that it is.
                    raise ValueError(f"a batch claims to end at {batch.last_offset} where {offset} or more is expected")
                turn += to_replay(batch, [r for r in records if r[0] >= offset], latest)
                offset = next_offset
                if len(turn) >= REPLAY_RECORDS_PER_TURN or batch is batches[-1]:
                    for start in range(0, max(1, len(turn)), REPLAY_RECORDS_PER_TURN):
                        # Everything read is committed. Loading it as such keeps no history to undo.
                        part = turn[start : start + REPLAY_RECORDS_PER_TURN]
                        shard.load(part, end_offset=offset, high_watermark=offset)
                        await trio.lowlevel.checkpoint()
                    turn.clear()

    def _give_up(self, served: _Served[M], error: Exception) -> None:
        """Something in the machine went wrong: start over from what is in the log."""
        log.error("coordinator_failed", topic=self._topic, partition=served.partition, error=error)
        if self._served.get(served.partition) is served:
            self.start(served.partition, served.log)

    def catch_up(self, partition: int) -> bool:
        """Have the partition's machine take in what was appended elsewhere, as if it had been decided here.

        Whatever is decided, read, told or written next must see it. Nothing can be appended elsewhere meanwhile: that
        happens in this thread alone, where the data plane polls or goes on with a connection that was answered, which
        is the last thing that is done here.

        Returns: False: the machine broke by that, and is not there any more.
        """
        appended = self._take_appended(partition)
        served = self._served.get(partition)
        if appended is None or served is None or not served.shard.loaded:
            return True
        shard = served.shard
        if not appended.records and appended.high_watermark <= shard.high_watermark:
            return True
        now = self._clock()
        try:
            shard.on_appended_elsewhere(appended.records)
            self._carry_out(served, shard.on_high_watermark(appended.high_watermark, now), now)
        except Exception as error:
            self._give_up(served, error)
        return self._served.get(partition) is served

    def _notice_cut(self, served: _Served[M]) -> bool:
        """Take back what rests on lost appends. False: all of it is loaded anew, or there is no machine any more."""
        cut = served.log.take_cut()
        if cut is None:
            return True
        if cut.is_reloaded or not served.shard.loaded:
            # Recovery may have kept what its appender was told is lost.
            log.warning("coordinator_reloads", topic=self._topic, partition=served.partition)
            self.start(served.partition, served.log)
            return False
        now = self._clock()
        error = ErrorCode.KAFKA_STORAGE_ERROR
        self._carry_out(served, served.shard.on_rolled_back(cut.offset, error, now), now)
        return self._served.get(served.partition) is served

    # Requests

    async def ask(self, partition: int, decide: Callable[[M, int, Instant], Outcome]) -> object:
        """As `ask_quickly`, for whoever is in a task: returns the reply once it may leave. Raises: KafkaError."""
        found = self.ask_quickly(partition, decide)
        return await found.wait() if isinstance(found, Later) else found

    def ask_quickly(self, partition: int, decide: Callable[[M, int, Instant], Outcome]) -> object | Later:
        """Let the partition's machine decide on a request; returns its reply if it may leave at once.

        Args:
            decide: Called with the machine, the token that names the reply, and both clocks.
        Raises: KafkaError, at once or later (NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, what became of the write).
        """
        served = self._serving(partition)

        def submit(token: int, now: Instant) -> list[Reply]:
            return served.shard.submit(decide(served.shard.machine, token, now), now)

        return self._act(served, submit)

    async def end_transaction(self, partition: int, end: TransactionEnd) -> None:
        """Write a transaction's marker into the partition; returns once the machine has it and it is committed.

        Raises: KafkaError (NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, INVALID_PRODUCER_EPOCH,
        TRANSACTION_COORDINATOR_FENCED, what became of the write).
        """
        served = self._serving(partition)

        def append(token: int, now: Instant) -> list[Reply]:
            offset = served.log.append_marker(end, wall_ms=now.wall_ms)
            marker = TransactionMarker(offset, end.producer_id, end.commit)
            return self._take_in(served, lambda: served.shard.on_marker_appended(marker, Reply(token), now))

        found = self._act(served, append)
        if isinstance(found, Later):
            await found.wait()

    def _act(self, served: _Served[M], act: Callable[[int, Instant], list[Reply]]) -> object | Later:
        """Let the machine decide on a request. Raises: KafkaError."""
        self._last_token += 1
        token = self._last_token
        now = self._clock()
        replies = act(token, now)
        try:
            self._drain(served, replies, now)
            mine = next((reply for reply in replies if reply.token == token), None) if replies else None
            if mine is None:
                later = Later(partial(self._parked.pop, token, None))
                self._parked[token] = _Parked(served.partition, later)
                return later
        finally:
            self._deliver(replies)
        return _response(mine)

    def look(self, partition: int, read: Callable[[M, Instant], R]) -> R:
        """Answer from the machine at once: for committed state, and for what rests on nothing durable.

        Raises: KafkaError (NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS).
        """
        return read(self._serving(partition).shard.machine, self._clock())

    def for_each_machine(self, act: Callable[[M], None]) -> None:
        """Do something to all machines, loaded or not, that decides nothing."""
        for served in self._served.values():
            act(served.shard.machine)

    def inform(self, partition: int, act: Callable[[M], None]) -> None:
        """Tell the partition's machine, if it is loaded, something that decides nothing."""
        served = self._served.get(partition)
        if served is not None and served.shard.loaded:
            act(served.shard.machine)

    def command(self, partition: int, decide: Callable[[M, Instant], Outcome]) -> None:
        """Let the machine decide on something that nobody waits for: now, or once it is loaded."""
        self.catch_up(partition)
        served = self._served.get(partition)
        if served is None:
            return
        if not served.shard.loaded:
            served.commands.append(decide)
            return
        now = self._clock()
        self._carry_out(served, served.shard.submit(decide(served.shard.machine, now), now), now)

    def _serving(self, partition: int) -> _Served[M]:
        self.catch_up(partition)
        served = self._served.get(partition)
        if served is None:
            raise KafkaError(ErrorCode.NOT_COORDINATOR)
        if not served.shard.loaded:
            is_broken = served.is_broken
            raise KafkaError(
                ErrorCode.COORDINATOR_NOT_AVAILABLE if is_broken else ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
            )
        return served

    def _carry_out(self, served: _Served[M], replies: list[Reply], now: Instant) -> None:
        """Append records until the shard wants nothing more, then deliver the replies.

        In this order, as it is not known here what those do who are called back.
        """
        try:
            with suppress(_GivenUp):  # who waited has been told
                self._drain(served, replies, now)
        finally:
            self._deliver(replies)

    def _drain(self, served: _Served[M], replies: list[Reply], now: Instant) -> None:
        """Append records until the shard wants nothing more; the replies that come by that are added to `replies`."""
        shard = served.shard
        while (records := shard.next_append()) is not None:
            try:
                base_offset = served.log.append(records, wall_ms=now.wall_ms, producer=shard.next_producer())
            except KafkaError as error:
                replies += shard.on_append_failed(error.code, now)
            except Exception as error:
                log.error("coordinator_append_failed", topic=self._topic, partition=served.partition, error=error)
                replies += shard.on_append_failed(ErrorCode.UNKNOWN_SERVER_ERROR, now)
            else:
                replies += self._take_in(served, partial(shard.on_appended, base_offset, now))
        self._arm(shard.next_deadline_ms())
        if self._on_decided is not None:
            self._on_decided(served.partition, shard.machine)

    def _take_in(self, served: _Served[M], take_in: Callable[[], list[Reply]]) -> list[Reply]:
        """Have the machine take in what was just appended. If it cannot, it is not what the log says any more.

        Raises: KafkaError.
        """
        try:
            return take_in()
        except Exception as error:
            self._give_up(served, error)
            raise _GivenUp(ErrorCode.NOT_COORDINATOR) from error

    def _deliver(self, replies: Iterable[Reply]) -> None:
        for reply in replies:
            parked = self._parked.pop(reply.token, None)
            if parked is not None:  # else its connection is gone
                parked.later.come(partial(_response, reply))

    # The world moves

    def on_partition_moved(self, partition: int) -> None:
        """The partition's high watermark has moved, or appends to it were lost."""
        served = self._served.get(partition)
        if served is None:
            return
        served.moved.set()
        served.moved = trio.Event()
        try:
            if not self._notice_cut(served) or not served.shard.loaded or not self.catch_up(partition):
                return
            _, high_watermark, _ = served.log.offsets()
            now = self._clock()
            self._carry_out(served, served.shard.on_high_watermark(high_watermark, now), now)
        except Exception as error:
            self._give_up(served, error)

    def _arm(self, deadline_ms: int | None) -> None:
        if deadline_ms is not None and deadline_ms < self._armed_ms:
            self._armed_ms = deadline_ms
            self._timer.deadline = self._to_trio_time(deadline_ms)

    async def _keep_deadlines(self) -> None:
        while True:
            deadlines = [s.shard.next_deadline_ms() for s in self._served.values() if s.shard.loaded]
            self._armed_ms = min((d for d in deadlines if d is not None), default=math.inf)
            is_set = self._armed_ms < math.inf
            self._timer = trio.CancelScope(deadline=self._to_trio_time(int(self._armed_ms)) if is_set else math.inf)
            with self._timer:
                await trio.sleep_forever()
            self._armed_ms = -math.inf  # nothing needs to wake this task: it is about to look for itself
            now = self._clock()
            for served in list(self._served.values()):
                deadline_ms = served.shard.next_deadline_ms() if served.shard.loaded else None
                if deadline_ms is None or deadline_ms > now.now_ms:
                    continue
                try:
                    self._before_tick(served.partition)
                    if self.catch_up(served.partition):
                        with self._together:
                            self._carry_out(served, served.shard.on_tick(now), now)
                except Exception as error:
                    self._give_up(served, error)


def _response(reply: Reply) -> object:
    """Raises: KafkaError, where the reply is one."""
    if reply.error is not ErrorCode.NONE:
        raise KafkaError(coordinator_error(reply.error))
    return reply.response
