"""Committing, fetching, deleting and expiring offsets, and groups that go with them."""

from __future__ import annotations

import uuid

import pytest

from ottla.coordinator.group import records
from ottla.coordinator.group.config import SEVEN_DAYS_MS, GroupConfig
from ottla.coordinator.shard import LoadedRecord, TransactionMarker
from ottla.errors import ErrorCode
from ottla.protocol.messages.offset_fetch import OffsetFetchRequestGroup, OffsetFetchRequestTopics
from tests.unit.coordinator.group.context import (
    GROUP,
    SESSION_MS,
    WALL_START_MS,
    GroupContext,
    protocols,
    subscription,
)

T0 = ("topic", 0)
OLD, NEW = uuid.UUID(int=1), uuid.UUID(int=2)
CHECK_MS = GroupConfig().offsets_retention_check_interval_ms


def test_a_client_without_a_group_may_keep_offsets_here() -> None:
    group = GroupContext()
    assert group.commit_offsets({T0: 5}) == {ErrorCode.NONE}
    assert group.fetch_offsets(T0, ("topic", 1)) == {T0: 5, ("topic", 1): -1}
    assert group.state() == "Empty"
    assert group.restarted().fetch_offsets() == {T0: 5}


@pytest.mark.parametrize(("version", "error"), [(8, ErrorCode.ILLEGAL_GENERATION), (9, ErrorCode.GROUP_ID_NOT_FOUND)])
def test_a_generation_of_an_unknown_group_is_refused(version: int, error: ErrorCode) -> None:
    assert GroupContext().commit_offsets({T0: 5}, generation_id=1, member_id="m", version=version) == {error}


def test_a_group_with_members_takes_offsets_of_its_generation_only() -> None:
    group = GroupContext()
    generation, (leader,) = group.stable_group(1)
    assert group.commit_offsets({T0: 5}) == {ErrorCode.UNKNOWN_MEMBER_ID}
    assert group.commit_offsets({T0: 5}, member_id=leader) == {ErrorCode.ILLEGAL_GENERATION}
    assert group.commit_offsets({T0: 5}, member_id="other", generation_id=generation) == {ErrorCode.UNKNOWN_MEMBER_ID}
    assert group.commit_offsets({T0: 5}, member_id=leader, generation_id=generation) == {ErrorCode.NONE}


def test_a_member_that_knows_its_generation_but_not_its_assignment_cannot_commit() -> None:
    group = GroupContext()
    member_id, joining = group.begin_joining()
    group.advance(0)
    generation = group.reply_to(joining).generation_id
    error = group.commit_offsets({T0: 5}, member_id=member_id, generation_id=generation)
    assert error == {ErrorCode.REBALANCE_IN_PROGRESS}


def test_committing_renews_the_session_also_while_members_gather() -> None:
    group = GroupContext()
    generation, (leader, other) = group.stable_group(2)
    group.begin_join(leader)
    for _ in range(2):
        group.advance(SESSION_MS - 1)
        error = group.commit_offsets({T0: 5}, member_id=other, generation_id=generation)
        assert error == {ErrorCode.NONE}


@pytest.mark.parametrize(
    ("metadata", "fits"),
    [
        ("x" * 4096, True),
        ("x" * 4097, False),
        ("é" * 4096, True),
        ("\U0001f600" * 2048, True),
        ("\U0001f600" * 2049, False),
    ],
)
def test_metadata_is_measured_as_java_does(metadata: str, fits: bool) -> None:
    error = GroupContext().commit_offsets({T0: 5}, metadata=metadata)
    assert error == {ErrorCode.NONE if fits else ErrorCode.OFFSET_METADATA_TOO_LARGE}


def test_a_commit_is_seen_by_reads_and_answered_only_once_it_is_committed() -> None:
    group = GroupContext()
    group.commit_offsets({T0: 5})
    with group.holding_commits():
        token = group.begin_commit({T0: 6})
        stable = group.begin_fetch_stable(T0)
        assert group.is_parked(token)
        assert group.is_parked(stable)
        assert group.fetch_offsets(T0) == {T0: 5}
    group.reply_to(token)
    assert group.reply_to(stable).topics[0].partitions[0].committed_offset == 6
    assert group.fetch_offsets(T0) == {T0: 6}


def test_a_lost_commit_is_taken_back() -> None:
    group = GroupContext()
    group.commit_offsets({T0: 5})
    group.holding = True
    tokens = [group.begin_commit({T0: 6}), group.begin_commit({("topic", 1): 1}, group_id="other")]
    group.lose_uncommitted()
    assert [group.error_of(t) for t in tokens] == [ErrorCode.KAFKA_STORAGE_ERROR] * 2
    assert group.fetch_offsets() == {T0: 5}
    assert group.begin_fetch_stable(T0) in group.replies
    assert "other" not in group.machine.table.groups


