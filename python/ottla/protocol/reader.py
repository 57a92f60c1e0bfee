"""Compiled readers: bytes to a message dataclass, every length checked before anything is taken.

A reader is generated source, as a loop over field descriptions costs several times as much. Rules as in Kafka's
generated classes: a negative length is a null, a null where none may be closes the connection, malformed UTF-8 is
replaced, unknown tagged fields are skipped, an array must fit in what is left of the frame.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from typing import Any, Final

from ottla.errors import ErrorCode
from ottla.protocol.errors import MalformedMessage
from ottla.protocol.schema import FIXED_FORMATS, FieldShape, StructShape, default_of

type_reader = Callable[[bytes, int, int], tuple[Any, int]]

ARRAY_ITEMS_MAX: Final = 1_000_000
"""Items in one array; Kafka's own bound from 4.4 on. Far above what any client sends."""
REQUEST_ITEMS_MAX: Final = 100_000
"""Items in all arrays of one request: ten times what a broker is likely to hold of anything."""

_ERRORS: Final = {int(code): code for code in ErrorCode}
_UUID_ZERO: Final = bytes(16)


def _error(value: int) -> ErrorCode:
    """A code that this release does not know is an unknown error, not a broken message: brokers may be newer."""
    return _ERRORS.get(value, ErrorCode.UNKNOWN_SERVER_ERROR)


def _uuid(value: bytes) -> uuid.UUID | None:
    return None if value == _UUID_ZERO else uuid.UUID(bytes=value)


