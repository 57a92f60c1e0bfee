"""The identity of a broker's data directories: `meta.properties`, as Kafka writes it (KIP-858).

A fresh directory is formatted on the spot. One that belongs to another node or cluster is refused. One that cannot be
used (its disk is dead) is offline until the next start, and the broker does without it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ottla.broker.properties import format_properties, parse_properties

META_PROPERTIES: Final = "meta.properties"


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


def _parse_uuid(path: Path, text: str) -> uuid.UUID:
    try:
        return uuid.UUID(bytes=base64.urlsafe_b64decode(text + "=="))
    except ValueError:
        raise InvalidDataDirectory(f"{path}: directory.id {text!r} is no id") from None


def _new_uuid() -> uuid.UUID:
    """A random id whose text does not start with a dash, which tools would take for an option (as Kafka does)."""
    while kafka_uuid(value := uuid.uuid4()).startswith("-"):
        continue
    return value


def open_data_dirs(
    paths: Sequence[str], *, node_id: int | None, node_id_default: int = 1, needed: str | None = None
) -> DataDirs:
    """Read the identity of the directories, and write it where it is missing. SLOW: touches the disk.

    Args:
        node_id: The configured id. None: the directories' own, or `node_id_default` where they are fresh.
        needed: The directory without which there is nothing to start: the one with the metadata.
    Raises: InvalidDataDirectory, OSError (`needed` cannot be used, or none of those that could say whose they are).
    """
    if len(set(paths)) < len(paths):
        raise InvalidDataDirectory(f"a data directory is named twice: {', '.join(paths)}")
    read: dict[Path, dict[str, str]] = {}
    failed: dict[str, OSError] = {}
    for text in paths:
        path = Path(text) / META_PROPERTIES
        try:
            found = _read(path)
        except OSError as error:
            if text == needed:
                raise
            failed[text] = error
        else:
            if found is not None:
                read[path] = found
    if failed and not read:
        raise next(iter(failed.values()))
    if read and needed is not None and needed in paths and Path(needed) / META_PROPERTIES not in read:
        raise InvalidDataDirectory(f"{needed} should hold the metadata and is fresh: is its disk not mounted?")
    cluster_id = _agreed(read, "cluster.id") or kafka_uuid(_new_uuid())
    stored = _agreed(read, "node.id", "broker.id")
    if stored is not None and not stored.isdecimal():
        raise InvalidDataDirectory(f"the data directories' node.id {stored!r} is no number")
    if stored is not None and node_id is not None and int(stored) != node_id:
        raise InvalidDataDirectory(f"the data belongs to node {stored}, the configuration says node {node_id}")
    if stored is not None:
        node_id = int(stored)
    elif node_id is None:
        node_id = node_id_default
    ids = {}
    for text in (text for text in paths if text not in failed):
        path = Path(text) / META_PROPERTIES
        values = read.get(path, {})
        directory_id = _parse_uuid(path, values["directory.id"]) if "directory.id" in values else _new_uuid()
        ids[text] = directory_id
        wanted = {
            "version": "1",
            "cluster.id": cluster_id,
            "node.id": str(node_id),
            "directory.id": kafka_uuid(directory_id),
        }
        if values != wanted:
            try:
                _replace(path, format_properties(wanted))
            except OSError as error:
                if text == needed:
                    raise
                failed[text] = error
                del ids[text]
    if failed and not ids:
        raise next(iter(failed.values()))
    offline = {text: str(error) for text, error in failed.items()}
    return DataDirs(cluster_id=cluster_id, node_id=node_id, directory_ids=ids, offline=offline)


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
            return parse_properties(path.read_text())
        except ValueError as error:  # not UTF-8, or no properties
            raise InvalidDataDirectory(f"{path} is damaged: {error}") from None
    if any(entry.name != ".lock" for entry in path.parent.iterdir() if not entry.name.startswith("lost+")):
        raise InvalidDataDirectory(f"{path.parent} is not empty and has no {META_PROPERTIES}")
    return None


def _agreed(read: dict[Path, dict[str, str]], *keys: str) -> str | None:
    """The value that all files give the first of `keys` that they have."""
    found = {value for values in read.values() if (value := next((values[k] for k in keys if k in values), None))}
    if len(found) > 1:
        raise InvalidDataDirectory(f"the data directories disagree on {keys[0]}: {', '.join(sorted(found))}")
    return next(iter(found), None)


def _replace(path: Path, text: str) -> None:
    """Write, sync, rename: a crash leaves the old file or the new one."""
    temporary = path.with_suffix(".properties.tmp")
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
