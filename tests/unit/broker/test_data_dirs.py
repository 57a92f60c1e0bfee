"""The identity of data directories, and those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from ottla._native import DataPlane
from ottla.broker.data_dirs import META_PROPERTIES, InvalidDataDirectory, open_data_dirs
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
    found = open_data_dirs(paths, node_id=1, needed=paths[1])
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
        open_data_dirs(paths, node_id=1, needed=paths[0])


def test_a_fresh_directory_does_not_take_the_place_of_the_metadata(paths: list[str]) -> None:
    """All partitions of the others would be strays."""
    open_data_dirs(paths[1:], node_id=1)
    with pytest.raises(InvalidDataDirectory, match="should hold the metadata and is fresh"):
        open_data_dirs(paths, node_id=1, needed=paths[0])
    assert not (Path(paths[0]) / META_PROPERTIES).exists()


def test_no_fresh_directory_is_formatted_while_the_ones_that_know_the_cluster_are_away(
    tmp_path: Path, paths: list[str]
) -> None:
    """It would belong to a cluster of its own for ever."""
    open_data_dirs(paths[:1], node_id=1)
    break_disk(tmp_path / "a")
    with pytest.raises(OSError, match="levels of symbolic links"):
        open_data_dirs(paths, node_id=1, needed=paths[1])
    assert not (Path(paths[1]) / META_PROPERTIES).exists()


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
