"""Subscriptions by regular expression: which topics an expression means, and when to look again.

A new expression is looked up at once. All of a group's are looked up together, so that they make one rebalance: when
there are new topics, and now and then; but not more often than every ten seconds, as it takes a look at every topic.

Source: Kafka's `GroupMetadataManager.maybeUpdateRegularExpressions` and `TopicRegexResolver`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ottla.common.expressions import InvalidExpression, compiled, quiet_options
from ottla.coordinator.group.consumer import Refused
from ottla.coordinator.group.consumer_records import RegularExpressionValue
from ottla.coordinator.group.topic_metadata import Topics
from ottla.errors import ErrorCode

REFRESH_INTERVAL_MIN_MS: Final = 10_000


def check(regex: str) -> None:
    """Raises: Refused (INVALID_REGULAR_EXPRESSION)."""
    try:
        compiled(regex)
    except InvalidExpression as error:
        raise Refused(ErrorCode.INVALID_REGULAR_EXPRESSION, f"{regex!r} cannot be read: {error}.") from None


def due(
    known: Mapping[str, RegularExpressionValue | None], topics: Topics, *, wall_ms: int, refresh_interval_ms: int
) -> list[str]:
    """Which of a group's expressions have to be looked up now.

    Args:
        known: What was found last; None: nobody looked yet.
    """
    unknown = [regex for regex, found in known.items() if found is None]
    looked = [found for found in known.values() if found is not None]
    if unknown or not looked:
        return unknown
    last_ms = min(found.timestamp_ms for found in looked)
    is_outdated = min(found.version for found in looked) < topics.newest_topics_offset
    if wall_ms > last_ms + refresh_interval_ms or (is_outdated and wall_ms > last_ms + REFRESH_INTERVAL_MIN_MS):
        return list(known)
    return []


def resolve(regexes: Sequence[str], names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Those of `names` that each expression matches from end to end, sorted."""
    if not regexes:
        return {}
    import re2  # on first use: few groups subscribe so

    # A set looks for all expressions at once, and costs a sixth of what matching by a compiled one does.
    together = re2.Set.FullMatchSet(quiet_options())
    for regex in regexes:
        together.Add(regex)
    together.Compile()
    found: list[list[str]] = [[] for _ in regexes]
    for name in names:
        for index in together.Match(name) or ():
            found[index].append(name)
    return {regex: tuple(sorted(matching)) for regex, matching in zip(regexes, found, strict=True)}
