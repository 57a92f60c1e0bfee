//! Open, committed and aborted transactions of a partition.

use std::path::Path;
use std::sync::Arc;

use ottla_core::error::Error;
use ottla_core::partition::{AbortedTxn, FileSlice, Partition};
use ottla_core::record::batch::Batches;
use ottla_core::record::builder::{BatchOptions, NewRecord, build_batch};
use ottla_core::record::control::{MarkerType, TransactionMarker};
use ottla_core::record::validate::Origin;
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::fs::LogFs;
use ottla_core::storage::log_dir::LogDir;
use ottla_core::storage::producer_state::Checks;
use ottla_core::storage::sim_fs::{Crash, Effect, Fault, Operation, SimFs};
use ottla_core::storage::verification::Verified;
use ottla_core::types::Isolation;

use super::support::{WALL_MS, append, dir_options, open, settle, try_open, validated};

pub struct Fixture {
    pub fs: SimFs,
    pub dir: Arc<LogDir>,
    pub partition: Arc<Partition>,
    pub config: LogConfig,
}

impl Fixture {
    pub fn new(segment_bytes: u32) -> Self {
        let fs = SimFs::new(1);
        let dir = LogDir::open(&dir_options(Arc::new(fs.clone()), Path::new("/log"))).unwrap();
        let config = LogConfig {
            segment_bytes,
            index_interval_bytes: 100,
            ..LogConfig::default()
        };
        let partition = open(&dir, "t", config.clone());
        Self {
            fs,
            dir,
            partition,
            config,
        }
    }

    pub fn settle(&self) {
        settle(&self.dir, &[&self.partition]);
    }

    /// One record in a transaction; returns its offset.
    pub fn write(&self, producer_id: i64, sequence: i32) -> i64 {
        let offset = self.try_write(producer_id, 0, sequence, true).unwrap();
        self.settle();
        offset
    }

    pub fn try_write(&self, producer_id: i64, epoch: i16, sequence: i32, transactional: bool) -> Result<i64, Error> {
        let options = BatchOptions {
            producer_id,
            producer_epoch: epoch,
            base_sequence: sequence,
            transactional,
            ..BatchOptions::default()
        };
        let record = NewRecord {
            timestamp_ms: WALL_MS,
            value: Some(b"in a transaction"),
            ..NewRecord::default()
        };
        let bytes = build_batch(options, [record]).unwrap();
        let batch = validated(&bytes, Origin::Client);
        Ok(self.partition.append_as_leader(batch, None, WALL_MS)?.base_offset)
    }

    pub fn end(&self, producer_id: i64, marker_type: MarkerType) -> i64 {
        let offset = self.try_end(producer_id, 0, marker_type, 1).unwrap();
        self.settle();
        offset
    }

    pub fn try_end(
        &self,
        producer_id: i64,
        producer_epoch: i16,
        marker_type: MarkerType,
        coordinator_epoch: i32,
    ) -> Result<i64, Error> {
        let marker = TransactionMarker {
            producer_id,
            producer_epoch,
            marker_type,
            coordinator_epoch,
        };
        let bytes = marker.to_batch(0, -1, WALL_MS);
        Ok(self
            .partition
            .append_as_leader(validated(&bytes, Origin::Coordinator), None, WALL_MS)?
            .base_offset)
    }

    pub fn last_stable_offset(&self) -> i64 {
        self.partition.offsets().last_stable_offset
    }

    /// Aborted transactions that a consumer of committed records is told of on its way from an offset to the end: with
    /// every read of those that overlap it, and of no others.
    pub fn aborted(&self, offset: i64) -> Vec<(i64, i64)> {
        let (mut at, mut found) = (offset, Vec::new());
        while at < self.last_stable_offset() {
            let (next, told) = self.read_committed(at, 1 << 20);
            found.extend(told);
            at = next;
        }
        found.sort_unstable_by_key(|(_, first)| *first);
        found.dedup();
        found
    }

