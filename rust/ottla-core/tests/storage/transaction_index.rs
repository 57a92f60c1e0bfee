//! The transaction index of a log that is opened: rows that are missing or bad come from the log.

use std::io::IoSlice;
use std::path::Path;

use ottla_core::record::control::MarkerType;
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::fs::{LogFs, OpenMode};
use ottla_core::storage::index::{IndexEntries, IndexEntry};
use ottla_core::storage::sim_fs::{Crash, Effect, Fault, Operation, SimFs};
use ottla_core::storage::txn_index::AbortedTxnRow;

use super::history::History;
use super::support::{dir_options, open, open_dir, settle, try_open};

const ROW_BYTES: u64 = AbortedTxnRow::SIZE_BYTES as u64;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 600,
        index_interval_bytes: 150,
        ..LogConfig::default()
    }
}

fn check_whole(fs: &SimFs, history: &History, context: &dyn Fn() -> String) {
    let dir = open_dir(fs);
    let partition = open(&dir, "t", config());
    history.check_served(&partition, context);
    partition.close().unwrap();
    dir.close().unwrap();
    history.check_files(fs, Path::new("/log/t-0"), 150, context);
}

#[test]
fn rows_below_the_producer_snapshot_outlive_a_crash_while_one_is_added_behind_them() {
    let fs = SimFs::new(1);
    let mut history = History::default();
    for is_last in [false, true] {
        let dir = open_dir(&fs);
        let partition = open(&dir, "t", config());
        history.append(&partition, 1, true, "a").unwrap();
        settle(&dir, &[&partition]);
        if is_last {
            // The marker is written, its row is not, or in part.
            fs.inject(Fault {
                path_suffix: AbortedTxnRow::SUFFIX.to_owned(),
                operation: Operation::Write,
                effect: Effect::Fails(libc::EIO),
                after: 0,
                times: 1,
            });
        }
        history.end_transaction(&partition, 1, MarkerType::Abort).unwrap();
        settle(&dir, &[&partition]);
        if is_last {
            assert!(!partition.is_online());
        } else {
            // A clean stop leaves a snapshot, from which later starts go on.
            partition.close().unwrap();
            dir.close().unwrap();
        }
    }
    fs.restart(Crash::ProcessDies);
    let index = Path::new("/log/t-0/00000000000000000000.txnindex");
    assert!((ROW_BYTES..2 * ROW_BYTES).contains(&fs.file_size_bytes(index).unwrap()));
    let start = |fs: &SimFs| {
        let dir = ottla_core::storage::log_dir::LogDir::open(&dir_options(
            std::sync::Arc::new(fs.clone()),
            Path::new("/log"),
        ))?;
        try_open(&dir, "t", config())
    };
    let whole = fs.fork(1);
    start(&whole).unwrap();
    assert_eq!(whole.file_size_bytes(index).unwrap(), 2 * ROW_BYTES);
    for at in fs.changes()..whole.changes() {
        for crash in [Crash::ProcessDies, Crash::PowerFails] {
            let fs = fs.fork(at);
            fs.crash_after(at);
            assert!(start(&fs).is_err() || fs.is_down());
            fs.restart(crash);
            let context = || format!("{crash:?} in change {at}");
            let end = start(&fs).unwrap().offsets().log_end_offset;
            let mut history = history.clone();
            if crash == Crash::PowerFails {
                // The second transaction was not synced.
                history.cut(end);
                assert!(end >= 3, "{}", context());
            }
            fs.restart(Crash::ProcessDies);
            check_whole(&fs, &history, &context);
        }
    }
}

