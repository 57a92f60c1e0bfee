"""Compiled writers: a message dataclass to bytes.

A None in a field that is not nullable in the version at hand is written as the zero of its type, as Kafka's handlers
do for old clients. Tagged fields that hold their default are left out, as are fields that the version lacks.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from typing import Any, Final

from ottla.protocol.schema import FieldShape, StructShape, default_of

type_writer = Callable[[bytearray, Any], None]

_UUID_ZERO: Final = uuid.UUID(int=0)


def _uvarint(o: bytearray, value: int) -> None:
    while value > 0x7F:
        o.append(value & 0x7F | 0x80)
        value >>= 7
    o.append(value)


_COMMON: Final[dict[str, Any]] = {
    "uvarint": _uvarint,
    "uuid_zero": _UUID_ZERO,
    "pack": struct.pack,
    "i16": struct.Struct(">h").pack,
    "i32": struct.Struct(">i").pack,
}


class _Source:
    """The text of one writer function and the objects it refers to."""

    def __init__(self, shape: StructShape) -> None:
        self.shape = shape
        self.target = shape.target
        self.flexible = shape.is_flexible
        self.env: dict[str, Any] = dict(_COMMON)
        self.lines: list[str] = ["def write(o, m):"]

    def build(self) -> type_writer:
        fields = self.shape.fields
        run: list[tuple[int, FieldShape]] = []
        for i, shape in enumerate(fields):
            if shape.tag is not None:
                continue
            if shape.format is not None and not shape.is_array:
                run.append((i, shape))
                continue
            self._fixed(run)
            self._variable(i, shape, "    ", "o")
        self._fixed(run)
        if self.flexible:
            self._tags(fields)
        if len(self.lines) == 1:
            self.lines.append("    return None")
        exec("\n".join(self.lines), self.env)  # our own text, from field names alone
        return self.env["write"]  # type: ignore[no-any-return]

    def _fixed(self, run: list[tuple[int, FieldShape]], indent: str = "    ", out: str = "o") -> None:
        """Write neighbouring fixed-size fields with one pack."""
        if not run:
            return
        name = f"s{run[0][0]}"
        self.env[name] = struct.Struct(">" + "".join(shape.format or "" for _, shape in run)).pack
        values = [f"(m.{s.name} or uuid_zero).bytes" if s.kind == "uuid" else f"m.{s.name}" for _, s in run]
        self.lines.append(f"{indent}{out} += {name}({', '.join(values)})")
        run.clear()

    def _length(self, size: str, compact: bool, indent: str, out: str, value: str) -> None:
        if compact:
            self.lines += [
                f"{indent}k = {value}",
                f"{indent}if k < 127:",
                f"{indent}    {out}.append(k + 1)",
                f"{indent}else:",
                f"{indent}    uvarint({out}, k + 1)",
            ]
        else:
            self.lines.append(f"{indent}{out} += {size}({value})")

    def _variable(self, i: int, shape: FieldShape, indent: str, out: str) -> None:
        """Write a string, bytes, a struct or an array."""
        self.lines.append(f"{indent}x = m.{shape.name}")
        if shape.struct is not None and not shape.is_array:
            self._struct(i, shape, indent, out)
            return
        compact = self.flexible
        size = "i16" if shape.kind == "string" and not shape.is_array else "i32"
        self.lines.append(f"{indent}if x is None:")
        self._length(size, compact, indent + "    ", out, "-1" if shape.nullable else "0")
        self.lines.append(f"{indent}else:")
        inner = indent + "    "
        if shape.is_array:
            self._items(i, shape, inner, out)
        else:
            self._bytes(shape, compact, inner, out, size)

    def _bytes(self, shape: FieldShape, compact: bool, indent: str, out: str, size: str) -> None:
        if shape.kind == "string":
            self.lines.append(f"{indent}x = x.encode()")
        self._length(size, compact, indent, out, "len(x)")
        self.lines.append(f"{indent}{out} += x")

    def _struct(self, i: int, shape: FieldShape, indent: str, out: str) -> None:
        assert shape.struct is not None
        self.env[f"w{i}"] = compile_writer(shape.struct)
        if shape.nullable:  # KIP-893: a byte in front says whether the struct is there; in a tagged field 0 says no
            self.lines += [
                f"{indent}if x is None:",
                f"{indent}    {out}.append({255 if shape.tag is None else 0})",
                f"{indent}else:",
                f"{indent}    {out}.append(1)",
                f"{indent}    w{i}({out}, x)",
            ]
        else:
            self.env[f"d{i}"] = shape.struct.target()
            self.lines.append(f"{indent}w{i}({out}, d{i} if x is None else x)")

    def _items(self, i: int, shape: FieldShape, indent: str, out: str) -> None:
        self._length("i32", self.flexible, indent, out, "len(x)")
        if shape.format is not None and shape.kind != "uuid":
            self.lines.append(f"{indent}{out} += pack(f'>{{len(x)}}{shape.format}', *x)")
            return
        self.lines.append(f"{indent}for x in x:")
        inner = indent + "    "
        if shape.struct is not None:
            self.env[f"w{i}"] = compile_writer(shape.struct)
            self.lines.append(f"{inner}w{i}({out}, x)")
        elif shape.kind == "uuid":
            self.lines.append(f"{inner}{out} += (x or uuid_zero).bytes")
        else:
            self._bytes(shape, self.flexible, inner, out, "i16" if shape.kind == "string" else "i32")

    def _tags(self, fields: tuple[FieldShape, ...]) -> None:
        tagged = sorted(((s.tag, i, s) for i, s in enumerate(fields) if s.tag is not None), key=lambda row: row[0])
        if not tagged:
            self.lines.append("    o.append(0)")
            return
        self.lines += ["    c = 0", "    q = bytearray()"]
        for tag, i, shape in tagged:
            self.env[f"e{i}"] = default_of(self.target, shape.name)
            self.lines += [f"    if m.{shape.name} != e{i}:", "        c += 1", "        t = bytearray()"]
            if shape.format is not None and not shape.is_array:
                self._fixed([(i, shape)], "        ", "t")
            else:
                self._variable(i, shape, "        ", "t")
            self.lines += [f"        uvarint(q, {tag})", "        uvarint(q, len(t))", "        q += t"]
        self.lines += ["    o.append(c)", "    o += q"]


def compile_writer(shape: StructShape) -> type_writer:
    """Return `write(buffer, message)`, which appends to a bytearray."""
    return _Source(shape).build()