    /// Where a read of committed records ends, and the aborted transactions that it tells of.
    pub fn read_committed(&self, offset: i64, max_bytes: usize) -> (i64, Vec<(i64, i64)>) {
        let result = self
            .partition
            .read(offset, max_bytes, Isolation::ReadCommitted, true, -1, -1)
            .unwrap();
        let end = end_of(&result.slices).unwrap();
        let told = result.aborted.unwrap();
        assert!(told.is_sorted_by_key(|txn: &AbortedTxn| txn.first_offset));
        assert!(told.iter().all(|txn| txn.first_offset < end), "behind what was read");
        (
            end,
            told.iter().map(|txn| (txn.producer_id, txn.first_offset)).collect(),
        )
    }

    pub fn restart(&mut self, crash: Option<Crash>) {
        match crash {
            None => {
                self.partition.close().unwrap();
                self.dir.close().unwrap();
            }
            Some(Crash::PowerFails) => {
                self.fs.sync_all(Path::new("/")).unwrap();
                self.fs.restart(Crash::PowerFails);
            }
            Some(crash) => self.fs.restart(crash),
        }
        self.dir = LogDir::open(&dir_options(Arc::new(self.fs.clone()), Path::new("/log"))).unwrap();
        self.partition = open(&self.dir, "t", self.config.clone());
    }
}

/// The offset behind the last record of slices.
fn end_of(slices: &[FileSlice]) -> Option<i64> {
    let mut end = None;
    for slice in slices {
        let mut bytes = vec![0; slice.len];
        slice.file.read_exact_at(&mut bytes, slice.position).unwrap();
        end = Batches::new(&bytes).last().map(|batch| batch.unwrap().next_offset());
    }
    end
}

#[test]
fn an_open_transaction_holds_the_last_stable_offset() {
    let log = Fixture::new(1 << 20);
    append(&log.partition, &[b"plain"], WALL_MS);
    log.write(1, 0);
    log.write(2, 0);
    append(&log.partition, &[b"plain"], WALL_MS);
    log.settle();
    assert_eq!(log.last_stable_offset(), 1);
    assert!(
        log.partition
            .read(1, 1000, Isolation::ReadCommitted, true, -1, -1)
            .unwrap()
            .slices
            .is_empty()
    );
    log.end(1, MarkerType::Commit);
    assert_eq!(log.last_stable_offset(), 2);
    log.end(2, MarkerType::Abort);
    assert_eq!(log.last_stable_offset(), 6);
    assert_eq!(log.aborted(0), [(2, 2)]);
    assert_eq!(log.aborted(5), [(2, 2)], "its marker is there");
    append(&log.partition, &[b"plain"], WALL_MS);
    log.settle();
    assert_eq!(log.aborted(6), []);
}

#[test]
fn a_marker_counts_only_below_the_high_watermark() {
    let log = Fixture::new(1 << 20);
    log.write(1, 0);
    log.try_end(1, 0, MarkerType::Commit, 1).unwrap();
    assert_eq!(log.last_stable_offset(), 0);
    log.settle();
    assert_eq!(log.last_stable_offset(), 2);
}

#[test]
fn an_empty_transactions_marker_changes_nothing_but_the_epoch() {
    let log = Fixture::new(1 << 20);
    log.end(1, MarkerType::Abort);
    assert_eq!((log.last_stable_offset(), log.aborted(0)), (1, vec![]));
}

#[test]
fn producers_and_coordinators_of_the_past_are_fenced() {
    let log = Fixture::new(1 << 20);
    log.write(1, 0);
    assert!(matches!(
        log.try_write(1, 0, 1, false),
        Err(Error::InvalidTxnState { .. })
    ));
    assert!(matches!(
        log.try_write(1, 0, 5, true),
        Err(Error::OutOfOrderSequence {
            expected: 1,
            found: 5,
            ..
        })
    ));
    log.try_end(1, 1, MarkerType::Abort, 7).unwrap();
    assert!(matches!(
        log.try_write(1, 0, 1, true),
        Err(Error::InvalidProducerEpoch {
            found: 0,
            current: 1,
            ..
        })
    ));
    let late = log.try_end(1, 1, MarkerType::Commit, 6);
    assert!(matches!(
        late,
        Err(Error::TransactionCoordinatorFenced {
            found: 6,
            current: 7,
            ..
        })
    ));
    // A new epoch starts at sequence 0.
    assert!(matches!(
        log.try_write(1, 2, 1, true),
        Err(Error::OutOfOrderSequence { expected: 0, .. })
    ));
    log.try_write(1, 2, 0, true).unwrap();
}

