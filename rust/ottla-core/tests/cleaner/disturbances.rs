//! Readers, damage and unfinished business around compaction.

use std::sync::Arc;

use ottla_core::log_cleaner::{CleanProgress, DEDUPE_BUFFER_BYTES, LogCleaner};
use ottla_core::storage::log_dir::LogDir;
use ottla_core::storage::real_fs::RealFs;
use ottla_core::types::Isolation;

use super::bench::Bench;
use super::reader::{all_records, clean, compacted, entry, plain, put};
use super::support::{Scratch, WALL_MS, dir_options, open};

#[test]
fn readers_of_a_replaced_segment_are_not_disturbed() {
    let mut bench = Bench::new("readers", compacted());
    for number in 0..10 {
        bench.put(&[("a", Some(&"v".repeat(100))), (&number.to_string(), Some("1"))]);
    }
    bench.fill();
    let before = bench
        .partition
        .read(0, 1 << 20, Isolation::ReadUncommitted, true, -1, -1)
        .unwrap();
    bench.clean(WALL_MS);
    let slice = &before.slices[0];
    let mut bytes = vec![0; slice.len];
    slice.file.read_exact_at(&mut bytes, slice.position).unwrap();
    assert!(ottla_core::record::batch::Batches::new(&bytes).all(|batch| batch.unwrap().verify_crc().is_ok()));
    assert_eq!(bench.keys().len(), 11);
}

#[test]
fn a_round_given_up_leaves_nothing() {
    let mut bench = Bench::new("given-up", compacted());
    for number in 0..10 {
        bench.put(&[("a", Some(&"v".repeat(100))), (&number.to_string(), Some("1"))]);
    }
    bench.fill();
    bench
        .cleaner
        .pick(std::slice::from_ref(&bench.partition), WALL_MS)
        .unwrap()
        .unwrap();
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(bench.dir.path().join("t-0")).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    while !names().iter().any(|name| name.ends_with(".cleaned")) {
        assert!(matches!(
            bench.cleaner.step(200).unwrap(),
            CleanProgress::Working { .. }
        ));
    }
    bench.cleaner.abandon().unwrap();
    assert!(!names().iter().any(|name| name.ends_with(".cleaned")), "{:?}", names());
    assert_eq!(bench.cleaner.step(200).unwrap(), CleanProgress::Idle);
}

#[test]
fn a_damaged_log_is_left_alone() {
    let mut bench = Bench::new("damaged", compacted());
    bench.put(&[("a", Some("1")), ("a", Some("2"))]);
    bench.fill();
    bench.fill();
    let path = bench.dir.path().join("t-0").join("00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    bench
        .cleaner
        .pick(std::slice::from_ref(&bench.partition), WALL_MS)
        .unwrap()
        .unwrap();
    let error = loop {
        match bench.cleaner.step(200) {
            Ok(CleanProgress::Working { .. }) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(
        error
            .to_string()
            .contains("t-0/00000000000000000000.log is damaged at byte 0"),
        "{error}"
    );
    assert_eq!(clean(&mut bench.cleaner, &bench.partition, WALL_MS), None);
    assert_eq!(bench.cleaner.uncleanable().count(), 1);
}

#[test]
fn only_durable_segments_are_cleaned() {
    let scratch = Scratch::new("durable");
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let partition = open(&dir, "t", compacted());
    let mut cleaner = LogCleaner::open(&dir, DEDUPE_BUFFER_BYTES);
    for _ in 0..8 {
        let bytes = ottla_core::record::builder::build_batch(
            plain(),
            [ottla_core::record::builder::NewRecord {
                timestamp_ms: WALL_MS,
                key: Some(b"a"),
                value: Some(&[b'v'; 200]),
                ..Default::default()
            }],
        )
        .unwrap();
        let batch = super::support::validated(&bytes, ottla_core::record::validate::Origin::Client);
        partition.append_as_leader(batch, None, WALL_MS).unwrap();
    }
    super::support::settle(&dir, &[&partition]);
    assert_eq!(clean(&mut cleaner, &partition, WALL_MS), None, "no segment is synced");
    while dir.step_background() {}
    assert!(clean(&mut cleaner, &partition, WALL_MS).is_some());
}

#[test]
fn a_compacted_directory_of_another_broker_keeps_its_segments() {
    let scratch = Scratch::new("foreign");
    let before = {
        let bench_dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
        let partition = open(&bench_dir, "t", compacted());
        let mut cleaner = LogCleaner::open(&bench_dir, DEDUPE_BUFFER_BYTES);
        for number in 0..12 {
            let entries = [
                entry("often", Some(&"v".repeat(150))),
                entry(&number.to_string(), Some("1")),
            ];
            put(&bench_dir, &partition, plain(), &entries);
        }
        clean(&mut cleaner, &partition, WALL_MS).unwrap();
        let records = all_records(&partition);
        partition.close().unwrap();
        bench_dir.close().unwrap();
        records
    };
    // as a partition's directory is copied from elsewhere: without checkpoints, marker and boot id
    for entry in std::fs::read_dir(&scratch.0).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
    let partition = open(&dir, "t", compacted());
    assert_eq!(
        partition.offsets().log_end_offset,
        24,
        "{:?}",
        partition.recovery_report()
    );
    assert_eq!(all_records(&partition), before);
}
