"""Share groups: records against Kafka's bytes, membership, states that begin and go, and what is told of them."""

from __future__ import annotations

import json
import uuid
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any, Final

import pytest

from ottla.coordinator.group import records, share_records
from ottla.coordinator.group.record_schema import RecordContent
from ottla.coordinator.group.share import NamedSet, ShareMember, StatePartitions, written
from ottla.coordinator.group.share_records import (
    ShareGroupEpochValue,
    ShareGroupKey,
    ShareMemberMetadataValue,
    ShareTargetMemberKey,
    ShareTargetMemberValue,
    ShareTargetMetadataKey,
    ShareTargetMetadataValue,
)
from ottla.coordinator.group.share_states import Forgotten, Moved
from ottla.errors import ErrorCode
from ottla.protocol.messages.alter_share_group_offsets import (
    AlterShareGroupOffsetsRequest,
    AlterShareGroupOffsetsRequestPartition,
    AlterShareGroupOffsetsRequestTopic,
)
from tests.unit.coordinator.group.context import GROUP
from tests.unit.coordinator.group.sharers import ShareContext

GOLDEN: Final = Path(__file__).parents[3] / "golden" / "share_group_state" / "groups-4.3.1.jsonl"
TOPIC: Final = uuid.UUID(bytes=urlsafe_b64decode("MkU3OEVBNTcwNTJENDM2Qg=="))
MEMBER: Final = ShareMember(
    member_id="m",
    metadata=ShareMemberMetadataValue(rack_id="r", client_id="c", client_host="/h", subscribed_topic_names=("a", "b")),
    member_epoch=3,
    previous_member_epoch=2,
    assigned={TOPIC: frozenset({1})},
)
EXPECTED: Final = {
    "member": MEMBER.metadata_record("g"),
    "epoch": share_records.record(ShareGroupKey(group="g"), ShareGroupEpochValue(epoch=4, metadata_hash=-5)),
    "target_epoch": share_records.record(
        ShareTargetMetadataKey(group="g"),
        ShareTargetMetadataValue(assignment_epoch=4, assignment_timestamp_ms=1_700_000_000_000),
    ),
    "target": share_records.record(
        ShareTargetMemberKey(group="g", member="m"), ShareTargetMemberValue(topic_partitions=written(MEMBER.assigned))
    ),
    "assignment": MEMBER.assignment_record("g"),
    "states": StatePartitions(
        {TOPIC: NamedSet("a", frozenset({1}))}, {TOPIC: NamedSet("a", frozenset({0}))}, {TOPIC: "b"}
    ).record("g"),
    "gone": share_records.record(ShareGroupKey(group="g"), None),
}


@pytest.mark.parametrize("row", [json.loads(line) for line in GOLDEN.read_text().splitlines()], ids=lambda r: r["name"])
def test_records_are_kafkas(row: dict[str, Any]) -> None:
    ours = EXPECTED[row["name"]]
    assert (ours.key.hex(), None if ours.value is None else ours.value.hex()) == (row["key"], row["value"])
    decoded = records.decode(ours.key, ours.value)
    assert isinstance(decoded, RecordContent)
    assert decoded == ours.content


def begun(topics: dict[str, int] | None = None, *members: str) -> ShareContext:
    """A group whose partitions have states, with members at their targets."""
    context = ShareContext(topics=topics)
    for member_id in members or ("a",):
        context.enter(member_id, tuple(context.image.topic_ids))
    context.answer_asked()
    for member_id in members or ("a",):
        context.enter(member_id, tuple(context.image.topic_ids))
    return context


def partitions(context: ShareContext, member_id: str) -> set[int]:
    group = context.machine.table.shares.get(GROUP)
    member = None if group is None else group.members.get(member_id)
    return set() if member is None else {p for found in member.assigned.values() for p in found}


