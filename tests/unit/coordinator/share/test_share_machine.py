"""The share coordinator's machine: records against Kafka's bytes, fencing, snapshots, what may be pruned."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any, Final

import pytest

from ottla.coordinator.partitioning import partition_of
from ottla.coordinator.share import records
from ottla.coordinator.share.config import ShareCoordinatorConfig
from ottla.coordinator.share.state import SharePartition, ShareState, StateBatch, is_share_partition_key
from ottla.errors import ErrorCode
from tests.unit.coordinator.share.share_lab import KEY, NOW, TOPIC, ShareLab, image_of

GOLDEN: Final = Path(__file__).parents[3] / "golden" / "share_group_state" / "kafka-4.3.1.jsonl"


def batches_of(result: Any) -> list[tuple[int, int, int, int]]:
    return [(b.first_offset, b.last_offset, b.delivery_state, b.delivery_count) for b in result.state_batches]


def state(start_offset: int, complete: int, *batches: StateBatch) -> ShareState:
    return ShareState(
        snapshot_epoch=3,
        state_epoch=4,
        leader_epoch=5,
        start_offset=start_offset,
        delivery_complete_count=complete,
        batches=batches,
        create_timestamp_ms=1_700_000_000_000,
        write_timestamp_ms=1_700_000_000_001,
    )


BATCHES: Final = (StateBatch(10, 19, 0, 1), StateBatch(20, 20, 2, 2))
EXPECTED: Final = {
    "snapshot": records.snapshot(SharePartition("gå", TOPIC, 7), state(10, 1, *BATCHES)),
    "snapshot_unknown": records.snapshot(KEY, state(-1, -1)),
    "update": records.update(SharePartition("gå", TOPIC, 7), state(-1, 0, *BATCHES)),
    "update_unknown": records.update(KEY, state(12, -1)),
    "tombstone": records.tombstone(KEY),
}


@pytest.mark.parametrize("row", [json.loads(line) for line in GOLDEN.read_text().splitlines()], ids=lambda r: r["name"])
def test_records_are_kafkas(row: dict[str, Any]) -> None:
    ours = EXPECTED[row["name"]]
    assert ours.key.hex() == row["key"]
    assert (None if ours.value is None else ours.value.hex()) == row["value"]
    decoded = records.decode(ours.key, ours.value)
    assert isinstance(decoded, records.RecordContent)
    assert decoded.key == SharePartition("gå" if "unknown" not in row["name"] and ours.value else "g", *decoded.key[1:])
    if row["name"].startswith("snapshot"):
        assert decoded == ours.content


def test_a_share_partition_lives_where_kafka_puts_it() -> None:
    assert KEY.coordinator_key == "g:MkU3OEVBNTcwNTJENDM2Qg:0"
    assert is_share_partition_key(KEY.coordinator_key)
    assert not any(
        is_share_partition_key(key) for key in ("g", "g:x:0", ":MkU3OEVBNTcwNTJENDM2Qg:0", "g:MkU3OEVBNTcwNTJENDM2Qg:x")
    )
    assert 0 <= partition_of(KEY.coordinator_key, 50) < 50


def test_a_state_is_begun_read_written_and_forgotten() -> None:
    lab = ShareLab()
    assert lab.read().error_code is ErrorCode.INVALID_REQUEST
    assert lab.write().error_code is ErrorCode.INVALID_REQUEST
    assert lab.initialize(5).error_code is ErrorCode.NONE
    assert lab.summary().start_offset == 5
    lab.write((5, 9, 2, 1), (10, 14, 0, 1), complete=5)
    lab.write((12, 14, 4, 2), start_offset=8, complete=6)
    lab.begin()
    read = lab.read()
    assert (read.start_offset, read.state_epoch) == (8, 0)
    assert batches_of(read) == [(8, 9, 2, 1), (10, 11, 0, 1), (12, 14, 4, 2)]
    assert lab.summary().delivery_complete_count == 6
    lab.delete()
    lab.begin()
    assert lab.read().error_code is ErrorCode.INVALID_REQUEST
    assert lab.summary().start_offset == -1
    assert lab.delete().error_code is ErrorCode.NONE


def test_a_state_that_begins_at_an_offset_is_of_the_leader_of_that_time() -> None:
    """Else it would be taken for older than the records that it speaks of."""
    lab = ShareLab()
    lab.machine.follow(image_of(leader_epoch=6))
    lab.initialize(-1)
    assert lab.summary().leader_epoch == 0
    lab.initialize(5)
    assert lab.summary().leader_epoch == 6
    written = len(lab.log)
    assert lab.read(leader_epoch=6).error_code is ErrorCode.NONE
    assert len(lab.log) == written


def test_a_leader_that_has_been_succeeded_is_fenced() -> None:
    lab = ShareLab()
    lab.initialize()
    assert lab.read(leader_epoch=4).error_code is ErrorCode.NONE
    written = len(lab.log)
    assert lab.read(leader_epoch=4).error_code is ErrorCode.NONE
    assert len(lab.log) == written, "the same leader reads again"
    lab.begin()
    assert lab.read(leader_epoch=3).error_code is ErrorCode.FENCED_LEADER_EPOCH
    assert lab.write(leader_epoch=3).error_code is ErrorCode.FENCED_LEADER_EPOCH
    assert lab.write(leader_epoch=5).error_code is ErrorCode.NONE
    assert lab.summary().leader_epoch == 4, "only reading makes a leader known"


def test_a_state_begun_anew_fences_those_of_before() -> None:
    lab = ShareLab()
    lab.initialize(0, state_epoch=2)
    lab.write((0, 3, 2, 1), state_epoch=2)
    assert lab.initialize(7, state_epoch=1).error_code is ErrorCode.FENCED_STATE_EPOCH
    assert lab.initialize(7, state_epoch=3).error_code is ErrorCode.NONE
    assert lab.write((0, 3, 2, 1), state_epoch=2).error_code is ErrorCode.FENCED_STATE_EPOCH
    read = lab.read()
    assert (read.start_offset, read.state_epoch, batches_of(read)) == (7, 3, [])


@pytest.mark.parametrize(
    "key", [KEY._replace(partition=2), KEY._replace(topic_id=uuid.uuid4()), KEY._replace(topic_id=None)]
)
def test_partitions_that_do_not_exist_have_no_state(key: SharePartition) -> None:
    lab = ShareLab()
    assert lab.initialize(key=key).error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert lab.delete(key).error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert lab.summary(key).error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert lab.initialize(key=KEY._replace(partition=-1)).error_code is ErrorCode.INVALID_REQUEST


def test_snapshots_come_in_time_and_let_what_is_before_them_go() -> None:
    lab = ShareLab(ShareCoordinatorConfig(snapshot_update_records_per_snapshot=3))
    lab.initialize()
    for offset in range(10):
        lab.write((offset, offset, 2, 1), start_offset=offset)
    kinds = [key[1] for key, _ in lab.log]
    assert kinds == [0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1]
    assert lab.machine.prunable() == 8
    assert lab.machine.take_prunable() is None
    lab.tick(NOW.now_ms + 300_000)
    assert lab.machine.take_prunable() == 8
    lab.prune(8)
    assert batches_of(lab.read()) == [(9, 9, 2, 1)]


def test_a_cold_state_is_written_anew_so_that_it_holds_nothing_up() -> None:
    lab = ShareLab()
    other = KEY._replace(partition=1)
    lab.initialize()
    lab.initialize(key=other)
    for _ in range(3):
        lab.write((0, 0, 2, 1), key=other)
    assert lab.machine.prunable() == 0
    lab.tick(NOW.now_ms + 300_000)
    assert [key[1] for key, _ in lab.log[-2:]] == [0, 0]
    assert lab.machine.prunable() == 5
    written = len(lab.log)
    lab.tick(NOW.now_ms + 600_000)
    assert len(lab.log) == written, "nothing has happened since"
    assert batches_of(lab.read(key=other)) == [(0, 0, 2, 1)]


def test_states_go_with_their_topics() -> None:
    lab = ShareLab()
    lab.initialize()
    lab.drain(lab.shard.submit(lab.machine.on_topics_deleted({TOPIC}), NOW), NOW)
    assert lab.summary().start_offset == -1
    assert lab.machine.prunable() == len(lab.log)