#[test]
fn transactions_survive_every_kind_of_restart() {
    for crash in [None, Some(Crash::ProcessDies), Some(Crash::PowerFails)] {
        // Small segments: transactions, their markers and the readers are in different ones.
        let mut log = Fixture::new(400);
        log.write(9, 0);
        let mut expected = Vec::new();
        for round in 0..12_i32 {
            let producer_id = i64::from(round % 3);
            let first = log.write(producer_id, round / 3 * 2);
            append(&log.partition, &[b"plain"], WALL_MS);
            log.write(producer_id, round / 3 * 2 + 1);
            if round % 2 == 0 {
                log.end(producer_id, MarkerType::Abort);
                expected.push((producer_id, first));
            } else {
                log.end(producer_id, MarkerType::Commit);
            }
        }
        assert_eq!(log.last_stable_offset(), 0);
        log.restart(crash);
        assert_eq!(log.last_stable_offset(), 0, "still open after {crash:?}");
        let end = log.end(9, MarkerType::Abort);
        assert_eq!(log.last_stable_offset(), end + 1);
        expected.insert(0, (9, 0));
        assert_eq!(log.aborted(0), expected, "after {crash:?}");
        log.restart(crash);
        assert_eq!(log.last_stable_offset(), end + 1);
        assert_eq!(log.aborted(0), expected, "after {crash:?} once more");
        // The open transaction overlaps everything; of the others, what ended later does.
        for offset in 0..end {
            let overlapping: Vec<_> = expected
                .iter()
                .enumerate()
                .filter(|(number, (_, first))| *number == 0 || first + 3 >= offset)
                .map(|(_, txn)| *txn)
                .collect();
            assert_eq!(log.aborted(offset), overlapping, "at {offset}");
        }
    }
}

/// Aborted transactions and the last stable offset, as the log's own markers tell them.
pub fn told_by_markers(partition: &Partition) -> (Vec<(i64, i64)>, i64) {
    let (mut open, mut aborted) = (std::collections::BTreeMap::new(), Vec::new());
    let (mut offset, end) = (0, partition.offsets().high_watermark);
    while offset < end {
        let result = partition
            .read(offset, 1 << 20, Isolation::ReadUncommitted, true, -1, -1)
            .unwrap();
        for slice in result.slices {
            let mut bytes = vec![0; slice.len];
            slice.file.read_exact_at(&mut bytes, slice.position).unwrap();
            for batch in Batches::new(&bytes) {
                let batch = batch.unwrap();
                offset = batch.next_offset();
                if let Some(marker) = batch
                    .is_control()
                    .then(|| TransactionMarker::parse(&batch).unwrap().unwrap())
                {
                    let first = open.remove(&marker.producer_id);
                    if let (Some(first), MarkerType::Abort) = (first, marker.marker_type) {
                        aborted.push((marker.producer_id, first));
                    }
                } else if batch.is_transactional() {
                    open.entry(batch.producer_id()).or_insert(batch.base_offset());
                }
            }
        }
    }
    let last_stable_offset = open.values().copied().min().unwrap_or(end);
    aborted.retain(|(_, first)| *first < last_stable_offset);
    aborted.sort_unstable_by_key(|(_, first)| *first);
    (aborted, last_stable_offset)
}