def test_partitions_are_assigned_when_their_states_have_begun() -> None:
    context = ShareContext()
    response = context.enter("a")
    assert (response.member_epoch, context.assigned(response)) == (2, {})
    assert context.states() == ({"topic": {0, 1, 2, 3}}, {}, set())
    (asked,) = context.answer_asked()
    assert (asked.group_id, asked.state_epoch) == (GROUP, 2)
    assert context.states() == ({}, {"topic": {0, 1, 2, 3}}, set())
    response = context.beat("a", 2)
    assert (response.member_epoch, context.assigned(response)) == (3, {"topic": (0, 1, 2, 3)})
    assert context.beat("a", 3).assignment is None
    assert context.machine.share_heartbeats.take_initializations() == []


def test_a_state_that_could_not_begin_is_asked_for_again() -> None:
    context = ShareContext()
    context.enter("a")
    assert context.answer_asked(fails=True)
    assert context.states() == ({}, {}, set())
    context.beat("a", 2)
    assert context.answer_asked()
    assert context.beat("a", 2).member_epoch == 3


def test_who_is_silent_is_asked_again_after_a_while_and_at_once_after_a_restart() -> None:
    context = ShareContext()
    context.enter("a")
    assert len(context.machine.share_heartbeats.take_initializations()) == 1
    context.beat("a", 2)
    assert context.machine.share_heartbeats.take_initializations() == []
    context.advance(30_000)
    context.beat("a", 2)
    assert len(context.machine.share_heartbeats.take_initializations()) == 1
    other = context.restarted()
    other.beat("a", 2)
    assert len(other.machine.share_heartbeats.take_initializations()) == 1


def test_a_topic_that_grows_gets_more_states() -> None:
    context = begun({"topic": 2})
    context.set_topics({"topic": 3})
    context.beat("a", 3)
    (asked,) = context.answer_asked()
    assert [set(topic.partitions) for topic in asked.topics.values()] == [{2}]
    context.enter("a")
    assert partitions(context, "a") == {0, 1, 2}


def test_more_members_than_partitions_share_them() -> None:
    context = begun({"topic": 2}, "a", "b", "c")
    for member_id in ("a", "b", "c"):
        context.enter(member_id)
    each = [partitions(context, member_id) for member_id in ("a", "b", "c")]
    assert set.union(*each) == {0, 1}
    assert all(each)


def test_epochs_fence() -> None:
    context = begun()
    assert context.beat("a", 2).error_code is ErrorCode.NONE, "the answer with the new epoch may have been lost"
    assert context.beat("a", 1).error_code is ErrorCode.FENCED_MEMBER_EPOCH
    assert context.beat("a", 4).error_code is ErrorCode.FENCED_MEMBER_EPOCH
    assert context.beat("b", 3).error_code is ErrorCode.UNKNOWN_MEMBER_ID
    assert context.beat("a", 3, group_id="other").error_code is ErrorCode.GROUP_ID_NOT_FOUND


def test_members_that_time_out_together_go_together() -> None:
    context = begun({"topic": 4}, "a", "b", "c")
    context.advance(20_000)
    context.enter("c")
    appends = context.appends
    context.advance(30_000)
    group = context.machine.table.shares.get(GROUP)
    assert group is not None
    assert [member_id for member_id, _ in group.members.items()] == ["c"]
    assert context.appends == appends + 1
    context.enter("c")
    assert partitions(context, "c") == {0, 1, 2, 3}


def test_a_restart_gives_everybody_a_whole_session() -> None:
    context = begun()
    context.advance(40_000)
    other = context.restarted()
    other.advance(40_000)
    assert other.beat("a", 3).error_code is ErrorCode.NONE
    other.advance(45_000)
    assert other.beat("a", 3).error_code is ErrorCode.UNKNOWN_MEMBER_ID


def test_the_log_says_it_all() -> None:
    context = begun({"topic": 3, "more": 1}, "a", "b")
    context.beat("a", -1)
    assert context.restarted().durable() == context.durable()


def test_a_full_group_takes_nobody() -> None:
    context = ShareContext()
    for i in range(context.config.share_group_max_size):
        assert context.enter(f"m{i}").error_code is ErrorCode.NONE
    assert context.enter("one more").error_code is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert context.enter("m0").error_code is ErrorCode.NONE


def test_states_go_with_their_topic() -> None:
    context = begun({"topic": 2, "other": 1})
    context.set_topics({"other": 1})
    assert context.states() == ({}, {"other": {0}}, set())


