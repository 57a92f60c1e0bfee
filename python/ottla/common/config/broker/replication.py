"""Brokers, replicas and replication."""

from __future__ import annotations

from typing import Final

from ottla.common.config.broker.row import BOOLEAN, CLUSTER_WIDE, HIGH, INT, LONG, LOW, MEDIUM, STRING, key, unused
from ottla.common.config.definition import ConfigKey, at_least

REPLICATION_KEYS: Final[tuple[ConfigKey, ...]] = (
    unused(
        "alter.log.dirs.replication.quota.window.num",
        INT,
        "11",
        LOW,
        "Samples kept for the quota on moves between log directories.",
        valid=at_least(1),
    ),
    unused(
        "alter.log.dirs.replication.quota.window.size.seconds",
        INT,
        "1",
        LOW,
        "Length of each such sample.",
        valid=at_least(1),
    ),
    unused(
        "auto.leader.rebalance.enable",
        BOOLEAN,
        "true",
        HIGH,
        "Whether leadership goes back to preferred leaders by itself.",
    ),
    key(
        "broker.heartbeat.interval.ms", INT, "2000", MEDIUM, "How often a broker tells the controller that it is there."
    ),
    unused(
        "broker.rack",
        STRING,
        None,
        MEDIUM,
        "Where the broker stands; replicas are spread over racks, and consumers may read from their own.",
    ),
    key("broker.session.timeout.ms", INT, "9000", MEDIUM, "Silence after which the controller fences a broker."),
    unused(
        "controlled.shutdown.enable",
        BOOLEAN,
        "true",
        MEDIUM,
        "Whether a stopping broker hands its partitions over first.",
    ),
    key("default.replication.factor", INT, "1", MEDIUM, "Replicas of a topic that is created without a number."),
    unused(
        "follower.fetch.last.tiered.offset.enable",
        BOOLEAN,
        "false",
        MEDIUM,
        "Whether a new follower of a tiered partition begins where remote storage ends.",
        mode=CLUSTER_WIDE,
    ),
    unused(
        "leader.imbalance.check.interval.seconds",
        LONG,
        "300",
        HIGH,
        "How often it is looked whether leaders should go back to preferred replicas.",
        valid=at_least(1),
    ),
    unused(
        "num.replica.alter.log.dirs.threads", INT, None, HIGH, "Threads that move replicas between log directories."
    ),
    unused(
        "num.replica.fetchers",
        INT,
        "1",
        HIGH,
        "Fetchers for each broker that is followed.",
        valid=at_least(1),
        mode=CLUSTER_WIDE,
    ),
    unused("quota.window.num", INT, "11", LOW, "Samples kept for client quotas.", valid=at_least(1)),
    unused("quota.window.size.seconds", INT, "1", LOW, "Length of each such sample.", valid=at_least(1)),
    unused(
        "replica.fetch.backoff.ms", INT, "1000", MEDIUM, "Pause of a follower after a failed fetch.", valid=at_least(0)
    ),
    unused(
        "replica.fetch.max.bytes",
        INT,
        "1048576",
        MEDIUM,
        "Bytes that a follower asks for in each partition.",
        valid=at_least(0),
    ),
    unused(
        "replica.fetch.min.bytes",
        INT,
        "1",
        HIGH,
        "Bytes that must be there before a follower's fetch is answered early.",
    ),
    unused(
        "replica.fetch.response.max.bytes",
        INT,
        "10485760",
        MEDIUM,
        "Bytes that a follower asks for in one fetch.",
        valid=at_least(0),
    ),
    unused("replica.fetch.wait.max.ms", INT, "500", HIGH, "How long the leader may hold a follower's fetch."),
    unused(
        "replica.high.watermark.checkpoint.interval.ms",
        LONG,
        "5000",
        HIGH,
        "How often high watermarks are written down.",
    ),
    unused(
        "replica.lag.time.max.ms",
        LONG,
        "30000",
        HIGH,
        "How long a follower may lag before it drops out of the in-sync replicas.",
    ),
    unused(
        "replica.selector.class",
        STRING,
        None,
        MEDIUM,
        "How a broker chooses the replica that a consumer should read from.",
    ),
    unused("replica.socket.receive.buffer.bytes", INT, "65536", HIGH, "Receive buffer of a follower's sockets."),
    unused(
        "replica.socket.timeout.ms",
        INT,
        "30000",
        HIGH,
        "How long a follower waits for an answer; at least replica.fetch.wait.max.ms.",
    ),
    unused("replication.quota.window.num", INT, "11", LOW, "Samples kept for replication quotas.", valid=at_least(1)),
    unused("replication.quota.window.size.seconds", INT, "1", LOW, "Length of each such sample.", valid=at_least(1)),
)
