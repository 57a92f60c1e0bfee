"""The identity of a broker's data directories: `meta.properties`, as Kafka writes it (KIP-858).

A fresh directory is formatted on the spot. One that belongs to another node or cluster is refused. One that cannot be
used (its disk is dead) is offline until the next start, and the broker does without it.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Final

from ottla.broker.properties import format_properties, parse_properties
from ottla.common.topics import METADATA_PARTITION

META_PROPERTIES: Final = "meta.properties"
VERSIONS: Final = ("0", "1")
"""Those of `meta.properties`: Kafka's before and since KRaft."""
LOCK: Final = ".lock"
DIRECTORY_IDS_RESERVED: Final = 100
"""So many ids from 0 on are nobody's. Source: Kafka's DirectoryId.reserved."""


class InvalidDataDirectory(Exception):
    """A data directory that this broker must not use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDirs:
    """What the directories say: one cluster, one node, an id for each directory."""

    cluster_id: str
    node_id: int
    directory_ids: Mapping[str, uuid.UUID]
    """By path, those that are online."""
    offline: Mapping[str, str] = field(default_factory=dict)
    """By path, why the others are not."""

    def without(self, failed: Mapping[str, str]) -> DataDirs:
        """The same, with more of them offline. Args: failed: By path, why."""
        online = {path: directory_id for path, directory_id in self.directory_ids.items() if path not in failed}
        return replace(self, directory_ids=online, offline={**self.offline, **failed})


def kafka_uuid(value: uuid.UUID) -> str:
    """The form of a UUID in Kafka's files and configuration: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(value.bytes).decode().rstrip("=")


def _parse_directory_id(path: Path, text: str) -> uuid.UUID:
    try:
        directory_id = uuid.UUID(bytes=base64.urlsafe_b64decode(text + "=="))
    except ValueError:
        raise InvalidDataDirectory(f"{path}: directory.id {text!r} is no id") from None
    if directory_id.int < DIRECTORY_IDS_RESERVED:
        raise InvalidDataDirectory(f"{path}: directory.id {text!r} is a reserved one")
    return directory_id


def _new_uuid() -> uuid.UUID:
    """A random id whose text does not start with a dash, which tools would take for an option (as Kafka does)."""
    while kafka_uuid(value := uuid.uuid4()).startswith("-"):
        continue
    return value


def same_directory(path: str, known: Sequence[str]) -> str:
    """The one of `known` that means the same directory, otherwise `path`."""
    return next((other for other in known if os.path.abspath(other) == os.path.abspath(path)), path)


def lock_directory(path: str) -> IO[bytes]:
    """Take the lock of a directory, as the data plane takes that of a log directory; closing what this returns gives it
    back. SLOW. Raises: InvalidDataDirectory, OSError.
    """
    file = (Path(path) / LOCK).open("ab")
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        file.close()
        raise InvalidDataDirectory(f"{path} is locked by another process") from None
    return file


