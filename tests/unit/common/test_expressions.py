"""Regular expressions of clients."""

from __future__ import annotations

import pytest

from ottla.common.expressions import InvalidExpression, compiled


def test_time_is_linear() -> None:
    """An engine that backtracks would take longer than anybody waits."""
    assert compiled("(a|aa)+(a|aa)+(a|aa)+b").fullmatch("a" * 100_000) is None


@pytest.mark.parametrize("expression", ["(", "(?=a)", r"(a)\1", "a{2000}"])
def test_what_re2_cannot_read(expression: str) -> None:
    with pytest.raises(InvalidExpression, match=r"\w"):
        compiled(expression)
