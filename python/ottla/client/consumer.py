"""SHELL. A consumer: `poll` joins the group, finds positions, fetches and hands records out, as Kafka's does.

A rebalance starts inside `poll`, so that what an application got before has been dealt with by then. It goes on
beside the application when `poll`'s time is up, as metadata, commits and positions do: a broker that is away delays
records, never `poll`. Until a rebalance is over nothing is handed out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Literal

import anyio

from ottla import _native
from ottla.client.connection import ConnectionLost
from ottla.client.core.assignors import RANGE, ROUND_ROBIN, Assignor
from ottla.client.core.membership import Membership, MemberState, Outcome
from ottla.client.core.records import ConsumerRecord, OffsetAndMetadata
from ottla.client.core.subscription import OffsetReset, Subscription
from ottla.client.network import RETRY_BACKOFF_MS, Network, parse_servers
from ottla.client.offsets import EARLIEST, LATEST, OffsetsClient
from ottla.common.topic_partition import TopicPartition
from ottla.errors import ErrorCode, KafkaError
from ottla.protocol.messages.fetch import FetchResponse
from ottla.protocol.versions import ApiKey

FETCH_VERSION_MAX = 12
"""Topics by name; from 13 on they go by id."""
METADATA_MAX_AGE_MS = 30_000
CLOSE_TIMEOUT_MS = 5_000
CLOSE_TIMEOUT_IN_TROUBLE_MS = 1_000
"""How long leaving may take, and how long if the brokers did not answer lately."""


def now_ms() -> int:
    return int(anyio.current_time() * 1000)


class Consumer:
    """`async with Consumer("localhost:9092", group_id="g") as c: await c.subscribe(["t"]); await c.poll()`.

    Without a `group_id` use `assign`. Leaving the block commits (with auto commit on) and leaves the group.
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        *,
        group_id: str | None = None,
        client_id: str = "ottla-consumer",
        group_instance_id: str | None = None,
        auto_offset_reset: Literal["earliest", "latest", "none"] = "latest",
        enable_auto_commit: bool = True,
        auto_commit_interval_ms: int = 5_000,
        assignors: tuple[Assignor, ...] = (RANGE, ROUND_ROBIN),
        session_timeout_ms: int = 45_000,
        heartbeat_interval_ms: int = 3_000,
        max_poll_interval_ms: int = 300_000,
        fetch_max_wait_ms: int = 500,
        fetch_min_bytes: int = 1,
        fetch_max_bytes: int = 50 * 1024 * 1024,
        max_partition_fetch_bytes: int = 1024 * 1024,
        isolation_level: Literal["read_uncommitted", "read_committed"] = "read_uncommitted",
        allow_auto_create_topics: bool = True,
        request_timeout_ms: int = 30_000,
    ) -> None:
        self._servers = parse_servers(bootstrap_servers)
        self._client_id, self._group_id = client_id, group_id
        self._reset = OffsetReset(auto_offset_reset)
        self._auto_commit = enable_auto_commit and group_id is not None
        self._auto_commit_interval_ms = auto_commit_interval_ms
        self._max_poll_interval_ms = max_poll_interval_ms
        self._fetch_max_wait_ms, self._fetch_min_bytes = fetch_max_wait_ms, fetch_min_bytes
        self._fetch_max_bytes, self._partition_bytes_max = fetch_max_bytes, max_partition_fetch_bytes
        self._read_committed = isolation_level == "read_committed"
        self._auto_create = allow_auto_create_topics
        self._request_timeout_ms = request_timeout_ms
        self._subscription = Subscription()
        self._membership = (
            Membership(
                group_id=group_id,
                assignors=assignors,
                session_timeout_ms=session_timeout_ms,
                rebalance_timeout_ms=max_poll_interval_ms,
                heartbeat_interval_ms=heartbeat_interval_ms,
                group_instance_id=group_instance_id,
            )
            if group_id is not None
            else None
        )
        self._subscribed = False
        self._counts: dict[str, int | None] = {}
        self._fetching: set[int] = set()
        self._error: KafkaError | None = None
        self._fetch_trouble: KafkaError | None = None
        self._preparing = False
        self._processed: dict[TopicPartition, OffsetAndMetadata] = {}
        self._arrived = anyio.Event()
        self._metadata_due_ms = 0
        self._commit_due_ms = 0
        self._last_poll_ms = 0
        self._stack = AsyncExitStack()
        self._network: Network | None = None

    async def __aenter__(self) -> Consumer:
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._network = Network(
            self._tasks, self._servers, client_id=self._client_id, request_timeout_ms=self._request_timeout_ms
        )
        self._offsets = OffsetsClient(self._network)
        self._last_poll_ms = now_ms()
        if self._membership is not None:
            self._tasks.start_soon(self._heartbeat_loop, self._membership)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            if kind is None:
                await self._goodbye()
        finally:
            self._tasks.cancel_scope.cancel()
            await self._stack.aclose()
        return None

    async def _goodbye(self) -> None:
        """Commit and leave. A coordinator that is away cannot be told: the session timeout will."""
        membership = self._membership
        if membership is None:
            return
        limit_ms = CLOSE_TIMEOUT_MS if self.network.trouble is None else CLOSE_TIMEOUT_IN_TROUBLE_MS
        try:
            with anyio.move_on_after(limit_ms / 1000):
                if self._auto_commit and membership.state is MemberState.STABLE:
                    await self.commit()
                leave = membership.leave_request()
                if leave is not None:
                    await self.network.send_to_coordinator(membership.group_id, ApiKey.LEAVE_GROUP, leave)
        except KafkaError:
            return
        finally:
            membership.on_left()

    @property
    def network(self) -> Network:
        if self._network is None:
            raise RuntimeError("the consumer is used outside its `async with` block")
        return self._network

    async def subscribe(self, topics: Collection[str]) -> None:
        """Share these topics with the other members of the group. Takes effect in the next `poll`."""
        if self._membership is None:
            raise ValueError("subscribe needs a group_id; use assign to read without a group")
        self._membership.topics = sorted(set(topics))
        self._membership.request_rejoin()
        self._subscribed = True

    async def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Read these partitions, without sharing them with anyone."""
        self._subscribed = False
        self._subscription.assign(list(partitions))
        topics = {p.topic for p in partitions}
        await self.network.refresh_until_known(topics, auto_create=False, timeout_ms=self._request_timeout_ms)

    def assignment(self) -> list[TopicPartition]:
        return sorted(self._subscription.partitions)

    def generation_id(self) -> int:
        return self._membership.generation_id if self._membership else -1

    def position(self, partition: TopicPartition) -> int | None:
        """The next offset to be handed out; None until it is known. Raises KeyError if not assigned."""
        return self._subscription.partitions[partition].position

    def high_watermark(self, partition: TopicPartition) -> int:
        """As of the last fetch; -1 before it. Raises KeyError if not assigned."""
        return self._subscription.partitions[partition].high_watermark

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`. Raises KeyError if not assigned."""
        self._subscription.seek(partition, offset)

    def pause(self, partition: TopicPartition) -> None:
        self._subscription.partitions[partition].paused = True

    def resume(self, partition: TopicPartition) -> None:
        self._subscription.partitions[partition].paused = False

    async def poll(self, timeout_ms: int = 1_000, *, max_records: int = 500) -> list[ConsumerRecord]:
        """Return records as soon as there are some, or nothing when `timeout_ms` has passed. Raises KafkaError."""
        deadline = anyio.current_time() + timeout_ms / 1000
        self._last_poll_ms = now_ms()
        while True:
            if self._preparing or self._must_prepare():
                # What earlier calls handed out has been dealt with, what this one hands out has not.
                self._processed = self.positions()
            if not self._preparing and self._must_prepare():
                self._preparing = True
                self._tasks.start_soon(self._prepare)
            arrived = self._arrived
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            records: list[ConsumerRecord] = []
            if not self._must_join():
                records = self._subscription.take(records_max=max_records)
                self._start_fetches()
            if records or anyio.current_time() >= deadline:
                return records
            with anyio.move_on_after(deadline - anyio.current_time()):
                await arrived.wait()

    @property
    def trouble(self) -> KafkaError | None:
        """What keeps the consumer from reading now: brokers that are away, a missing topic, a partition's error."""
        missing = next((topic for topic, count in self._counts.items() if count is None), None)
        if self.network.trouble is not None or missing is None:
            return self.network.trouble or self._offsets.trouble or self._fetch_trouble
        code = self.network.view.errors.get(missing, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return KafkaError(code, f"topic {missing!r}: {code.name}")

    def _must_join(self) -> bool:
        membership = self._membership
        return membership is not None and self._subscribed and membership.state is not MemberState.STABLE

    def _must_prepare(self) -> bool:
        due_ms = min(self._metadata_due_ms, self._commit_due_ms) if self._auto_commit else self._metadata_due_ms
        return (
            now_ms() >= due_ms
            or self._must_join()
            or bool(self._subscription.without_position())
            or bool(self._subscription.to_reset())
        )

    async def _prepare(self) -> None:
        """What has to be done before records can be fetched and handed out; `poll` starts it, one at a time."""
        try:
            if now_ms() >= self._metadata_due_ms:
                await self._refresh_metadata()
            if self._membership is not None and self._must_join():
                await self._join(self._membership)
            if self._auto_commit and now_ms() >= self._commit_due_ms:
                self._commit_due_ms = now_ms() + self._auto_commit_interval_ms
                await self._commit_positions()
            await self._find_positions()
        except KafkaError as error:
            if error.retriable:
                self._metadata_due_ms = 0
                await anyio.sleep(RETRY_BACKOFF_MS / 1000)
            else:
                self._error = error
        finally:
            self._preparing = False
            self._wake()

    async def _refresh_metadata(self) -> None:
        membership = self._membership
        topics = {p.topic for p in self._subscription.partitions}
        if membership is not None and self._subscribed:
            topics |= set(membership.topics)
        await self.network.refresh(topics, auto_create=self._auto_create)
        self._metadata_due_ms = now_ms() + METADATA_MAX_AGE_MS
        counts = {t: self.network.view.partition_count(t) for t in topics}
        if membership is not None and self._subscribed and self._counts and counts != self._counts:
            membership.request_rejoin()
        if any(count is None for count in counts.values()):
            self._metadata_due_ms = now_ms() + RETRY_BACKOFF_MS
        self._counts = counts

    async def _join(self, membership: Membership) -> None:
        if self._auto_commit and membership.generation_id >= 0:
            await self._commit_positions()
        while membership.state is not MemberState.STABLE:
            try:
                outcome = await self._join_step(membership)
            except ConnectionLost:
                membership.on_disconnect()
                await anyio.sleep(RETRY_BACKOFF_MS / 1000)
                continue
            if outcome is Outcome.FIND_COORDINATOR:
                self.network.forget_coordinator(membership.group_id)
            if outcome in (Outcome.FIND_COORDINATOR, Outcome.BACK_OFF):
                await anyio.sleep(RETRY_BACKOFF_MS / 1000)
        # Committed offsets rule, also for partitions that stay: another member may have read on in between.
        self._subscription.assign([])
        self._subscription.assign(membership.assignment)
        self._metadata_due_ms = min(self._metadata_due_ms, now_ms() + METADATA_MAX_AGE_MS)
        unknown = {p.topic for p in membership.assignment} - set(self.network.view.topics)
        if unknown:
            await self.network.refresh({p.topic for p in membership.assignment})

    async def _join_step(self, membership: Membership) -> Outcome:
        send = self.network.send_to_coordinator
        if membership.state is MemberState.SYNCING:
            # Answered when the leader has assigned, at the latest at the rebalance timeout.
            limit_ms = membership.rebalance_timeout_ms + 5_000
            request = membership.sync_request()
            response = await send(membership.group_id, ApiKey.SYNC_GROUP, request, timeout_ms=limit_ms)
            if membership.state is not MemberState.SYNCING:
                return Outcome.CONTINUE
            return membership.on_sync(response)
        limit_ms = max(membership.rebalance_timeout_ms, membership.session_timeout_ms) + 5_000
        join = membership.join_request()
        response = await send(membership.group_id, ApiKey.JOIN_GROUP, join, timeout_ms=limit_ms)
        topics = {t for t in membership.topics if t not in self.network.view.topics}
        if topics:
            await self.network.refresh(topics)
        return membership.on_join(response, self._partition_counts, now_ms=now_ms())

    def _partition_counts(self, topics: set[str]) -> Mapping[str, int]:
        return {t: self.network.view.partition_count(t) or 0 for t in topics}

    async def _heartbeat_loop(self, membership: Membership) -> None:
        while True:
            due_ms = membership.heartbeat_due_ms()
            pause_ms = RETRY_BACKOFF_MS if due_ms is None else due_ms - now_ms()
            if pause_ms > 0:
                await anyio.sleep(min(pause_ms, 1_000) / 1000)
                continue
            if now_ms() - self._last_poll_ms > self._max_poll_interval_ms:
                # The application is stuck: others get its partitions (KIP-62). It joins again in its next poll.
                leave = membership.leave_request()
                membership.on_left()
                if leave is not None:
                    await self._quietly(ApiKey.LEAVE_GROUP, leave, membership)
                continue
            generation_id = membership.generation_id
            response = await self._quietly(ApiKey.HEARTBEAT, membership.heartbeat_request(now_ms=now_ms()), membership)
            if response is None:
                continue
            try:
                outcome = membership.on_heartbeat(response, generation_id=generation_id)
            except KafkaError as error:
                self._error = error
                self._wake()
                return
            if outcome is Outcome.FIND_COORDINATOR:
                self.network.forget_coordinator(membership.group_id)
            if membership.state is MemberState.UNJOINED:
                self._wake()

    async def _quietly(self, api: ApiKey, message: object, membership: Membership) -> Any:
        """A request of the background: a lost connection is what the next heartbeat is for."""
        try:
            return await self.network.send_to_coordinator(
                membership.group_id, api, message, timeout_ms=membership.session_timeout_ms
            )
        except KafkaError:
            await anyio.sleep(RETRY_BACKOFF_MS / 1000)
            return None

    async def _find_positions(self) -> None:
        unknown = self._subscription.without_position()
        if unknown and self._group_id is not None:
            committed = await self._offsets.committed(self._group_id, unknown)
            for partition in unknown:
                state = self._subscription.partitions.get(partition)
                if state is None or state.position is not None:
                    continue
                found = committed.get(partition)
                if found is not None:
                    self._subscription.seek(partition, found.offset)
                else:
                    state.reset = self._reset
        for partition in unknown if self._group_id is None else ():
            self._subscription.partitions[partition].reset = self._reset
        resets = self._subscription.to_reset()
        if not resets:
            return
        for partition, reset in resets.items():
            if reset is OffsetReset.NONE:
                raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, f"{partition} has no committed offset")
        asked = {p: EARLIEST if r is OffsetReset.EARLIEST else LATEST for p, r in resets.items()}
        for partition, found_offset in (await self._offsets.list_offsets(asked)).items():
            if partition in self._subscription.partitions:
                self._subscription.seek(partition, found_offset.offset)

    def _start_fetches(self) -> None:
        by_leader: dict[int, list[TopicPartition]] = {}
        for partition in self._subscription.fetchable():
            leader = self.network.view.leader(partition)
            if leader is None:
                self._metadata_due_ms = min(self._metadata_due_ms, now_ms() + RETRY_BACKOFF_MS)
            elif leader not in self._fetching:
                by_leader.setdefault(leader, []).append(partition)
        for leader, partitions in by_leader.items():
            self._fetching.add(leader)
            self._tasks.start_soon(self._fetch, leader, partitions)

    async def _fetch(self, leader: int, partitions: list[TopicPartition]) -> None:
        offsets = {p: self._subscription.partitions[p].fetch_offset for p in partitions}
        request = self._subscription.fetch_request(
            partitions,
            max_wait_ms=self._fetch_max_wait_ms,
            min_bytes=self._fetch_min_bytes,
            max_bytes=self._fetch_max_bytes,
            partition_bytes_max=self._partition_bytes_max,
            read_committed=self._read_committed,
        )
        try:
            limit_ms = self._fetch_max_wait_ms + self._request_timeout_ms
            response = await self.network.send(
                leader, ApiKey.FETCH, request, version_max=FETCH_VERSION_MAX, timeout_ms=limit_ms
            )
            self._on_fetched(response, offsets)
        except ConnectionLost:
            self._metadata_due_ms = 0
            await anyio.sleep(RETRY_BACKOFF_MS / 1000)
        except KafkaError as error:
            self._error = error
        finally:
            self._fetching.discard(leader)
            self._wake()

    def _on_fetched(self, response: FetchResponse, offsets: dict[TopicPartition, int]) -> None:
        if response.error_code is not ErrorCode.NONE:
            raise KafkaError(response.error_code, "Fetch")
        self._fetch_trouble = None
        for topic in response.responses:
            for data in topic.partitions:
                partition = TopicPartition(topic.topic, data.partition_index)
                if data.error_code is not ErrorCode.NONE:
                    self._fetch_trouble = KafkaError(data.error_code, f"{partition}: {data.error_code.name}")
                    if self._subscription.on_fetch_error(partition, data.error_code, self._reset):
                        self._metadata_due_ms = 0
                    continue
                batches = _native.decode_batches(data.records) if data.records else []
                self._subscription.on_records(
                    partition,
                    fetch_offset=offsets[partition],
                    batches=batches,
                    aborted=data.aborted_transactions or () if self._read_committed else (),
                    high_watermark=data.high_watermark,
                )

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = anyio.Event()

    def positions(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """What `commit` commits: behind the last record handed out, where a position is known."""
        return {
            p: OffsetAndMetadata(s.position, s.leader_epoch)
            for p, s in self._subscription.partitions.items()
            if s.position is not None
        }

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata] | None = None) -> None:
        """Commit these offsets, or all positions. Raises KafkaError (also when the member was fenced)."""
        if self._group_id is None:
            raise ValueError("commit needs a group_id")
        chosen = self.positions() if offsets is None else dict(offsets)
        if not chosen:
            return
        membership = self._membership if self._subscribed else None
        await self.network.retrying(
            lambda: self._offsets.commit(
                self._group_id or "",
                chosen,
                generation_id=membership.generation_id if membership else -1,
                member_id=membership.member_id if membership else "",
                group_instance_id=membership.group_instance_id if membership else None,
            )
        )

    async def _commit_positions(self) -> None:
        """The automatic commit: what fails is committed by the next one, or read again by another member."""
        try:
            assigned = self._subscription.partitions
            await self.commit({p: offset for p, offset in self._processed.items() if p in assigned})
        except KafkaError as error:
            if self._membership is not None and self._subscribed and error.code is not ErrorCode.REBALANCE_IN_PROGRESS:
                self._membership.on_commit_error(error.code)

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """The group's committed offsets; partitions without one are absent."""
        if self._group_id is None:
            raise ValueError("committed needs a group_id")
        return await self._offsets.committed(self._group_id, list(partitions))