#[test]
fn a_crash_in_any_change_leaves_what_the_markers_tell() {
    let run = |fs: &SimFs| -> Result<(), Error> {
        let dir = LogDir::open(&dir_options(Arc::new(fs.clone()), Path::new("/log")))?;
        let config = LogConfig {
            segment_bytes: 500,
            index_interval_bytes: 100,
            ..LogConfig::default()
        };
        let partition = try_open(&dir, "t", config.clone())?;
        let log = Fixture {
            fs: fs.clone(),
            dir,
            partition,
            config,
        };
        for round in 0..10_i32 {
            let producer_id = i64::from(round % 2);
            log.try_write(producer_id, 0, round / 2 * 2, true)?;
            log.settle();
            log.try_write(producer_id, 0, round / 2 * 2 + 1, true)?;
            let marker_type = if round % 3 == 1 {
                MarkerType::Commit
            } else {
                MarkerType::Abort
            };
            log.try_end(producer_id, 0, marker_type, 1)?;
            if round % 4 != 0 {
                log.settle();
            }
            if round == 5 {
                log.partition.flush()?;
                log.dir.write_checkpoints()?;
            }
            while log.dir.step_background() {}
        }
        log.partition.close()?;
        log.dir.close()
    };
    let whole = SimFs::new(1);
    run(&whole).unwrap();
    for seed in 0..4 {
        for at in 0..whole.changes() {
            for crash in [Crash::ProcessDies, Crash::PowerFails] {
                let fs = SimFs::new(seed * 1_000_003 + at);
                fs.crash_after(at);
                assert!(run(&fs).is_err() || fs.is_down());
                fs.restart(crash);
                let dir = LogDir::open(&dir_options(Arc::new(fs.clone()), Path::new("/log"))).unwrap();
                let config = LogConfig {
                    segment_bytes: 500,
                    index_interval_bytes: 100,
                    ..LogConfig::default()
                };
                let partition = open(&dir, "t", config.clone());
                let log = Fixture {
                    fs,
                    dir,
                    partition,
                    config,
                };
                let told = (log.aborted(0), log.last_stable_offset());
                assert_eq!(
                    told,
                    told_by_markers(&log.partition),
                    "{crash:?} in change {at}, seed {seed}"
                );
            }
        }
    }
}

#[test]
fn deleted_records_of_an_open_transaction_hold_nothing_back_but_the_rest_does() {
    let log = Fixture::new(1 << 20);
    log.write(1, 0);
    log.write(1, 1);
    log.write(1, 2);
    assert_eq!(log.last_stable_offset(), 0);
    log.partition.delete_records(2).unwrap();
    assert_eq!(log.last_stable_offset(), 2, "never below the log start offset");
    assert_eq!(
        log.partition
            .list_offset(-1, Some(Isolation::ReadCommitted), -1)
            .unwrap()
            .offset,
        2
    );
    log.end(1, MarkerType::Commit);
    assert_eq!(log.last_stable_offset(), 4);
}

#[test]
fn a_coordinators_batches_are_never_taken_for_repeated_ones() {
    let log = Fixture::new(1 << 20);
    let commit = || {
        let options = BatchOptions {
            producer_id: 1,
            producer_epoch: 0,
            base_sequence: -1,
            transactional: true,
            ..BatchOptions::default()
        };
        let record = NewRecord {
            timestamp_ms: WALL_MS,
            key: Some(b"group"),
            value: Some(b"offset"),
            ..NewRecord::default()
        };
        let batch = validated(&build_batch(options, [record]).unwrap(), Origin::Coordinator);
        let checks = Checks::Coordinator(Verified::NotRequired);
        log.partition.append(batch, None, checks, WALL_MS).unwrap()
    };
    assert_eq!((commit().base_offset, commit().base_offset), (0, 1));
}

#[test]
fn a_transaction_whose_first_batch_was_lost_is_verified_again() {
    let log = Fixture::new(1 << 20);
    let begin = || log.partition.begin_verification(1, 0, 0, true, 0).unwrap();
    let first = begin().expect("nothing is open");
    assert_eq!(begin(), Some(first), "the question is the same until it is settled");
    log.fs.inject(Fault {
        path_suffix: ".log".to_owned(),
        operation: Operation::Write,
        effect: Effect::Fails(libc::ENOSPC),
        after: 0,
        times: 1,
    });
    let append = |guard| {
        let options = BatchOptions {
            producer_id: 1,
            producer_epoch: 0,
            base_sequence: 0,
            transactional: true,
            ..BatchOptions::default()
        };
        let record = NewRecord {
            timestamp_ms: WALL_MS,
            value: Some(b"v"),
            ..NewRecord::default()
        };
        let batch = validated(&build_batch(options, [record]).unwrap(), Origin::Client);
        let checks = Checks::Client(Verified::By(guard));
        log.partition.append(batch, None, checks, WALL_MS)
    };
    append(first).unwrap();
    assert_eq!(begin(), None, "open");
    log.settle();
    let second = begin().expect("the write was lost, and with it the transaction");
    assert_ne!(second, first);
    assert!(
        matches!(append(first), Err(Error::InvalidTxnState { .. })),
        "that answer was used"
    );
    log.settle();
    append(second).unwrap();
    log.settle();
    assert_eq!(log.last_stable_offset(), 0);
}

