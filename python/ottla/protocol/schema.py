"""The shape of a message on the wire: which fields, of which type, in which order.

Two sources. Messages: each generated module of `ottla.protocol.messages` carries a `SCHEMA` text beside its
dataclasses, made from kio's schemas when the modules are generated. kio itself is not imported at run time: its own
reader takes the memory that an array's length announces before it looks at the bytes, so that twenty bytes from a
client abort the process, and importing it costs more than all else that a broker imports. Records of internal topics:
dataclasses that declare `__flexible__` and give each field a `kafka_type` (and a `tag`) in its metadata, as kio does.

A `SCHEMA` text: a line `ClassName`, then a line for each field in wire order, `name type versions [tagN]`. A type in
brackets is an array, a question mark behind it means that null is allowed, a capital starts a nested class. A field
whose type differs between versions has several lines.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType, NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from ottla.protocol.versions import ApiKey

Side = Literal["request", "response"]

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
        kind: Name of the type; "struct" for a nested class.
        struct: The nested class, if it is one.
        is_array: Whether the field is an array of `kind`.
        nullable: Whether the value (the array itself, if it is one) may be null on the wire.
        tag: Number of a tagged field (KIP-482), None for an ordinary one.
    """

    name: str
    kind: str
    struct: StructShape | None
    is_array: bool
    nullable: bool
    tag: int | None

    @property
    def format(self) -> str | None:
        """The `struct` format of a fixed-size item; None for strings, bytes and structs."""
        return FIXED_FORMATS.get(self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class StructShape:
    """A class on the wire: the dataclass that stands for it, its fields in order, and whether KIP-482 applies."""

    target: type
    fields: tuple[FieldShape, ...]
    is_flexible: bool


def message_name(api: ApiKey) -> str:
    """`ListOffsets` for LIST_OFFSETS."""
    return "".join(part.title() for part in api.name.split("_"))


def message_module(api: ApiKey) -> ModuleType:
    """The generated module of an API. Imported on first use."""
    return import_module(f"ottla.protocol.messages.{api.name.lower()}")


@functools.cache
def message_shape(api: ApiKey, version: int, side: Side) -> StructShape:
    """The shape of a request or response in one version."""
    module = message_module(api)
    flexible_from = module.REQUEST_FLEXIBLE_FROM if side == "request" else module.RESPONSE_FLEXIBLE_FROM
    classes = _parsed(api)
    is_flexible = flexible_from is not None and version >= flexible_from
    return _shape_of(module, classes, message_name(api) + side.title(), version, is_flexible)


@functools.cache
def _parsed(api: ApiKey) -> dict[str, list[list[str]]]:
    """The lines of each class of an API's `SCHEMA`, split into words."""
    classes: dict[str, list[list[str]]] = {}
    lines: list[list[str]] = []
    for line in message_module(api).SCHEMA.split("\n"):
        words = line.split()
        if len(words) == 1:
            lines = classes[words[0]] = []
        elif words:
            lines.append(words)
    return classes


def _shape_of(
    module: ModuleType, classes: dict[str, list[list[str]]], name: str, version: int, is_flexible: bool
) -> StructShape:
    fields = []
    for field_name, kind, versions, *rest in classes[name]:
        low, _, high = versions.partition("-")
        if not int(low) <= version <= int(high or low):
            continue
        nullable = kind.endswith("?")
        kind = kind.removesuffix("?")
        is_array = kind.startswith("[")
        kind = kind.strip("[]")
        is_struct = kind[0].isupper()
        fields.append(
            FieldShape(
                name=field_name,
                kind="struct" if is_struct else kind,
                struct=_shape_of(module, classes, kind, version, is_flexible) if is_struct else None,
                is_array=is_array,
                nullable=nullable,
                tag=int(rest[0].removeprefix("tag")) if rest else None,
            )
        )
    return StructShape(target=getattr(module, name), fields=tuple(fields), is_flexible=is_flexible)


def unified_field_name(f: dataclasses.Field[Any]) -> str:
    """The name of a kio field in our dataclasses: units last."""
    kafka_type = f.metadata.get("kafka_type", "")
    return f.name + "_ms" if kafka_type.startswith(("timedelta_", "datetime_")) else f.name


def _strip(annotation: Any) -> tuple[Any, bool]:
    """Return (the type without None, whether None was there)."""
    if get_origin(annotation) in (UnionType, Union):
        return next(a for a in get_args(annotation) if a is not NoneType), True
    return annotation, False


def entity_shape(cls: type) -> StructShape:
    """The shape that a dataclass declares for itself; it is also what stands for it."""
    fields = []
    for f in dataclasses.fields(cls):
        item, nullable = _strip(f.type)
        is_array = get_origin(item) is tuple
        if is_array:
            item, _ = _strip(get_args(item)[0])
        struct = entity_shape(item) if dataclasses.is_dataclass(item) and isinstance(item, type) else None
        fields.append(
            FieldShape(
                name=unified_field_name(f),
                kind="struct" if struct is not None else f.metadata["kafka_type"],
                struct=struct,
                is_array=is_array,
                nullable=nullable,
                tag=f.metadata.get("tag"),
            )
        )
    return StructShape(target=cls, fields=tuple(fields), is_flexible=bool(cls.__flexible__))  # type: ignore[attr-defined]


def default_of(target: type, name: str) -> Any:
    """Return the default of one field of a message dataclass (frozen, so that it may be shared)."""
    f = next(f for f in dataclasses.fields(target) if f.name == name)
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    return f.default
