"""Java's `.properties` format: `server.properties` and `meta.properties`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from string import hexdigits
from typing import Final

_ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


class InvalidProperties(ValueError):
    """A text that is no properties file."""


def _logical_lines(text: str) -> Iterator[str]:
    """Join lines that end in an odd number of backslashes, leave out comments and blank lines."""
    pending = ""
    for line in text.splitlines():
        line = line.lstrip(" \t\f")
        if not pending and (not line or line[0] in "#!"):
            continue
        pending += line
        if (len(pending) - len(pending.rstrip("\\"))) % 2:
            pending = pending[:-1]
            continue
        yield pending
        pending = ""
    if pending:
        yield pending


def _unescape(text: str) -> str:
    out = []
    rest = iter(text)
    for char in rest:
        if char != "\\":
            out.append(char)
            continue
        escaped = next(rest, "")
        if escaped != "u":
            out.append(_ESCAPES.get(escaped, escaped))
            continue
        digits = "".join(next(rest, "") for _ in range(4))
        if len(digits) != 4 or any(digit not in hexdigits for digit in digits):
            raise InvalidProperties(f"\\u{digits} is no character")
        out.append(chr(int(digits, 16)))
    return "".join(out)


def _split(line: str) -> tuple[str, str]:
    position = 0
    while position < len(line) and line[position] not in "=: \t\f":
        position += 2 if line[position] == "\\" else 1
    key, rest = line[:position], line[position:].lstrip(" \t\f")
    if rest[:1] in ("=", ":"):
        rest = rest[1:].lstrip(" \t\f")
    return _unescape(key), _unescape(rest)


def parse_properties(text: str) -> dict[str, str]:
    """Return the keys and values; of a repeated key the last one. Raises InvalidProperties."""
    return dict(map(_split, _logical_lines(text)))


def format_properties(values: Mapping[str, str]) -> str:
    """Return a properties file, keys sorted."""

    def escape(text: str, *, key: bool) -> str:
        out = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
        if key:
            for char in "=: #!":
                out = out.replace(char, "\\" + char)
        elif out.startswith(" "):
            out = "\\" + out
        return out

    return "".join(f"{escape(key, key=True)}={escape(values[key], key=False)}\n" for key in sorted(values))
