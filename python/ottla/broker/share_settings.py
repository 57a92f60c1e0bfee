"""What is configured for share groups: by the broker, and for single groups."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from ottla.broker.group_coordinator import GROUP_RESOURCE, group_settings
from ottla.broker.metadata_publisher import Published
from ottla.common.config import BrokerConfig
from ottla.metadata.image import ConfigResource, MetadataImage
from ottla.share.partition import ShareSettings

_KEYS: Final = {
    "record_lock_duration_ms": (
        "group.share.record.lock.duration.ms",
        "group.share.min.record.lock.duration.ms",
        "group.share.max.record.lock.duration.ms",
    ),
    "delivery_count_limit": (
        "group.share.delivery.count.limit",
        "group.share.min.delivery.count.limit",
        "group.share.max.delivery.count.limit",
    ),
    "partition_max_record_locks": (
        "group.share.partition.max.record.locks",
        "group.share.min.partition.max.record.locks",
        "group.share.max.partition.max.record.locks",
    ),
}
_DURATION: Final = re.compile(r"by_duration:P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?\Z", re.I)
LATEST: Final = -1
"""As a start: behind the last record."""
EARLIEST: Final = -2
"""As a start: at the first record."""


class ShareGroupSettings(NamedTuple):
    """What counts for one share group."""

    partitions: ShareSettings = ShareSettings()
    committed_only: bool = False
    """`share.isolation.level`."""
    start: int = LATEST
    """`share.auto.offset.reset`: LATEST, EARLIEST, or how many milliseconds before now."""


class ShareSettingsTable:
    """The settings of every share group, as they are now."""

    def __init__(self, config: BrokerConfig, image: Callable[[], MetadataImage]) -> None:
        self._config = config
        self._image = image
        self._known: dict[str, ShareGroupSettings] = {}

    def on_published(self, published: Published) -> None:
        """Follow the metadata."""
        if published.config is not self._config or published.delta.changed_configs:
            self._config = published.config
            self._known.clear()

    def of(self, group_id: str) -> ShareGroupSettings:
        """The settings of a group."""
        texts = self._image().configs.get(ConfigResource(GROUP_RESOURCE, group_id))
        # Whoever makes up names of groups fills no table.
        known = group_id if texts else ""
        found = self._known.get(known)
        if found is None:
            found = self._known[known] = share_group_settings(self._config, texts or {})
        return found


def share_group_settings(config: BrokerConfig, texts: Mapping[str, str]) -> ShareGroupSettings:
    """A group's settings out of the broker's and its own."""
    return ShareGroupSettings(
        ShareSettings(
            **group_settings(config, _KEYS, texts),
            renew_acknowledge_enable=texts.get("share.renew.acknowledge.enable", "true").lower() == "true",
        ),
        committed_only=texts.get("share.isolation.level", "").lower() == "read_committed",
        start=_start(texts.get("share.auto.offset.reset", "latest")),
    )


def _start(text: str) -> int:
    if text.lower() in ("latest", "earliest"):
        return EARLIEST if text.lower() == "earliest" else LATEST
    match = _DURATION.match(text)
    assert match is not None, f"{text!r} was let in as a configuration"
    days, hours, minutes, seconds = match.groups(default="0")
    return (int(days) * 24 * 60 + int(hours) * 60 + int(minutes)) * 60_000 + int(float(seconds) * 1000)
