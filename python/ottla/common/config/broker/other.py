"""Plugins and metrics."""

from __future__ import annotations

from typing import Final

from ottla.common.config.broker.row import CLASS, CLUSTER_WIDE, INT, LIST, LONG, LOW, STRING, unused
from ottla.common.config.definition import ConfigKey, at_least, unique_list

OTHER_KEYS: Final[tuple[ConfigKey, ...]] = (
    unused("alter.config.policy.class.name", CLASS, None, LOW, "A class that may refuse changes of configuration."),
    unused("client.quota.callback.class", CLASS, None, LOW, "A class that decides about client quotas."),
    unused(
        "config.providers",
        LIST,
        "",
        LOW,
        "Classes that fill placeholders in configuration values.",
        valid=unique_list(),
        mode=CLUSTER_WIDE,
    ),
    unused("create.topic.policy.class.name", CLASS, None, LOW, "A class that may refuse new topics."),
    unused(
        "kafka.metrics.polling.interval.secs",
        INT,
        "10",
        LOW,
        "How often the old metrics reporters are asked.",
        valid=at_least(1),
    ),
    unused(
        "kafka.metrics.reporters",
        LIST,
        "",
        LOW,
        "Classes of the old metrics library that get the broker's metrics.",
        valid=unique_list(),
    ),
    unused(
        "metric.reporters",
        LIST,
        "org.apache.kafka.common.metrics.JmxReporter",
        LOW,
        "Classes that get the broker's metrics.",
        valid=unique_list(),
        mode=CLUSTER_WIDE,
    ),
    unused("metrics.num.samples", INT, "2", LOW, "Samples kept for each metric.", valid=at_least(1)),
    unused("metrics.recording.level", STRING, "INFO", LOW, "How detailed metrics are recorded: INFO, DEBUG or TRACE."),
    unused("metrics.sample.window.ms", LONG, "30000", LOW, "Length of each sample.", valid=at_least(1)),
    unused("telemetry.max.bytes", INT, "1048576", LOW, "Largest push of metrics from a client.", valid=at_least(1)),
)
