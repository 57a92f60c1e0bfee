"""Java's properties format, by the rules of `java.util.Properties`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.broker.properties import InvalidProperties, format_properties, parse_properties


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1\nb = 2\nc:3\nd 4\ne", {"a": "1", "b": "2", "c": "3", "d": "4", "e": ""}),
        ("# a=1\n ! b=2\n\n  c=3", {"c": "3"}),
        ("a=1,\\\n   2,\\\n   3\nb=4", {"a": "1,2,3", "b": "4"}),
        ("a\\ b\\=c=d=e", {"a b=c": "d=e"}),
        ("a=\\u00e4\\tb\\\\", {"a": "ä\tb\\"}),
        ("a=1\na=2", {"a": "2"}),
        ("a==b", {"a": "=b"}),
        ("path=C:\\\\x # not a comment", {"path": "C:\\x # not a comment"}),
    ],
)
def test_parse(text: str, expected: dict[str, str]) -> None:
    assert parse_properties(text) == expected


def test_a_broken_escape_is_refused() -> None:
    with pytest.raises(InvalidProperties):
        parse_properties("a=\\u12")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\f\v\x1c\x1d\x1e\x85\u2028\u2029"))


@given(st.dictionaries(TEXT.filter(bool), TEXT))
def test_what_is_formatted_is_parsed_alike(values: dict[str, str]) -> None:
    assert parse_properties(format_properties(values)) == values
