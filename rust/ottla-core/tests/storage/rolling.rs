//! When segments roll.

use ottla_core::error::Error;
use ottla_core::partition::Partition;
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::fs::LogFs;
use ottla_core::storage::sim_fs::SimFs;

use super::support::{WALL_MS, append, batch, commit, consume, logs, open, open_dir, settle};

#[test]
fn time_rolls_by_the_records_own_clock() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let partition = open(
        &dir,
        "t",
        LogConfig {
            segment_ms: 1000,
            ..LogConfig::default()
        },
    );
    for (offset, timestamp) in [(0, 0), (1, 1000), (2, 500), (3, 1001), (4, 2001), (5, 2002), (6, 0)] {
        let appended = append(&partition, &[b"x"], WALL_MS + timestamp);
        assert_eq!(appended.base_offset, offset);
        commit(&dir, &partition, &appended);
    }
    assert_eq!(logs(&fs), ["", "3", "5"]);
}

#[test]
fn jitter_spreads_the_rolls_and_stays_the_same_for_a_segment() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let mut waited = Vec::new();
    for number in 0..8 {
        let config = LogConfig {
            segment_ms: 1000,
            segment_jitter_ms: 900,
            ..LogConfig::default()
        };
        let topic = format!("t{number}");
        let partition = open(&dir, &topic, config);
        append(&partition, &[b"x"], WALL_MS);
        let is_rolled = |partition: &Partition, after_ms| {
            append(partition, &[b"x"], WALL_MS + after_ms);
            settle(&dir, &[partition]);
            fs.paths()
                .iter()
                .filter(|path| path.starts_with(format!("/log/{topic}-0")))
                .any(|path| {
                    path.extension().is_some_and(|suffix| suffix == "log") && !path.ends_with(format!("{:020}.log", 0))
                })
        };
        waited.push((0..=1001).find(|after_ms| is_rolled(&partition, *after_ms)).unwrap());
    }
    assert!(
        waited.iter().all(|after_ms| (100..=1001).contains(after_ms)),
        "{waited:?}"
    );
    waited.sort_unstable();
    waited.dedup();
    assert!(waited.len() > 4, "{waited:?}");
}

#[test]
fn a_full_index_rolls() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let config = LogConfig {
        segment_index_bytes: 80,
        index_interval_bytes: 0,
        ..LogConfig::default()
    };
    let partition = open(&dir, "t", config);
    for number in 0..40 {
        commit(&dir, &partition, &append(&partition, &[b"x"], WALL_MS + number));
    }
    assert!(logs(&fs).len() > 3, "{:?}", logs(&fs));
    for path in fs.paths() {
        let suffix = path.extension().unwrap_or_default();
        if suffix == "index" || suffix == "timeindex" {
            assert!(fs.read(&path).unwrap().len() <= 80, "{path:?}");
        }
    }
    assert_eq!(consume(&partition, 0, 500).len(), 40);
}

#[test]
fn a_batch_larger_than_a_segment_is_refused() {
    let fs = SimFs::new(1);
    let dir = open_dir(&fs);
    let partition = open(
        &dir,
        "t",
        LogConfig {
            segment_bytes: 500,
            ..LogConfig::default()
        },
    );
    let large = batch(&[&[0; 600]], WALL_MS, None);
    let error = partition.append_as_leader(large, None, WALL_MS).unwrap_err();
    assert!(matches!(error, Error::RecordListTooLarge { segment_bytes: 500, .. }));
    assert_eq!(error.kafka_code(), 18);
}
