"""The Rust core as Python sees it. This stub is the documentation of every native call and of its cost.

Cost classes: QUICK keeps the GIL and takes at most about 200 µs; SLOW releases it, may wait for a disk and is called
through `trio.to_thread`.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

MORE: Final = 1
"""The quantum of the call is used up and bytes may be waiting: yield to other tasks, then call `pump` again."""
WANT_WRITE: Final = 2
"""Output is left that the kernel would not take: wait until the socket is writable, then call `pump` again."""
CLOSED: Final = 4
"""The connection is over: call `close_session`, then close the socket. `close_reason` says why, if it was our doing."""
STALLED: Final = 8
"""Do not wait for readability: nothing more is taken in before `reply`, `poll` or `pump` returns flags without STALLED."""

Request: TypeAlias = tuple[int, int, int, int, str | None, bytes]
"""(request_id, api_key, api_version, correlation_id, client_id, body): a request that Python answers by `reply`.

`body` is everything behind the request header. At most one is outstanding a session: requests behind it are not even
decoded before its reply, and it is handed out only after every earlier request of the connection was answered.
"""

Pumped: TypeAlias = tuple[int, list[Request]]
"""(flags, requests that Python owes)."""

def build_info() -> dict[str, str]:
    """What was built: version and profile. QUICK."""

class DataPlane:
    """All connections, partitions and log directories of one broker, and the replies that wait for them.

    Everything except the calls marked SLOW is for the event loop's thread. `now_ms` is monotonic, `wall_ms` Unix time.
    """

    def __init__(self, *, broker_id: int, log_dirs: Sequence[str], options: Mapping[str, str]) -> None:
        """Make a data plane; `options` are broker configs by Kafka's names, those it does not need are ignored.

        Raises: ValueError (an option's value), OSError.
        """

    def wakeup_fileno(self) -> int:
        """A descriptor that is readable when `poll` has something to do. It is closed with the data plane. QUICK."""

    def open_session(self, fd: int, listener: str) -> int:
        """Serve a connected, non-blocking stream socket; returns the session's id, which is never reused. QUICK.

        The socket stays the caller's: it must stay open until `close_session`, and be closed after it.
        """

    def pump(self, session_id: int, now_ms: int, wall_ms: int) -> Pumped:
        """Receive what is there (up to a quantum), handle it, and send what can be sent. QUICK.

        Call it when the socket is readable; after MORE, WANT_WRITE (when writable) or STALLED as said there. An unneeded
        call does no harm. Raises: KeyError (no such session).
        """

    def reply(self, session_id: int, request_id: int, response: bytes | None, now_ms: int, wall_ms: int) -> Pumped:
        """Answer an owed request, then go on with what the connection has already sent. QUICK.

        `response` is response header and body without the size prefix; None: the request has no response.
        Raises: KeyError (no such session, or it does not owe this request).
        """

    def refuse(self, session_id: int, reason: str) -> int:
        """Close the connection once the replies made so far have left; returns flags. QUICK. Raises: KeyError."""

    def poll(self, now_ms: int, wall_ms: int) -> tuple[list[tuple[int, int, list[Request]]], list[tuple[str, int]]]:
        """Take in completions of the log directories and expired deadlines; send the replies that became ready.

        Call it when `wakeup_fileno` is readable and at `next_deadline_ms`. Returns (session_id, flags, requests) for
        every session whose state the caller must know, with flags as of `pump`; and the (topic, partition) of watched
        partitions whose high watermark moved. QUICK.
        """

    def next_deadline_ms(self) -> int | None:
        """When `poll` must be called next even without a wake-up; None: no deadline. QUICK."""

    def close_session(self, session_id: int) -> None:
        """Forget a connection and everything it waited for. An unknown id is ignored. QUICK."""

    def close_reason(self, session_id: int) -> str | None:
        """Why this side ended a session (kept for the last 1024 that were); None: the peer left. QUICK."""

class QuorumNotLeaderError(Exception):
    """Only the active leader of the quorum takes proposals."""

class QuorumDamagedError(Exception):
    """Synced data of the quorum's log is missing or changed; the text names file and byte. The node must not start."""

class QuorumNoSpaceError(Exception):
    """The disk has no room: run the same job again later."""

class QuorumFailedError(Exception):
    """The quorum failed earlier and does nothing until it is opened again."""

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

class QuorumJob:
    """What `QuorumLog.run` must make durable."""

class QuorumJobDone:
    """What a job brings back, for `Quorum.on_persisted`, once."""

class QuorumLog:
    """The writer of one quorum's log directory."""

    def run(self, job: QuorumJob) -> QuorumJobDone:
        """Carry out one job; when this returns, all of it is durable. SLOW. One at a time, in order.

        Raises: QuorumNoSpaceError (run the same job again); OSError, QuorumFailedError (open the quorum again).
        """

    def close(self) -> None:
        """Sync what a clean stop leaves. SLOW. Raises: OSError, QuorumFailedError."""

class Quorum:
    """One voter of the metadata quorum: raft over a log in Kafka's format, without clock, tasks or writes.

    For one thread, the event loop's. After any call, `take_work` until it brings nothing.
    """

    @staticmethod
    def open(
        directory: str,
        *,
        node_id: int,
        voters: Sequence[int],
        seed: int,
        election_ticks: int,
        heartbeat_ticks: int,
        segment_bytes: int,
        snapshots_kept: int,
        wall_ms: int,
    ) -> tuple[Quorum, QuorumLog, tuple[int, list[str], int]]:
        """Open or create a log directory (`__cluster_metadata-0`), recover it and start. SLOW.

        A lone voter campaigns at once. The last item reports (bytes of a torn tail cut off, damaged snapshots that were not needed, batches read).
        Raises: QuorumDamagedError, ValueError (configuration), OSError, QuorumNoSpaceError.
        """

    def tick(self, wall_ms: int) -> None:
        """One tick of the logical clock. QUICK. Raises: QuorumFailedError."""

    def step(self, message: bytes, wall_ms: int) -> None:
        """Take in a message of another voter. QUICK, but for a snapshot.

        Raises: ValueError (malformed: close the connection), QuorumFailedError.
        """

    def propose(self, records: Sequence[bytes], wall_ms: int) -> tuple[int, int, int]:
        """Propose one batch, committed whole or not at all; returns (base_offset, last_offset, epoch). QUICK.

        Raises: QuorumNotLeaderError; ValueError (no records, or more than a batch of 8 MiB holds); QuorumFailedError.
        """

    def create_snapshot(self, end_offset: int, last_contained_log_timestamp_ms: int, records: Sequence[bytes]) -> bool:
        """Ask for a snapshot of everything below `end_offset`; False: one is still being written. QUICK.

        Raises: ValueError (no delivered batch ends there, or a snapshot as new exists), QuorumFailedError.
        """

    def take_work(self) -> tuple[list[tuple[int, bytes]], list[QuorumEvent], QuorumJob | None]:
        """Return (messages as (voter, bytes), events in order, the next job unless one is being run). QUICK.

        Raises: QuorumFailedError.
        """

    def on_persisted(self, done: QuorumJobDone) -> None:
        """The job handed out last is durable. QUICK. Raises: RuntimeError (told twice), QuorumFailedError."""

    def on_unreachable(self, voter: int, was_snapshot: bool) -> None:
        """A message could not be delivered. QUICK. Raises: QuorumFailedError."""

    def status(self) -> tuple[int, int, bool, int, int, int, list[tuple[int, int]]]:
        """Return (leader_id, epoch, is_active, high_watermark, log_end_offset, snapshot_end_offset, voters). QUICK.

        `leader_id` is -1 if unknown; `voters` are (node_id, log_end_offset as acknowledged, -1 where unknown).
        """

NewRecord: TypeAlias = tuple[bytes | None, bytes | None, int, Sequence[tuple[str, bytes | None]]]
"""(key, value, timestamp_ms, headers) of a record to be written; timestamp -1: none."""

Record: TypeAlias = tuple[int, int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]
"""(offset, timestamp_ms, key, value, headers) as a consumer sees them."""

def build_batch(
    records: Sequence[NewRecord],
    *,
    compression: str = "none",
    level: int | None = None,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    transactional: bool = False,
    base_offset: int = 0,
    leader_epoch: int = -1,
) -> bytes:
    """Build one record batch (format v2) with the records at successive offsets. QUICK for small batches.

    `compression` is none, gzip, snappy, lz4 or zstd; `level` is the codec's own (None: Kafka's default). Header keys
    that are not UTF-8 are written with surrogateescape. Raises: ValueError (codec or level), TypeError, OverflowError.
    """

class RecordBatch:
    """One batch as `decode_batches` found it. Timestamps are Unix milliseconds; -1: none."""

    @property
    def base_offset(self) -> int: ...
    @property
    def last_offset(self) -> int:
        """Of the batch as it was built; compaction may have removed records at its end."""

    @property
    def partition_leader_epoch(self) -> int: ...
    @property
    def compression(self) -> str:
        """none, gzip, snappy, lz4 or zstd."""

    @property
    def log_append_time(self) -> bool:
        """Whether the broker set the timestamps."""

    @property
    def transactional(self) -> bool: ...
    @property
    def control(self) -> bool:
        """The records are control records: transaction markers or the quorum's own."""

    @property
    def delete_horizon_ms(self) -> int | None:
        """When compaction may drop the batch's tombstones or marker (KIP-534)."""

    @property
    def base_timestamp(self) -> int: ...
    @property
    def max_timestamp(self) -> int: ...
    @property
    def producer_id(self) -> int:
        """-1: the producer was not idempotent."""

    @property
    def producer_epoch(self) -> int: ...
    @property
    def base_sequence(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def records(self) -> list[Record]: ...

def decode_batches(data: bytes, *, check_crc: bool = True, expansion_limit_bytes: int = 104857600) -> list[RecordBatch]:
    """Decode all whole batches of `data`; a cut last one, as fetches bring it, is passed over. QUICK for small data.

    Raises: ValueError (a bad CRC, a corrupt batch, or one that expands beyond the limit; names the batch's offset).
    """

def murmur2(key: bytes) -> int:
    """Kafka's hash of a key, signed: the default partitioner takes `(murmur2(key) & 0x7FFFFFFF) % count`. QUICK."""
