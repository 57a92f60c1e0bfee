"""Serves ShareFetch and ShareAcknowledge: sessions, acknowledgements, and records for members that wait (KIP-932).

The bytes of records come from the log by a thread and go into the answer as they are; what is decided about them is
decided on offsets. Of those who fetch the same share partition one reads at a time, as all would read the same records.

Source: Kafka's `KafkaApis.handleShareFetchRequest`, `DelayedShareFetch`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from ottla.broker.clock import now_ms
from ottla.broker.event_log import EventLog
from ottla.broker.metrics import ShareCounters
from ottla.broker.share_partitions import LedSharePartition, ShareKey, SharePartitions, WriteOutcome
from ottla.broker.share_settings import ShareGroupSettings, ShareSettingsTable
from ottla.broker.worker import in_thread
from ottla.errors import ErrorCode, KafkaError, code_of
from ottla.share.acknowledgement import Acknowledgement, check_acknowledgements
from ottla.share.partition import Acquired, FetchedBatch
from ottla.share.sessions import SessionKey, ShareSession, ShareSessions, TopicPartition

log = EventLog("share_fetches")

READ_BYTES: Final = 1 << 20
"""As much is read of a partition at once, or as much as the client waits for: a member takes only so many records."""

Acknowledgements = Mapping[TopicPartition, Sequence[Acknowledgement]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a member wants of a fetch."""

    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    max_records: int
    batch_size: int
    is_limit_strict: bool


@dataclass(slots=True)
class Fetched:
    """What there is to say of a partition."""

    error: KafkaError | None = None
    acknowledge_error: KafkaError | None = None
    acquired: Sequence[Acquired] = ()
    records: bytes = b""


@dataclass(slots=True)
class _Acknowledging:
    """Acknowledgements that were taken, and the writes that they wait for."""

    waiting: dict[TopicPartition, WriteOutcome] = field(default_factory=dict)
    errors: dict[TopicPartition, KafkaError | None] = field(default_factory=dict)