def test_a_refused_append_leaves_nothing_behind() -> None:
    group = GroupContext()
    group.append_error = ErrorCode.KAFKA_STORAGE_ERROR
    assert group.error_of(group.begin_commit({T0: 6})) is ErrorCode.KAFKA_STORAGE_ERROR
    group.append_error = None
    assert group.fetch_offsets(T0) == {T0: -1}
    assert group.list() == {}


def test_offsets_of_topics_in_use_cannot_be_deleted() -> None:
    group = GroupContext()
    generation, (leader,) = group.stable_group(1)
    group.commit_offsets({T0: 5, ("old", 0): 6}, member_id=leader, generation_id=generation)
    response = group.delete_offsets(T0, ("old", 0))
    assert [t.partitions[0].error_code for t in response.topics] == [
        ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC,
        ErrorCode.NONE,
    ]
    assert group.fetch_offsets() == {T0: 5}


def test_offsets_of_a_group_that_is_no_consumer_group_go_only_when_it_is_empty() -> None:
    group = GroupContext()
    _, (leader,) = group.stable_group(1, protocol_type="connect", using=protocols(x=b""))
    assert group.delete_offsets(T0).error_code is ErrorCode.NON_EMPTY_GROUP
    group.leave(leader)
    assert group.delete_offsets(T0).error_code is ErrorCode.NONE
    assert group.delete_offsets(T0, group_id="unknown").error_code is ErrorCode.GROUP_ID_NOT_FOUND


def test_deleting_a_group_takes_its_offsets_along() -> None:
    group = GroupContext()
    generation, (leader,) = group.stable_group(1)
    group.commit_offsets({T0: 5}, member_id=leader, generation_id=generation)
    assert group.delete_groups(GROUP, "unknown") == {
        GROUP: ErrorCode.NON_EMPTY_GROUP,
        "unknown": ErrorCode.GROUP_ID_NOT_FOUND,
    }
    group.leave(leader)
    assert group.delete_groups(GROUP) == {GROUP: ErrorCode.NONE}
    assert group.list() == {}
    assert group.restarted().durable() == ({}, {})


def test_a_deletion_that_is_lost_brings_the_group_back() -> None:
    group = GroupContext()
    _, (leader,) = group.stable_group(1)
    group.leave(leader)
    group.holding = True
    caller = group.caller(version=2)
    group.run(group.machine.directory.delete([GROUP], caller))
    assert GROUP not in group.machine.table.groups
    group.lose_uncommitted()
    assert group.error_of(caller.token) is ErrorCode.KAFKA_STORAGE_ERROR
    assert group.machine.table.groups[GROUP].generation_id == 2


