"""Groups under a broker that is killed again and again while members commit and rebalance."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest

from ottla.errors import ErrorCode
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.heartbeat import HeartbeatRequest
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess
from tests.integration.wire import Closed, Wire

TOPIC = "topic"
LOST = (Closed, ConnectionError, TimeoutError, OSError)
AGAIN = {
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.REBALANCE_IN_PROGRESS,
}


class Member(threading.Thread):
    """One member of a group of its own: joins, commits as fast as it can, and comes back after each crash."""

    def __init__(self, broker: BrokerProcess, group_id: str) -> None:
        super().__init__(daemon=True)
        self.broker = broker
        self.group_id = group_id
        self.member_id = ""
        self.generation_id = -1
        self.acknowledged = -1
        self.sent = -1
        self.joins = 0
        self.stopping = False
        self.failure: str | None = None

    def run(self) -> None:
        while not self.stopping and self.failure is None:
            try:
                with Wire(self.broker.port) as wire:
                    self.talk(wire)
            except LOST:
                time.sleep(0.02)
            except Exception as error:
                self.failure = repr(error)

    def talk(self, wire: Wire) -> None:
        fetch = OffsetFetchRequest(groups=(OffsetFetchRequestGroup(group_id=self.group_id, topics=None),))
        while True:  # also the last time: a group that is still being loaded then is yet to be looked at
            (group,) = wire.ask(ApiKey.OFFSET_FETCH, 9, fetch).groups
            if group.error_code is ErrorCode.NONE:
                break
            assert group.error_code in AGAIN
            time.sleep(0.01)
        found = group.topics[0].partitions[0].committed_offset if group.topics else -1
        if not self.acknowledged <= found <= self.sent:
            self.failure = f"{self.group_id}: found {found}, acknowledged {self.acknowledged}, sent {self.sent}"
            return
        if self.generation_id < 0:
            self.join_group(wire)
        while not self.stopping and self.failure is None:
            self.step(wire)

    def join_group(self, wire: Wire) -> None:
        self.joins += 1
        for _ in range(2):
            request = JoinGroupRequest(
                group_id=self.group_id,
                member_id=self.member_id,
                session_timeout_ms=30_000,
                rebalance_timeout_ms=30_000,
                protocol_type="consumer",
                protocols=(JoinGroupRequestProtocol(name="range", metadata=b"\0\0\0\0\0\0\xff\xff\xff\xff"),),
            )
            joined = wire.ask(ApiKey.JOIN_GROUP, 9, request)
            self.member_id = joined.member_id
        if joined.error_code is not ErrorCode.NONE:
            self.member_id = ""
            return
        sync = SyncGroupRequest(
            group_id=self.group_id,
            member_id=self.member_id,
            generation_id=joined.generation_id,
            protocol_type="consumer",
            protocol_name="range",
            assignments=(SyncGroupRequestAssignment(member_id=self.member_id, assignment=b"all"),),
        )
        synced = wire.ask(ApiKey.SYNC_GROUP, 5, sync)
        if synced.error_code is ErrorCode.NONE:
            assert joined.generation_id > self.generation_id
            self.generation_id = joined.generation_id

    def step(self, wire: Wire) -> None:
        self.sent += 1
        request = OffsetCommitRequest(
            group_id=self.group_id,
            generation_id_or_member_epoch=self.generation_id,
            member_id=self.member_id,
            topics=(
                OffsetCommitRequestTopic(
                    name=TOPIC,
                    partitions=(OffsetCommitRequestPartition(partition_index=0, committed_offset=self.sent),),
                ),
            ),
        )
        code = wire.ask(ApiKey.OFFSET_COMMIT, 9, request).topics[0].partitions[0].error_code
        if code is ErrorCode.NONE:
            self.acknowledged = self.sent
        elif code not in AGAIN:
            # A member that was acknowledged as one before the crash must be one after it.
            self.failure = f"{self.group_id}: {code.name} after {self.joins} joins"
        heartbeat = HeartbeatRequest(group_id=self.group_id, generation_id=self.generation_id, member_id=self.member_id)
        wire.ask(ApiKey.HEARTBEAT, 4, heartbeat)


@pytest.mark.soak
def test_groups_survive_any_number_of_kills(tmp_path: Path) -> None:
    ends_s = time.monotonic() + float(os.environ.get("SOAK_SECONDS", "30"))
    chance = random.Random(7)
    kills = 0
    with BrokerProcess(tmp_path / "data") as broker:
        with Wire(broker.port) as wire:
            request = MetadataRequest(topics=(MetadataRequestTopic(name=TOPIC),), allow_auto_topic_creation=True)
            while wire.ask(ApiKey.METADATA, 12, request).topics[0].error_code is not ErrorCode.NONE:
                time.sleep(0.05)
            wire.ask(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=("group-0",)))
        members = [Member(broker, f"group-{i}") for i in range(4)]
        for member in members:
            member.start()
        while time.monotonic() < ends_s and not any(m.failure for m in members):
            time.sleep(chance.uniform(0.1, 1.5))
            broker.kill()
            broker.start()
            kills += 1
        time.sleep(0.5)
        for member in members:
            member.stopping = True
        for member in members:
            member.join()
        assert not [m.failure for m in members if m.failure]
        assert kills > 0
        for member in members:
            assert member.acknowledged > 10
            assert member.joins == 1, "nobody has to rejoin because of a crash"
