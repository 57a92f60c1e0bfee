"""Regular expressions that come from clients.

They run on RE2, whose time is linear in the text whatever the expression; Kafka's RE2/J speaks the same language.
"""

from __future__ import annotations

from typing import Any


class InvalidExpression(ValueError):
    """RE2 cannot read it; the message says why."""


def compiled(expression: str) -> Any:
    """A compiled expression of RE2, with `fullmatch` and more of what `re` has. Raises: InvalidExpression."""
    # Imported on first use: few clients send any.
    import re2

    try:
        return re2.compile(expression, quiet_options())
    except re2.error as error:
        (reason,) = error.args
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        raise InvalidExpression(text) from None


def quiet_options() -> object:
    """RE2's defaults, without a line on stderr for each expression that it cannot read."""
    import re2

    options = re2.Options()
    options.log_errors = False
    return options
