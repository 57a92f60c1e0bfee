"""`ottla dump FILE...`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ottla.cli.consume import text_of
from ottla.cli.output import print_json
from ottla.offline.index_files import (
    MalformedFile,
    read_checkpoint,
    read_offset_index,
    read_producer_snapshot,
    read_time_index,
    read_transaction_index,
)
from ottla.offline.segment import BatchAt, base_offset_of, walk

app = typer.Typer(add_completion=False)
Row = dict[str, Any]


@app.command()
def dump(
    files: Annotated[
        list[Path], typer.Argument(help=".log, .index, .timeindex, .txnindex, .snapshot, .checkpoint or a checkpoint")
    ],
    records: Annotated[bool, typer.Option("--records", "-r", help="Print the records of each batch too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show what files of a data directory hold. Records of internal topics are decoded.

    Example: ottla dump data/clicks-0/00000000000000000000.log --records
    """
    for path in files:
        if not path.is_file():
            raise typer.BadParameter(f"{path} is no file")
        if not as_json and len(files) > 1:
            print(f"{path}:")
        try:
            for row in rows(path, records=records):
                if as_json:
                    print_json({"file": str(path), **row})
                else:
                    print("  ".join(f"{k}={v}" for k, v in row.items() if v is not None))
        except (MalformedFile, UnicodeDecodeError) as error:
            print(f"ottla: {error}", file=sys.stderr)
            raise typer.Exit(1) from error


def rows(path: Path, *, records: bool) -> Iterator[Row]:
    """What a file holds, a row an entry. Raises MalformedFile, OSError."""
    base = base_offset_of(path) if path.name[:20].isdigit() else 0
    match path.suffix:
        case ".log" | ".checkpoint":
            yield from _segment(path, records=records)
        case ".index":
            for entry in read_offset_index(path):
                yield {"offset": base + entry.relative_offset, "position": entry.position}
        case ".timeindex":
            for time_entry in read_time_index(path):
                yield {"timestamp_ms": time_entry.timestamp_ms, "offset": base + time_entry.relative_offset}
        case ".txnindex":
            yield from (asdict(entry) for entry in read_transaction_index(path))
        case ".snapshot":
            yield from (asdict(entry) for entry in read_producer_snapshot(path))
        case _ if path.suffix in (".properties", ".metadata") or path.name == "quorum-state":
            yield from ({"row": line} for line in path.read_text().splitlines())
        case _:
            yield from ({"row": " ".join(row)} for row in read_checkpoint(path))


def _segment(path: Path, *, records: bool) -> Iterator[Row]:
    decode = _record_decoder(path.parent.name)
    for item in walk(path):
        if not isinstance(item, BatchAt):
            yield {"position": item.position, "damage": item.reason, "next_position": item.next_position}
            continue
        batch = item.batch
        yield {
            "base_offset": batch.base_offset,
            "last_offset": batch.last_offset,
            "count": len(batch.records),
            "position": item.position,
            "size_bytes": item.size_bytes,
            "leader_epoch": batch.partition_leader_epoch,
            "producer_id": batch.producer_id,
            "producer_epoch": batch.producer_epoch,
            "base_sequence": batch.base_sequence,
            "max_timestamp_ms": batch.max_timestamp,
            "compression": batch.compression,
            "transactional": batch.transactional,
            "control": batch.control,
        }
        if records:
            for offset, timestamp_ms, key, value, headers in batch.records:
                row: Row = {"offset": offset, "timestamp_ms": timestamp_ms}
                if batch.control:
                    yield row | text_of("key", key) | text_of("value", value)
                else:
                    yield row | decode(key, value) | ({"headers": dict(headers)} if headers else {})


def _record_decoder(directory: str) -> Callable[[bytes | None, bytes | None], Row]:
    """How the records of a partition's directory are read: internal topics have formats of their own."""
    if directory.startswith("__consumer_offsets-"):
        return _offsets_record
    if directory.startswith("__transaction_state-"):
        return _transaction_record
    if directory.startswith("__share_group_state-"):
        return _share_state_record
    if directory.startswith("__cluster_metadata-"):
        return _metadata_record
    return lambda key, value: text_of("key", key) | text_of("value", value)


def _offsets_record(key: bytes | None, value: bytes | None) -> Row:
    from ottla.coordinator.group import records as formats
    from ottla.coordinator.group.record_schema import MalformedRecord

    try:
        decoded = formats.decode_key(key or b"")
        row: Row = {"key": decoded}
        if value is None:
            return row | {"value": None, "tombstone": True}
        if isinstance(decoded, int):
            return row | text_of("value", value)
        content = formats.decode(key or b"", value)
        assert not isinstance(content, int)
        return row | {"value": content.value}
    except MalformedRecord as error:
        return text_of("key", key) | text_of("value", value) | {"malformed": str(error)}


def _transaction_record(key: bytes | None, value: bytes | None) -> Row:
    from ottla.coordinator.transaction import records as formats

    try:
        decoded = formats.decode(key or b"", value)
    except formats.MalformedRecord as error:
        return text_of("key", key) | text_of("value", value) | {"malformed": str(error)}
    if isinstance(decoded, int):
        return {"kind": decoded} | text_of("key", key) | text_of("value", value)
    row: Row = {"transactional_id": decoded.transactional_id}
    if decoded.transaction is None:
        return row | {"value": None, "tombstone": True}
    fields = decoded.transaction._asdict()
    del fields["last_producer_epoch"]  # not in the log
    partitions = [f"{topic}-{index}" for topic, index in sorted(decoded.transaction.partitions)]
    return row | fields | {"state": decoded.transaction.state.label, "partitions": partitions}


def _share_state_record(key: bytes | None, value: bytes | None) -> Row:
    from ottla.coordinator.group.record_schema import MalformedRecord
    from ottla.coordinator.share import records as formats

    try:
        decoded = formats.decode(key or b"", value)
    except MalformedRecord as error:
        return text_of("key", key) | text_of("value", value) | {"malformed": str(error)}
    if isinstance(decoded, int):
        return {"kind": decoded} | text_of("key", key) | text_of("value", value)
    row: Row = {"type": "snapshot" if decoded.kind == formats.SNAPSHOT else "update", **decoded.key._asdict()}
    if decoded.state is None:
        return row | {"value": None, "tombstone": True}
    fields = decoded.state._asdict()
    unwritten = {"update_count", "leader_epoch_max", "state_epoch_max", "snapshot_offset"}
    if decoded.kind == formats.UPDATE:
        unwritten |= {"state_epoch", "create_timestamp_ms", "write_timestamp_ms"}
    batches = [batch._asdict() for batch in decoded.state.batches]
    return row | {name: found for name, found in fields.items() if name not in unwritten} | {"batches": batches}


def _metadata_record(key: bytes | None, value: bytes | None) -> Row:
    from ottla.metadata.records import MalformedRecord, decode_record

    del key
    try:
        record = decode_record(value or b"")
    except MalformedRecord as error:
        return text_of("value", value) | {"malformed": str(error)}
    return {"type": type(record).__name__, **asdict(cast(Any, record))}