class ShareFetches:
    """What members of share groups ask of this broker."""

    def __init__(
        self,
        partitions: SharePartitions,
        *,
        settings: ShareSettingsTable,
        disk_threads: Sequence[trio.CapacityLimiter],
        sessions_max: int,
        fetch_bytes_max: Callable[[], int],
        counters: ShareCounters,
    ) -> None:
        """
        Args:
            disk_threads: Threads for reading in each log directory.
            fetch_bytes_max: `fetch.max.bytes` now.
        """
        self._partitions = partitions
        self._settings = settings
        self._disk_threads = disk_threads
        self._fetch_bytes_max = fetch_bytes_max
        self._counters = counters
        self.sessions = ShareSessions(sessions_max)
        partitions.has_readers = self.sessions.has_group

    def settings_of(self, group_id: str) -> ShareGroupSettings:
        return self._settings.of(group_id)

    # Sessions

    async def end_session(self, key: SessionKey, session: ShareSession) -> None:
        """End a session; returns when what its member has is free for others, or that could not be written."""
        if self.sessions.get(key) is not session:
            return  # its client has left meanwhile, and may have begun anew
        self.sessions.end(key)
        for outcome in self._release(key):
            await outcome.wait()
        self._retire(key.group_id)

    def on_connection_closed(self, connection_id: int) -> None:
        """A client has left: what its members had is free for others."""
        for key in self.sessions.on_connection_closed(connection_id):
            self._release(key)
            self._retire(key.group_id)

    def _release(self, key: SessionKey) -> list[WriteOutcome]:
        outcomes = []
        for led in self._partitions.of_group(key.group_id):
            number = led.machine.release(key.member_id)
            if number is not None:
                outcomes.append(led.outcome(number))
                self._partitions.write(led)
        return outcomes

    def _retire(self, group_id: str) -> None:
        if not self.sessions.has_group(group_id):
            self._partitions.retire(group_id)

    # Acknowledgements

    def begin_acknowledging(
        self, key: SessionKey, acknowledgements: Acknowledgements, *, may_renew: bool
    ) -> _Acknowledging:
        """Take acknowledgements; `finish_acknowledging` waits until they count."""
        self._counters.acknowledgements += bool(acknowledgements)
        found = _Acknowledging()
        for at, batches in acknowledgements.items():
            try:
                outcome = self._acknowledge(key, at, batches, may_renew=may_renew)
                found.errors[at] = None
                if outcome is not None:
                    found.waiting[at] = outcome
            except KafkaError as error:
                found.errors[at] = error
        return found

    def _acknowledge(
        self, key: SessionKey, at: TopicPartition, batches: Sequence[Acknowledgement], *, may_renew: bool
    ) -> WriteOutcome | None:
        check_acknowledgements(batches, may_renew=may_renew)
        share_key = ShareKey(key.group_id, _known(at[0]), at[1])
        self._partitions.find(share_key)
        led = self._partitions.get(share_key)
        if led is None:
            message = "The group reads nothing of the partition from this broker."
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, message)
        led.machine.settings = self.settings_of(key.group_id).partitions
        start = led.machine.start_offset
        number = led.machine.acknowledge(key.member_id, batches, now_ms())
        for batch in batches:
            for kind, count in batch.counts(start):
                self._counters.acknowledged_records[kind] += count
        outcome = None if number is None else led.outcome(number)
        self._partitions.lock_begins(led)
        self._partitions.write(led)
        return outcome

    async def finish_acknowledging(self, begun: _Acknowledging) -> dict[TopicPartition, KafkaError | None]:
        """What became of acknowledgements, partition by partition; returns when all are kept, or have failed."""
        found = dict(begun.errors)
        for at, outcome in begun.waiting.items():
            error = await outcome.wait()
            if error is not ErrorCode.NONE:
                found[at] = KafkaError(error)
        return found

    # Records

    async def fetch(self, key: SessionKey, session: ShareSession, wanted: Wanted) -> dict[TopicPartition, Fetched]:
        """Acquire records of a session's partitions; waits for them as long as the member does.

        Returns what there is to say of partitions: an error, or records; of the others nothing.
        """
        if not session.partitions:
            return {}
        deadline = trio.current_time() + max(0, wanted.max_wait_ms) / 1000
        settings = self.settings_of(key.group_id)
        found: dict[TopicPartition, Fetched] = {}
        led: list[LedSharePartition] = []
        try:
            while True:
                await self._load(key, session, settings, led, found)
                if self.sessions.get(key) is not session:
                    return found  # it has ended, or begun anew: what there is belongs to others
                is_patient = trio.current_time() < deadline and not found
                if await self._acquire(key, session, settings, wanted, led, found, is_patient=is_patient):
                    return found
                if not is_patient:
                    return found
                await self._wait(led, settings, wanted, deadline)
                settings = self.settings_of(key.group_id)
        finally:
            # It may have been the one that was told of records, and have left them.
            for one in led:
                self._pass_on(one, settings)
            self._retire(key.group_id)

    def _pass_on(self, led: LedSharePartition, settings: ShareGroupSettings) -> None:
        """Have another fetch look if there is something left for it."""
        if not led.is_being_read and led.error is None and self._next_offset(led, settings) is not None:
            led.wake()

    async def _load(
        self,
        key: SessionKey,
        session: ShareSession,
        settings: ShareGroupSettings,
        led: list[LedSharePartition],
        found: dict[TopicPartition, Fetched],
    ) -> None:
        """Bring the share partitions of a session into memory, those that are not there any more included."""
        loaded = []
        for at in session.rotated():
            try:
                one = await self._partitions.load(ShareKey(key.group_id, _known(at[0]), at[1]), settings)
                one.machine.settings = settings.partitions
                loaded.append(one)
            except (KafkaError, OSError) as error:
                found[at] = Fetched(error=_as_kafkas(error))
        led[:] = loaded

    async def _acquire(
        self,
        key: SessionKey,
        session: ShareSession,
        settings: ShareGroupSettings,
        wanted: Wanted,
        led: Iterable[LedSharePartition],
        found: dict[TopicPartition, Fetched],
        *,
        is_patient: bool,
    ) -> bool:
        """Acquire what there is; False: nothing, or less than the member would rather wait for."""
        if is_patient and wanted.min_bytes > 1 and self._available(led, settings) < wanted.min_bytes:
            return False
        bytes_left = min(wanted.max_bytes, self._fetch_bytes_max())
        records_left = wanted.max_records
        for one in led:
            if records_left <= 0 or bytes_left <= 0:
                break
            at: TopicPartition = (one.key.topic_id, one.key.partition)
            try:
                fetched = await self._acquire_of(key, session, settings, wanted, one, bytes_left, records_left)
                self._pass_on(one, settings)
            except (KafkaError, OSError) as error:
                found[at] = Fetched(error=_as_kafkas(error))
                continue
            if fetched.acquired:
                found[at] = fetched
                bytes_left -= len(fetched.records)
                records_left -= sum(one.size for one in fetched.acquired)
        return bool(found)

    async def _acquire_of(
        self,
        key: SessionKey,
        session: ShareSession,
        settings: ShareGroupSettings,
        wanted: Wanted,
        led: LedSharePartition,
        bytes_left: int,
        records_left: int,
    ) -> Fetched:
        """Acquire records of one partition."""
        bytes_wanted = min(bytes_left, max(READ_BYTES, wanted.min_bytes))
        while not led.is_being_read and led.error is None:
            offset = self._next_offset(led, settings)
            if offset is None:
                break
            end = _visible_end(led, settings)
            try:
                data, batches = await self._read(led, offset, bytes_wanted, settings)
            except KafkaError as error:
                if error.code is ErrorCode.OFFSET_OUT_OF_RANGE and offset < led.native.offsets().log_start_offset:
                    continue  # the log has lost its beginning meanwhile
                raise
            # The member may have left, or the state may have gone elsewhere, while the disk was read.
            if led.error is not None or self.sessions.get(key) is not session:
                break
            if not batches:
                led.machine.pass_over(offset, end)
                continue
            acquired = led.machine.acquire(
                key.member_id,
                offset,
                [FetchedBatch(base, last, is_aborted) for base, last, _, is_aborted in batches],
                max_records=records_left,
                batch_size=wanted.batch_size,
                is_limit_strict=wanted.is_limit_strict,
                now_ms=now_ms(),
            )
            if acquired:
                self._partitions.lock_begins(led)
                self._counters.acquired_records += sum(one.size for one in acquired)
                return Fetched(acquired=acquired, records=_slice(data, batches, acquired))
        return Fetched()

    async def _read(
        self, led: LedSharePartition, offset: int, bytes_max: int, settings: ShareGroupSettings
    ) -> tuple[bytes, list[tuple[int, int, int, bool]]]:
        led.is_being_read = True
        try:
            return await in_thread(
                partial(led.native.read_batches, offset, max_bytes=bytes_max, committed_only=settings.committed_only),
                limiter=self._disk_threads[led.native.log_dir],
            )
        finally:
            led.is_being_read = False

    def _next_offset(self, led: LedSharePartition, settings: ShareGroupSettings) -> int | None:
        """Where there are records that may be acquired; None: nowhere."""
        led.machine.forget_before(led.native.offsets().log_start_offset)
        offset = led.machine.next_fetch_offset()
        return None if offset is None or offset >= _visible_end(led, settings) else offset

    def _available(self, led: Iterable[LedSharePartition], settings: ShareGroupSettings) -> int:
        offsets = ((one, self._next_offset(one, settings)) for one in led)
        return sum(
            one.native.bytes_available(offset, committed_only=settings.committed_only)
            for one, offset in offsets
            if offset is not None
        )

    async def _wait(
        self, led: Sequence[LedSharePartition], settings: ShareGroupSettings, wanted: Wanted, deadline: float
    ) -> None:
        """Return when there may be records, or the member waits no longer."""
        event = trio.Event()
        for one in led:
            one.add_waiting(event, is_choosy=wanted.min_bytes > 1)
        try:
            # What came before the watch began tells nobody.
            if self._available([one for one in led if not one.is_being_read], settings) >= max(1, wanted.min_bytes):
                return
            with trio.move_on_at(deadline):
                await event.wait()
        finally:
            for one in led:
                one.remove_waiting(event)


def _as_kafkas(error: KafkaError | OSError) -> KafkaError:
    return error if isinstance(error, KafkaError) else KafkaError(code_of(error), str(error))


def _known(topic_id: uuid.UUID | None) -> uuid.UUID:
    if topic_id is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID)
    return topic_id


def _visible_end(led: LedSharePartition, settings: ShareGroupSettings) -> int:
    offsets = led.native.offsets()
    return offsets.last_stable_offset if settings.committed_only else offsets.high_watermark


def _slice(data: bytes, batches: Sequence[tuple[int, int, int, bool]], acquired: Sequence[Acquired]) -> bytes:
    """The batches with what was acquired, and those between."""
    first, last = acquired[0].first_offset, acquired[-1].last_offset
    start = next(position for _, last_offset, position, _ in batches if last_offset >= first)
    end = next((position for base_offset, _, position, _ in batches if base_offset > last), len(data))
    return data[start:end] if (start, end) != (0, len(data)) else data
