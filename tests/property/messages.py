"""Random messages of any API and version, built from the wire's own description."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from random import Random
from typing import Any

from ottla.errors import ErrorCode
from ottla.protocol.schema import FieldShape, Side, StructShape, message_shape, unified_field_name
from ottla.protocol.versions import API_VERSIONS, PRODUCE_VERSION_MIN, ApiKey

_BITS = {"b": 8, "h": 16, "i": 32, "q": 64, "B": 8, "H": 16, "I": 32, "Q": 64}
_TEXTS = ("", "a", "topic-1", "grüße", "x" * 127, "y" * 300)


def every_version() -> list[tuple[ApiKey, int, Side]]:
    """Every (API, version, side) that exists."""
    return [
        (api, version, side)
        for api, (low, high) in API_VERSIONS.items()
        for version in range(PRODUCE_VERSION_MIN if api is ApiKey.PRODUCE else low, high + 1)
        for side in ("request", "response")
    ]


def random_message(rng: Random, api: ApiKey, version: int, side: Side) -> Any:
    """Return a message that holds random values in every field that this version has."""
    return _build(rng, message_shape(api, version, side))


def _build(rng: Random, struct: StructShape) -> Any:
    return struct.target(**{shape.name: _value(rng, shape) for shape in struct.fields})


def _value(rng: Random, shape: FieldShape) -> Any:
    if shape.nullable and rng.random() < 0.3:
        return None
    if shape.is_array:
        return tuple(_item(rng, shape) for _ in range(rng.choice((0, 1, 2, 3))))
    return _item(rng, shape)


def _item(rng: Random, shape: FieldShape) -> Any:
    if shape.struct is not None:
        return _build(rng, shape.struct)
    match shape.kind:
        case "string":
            return rng.choice(_TEXTS)
        case "bytes" | "records":
            return rng.randbytes(rng.choice((0, 1, 126, 127, 128, 500)))
        case "uuid":
            return uuid.UUID(int=rng.getrandbits(128)) if rng.random() < 0.8 else None
        case "bool":
            return rng.random() < 0.5
        case "error_code":
            return rng.choice(tuple(ErrorCode))
        case "float64":
            return rng.uniform(-1e9, 1e9)
        case "timedelta_i32" | "timedelta_i64":
            return rng.choice((0, 1, 30_000, 2**31 - 1))
        case "datetime_i64":
            return rng.choice((0, 1, 1_700_000_000_123))
    assert shape.format is not None
    bits = _BITS[shape.format]
    if shape.format.isupper():
        return rng.choice((0, 1, rng.getrandbits(bits), 2**bits - 1))
    low = -(2 ** (bits - 1))
    return rng.choice((0, 1, -1, low, -low - 1, rng.randint(low, -low - 1)))


def plain(message: Any, struct: StructShape) -> Any:
    """Reduce our message to plain values of the fields that its version has, for comparison with kio."""
    return {shape.name: _plain_value(getattr(message, shape.name), shape) for shape in struct.fields}


def _plain_value(value: Any, shape: FieldShape) -> Any:
    if value is None:
        return None
    if shape.is_array:
        return tuple(_plain_item(item, shape) for item in value)
    return _plain_item(value, shape)


def _plain_item(value: Any, shape: FieldShape) -> Any:
    if value is None:
        return None
    if shape.struct is not None:
        return plain(value, shape.struct)
    return int(value) if shape.kind == "error_code" else value


def plain_kio(entity: Any) -> Any:
    """Reduce a kio object to plain values in our terms."""
    if isinstance(entity, tuple):
        return tuple(plain_kio(item) for item in entity)
    if dataclasses.is_dataclass(entity):
        return {unified_field_name(f): _plain_kio_field(f, getattr(entity, f.name)) for f in dataclasses.fields(entity)}
    millisecond = datetime.timedelta(milliseconds=1)
    if isinstance(entity, datetime.timedelta):
        return round(entity / millisecond)
    if isinstance(entity, datetime.datetime):
        return round((entity - datetime.datetime.fromtimestamp(0, tz=datetime.UTC)) / millisecond)
    if isinstance(entity, uuid.UUID) and entity.int == 0:
        return None
    if isinstance(entity, int) and not isinstance(entity, bool):
        return int(entity)
    return entity


def _plain_kio_field(f: dataclasses.Field[Any], value: Any) -> Any:
    return -1 if f.metadata.get("kafka_type") == "datetime_i64" and value is None else plain_kio(value)
