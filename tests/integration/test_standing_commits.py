"""Commits that the data plane carries out: through a whole broker, they are read, survive, and end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ottla.coordinator.group.offsets import Offsets
from ottla.errors import ErrorCode
from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from ottla.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerProcess, EmbeddedBroker
from tests.integration.test_standing_heartbeats import SESSION_MS, SETTINGS, Classic, Consumer, state_of
from tests.integration.transactional import TransactionalProducer
from tests.integration.wire import Closed, Wire

VERSION = 9
PATIENCE_S = 20


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with EmbeddedBroker(tmp_path_factory.mktemp("commits"), settings=SETTINGS) as broker:
        prepare(broker.port)
        yield broker.port


def prepare(port: int) -> None:
    with Wire(port) as wire:
        wire.create("topic")
        wire.ask(ApiKey.FIND_COORDINATOR, 4, FindCoordinatorRequest(coordinator_keys=("any",)))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The groups of the commits that reach a machine."""
    groups: list[str] = []
    commit = Offsets.commit

    def see(self: Offsets, request: OffsetCommitRequest, *rest: Any) -> Any:
        groups.append(request.group_id)
        return commit(self, request, *rest)

    monkeypatch.setattr(Offsets, "commit", see)
    return groups


def commit_request(
    group: str, offset: int, *, topic: str = "topic", member_id: str = "", generation_id: int = -1
) -> OffsetCommitRequest:
    partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=offset, committed_metadata="")
    return OffsetCommitRequest(
        group_id=group,
        member_id=member_id,
        generation_id_or_member_epoch=generation_id,
        topics=(OffsetCommitRequestTopic(name=topic, partitions=(partition,)),),
    )


def commit(wire: Wire, group: str, offset: int, **options: Any) -> ErrorCode:
    answer = wire.ask(ApiKey.OFFSET_COMMIT, VERSION, commit_request(group, offset, **options))
    code: ErrorCode = answer.topics[0].partitions[0].error_code
    return code


def fetch(wire: Wire, group: str, *, topic: str = "topic", stable: bool = False) -> int | ErrorCode:
    wanted = OffsetFetchRequestGroup(
        group_id=group, topics=(OffsetFetchRequestTopics(name=topic, partition_indexes=(0,)),)
    )
    answer = wire.ask(ApiKey.OFFSET_FETCH, 8, OffsetFetchRequest(groups=(wanted,), require_stable=stable))
    found = answer.groups[0].topics[0].partitions[0]
    error: ErrorCode = found.error_code
    offset: int = found.committed_offset
    return offset if error is ErrorCode.NONE else error


def test_what_was_acknowledged_is_read(port: int, seen: list[str]) -> None:
    with Wire(port) as wire, Wire(port) as other:
        for offset in range(40):
            assert commit(wire, "read", offset) is ErrorCode.NONE
            assert fetch((wire, other)[offset % 2], "read", stable=offset % 3 == 0) == offset
    # Two of a kind, and perhaps the first of all, which finds no handler yet.
    assert seen.count("read") in (2, 3)


def test_commits_that_are_sent_together_are_answered_in_their_order(port: int, seen: list[str]) -> None:
    with Wire(port) as wire:
        for offset in range(3):
            commit(wire, "together", offset)
        before = len(seen)
        for offset in range(3, 103):
            wire.send(ApiKey.OFFSET_COMMIT, VERSION, commit_request("together", offset))
        wire.send(ApiKey.OFFSET_FETCH, 8, OffsetFetchRequest(groups=(OffsetFetchRequestGroup(group_id="together"),)))
        for _ in range(100):
            answer = wire.receive(ApiKey.OFFSET_COMMIT, VERSION)
            assert answer.topics[0].partitions[0].error_code is ErrorCode.NONE
        fetched = wire.receive(ApiKey.OFFSET_FETCH, 8)
        assert fetched.groups[0].topics == ()
        assert fetch(wire, "together") == 102
    assert len(seen) == before


