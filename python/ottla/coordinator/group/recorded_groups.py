"""Groups that live from their records alone (KIP-848, KIP-932), by their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

K = TypeVar("K", bound="GroupKey")
K_contra = TypeVar("K_contra", contravariant=True)
V = TypeVar("V")
V_contra = TypeVar("V_contra", contravariant=True)


class GroupKey(Protocol):
    """The key of a record."""

    @property
    def group(self) -> str: ...


class RecordedGroup(Protocol[K_contra, V_contra]):
    """What its records say, and what follows from it."""

    @property
    def exists(self) -> bool:
        """Whether a record tells of it, be it one that is not yet committed."""

    @property
    def is_committed(self) -> bool:
        """Whether a committed record tells of it."""

    @property
    def is_blank(self) -> bool:
        """Whether nothing is left of it and nothing can come back."""

    def replay(self, key: K_contra, value: V_contra | None, *, offset: int) -> None:
        """Take in a record; None: a tombstone."""

    def rebuild(self) -> None:
        """Records were taken back: derive everything again."""


G = TypeVar("G", bound=RecordedGroup[Any, Any])


class RecordedGroups(Generic[G, K, V]):
    """The groups of one kind of one shard; `replay` alone changes what is durable of them."""

    def __init__(self, make_blank: Callable[[str], G]) -> None:
        self._make_blank = make_blank
        self._groups: dict[str, G] = {}

    def get(self, group_id: str) -> G | None:
        """A group that exists, be it only by records that are not yet committed."""
        group = self._groups.get(group_id)
        return group if group is not None and group.exists else None

    def get_committed(self, group_id: str) -> G | None:
        """A group of which committed records tell."""
        group = self._groups.get(group_id)
        return group if group is not None and group.is_committed else None

    def get_or_blank(self, group_id: str) -> G:
        """A group as it is, or as it begins; it exists once its first records are replayed."""
        group = self._groups.get(group_id)
        if group is None:
            group = self._groups[group_id] = self._make_blank(group_id)
        return group

    def __iter__(self) -> Iterator[G]:
        """Those that exist."""
        return (group for group in list(self._groups.values()) if group.exists)

    def committed(self) -> Iterator[G]:
        """Those of which committed records tell."""
        return (group for group in list(self._groups.values()) if group.is_committed)

    def replay(self, key: K, value: V | None, *, offset: int) -> None:
        if value is not None or key.group in self._groups:
            self.get_or_blank(key.group).replay(key, value, offset=offset)

    def rebuild(self) -> None:
        """Records were taken back."""
        for group in self._groups.values():
            group.rebuild()

    def sweep(self) -> None:
        """Forget groups of which nothing is left for good."""
        for group_id in [group_id for group_id, group in self._groups.items() if group.is_blank]:
            del self._groups[group_id]
