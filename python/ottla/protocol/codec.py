"""Between bytes and messages: kio's class per API and version on one side, one dataclass an API on the other.

Converters are compiled once per (API, version, direction) on first use, and kio's module of that version is
imported then: all of them at once cost most of a second and tens of MiB.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import io
import uuid
from collections.abc import Callable
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from kio.schema.errors import ErrorCode as KioErrorCode
from kio.serial import entity_reader, entity_writer
from kio.serial.errors import SerialError

from ottla.errors import ErrorCode
from ottla.protocol.versions import API_VERSIONS, ApiKey

Side = Literal["request", "response"]
_MILLISECOND = datetime.timedelta(milliseconds=1)
_EPOCH = datetime.datetime.fromtimestamp(0, tz=datetime.UTC)
_UUID_ZERO = uuid.UUID(int=0)


class MalformedMessage(Exception):
    """Bytes that are no message of the API and version they claim. The connection is to be closed."""


class UnsupportedVersion(Exception):
    """An API key or version that does not exist in Kafka 4.3."""


def kio_class(api: ApiKey, version: int, side: Side) -> type:
    """Return kio's dataclass for one version. Imports the module on first use."""
    name = api.name.lower()
    module = import_module(f"kio.schema.{name}.v{version}.{side}")
    return getattr(module, "".join(part.title() for part in name.split("_")) + side.title())  # type: ignore[no-any-return]


def unified_field_name(f: dataclasses.Field[Any]) -> str:
    """The name of a kio field in our union dataclass: units last."""
    kafka_type = f.metadata.get("kafka_type", "")
    return f.name + "_ms" if kafka_type.startswith(("timedelta_", "datetime_")) else f.name


def _split(annotation: Any) -> tuple[Any, bool]:
    """Return (item type, is array)."""

    def strip(t: Any) -> Any:
        if get_origin(t) in (UnionType, Union):
            return next(a for a in get_args(t) if a is not NoneType)
        return t

    item = strip(annotation)
    if get_origin(item) is tuple:
        return strip(get_args(item)[0]), True
    return item, False


def _error(value: int) -> ErrorCode:
    return ErrorCode(int(value))


def _timedelta_ms(value: datetime.timedelta) -> int:
    return round(value / _MILLISECOND)


def _datetime_ms(value: datetime.datetime | None) -> int:
    return -1 if value is None else round((value - _EPOCH) / _MILLISECOND)


def _to_kio_error(value: int) -> KioErrorCode:
    return KioErrorCode(int(value))


def _to_timedelta(value: int) -> datetime.timedelta:
    return datetime.timedelta(milliseconds=value)


def _to_datetime(value: int) -> datetime.datetime | None:
    return None if value == -1 else _EPOCH + datetime.timedelta(milliseconds=value)


def _zero_uuid_to_none(value: uuid.UUID | None) -> uuid.UUID | None:
    return None if value == _UUID_ZERO else value


_FROM_KIO: dict[str, Callable[[Any], Any]] = {
    "error_code": _error,
    "timedelta_i32": _timedelta_ms,
    "timedelta_i64": _timedelta_ms,
    "datetime_i64": _datetime_ms,
}
_TO_KIO: dict[str, Callable[[Any], Any]] = {
    "error_code": _to_kio_error,
    "timedelta_i32": _to_timedelta,
    "timedelta_i64": _to_timedelta,
    "datetime_i64": _to_datetime,
    "uuid": _zero_uuid_to_none,
}


class _Names:
    """Resolves a kio class to ours: the clash prefix (see `ottla.protocol.generate`) is tried first."""

    def __init__(self, api: ApiKey, side: Side) -> None:
        self.module = import_module(f"ottla.protocol.messages.{api.name.lower()}")
        self.message = "".join(part.title() for part in api.name.split("_")) + side.title()

    def own(self, cls: type) -> type:
        prefixed = getattr(self.module, self.message + cls.__name__, None)
        return prefixed or getattr(self.module, cls.__name__)  # type: ignore[no-any-return]


