"""The configuration of a topic: Kafka's 33 keys, checked as it checks them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ottla.common.config.definition import (
    LONG_MAX,
    ConfigKey,
    ConfigType,
    InvalidConfig,
    UpdateMode,
    Valid,
    at_least,
    between,
    by_name,
    one_of,
    unique_list,
)

_THROTTLED = re.compile(r"[0-9]+:[0-9]+\Z")
_HOUR_MS: Final = 3_600_000


def _throttled_replicas(value: tuple[str, ...]) -> str | None:
    if value == ("*",) or all(_THROTTLED.match(entry) for entry in value):
        return None
    return "it must be * or a list of partition:broker"


def _gzip_level(value: int) -> str | None:
    return None if value == -1 or 1 <= value <= 9 else "it must be -1 or from 1 to 9"


CODEC: Final = one_of("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")
GZIP_LEVEL: Final = Valid("[1,...,9] or -1", _gzip_level)
LZ4_LEVEL: Final = between(1, 17)
ZSTD_LEVEL: Final = between(-131072, 22)
CLEANUP_POLICY: Final = unique_list("compact", "delete")
TIMESTAMP_TYPE: Final = one_of("CreateTime", "LogAppendTime")
SEGMENT_BYTES: Final = at_least(1024 * 1024)
_THROTTLE: Final = Valid("[partitionId]:[brokerId],[partitionId]:[brokerId],...", _throttled_replicas)
_BOOLEAN, _STRING, _INT, _LONG = ConfigType.BOOLEAN, ConfigType.STRING, ConfigType.INT, ConfigType.LONG
_DOUBLE, _LIST = ConfigType.DOUBLE, ConfigType.LIST


def _key(
    name: str,
    type: ConfigType,
    default: object,
    documentation: str,
    *synonyms: str | tuple[str, int],
    valid: Valid | None = None,
    honoured: bool = True,
    internal: bool = False,
) -> ConfigKey:
    return ConfigKey(
        name=name,
        type=type,
        default=None if default is None else str(default),
        valid=valid or Valid("", lambda _value: None),
        mode=UpdateMode.CLUSTER_WIDE,
        synonyms=tuple((s, 1) if isinstance(s, str) else s for s in synonyms),
        documentation=documentation,
        honoured=honoured,
        internal=internal,
    )


TOPIC_KEYS: Final[Mapping[str, ConfigKey]] = by_name(
    [
        _key(
            "cleanup.policy",
            _LIST,
            "delete",
            "How old data leaves the log: delete drops whole segments by age and size, compact keeps the last record "
            "of each key, both may be combined, and an empty list keeps everything.",
            "log.cleanup.policy",
            valid=CLEANUP_POLICY,
        ),
        _key(
            "compression.gzip.level",
            _INT,
            -1,
            "Effort of gzip where the broker compresses; -1 is the library's default.",
            "compression.gzip.level",
            valid=GZIP_LEVEL,
        ),
        _key(
            "compression.lz4.level",
            _INT,
            9,
            "Effort of lz4 where the broker compresses.",
            "compression.lz4.level",
            valid=LZ4_LEVEL,
        ),
        _key(
            "compression.type",
            _STRING,
            "producer",
            "Codec of the stored batches: producer keeps what the producer sent, any other name recompresses what "
            "comes in another codec.",
            "compression.type",
            valid=CODEC,
        ),
        _key(
            "compression.zstd.level",
            _INT,
            3,
            "Effort of zstd where the broker compresses.",
            "compression.zstd.level",
            valid=ZSTD_LEVEL,
        ),
        _key(
            "delete.retention.ms",
            _LONG,
            86_400_000,
            "How long a tombstone or transaction marker stays after the first compaction that saw it, so that a reader "
            "from the start has this long to meet it.",
            "log.cleaner.delete.retention.ms",
            valid=at_least(0),
        ),
        _key(
            "file.delete.delay.ms",
            _LONG,
            60_000,
            "Time between taking a segment out of the log and removing its files.",
            "log.segment.delete.delay.ms",
            valid=at_least(0),
        ),
        _key(
            "flush.messages",
            _LONG,
            LONG_MAX,
            "Sync the log to disk after this many records; 1 makes an acknowledgement wait until its records would "
            "survive a power failure.",
            "log.flush.interval.messages",
            valid=at_least(1),
        ),
        _key(
            "flush.ms",
            _LONG,
            LONG_MAX,
            "Longest time in milliseconds that records wait for a sync to disk.",
            "log.flush.interval.ms",
            "log.flush.scheduler.interval.ms",
            valid=at_least(0),
        ),
        _key(
            "follower.replication.throttled.replicas",
            _LIST,
            "",
            "Replicas whose fetching as a follower is throttled, each as partition:broker, or * for all.",
            valid=_THROTTLE,
            honoured=False,
        ),
        _key(
            "index.interval.bytes",
            _INT,
            4096,
            "Bytes of log between two entries of the offset index: fewer find an offset faster and make larger files.",
            "log.index.interval.bytes",
            valid=at_least(0),
        ),
        _key(
            "leader.replication.throttled.replicas",
            _LIST,
            "",
            "Replicas whose leader throttles what they fetch, each as partition:broker, or * for all.",
            valid=_THROTTLE,
            honoured=False,
        ),
        _key(
            "local.retention.bytes",
            _LONG,
            -2,
            "Bytes of a tiered partition that stay on the local disk; -2 means as many as retention.bytes.",
            "log.local.retention.bytes",
            valid=at_least(-2),
            honoured=False,
        ),
        _key(
            "local.retention.ms",
            _LONG,
            -2,
            "Time that a tiered partition's records stay on the local disk; -2 means as long as retention.ms.",
            "log.local.retention.ms",
            valid=at_least(-2),
            honoured=False,
        ),
        _key(
            "max.compaction.lag.ms",
            _LONG,
            LONG_MAX,
            "Longest time that a record may wait for compaction, whatever the share of the log still to clean.",
            "log.cleaner.max.compaction.lag.ms",
            valid=at_least(1),
        ),
        _key(
            "max.message.bytes",
            _INT,
            1_048_588,
            "Size in bytes of the largest record batch that is taken, after compression.",
            "message.max.bytes",
            valid=at_least(0),
        ),
        _key(
            "message.timestamp.after.max.ms",
            _LONG,
            _HOUR_MS,
            "How far a record's timestamp may lie ahead of the broker's clock before it is refused; only for "
            "CreateTime.",
            "log.message.timestamp.after.max.ms",
            valid=at_least(0),
        ),
        _key(
            "message.timestamp.before.max.ms",
            _LONG,
            LONG_MAX,
            "How far a record's timestamp may lie behind the broker's clock before it is refused; only for CreateTime.",
            "log.message.timestamp.before.max.ms",
            valid=at_least(0),
        ),
        _key(
            "message.timestamp.type",
            _STRING,
            "CreateTime",
            "Whose clock stamps the records: the producer's (CreateTime) or the broker's at the append "
            "(LogAppendTime).",
            "log.message.timestamp.type",
            valid=TIMESTAMP_TYPE,
        ),
        _key(
            "min.cleanable.dirty.ratio",
            _DOUBLE,
            0.5,
            "Share of a log that must be uncompacted before compaction takes it on: higher saves work and costs disk.",
            "log.cleaner.min.cleanable.ratio",
            valid=between(0, 1),
        ),
        _key(
            "min.compaction.lag.ms",
            _LONG,
            0,
            "Time for which a record is safe from compaction, so that readers within it see every version.",
            "log.cleaner.min.compaction.lag.ms",
            valid=at_least(0),
        ),
        _key(
            "min.insync.replicas",
            _INT,
            1,
            "Replicas that must be in sync for a write with acks=all to be taken; never more than the partition has.",
            "min.insync.replicas",
            valid=at_least(1),
        ),
        _key(
            "preallocate",
            _BOOLEAN,
            "false",
            "Whether a new segment's file is made at its full size at once.",
            "log.preallocate",
            honoured=False,
        ),
        _key(
            "remote.log.copy.disable",
            _BOOLEAN,
            "false",
            "Whether a tiered topic stops copying segments to remote storage.",
            honoured=False,
        ),
        _key(
            "remote.log.delete.on.disable",
            _BOOLEAN,
            "false",
            "Whether switching tiering off for a topic deletes what it has in remote storage.",
            honoured=False,
        ),
        _key(
            "remote.storage.enable",
            _BOOLEAN,
            "false",
            "Whether the topic is tiered; refused, as there is no remote storage here.",
            honoured=False,
        ),
        _key(
            "retention.bytes",
            _LONG,
            -1,
            "Bytes that each partition keeps under the delete policy; the oldest segments go first, -1 is no limit.",
            "log.retention.bytes",
        ),
        _key(
            "retention.ms",
            _LONG,
            604_800_000,
            "Age in milliseconds after which a segment goes under the delete policy; -1 is never.",
            "log.retention.ms",
            ("log.retention.minutes", 60_000),
            ("log.retention.hours", _HOUR_MS),
            valid=at_least(-1),
        ),
        _key(
            "segment.bytes",
            _INT,
            1024**3,
            "Size in bytes at which a segment is closed and a new one begun; deletion and compaction work on closed "
            "segments.",
            "log.segment.bytes",
            valid=SEGMENT_BYTES,
        ),
        _key(
            "segment.index.bytes",
            _INT,
            10 * 1024 * 1024,
            "Largest size of a segment's offset index; the segment is closed when it is full.",
            "log.index.size.max.bytes",
            valid=at_least(4),
        ),
        _key(
            "segment.jitter.ms",
            _LONG,
            0,
            "Random time taken off segment.ms for each segment, so that partitions do not all roll at one moment.",
            "log.roll.jitter.ms",
            ("log.roll.jitter.hours", _HOUR_MS),
            valid=at_least(0),
        ),
        _key(
            "segment.ms",
            _LONG,
            604_800_000,
            "Age in milliseconds at which a segment is closed even if it is not full.",
            "log.roll.ms",
            ("log.roll.hours", _HOUR_MS),
            valid=at_least(1),
        ),
        _key(
            "unclean.leader.election.enable",
            _BOOLEAN,
            "false",
            "Whether a replica that may lack acknowledged records can lead when no other is left: availability over "
            "data.",
            "unclean.leader.election.enable",
        ),
        _key("internal.segment.bytes", _INT, None, "Segment size without its lower bound, for tests.", internal=True),
    ]
)
"""Keys by name, the internal one included."""

DESCRIBED_TOPIC_KEYS: Final = tuple(key for name, key in sorted(TOPIC_KEYS.items()) if not key.internal)


def parse_topic_configs(configs: Mapping[str, str]) -> dict[str, Any]:
    """Parse what is set on a topic, each key by itself. Raises InvalidConfig (also for unknown keys)."""
    parsed = {}
    for name, text in configs.items():
        key = TOPIC_KEYS.get(name)
        if key is None:
            raise InvalidConfig(f"There is no topic config named {name}.")
        parsed[name] = key.parse(text)
    return parsed


def validate_topic_configs(configs: Mapping[str, str], *, effective: Mapping[str, Any] | None = None) -> None:
    """Check what is set on a topic, also together: `effective` holds the values of keys that are not set.

    Raises: InvalidConfig, naming the key.
    """
    values: dict[str, Any] = {**(effective or {}), **parse_topic_configs(configs)}
    if values.get("min.compaction.lag.ms", 0) > values.get("max.compaction.lag.ms", LONG_MAX):
        raise InvalidConfig(
            f"min.compaction.lag.ms ({values['min.compaction.lag.ms']}) must not be above max.compaction.lag.ms "
            f"({values.get('max.compaction.lag.ms', LONG_MAX)})."
        )
    if values.get("remote.storage.enable", False):
        raise InvalidConfig("remote.storage.enable cannot be true: this cluster has no remote storage.")