def alter(context: ShareContext, **offsets: int) -> Moved:
    caller = context.caller(version=0)
    topics = tuple(
        AlterShareGroupOffsetsRequestTopic(
            topic_name=topic,
            partitions=(AlterShareGroupOffsetsRequestPartition(partition_index=0, start_offset=offset),),
        )
        for topic, offset in offsets.items()
    )
    request = AlterShareGroupOffsetsRequest(group_id=GROUP, topics=topics)
    context.run(context.machine.share_states.alter(request, caller))
    moved = context.reply_to(caller.token)
    assert isinstance(moved, Moved)
    return moved


def forget(context: ShareContext, *topics: str) -> Forgotten:
    caller = context.caller(version=0)
    context.run(context.machine.share_states.begin_forgetting(GROUP, topics, caller))
    forgotten = context.reply_to(caller.token)
    assert isinstance(forgotten, Forgotten)
    return forgotten


def test_a_group_is_moved_while_nobody_is_in_it() -> None:
    context = begun()
    assert alter(context, topic=3).response.error_code is ErrorCode.NON_EMPTY_GROUP
    context.beat("a", -1)
    moved = alter(context, topic=3, nowhere=1)
    assert moved.offsets == {context.topic_id("topic"): {0: 3}}
    assert moved.state_epoch == 4
    codes = [p.error_code for topic in moved.response.responses for p in topic.partitions]
    assert codes == [ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert context.states()[0] == {"topic": {0}}


def test_moving_makes_a_group() -> None:
    context = ShareContext()
    alter(context, topic=3)
    assert context.machine.share_states.describe(GROUP).group_state == "Empty"
    assert context.restarted().machine.share_states.describe(GROUP).group_state == "Empty"


def test_states_are_forgotten_in_two_steps() -> None:
    context = begun({"topic": 2, "other": 1})
    assert forget(context, "topic").error is ErrorCode.NON_EMPTY_GROUP
    context.beat("a", -1)
    forgotten = forget(context, "topic", "nowhere")
    assert {topic.name for topic in forgotten.topics.values()} == {"topic"}
    assert [topic.error_code for topic in forgotten.refused] == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert context.states() == ({}, {"other": {0}}, {"topic"})
    assert {topic.name for topic in forget(context, "topic").topics.values()} == {"topic"}, (
        "the first try may have failed"
    )
    caller = context.caller(version=0)
    context.run(context.machine.share_states.end_forgetting(GROUP, forgotten.topics.keys(), caller))
    assert context.states() == ({}, {"other": {0}}, set())
    assert not forget(context, "topic").topics


def test_who_comes_back_to_forgotten_states_begins_them_anew() -> None:
    context = begun({"topic": 1})
    context.beat("a", -1)
    forget(context, "topic")
    context.enter("a")
    assert context.states() == ({"topic": {0}}, {}, set())


def test_deleting_a_group_leaves_nothing() -> None:
    context = begun()
    caller = context.caller(version=0)
    context.run(context.machine.share_states.begin_deletion(GROUP, caller))
    refused = context.reply_to(caller.token)
    assert isinstance(refused, Forgotten)
    assert refused.error is ErrorCode.NON_EMPTY_GROUP
    context.beat("a", -1)
    caller = context.caller(version=0)
    context.run(context.machine.share_states.begin_deletion(GROUP, caller))
    forgotten = context.reply_to(caller.token)
    assert isinstance(forgotten, Forgotten)
    assert [set(topic.partitions) for topic in forgotten.topics.values()] == [{0, 1, 2, 3}]
    caller = context.caller(version=0)
    context.run(context.machine.directory.delete([GROUP], caller))
    assert context.machine.table.shares.get(GROUP) is None
    assert context.restarted().machine.table.shares.get(GROUP) is None


def test_the_names_of_groups_are_one_space() -> None:
    context = begun()
    assert [group.group_type for group in context.machine.directory.list((), ())] == ["share"]
    assert context.machine.directory.list(("stable",), ("share",))
    assert not context.machine.directory.list(("empty",), ())
    assert context.join("").error_code is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert context.machine.describe_consumers(GROUP).error_code is ErrorCode.GROUP_ID_NOT_FOUND
