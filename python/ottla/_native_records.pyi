"""The part of `ottla._native` that builds and reads record batches."""

from collections.abc import Sequence
from typing import final

from ottla._native_types import NewRecord, Record

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

@final
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
