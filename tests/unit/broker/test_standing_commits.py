"""Commits that the data plane carries out: what it appends and answers, what is taken in, and when it ends."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from ottla._native import build_batch, decode_batches
from ottla.broker.connection import Connection
from ottla.broker.coordinated_topic import NativePartitionLog
from ottla.broker.pace import Pace
from ottla.broker.standing_commits import BYTES_MAX, HANDED_BACK_MS, Committing, StandingCommits
from ottla.common.topics import CONSUMER_OFFSETS
from ottla.coordinator.group import records
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.records import OffsetCommitValue
from ottla.coordinator.shard import CoordinatorRecord, LoadedRecord
from ottla.protocol.codec import decode_request, encode_request, is_flexible
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.versions import API_VERSIONS, ApiKey
from tests.property.native_lab import NativeLab, now_ms, wall_ms

if TYPE_CHECKING:
    from ottla._native import Request

RESPONSE = struct.pack(">i", 1) + b"committed"
TOPIC_ID = uuid.UUID(int=7)
VERSIONS = range(API_VERSIONS[ApiKey.OFFSET_COMMIT][0], API_VERSIONS[ApiKey.OFFSET_COMMIT][1] + 1)
BATCH_HEAD_BYTES = 16
"""Base offset, length and leader epoch: what a leader sets, and the length between."""


class Machine:
    """Stands in for a runtime with one machine: says what stands, and notes what it hears."""

    def __init__(self) -> None:
        self.is_settled = True
        self.heard: list[tuple[str, str]] = []
        self.commits: StandingCommits
        self.taken: list[LoadedRecord] = []
        self.offsets = self.membership = self

    def look(self, partition: int, read: Callable[[Any, Any], bool]) -> bool:
        assert partition == 0
        self.catch_up(partition)
        return self.is_settled

    def catch_up(self, partition: int) -> bool:
        appended = self.commits.take_appended(partition)
        if appended is not None:
            self.taken += appended.records
        return True

    def inform(self, partition: int, act: Callable[[Any], None]) -> None:
        assert partition == 0
        act(self)

    def on_heard(self, group_id: str, member_id: str, heard_ms: int) -> None:
        assert 0 <= now_ms() - heard_ms < 60_000
        self.heard.append((group_id, member_id))


def request_of(
    *offsets: int, epoch: int = 4, metadata: str | None = "text", name: str = "topic"
) -> OffsetCommitRequest:
    partitions = tuple(
        OffsetCommitRequestPartition(
            partition_index=i, committed_offset=offset, committed_leader_epoch=epoch + i, committed_metadata=metadata
        )
        for i, offset in enumerate(offsets)
    )
    topic = OffsetCommitRequestTopic(name=name, topic_id=TOPIC_ID, partitions=partitions)
    return OffsetCommitRequest(group_id="group", member_id="member", generation_id_or_member_epoch=3, topics=(topic,))


class World:
    def __init__(self, lab: NativeLab) -> None:
        self.lab = lab
        self.native = lab.partitions[CONSUMER_OFFSETS, 0]
        self.log = NativePartitionLog(self.native, compression="none", leader_epoch=0)
        self.machine = Machine()
        self.commits = StandingCommits(
            cast(Any, self.machine), lambda _: cast(NativePartitionLog, self.log), write_timeout_ms=5_000
        )
        self.machine.commits = self.commits
        self.connection = Connection(
            lab.plane,
            lab.server,
            peer=("127.0.0.1", 1),
            listener_name="PLAINTEXT",
            dispatch=cast(Any, None),
            start=cast(Any, None),
            on_closed=lambda _: None,
            pace=Pace(),
        )
        self.version = VERSIONS[-1]
        self.correlation_id = 0

    def send(self, request: OffsetCommitRequest) -> None:
        self.correlation_id += 1
        header = struct.pack(">hhih", ApiKey.OFFSET_COMMIT, self.version, self.correlation_id, 1) + b"c"
        header += b"\0" if is_flexible(ApiKey.OFFSET_COMMIT, self.version) else b""
        body = encode_request(ApiKey.OFFSET_COMMIT, self.version, request)
        self.lab.client.sendall(struct.pack(">i", len(header) + len(body)) + header + body)

    def owed(self) -> list[Request]:
        """What is owed; nothing once an answer is there."""
        while True:
            polled = self.lab.plane.poll(now_ms(), wall_ms(), 0.02)[0]
            owed = [request for _, _, owed in polled for request in owed]
            if owed or self.has_answer():
                return owed

    def has_answer(self) -> bool:
        self.lab.client.setblocking(False)
        try:
            return bool(self.lab.client.recv(1, 2))  # MSG_PEEK
        except BlockingIOError:
            return False
        finally:
            self.lab.client.settimeout(20)

    def received(self) -> bytes:
        size = struct.unpack(">i", self.lab.client.recv(4))[0]
        return self.lab.client.recv(cast(int, size))

    def carry_out(self, request: OffsetCommitRequest) -> None:
        """Answer a request in a way that may stand."""
        self.send(request)
        (owed,) = self.owed()
        decoded = decode_request(ApiKey.OFFSET_COMMIT, self.version, owed[5])
        (topic,) = decoded.topics
        passed_on = replace(decoded, topics=(replace(topic, name="topic", topic_id=TOPIC_ID),))
        caller = Caller(0, self.version, "c", "/127.0.0.1", "")
        self.commits.let_stand(Committing(0, decoded, passed_on, caller), self.connection, owed, RESPONSE)
        self.lab.plane.reply(self.connection.session_id, owed[0], RESPONSE, now_ms(), wall_ms())
        assert self.received() == RESPONSE

    def is_carried_out(self, request: OffsetCommitRequest) -> bool:
        self.send(request)
        owed = self.owed()
        if owed:
            self.lab.plane.reply(self.connection.session_id, owed[0][0], RESPONSE, now_ms(), wall_ms())
            self.received()
            return False
        assert self.received() == struct.pack(">i", self.correlation_id) + b"committed"
        return True

    def expected(self, request: OffsetCommitRequest, at_ms: int) -> list[CoordinatorRecord]:
        """What the machine would write."""
        (topic,) = request.topics
        return [
            records.offset_commit(
                "group",
                "topic",
                p.partition_index,
                OffsetCommitValue(
                    p.committed_offset,
                    p.committed_leader_epoch if self.version >= 6 else -1,
                    p.committed_metadata or "",
                    at_ms,
                    -1,
                    TOPIC_ID,
                ),
            )
            for p in topic.partitions
        ]


class TimingLog(NativePartitionLog):
    """Keeps how long the data plane was given."""

    def __init__(self, *args: Any, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.timeouts_ms: list[int] = []

    def let_write_stand(self, *args: Any, timeout_ms: int, **rest: Any) -> None:
        self.timeouts_ms.append(timeout_ms)
        super().let_write_stand(*args, timeout_ms=timeout_ms, **rest)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with NativeLab(tmp_path / "data", {CONSUMER_OFFSETS: 1}) as lab:
        lab.plane.close_session(lab.session_id)
        lab.client.settimeout(20)
        world = World(lab)
        yield world
        world.connection.close()


@pytest.mark.parametrize(("write_timeout_ms", "expected_ms"), [(5_000, HANDED_BACK_MS), (300, 300)])
def test_a_commit_that_is_not_committed_comes_back_soon(world: World, write_timeout_ms: int, expected_ms: int) -> None:
    """Where it has all the time that a commit has: it was not to wait twice as long."""
    world.log = log = TimingLog(world.native, compression="none", leader_epoch=0)
    world.commits = world.machine.commits = StandingCommits(
        cast(Any, world.machine), lambda _: world.log, write_timeout_ms=write_timeout_ms
    )
    for first in (100, 200):
        world.carry_out(request_of(first))
    assert log.timeouts_ms == [expected_ms]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("metadata", [None, "", "æ" * 70])
def test_what_is_appended_is_what_would_have_been(world: World, version: int, count: int, metadata: str | None) -> None:
    world.version = version
    for first in (100, 200):
        world.carry_out(request_of(*range(first, first + count), metadata=metadata))
    request = request_of(*[2**62 + i for i in range(count)], epoch=-9, metadata=metadata)
    before_ms = wall_ms()
    assert world.is_carried_out(request)
    data = world.native.read_records(0, max_bytes=1 << 20)
    (batch,) = decode_batches(data)
    assert before_ms <= batch.max_timestamp <= wall_ms()
    expected = world.expected(request, batch.max_timestamp)
    built = build_batch([(r.key, r.value, batch.max_timestamp, ()) for r in expected])
    assert data[BATCH_HEAD_BYTES:] == built[BATCH_HEAD_BYTES:]
    assert (batch.base_offset, batch.partition_leader_epoch) == (0, 0)
    world.machine.catch_up(0)
    assert world.machine.taken == [
        LoadedRecord(offset, r.key, r.value, -1, r.content) for offset, r in enumerate(expected)
    ]


@pytest.mark.parametrize("offset", [0, -1, -2, 2**63 - 1, -(2**63)])
def test_all_offsets_are_alike(world: World, offset: int) -> None:
    for each in (1, 2):
        world.carry_out(request_of(each))
    assert world.is_carried_out(request_of(offset, epoch=-1))
    world.machine.catch_up(0)
    assert [cast(Any, r.content).value.offset for r in world.machine.taken] == [offset]


def test_a_commit_stands_from_the_second_of_its_kind_on(world: World) -> None:
    world.carry_out(request_of(1))
    assert len(world.commits) == 0
    world.carry_out(request_of(1, 2))
    assert len(world.commits) == 0
    world.carry_out(request_of(3, 4))
    assert len(world.commits) == 1
    assert world.is_carried_out(request_of(5, 6))
    assert not world.is_carried_out(request_of(7))
    assert not world.is_carried_out(request_of(5, 6, metadata="changed"))
    assert world.is_carried_out(request_of(7, 8))
    assert world.lab.plane.metrics()["answered"] == {int(ApiKey.OFFSET_COMMIT): 2}


def test_who_commits_is_heard_of_and_the_last_is_taken_in(world: World) -> None:
    for each in (1, 2):
        world.carry_out(request_of(each))
    for offset in (3, 4):
        assert world.is_carried_out(request_of(offset))
    assert world.machine.heard == []
    world.machine.catch_up(0)
    assert [(r.offset, cast(Any, r.content).value.offset) for r in world.machine.taken] == [(1, 4)]
    assert world.machine.heard == [("group", "member")]
    world.machine.catch_up(0)
    assert len(world.machine.taken) == len(world.machine.heard) == 1


@pytest.mark.parametrize(
    "withdraw",
    [
        lambda world: world.commits.withdraw_groups(0, ["other", "group"]),
        lambda world: world.commits.withdraw_all(),
        lambda world: world.connection.end_standing_commit(),
    ],
    ids=["of groups", "all", "of a connection"],
)
def test_what_is_withdrawn_is_owed_and_what_was_appended_is_taken_in(
    world: World, withdraw: Callable[[World], None]
) -> None:
    for each in (1, 2):
        world.carry_out(request_of(each))
    assert world.is_carried_out(request_of(3))
    withdraw(world)
    assert [cast(Any, r.content).value.offset for r in world.machine.taken] == [3]
    assert len(world.commits) == 0
    assert not world.is_carried_out(request_of(4))
    assert world.commits.take_appended(0) is None


def test_what_is_withdrawn_elsewhere_goes_on_here(world: World) -> None:
    for each in (1, 2):
        world.carry_out(request_of(each))
    world.commits.withdraw_groups(0, ["other"])
    world.commits.withdraw_groups(1, ["group"])
    world.commits.forget_partition(1)
    world.connection.end_standing()
    assert world.is_carried_out(request_of(3))


def test_a_connection_that_ends_leaves_what_it_appended(world: World) -> None:
    for each in (1, 2):
        world.carry_out(request_of(each))
    assert world.is_carried_out(request_of(3))
    world.connection.close()
    assert [cast(Any, r.content).value.offset for r in world.machine.taken] == [3]
    assert len(world.commits) == 0


def test_a_partition_that_is_loaded_anew_is_read_from_its_log(world: World) -> None:
    for each in (1, 2):
        world.carry_out(request_of(each))
    assert world.is_carried_out(request_of(3))
    world.commits.forget_partition(0)
    assert len(world.commits) == 0
    assert world.machine.taken == []
    assert not world.is_carried_out(request_of(4))
    world.carry_out(request_of(5))
    assert world.is_carried_out(request_of(7))
    world.machine.catch_up(0)
    assert [cast(Any, r.content).value.offset for r in world.machine.taken] == [7]


def test_another_commit_of_the_connection_takes_the_place(world: World) -> None:
    for each in (1, 2):
        world.carry_out(request_of(each))
    assert world.is_carried_out(request_of(3))
    for each in (1, 2):
        world.carry_out(request_of(each, metadata="longer"))
    assert len(world.commits) == 1
    assert [cast(Any, r.content).value.offset for r in world.machine.taken] == [3]
    assert world.is_carried_out(request_of(3, metadata="longer"))
    assert not world.is_carried_out(request_of(3))


def test_what_the_machine_would_not_go_on_to_do_does_not_stand(world: World) -> None:
    world.machine.is_settled = False
    for each in (1, 2, 3):
        world.carry_out(request_of(each))
    assert len(world.commits) == 0


def test_what_is_compressed_or_large_does_not_stand(world: World) -> None:
    for count in (1, BYTES_MAX // 80):
        for _ in range(2):
            world.carry_out(request_of(*range(count), metadata="x" * (BYTES_MAX // 2 // count)))
        assert len(world.commits) == 0
    world.log = NativePartitionLog(world.native, compression="gzip", leader_epoch=0)
    for each in (1, 2):
        world.carry_out(request_of(each))
    assert len(world.commits) == 0


def test_in_another_epoch_nothing_is_appended(world: World) -> None:
    for each in (1, 2):
        world.carry_out(request_of(each))
    world.lab.plane.set_leadership(CONSUMER_OFFSETS, 0, 1, now_ms(), wall_ms())
    assert not world.is_carried_out(request_of(3))
    for each in (4, 5):
        world.carry_out(request_of(each))
    assert not world.is_carried_out(request_of(6))
    assert world.native.offsets().log_end_offset == 0
