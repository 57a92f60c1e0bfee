"""Between bytes and messages: one dataclass an API on our side, every version of it on the wire.

Readers and writers are compiled once per (API, version, direction), on first use.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any, TypeVar

from ottla.protocol.errors import MalformedMessage, UnsupportedVersion
from ottla.protocol.reader import REQUEST_ITEMS_MAX, CountedSize, compile_reader
from ottla.protocol.schema import Side, entity_shape, message_module, message_name, message_shape
from ottla.protocol.versions import API_VERSIONS, PRODUCE_VERSION_MIN, ApiKey
from ottla.protocol.writer import compile_writer

__all__ = [
    "MalformedMessage",
    "Side",
    "UnsupportedVersion",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
    "entity_reader",
    "entity_writer",
    "is_flexible",
    "response_class",
]

T = TypeVar("T")


def _guarded(what: str, read: Callable[[bytes, int, int], tuple[Any, int]]) -> Callable[[bytes], Any]:
    def decode(body: bytes) -> Any:
        try:
            return read(body, 0, len(body))[0]
        except (IndexError, struct.error):
            raise MalformedMessage(f"{what} is cut short") from None
        except MalformedMessage as error:
            raise MalformedMessage(f"{what}: {error}") from None

    return decode


@functools.cache
def _counting_decoder(api: ApiKey, version: int) -> Callable[[bytes], Any]:
    """A decoder of requests that are large enough to have too many items."""
    _check(api, version)
    read = compile_reader(message_shape(api, version, "request"), counts=True)

    def counted(body: bytes, position: int, size: int) -> tuple[Any, int]:
        return read(body, position, CountedSize(size))

    return _guarded(f"{api.name} request v{version}", counted)


@functools.cache
def _decoder(api: ApiKey, version: int, side: Side) -> Callable[[bytes], Any]:
    _check(api, version)
    read = compile_reader(message_shape(api, version, side))
    return _guarded(f"{api.name} {side} v{version}", read)


@functools.cache
def _encoder(api: ApiKey, version: int, side: Side) -> Callable[[Any], bytes]:
    _check(api, version)
    write = compile_writer(message_shape(api, version, side))

    def encode(message: Any) -> bytes:
        out = bytearray()
        write(out, message)
        return bytes(out)

    return encode


def _check(api: ApiKey, version: int) -> None:
    low, high = API_VERSIONS[api]
    if api is ApiKey.PRODUCE:
        low = PRODUCE_VERSION_MIN
    if not low <= version <= high:
        raise UnsupportedVersion(f"{api.name} v{version} is outside {low} to {high}")


def decode_request(api: ApiKey, version: int, body: bytes) -> Any:
    """Decode a request body (header excluded); bytes after it are ignored, as Kafka does.

    Raises: MalformedMessage, UnsupportedVersion. Never takes more memory than a small multiple of the body's size.
    """
    if len(body) > REQUEST_ITEMS_MAX:  # an item takes a byte at least
        return _counting_decoder(api, version)(body)
    return _decoder(api, version, "request")(body)


def encode_request(api: ApiKey, version: int, message: Any) -> bytes:
    """Encode a request body (header excluded). Fields that the version lacks are left out; see `writer` for None."""
    return _encoder(api, version, "request")(message)


def decode_response(api: ApiKey, version: int, body: bytes) -> Any:
    """Decode a response body (header excluded). Unknown error codes become UNKNOWN_SERVER_ERROR.

    Raises: MalformedMessage, UnsupportedVersion.
    """
    return _decoder(api, version, "response")(body)


def encode_response(api: ApiKey, version: int, message: Any) -> bytes:
    """Encode a response body (header excluded). Fields that the version lacks are left out; see `writer` for None."""
    return _encoder(api, version, "response")(message)


@functools.cache
def is_flexible(api: ApiKey, version: int) -> bool:
    """Whether this version uses compact types and tagged fields (KIP-482)."""
    _check(api, version)
    return message_shape(api, version, "request").is_flexible


def response_class(api: ApiKey) -> type:
    """Return our response dataclass of an API."""
    return getattr(message_module(api), message_name(api) + "Response")  # type: ignore[no-any-return]


_entity_readers: dict[type, Any] = {}
_entity_writers: dict[type, Any] = {}


def entity_reader(cls: type[T]) -> Callable[[bytes, int], tuple[T, int]]:
    """Return `read(buffer, position) -> (entity, size in bytes)` for a dataclass declared as kio declares its own.

    For formats that kio has no schema for: records of internal topics and of the metadata log. See `schema` for what
    the class must declare; it is also what is built. Reading raises MalformedMessage and nothing else.
    """
    read: Callable[[bytes, int], tuple[T, int]] | None = _entity_readers.get(cls)
    if read is not None:
        return read
    compiled = compile_reader(entity_shape(cls))

    def read_entity(buffer: bytes, position: int) -> tuple[T, int]:
        try:
            entity, end = compiled(buffer, position, len(buffer))
        except (IndexError, struct.error):
            raise MalformedMessage(f"{cls.__name__} is cut short") from None
        return entity, end - position

    _entity_readers[cls] = read_entity
    return read_entity


def entity_writer(cls: type[T]) -> Callable[[bytearray, T], None]:
    """Return `write(buffer, entity)` for a dataclass declared as kio declares its own; appends to the buffer."""
    write: Callable[[bytearray, T], None] | None = _entity_writers.get(cls)
    if write is None:
        write = _entity_writers[cls] = compile_writer(entity_shape(cls))
    return write
