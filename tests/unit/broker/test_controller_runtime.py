"""The controller over a quorum of one, in a real directory, on a clock of the test's own."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from ottla.broker.controller_runtime import ControllerRuntime
from ottla.broker.quorum_runtime import CommittedBatch, QuorumSettings
from ottla.common.config import BrokerConfig
from ottla.controller.cluster_control import BrokerHeartbeatRequest, BrokerRegistrationRequest
from ottla.controller.feature_control import bootstrap_records, supported_feature_ranges
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.delta import InconsistentMetadata, MetadataDelta
from ottla.metadata.image import MetadataImage
from ottla.metadata.records import (
    Endpoint,
    MetadataRecord,
    TopicRecord,
    encode_record,
)
from ottla.protocol.messages.create_topics import CreatableTopic, CreateTopicsRequest
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState

_runtimes = itertools.count()
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"


class Follower:
    """A publisher that applies at once, or when told."""

    def __init__(self) -> None:
        self.delta = MetadataDelta()
        self.offset = -1
        self.holding = False
        self.moved = trio.Event()

    def on_committed(self, records: Iterable[MetadataRecord], *, last_offset: int, epoch: int) -> None:
        self.delta.replay_all(records)
        self.offset = last_offset
        self.moved.set()

    async def wait_published(self, offset: int) -> None:
        while self.offset < offset or self.holding:
            self.moved = trio.Event()
            await self.moved.wait()

    def release(self) -> None:
        self.holding = False
        self.moved.set()

    def image(self) -> MetadataImage:
        return self.delta.image(offset=self.offset, epoch=0)


def make_runtime(directory: Path, follower: Follower, *, snapshot_bytes: int = 20 << 20) -> ControllerRuntime:
    settings = QuorumSettings(directory=str(directory), node_id=1, voters=[1], snapshot_bytes=snapshot_bytes)
    return ControllerRuntime(
        settings,
        follower,
        config=BrokerConfig.load({}),
        cluster_id=CLUSTER_ID,
        random=Random(str(directory) + str(next(_runtimes))),
        monotonic_ms=lambda: int(trio.current_time() * 1000),
        wall_clock=lambda: 1_000,
    )


def with_runtime(runtime: ControllerRuntime, work: Callable[[ControllerRuntime], Awaitable[None]]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(runtime.run)
            await work(runtime)
            nursery.cancel_scope.cancel()

    # time stands still unless a test moves it: a thread that is slow to write must not let sessions expire
    trio.run(main, clock=trio.testing.MockClock())


async def start_broker(runtime: ControllerRuntime) -> int:
    """Register broker 1 and unfence it; return its epoch."""
    response = await runtime.handle(
        BrokerRegistrationRequest(
            broker_id=1,
            cluster_id=CLUSTER_ID,
            incarnation_id=uuid.uuid4(),
            listeners=(Endpoint(name="PLAINTEXT", host="localhost", port=9092, security_protocol=0),),
            features=supported_feature_ranges(),
            log_dirs=(uuid.uuid4(),),
        )
    )
    assert response.error_code is ErrorCode.NONE
    heartbeat = BrokerHeartbeatRequest(broker_id=1, broker_epoch=response.broker_epoch, metadata_offset=1 << 60)
    assert not (await runtime.handle(heartbeat)).is_fenced
    return int(response.broker_epoch)


def creating(*names: str, partitions: int = 1) -> CreateTopicsRequest:
    topics = tuple(CreatableTopic(name=name, num_partitions=partitions, replication_factor=1) for name in names)
    return CreateTopicsRequest(topics=topics, timeout_ms=1_000)


async def create(runtime: ControllerRuntime, *names: str, partitions: int = 1) -> list[ErrorCode]:
    response = await runtime.handle(creating(*names, partitions=partitions))
    return [topic.error_code for topic in response.topics]


def test_a_new_cluster_starts_with_its_features_and_serves_requests(tmp_path: Path) -> None:
    follower = Follower()

    async def work(runtime: ControllerRuntime) -> None:
        assert runtime.is_active
        assert follower.delta.features == {record.name: record.feature_level for record in bootstrap_records()}  # type: ignore[attr-defined]
        await start_broker(runtime)
        assert await create(runtime, "a", "b", partitions=3) == [ErrorCode.NONE, ErrorCode.NONE]
        assert await create(runtime, "a") == [ErrorCode.TOPIC_ALREADY_EXISTS]

    with_runtime(make_runtime(tmp_path, follower), work)
    assert follower.image().topic_ids.keys() == {"a", "b"}


def test_a_brokers_epoch_is_the_offset_of_its_registration(tmp_path: Path) -> None:
    follower = Follower()

    async def work(runtime: ControllerRuntime) -> None:
        before = runtime.quorum_status().log_end_offset
        assert await start_broker(runtime) == before

    with_runtime(make_runtime(tmp_path, follower), work)


def test_a_restart_knows_everything_and_does_not_begin_anew(tmp_path: Path) -> None:
    first, second = Follower(), Follower()

    async def write(runtime: ControllerRuntime) -> None:
        await start_broker(runtime)
        await create(runtime, "a", "b")
        await runtime.handle(DeleteTopicsRequest(topics=(DeleteTopicState(name="a"),), timeout_ms=1_000))

    async def read(runtime: ControllerRuntime) -> None:
        assert second.image().topics == first.image().topics
        # one leader change, and no records of a beginning
        assert second.offset == first.offset + 1

    with_runtime(make_runtime(tmp_path, first), write)
    with_runtime(make_runtime(tmp_path, second), read)


def test_snapshots_carry_the_metadata_over(tmp_path: Path) -> None:
    first, second = Follower(), Follower()

    async def write(runtime: ControllerRuntime) -> None:
        await start_broker(runtime)
        for number in range(30):
            await create(runtime, f"topic-{number}")

    async def read(runtime: ControllerRuntime) -> None:
        assert second.image().topics == first.image().topics
        assert await create(runtime, "topic-7", "new") == [ErrorCode.TOPIC_ALREADY_EXISTS, ErrorCode.NONE]

    with_runtime(make_runtime(tmp_path, first, snapshot_bytes=500), write)
    assert list(tmp_path.glob("*.checkpoint"))
    with_runtime(make_runtime(tmp_path, second, snapshot_bytes=500), read)


def test_a_change_is_answered_when_it_is_applied_and_a_heartbeat_does_not_wait_for_that(tmp_path: Path) -> None:
    follower = Follower()

    async def work(runtime: ControllerRuntime) -> None:
        epoch = await start_broker(runtime)
        follower.holding = True
        answered: list[str] = []

        async def one(name: str, request: Any) -> None:
            await runtime.handle(request)
            answered.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "create", creating("a"))
            heartbeat = BrokerHeartbeatRequest(broker_id=1, broker_epoch=epoch, metadata_offset=0)
            await one("heartbeat", heartbeat)
            assert answered == ["heartbeat"]
            follower.release()
        assert answered == ["heartbeat", "create"]

    with_runtime(make_runtime(tmp_path, follower), work)


def test_requests_made_together_are_decided_in_order(tmp_path: Path) -> None:
    follower = Follower()
    outcomes: list[ErrorCode] = []

    async def work(runtime: ControllerRuntime) -> None:
        await start_broker(runtime)

        async def one() -> None:
            outcomes.extend(await create(runtime, "same"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one)

    with_runtime(make_runtime(tmp_path, follower), work)
    assert sorted(outcomes) == [ErrorCode.NONE] + [ErrorCode.TOPIC_ALREADY_EXISTS] * 19


def jump(seconds: float) -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(seconds)


def test_a_broker_that_is_not_heard_from_is_fenced(tmp_path: Path) -> None:
    follower = Follower()

    async def work(runtime: ControllerRuntime) -> None:
        await start_broker(runtime)
        await trio.testing.wait_all_tasks_blocked()
        jump(9)
        assert not follower.delta.brokers[1].fenced
        await follower.wait_published(follower.offset + 1)
        assert follower.delta.brokers[1].fenced

    with_runtime(make_runtime(tmp_path, follower), work)


def test_a_node_that_was_held_up_itself_gives_its_brokers_another_session(tmp_path: Path) -> None:
    follower = Follower()

    async def work(runtime: ControllerRuntime) -> None:
        await start_broker(runtime)
        jump(30)
        await trio.testing.wait_all_tasks_blocked()
        assert not follower.delta.brokers[1].fenced
        jump(9)
        await follower.wait_published(follower.offset + 1)
        assert follower.delta.brokers[1].fenced

    with_runtime(make_runtime(tmp_path, follower), work)


def test_without_leadership_requests_are_sent_elsewhere(tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path, Follower())

    async def main() -> None:
        with pytest.raises(KafkaError) as refused:
            await runtime.handle(creating("a"))
        assert refused.value.code is ErrorCode.NOT_CONTROLLER

    trio.run(main)


def test_losing_leadership_fails_what_waits_and_forgets_what_was_not_committed(tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path, Follower())

    async def work(runtime: ControllerRuntime) -> None:
        await start_broker(runtime)
        runtime.on_resigned(1)
        assert not runtime.is_active
        with pytest.raises(KafkaError):
            await runtime.handle(creating("a"))
        runtime.on_claimed(1)
        assert await create(runtime, "a") == [ErrorCode.NONE]

    with_runtime(runtime, work)


def test_a_log_that_contradicts_itself_ends_the_controller(tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path, Follower())
    twice = encode_record(TopicRecord(name="a", topic_id=uuid.UUID(int=1)))

    async def work(runtime: ControllerRuntime) -> None:
        await runtime.quorum.propose([twice])
        await runtime.quorum.propose([twice])

    with pytest.raises(BaseExceptionGroup) as failed:
        with_runtime(runtime, work)
    assert failed.value.subgroup(InconsistentMetadata) is not None


def test_a_decision_that_contradicts_the_metadata_never_reaches_the_log(tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path, Follower())
    ends: list[int] = []

    async def work(runtime: ControllerRuntime) -> None:
        await start_broker(runtime)
        ends.append(runtime.quorum_status().log_end_offset)
        controller = runtime._controller
        assert controller is not None
        runtime._decide(controller, [TopicRecord(name="a", topic_id=uuid.UUID(int=1))] * 2)

    with pytest.raises(BaseExceptionGroup) as failed:
        with_runtime(runtime, work)
    assert failed.value.subgroup(InconsistentMetadata) is not None
    follower = Follower()

    async def read(runtime: ControllerRuntime) -> None:
        assert runtime.quorum_status().log_end_offset == ends[0] + 1

    with_runtime(make_runtime(tmp_path, follower), read)


def test_batches_of_another_leader_are_decoded_where_own_ones_were_expected(tmp_path: Path) -> None:
    follower = Follower()
    runtime = make_runtime(tmp_path, follower)

    async def work(runtime: ControllerRuntime) -> None:
        end = runtime.quorum_status().log_end_offset
        runtime._proposed.append((end, 1, [TopicRecord(name="lost", topic_id=uuid.UUID(int=1))]))
        other = encode_record(TopicRecord(name="won", topic_id=uuid.UUID(int=2)))
        runtime.on_committed(
            [CommittedBatch(base_offset=end, last_offset=end, epoch=2, timestamp_ms=0, records=[other])]
        )
        assert follower.delta.topic_ids.keys() == {"won"}

    with_runtime(runtime, work)
