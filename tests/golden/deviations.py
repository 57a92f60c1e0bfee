"""Answers that differ from Apache Kafka's on purpose. A deviation that no longer occurs has to go from here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Deviation:
    """Places (a regular expression for paths as `tests.golden.lab.differences` names them) and why they differ."""

    probe: str
    places: str
    reason: str

    def covers(self, probe: str, difference: str) -> bool:
        path = difference.partition(": Kafka answers")[0]
        return probe == self.probe and re.fullmatch(self.places, path) is not None


KAFKA_FAILS: Final = "Kafka fails inside (UNKNOWN_SERVER_ERROR, or a closed connection) where the request is at fault"
ACKS_FIRST: Final = "acks that do not exist are refused before the records are looked at"
NOT_YET: Final = "streams groups are not served so far"

DEVIATIONS: Final = (
    Deviation(
        "share_fetch/requests_without_sense",
        "/(empty group|acquire mode .*|negative bytes|no batch size|unknown topic)/.*",
        KAFKA_FAILS,
    ),
    Deviation(
        "share_fetch/acquired_batches", "/limited and small/0", "acquired ranges end where batches do in both modes"
    ),
    Deviation(
        "share_fetch/deliveries", "/offsets .*/start_offset", "Kafka writes where a group is with the next write"
    ),
    Deviation("configs/broker_changes", "/2/.*|/3/.*", "log.cleaner.threads is kept for tools and has no effect"),
    Deviation("configs/broker_changes", "/14/1", "Kafka forbids it where eligible leader replicas are on"),
    Deviation("configs/broker_configs", "/group.coordinator.rebalance.protocols/.*", NOT_YET),
    Deviation("configs/broker_configs", r"/ottla\..*", "keys of our own"),
    Deviation("consumer_groups/member_commits", "/read by nobody with an epoch/groups/0/error_code", KAFKA_FAILS),
    Deviation("configs/incremental_changes", "/./unknown operation/0/responses/0/error_code", KAFKA_FAILS),
    Deviation(
        "offsets/delete_records", "/./offsets after/2/0/.*", "Kafka finds a record that is below the log's start"
    ),
    Deviation(
        "produce/several_partitions", "/topic twice/0/responses", "Kafka joins two entries of one topic in its answer"
    ),
    Deviation("produce/odd_batch", "/varint without end/error_code", KAFKA_FAILS),
    Deviation("produce/compressed", "/./record delta/.*", "wrong offset deltas are set right, not refused"),
    Deviation(
        "produce/compressed",
        "/./(two frames|bytes after|good again)/(base_offset|end)",
        "follows from the record taken before",
    ),
    Deviation(
        "produce/compressed",
        "/4/nothing/error_code",
        "an empty zstd payload is a damaged one, as with the other codecs",
    ),
    Deviation("odd_cluster/create_delegation_token", "/owner_principal_name .*/3/error_code", KAFKA_FAILS),
    Deviation("odd_logs/fetch", "/(max_bytes|session_id) .*", KAFKA_FAILS),
    Deviation("odd_logs/fetch-by-id", "/(max_bytes|session_id) .*", KAFKA_FAILS),
    Deviation(
        "odd_members/consumer_group_heartbeat-expression",
        "/.*/1/member_epoch",
        "a new expression is looked up within the heartbeat that brings it",
    ),
    Deviation("odd_topics/several_faults_in_one_entry", "/./(too many|far too many)/results/0/error_code", KAFKA_FAILS),
    Deviation(
        "odd_topics/describe_topic_partitions",
        "/cursor / partition_index greatest/0/next_cursor",
        "a cursor behind the last partition ends the topic; Kafka's count overflows",
    ),
    Deviation("odd_topics/incremental_alter_configs", "/.* / config_operation .*/responses/0/error_code", KAFKA_FAILS),
    Deviation("odd_transactions/write_txn_markers", "/markers / producer_(id|epoch) -1/.*/error_code", KAFKA_FAILS),
    Deviation("pairs/create_delegation_token", "/.*owner_principal_name .*", KAFKA_FAILS),
    Deviation("pairs/fetch", "/.*max_bytes -2.*", KAFKA_FAILS),
    Deviation("pairs/fetch-by-id", "/.*max_bytes -2.*", KAFKA_FAILS),
    Deviation("pairs/produce", "/acks -2, .*/ records .*", ACKS_FIRST),
    Deviation("pairs/produce-by-id", "/acks -2, .*/ records .*", ACKS_FIRST),
    Deviation("pairs/incremental_alter_configs", "/.*config_operation -2.*", KAFKA_FAILS),
)
