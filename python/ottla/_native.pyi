"""The Rust core as Python sees it. This stub is the documentation of every native call and of its cost.

Cost classes: QUICK keeps the GIL and takes at most about 200 µs; SLOW releases it, may wait for a disk and is called
through `trio.to_thread`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from ottla._native_records import *  # so is all of this
from ottla._native_types import *  # every shape is part of this module, too

def build_info() -> dict[str, str]:
    """What was built: version and profile. QUICK."""

def keep_freed_memory() -> bool:
    """Have the C library keep up to 16 MiB of freed memory for what is allocated next. QUICK.

    It concerns the whole process, so it is for a process that is a broker. Without it the kernel clears the pages of
    nearly each receive buffer anew. Returns False, and changes nothing, where the C library is not glibc.
    """

@final
class DataPlane:
    """All connections, partitions and log directories of one broker, and the replies that wait for them.

    Calls about connections are for the event loop's thread. `now_ms` is monotonic, `wall_ms` Unix time. `KafkaError` is
    `ottla.errors.KafkaError`.
    """

    def __new__(cls, *, broker_id: int, log_dirs: Sequence[str], options: Mapping[str, str]) -> DataPlane:
        """Open and lock formatted log directories and start their writers, without those whose disks fail. SLOW.

        `options` are broker configs by Kafka's names (socket.request.max.bytes, fetch.max.bytes,
        max.incremental.fetch.session.cache.slots, and ottla.log.dir.tail.max.bytes: appends of a log directory that are
        taken and not yet written before producers must wait); those that the data plane does not need are ignored.

        Raises: KafkaError (an option's value; a directory that is not formatted, in use or another node's), OSError
        (all disks fail).
        """

    def wakeup_fileno(self) -> int:
        """The one descriptor to wait for: readable when `poll` has something to do, for whatever reason. QUICK.

        It is closed with the data plane.
        """

    def open_session(self, fd: int, now_ms: int) -> int:
        """Serve a connected, non-blocking stream socket; returns the session's id, which is never reused. QUICK.

        The socket stays the caller's: it must stay open until `close_session`, be closed after it, and nobody else may
        read from it or write to it. Raises: OSError.
        """

    def wait_beside(self, watched: int) -> None:
        """Have `poll` return when another epoll set of this process is ready: the one that watches this descriptor.

        That must have been asked for as Trio does it: once, for it to be readable. Raises: OSError (no set watches it).
        QUICK.
        """

    def poll(
        self, now_ms: int, wall_ms: int, wait_max_s: float = 0.0
    ) -> tuple[list[tuple[int, bool, list[Request]]], list[tuple[str, int]], list[Unverified], bool]:
        """Do what there is to do: receive, handle, send, take in completed writes and expired deadlines.

        Returns (session_id, is_over, requests) for every session of which there is news: `requests` are owed by Python
        (at most one a session, until its `reply`); `is_over` asks for `close_session`. And the (topic, partition) of
        watched partitions whose high watermark moved (or whose appends failed: compare `offsets`). And the Produce
        requests about which the transaction coordinator must be asked, for `verified`. And whether the set of
        `wait_beside` is ready.

        QUICK: works for about a millisecond at most; what is left then keeps the descriptor readable. An unneeded call
        does no harm. With `wait_max_s` it goes on, waiting without the GIL for what comes next, until there is
        something to return or that time is over; it may return with nothing before, to be called with newer clocks.
        """

    def cork(self) -> None:
        """Let appends and answers come together until `uncork`, which must follow soon; may be nested. QUICK.

        `reply` then says neither that the connection is over nor what is owed next: `poll` does.
        """

    def uncork(self, now_ms: int, wall_ms: int) -> None:
        """Send all answers since `cork`, and wake the writers for the appends. QUICK."""

    def verify_transactions(self, *, verifies: bool) -> None:
        """Whether older clients are verified, too (`transaction.partition.verification.enable`). QUICK."""

    def verified(
        self,
        session_id: int,
        request_id: int,
        refused: Sequence[tuple[str, int, int, str | None]],
        now_ms: int,
        wall_ms: int,
    ) -> tuple[bool, list[Request]] | None:
        """Go on with a Produce request about which the transaction coordinator has answered. QUICK.

        `refused` are (topic, partition, error code, message) of the partitions that are not part of the transaction.
        Returns (is_over, requests) as `poll` does; None: nothing waits for it, its connection is gone.
        """

    def oldest_transactions_ms(self) -> list[int]:
        """When each open transaction that is the oldest of its partition was last written to, in Unix ms.

        Takes a microsecond or so a partition.
        """

    def reply(
        self, session_id: int, request_id: int, response: bytes | None, now_ms: int, wall_ms: int
    ) -> tuple[bool, list[Request]]:
        """Answer an owed request, then go on with what the connection has already sent. QUICK.

        `response` is response header and body without the size prefix; None: the request has no response. Returns
        (is_over, requests) as `poll` does. Raises: KeyError (no such session, or it does not owe this request).
        """

    def let_stand(self, session_id: int, standing_id: int, request: Request, response: bytes) -> None:
        """Answer all requests of a connection that are the same as this one without asking any more. QUICK.

        Until the answer is withdrawn, another one stands in its place (there is one for each connection), or the
        connection ends. `response` is as in `reply`: each gets its own correlation id. `standing_id` is the
        caller's, and never used again. An unknown session is ignored.
        Raises: ValueError (no response begins like that).
        """

    def withdraw(self, standing_ids: list[int]) -> list[tuple[int, int]]:
        """Give these answers no more; ids that do not stand are ignored. QUICK.

        Returns those that were given since `take_given` was last asked for them, and when (monotonic ms).
        """

    def take_given(self, standing_ids: list[int]) -> list[tuple[int, int]]:
        """Those of these answers that were given since the last call, and when (monotonic ms). QUICK."""

    def refuse(self, session_id: int, reason: str, now_ms: int, wall_ms: int) -> bool:
        """End the connection once the replies before the owed request have left; returns whether it is over. QUICK.

        If it is not, `poll` will say so. Raises: KeyError (no such session).
        """

    def close_session(self, session_id: int) -> None:
        """Forget a connection and everything it waited for. An unknown id is ignored. QUICK."""

    def close_reason(self, session_id: int) -> str | None:
        """Why this side ended a session (kept for the last 1024 that were); None: the peer left. QUICK."""

    def idle_sessions(self, before_ms: int) -> list[int]:
        """Sessions that have had no traffic since `before_ms` and wait for no answer. QUICK."""

    def next_deadline_ms(self) -> int | None:
        """When the next waiting reply is due (`wakeup_fileno` tells by itself); None: no deadline. QUICK."""

    def create_partition(
        self,
        topic: str,
        partition: int,
        *,
        topic_id: bytes,
        config: Mapping[str, str],
        leader_epoch: int,
        wall_ms: int,
    ) -> Partition:
        """Open or create a partition, lead it in `leader_epoch`, and serve it to clients. SLOW.

        A new one is made in the directory with the fewest partitions of those that take it.

        Args:
            topic_id: 16 bytes (`uuid.UUID.bytes`).
            config: The topic's whole configuration by Kafka's topic-level keys; keys that are missing have Kafka's
                default, unknown ones are ignored.
        Raises: ValueError (it is served already), KafkaError (damaged, another topic's id), OSError.
        """

    def partition(self, topic: str, partition: int) -> Partition | None:
        """A partition that is served. QUICK."""

    def set_unavailable(self, partitions: Sequence[tuple[str, int, bytes]]) -> None:
        """Name all (topic, partition, topic id) that should be served and could not be opened. QUICK.

        Produce and Fetch answer KAFKA_STORAGE_ERROR for them, instead of not knowing them.
        """

    def partitions(self) -> list[tuple[str, int]]:
        """All partitions that are served, in the order of their creation. QUICK."""

    def delete_partition(self, topic: str, partition: int, now_ms: int, wall_ms: int) -> None:
        """Stop serving a partition, answer whatever waits for it, and remove its files. SLOW.

        Raises: KeyError, OSError.
        """

    def set_leadership(self, topic: str, partition: int, leader_epoch: int, now_ms: int, wall_ms: int) -> None:
        """Lead a partition in a new epoch; fetches that wait are answered. QUICK. Raises: KeyError, KafkaError."""

    def update_config(self, topic: str, partition: int, config: Mapping[str, str]) -> None:
        """Take a topic's changed configuration (whole, as in `create_partition`). QUICK.

        Raises: KeyError, KafkaError.
        """

    def tick(self, now_ms: int, wall_ms: int) -> None:
        """Let partitions do what time makes due (flush.ms, expiry of producers). QUICK; call about once a second."""

    def write_checkpoints(self, log_dir: int) -> None:
        """Write the checkpoints of a log directory. SLOW; call every few seconds. Raises: IndexError, OSError."""

    def log_dirs(self) -> list[LogDirInfo]:
        """The log directories that could be opened, in the order of the constructor. QUICK."""

    def offline_log_dirs(self) -> list[tuple[str, str]]:
        """(path as it was given, reason) of those that their disks do not give. QUICK."""

    def take_offline(self) -> list[tuple[str, int, str]]:
        """(topic, partition, reason) of logs that failed since the last call; see `Partition.reopen`. QUICK."""

    def complaints(self) -> list[str]:
        """Failures since the last call that changed nothing for clients (such as a checkpoint not written). QUICK."""

    def discard_partition(self, log_dir: int, topic: str, partition: int) -> None:
        """Remove a partition that a log directory holds and nobody wants any more; it must not be served. SLOW.

        Raises: IndexError, OSError.
        """

    def set_partition_aside(self, log_dir: int, topic: str, partition: int) -> Path | None:
        """Keep a partition that a log directory holds and the metadata does not know, under a name of its own. SLOW.

        It must not be served. Returns the new path. Raises: IndexError, OSError.
        """

    def close(self, now_ms: int, wall_ms: int, log_dir: int | None = None) -> None:
        """Close a log directory and its partitions (None: all) cleanly; nothing there is served afterwards. SLOW.

        Raises: the first error that there was; everything that can be closed is closed nevertheless.
        """

    def metrics(self) -> DataPlaneMetrics:
        """What was counted since the start. QUICK."""

@final
class PartitionOffsets:
    """A partition's offsets at one moment."""

    @property
    def log_start_offset(self) -> int:
        """First offset held."""
    @property
    def high_watermark(self) -> int:
        """Consumers see below it."""
    @property
    def last_stable_offset(self) -> int:
        """read_committed consumers see below it."""
    @property
    def log_end_offset(self) -> int:
        """The next offset to be assigned."""
    @property
    def written_offset(self) -> int:
        """The offset after the last record in the file."""
    @property
    def leader_epoch(self) -> int:
        """The current leader epoch."""

@final
class LogMaintenance:
    """Retention and compaction of one log directory. Every call is SLOW and for one worker thread at a time."""

    def __new__(cls, plane: DataPlane, log_dir: int, *, dedupe_buffer_bytes: int = 134217728) -> LogMaintenance:
        """`dedupe_buffer_bytes`: log.cleaner.dedupe.buffer.size; memory is taken as keys come. Raises: IndexError."""

    def delete_old_segments(self, wall_ms: int) -> tuple[list[tuple[str, int, int]], list[tuple[str, int, str]]]:
        """Delete what retention.ms, retention.bytes and the log start offsets let go.

        Returns (topic, partition, number of segments) of each log that lost some, and (topic, partition, reason) of
        each that failed. Logs that are offline are passed over.
        """

    def pick(self, wall_ms: int) -> tuple[str, int] | None:
        """Choose the log that needs compaction most; None: none is due, or a round is under way. Raises: OSError."""

    def clean(self, budget_bytes: int) -> tuple[int, CleanStats | None]:
        """Go on with the round under way: about `budget_bytes` of reading and writing.

        Returns the bytes moved, for pacing, and what the round did once it is over (None: there is more to do).
        Raises: OSError (the round is given up; pick again later), KafkaError (the log is damaged, see `uncleanable`).
        """

    def abandon(self) -> None:
        """Give up the round under way and remove what it wrote. Raises: OSError."""

    def uncleanable(self) -> list[tuple[str, int, str]]:
        """(topic, partition, reason) of logs that are not compacted until the next start, because they are damaged."""

@final
class PendingAppend:
    """An append of which somebody wants to know what becomes."""

    @property
    def offset(self) -> int:
        """Of its last record."""

    def is_committed(self) -> bool:
        """Whether the high watermark is above it. QUICK. Raises: KafkaError (KAFKA_STORAGE_ERROR: it was lost)."""

@final
class Partition:
    """One partition, for coordinators and admin handlers. Safe to use from any thread."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def topic_id(self) -> bytes: ...
    @property
    def log_dir(self) -> int:
        """Index into `DataPlane.log_dirs`."""

    def append_batch(
        self, batch: bytes, *, wall_ms: int, leader_epoch: int | None = None, guard: int | None = None
    ) -> tuple[int, int]:
        """Append one whole record batch as a coordinator; returns (base offset, last offset). QUICK, no disk.

        The bytes are in the log's tail when it returns, and in the file when the high watermark is above the last
        offset (`DataPlane.poll` tells when it moved, if the partition is watched).

        Args:
            leader_epoch: Refuse unless this is the current one; None: any.
            guard: Of a transactional batch, what `begin_verification` returned; None: the transaction is not verified.
        Raises: KafkaError (the batch, the epoch, INVALID_TXN_STATE for a guard that counts no more, no space, offline
        log).
        """

    def let_write_stand(
        self,
        session_id: int,
        standing_id: int,
        request: Request,
        response: bytes,
        *,
        batch: bytes,
        holes: Sequence[tuple[int, int, int]],
        clocks: Sequence[int],
        leader_epoch: int,
        timeout_ms: int,
    ) -> None:
        """Carry out all requests of a connection that are like this one by appending, without asking any more. QUICK.

        Such a request differs from this one in its holes alone. It is answered like it when the high watermark is above
        what was appended. If that cannot be appended, is lost or not committed in time, nothing stands any more and the
        request is owed as any other. Until it is withdrawn, another write stands in its place (there is one for each
        connection), the partition has a failure, or the connection ends. An unknown session is ignored.

        While the high watermark moves over such appends alone `DataPlane.poll` does not name the partition.

        Args:
            standing_id: The caller's, of this process, and never used again.
            response: As in `DataPlane.let_stand`.
            batch: What carried this request out, not compressed.
            holes: (position in the request's body, position in the batch, size), by rising position in the body.
            clocks: Positions in the batch of the append's time, an int64 in Unix ms.
            leader_epoch: Append only while this is the current one.
            timeout_ms: How long a request may wait to be committed.
        Raises: ValueError (what is to be filled in is not where it can be).
        """

    def withdraw_writes(self, standing_ids: Sequence[int]) -> None:
        """Carry out no more such requests; ids that do not stand are ignored. QUICK."""

    def take_written(self) -> tuple[int, list[Written]]:
        """The high watermark, and what was appended for standing writes since the last call, by rising offset. QUICK.

        Of one standing write these are the last append that is committed and the one that is not yet: the others were
        overtaken. What is returned before it is committed may be lost yet (`DataPlane.poll` names the partition).
        """

    def read_records(self, offset: int, *, max_bytes: int) -> bytes:
        """Record batches below the high watermark from the one that holds `offset` on; b"" at the end. SLOW.

        `max_bytes` is soft: the first batch comes whole, the last may be cut. Raises: KafkaError (OFFSET_OUT_OF_RANGE,
        KAFKA_STORAGE_ERROR), OSError.
        """

    def read_batches(
        self, offset: int, *, max_bytes: int, committed_only: bool = False
    ) -> tuple[bytes, list[BatchTuple]]:
        """Whole batches from the one that holds `offset` on, and what is where in them. SLOW.

        The first comes whatever its size, the others while `max_bytes` allow. `committed_only`: below the last stable
        offset, and it is said which batches were aborted. Raises: KafkaError (OFFSET_OUT_OF_RANGE, CORRUPT_MESSAGE,
        KAFKA_STORAGE_ERROR), OSError.
        """

    def bytes_available(self, offset: int, *, committed_only: bool = False) -> int:
        """About how many bytes a read from `offset` could return. QUICK."""

    def append_marker(
        self,
        *,
        producer_id: int,
        producer_epoch: int,
        commit: bool,
        coordinator_epoch: int,
        transaction_version: int,
        wall_ms: int,
        leader_epoch: int | None = None,
    ) -> PendingAppend:
        """Append the marker that ends a producer's transaction here. QUICK, no disk.

        Args:
            producer_epoch: Under transaction version 2 already the one that follows the transaction's.
            coordinator_epoch: Leader epoch of the partition of `__transaction_state`; lower ones than seen are fenced.
            leader_epoch: As for `append_batch`.
        Raises: KafkaError (INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED, and those of `append_batch`).
        """

    def begin_verification(
        self, producer_id: int, producer_epoch: int, *, supports_epoch_bump: bool, now_ms: int
    ) -> int:
        """Find out whether the transaction coordinator must be asked before the producer may write here. QUICK.

        Returns 0 if its transaction is open, so that nobody need be asked; else the guard under which `append_batch`
        takes the batch once the coordinator has agreed, unless the transaction began or ended meanwhile.

        Raises: KafkaError (INVALID_PRODUCER_EPOCH, NOT_LEADER_OR_FOLLOWER, KAFKA_STORAGE_ERROR).
        """

    def producers(self) -> list[ProducerTuple]:
        """The producers that are known, by id. QUICK. Raises: KafkaError."""

    def take_cut(self) -> tuple[int, bool] | None:
        """What was lost to failed writes since the last call: (offset, is_reloaded). QUICK.

        Nothing that was appended from the offset on is in the log; if it is reloaded, only the log says what is. Until
        this is called, appends that name a leader epoch are refused: they would rest on what is lost.
        """

    def offsets(self) -> PartitionOffsets:
        """The offsets now. QUICK."""

    def watch(self, is_watched: bool = True) -> None:
        """Have `DataPlane.poll` name the partition whenever its high watermark moves, or appends failed. QUICK.

        Calls are counted: it stays watched until every one was taken back with False.
        """

    def list_offset(
        self, timestamp: int, *, isolation_level: int | None = None, current_leader_epoch: int = -1
    ) -> tuple[int, int, int]:
        """Look an offset up by Unix ms or special value; returns (timestamp, offset, leader epoch), -1 for none.

        -1 latest (under the isolation level: 0 high watermark, 1 last stable offset; None: log end), -2 earliest, -3
        greatest timestamp, -4 earliest local, -5 last tiered, -6 earliest pending upload. QUICK for -1, -2, -4, -5 and
        -6, else SLOW. Raises: KafkaError (OFFSET_NOT_AVAILABLE, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, ...).
        """

    def end_offset_for_epoch(self, leader_epoch: int, *, current_leader_epoch: int = -1) -> tuple[int, int]:
        """Where an epoch ended (KIP-320): (leader epoch, end offset), -1 for unknown. QUICK. Raises: KafkaError."""

    def delete_records(self, offset: int) -> int:
        """Move the log start offset up to `offset` (-1: the high watermark); returns the new one. QUICK.

        Raises: KafkaError (OFFSET_OUT_OF_RANGE, POLICY_VIOLATION).
        """

    def size_bytes(self) -> int:
        """Bytes of all segments, the unwritten tail included. QUICK."""

    def flush(self) -> int:
        """Sync everything appended so far; returns the offset below which all survives a power failure. SLOW."""

    def reopen(self, wall_ms: int) -> None:
        """Bring an offline log back through recovery. SLOW. Raises: KafkaError (damaged), OSError."""

class QuorumNotLeaderError(Exception):
    """Only the active leader of the quorum takes proposals."""

class QuorumDamagedError(Exception):
    """Synced data of the quorum's log is missing or changed; the text names file and byte. The node must not start."""

class QuorumNoSpaceError(Exception):
    """The disk has no room: run the same job again later."""

class QuorumFailedError(Exception):
    """The quorum failed earlier and does nothing until it is opened again."""

@final
class QuorumJob:
    """What `QuorumLog.run` must make durable."""

@final
class QuorumJobDone:
    """What a job brings back, for `Quorum.on_persisted`, once."""

@final
class QuorumLog:
    """The writer of one quorum's log directory."""

    def run(self, job: QuorumJob) -> QuorumJobDone:
        """Carry out one job; when this returns, all of it is durable. SLOW. One at a time, in order.

        Raises: QuorumNoSpaceError (run the same job again); OSError, QuorumFailedError (open the quorum again).
        """

    def close(self) -> None:
        """Sync what a clean stop leaves. SLOW. Raises: OSError, QuorumFailedError."""

@final
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

        A lone voter campaigns at once. The last item reports (bytes of a torn tail cut off, damaged snapshots that were
        not needed, batches read).
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
