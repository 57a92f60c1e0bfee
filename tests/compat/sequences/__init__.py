"""Random sequences of requests that two brokers are given alike, to compare their answers one by one.

A `World` is one side's topics, groups and ids; a step is the name of one of its methods with arguments that mean the
same on both sides (the second producer id that was given out, the member's last epoch). What is drawn next depends on
what the first side answered, as a client's next request would, and now and then on nothing at all.
"""

from __future__ import annotations

from random import Random
from typing import Any, Protocol

from tests.golden.lab import Answer, Lab, differences

Step = tuple[str, dict[str, Any]]
SHOWN_STEPS = 15
"""Of a sequence in which the sides differ."""


class World(Protocol):
    """One side."""

    def __init__(self, lab: Lab) -> None:
        """Make what the sequence works with, under the lab's name of this run."""

    def settle(self) -> bool:
        """Wait until nothing is under way; False: that does not end."""


class Draws(Protocol):
    """Chooses steps."""

    def __init__(self, random: Random) -> None: ...

    def step(self) -> Step:
        """What is asked next."""

    def learn(self, step: Step, answer: Answer) -> None:
        """See the first side's answer."""


def compare(sides: tuple[World, World], draws: Draws, *, steps: int) -> tuple[int, list[str]]:
    """Put steps on both sides until answers differ; returns how many were alike, and what to show of a difference."""
    one, other = sides
    told: list[str] = []
    for _ in range(steps):
        name, arguments = step = draws.step()
        expected = getattr(one, name)(**arguments)
        if not one.settle():
            break  # the first side is stuck in what it does about this, which is no answer to compare with
        found = getattr(other, name)(**arguments)
        if not other.settle():
            return len(told), [*told[-SHOWN_STEPS:], f"{name} {arguments}: this does not end"]
        if different := differences(expected, found):
            return len(told), [*told[-SHOWN_STEPS:], f"{name} {arguments}", *different]
        told.append(f"{name} {arguments} -> {expected}")
        draws.learn(step, expected)
    return len(told), []