def _compile(cls: type, names: _Names, *, to_kio: bool) -> Callable[[Any], Any]:
    """Build a converter for one class. Generated source, as a loop over fields costs five times as much."""
    target = cls if to_kio else names.own(cls)
    env: dict[str, Any] = {"target": target}
    args = []
    for i, f in enumerate(dataclasses.fields(cls)):
        item, is_array = _split(f.type)
        source = f"m.{unified_field_name(f) if to_kio else f.name}"
        convert: Callable[[Any], Any] | None
        if dataclasses.is_dataclass(item):
            assert isinstance(item, type)
            convert = _compile(item, names, to_kio=to_kio)
            nullable = True
        else:
            convert = (_TO_KIO if to_kio else _FROM_KIO).get(f.metadata["kafka_type"])
            nullable = False
        expression = source
        if convert is not None:
            env[f"c{i}"] = convert
            if is_array:
                expression = f"None if {source} is None else tuple([c{i}(x) for x in {source}])"
            elif nullable:
                expression = f"None if {source} is None else c{i}({source})"
            else:
                expression = f"c{i}({source})"
        elif is_array and to_kio:
            expression = f"None if {source} is None else tuple({source})"
        args.append(f"{f.name if to_kio else unified_field_name(f)}={expression}")
    source_text = f"def convert(m): return target({', '.join(args)})"
    exec(source_text, env)  # our own text, from field names alone
    return env["convert"]  # type: ignore[no-any-return]


@functools.cache
def _decoder(api: ApiKey, version: int, side: Side) -> Callable[[bytes], Any]:
    cls = kio_class(api, version, side)
    read: Callable[[bytes, int], tuple[Any, int]] = entity_reader(cls)
    convert = _compile(cls, _Names(api, side), to_kio=False)

    def decode(body: bytes) -> Any:
        try:
            entity, size = read(body, 0)
            if size > len(body):
                raise MalformedMessage(f"{api.name} {side} v{version} is cut short")
            return convert(entity)
        except (SerialError, ValueError, IndexError, OverflowError, MemoryError) as error:
            raise MalformedMessage(f"{api.name} {side} v{version}: {error}") from error

    return decode


@functools.cache
def _encoder(api: ApiKey, version: int, side: Side) -> Callable[[Any], bytes]:
    cls = kio_class(api, version, side)
    write: Callable[[io.BytesIO, Any], None] = entity_writer(cls)
    convert = _compile(cls, _Names(api, side), to_kio=True)

    def encode(message: Any) -> bytes:
        out = io.BytesIO()
        write(out, convert(message))
        return out.getvalue()

    return encode


def _check(api: ApiKey, version: int) -> None:
    low, high = API_VERSIONS[api]
    if not low <= version <= high:
        raise UnsupportedVersion(f"{api.name} v{version} is outside {low} to {high}")


def decode_request(api: ApiKey, version: int, body: bytes) -> Any:
    """Decode a request body (header excluded). Raises MalformedMessage, UnsupportedVersion."""
    _check(api, version)
    return _decoder(api, version, "request")(body)


def encode_request(api: ApiKey, version: int, message: Any) -> bytes:
    """Encode a request body (header excluded). Fields that the version lacks are left out."""
    _check(api, version)
    return _encoder(api, version, "request")(message)


def decode_response(api: ApiKey, version: int, body: bytes) -> Any:
    """Decode a response body (header excluded). Raises MalformedMessage, UnsupportedVersion."""
    _check(api, version)
    return _decoder(api, version, "response")(body)


def encode_response(api: ApiKey, version: int, message: Any) -> bytes:
    """Encode a response body (header excluded). Fields that the version lacks are left out."""
    _check(api, version)
    return _encoder(api, version, "response")(message)


def is_flexible(api: ApiKey, version: int) -> bool:
    """Whether this version uses compact types and tagged fields (KIP-482)."""
    return bool(kio_class(api, version, "request").__flexible__)  # type: ignore[attr-defined]