def _uvarint(b: bytes, p: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = b[p]
        p += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > 0x7FFF_FFFF:
                raise MalformedMessage(f"length {value} does not fit 31 bits")
            return value, p
        shift += 7
        if shift > 28:
            raise MalformedMessage("length of more than five bytes")


def _null(name: str) -> MalformedMessage:
    return MalformedMessage(f"{name} is null")


def _short(name: str, size: int, left: int) -> MalformedMessage:
    return MalformedMessage(f"{name} claims {size} where {left} bytes are left")


_COMMON: Final[dict[str, Any]] = {
    "error": _error,
    "make_uuid": _uuid,
    "uvarint": _uvarint,
    "null": _null,
    "short": _short,
    "unpack": struct.unpack_from,
    "i16": struct.Struct(">h").unpack_from,
    "i32": struct.Struct(">i").unpack_from,
    "i8": struct.Struct(">b").unpack_from,
}


def _size_min(shape: FieldShape, *, flexible: bool) -> int:
    """The fewest bytes one item (not the array) can take: at least one, so that a claimed count can be judged."""
    if shape.format is not None:
        return struct.calcsize(">" + shape.format)
    if shape.struct is None:
        return 1 if flexible else (2 if shape.kind == "string" else 4)
    inner = [s for s in shape.struct.fields if s.tag is None]
    compact = shape.struct.is_flexible
    total = sum((1 if compact else 4) if s.is_array else _size_min(s, flexible=compact) for s in inner)
    return max(1, total + compact)


class CountedSize(int):
    """The size of a message, with what is left of the items that its arrays may have: what a counting reader wants."""

    items_left = REQUEST_ITEMS_MAX

    def take(self, name: str, count: int) -> None:
        """Raises: MalformedMessage."""
        self.items_left -= count
        if self.items_left < 0:
            raise MalformedMessage(f"{name} brings the items of the message above {REQUEST_ITEMS_MAX}")


class _Source:
    """The text of one reader function and the objects it refers to."""

    def __init__(self, shape: StructShape, *, counts: bool) -> None:
        self.counts = counts
        self.shape = shape
        self.target = shape.target
        self.flexible = shape.is_flexible
        self.env: dict[str, Any] = dict(_COMMON)
        self.lines: list[str] = ["def read(b, p, n):"]

    def build(self) -> type_reader:
        fields = self.shape.fields
        run: list[tuple[int, FieldShape]] = []
        for i, shape in enumerate(fields):
            if shape.tag is not None:
                continue
            if shape.format is not None and not shape.is_array:
                run.append((i, shape))
                continue
            self._fixed(run)
            self._variable(i, shape, "    ")
        self._fixed(run)
        if self.flexible:
            self._tags(fields)
        arguments = ", ".join(f"{shape.name}=v{i}" for i, shape in enumerate(fields))
        self.env["target"] = self.target
        self.lines.append(f"    return target({arguments}), p")
        exec("\n".join(self.lines), self.env)  # our own text, from field names alone
        return self.env["read"]  # type: ignore[no-any-return]

    def _fixed(self, run: list[tuple[int, FieldShape]], indent: str = "    ") -> None:
        """Read neighbouring fixed-size fields with one unpack."""
        if not run:
            return
        packed = struct.Struct(">" + "".join(FIXED_FORMATS[shape.kind] for _, shape in run))
        name = f"s{run[0][0]}"
        self.env[name] = packed.unpack_from
        self.lines.append(f"{indent}{' '.join(f'v{i},' for i, _ in run)} = {name}(b, p)")
        self.lines.append(f"{indent}p += {packed.size}")
        for i, shape in run:
            if shape.kind == "error_code":
                self.lines.append(f"{indent}v{i} = error(v{i})")
            elif shape.kind == "uuid":
                self.lines.append(f"{indent}v{i} = make_uuid(v{i})")
        run.clear()

    def _length(self, size: str, compact: bool, indent: str) -> None:
        """Leave the length in `k`, negative for null."""
        if compact:
            self.lines += [
                f"{indent}k = b[p] - 1",
                f"{indent}p += 1",
                f"{indent}if k >= 127:",
                f"{indent}    k, p = uvarint(b, p - 1)",
                f"{indent}    k -= 1",
            ]
        else:
            self.lines += [f"{indent}k, = {size}(b, p)", f"{indent}p += {2 if size == 'i16' else 4}"]

    def _variable(self, i: int, shape: FieldShape, indent: str) -> None:
        """Read a string, bytes, a struct or an array."""
        if shape.struct is not None and not shape.is_array:
            self._struct(i, shape, indent)
            return
        compact = self.flexible
        self._length("i16" if shape.kind == "string" and not shape.is_array else "i32", compact, indent)
        self.lines.append(f"{indent}if k < 0:")
        if shape.nullable:
            self.lines.append(f"{indent}    v{i} = None")
        else:
            self.lines.append(f"{indent}    raise null({shape.name!r})")
        self.lines.append(f"{indent}else:")
        inner = indent + "    "
        if shape.is_array:
            self._items(i, shape, inner)
            return
        self._slice(shape.name, inner)
        value = 'str(b[p:e], "utf-8", "replace")' if shape.kind == "string" else "b[p:e]"
        self.lines += [f"{inner}v{i} = {value}", f"{inner}p = e"]

    def _slice(self, name: str, indent: str) -> None:
        self.lines += [f"{indent}e = p + k", f"{indent}if e > n:", f"{indent}    raise short({name!r}, k, n - p)"]

    def _struct(self, i: int, shape: FieldShape, indent: str) -> None:
        assert shape.struct is not None
        self.env[f"r{i}"] = compile_reader(shape.struct, counts=self.counts)
        if shape.nullable:  # KIP-893: a byte in front says whether the struct is there; in a tagged field 0 says no
            self.lines += [
                f"{indent}k, = i8(b, p)",
                f"{indent}p += 1",
                f"{indent}if k < {0 if shape.tag is None else 1}:",
                f"{indent}    v{i} = None",
                f"{indent}else:",
            ]
            indent += "    "
        self.lines.append(f"{indent}v{i}, p = r{i}(b, p, n)")

    def _items(self, i: int, shape: FieldShape, indent: str) -> None:
        size = _size_min(shape, flexible=self.flexible)
        self.lines += [
            f"{indent}if k * {size} > n - p or k > {ARRAY_ITEMS_MAX}:",
            f"{indent}    raise short({shape.name!r}, k, n - p)",
        ]
        if self.counts:
            self.lines.append(f"{indent}n.take({shape.name!r}, k)")
        if shape.format is not None and shape.kind not in ("error_code", "uuid"):
            self.lines += [
                f"{indent}v{i} = unpack(f'>{{k}}{shape.format}', b, p)",
                f"{indent}p += k * {size}",
            ]
            return
        self.lines += [f"{indent}a{i} = []", f"{indent}for _ in range(k):"]
        inner = indent + "    "
        if shape.struct is not None:
            self.env[f"r{i}"] = compile_reader(shape.struct, counts=self.counts)
            self.lines.append(f"{inner}x, p = r{i}(b, p, n)")
        elif shape.format is not None:
            make = "error(i16(b, p)[0])" if shape.kind == "error_code" else "make_uuid(b[p:p + 16])"
            self.lines += [f"{inner}x = {make}", f"{inner}p += {size}"]
        else:
            self._length("i16" if shape.kind == "string" else "i32", self.flexible, inner)
            self.lines += [f"{inner}if k < 0:", f"{inner}    raise null({shape.name!r})"]
            self._slice(shape.name, inner)
            value = 'str(b[p:e], "utf-8", "replace")' if shape.kind == "string" else "b[p:e]"
            self.lines += [f"{inner}x = {value}", f"{inner}p = e"]
        self.lines += [f"{inner}a{i}.append(x)", f"{indent}v{i} = tuple(a{i})"]

    def _tags(self, fields: tuple[FieldShape, ...]) -> None:
        for i, shape in enumerate(fields):
            if shape.tag is not None:
                self.env[f"d{i}"] = default_of(self.target, shape.name)
                self.lines.append(f"    v{i} = d{i}")
        self.lines += [
            "    c = b[p]",
            "    p += 1",
            "    if c:",
            "        c, p = uvarint(b, p - 1)",
            "        for _ in range(c):",
            "            t, p = uvarint(b, p)",
            "            z, p = uvarint(b, p)",
            "            if p + z > n:",
            "                raise short('tagged field', z, n - p)",
        ]
        word = "if"
        for i, shape in enumerate(fields):
            if shape.tag is None:
                continue
            self.lines.append(f"            {word} t == {shape.tag}:")
            word = "elif"
            if shape.format is not None and not shape.is_array:
                self._fixed([(i, shape)], "                ")
            else:
                self._variable(i, shape, "                ")
        self.lines += ["            else:", "                p += z"] if word == "elif" else ["            p += z"]


def compile_reader(shape: StructShape, *, counts: bool = False) -> type_reader:
    """Return `read(buffer, position, size) -> (message, position after it)`.

    The reader raises MalformedMessage, IndexError or struct.error; callers make one of them all.

    Args:
        counts: Refuse a message whose arrays have too many items, all of them together; its size is a `CountedSize`.
    """
    return _Source(shape, counts=counts).build()
