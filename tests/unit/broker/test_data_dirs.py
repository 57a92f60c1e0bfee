"""The identity of data directories, and those that cannot be used."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from ottla._native import DataPlane
from ottla.broker.data_dirs import (
    META_PROPERTIES,
    InvalidDataDirectory,
    lock_directory,
    open_data_dirs,
    same_directory,
)
from ottla.broker.properties import format_properties, parse_properties
from ottla.common.topics import METADATA_PARTITION
from tests.broken_disk import break_disk, mend_disk
from tests.property.native_lab import now_ms, wall_ms


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    return [str(tmp_path / name / "data") for name in ("a", "b")]


def test_a_directory_that_cannot_be_used_is_offline_and_the_others_keep_their_ids(
    tmp_path: Path, paths: list[str]
) -> None:
    whole = open_data_dirs(paths, node_id=1)
    assert (list(whole.directory_ids), whole.offline) == (paths, {})
    break_disk(tmp_path / "a")
    found = open_data_dirs(paths, node_id=1, metadata_dir=paths[1])
    assert (found.cluster_id, found.node_id) == (whole.cluster_id, 1)
    assert found.directory_ids == {paths[1]: whole.directory_ids[paths[1]]}
    assert list(found.offline) == [paths[0]]
    assert "levels of symbolic links" in found.offline[paths[0]]
    mend_disk(tmp_path / "a")
    assert open_data_dirs(paths, node_id=1) == whole


def test_the_one_with_the_metadata_must_be_usable(tmp_path: Path, paths: list[str]) -> None:
    open_data_dirs(paths, node_id=1)
    break_disk(tmp_path / "a")
    with pytest.raises(OSError, match="levels of symbolic links"):
        open_data_dirs(paths, node_id=1, metadata_dir=paths[0])


def test_a_fresh_directory_does_not_take_the_place_of_the_metadata(paths: list[str]) -> None:
    """All partitions of the others would be strays."""
    open_data_dirs(paths[1:], node_id=1)
    with pytest.raises(InvalidDataDirectory, match="should hold the metadata and is fresh"):
        open_data_dirs(paths, node_id=1, metadata_dir=paths[0])
    assert not (Path(paths[0]) / META_PROPERTIES).exists()


def test_no_fresh_directory_is_formatted_while_the_ones_that_know_the_cluster_are_away(
    tmp_path: Path, paths: list[str]
) -> None:
    """It would belong to a cluster of its own for ever."""
    open_data_dirs(paths[:1], node_id=1)
    break_disk(tmp_path / "a")
    with pytest.raises(OSError, match="levels of symbolic links"):
        open_data_dirs(paths, node_id=1, metadata_dir=paths[1])
    assert not (Path(paths[1]) / META_PROPERTIES).exists()


def test_the_metadata_is_where_it_was(tmp_path: Path, paths: list[str]) -> None:
    """Started without it, all partitions would be strays."""
    outside = str(tmp_path / "m")
    open_data_dirs(paths, node_id=1, metadata_dir=paths[0])
    (Path(paths[0]) / METADATA_PARTITION).mkdir()
    for other in (paths[1], outside):
        with pytest.raises(InvalidDataDirectory, match=rf"a/data holds metadata .*, which should be in {other}"):
            open_data_dirs(paths, node_id=1, metadata_dir=other)
    (Path(paths[0]) / METADATA_PARTITION).rmdir()
    with pytest.raises(InvalidDataDirectory, match="m should hold the metadata and is fresh"):
        open_data_dirs(paths, node_id=1, metadata_dir=outside)


def test_a_directory_for_the_metadata_alone_belongs_to_the_broker_too(tmp_path: Path, paths: list[str]) -> None:
    outside = str(tmp_path / "m")
    found = open_data_dirs(paths, node_id=1, metadata_dir=outside)
    assert list(found.directory_ids) == paths
    assert open_data_dirs(paths, node_id=1, metadata_dir=outside) == found
    with pytest.raises(InvalidDataDirectory, match="the data belongs to node 1"):
        open_data_dirs([str(tmp_path / "c")], node_id=2, metadata_dir=outside)
    with lock_directory(outside), pytest.raises(InvalidDataDirectory, match="m is locked by another process"):
        lock_directory(outside)
    lock_directory(outside).close()


def test_the_same_directory_may_be_written_in_other_words(paths: list[str]) -> None:
    assert same_directory(f"{paths[1]}/../data/", paths) == paths[1]
    assert same_directory("elsewhere", paths) == "elsewhere"


class Died(Exception):
    """A process does not come so far."""


@pytest.mark.parametrize("how", [Died, OSError], ids=["crash", "no room"])
@pytest.mark.parametrize("at", range(4))
def test_formatting_that_was_cut_off_is_done_again(
    paths: list[str], monkeypatch: pytest.MonkeyPatch, at: int, how: type[Exception]
) -> None:
    """At each of its syncs, two for a directory."""
    left = at

    def sync(_descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise how

    with monkeypatch.context() as failing:
        failing.setattr("os.fsync", sync)
        with contextlib.suppress(how):
            open_data_dirs(paths, node_id=1, metadata_dir=paths[1])
    assert left < 0
    found = open_data_dirs(paths, node_id=1, metadata_dir=paths[1])
    assert list(found.directory_ids) == paths
    assert open_data_dirs(paths, node_id=1, metadata_dir=paths[1]) == found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"directory.id": "AAAAAAAAAAAAAAAAAAAAAQ"}, "is a reserved one"),
        ({"directory.id": "no id"}, "is no id"),
        ({"version": "2"}, "its version is '2', not 0 or 1"),
        ({"version": None}, "its version is None"),
    ],
)
def test_a_file_that_makes_no_sense_is_not_replaced(paths: list[str], change: dict[str, str | None], said: str) -> None:
    open_data_dirs(paths, node_id=1)
    path = Path(paths[1]) / META_PROPERTIES
    changed = {**parse_properties(path.read_text()), **change}
    text = format_properties({key: value for key, value in changed.items() if value is not None})
    path.write_text(text)
    with pytest.raises(InvalidDataDirectory, match=said):
        open_data_dirs(paths, node_id=1)
    assert path.read_text() == text


def test_a_copy_is_no_other_directory(paths: list[str]) -> None:
    open_data_dirs(paths, node_id=1)
    first, second = (Path(path) / META_PROPERTIES for path in paths)
    second.write_text(first.read_text())
    with pytest.raises(InvalidDataDirectory, match=r"another data directory has the same directory\.id"):
        open_data_dirs(paths, node_id=1)


def test_a_directory_counts_once(paths: list[str]) -> None:
    with pytest.raises(InvalidDataDirectory, match="named twice"):
        open_data_dirs([*paths, paths[0]], node_id=1)


def open_plane(paths: list[str]) -> DataPlane:
    return DataPlane(broker_id=1, log_dirs=paths, options={})


def test_the_data_plane_does_without_a_directory_that_its_disk_does_not_give(paths: list[str]) -> None:
    open_data_dirs(paths, node_id=1)
    in_the_way = Path(paths[0]) / ".lock"
    in_the_way.mkdir()
    plane = open_plane(paths)
    assert [str(info["path"]) for info in plane.log_dirs()] == [paths[1]]
    ((path, reason),) = plane.offline_log_dirs()
    assert path == paths[0]
    assert "locking the log directory" in reason
    plane.close(now_ms(), wall_ms())
    with pytest.raises(IsADirectoryError):
        open_plane(paths[:1])
    in_the_way.rmdir()
    plane = open_plane(paths)
    assert plane.offline_log_dirs() == []
    plane.close(now_ms(), wall_ms())
