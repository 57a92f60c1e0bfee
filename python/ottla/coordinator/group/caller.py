"""Who asks a coordinator, and how the answer finds the way back."""

from __future__ import annotations

from typing import NamedTuple


class Caller(NamedTuple):
    """Who asks, and how the reply finds the way back."""

    token: int
    """Names the reply; unique among the shard's requests."""
    api_version: int
    client_id: str
    client_host: str
    """As Kafka writes it: a slash and the address."""
    unique_id: str
    """A fresh UUID in text, which becomes a part of a new member's id."""
