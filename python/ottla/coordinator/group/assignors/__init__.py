"""Server-side assignors of consumer groups (KIP-848): pure functions from members and topics to an assignment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ottla.coordinator.group.assignors.model import MemberSpec, Target, TopicDescriber
from ottla.coordinator.group.assignors.range import assign_range
from ottla.coordinator.group.assignors.uniform import assign_uniform

Assignor = Callable[[Mapping[str, MemberSpec], TopicDescriber], dict[str, Target]]

ASSIGNORS: Final[Mapping[str, Assignor]] = {"uniform": assign_uniform, "range": assign_range}
"""By the names that clients know them by."""
