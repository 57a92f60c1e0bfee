//! A crash in the middle of every single change of the disk that cleaning makes, in both crash models: no key loses its
//! value, no aborted record comes back, nothing of the swap is left behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ottla_core::error::Result;
use ottla_core::log_cleaner::{CleanProgress, LogCleaner};
use ottla_core::partition::Partition;
use ottla_core::record::builder::BatchOptions;
use ottla_core::record::control::MarkerType;
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::log_dir::LogDir;
use ottla_core::storage::sim_fs::{Crash, Effect, Fault, Operation, SimFs};

use super::reader::{clean, committed_records, compacted, end, entry, final_state, plain, put};
use super::support::{WALL_MS, dir_options, open, settle, try_open};

/// Every append is synced, so that a power failure may take nothing.
fn config() -> LogConfig {
    LogConfig {
        flush_messages: 1,
        delete_retention_ms: 1_000,
        ..compacted()
    }
}

fn open_dir(fs: &SimFs) -> Result<Arc<LogDir>> {
    LogDir::open(&dir_options(Arc::new(fs.clone()), Path::new("/data/log")))
}

/// Keys that are replaced, tombstones, a committed and an aborted transaction, over several segments.
fn fill(dir: &LogDir, partition: &Partition, round: usize) {
    for number in 0..4 {
        let value = format!("{round} {number} {}", "v".repeat(60));
        let entries = [
            entry(&format!("key {}", number % 3), Some(&value)),
            entry("often", Some(&value)),
        ];
        put(dir, partition, plain(), &entries);
    }
    put(
        dir,
        partition,
        plain(),
        &[entry("key 1", None), entry(&format!("only {round}"), Some("1"))],
    );
    let transactional = |sequence| BatchOptions {
        producer_id: 9,
        producer_epoch: 0,
        base_sequence: sequence,
        transactional: true,
        ..plain()
    };
    let sequence = 2 * round as i32;
    put(
        dir,
        partition,
        transactional(sequence),
        &[entry("key 2", Some(&"aborted".repeat(20)))],
    );
    end(dir, partition, (9, 0), MarkerType::Abort, WALL_MS);
    put(
        dir,
        partition,
        transactional(sequence + 1),
        &[entry("key 3", Some(&"committed".repeat(20)))],
    );
    end(dir, partition, (9, 0), MarkerType::Commit, WALL_MS);
    put(dir, partition, plain(), &[entry("filler", Some(&"x".repeat(420)))]);
}

/// The disk with two rounds of data, the first of them cleaned, and what its consumers see.
fn prepared() -> (SimFs, BTreeMap<Vec<u8>, Vec<u8>>) {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs).unwrap();
    let partition = open(&dir, "t", config());
    while dir.step_background() {}
    let mut cleaner = LogCleaner::open(&dir, 1 << 20);
    put(&dir, &partition, plain(), &[entry("written once", Some("1"))]);
    fill(&dir, &partition, 0);
    clean(&mut cleaner, &partition, WALL_MS).unwrap();
    fill(&dir, &partition, 1);
    partition.flush().unwrap();
    settle(&dir, &[&partition]);
    let state = final_state(&committed_records(&partition));
    (fs, state)
}

fn check(fs: &SimFs, expected: &BTreeMap<Vec<u8>, Vec<u8>>, what: &str) {
    let dir = open_dir(fs).unwrap();
    let partition = try_open(&dir, "t", config()).unwrap_or_else(|error| panic!("{what}: {error}; {:?}", fs.paths()));
    let leftovers: Vec<_> = fs
        .paths()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "cleaned" || end == "swap"))
        .collect();
    assert!(leftovers.is_empty(), "{what}: {leftovers:?}");
    assert_eq!(&final_state(&committed_records(&partition)), expected, "{what}");
    while dir.step_background() {}
    // and cleaning goes on where it was
    let mut cleaner = LogCleaner::open(&dir, 1 << 20);
    clean(&mut cleaner, &partition, WALL_MS + 1);
    assert_eq!(
        &final_state(&committed_records(&partition)),
        expected,
        "{what}, cleaned again"
    );
}

#[test]
fn every_crash_leaves_a_log_with_the_same_values() {
    let (prepared, expected) = prepared();
    // which changes of the disk one round of cleaning makes
    let dry = prepared.fork(2);
    dry.restart(Crash::ProcessDies);
    let before = dry.changes();
    let dir = open_dir(&dry).unwrap();
    let partition = open(&dir, "t", config());
    while dir.step_background() {}
    let opened = dry.changes() - before;
    let mut cleaner = LogCleaner::open(&dir, 1 << 20);
    let stats = clean(&mut cleaner, &partition, WALL_MS).unwrap();
    assert!(stats.segments_before > 4 && stats.segments_after > 1, "{stats:?}");
    let changes = dry.changes() - before;
    drop((cleaner, partition, dir));
    for at in opened..=changes {
        for crash in [Crash::ProcessDies, Crash::PowerFails] {
            let fs = prepared.fork(at * 2 + u64::from(crash == Crash::PowerFails));
            fs.restart(Crash::ProcessDies);
            fs.crash_after(before + at);
            // ends in an error where the machine went down
            let _ = one_round(&fs);
            fs.restart(crash);
            check(&fs, &expected, &format!("{crash:?} in change {at} of {changes}"));
        }
    }
}

