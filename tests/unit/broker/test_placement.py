"""In which log directory a new partition is made."""

from __future__ import annotations

import resource
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla._native import DataPlane
from ottla.broker.data_dirs import open_data_dirs
from tests.property.native_lab import now_ms, wall_ms

START_MS = 1_750_000_000_000
SHUNNED_FOR_MS = 10_000


class Directories:
    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        open_data_dirs([str(path) for path in paths], node_id=1)
        self.plane = DataPlane(broker_id=1, log_dirs=[str(path) for path in paths], options={})
        self.made = 0

    def make(self, at_ms: int = START_MS) -> str:
        """Make a partition of a topic of its own; returns the name of its log directory."""
        self.made += 1
        self.plane.create_partition(
            f"t{self.made}", 0, topic_id=uuid.uuid4().bytes, config={}, leader_epoch=0, wall_ms=at_ms
        )
        (holder,) = [path.name for path in self.paths if (path / f"t{self.made}-0").exists()]
        return holder


@pytest.fixture
def directories(tmp_path: Path) -> Iterator[Directories]:
    found = Directories(tmp_path / "a", tmp_path / "b")
    yield found
    found.plane.close(now_ms(), wall_ms())


def take_away(path: Path) -> Path:
    """Have a directory look like the one below a disk that was unmounted."""
    return (path / "meta.properties").rename(path.parent / f"of-{path.name}")


def give_back(path: Path) -> None:
    (path.parent / f"of-{path.name}").rename(path / "meta.properties")


def test_the_emptiest_comes_first(directories: Directories) -> None:
    assert Counter(directories.make() for _ in range(6)) == {"a": 3, "b": 3}


def test_what_cannot_be_made_in_one_is_made_in_another(directories: Directories) -> None:
    take_away(directories.paths[1])
    assert [directories.make() for _ in range(4)] == ["a"] * 4
    told = directories.plane.complaints()
    assert len(told) == 1, "a directory that failed is not asked again and again"
    assert "t2-0 is made elsewhere" in told[0]
    give_back(directories.paths[1])
    assert directories.make(START_MS + SHUNNED_FOR_MS - 1) == "a"
    assert [directories.make(START_MS + SHUNNED_FOR_MS) for _ in range(5)] == ["b"] * 5


def test_a_clock_that_goes_back_makes_nobody_wait(directories: Directories) -> None:
    take_away(directories.paths[1])
    assert [directories.make() for _ in range(2)] == ["a", "a"]
    give_back(directories.paths[1])
    assert directories.make(START_MS - 1) == "b"


def test_where_none_takes_it_the_error_says_so(directories: Directories) -> None:
    for path in directories.paths:
        take_away(path)
    with pytest.raises(FileNotFoundError, match=r"meta\.properties"):
        directories.make()
    assert not any((path / "t1-0").exists() for path in directories.paths)
    for path in directories.paths:
        give_back(path)


def test_what_could_only_be_begun_is_taken_back(directories: Directories) -> None:
    """As on a full disk: a directory can be made, and no file written in it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            directories.make()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not any((path / "t1-0").exists() for path in directories.paths)
    assert len([line for line in directories.plane.complaints() if "t1-0 is made elsewhere" in line]) == 1


def test_what_stands_there_already_is_not_made_elsewhere_however_often_it_is_tried(directories: Directories) -> None:
    """It would be in two directories at the next start."""
    directories.make()
    left_over = directories.paths[1] / "t2-0"
    left_over.mkdir()
    in_the_way = left_over / "partition.metadata"
    in_the_way.mkdir()
    for at_ms in (START_MS, START_MS + 1, START_MS + SHUNNED_FOR_MS):
        directories.made = 1
        with pytest.raises(IsADirectoryError):
            directories.make(at_ms)
        assert not (directories.paths[0] / "t2-0").exists()
    in_the_way.rmdir()
    directories.made = 1
    assert directories.make() == "b"


def test_a_name_that_is_taken_again_is_not_bound_to_where_it_was(directories: Directories) -> None:
    first, second = directories.make(), directories.make()
    assert (first, second) == ("a", "b")
    directories.plane.delete_partition("t2", 0, now_ms(), START_MS)
    take_away(directories.paths[1])
    directories.made = 1
    assert directories.make() == "a"
    give_back(directories.paths[1])


def test_a_data_plane_needs_a_log_directory() -> None:
    with pytest.raises(ValueError, match="log directory"):
        DataPlane(broker_id=1, log_dirs=[], options={})