def open_data_dirs(
    paths: Sequence[str], *, node_id: int | None, node_id_default: int = 1, metadata_dir: str | None = None
) -> DataDirs:
    """Read the identity of the directories, and write it where it is missing. SLOW: touches the disk.

    Args:
        paths: The log directories.
        node_id: The configured id. None: the directories' own, or `node_id_default` where they are fresh.
        metadata_dir: The directory with the metadata, without which there is nothing to start: one of `paths`, or
            another one, which is not in the result.
    Raises: InvalidDataDirectory, OSError (`metadata_dir` cannot be used, or none of those that could say whose they
        are).
    """
    if len(set(paths)) < len(paths):
        raise InvalidDataDirectory(f"a data directory is named twice: {', '.join(paths)}")
    # The one with the metadata comes first: what a crash leaves fresh must not be that one.
    wanted = dict.fromkeys(paths if metadata_dir is None else (metadata_dir, *paths))
    read: dict[str, dict[str, str]] = {}
    failed: dict[str, OSError] = {}
    for text in wanted:
        try:
            found = _read(Path(text) / META_PROPERTIES)
        except OSError as error:
            if text == metadata_dir:
                raise
            failed[text] = error
        else:
            if found is not None:
                read[text] = found
    if failed and not read:
        raise next(iter(failed.values()))
    if metadata_dir is not None:
        _check_place_of_metadata(metadata_dir, read)
    cluster_id = _agreed(read, "cluster.id") or kafka_uuid(_new_uuid())
    node_id = _node_id(_agreed(read, "node.id", "broker.id"), node_id, node_id_default)
    ids: dict[str, uuid.UUID] = {}
    for text in (text for text in wanted if text not in failed):
        path, values = Path(text) / META_PROPERTIES, read.get(text, {})
        directory_id = _parse_directory_id(path, values["directory.id"]) if "directory.id" in values else _new_uuid()
        if directory_id in ids.values():
            raise InvalidDataDirectory(f"{path}: another data directory has the same directory.id: is it a copy?")
        properties = {
            "version": "1",
            "cluster.id": cluster_id,
            "node.id": str(node_id),
            "directory.id": kafka_uuid(directory_id),
        }
        try:
            if values != properties:
                _replace(path, format_properties(properties))
        except OSError as error:
            if text == metadata_dir:
                raise
            failed[text] = error
        else:
            ids[text] = directory_id
    log_dirs = {text: ids[text] for text in paths if text in ids}
    if failed and not log_dirs:
        raise next(iter(failed.values()))
    offline = {text: str(failed[text]) for text in paths if text in failed}
    return DataDirs(cluster_id=cluster_id, node_id=node_id, directory_ids=log_dirs, offline=offline)


def _check_place_of_metadata(metadata_dir: str, read: Mapping[str, Mapping[str, str]]) -> None:
    """Started without its metadata a broker would know no topic, and set all partitions aside.

    Source: Kafka's MetaPropertiesEnsemble.verify. Raises: InvalidDataDirectory.
    """
    for text in read:
        if text != metadata_dir and os.path.exists(Path(text) / METADATA_PARTITION):
            said = f"{text} holds metadata ({METADATA_PARTITION}), which should be in {metadata_dir}"
            raise InvalidDataDirectory(f"{said}: have the directories changed places?")
    if read and metadata_dir not in read:
        raise InvalidDataDirectory(f"{metadata_dir} should hold the metadata and is fresh: is its disk not mounted?")


def _node_id(stored: str | None, configured: int | None, default: int) -> int:
    if stored is None:
        return default if configured is None else configured
    if not stored.isdecimal():
        raise InvalidDataDirectory(f"the data directories' node.id {stored!r} is no number")
    if configured is not None and int(stored) != configured:
        raise InvalidDataDirectory(f"the data belongs to node {stored}, the configuration says node {configured}")
    return int(stored)


def _read(path: Path) -> dict[str, str] | None:
    """What a directory's `meta.properties` say; None for one that is fresh, and made here where there is none.

    Raises: InvalidDataDirectory, OSError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InvalidDataDirectory(f"{path.parent} is not a directory") from None
    with contextlib.suppress(FileNotFoundError):
        try:
            found = parse_properties(path.read_text())
        except ValueError as error:  # not UTF-8, or no properties
            raise InvalidDataDirectory(f"{path} is damaged: {error}") from None
        if found.get("version") not in VERSIONS:
            raise InvalidDataDirectory(f"{path} is damaged: its version is {found.get('version')!r}, not 0 or 1")
        return found
    left_over = {LOCK, _beside(path).name}
    if any(entry.name not in left_over and not entry.name.startswith("lost+") for entry in path.parent.iterdir()):
        raise InvalidDataDirectory(f"{path.parent} is not empty and has no {META_PROPERTIES}")
    return None


def _agreed(read: Mapping[str, Mapping[str, str]], *keys: str) -> str | None:
    """The value that all files give the first of `keys` that they have."""
    found = {value for values in read.values() if (value := next((values[k] for k in keys if k in values), None))}
    if len(found) > 1:
        raise InvalidDataDirectory(f"the data directories disagree on {keys[0]}: {', '.join(sorted(found))}")
    return next(iter(found), None)


def _beside(path: Path) -> Path:
    return path.with_suffix(".properties.tmp")


def _replace(path: Path, text: str) -> None:
    """Write, sync, rename: a crash leaves the old file or the new one."""
    temporary = _beside(path)
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