def test_offsets_expire_a_retention_after_the_group_became_empty_and_the_group_goes_with_them() -> None:
    group = GroupContext()
    generation, (leader,) = group.stable_group(1, session_ms=1_800_000)
    group.commit_offsets({T0: 5}, member_id=leader, generation_id=generation)
    for _ in range(SEVEN_DAYS_MS // CHECK_MS + 1):
        group.advance(CHECK_MS)
        group.heartbeat(leader, generation)
    assert group.fetch_offsets() == {T0: 5}
    group.leave(leader)
    group.advance(SEVEN_DAYS_MS - CHECK_MS)
    assert group.fetch_offsets() == {T0: 5}
    group.advance(2 * CHECK_MS)
    assert group.fetch_offsets() == {}
    assert group.list() == {}
    assert group.restarted().durable() == ({}, {})


def test_offsets_of_topics_no_longer_subscribed_expire_under_a_living_group() -> None:
    group = GroupContext(config=GroupConfig(offsets_retention_ms=CHECK_MS))
    generation, (leader,) = group.stable_group(1, session_ms=1_800_000)
    group.commit_offsets({T0: 5, ("old", 0): 6}, member_id=leader, generation_id=generation)
    group.advance(CHECK_MS)
    assert group.fetch_offsets() == {T0: 5}


def test_offsets_without_a_group_expire_after_their_commit() -> None:
    group = GroupContext()
    group.commit_offsets({T0: 5})
    group.advance(SEVEN_DAYS_MS // 2)
    group.commit_offsets({("topic", 1): 5})
    group.advance(SEVEN_DAYS_MS // 2 + CHECK_MS)
    assert group.fetch_offsets() == {("topic", 1): 5}


def test_old_clients_may_ask_for_a_retention_of_their_own() -> None:
    group = GroupContext()
    group.commit_offsets({T0: 5}, retention_ms=CHECK_MS - 1, version=4)
    group.advance(CHECK_MS)
    assert group.fetch_offsets() == {}


def test_an_empty_group_without_offsets_goes_at_the_next_check_but_not_under_a_client_on_its_way() -> None:
    group = GroupContext()
    member_id = group.ask_for_id(session_ms=1_800_000)
    group.advance(CHECK_MS)
    assert group.list() == {GROUP: "Empty"}
    group.leave(member_id)
    group.advance(CHECK_MS)
    assert group.list() == {}


def test_offsets_go_with_their_topics() -> None:
    group = GroupContext()
    group.commit_offsets({T0: 5, ("topic", 1): 6, ("other", 0): 7}, topic_id=OLD)
    group.commit_offsets({T0: 8}, group_id="second")
    group.commit_offsets({T0: 9}, group_id="third", topic_id=NEW)
    group.run(group.machine.on_topics_deleted({"topic": OLD}))
    assert group.fetch_offsets() == {("other", 0): 7}
    assert group.fetch_offsets(group_id="second") == {}
    assert group.fetch_offsets(group_id="third") == {T0: 9}


def test_offsets_of_an_earlier_topic_of_the_same_name_do_not_count() -> None:
    group = GroupContext()
    group.commit_offsets({T0: 5}, topic_id=OLD)
    for wanted, offset in ((OLD, 5), (NEW, -1), (None, 5)):
        request = OffsetFetchRequestGroup(
            group_id=GROUP,
            topics=(OffsetFetchRequestTopics(name="topic", partition_indexes=(0,), topic_id=wanted),),
        )
        assert group.machine.offsets.fetch(request).topics[0].partitions[0].committed_offset == offset


def test_groups_are_listed_by_state_and_type_whatever_the_case() -> None:
    group = GroupContext()
    group.stable_group(1)
    group.commit_offsets({T0: 5}, group_id="simple")
    assert group.list() == {GROUP: "Stable", "simple": "Empty"}
    assert group.list(states=["sTABLE"]) == {GROUP: "Stable"}
    assert group.list(states=["Dead"], types=["Classic"]) == {}
    assert group.list(types=["classic"]) == group.list()
    assert group.list(types=["consumer"]) == {}


def test_records_of_other_kinds_are_counted_and_otherwise_left_alone() -> None:
    group = GroupContext()
    for key in (b"\0\x11rest", b"\0\x11more", b"\x77\x77"):
        group.machine.replay(LoadedRecord(0, key, b"\0\0"))
    group.machine.replay(LoadedRecord(0, b"\0\1", b"\0\0"))
    assert group.machine.load_report() == {
        "groups": 0,
        "ignored_streams_group_metadata": 2,
        "ignored_kind_30583": 1,
        "malformed": 1,
    }


class TestTransactions:
    """Offsets committed in transactions, as another broker may have left them in the log."""

    @staticmethod
    def begun(group: GroupContext, offset: int = 9) -> None:
        value = records.OffsetCommitValue(offset, commit_timestamp_ms=WALL_START_MS)
        record = records.offset_commit(GROUP, "topic", 0, value)
        group.machine.replay(LoadedRecord(len(group.log), record.key, record.value, 42))

    def test_an_open_transaction_makes_offsets_unstable(self) -> None:
        group = GroupContext()
        group.commit_offsets({T0: 5})
        self.begun(group)
        unstable = group.reply_to(group.begin_fetch_stable(T0, ("topic", 1))).topics
        assert [t.partitions[0].error_code for t in unstable] == [ErrorCode.UNSTABLE_OFFSET_COMMIT, ErrorCode.NONE]
        assert group.fetch_offsets(T0) == {T0: 5}

    @pytest.mark.parametrize(("commit", "offset"), [(True, 9), (False, 5)])
    def test_its_end_keeps_or_drops_them(self, commit: bool, offset: int) -> None:
        group = GroupContext()
        group.commit_offsets({T0: 5})
        self.begun(group)
        group.machine.replay_marker(TransactionMarker(len(group.log) + 1, 42, commit))
        group.machine.commit(len(group.log) + 2)
        assert group.fetch_offsets(T0) == {T0: offset}
        assert group.reply_to(group.begin_fetch_stable(T0)).topics[0].partitions[0].committed_offset == offset

    def test_a_later_commit_outside_wins(self) -> None:
        group = GroupContext()
        self.begun(group)
        group.log += [records.offset_commit_tombstone("x", "x", 0)]
        group.machine.replay(
            LoadedRecord(1, *records.offset_commit(GROUP, "topic", 0, records.OffsetCommitValue(11))[:2])
        )
        group.machine.replay_marker(TransactionMarker(2, 42, True))
        group.machine.commit(3)
        assert group.fetch_offsets(T0) == {T0: 11}


def test_a_subscription_that_cannot_be_read_protects_every_topic() -> None:
    group = GroupContext()
    generation, (leader,) = group.stable_group(1, using=protocols(range=b"\x7f"))
    group.commit_offsets({T0: 5}, member_id=leader, generation_id=generation)
    assert group.delete_offsets(T0).topics[0].partitions[0].error_code is ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
    again = group.begin_join(leader, using=protocols(range=subscription("other")))
    group.sync(leader, group.reply_to(again).generation_id, {})
    assert group.delete_offsets(T0).topics[0].partitions[0].error_code is ErrorCode.NONE
