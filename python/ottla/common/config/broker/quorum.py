"""The node itself, the quorum of controllers and the metadata log."""

from __future__ import annotations

from typing import Final

from ottla.common.config.broker.row import BOOLEAN, HIGH, INT, LIST, LONG, LOW, MEDIUM, STRING, internal, key, unused
from ottla.common.config.definition import ConfigKey, at_least, unique_list

QUORUM_KEYS: Final[tuple[ConfigKey, ...]] = (
    key("broker.id", INT, "-1", HIGH, "The old name of node.id."),
    key("controller.listener.names", LIST, "CONTROLLER", HIGH, "The listeners of controllers.", valid=unique_list()),
    internal("controller.performance.always.log.threshold.ms", LONG, "2000", valid=at_least(0)),
    internal("controller.performance.sample.period.ms", LONG, "60000", valid=at_least(100)),
    unused(
        "controller.quorum.append.linger.ms",
        INT,
        "25",
        MEDIUM,
        "How long the leader of the quorum collects records before it writes them.",
        valid=at_least(0),
    ),
    unused(
        "controller.quorum.auto.join.enable", BOOLEAN, "false", LOW, "Whether a controller joins the voters by itself."
    ),
    unused("controller.quorum.bootstrap.servers", LIST, "", HIGH, "Where a node finds the quorum."),
    unused(
        "controller.quorum.election.backoff.max.ms",
        INT,
        "1000",
        HIGH,
        "Longest random pause before another election.",
        valid=at_least(0),
    ),
    unused(
        "controller.quorum.election.timeout.ms",
        INT,
        "1000",
        HIGH,
        "How long a candidate waits for votes.",
        valid=at_least(0),
    ),
    unused(
        "controller.quorum.fetch.max.bytes",
        INT,
        "1048576",
        LOW,
        "Bytes of the metadata log in one fetch.",
        valid=at_least(1),
    ),
    unused(
        "controller.quorum.fetch.snapshot.max.bytes",
        INT,
        "1048576",
        LOW,
        "Bytes of a metadata snapshot in one fetch.",
        valid=at_least(1),
    ),
    unused(
        "controller.quorum.fetch.timeout.ms",
        INT,
        "2000",
        HIGH,
        "Silence of the leader after which a voter becomes a candidate.",
        valid=at_least(0),
    ),
    unused(
        "controller.quorum.request.timeout.ms",
        INT,
        "2000",
        MEDIUM,
        "How long a controller waits for an answer of another.",
        valid=at_least(0),
    ),
    unused(
        "controller.quorum.retry.backoff.ms",
        INT,
        "20",
        LOW,
        "Pause before a failed request to the quorum is repeated.",
        valid=at_least(0),
    ),
    key("controller.quorum.voters", LIST, "", HIGH, "The voters of a quorum with fixed members, as id@host:port."),
    unused(
        "controller.quota.window.num",
        INT,
        "11",
        LOW,
        "Samples kept for the quota on changes of metadata.",
        valid=at_least(1),
    ),
    unused("controller.quota.window.size.seconds", INT, "1", LOW, "Length of each such sample.", valid=at_least(1)),
    unused("controller.socket.timeout.ms", INT, "30000", MEDIUM, "How long a broker waits for the controller."),
    unused(
        "initial.broker.registration.timeout.ms",
        INT,
        "60000",
        MEDIUM,
        "How long a starting broker tries to register before it gives up.",
    ),
    internal("internal.metadata.delete.delay.millis", LONG, "60000"),
    internal("internal.metadata.log.segment.bytes", INT, None),
    internal("internal.metadata.max.batch.size.in.bytes", INT, "8388608"),
    key(
        "metadata.log.dir", STRING, None, HIGH, "The directory of the metadata log; where unset, the first of log.dirs."
    ),
    key(
        "metadata.log.max.record.bytes.between.snapshots",
        LONG,
        "20971520",
        HIGH,
        "Bytes of metadata log after which a snapshot is taken.",
        valid=at_least(1),
    ),
    key(
        "metadata.log.max.snapshot.interval.ms",
        LONG,
        "3600000",
        HIGH,
        "Age of the last snapshot at which another is taken.",
        valid=at_least(0),
    ),
    key(
        "metadata.log.segment.bytes",
        INT,
        "1073741824",
        HIGH,
        "Segment size of the metadata log.",
        valid=at_least(8388608),
    ),
    unused("metadata.log.segment.ms", LONG, "604800000", HIGH, "Age at which a segment of the metadata log is closed."),
    unused(
        "metadata.max.idle.interval.ms",
        INT,
        "500",
        LOW,
        "How often an idle quorum writes a record that says nothing; 0 is never.",
        valid=at_least(0),
    ),
    unused(
        "metadata.max.retention.bytes", LONG, "104857600", HIGH, "Bytes of metadata log and snapshots that are kept."
    ),
    unused("metadata.max.retention.ms", LONG, "604800000", HIGH, "Age at which old metadata log and snapshots go."),
    key("node.id", INT, "1", HIGH, "The number of this node, its own in the cluster.", valid=at_least(0)),
    key(
        "process.roles",
        LIST,
        "broker,controller",
        HIGH,
        "What the node is: broker, controller or both.",
        valid=unique_list("broker", "controller"),
    ),
    internal("unstable.feature.versions.enable", BOOLEAN, "false"),
)
