"""What a scenario is: a load for one server, the figures that it returns, and what they should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.load import Tools
from bench.servers import Server

GB = 1e9


@dataclass(frozen=True, slots=True)
class Goal:
    """`ratio_max` (or min): Ottla's figure over Kafka's. `absolute_max`: Ottla's own figure."""

    figure: str
    ratio_max: float | None = None
    ratio_min: float | None = None
    absolute_max: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load. Scenarios of one run share a server, in order; `run` returns figures by name.

    Of several rounds the medians count: for what takes seconds, and changes with the machine from one to the next.
    """

    name: str
    run: Callable[[Server, Tools], dict[str, float]]
    goals: tuple[Goal, ...]
    rounds: int = 1
    unhindered: Callable[[Server, Tools], dict[str, float]] | None = None
    """The figures that are the load's own, of a server that keeps nothing: no broker can reach better ones."""


def no_worse(*figures: str) -> tuple[Goal, ...]:
    """At most Kafka's."""
    return tuple(Goal(figure, ratio_max=1.0) for figure in figures)
