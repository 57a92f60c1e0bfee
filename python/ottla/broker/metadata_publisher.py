"""The one place where committed metadata becomes the state of this broker's partitions."""

from __future__ import annotations

from ottla.metadata.image import EMPTY_IMAGE, MetadataImage


class MetadataPublisher:
    """Holds the image that requests are answered from."""

    def __init__(self) -> None:
        self.image: MetadataImage = EMPTY_IMAGE