#[test]
fn rows_of_zeros_are_made_anew() {
    let fs = SimFs::new(1);
    let mut history = History::default();
    let dir = open_dir(&fs);
    let partition = open(&dir, "t", config());
    history.append(&partition, 2, true, "a").unwrap();
    for _ in 0..6 {
        history.append(&partition, 1, true, "a").unwrap();
        history.end_transaction(&partition, 1, MarkerType::Abort).unwrap();
        history.append(&partition, 5, false, "a").unwrap();
    }
    history.end_transaction(&partition, 2, MarkerType::Abort).unwrap();
    settle(&dir, &[&partition]);
    partition.close().unwrap();
    dir.close().unwrap();
    drop((partition, dir));
    let indexes: Vec<_> = fs
        .paths()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|suffix| suffix == AbortedTxnRow::SUFFIX))
        .collect();
    assert!(indexes.len() > 2, "{indexes:?}");
    for path in &indexes {
        let rows = fs.file_size_bytes(path).unwrap() / ROW_BYTES;
        for row in 0..rows {
            for crash in [None, Some(Crash::ProcessDies)] {
                let fs = fs.fork(1);
                fs.restart(Crash::ProcessDies);
                let file = fs.open(path, OpenMode::ReadWrite).unwrap();
                file.write_all_at(&[IoSlice::new(&[0; ROW_BYTES as usize])], row * ROW_BYTES)
                    .unwrap();
                if crash.is_some() {
                    fs.remove_file(Path::new("/log/.kafka_cleanshutdown")).unwrap();
                }
                let dir = open_dir(&fs);
                let partition = open(&dir, "t", config());
                let context = || format!("{crash:?}, row {row} of {}", path.display());
                let notes = partition.recovery_report().notes;
                let name = path.file_name().unwrap().to_str().unwrap();
                assert_eq!(notes, [format!("{name} is damaged and was made anew")], "{}", context());
                history.check_served(&partition, &context);
                partition.close().unwrap();
                dir.close().unwrap();
                check_whole(&fs, &history, &context);
            }
        }
    }
}

#[test]
fn only_rows_that_can_have_been_are_sane() {
    let row = |first_offset, last_offset, last_stable_offset| AbortedTxnRow {
        producer_id: 1,
        first_offset,
        last_offset,
        last_stable_offset,
    };
    let is_sane = |base_offset, rows: &[AbortedTxnRow]| {
        let mut entries = IndexEntries::default();
        for row in rows {
            entries.push(*row);
        }
        entries.is_sane(base_offset)
    };
    assert!(is_sane(7, &[row(3, 7, 8), row(4, 9, 4), row(8, 12, 13)]));
    let bad = [
        vec![row(0, 0, 0)],
        vec![row(9, 9, 10)],
        vec![row(3, 6, 7)],
        vec![row(-1, 9, 10)],
        vec![row(8, 9, 11)],
        vec![row(8, 9, -1)],
        vec![row(8, 9, 10), row(8, 9, 10)],
        vec![row(8, 12, 13), row(8, 9, 10)],
        vec![row(8, i64::MAX, i64::MAX), row(0, 0, 0)],
    ];
    for rows in bad {
        assert!(!is_sane(7, &rows), "{rows:?}");
    }
    let zeros = IndexEntries::<AbortedTxnRow>::from_bytes(vec![0; 2 * AbortedTxnRow::SIZE_BYTES]).unwrap();
    assert!(!zeros.is_sane(0));
}

/// Of a closed segment the whole file is surely written: what ends in the middle of a row has lost more than that.
#[test]
fn half_a_row_of_a_closed_segment_has_all_made_anew() {
    let fs = SimFs::new(1);
    let mut history = History::default();
    let dir = open_dir(&fs);
    let partition = open(&dir, "t", config());
    for _ in 0..12 {
        history.append(&partition, 1, true, "a").unwrap();
        history.end_transaction(&partition, 1, MarkerType::Abort).unwrap();
    }
    settle(&dir, &[&partition]);
    partition.close().unwrap();
    dir.close().unwrap();
    drop((partition, dir));
    let mut indexes: Vec<_> = fs
        .paths()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|suffix| suffix == AbortedTxnRow::SUFFIX))
        .collect();
    indexes.sort();
    let last_log = fs
        .paths()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "log"))
        .max();
    indexes.retain(|path| Some(path.with_extension("log")) != last_log);
    assert!(indexes.len() > 1, "{indexes:?}");
    for path in &indexes {
        for crash in [None, Some(Crash::ProcessDies)] {
            let fs = fs.fork(1);
            fs.restart(Crash::ProcessDies);
            let size_bytes = fs.file_size_bytes(path).unwrap();
            let file = fs.open(path, OpenMode::ReadWrite).unwrap();
            file.truncate(size_bytes - ROW_BYTES / 2).unwrap();
            if crash.is_some() {
                fs.remove_file(Path::new("/log/.kafka_cleanshutdown")).unwrap();
            }
            let dir = open_dir(&fs);
            let partition = open(&dir, "t", config());
            let context = || format!("{crash:?}, {}", path.display());
            let name = path.file_name().unwrap().to_str().unwrap();
            let notes = partition.recovery_report().notes;
            assert_eq!(notes, [format!("{name} is damaged and was made anew")], "{}", context());
            history.check_served(&partition, &context);
        }
    }
}
