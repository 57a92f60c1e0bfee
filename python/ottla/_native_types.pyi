"""Shapes of the tuples and dictionaries that `ottla._native` takes and gives. They exist for the type checker alone."""

from collections.abc import Sequence
from typing import Literal, TypeAlias, TypedDict

Request: TypeAlias = tuple[int, int, int, int, str | None, bytes]
"""(request_id, api_key, api_version, correlation_id, client_id, body): a request that Python answers by `reply`.

`body` is everything behind the request header. At most one is outstanding a session: requests behind it are not even
decoded before its reply, and it is handed out only after every earlier request of the connection was answered.
"""

Unverified: TypeAlias = tuple[int, int, int, str, int, int, list[tuple[str, int]]]
"""(session_id, request_id, api_version, transactional_id, producer_id, producer_epoch, partitions) of a Produce request
with records of a transaction that is not known to be open in these partitions."""

Written: TypeAlias = tuple[int, int, int, int, bytes]
"""(standing_id, base_offset, monotonic ms, wall ms, said) of an append for a standing write: `said` are the bytes of
the request's holes, one after the other."""

class LogDirInfo(TypedDict):
    """One log directory."""

    path: str
    directory_id: str
    cluster_id: str
    was_clean: bool
    """Whether the last stop was clean, so that nothing had to be scanned."""
    tail_bytes: int
    """Bytes of appends taken and not yet written."""
    is_full: bool
    """Appends are refused for want of space."""
    partitions: list[tuple[str, int]]
    """What the directory held when it was opened."""

class ApiMetrics(TypedDict):
    """Counters of one API."""

    requests: int
    errors: int
    """Partitions answered with an error, and requests refused as a whole."""
    request_bytes: int
    record_bytes: int
    latency_sum_us: int
    latency_counts: list[int]
    """Answers by latency: one count for each of `latency_buckets_us` (upper bounds), one for what is above."""

class DataPlaneMetrics(TypedDict):
    """Counters of the data plane."""

    produce: ApiMetrics
    fetch: ApiMetrics
    answered: dict[int, int]
    """Requests that standing answers answered or standing writes carried out, by API key."""
    fetches_parked: int
    stalls: int
    """Times that a connection had to wait because a log directory's tail was full."""
    refused_connections: int
    """Connections that were ended from this side."""
    sessions: int
    fetch_sessions: int
    fetch_session_partitions: int
    fetch_session_evictions: int
    latency_buckets_us: list[int]

class CleanStats(TypedDict, total=False):
    """What a round of compaction did; empty if the log was deleted or truncated meanwhile, or nothing was due."""

    read_bytes: int
    written_bytes: int
    records_read: int
    records_kept: int
    keys: int
    segments_before: int
    segments_after: int

BatchTuple: TypeAlias = tuple[int, int, int, bool]
"""(base_offset, last_offset, position in the bytes, whether its transaction was aborted) of a batch that was read."""

ProducerTuple: TypeAlias = tuple[int, int, int, int, int, int]
"""(producer_id, producer_epoch, last_sequence, last_timestamp_ms, coordinator_epoch, current_txn_start_offset) of a
producer in a partition; -1: none."""

QuorumSnapshotEvent: TypeAlias = tuple[Literal["snapshot"], int, int, int, list[bytes]]
"""("snapshot", end_offset, epoch, last_contained_log_timestamp_ms, records): start over from these records; they stand
for every record below end_offset."""

QuorumCommittedEvent: TypeAlias = tuple[Literal["committed"], int, int, int, int, list[bytes]]
"""("committed", base_offset, last_offset, epoch, timestamp_ms, records); no records in a control batch."""

QuorumLeaderEvent: TypeAlias = tuple[Literal["leader"], int, int]
"""("leader", leader_id, epoch): who leads has changed; -1: nobody is known to."""

QuorumClaimedEvent: TypeAlias = tuple[Literal["claimed"], int]
"""("claimed", epoch): this node leads and every earlier batch was delivered; it may propose."""

QuorumResignedEvent: TypeAlias = tuple[Literal["resigned"], int]
"""("resigned", epoch): this node, which had claimed that epoch, leads no more; what of its proposals was not delivered
may or may not be committed yet."""

QuorumEvent: TypeAlias = (
    QuorumSnapshotEvent | QuorumCommittedEvent | QuorumLeaderEvent | QuorumClaimedEvent | QuorumResignedEvent
)

NewRecord: TypeAlias = tuple[bytes | None, bytes | None, int, Sequence[tuple[str, bytes | None]]]
"""(key, value, timestamp_ms, headers) of a record to be written; timestamp -1: none."""

Record: TypeAlias = tuple[int, int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]
"""(offset, timestamp_ms, key, value, headers) as a consumer sees them."""
