"""The shape of a message on the wire, read off a kio dataclass.

kio generates one dataclass per (API, version) from Kafka's schemas. Only these descriptions are used, not kio's own
reader: it takes the memory that an array's length announces before it looks at the bytes, so that twenty bytes
from a client abort the process; it also fails on an error code that it does not know.

Any dataclass declared in the same way works: `__flexible__` as a class variable, `kafka_type` (and `tag`) in the
metadata of each field.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin

FIXED_FORMATS: Final[dict[str, str]] = {
    "bool": "?",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "error_code": "h",
    "int32": "i",
    "uint32": "I",
    "timedelta_i32": "i",
    "int64": "q",
    "uint64": "Q",
    "timedelta_i64": "q",
    "datetime_i64": "q",
    "float64": "d",
    "uuid": "16s",
}
"""Types of fixed size, by their `struct` format. Durations and points in time are integers of milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldShape:
    """One field on the wire.

    Attributes:
        name: Attribute of the message dataclass.
        kind: kio's name of the type; "struct" for a nested class.
        struct: The nested kio class, if any.
        is_array: Whether the field is an array of `kind`.
        nullable: Whether the value (the array itself, if it is one) may be null on the wire.
        tag: Number of a tagged field (KIP-482), None for an ordinary one.
        legacy: Encoded as before KIP-482 although the message is flexible (the client id of a request header).
    """

    name: str
    kind: str
    struct: type | None
    is_array: bool
    nullable: bool
    tag: int | None
    legacy: bool

    @property
    def format(self) -> str | None:
        """The `struct` format of a fixed-size item; None for strings, bytes and structs."""
        return FIXED_FORMATS.get(self.kind)


def unified_field_name(f: dataclasses.Field[Any]) -> str:
    """The name of a kio field in our dataclasses: units last."""
    kafka_type = f.metadata.get("kafka_type", "")
    return f.name + "_ms" if kafka_type.startswith(("timedelta_", "datetime_")) else f.name


def _strip(annotation: Any) -> tuple[Any, bool]:
    """Return (the type without None, whether None was there)."""
    if get_origin(annotation) in (UnionType, Union):
        return next(a for a in get_args(annotation) if a is not NoneType), True
    return annotation, False


@functools.cache
def shapes(cls: type) -> tuple[FieldShape, ...]:
    """Return the fields of a kio-style dataclass in wire order."""
    found = []
    is_header = cls.__name__ == "RequestHeader"
    for f in dataclasses.fields(cls):
        item, nullable = _strip(f.type)
        is_array = get_origin(item) is tuple
        if is_array:
            item, _ = _strip(get_args(item)[0])
        nested = item if dataclasses.is_dataclass(item) else None
        found.append(
            FieldShape(
                name=unified_field_name(f),
                kind="struct" if nested is not None else f.metadata["kafka_type"],
                struct=nested,  # type: ignore[arg-type]
                is_array=is_array,
                nullable=nullable,
                tag=f.metadata.get("tag"),
                legacy=is_header and f.name == "client_id",
            )
        )
    return tuple(found)


def is_flexible(cls: type) -> bool:
    """Whether this class uses compact types and tagged fields (KIP-482)."""
    return bool(cls.__flexible__)  # type: ignore[attr-defined]


def default_of(target: type, name: str) -> Any:
    """Return the default of one field of a message dataclass (frozen, so that it may be shared)."""
    f = next(f for f in dataclasses.fields(target) if f.name == name)
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    return f.default