def test_two_connections_commit_for_one_group(port: int, seen: list[str]) -> None:
    with Wire(port) as one, Wire(port) as other:
        for offset in range(60):
            wire = (one, other)[(offset // 3 + offset) % 2]
            assert commit(wire, "two", offset) is ErrorCode.NONE
            if offset % 7 == 0:
                assert fetch(one, "two") == offset
        assert fetch(other, "two") == 59
    assert seen.count("two") <= 6


def test_a_client_that_comes_again_reads_what_it_committed_last(port: int) -> None:
    for last in (10, 20):
        with Wire(port) as wire:
            for offset in range(last):
                commit(wire, "again", offset)
        with Wire(port) as wire:
            assert fetch(wire, "again") == last - 1


def test_a_member_stays_while_it_commits_and_no_longer(port: int, seen: list[str]) -> None:
    with Wire(port) as other, Wire(port) as wire:
        member = Classic(wire, "commits")
        who = {"member_id": member.member_id, "generation_id": member.generation_id}
        until = time.monotonic() + 3 * SESSION_MS / 1000
        offset = 0
        while time.monotonic() < until:
            assert commit(wire, "commits", offset, **who) is ErrorCode.NONE
            offset += 1
            time.sleep(0.05)
        assert state_of(other, "commits") == "Stable"
        assert seen.count("commits") <= 3
        deadline = time.monotonic() + PATIENCE_S
        while state_of(other, "commits") == "Stable":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert commit(wire, "commits", offset, **who) is ErrorCode.UNKNOWN_MEMBER_ID
        assert fetch(other, "commits") == offset - 1


def test_a_member_beats_and_commits_on_one_connection(port: int, seen: list[str]) -> None:
    with Wire(port) as wire, Wire(port) as other:
        member = Classic(wire, "both")
        who = {"member_id": member.member_id, "generation_id": member.generation_id}
        for offset in range(20):
            assert member.beat() is ErrorCode.NONE
            assert commit(wire, "both", offset, **who) is ErrorCode.NONE
        assert seen.count("both") <= 3
        leave = LeaveGroupRequest(group_id="both", members=(MemberIdentity(member_id=member.member_id),))
        assert other.ask(ApiKey.LEAVE_GROUP, 5, leave).error_code is ErrorCode.NONE
        assert commit(wire, "both", 20, **who) is ErrorCode.UNKNOWN_MEMBER_ID
        assert member.beat() is ErrorCode.UNKNOWN_MEMBER_ID
        assert commit(wire, "both", 30) is ErrorCode.NONE, "without a generation, as the group is empty"
        again = Classic(other, "both")
        assert commit(wire, "both", 31) is ErrorCode.UNKNOWN_MEMBER_ID
        stale = {"member_id": again.member_id, "generation_id": again.generation_id - 1}
        assert commit(wire, "both", 31, **stale) is ErrorCode.ILLEGAL_GENERATION
        assert fetch(other, "both") == 30


def test_a_consumer_of_another_epoch_is_refused_as_anybody_would_be(port: int, seen: list[str]) -> None:
    with Wire(port) as wire, Wire(port) as other, Wire(port) as fresh:
        consumer = Consumer(wire, "epochs")
        who = {"member_id": consumer.member_id, "generation_id": consumer.epoch}
        for offset in range(20):
            assert commit(wire, "epochs", offset, **who) is ErrorCode.NONE
            consumer.beat()
        assert seen.count("epochs") <= 3
        Consumer(other, "epochs")
        before = seen.count("epochs")
        answers = {commit(each, "epochs", 20, **who) for each in (wire, fresh)}
        assert len(answers) == 1
        assert seen.count("epochs") == before + 2
        stranger = {"member_id": "stranger", "generation_id": consumer.epoch}
        assert commit(wire, "epochs", 21, **stranger) is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_deleted_group_begins_anew(port: int) -> None:
    with Wire(port) as wire, Wire(port) as other:
        for offset in range(10):
            commit(wire, "deleted", offset)
        deleted = other.ask(ApiKey.DELETE_GROUPS, 2, DeleteGroupsRequest(groups_names=("deleted",)))
        assert deleted.results[0].error_code is ErrorCode.NONE
        assert fetch(other, "deleted") == -1
        for offset in range(10, 15):
            assert commit(wire, "deleted", offset) is ErrorCode.NONE
            assert fetch(other, "deleted") == offset


def test_a_deleted_topic_is_said_not_to_exist_and_takes_its_offsets_along(port: int) -> None:
    with Wire(port) as wire, Wire(port) as other:
        other.create("goes")
        for offset in range(10):
            assert commit(wire, "loses", offset, topic="goes") is ErrorCode.NONE
        other.delete("goes")
        assert commit(wire, "loses", 10, topic="goes") is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert fetch(other, "loses", topic="goes") == -1
        other.create("goes")
        assert fetch(other, "loses", topic="goes") == -1
        for offset in range(20, 25):
            assert commit(wire, "loses", offset, topic="goes") is ErrorCode.NONE
        assert fetch(other, "loses", topic="goes") == 24


def test_a_commit_wins_over_the_transaction_that_is_open(port: int, seen: list[str]) -> None:
    with Wire(port) as wire, Wire(port) as other:
        producer = TransactionalProducer(other, "wins-tx").init()
        for offset in range(4):
            commit(wire, "wins", offset)
        before = len(seen)
        ids = {"producer_id": producer.producer_id, "producer_epoch": producer.epoch}
        add = AddOffsetsToTxnRequest(transactional_id="wins-tx", group_id="wins", **ids)
        assert other.ask(ApiKey.ADD_OFFSETS_TO_TXN, 3, add).error_code is ErrorCode.NONE
        partition = TxnOffsetCommitRequestPartition(partition_index=0, committed_offset=100, committed_metadata="")
        topic = TxnOffsetCommitRequestTopic(name="topic", partitions=(partition,))
        pend = TxnOffsetCommitRequest(transactional_id="wins-tx", group_id="wins", topics=(topic,), **ids)
        pended = other.ask(ApiKey.TXN_OFFSET_COMMIT, 3, pend)
        assert pended.topics[0].partitions[0].error_code is ErrorCode.NONE
        assert commit(wire, "wins", 5) is ErrorCode.NONE
        assert fetch(wire, "wins") == 5
        assert fetch(wire, "wins", stable=True) is ErrorCode.UNSTABLE_OFFSET_COMMIT
        end = EndTxnRequest(transactional_id="wins-tx", committed=True, **ids)
        assert other.ask(ApiKey.END_TXN, 3, end).error_code is ErrorCode.NONE
        deadline = time.monotonic() + PATIENCE_S
        while fetch(wire, "wins", stable=True) is ErrorCode.UNSTABLE_OFFSET_COMMIT:
            assert time.monotonic() < deadline
        assert fetch(wire, "wins", stable=True) == 5
    assert len(seen) == before


def test_acknowledged_commits_survive_kill_9(tmp_path: Path) -> None:
    acknowledged: dict[str, int] = {}
    groups = [f"group-{i}" for i in range(8)]
    with BrokerProcess(tmp_path / "data") as broker:
        prepare(broker.port)
        for round_ in range(3):
            before = dict(acknowledged)
            threads = [threading.Thread(target=commit_on, args=(broker.port, group, acknowledged)) for group in groups]
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + PATIENCE_S
            # From the third on they are the data plane's.
            while any(acknowledged.get(group, -1) < before.get(group, -1) + 10 for group in groups):
                assert time.monotonic() < deadline, acknowledged
                time.sleep(0.01)
            broker.kill()
            for thread in threads:
                thread.join()
            assert acknowledged.keys() == set(groups)
            broker.start()
            with Wire(broker.port) as wire:
                for group in groups:
                    found = fetch(wire, group)
                    # What was on its way may have been committed or not.
                    assert found in (acknowledged[group], acknowledged[group] + 1), (round_, group)
                    acknowledged[group] = int(found)
        assert broker.terminate() == 0


def commit_on(port: int, group: str, acknowledged: dict[str, int]) -> None:
    """Commit one offset after the other until the broker is gone."""
    try:
        with Wire(port) as wire:
            offset = acknowledged.get(group, -1)
            while commit(wire, group, offset + 1) is ErrorCode.NONE:
                offset += 1
                acknowledged[group] = offset
    except (Closed, OSError):
        return