#[test]
fn a_producer_is_not_forgotten_while_its_transaction_is_open() {
    let mut log = Fixture::new(1 << 20);
    log.config.producer_id_expiration_ms = 1000;
    log.partition.configure(log.config.clone());
    log.write(1, 0);
    log.write(2, 0);
    log.end(2, MarkerType::Commit);
    assert_eq!(log.partition.oldest_transaction_ms(), Some(WALL_MS));
    let ids = |log: &Fixture| -> Vec<i64> {
        let producers = log.partition.active_producers().unwrap();
        producers.iter().map(|producer| producer.producer_id).collect()
    };
    log.partition.on_tick(0, WALL_MS);
    log.partition.on_tick(3_600_000, WALL_MS + 3_600_000);
    assert_eq!(ids(&log), [1]);
    log.restart(Some(Crash::ProcessDies));
    assert!(ids(&log).contains(&1));
    assert_eq!(log.last_stable_offset(), 0);
    assert_eq!(log.partition.active_producers().unwrap()[0].current_txn_start_offset, 0);
    log.end(1, MarkerType::Abort);
    assert_eq!(log.partition.oldest_transaction_ms(), None);
    assert_eq!(log.aborted(0), [(1, 0)]);
}

#[test]
fn batches_are_read_whole_and_with_what_became_of_their_transactions() {
    let log = Fixture::new(1 << 20);
    log.write(1, 0); // 0
    log.write(2, 0); // 1
    log.end(1, MarkerType::Abort); // 2
    log.write(1, 1); // 3
    log.end(2, MarkerType::Commit); // 4
    log.end(1, MarkerType::Commit); // 5
    log.write(2, 1); // 6
    log.end(2, MarkerType::Abort); // 7
    log.write(1, 2); // 8, open
    let read = |offset, max_bytes, isolation| {
        let read = log.partition.read_batches(offset, max_bytes, isolation).unwrap();
        let mut told = Vec::new();
        for (extent, batch) in read.batches.iter().zip(Batches::new(&read.bytes)) {
            let batch = batch.unwrap();
            assert_eq!(
                (batch.base_offset(), batch.last_offset()),
                (extent.base_offset, extent.last_offset)
            );
            assert_eq!(&read.bytes[extent.position..][..batch.size_bytes()], batch.bytes());
            told.push((extent.base_offset, extent.is_aborted));
        }
        assert_eq!(Batches::new(&read.bytes).count(), read.batches.len());
        told
    };
    let plain = |offsets: std::ops::RangeInclusive<i64>| offsets.map(|offset| (offset, false)).collect::<Vec<_>>();
    assert_eq!(read(0, 1 << 20, Isolation::ReadUncommitted), plain(0..=8));
    let aborted = |offset| (offset, [0, 6].contains(&offset));
    for from in 0..8 {
        let expected: Vec<_> = (from..=7).map(aborted).collect();
        assert_eq!(read(from, 1 << 20, Isolation::ReadCommitted), expected);
    }
    assert_eq!(read(8, 1 << 20, Isolation::ReadCommitted), []);
    assert_eq!(
        read(3, 1, Isolation::ReadCommitted),
        [(3, false)],
        "the first whatever its size"
    );
    assert_eq!(read(9, 1 << 20, Isolation::ReadUncommitted), []);
    assert!(matches!(
        log.partition.read_batches(10, 1, Isolation::ReadUncommitted),
        Err(Error::OffsetOutOfRange { .. })
    ));
}
