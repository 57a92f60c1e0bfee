"""Group coordinators and the topics behind them."""

from __future__ import annotations

from typing import Final

from ottla.common.config.broker.row import CLUSTER_WIDE, HIGH, INT, LIST, LONG, MEDIUM, SHORT, key, unused
from ottla.common.config.definition import ConfigKey, at_least, unique_list

GROUP_KEYS: Final[tuple[ConfigKey, ...]] = (
    unused(
        "group.coordinator.append.linger.ms",
        INT,
        "-1",
        MEDIUM,
        "How long a coordinator collects records before it appends them; -1 adapts to the load.",
        valid=at_least(-1),
    ),
    unused(
        "group.coordinator.background.threads",
        INT,
        "2",
        HIGH,
        "Threads for a coordinator's long computations.",
        valid=at_least(1),
    ),
    unused(
        "group.coordinator.cached.buffer.max.bytes",
        INT,
        "1048588",
        MEDIUM,
        "Largest buffer that a coordinator keeps for its next batch.",
        valid=at_least(524288),
        mode=CLUSTER_WIDE,
    ),
    key(
        "group.coordinator.rebalance.protocols",
        LIST,
        "classic,consumer",
        MEDIUM,
        "The kinds of groups that are served; classic ones always are.",
        valid=unique_list("consumer", "classic", "share", "streams"),
    ),
    unused("group.coordinator.threads", INT, "4", HIGH, "Threads that run the group coordinators.", valid=at_least(1)),
    key(
        "group.initial.rebalance.delay.ms",
        INT,
        "0",
        MEDIUM,
        "How long the first rebalance of an empty group waits for more members.",
    ),
    key(
        "group.max.session.timeout.ms",
        INT,
        "1800000",
        MEDIUM,
        "Longest session timeout that a member of a classic group may ask for.",
    ),
    key("group.max.size", INT, "2147483647", MEDIUM, "Most members of a classic group.", valid=at_least(1)),
    key(
        "group.min.session.timeout.ms",
        INT,
        "6000",
        MEDIUM,
        "Shortest session timeout that a member of a classic group may ask for.",
    ),
    key(
        "offset.metadata.max.bytes",
        INT,
        "4096",
        HIGH,
        "Most bytes of metadata that a consumer may store with a committed offset.",
    ),
    key(
        "offsets.commit.timeout.ms",
        INT,
        "5000",
        HIGH,
        "How long a commit waits for the replicas of the offsets topic.",
        valid=at_least(1),
    ),
    unused(
        "offsets.load.buffer.size",
        INT,
        "5242880",
        HIGH,
        "Bytes read at a time when a coordinator loads its groups.",
        valid=at_least(1),
    ),
    key(
        "offsets.retention.check.interval.ms",
        LONG,
        "600000",
        HIGH,
        "How often expired offsets are looked for.",
        valid=at_least(1),
    ),
    key(
        "offsets.retention.minutes",
        INT,
        "10080",
        HIGH,
        "Minutes after which the offsets of an empty group expire.",
        valid=at_least(1),
    ),
    key(
        "offsets.topic.compression.codec",
        INT,
        "0",
        HIGH,
        "Codec number of the batches in the offsets topic; 0 is none.",
    ),
    key(
        "offsets.topic.num.partitions",
        INT,
        "50",
        HIGH,
        "Partitions of the offsets topic; cannot change once it exists.",
        valid=at_least(1),
    ),
    key("offsets.topic.replication.factor", SHORT, "3", HIGH, "Replicas of the offsets topic.", valid=at_least(1)),
    key(
        "offsets.topic.segment.bytes",
        INT,
        "104857600",
        HIGH,
        "Segment size of the offsets topic; small, so that compaction keeps loading quick.",
        valid=at_least(1),
    ),
)
