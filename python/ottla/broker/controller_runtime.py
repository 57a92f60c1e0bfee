"""The controller over the quorum: requests in, answers out once what they rest on is committed and applied here.

The runtime keeps the metadata as committed. When this node claims leadership, a `Controller` is made from it and
decides from then on, ahead of the log; when leadership is lost it is dropped with everything uncommitted that it knew,
and the next one starts from what was committed. Committed records also go to the publisher, in the order of the log.

A request is served without waiting: the controller decides, its records are proposed as one batch and replayed into
the controller. Only the answer waits: until the batch, or, where there are no records, everything decided before, is
committed; and for a change, until it is applied on this node.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import trio

from ottla._native import QuorumNotLeaderError
from ottla.broker.clock import now_ms, wall_ms
from ottla.broker.event_log import EventLog
from ottla.broker.quorum_runtime import (
    CommittedBatch,
    QuorumRuntime,
    QuorumSettings,
    QuorumStatus,
    Snapshot,
    fits_batch,
)
from ottla.common.config import BrokerConfig
from ottla.controller.controller import Controller
from ottla.controller.feature_control import bootstrap_records
from ottla.controller.result import RandomSource
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.delta import MetadataDelta
from ottla.metadata.image import METADATA_VERSION_FEATURE, MetadataImage
from ottla.metadata.records import MetadataRecord, RegisterControllerRecord, decode_record, encode_record

log = EventLog("controller")


HELD_UP_MS: Final = 1_000
"""An expired session that is noticed later than this says more of this node than of the broker."""


class MetadataFollower(Protocol):
    """Where committed metadata goes: the publisher."""

    def on_committed(self, records: Iterable[MetadataRecord], *, last_offset: int, epoch: int) -> None:
        """Take in committed records that end at `last_offset`."""

    async def wait_published(self, offset: int) -> None:
        """Return when everything up to and including `offset` is applied."""


class MetadataReplacedError(Exception):
    """The other voters deleted the log before this node had read it. It must start over, from the snapshot."""


class ControllerRuntime:
    """One controller node: its voter, and while that leads, the active controller."""

    def __init__(
        self,
        settings: QuorumSettings,
        publisher: MetadataFollower,
        *,
        config: BrokerConfig,
        cluster_id: str,
        random: RandomSource,
        registration: RegisterControllerRecord | None = None,
        send: Callable[[int, bytes], None] | None = None,
        monotonic_ms: Callable[[], int] = now_ms,
        wall_clock: Callable[[], int] = wall_ms,
    ) -> None:
        """Args:
        config: The static configuration of this node.
        random: Where topic ids and the placement of replicas take chance from.
        registration: Recorded when this node claims leadership, unless the metadata says the same already.
        send: Takes (voter, message), as in `QuorumRuntime`.
        """
        self.quorum: Final = QuorumRuntime(settings, self, send=send, wall_clock=wall_clock)
        self._publisher = publisher
        self._config = config
        self._cluster_id = cluster_id
        self._random = random
        self._registration = registration
        self._monotonic_ms = monotonic_ms
        self._committed = MetadataDelta()
        self._offset = -1
        self._epoch = -1
        self._controller: Controller | None = None
        self._proposed: deque[tuple[int, int, Sequence[MetadataRecord]]] = deque()
        """(base_offset, epoch, records) of own batches that are not committed yet: they need not be decoded again."""
        self._claimed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the metadata log and run until cancelled. Started means: a lone voter leads, and the first records of a
        new cluster are committed.

        Raises: as `QuorumRuntime.run`; InconsistentMetadata, MalformedRecord (the log contradicts itself, or was
        written by a later version); MetadataReplacedError.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self.quorum.run)
            if len(self.quorum.settings.voters) == 1:
                await self._wait_decided()
            nursery.start_soon(self._watch_sessions)
            task_status.started()

    @property
    def is_active(self) -> bool:
        """Whether this node decides."""
        return self._controller is not None

    def quorum_status(self) -> QuorumStatus:
        """The quorum as this node knows it (DescribeQuorum). Raises: QuorumNotLeaderError if it is not running."""
        return self.quorum.status()

    async def handle(self, request: Any) -> Any:
        """Return the response to a request, once everything that it rests on is committed and a change it made is
        applied here. What changes nothing (a heartbeat) does not wait for a slow disk to follow the metadata.

        Raises: KafkaError with NOT_CONTROLLER if this node does not lead, or stopped leading before the answer was
            certain (what was asked for may or may not happen); with MESSAGE_TOO_LARGE if it takes more records than a
            batch holds. TypeError for anything that is no request of the controller.
        """
        controller = self._controller
        if controller is None:
            raise self._not_controller()
        try:
            result = controller.handle(
                request,
                now_ms=self._monotonic_ms(),
                next_offset=self.quorum.status().log_end_offset,
            )
            self._decide(controller, result.records)
            last_offset = await self._wait_decided()
        except QuorumNotLeaderError as error:
            raise self._not_controller() from error
        if result.records:
            await self._publisher.wait_published(last_offset)
        return result.response

    def _not_controller(self) -> KafkaError:
        return KafkaError(ErrorCode.NOT_CONTROLLER, "This node is not the active controller.")

    def _decide(self, controller: Controller, records: Sequence[MetadataRecord]) -> None:
        """Replay records into the controller that decided on them and propose them as one batch."""
        if not records:
            return
        encoded = [encode_record(record) for record in records]
        if not fits_batch(encoded):
            text = f"{len(records)} records of {sum(map(len, encoded))} bytes do not fit a batch of the metadata log."
            raise KafkaError(ErrorCode.MESSAGE_TOO_LARGE, text)
        try:
            controller.replay(records)
        except Exception as fault:
            # before it is proposed: a log with such a record could never be read again
            self.quorum.fail(fault)
            raise
        base_offset, epoch = self.quorum.propose_nowait(encoded)
        self._proposed.append((base_offset, epoch, records))

    async def _wait_decided(self) -> int:
        """Wait until everything decided so far is committed; return the offset of the last record of it."""
        status = self.quorum.status()
        last_offset = status.log_end_offset - 1
        await self.quorum.wait_committed(last_offset, status.epoch)
        return last_offset

    async def _watch_sessions(self) -> None:
        """Fence brokers that are not heard from, unless it was this node that could not listen or answer."""
        session_ms = self._config.integer("broker.session.timeout.ms")
        patient_until_ms = 0
        while True:
            await self._claimed.wait()
            controller = self._controller
            if controller is None:
                self._claimed = trio.Event()
                continue
            deadline_ms = controller.next_deadline_ms()
            now = self._monotonic_ms()
            if deadline_ms is None:
                await trio.sleep(session_ms / 1000)
                continue
            if (wait_ms := max(deadline_ms, patient_until_ms) - now) > 0:
                await trio.sleep(min(wait_ms, session_ms) / 1000)
                continue
            try:
                await self._wait_decided()
                if self._monotonic_ms() - max(deadline_ms, patient_until_ms) > HELD_UP_MS:
                    # the process was stopped, or its disk stalled and answers waited for that: silence proves nothing
                    patient_until_ms = self._monotonic_ms() + session_ms
                    log.info("fencing_postponed", late_ms=self._monotonic_ms() - deadline_ms)
                elif self._controller is controller:
                    self._decide(controller, controller.on_tick(self._monotonic_ms()))
            except QuorumNotLeaderError:
                log.info("fencing_left_to_the_next_leader")
                await trio.lowlevel.checkpoint()

    def on_snapshot(self, snapshot: Snapshot) -> None:
        if self._offset >= 0:
            raise MetadataReplacedError(f"the metadata was replaced by the snapshot that ends at {snapshot.end_offset}")
        records = [decode_record(value) for value in snapshot.records]
        self._take_in(records, last_offset=snapshot.end_offset - 1, epoch=snapshot.epoch)

    def on_committed(self, batches: Sequence[CommittedBatch]) -> None:
        records = itertools.chain.from_iterable(map(self._records_of, batches))
        self._take_in(list(records), last_offset=batches[-1].last_offset, epoch=batches[-1].epoch)

    def _records_of(self, batch: CommittedBatch) -> Iterable[MetadataRecord]:
        while self._proposed and self._proposed[0][0] <= batch.base_offset:
            base_offset, epoch, records = self._proposed.popleft()
            if (base_offset, epoch) == (batch.base_offset, batch.epoch):
                return records
        return map(decode_record, batch.records)

    def _take_in(self, records: Sequence[MetadataRecord], *, last_offset: int, epoch: int) -> None:
        self._committed.replay_all(records)
        self._offset, self._epoch = last_offset, epoch
        self._publisher.on_committed(records, last_offset=last_offset, epoch=epoch)

    def on_leader(self, leader_id: int, epoch: int) -> None:
        log.debug("quorum_leader", leader=leader_id, epoch=epoch)

    def on_claimed(self, epoch: int) -> None:
        controller = Controller(
            image=self._committed_image(),
            config=self._config,
            node_id=self.quorum.settings.node_id,
            cluster_id=self._cluster_id,
            random=self._random,
            now_ms=self._monotonic_ms(),
        )
        self._controller = controller
        self._claimed.set()
        records: list[MetadataRecord] = []
        if METADATA_VERSION_FEATURE not in controller.metadata.features:
            records += bootstrap_records()
        if self._registration is not None:
            records += controller.register_controller(self._registration)
        self._decide(controller, records)
        log.info("controller_active", epoch=epoch, offset=self._offset)

    def on_resigned(self, epoch: int) -> None:
        self._controller = None
        self._proposed.clear()
        log.info("controller_inactive", epoch=epoch)

    def snapshot_records(self) -> Iterator[bytes]:
        return map(encode_record, self._committed_image().records())

    def _committed_image(self) -> MetadataImage:
        image = self._committed.image(offset=self._offset, epoch=self._epoch)
        self._committed = MetadataDelta(image)
        return image
