"""Several log directories, of which one cannot be used when the broker starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ottla.common.topics import CONSUMER_OFFSETS
from ottla.coordinator.partitioning import partition_of
from ottla.errors import ErrorCode
from ottla.protocol.messages.describe_log_dirs import DescribeLogDirsRequest
from ottla.protocol.messages.describe_topic_partitions import DescribeTopicPartitionsRequest, TopicRequest
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.versions import ApiKey
from ottla.testing.broker import BrokerFailed, BrokerProcess
from tests.broken_disk import break_disk, give_back, mend_disk, take_away
from tests.integration.wire import Wire

TOPICS = [f"topic-{n}" for n in range(6)]


class Disks:
    """Two directories, each on what can be broken."""

    def __init__(self, path: Path) -> None:
        self.disks = {name: path / name for name in ("a", "b")}
        for disk in self.disks.values():
            disk.mkdir()
        self.dirs = {name: disk / "data" for name, disk in self.disks.items()}
        self.broker = BrokerProcess(
            Path(",".join(map(str, self.dirs.values()))), settings={"offsets.topic.num.partitions": "1"}
        )
        self.broker.output_path = path / "broker.log"

    def fill(self, wire: Wire) -> dict[str, list[str]]:
        """Topics with a record, by directory."""
        for topic in TOPICS:
            wire.create(topic)
            assert wire.produce(topic, topic.encode()).error_code is ErrorCode.NONE
        found = {name: [t for t in TOPICS if (path / f"{t}-0").exists()] for name, path in self.dirs.items()}
        assert all(found.values())
        return found

    def log(self) -> str:
        return self.broker.output_path.read_text()


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    return Disks(tmp_path)


def check_that_b_is_out_of_reach(disks: Disks, wire: Wire, placed: dict[str, list[str]]) -> None:
    for topic in placed["a"]:
        assert wire.values(topic)[0] == topic.encode()
        assert wire.produce(topic, b"more").error_code is ErrorCode.NONE
    for topic in placed["b"]:
        assert wire.produce(topic, b"lost").error_code is ErrorCode.KAFKA_STORAGE_ERROR
        assert wire.fetch(topic).error_code is ErrorCode.KAFKA_STORAGE_ERROR
        topics = (MetadataRequestTopic(name=topic),)
        (seen,) = wire.ask(ApiKey.METADATA, 9, MetadataRequest(topics=topics)).topics[0].partitions
        assert (seen.error_code, seen.leader_id) == (ErrorCode.LEADER_NOT_AVAILABLE, -1)
        assert seen.offline_replicas == seen.replica_nodes
        wanted = DescribeTopicPartitionsRequest(topics=(TopicRequest(name=topic),))
        (seen,) = wire.ask(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, wanted).topics[0].partitions
        assert (seen.leader_id, seen.offline_replicas) == (-1, seen.replica_nodes)
    assert f"count={len(placed['b'])}" in disks.log()
    assert "partition_made_anew" not in disks.log()


def check_that_all_is_there(wire: Wire, placed: dict[str, list[str]]) -> None:
    for topic in placed["a"]:
        assert wire.values(topic)[:2] == [topic.encode(), b"more"]
    for topic in placed["b"]:
        assert wire.values(topic) == [topic.encode()]
        assert wire.produce(topic, b"again").error_code is ErrorCode.NONE


@pytest.mark.parametrize("is_clean", [True, False], ids=["stopped", "killed"])
def test_what_is_on_a_dead_disk_waits_for_it_and_all_else_is_served(disks: Disks, is_clean: bool) -> None:
    broker = disks.broker
    with broker, Wire(broker.port) as wire:
        placed = disks.fill(wire)
        if is_clean:
            broker.terminate()
        else:
            broker.kill()
        break_disk(disks.disks["b"])
        broker.start()
        with Wire(broker.port) as wire:
            check_that_b_is_out_of_reach(disks, wire, placed)
            described = wire.ask(ApiKey.DESCRIBE_LOG_DIRS, 4, DescribeLogDirsRequest(topics=None)).results
            assert {result.log_dir: result.error_code for result in described} == {
                str(disks.dirs["a"]): ErrorCode.NONE,
                str(disks.dirs["b"]): ErrorCode.KAFKA_STORAGE_ERROR,
            }
            for n in range(3):
                wire.create(f"new-{n}")
                assert wire.produce(f"new-{n}", b"new").error_code is ErrorCode.NONE
            wire.delete(placed["b"].pop())
        assert "log_dir_offline" in disks.log()
        broker.terminate()
        mend_disk(disks.disks["b"])
        broker.start()
        with Wire(broker.port) as wire:
            check_that_all_is_there(wire, placed)
            assert [wire.values(f"new-{n}") for n in range(3)] == [[b"new"]] * 3
        assert "stray_partition_set_aside" in disks.log()


@pytest.mark.parametrize("is_clean", [True, False], ids=["stopped", "killed"])
def test_what_is_on_a_disk_that_is_not_mounted_is_not_made_anew(disks: Disks, is_clean: bool) -> None:
    """Below its mount point is a fresh directory, at the second start, too."""
    broker = disks.broker
    with broker, Wire(broker.port) as wire:
        placed = disks.fill(wire)
        if is_clean:
            broker.terminate()
        else:
            broker.kill()
        take_away(disks.disks["b"])
        disks.disks["b"].mkdir()
        for _ in range(2):
            broker.start()
            with Wire(broker.port) as wire:
                check_that_b_is_out_of_reach(disks, wire, placed)
            broker.kill()
        below = disks.disks["b"]
        below.rename(below.with_suffix(".below"))
        give_back(disks.disks["b"])
        broker.start()
        with Wire(broker.port) as wire:
            check_that_all_is_there(wire, placed)


def test_nobody_coordinates_what_is_on_a_dead_disk(disks: Disks) -> None:
    groups = [f"group-{n}" for n in range(20)]
    broker = BrokerProcess(
        Path(",".join(map(str, disks.dirs.values()))), settings={"offsets.topic.num.partitions": "6"}
    )
    broker.output_path = disks.broker.output_path

    def find(wire: Wire) -> dict[str, ErrorCode]:
        request = FindCoordinatorRequest(coordinator_keys=tuple(groups))
        found = wire.ask(ApiKey.FIND_COORDINATOR, 4, request).coordinators
        return {coordinator.key: coordinator.error_code for coordinator in found}

    with broker:
        with Wire(broker.port) as wire:
            assert set(find(wire).values()) == {ErrorCode.NONE}
        broker.terminate()
        away = {path.name for path in disks.dirs["b"].glob("__consumer_offsets-*")}
        assert 0 < len(away) < 6
        break_disk(disks.disks["b"])
        broker.start()
        with Wire(broker.port) as wire:
            assert find(wire) == {
                group: ErrorCode.COORDINATOR_NOT_AVAILABLE
                if f"{CONSUMER_OFFSETS}-{partition_of(group, 6)}" in away
                else ErrorCode.NONE
                for group in groups
            }
        broker.terminate()
        mend_disk(disks.disks["b"])
        broker.start()
        with Wire(broker.port) as wire:
            assert set(find(wire).values()) == {ErrorCode.NONE}


def test_directories_that_changed_places_are_refused(disks: Disks, tmp_path: Path) -> None:
    """Without the metadata that it had, the broker would know no topic, and set them all aside."""
    broker = disks.broker
    with broker, Wire(broker.port) as wire:
        placed = disks.fill(wire)
        broker.terminate()
        outside = tmp_path / "elsewhere"
        for data_dir, settings in (
            (f"{disks.dirs['b']},{disks.dirs['a']}", {}),
            (",".join(map(str, disks.dirs.values())), {"metadata.log.dir": str(outside)}),
        ):
            moved = BrokerProcess(Path(data_dir), settings=settings)
            moved.output_path = tmp_path / "moved.log"
            with pytest.raises(
                BrokerFailed, match=r"a/data holds metadata \(__cluster_metadata-0\), which should be in"
            ):
                moved.start()
        broker.start()
        with Wire(broker.port) as wire:
            for topic in (*placed["a"], *placed["b"]):
                assert wire.values(topic) == [topic.encode()]
        assert "stray" not in disks.log()


def test_metadata_in_a_directory_of_its_own_is_one_brokers(disks: Disks, tmp_path: Path) -> None:
    settings = {"metadata.log.dir": str(tmp_path / "m")}
    broker, other = (BrokerProcess(tmp_path / name, settings=settings) for name in ("c", "d"))
    with broker, Wire(broker.port) as wire:
        wire.create("topic")
        with pytest.raises(BrokerFailed, match="m is locked by another process"):
            other.start()
        wire.produce("topic", b"value")
        broker.kill()
        broker.start()
        with Wire(broker.port) as wire:
            assert wire.values("topic") == [b"value"]
        broker.terminate()
        take_away(tmp_path / "m")
        with pytest.raises(BrokerFailed, match="m should hold the metadata and is fresh"):
            broker.start()


def test_a_topic_that_was_made_again_while_its_disk_was_away_is_the_new_one(disks: Disks) -> None:
    """The old one is set aside when its disk is back, as Kafka does; nothing stands in two directories."""
    broker = disks.broker
    with broker, Wire(broker.port) as wire:
        placed = disks.fill(wire)
        broker.terminate()
        break_disk(disks.disks["b"])
        broker.start()
        again, *others = placed["b"]
        with Wire(broker.port) as wire:
            wire.delete(again)
            wire.create(again)
            assert wire.produce(again, b"new").error_code is ErrorCode.NONE
        broker.terminate()
        mend_disk(disks.disks["b"])
        for _ in range(2):
            broker.start()
            with Wire(broker.port) as wire:
                assert wire.values(again) == [b"new"]
                for topic in others:
                    assert wire.values(topic) == [topic.encode()]
            broker.kill()
        assert disks.log().count(f"stray_partition_set_aside topic={again} partition=0") == 1


def test_a_partition_in_two_directories_is_told_of_at_the_start(disks: Disks) -> None:
    broker = disks.broker
    with broker, Wire(broker.port) as wire:
        topic = disks.fill(wire)["b"][0]
        broker.terminate()
        copied = disks.dirs["a"] / f"{topic}-0"
        shutil.copytree(disks.dirs["b"] / f"{topic}-0", copied)
        with pytest.raises(BrokerFailed, match=rf"{topic}-0 is in two log directories, .*/a/data and .*/b/data"):
            broker.start()
        shutil.rmtree(copied)
        broker.start()
        with Wire(broker.port) as wire:
            assert wire.values(topic) == [topic.encode()]


def test_without_the_metadata_there_is_no_start(disks: Disks) -> None:
    broker = disks.broker
    with broker, Wire(broker.port) as wire:
        placed = disks.fill(wire)
        broker.terminate()
        break_disk(disks.disks["a"])
        with pytest.raises(BrokerFailed, match="symbolic links"):
            broker.start()
        mend_disk(disks.disks["a"])
        broker.start()
        with Wire(broker.port) as wire:
            for topic in (*placed["a"], *placed["b"]):
                assert wire.values(topic) == [topic.encode()]


def test_a_partition_that_was_moved_to_another_directory_is_found_there(disks: Disks) -> None:
    broker = disks.broker
    with broker, Wire(broker.port) as wire:
        placed = disks.fill(wire)
        broker.terminate()
        for topic in placed["b"]:
            (disks.dirs["b"] / f"{topic}-0").rename(disks.dirs["a"] / f"{topic}-0")
        for _ in range(2):
            broker.start()
            with Wire(broker.port) as wire:
                for topic in TOPICS:
                    assert wire.values(topic) == [topic.encode()]
            broker.terminate()
            if disks.disks["b"].is_dir():
                break_disk(disks.disks["b"])
        broker.start()
        assert "partitions_offline" not in disks.log()