fn one_round(fs: &SimFs) -> Result<()> {
    let dir = open_dir(fs)?;
    let partition = try_open(&dir, "t", config())?;
    while dir.step_background() {}
    let mut cleaner = LogCleaner::open(&dir, 1 << 20);
    cleaner.pick(std::slice::from_ref(&partition), WALL_MS)?;
    while let CleanProgress::Working { .. } = cleaner.step(400)? {}
    Ok(())
}

#[test]
fn a_failing_call_costs_a_round_and_no_record() {
    let (prepared, expected) = prepared();
    let operations = [
        Operation::Write,
        Operation::Sync,
        Operation::Truncate,
        Operation::Rename,
        Operation::Create,
        Operation::Read,
        Operation::Remove,
    ];
    for operation in operations {
        for after in 0..12 {
            let fs = prepared.fork(after);
            fs.restart(Crash::ProcessDies);
            let dir = open_dir(&fs).unwrap();
            let partition = open(&dir, "t", config());
            while dir.step_background() {}
            let mut cleaner = LogCleaner::open(&dir, 1 << 20);
            cleaner
                .pick(std::slice::from_ref(&partition), WALL_MS)
                .unwrap()
                .unwrap();
            fs.inject(Fault {
                path_suffix: String::new(),
                operation,
                effect: Effect::Fails(libc::EIO),
                after: after as u32,
                times: 1,
            });
            let result = loop {
                match cleaner.step(400) {
                    Ok(CleanProgress::Working { .. }) => {}
                    result => break result,
                }
            };
            fs.heal();
            let what = format!("{operation:?} after {after}: {result:?}");
            assert_eq!(final_state(&committed_records(&partition)), expected, "{what}");
            // a swap that was interrupted is carried on by whoever comes next
            if result.is_err() {
                clean(&mut cleaner, &partition, WALL_MS).unwrap_or_else(|| panic!("{what}: nothing to clean"));
            }
            assert_eq!(
                final_state(&committed_records(&partition)),
                expected,
                "{what}, cleaned again"
            );
            partition.delete_old_segments(WALL_MS).unwrap();
            drop((cleaner, partition, dir));
            fs.restart(Crash::PowerFails);
            check(&fs, &expected, &what);
        }
    }
}

#[test]
fn a_full_disk_stops_the_cleaner_and_nothing_else() {
    let (prepared, expected) = prepared();
    let fs = prepared.fork(1);
    fs.restart(Crash::ProcessDies);
    let dir = open_dir(&fs).unwrap();
    let partition = open(&dir, "t", config());
    while dir.step_background() {}
    let mut cleaner = LogCleaner::open(&dir, 1 << 20);
    cleaner
        .pick(std::slice::from_ref(&partition), WALL_MS)
        .unwrap()
        .unwrap();
    fs.set_capacity(Some(fs.used_bytes()));
    let error = loop {
        match cleaner.step(400) {
            Ok(CleanProgress::Working { .. }) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("writing a cleaned segment"), "{error}");
    assert!(partition.is_online());
    assert_eq!(final_state(&committed_records(&partition)), expected);
    assert!(
        !fs.paths()
            .iter()
            .any(|path| path.extension().is_some_and(|end| end == "cleaned"))
    );
    fs.set_capacity(None);
    clean(&mut cleaner, &partition, WALL_MS).unwrap();
    assert_eq!(final_state(&committed_records(&partition)), expected);
}

#[test]
fn deleting_truncating_or_trimming_a_log_under_the_cleaner_is_harmless() {
    let (prepared, _) = prepared();
    for interference in ["delete", "truncate", "trim"] {
        for steps in 0..40 {
            let fs = prepared.fork(steps);
            fs.restart(Crash::ProcessDies);
            let dir = open_dir(&fs).unwrap();
            let partition = open(
                &dir,
                "t",
                LogConfig {
                    cleanup_policy: LogConfig::default().cleanup_policy,
                    ..config()
                },
            );
            partition.configure(config());
            while dir.step_background() {}
            let mut cleaner = LogCleaner::open(&dir, 1 << 20);
            cleaner
                .pick(std::slice::from_ref(&partition), WALL_MS)
                .unwrap()
                .unwrap();
            for _ in 0..steps {
                cleaner.step(400).unwrap();
            }
            match interference {
                "delete" => partition.delete().unwrap(),
                "truncate" => partition.truncate_to(9, WALL_MS).unwrap(),
                _ => {
                    partition.configure(LogConfig {
                        cleanup_policy: LogConfig::default().cleanup_policy,
                        ..config()
                    });
                    partition.delete_records(12).unwrap();
                    dir.write_checkpoints().unwrap();
                    partition.configure(config());
                }
            }
            let result = loop {
                match cleaner.step(400) {
                    Ok(CleanProgress::Working { .. }) => {}
                    result => break result,
                }
            };
            settle(&dir, &[&partition]);
            while dir.step_background() {}
            if interference == "delete" {
                assert!(
                    fs.paths().iter().all(|path| !path.to_string_lossy().contains("t-0")),
                    "{:?}",
                    fs.paths()
                );
                continue;
            }
            let state = final_state(&committed_records(&partition));
            let what = format!("{interference} after {steps} steps: {result:?}");
            drop((cleaner, partition, dir));
            fs.restart(Crash::ProcessDies);
            check(&fs, &state, &what);
        }
    }
}
