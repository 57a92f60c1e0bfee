"""What `/metrics` shows of a broker: its counters, the data plane's, its logs and how far groups lag behind them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ottla.broker.clock import wall_ms
from ottla.broker.context import Broker
from ottla.broker.metrics import LATENCY_BUCKETS_US, Family
from ottla.errors import KafkaError
from ottla.protocol.versions import ApiKey
from ottla.share.acknowledgement import AcknowledgeType

if TYPE_CHECKING:
    from ottla._native import DataPlaneMetrics
    from ottla.coordinator.group.machine import GroupMachine

LATE_BUFFER_MS: Final = 300_000
"""How much longer than `transaction.max.timeout.ms` a transaction may be silent before it is late."""
NATIVE: Final = {"produce": ApiKey.PRODUCE, "fetch": ApiKey.FETCH}

Committed = tuple[str, str, int, int]
"""(group, topic, partition, offset)."""


def families(broker: Broker, *, connections: int) -> Iterator[Family]:
    """Everything, gathered now. Takes a few microseconds a partition and a committed offset."""
    native = broker.plane.metrics()
    yield from _requests(broker, native)
    yield Family("ottla_connections", "gauge", "Open client connections.").add(connections)
    accepted = broker.metrics.connections_accepted
    yield Family("ottla_connections_accepted_total", "counter", "Connections taken in.").add(accepted)
    yield Family("ottla_connections_ended_total", "counter", "Connections ended by the broker.").add(
        native["refused_connections"]
    )
    yield Family("ottla_fetches_parked_total", "counter", "Fetches that had to wait for records.").add(
        native["fetches_parked"]
    )
    yield Family("ottla_stalls_total", "counter", "Times a connection waited for a log directory to write.").add(
        native["stalls"]
    )
    yield Family("ottla_fetch_sessions", "gauge", "Fetch sessions (KIP-227).").add(native["fetch_sessions"])
    yield from _log_dirs(broker)
    yield from _logs(broker)
    yield from _transactions(broker)
    yield from _groups(broker)
    yield from _share_groups(broker)
    yield from _metadata(broker)
    yield Family("process_cpu_seconds_total", "counter", "CPU time of the process.").add(time.process_time())


def _requests(broker: Broker, native: DataPlaneMetrics) -> Iterator[Family]:
    requests = Family("ottla_requests_total", "counter", "Requests answered.")
    errors = Family("ottla_request_errors_total", "counter", "Requests, or partitions of them, answered with an error.")
    durations = Family("ottla_request_duration_seconds", "histogram", "From taking a request in to its answer.")
    for api, counters in broker.metrics.apis.items():
        labels = {"api": api.name}
        # What stands is answered in less than the first bucket's time.
        answered = native["answered"].get(int(api), 0)
        first, *others = counters.latency_counts
        requests.add(counters.requests + answered, labels)
        errors.add(counters.errors, labels)
        durations.add_histogram((first + answered, *others), LATENCY_BUCKETS_US, counters.latency_sum_us, labels)
    request_bytes = Family("ottla_request_bytes_total", "counter", "Bytes of produce and fetch requests.")
    record_bytes = Family("ottla_record_bytes_total", "counter", "Bytes of record batches taken in and given out.")
    for name, api in NATIVE.items():
        labels = {"api": api.name}
        found = native["produce"] if name == "produce" else native["fetch"]
        requests.add(found["requests"], labels)
        errors.add(found["errors"], labels)
        durations.add_histogram(found["latency_counts"], native["latency_buckets_us"], found["latency_sum_us"], labels)
        request_bytes.add(found["request_bytes"], labels)
        record_bytes.add(found["record_bytes"], labels)
    yield from (requests, errors, durations, request_bytes, record_bytes)
    yield Family("ottla_malformed_requests_total", "counter", "Requests that could not be read.").add(
        broker.metrics.malformed_requests
    )


def _log_dirs(broker: Broker) -> Iterator[Family]:
    tail = Family("ottla_log_dir_unwritten_bytes", "gauge", "Bytes of appends taken and not yet written.")
    full = Family("ottla_log_dir_full", "gauge", "Whether appends are refused for want of space.")
    for info in broker.plane.log_dirs():
        labels = {"log_dir": str(info["path"])}
        tail.add(info["tail_bytes"], labels)
        full.add(int(info["is_full"]), labels)
    offline = Family("ottla_log_dir_offline", "gauge", "Whether the directory could not be used at the start.")
    for log_dir in broker.log_dirs:
        offline.add(0, {"log_dir": log_dir})
    for log_dir in broker.offline_log_dirs:
        offline.add(1, {"log_dir": log_dir})
    yield from (tail, full, offline)


def _logs(broker: Broker) -> Iterator[Family]:
    size = Family("ottla_log_size_bytes", "gauge", "Bytes of a partition's segments.")
    start = Family("ottla_log_start_offset", "gauge", "First offset of a partition.")
    end = Family("ottla_high_watermark", "gauge", "Offset after the last record that consumers see.")
    for topic, index in broker.plane.partitions():
        partition = broker.plane.partition(topic, index)
        if partition is not None:
            labels = {"topic": topic, "partition": str(index)}
            offsets = partition.offsets()
            size.add(partition.size_bytes(), labels)
            start.add(offsets.log_start_offset, labels)
            end.add(offsets.high_watermark, labels)
    yield from (size, start, end)


def _transactions(broker: Broker) -> Iterator[Family]:
    """A transaction is late when its coordinator should have aborted it long ago (Kafka: `hasLateTransaction`)."""
    config = broker.metadata.broker_config
    late_ms = config.integer("transaction.max.timeout.ms") + LATE_BUFFER_MS
    written_ms = broker.plane.oldest_transactions_ms()
    ages_ms = [wall_ms() - at_ms for at_ms in written_ms]
    yield Family("ottla_partitions_with_open_transactions", "gauge", "Partitions with an open transaction.").add(
        len(ages_ms)
    )
    yield Family(
        "ottla_partitions_with_late_transactions",
        "gauge",
        "Partitions whose oldest open transaction had no write for longer than any transaction may last.",
    ).add(sum(age_ms > late_ms for age_ms in ages_ms))
    yield Family(
        "ottla_oldest_transaction_age_seconds",
        "gauge",
        "Since the last write of the open transaction that waits longest.",
    ).add(max(ages_ms, default=0) / 1000)


def _groups(broker: Broker) -> Iterator[Family]:
    runtime = broker.coordinator.runtime
    lag = Family("ottla_group_lag", "gauge", "Records between a group's committed offset and the high watermark.")
    groups = 0
    for shard in runtime.partitions():
        try:
            count, committed = runtime.look(shard, lambda machine, _now: _committed(machine))
        except KafkaError:
            continue  # it is being loaded
        groups += count
        for group, topic, index, offset in committed:
            partition = broker.plane.partition(topic, index)
            if partition is not None:
                behind = max(0, partition.offsets().high_watermark - offset)
                lag.add(behind, {"group": group, "topic": topic, "partition": str(index)})
    yield Family("ottla_groups", "gauge", "Groups that this broker coordinates.").add(groups)
    yield lag


def _committed(machine: GroupMachine) -> tuple[int, list[Committed]]:
    offsets = machine.table.offsets
    found = [
        (group, topic, index, value.offset)
        for group in offsets.group_ids()
        for (topic, index), value in offsets.committed_items(group)
    ]
    return len(machine.directory.list((), ())), found


def _share_groups(broker: Broker) -> Iterator[Family]:
    counters = broker.metrics.share
    yield Family("ottla_share_sessions", "gauge", "Share sessions (KIP-932).").add(len(broker.share_fetches.sessions))
    yield Family("ottla_share_partitions", "gauge", "Partitions that share groups read from, in memory.").add(
        len(broker.share_partitions)
    )
    yield Family("ottla_share_acquired_records_total", "counter", "Records given to members of share groups.").add(
        counters.acquired_records
    )
    yield Family("ottla_share_acknowledgements_total", "counter", "Requests that acknowledged records.").add(
        counters.acknowledgements
    )
    acknowledged = Family("ottla_share_acknowledged_records_total", "counter", "Records that were acknowledged.")
    for kind in AcknowledgeType:
        acknowledged.add(counters.acknowledged_records[kind], {"type": kind.name.lower()})
    yield acknowledged


def _metadata(broker: Broker) -> Iterator[Family]:
    image = broker.metadata.image
    partitions = sum(len(topic.partitions) for topic in image.topics.values())
    yield Family("ottla_topics", "gauge", "Topics.").add(len(image.topics))
    yield Family("ottla_partitions", "gauge", "Partitions of all topics.").add(partitions)
    yield Family("ottla_metadata_offset", "gauge", "Offset up to which the metadata is applied.").add(image.offset)
