"""Offsets of consumer groups: who may commit, read and delete them, and when they go."""

from __future__ import annotations

from typing import Any

from ottla.coordinator.shard import Producer
from ottla.errors import ErrorCode
from ottla.protocol.messages.offset_fetch import OffsetFetchRequestGroup, OffsetFetchRequestTopics
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from tests.unit.coordinator.group.consumers import Consumer, ConsumerContext, settle, topic_id
from tests.unit.coordinator.group.context import GROUP

ALL = {"topic": (0, 1, 2, 3)}


def commit(group: ConsumerContext, partition: int, epoch: int, **options: Any) -> ErrorCode:
    options = {"member_id": "a", "topic_id": topic_id("topic")} | options
    (error,) = group.commit_offsets({("topic", partition): 7}, generation_id=epoch, **options)
    return error


def test_commits_need_the_members_epoch_or_a_partition_held_since_then() -> None:
    group = ConsumerContext()
    a, b = Consumer(group, "a"), Consumer(group, "b")
    a.poll()
    assert commit(group, 0, 2) is ErrorCode.NONE
    assert commit(group, 0, 3) is ErrorCode.STALE_MEMBER_EPOCH
    assert commit(group, 0, 2, member_id="x") is ErrorCode.UNKNOWN_MEMBER_ID
    assert commit(group, 0, -1, member_id="") is ErrorCode.UNKNOWN_MEMBER_ID
    settle(a, b)
    assert (a.epoch, b.epoch, a.owned) == (3, 3, {"topic": (0, 1)})
    assert commit(group, 1, 3) is ErrorCode.NONE
    assert commit(group, 1, 2) is ErrorCode.NONE, "it has had this one since epoch 2"
    assert commit(group, 1, 1) is ErrorCode.STALE_MEMBER_EPOCH
    assert commit(group, 2, 2) is ErrorCode.STALE_MEMBER_EPOCH, "it does not have this one any more"
    assert commit(group, 2, 2, member_id="b") is ErrorCode.STALE_MEMBER_EPOCH, "it got this one at epoch 3"
    assert commit(group, 2, 3, member_id="b") is ErrorCode.NONE
    assert commit(group, 0, 3, version=8) is ErrorCode.UNSUPPORTED_VERSION


def test_a_member_may_commit_for_what_it_is_giving_up() -> None:
    group = ConsumerContext()
    group.enter("a")
    group.enter("b")
    group.beat("a", 2, owned=ALL)
    assert commit(group, 3, 2) is ErrorCode.NONE


def test_anybody_may_commit_for_an_empty_group() -> None:
    group = ConsumerContext()
    Consumer(group, "a").poll()
    group.beat("a", -1)
    assert commit(group, 0, -1, member_id="") is ErrorCode.NONE
    assert group.fetch_offsets() == {("topic", 0): 7}
    assert group.list() == {GROUP: "Empty"}


def test_reading_offsets_as_a_member_takes_its_epoch() -> None:
    group = ConsumerContext()
    Consumer(group, "a").poll()
    commit(group, 0, 2)

    def read(member_id: str | None, epoch: int) -> ErrorCode:
        request = OffsetFetchRequestGroup(
            group_id=GROUP,
            member_id=member_id,
            member_epoch=epoch,
            topics=(OffsetFetchRequestTopics(name="topic", partition_indexes=(0,)),),
        )
        caller = group.caller(version=9)
        group.run(group.machine.offsets.fetch_stable(request, caller))
        stable = group.reply_to(caller.token)
        found = group.machine.offsets.fetch(request)
        assert found == stable
        offsets = [p.committed_offset for t in found.topics for p in t.partitions]
        assert offsets == ([] if found.error_code else [7])
        return found.error_code

    assert read(None, -1) is ErrorCode.NONE
    assert read("a", 2) is ErrorCode.NONE
    assert read("a", 1) is ErrorCode.STALE_MEMBER_EPOCH
    assert read("x", 2) is ErrorCode.UNKNOWN_MEMBER_ID
    assert read(None, 2) is ErrorCode.UNKNOWN_MEMBER_ID


def test_transactions_commit_offsets_with_the_members_epoch() -> None:
    group = ConsumerContext()
    a, b = Consumer(group, "a"), Consumer(group, "b")
    settle(a, b)

    def check(member_id: str, epoch: int, partition: int = 0) -> ErrorCode:
        request = TxnOffsetCommitRequest(
            group_id=GROUP,
            member_id=member_id,
            generation_id=epoch,
            topics=(
                TxnOffsetCommitRequestTopic(
                    name="topic",
                    partitions=(TxnOffsetCommitRequestPartition(partition_index=partition, committed_offset=1),),
                ),
            ),
        )
        caller = group.caller(version=5)
        group.run(group.machine.transactional_offsets.commit(request, caller, Producer(1, 0), group.now))
        error: ErrorCode = group.reply_to(caller.token).topics[0].partitions[0].error_code
        return error

    assert check("", -1) is ErrorCode.NONE
    assert check("a", 3) is ErrorCode.NONE
    assert check("a", 2, partition=1) is ErrorCode.NONE
    assert check("a", 2, partition=2) is ErrorCode.ILLEGAL_GENERATION
    assert check("a", 4) is ErrorCode.ILLEGAL_GENERATION
    assert check("x", 3) is ErrorCode.UNKNOWN_MEMBER_ID


def test_offsets_of_topics_that_nobody_wants_can_be_deleted_from_a_living_group() -> None:
    group = ConsumerContext(topics={"topic": 1, "other": 1})
    a = Consumer(group, "a", topics=("topic", "other"))
    a.poll()
    group.commit_offsets({("topic", 0): 1, ("other", 0): 2}, member_id="a", generation_id=2)
    group.beat("a", 2, subscribed_topic_names=("topic",), owned={"topic": [0]})
    answers = group.delete_offsets(("topic", 0), ("other", 0))
    errors = {t.name: t.partitions[0].error_code for t in answers.topics}
    assert errors == {"topic": ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC, "other": ErrorCode.NONE}
    assert group.fetch_offsets() == {("topic", 0): 1}


def test_offsets_of_subscribed_topics_do_not_expire() -> None:
    group = ConsumerContext(topics={"topic": 1, "other": 1})
    a = Consumer(group, "a")
    a.poll()
    group.commit_offsets({("topic", 0): 1, ("other", 0): 2}, member_id="a", generation_id=2)
    for _ in range(8 * 24 * 3600 // 40):
        group.advance(40_000)
        a.poll()
    assert group.fetch_offsets() == {("topic", 0): 1}
