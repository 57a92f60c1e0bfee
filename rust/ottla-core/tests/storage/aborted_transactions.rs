//! What readers of committed records are told of aborted transactions, wherever the rows are that say it.

use std::ops::Range;

use ottla_core::error::Error;
use ottla_core::partition::Partition;
use ottla_core::record::builder::{BatchOptions, NewRecord, build_batch};
use ottla_core::record::control::MarkerType;
use ottla_core::record::validate::Origin;
use ottla_core::storage::sim_fs::{Crash, Effect, Fault, Operation};

use super::support::{WALL_MS, append, validated};
use super::transactions::{Fixture, told_by_markers};

/// As many rows as make memory let go of those that are in the file, of which the newest stay.
#[test]
fn a_reader_is_told_of_what_overlaps_its_read_wherever_the_rows_are() {
    for segment_bytes in [1 << 20, 60_000] {
        let log = Fixture::new(segment_bytes);
        let mut expected = Vec::new();
        for round in 0..2500_i32 {
            let producer_id = i64::from(round % 3);
            let first = log.write(producer_id, round / 3);
            append(&log.partition, &[b"plain"], WALL_MS);
            log.end(producer_id, MarkerType::Abort);
            expected.push((producer_id, first));
        }
        log.partition.flush().unwrap();
        log.settle();
        log.write(7, 0); // the end of what may be seen is not the high watermark
        log.settle();
        let overlapping = |from: i64, to: i64| -> Vec<_> {
            let wanted = expected
                .iter()
                .filter(|(_, first)| first + 2 >= from && *first < to)
                .copied();
            wanted.collect()
        };
        let end = log.last_stable_offset();
        for offset in (0..end).step_by(997).chain(end - 9..end) {
            for max_bytes in [1, 500, 5_000, 1 << 20] {
                let (next, told) = log.read_committed(offset, max_bytes);
                assert_eq!(told, overlapping(offset, next), "{offset} to {next}");
            }
            assert_eq!(log.aborted(offset), overlapping(offset, end), "from {offset}");
        }
    }
}

/// What consumers are told is what the markers say, at whatever write there was no room for a moment, and whatever comes
/// behind that.
#[test]
fn no_room_at_any_write_leaves_what_the_markers_tell() {
    for (number, suffix) in ["log", "txnindex", "timeindex", ".index", ""].into_iter().enumerate() {
        let mut hit = 0;
        for after in 0..60 {
            for times in [1, 3] {
                for crash in [None, Some(Crash::ProcessDies), Some(Crash::PowerFails)] {
                    let context = format!("{suffix} after {after}, {times} times, {crash:?}");
                    let mut log = Fixture::new(if (after + times) % 2 == 0 { 500 } else { 700 });
                    let errno = libc::ENOSPC;
                    log.fs.inject(Fault {
                        path_suffix: suffix.to_owned(),
                        operation: Operation::Write,
                        effect: Effect::Fails(errno),
                        after,
                        times,
                    });
                    hit += run_transactions(&log, 0..14);
                    log.fs.heal();
                    log.settle();
                    run_transactions(&log, 14..14 + i64::from(after) % 4);
                    let (aborted, last_stable_offset) = told_by_markers(&log.partition);
                    assert_eq!(log.last_stable_offset(), last_stable_offset, "{context}");
                    assert_eq!(log.aborted(0), aborted, "{context}");
                    log.restart(crash);
                    assert_eq!(told_by_markers(&log.partition).0, aborted, "{context}, restarted");
                    assert_eq!(log.aborted(0), aborted, "{context}, restarted");
                    run_transactions(&log, 20..24);
                    log.restart(Some(Crash::ProcessDies));
                    assert_eq!(log.aborted(0), told_by_markers(&log.partition).0, "{context}, later");
                }
            }
        }
        assert!(hit > 3 * 2, "faults of kind {number} hit something");
    }
}

/// A transaction of each producer, most of them aborted, with other records between them. Returns how many of their
/// appends were refused or lost.
fn run_transactions(log: &Fixture, producers: Range<i64>) -> usize {
    let mut lost = 0;
    for producer_id in producers {
        log.settle(); // once more, where the disk was full: it has room by now
        let end = log.partition.offsets().log_end_offset;
        let plain = |()| append_plain(&log.partition);
        let _ = log
            .try_write(producer_id, 0, 0, true)
            .map(|_| log.settle())
            .and_then(plain);
        let marker_type = if producer_id % 3 == 1 {
            MarkerType::Commit
        } else {
            MarkerType::Abort
        };
        let _ = log.try_end(producer_id, 0, marker_type, 1);
        log.settle();
        lost += usize::from(log.partition.offsets().log_end_offset != end + 3);
        if producer_id % 5 == 0 {
            while log.dir.step_background() {}
        }
    }
    lost
}

fn append_plain(partition: &Partition) -> Result<(), Error> {
    let record = NewRecord {
        timestamp_ms: WALL_MS,
        value: Some(b"plain"),
        ..NewRecord::default()
    };
    let bytes = build_batch(BatchOptions::default(), [record]).unwrap();
    partition.append_as_leader(validated(&bytes, Origin::Client), None, WALL_MS)?;
    Ok(())
}
