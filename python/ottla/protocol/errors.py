"""What can go wrong between bytes and messages."""

from __future__ import annotations


class MalformedMessage(Exception):
    """Bytes that are no message of the API and version they claim. The connection is to be closed."""


class UnsupportedVersion(Exception):
    """An API key or version that does not exist in Kafka 4.3."""
