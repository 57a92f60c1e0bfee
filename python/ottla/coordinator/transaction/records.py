"""The records of `__transaction_state`: one a transactional id, keyed by it.

A key is the int16 of its kind and the id; a value the int16 of its version and the transaction. Version 1 can be added
to, and is written from transaction.version 1 on.

Source: Apache Kafka's `TransactionLogKey` and `TransactionLogValue` schemas, and the files of a running 4.3.1
(tests/golden/transaction_state).
"""

from dataclasses import field
from itertools import groupby
from typing import Any, ClassVar, Final, NamedTuple

from ottla.common.frozen import frozen
from ottla.coordinator.shard import CoordinatorRecord
from ottla.coordinator.transaction.transaction import NO_PRODUCER_ID, Transaction, TransactionState
from ottla.protocol.codec import entity_reader, entity_writer
from ottla.protocol.errors import MalformedMessage

FLEXIBLE_FROM_TRANSACTION_VERSION: Final = 1
KIND: Final = 0
"""The int16 that keys start with. Others are for kinds that do not exist yet."""


class MalformedRecord(Exception):
    """Bytes that are no record of the kind and version that they claim."""


class RecordContent(NamedTuple):
    """A decoded record. No transaction: the transactional id is forgotten."""

    transactional_id: str
    transaction: Transaction | None


def _kafka(kafka_type: str) -> Any:
    return field(metadata={"kafka_type": kafka_type})


def _tagged(kafka_type: str, tag: int, default: int) -> Any:
    return field(metadata={"kafka_type": kafka_type, "tag": tag}, default=default)


@frozen
class _Key:
    __flexible__: ClassVar[bool] = False
    transactional_id: str = _kafka("string")


@frozen
class _Partitions0:
    __flexible__: ClassVar[bool] = False
    topic: str = _kafka("string")
    partition_ids: tuple[int, ...] = _kafka("int32")


@frozen
class _Value0:
    __flexible__: ClassVar[bool] = False
    producer_id: int = _kafka("int64")
    producer_epoch: int = _kafka("int16")
    transaction_timeout_ms: int = _kafka("int32")
    transaction_status: int = _kafka("int8")
    transaction_partitions: tuple[_Partitions0, ...] | None
    transaction_last_update_timestamp_ms: int = _kafka("int64")
    transaction_start_timestamp_ms: int = _kafka("int64")


@frozen
class _Partitions1:
    __flexible__: ClassVar[bool] = True
    topic: str = _kafka("string")
    partition_ids: tuple[int, ...] = _kafka("int32")


@frozen
class _Value1:
    __flexible__: ClassVar[bool] = True
    producer_id: int = _kafka("int64")
    producer_epoch: int = _kafka("int16")
    transaction_timeout_ms: int = _kafka("int32")
    transaction_status: int = _kafka("int8")
    transaction_partitions: tuple[_Partitions1, ...] | None
    transaction_last_update_timestamp_ms: int = _kafka("int64")
    transaction_start_timestamp_ms: int = _kafka("int64")
    previous_producer_id: int = _tagged("int64", 0, NO_PRODUCER_ID)
    next_producer_id: int = _tagged("int64", 1, NO_PRODUCER_ID)
    client_transaction_version: int = _tagged("int16", 2, 0)


_read_key: Final = entity_reader(_Key)
_write_key: Final = entity_writer(_Key)
_READERS: Final = (entity_reader(_Value0), entity_reader(_Value1))
_write_0: Final = entity_writer(_Value0)
_write_1: Final = entity_writer(_Value1)


def record(transactional_id: str, transaction: Transaction, *, transaction_version: int) -> CoordinatorRecord:
    """What a transactional id is from now on."""
    is_flexible = transaction_version >= FLEXIBLE_FROM_TRANSACTION_VERSION
    content = RecordContent(transactional_id, transaction)
    return CoordinatorRecord(_key(transactional_id), _value(transaction, is_flexible=is_flexible), content)


def tombstone(transactional_id: str) -> CoordinatorRecord:
    """A transactional id is forgotten."""
    return CoordinatorRecord(_key(transactional_id), None, RecordContent(transactional_id, None))


def decode(key: bytes, value: bytes | None) -> RecordContent | int:
    """A whole record; of a kind that is not known, its number alone. Raises: MalformedRecord."""
    kind = _int16(key)
    if kind != KIND:
        return kind
    try:
        transactional_id = _read_key(key, 2)[0].transactional_id
        return RecordContent(transactional_id, None if value is None else _decode_value(value))
    except MalformedMessage as error:
        raise MalformedRecord(str(error)) from error


def _decode_value(value: bytes) -> Transaction:
    version = _int16(value)
    if not 0 <= version < len(_READERS):
        raise MalformedRecord(f"version {version} of a transaction")
    read = _READERS[version](value, 2)[0]
    try:
        state = TransactionState(read.transaction_status)
    except ValueError as error:
        raise MalformedRecord(str(error)) from error
    partitions = () if state is TransactionState.EMPTY else read.transaction_partitions or ()
    transaction = Transaction(
        producer_id=read.producer_id,
        producer_epoch=read.producer_epoch,
        timeout_ms=read.transaction_timeout_ms,
        state=state,
        partitions=frozenset((p.topic, index) for p in partitions for index in p.partition_ids),
        start_timestamp_ms=read.transaction_start_timestamp_ms,
        last_update_timestamp_ms=read.transaction_last_update_timestamp_ms,
    )
    if isinstance(read, _Value0):
        return transaction
    return transaction._replace(
        client_version=read.client_transaction_version,
        previous_producer_id=read.previous_producer_id,
        next_producer_id=read.next_producer_id,
    )


def _key(transactional_id: str) -> bytes:
    out = bytearray(b"\0\0")
    _write_key(out, _Key(transactional_id=transactional_id))
    return bytes(out)


def _value(transaction: Transaction, *, is_flexible: bool) -> bytes:
    partitions_type: type[_Partitions0] | type[_Partitions1] = _Partitions1 if is_flexible else _Partitions0
    partitions = None
    if transaction.state is not TransactionState.EMPTY:
        by_topic = groupby(sorted(transaction.partitions), key=lambda at: at[0])
        partitions = tuple(
            [partitions_type(topic=topic, partition_ids=tuple([i for _, i in found])) for topic, found in by_topic]
        )
    common: dict[str, Any] = {
        "producer_id": transaction.producer_id,
        "producer_epoch": transaction.producer_epoch,
        "transaction_timeout_ms": transaction.timeout_ms,
        "transaction_status": int(transaction.state),
        "transaction_partitions": partitions,
        "transaction_last_update_timestamp_ms": transaction.last_update_timestamp_ms,
        "transaction_start_timestamp_ms": transaction.start_timestamp_ms,
    }
    if not is_flexible:
        out = bytearray(b"\0\0")
        _write_0(out, _Value0(**common))
        return bytes(out)
    value = _Value1(
        **common,
        previous_producer_id=transaction.previous_producer_id,
        next_producer_id=transaction.next_producer_id,
        client_transaction_version=transaction.client_version,
    )
    out = bytearray(b"\0\1")
    _write_1(out, value)
    return bytes(out)


def _int16(data: bytes) -> int:
    if len(data) < 2:
        raise MalformedRecord(f"{len(data)} bytes")
    return int.from_bytes(data[:2], "big", signed=True)
