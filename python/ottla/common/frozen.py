"""Values that nobody changes, at the price of ones that could be changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

C = TypeVar("C")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def frozen(cls: type[C]) -> type[C]:
    """Make a dataclass with slots and keyword arguments, equal and hashed by its fields, that is not to be changed.

    The type checker holds that, not the interpreter: `dataclass(frozen=True)` sets every field through a call of
    `object.__setattr__`, which makes an object of nine fields three and a half times as dear (CPython 3.11), and a
    request that is answered in Python makes some five of them.
    """
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)
