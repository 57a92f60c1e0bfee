//! A crash in the middle of every single change of the disk that a workload makes, in both crash models.

use std::path::Path;
use std::sync::Arc;

use ottla_core::error::Result;
use ottla_core::partition::{AppendState, Appended, Partition};
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::log_dir::LogDir;
use ottla_core::storage::sim_fs::{Crash, SimFs};
use ottla_core::types::Isolation;

use super::support::{Producer, WALL_MS, batch, consume, dir_options, settle, try_open};

/// What the workload was promised.
#[derive(Default)]
struct Promises {
    /// Offset and value of every record appended, acknowledged or not.
    sent: Vec<Vec<(i64, Vec<u8>)>>,
    acknowledged_to: i64,
    synced_to: i64,
    log_start_offset: i64,
    /// A deletion was begun: the log may start anywhere up to it.
    log_start_limit: i64,
    is_deleted: bool,
    sequence: i32,
}

impl std::fmt::Debug for Promises {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Promises")
            .field("acknowledged_to", &self.acknowledged_to)
            .field("synced_to", &self.synced_to)
            .field("log_start_offset", &(self.log_start_offset..=self.log_start_limit))
            .field("is_deleted", &self.is_deleted)
            .finish_non_exhaustive()
    }
}

fn config(flush_messages: i64) -> LogConfig {
    LogConfig {
        segment_bytes: 900,
        index_interval_bytes: 150,
        flush_messages,
        ..LogConfig::default()
    }
}

fn open_dir(fs: &SimFs) -> Result<Arc<LogDir>> {
    LogDir::open(&dir_options(Arc::new(fs.clone()), Path::new("/data/log")))
}

/// Append a few batches, write them, and note what was acknowledged. `false`: the machine is down.
fn produce(dir: &LogDir, partition: &Partition, promises: &mut Promises, count: usize) -> bool {
    let mut appended: Vec<Appended> = Vec::new();
    for _ in 0..count {
        let first = partition.offsets().log_end_offset;
        let values: Vec<Vec<u8>> = (0..2)
            .map(|number| format!("value of {}", first + number).into_bytes())
            .collect();
        let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let producer = Producer {
            id: 5,
            epoch: 0,
            sequence: promises.sequence,
        };
        let Ok(found) = partition.append_as_leader(batch(&slices, WALL_MS + first, Some(producer)), None, WALL_MS)
        else {
            return false;
        };
        promises.sequence += 2;
        promises.sent.retain(|records| records[0].0 < first);
        promises.sent.push(
            values
                .into_iter()
                .enumerate()
                .map(|(number, value)| (first + number as i64, value))
                .collect(),
        );
        appended.push(found);
    }
    settle(dir, &[partition]);
    for found in &appended {
        if partition.append_state(found) == AppendState::Committed {
            promises.acknowledged_to = promises.acknowledged_to.max(found.last_offset + 1);
        }
    }
    while dir.step_background() {}
    settle(dir, &[partition]);
    partition.offline_reason().is_none()
}

/// Everything that a log does to its files. Stops at the first error.
fn workload(fs: &SimFs, config: &LogConfig, promises: &mut Promises) -> Result<()> {
    let dir = open_dir(fs)?;
    let partition = try_open(&dir, "t", config.clone())?;
    for count in [1, 3, 2, 5, 1, 4] {
        if !produce(&dir, &partition, promises, count) {
            return Ok(());
        }
    }
    promises.synced_to = partition.flush()?;
    dir.write_checkpoints()?;
    promises.log_start_limit = 15;
    partition.delete_records(15)?;
    dir.write_checkpoints()?;
    promises.log_start_offset = 15;
    if !produce(&dir, &partition, promises, 6) {
        return Ok(());
    }
    partition.close()?;
    dir.close()?;
    promises.synced_to = partition.offsets().log_end_offset;

    let dir = open_dir(fs)?;
    let partition = try_open(&dir, "t", config.clone())?;
    for count in [2, 5, 4] {
        if !produce(&dir, &partition, promises, count) {
            return Ok(());
        }
    }
    promises.is_deleted = true;
    partition.delete()?;
    while dir.step_background() {}
    Ok(())
}

/// Open after a crash, compare with what was promised, and go on.
fn check(fs: &SimFs, config: &LogConfig, crash: Crash, promises: &mut Promises, at: u64) {
    let dir = open_dir(fs).unwrap();
    let is_there = !dir.partitions().is_empty();
    let partition = try_open(&dir, "t", config.clone())
        .unwrap_or_else(|error| panic!("crash {crash:?} in change {at}: {error}; files {:?}", fs.paths()));
    let offsets = partition.offsets();
    let mut owed = match crash {
        Crash::ProcessDies => promises.acknowledged_to,
        Crash::PowerFails if config.flush_messages == 1 => promises.acknowledged_to,
        Crash::PowerFails => promises.synced_to,
    };
    if promises.is_deleted && !is_there {
        owed = 0;
        promises.log_start_offset = 0;
        promises.sent.clear();
    }
    let context = format!(
        "crash {crash:?} in change {at}: {offsets:?}, {promises:?}, {:?}",
        partition.recovery_report()
    );
    assert!(
        offsets.log_end_offset >= owed,
        "acknowledged records are lost; {context}"
    );
    assert!(
        offsets.log_start_offset >= promises.log_start_offset.min(offsets.log_end_offset),
        "{context}"
    );
    assert!(offsets.log_start_offset <= promises.log_start_limit, "{context}");
    let found = consume(&partition, offsets.log_start_offset, 500);
    let expected: Vec<(i64, Vec<u8>)> = promises
        .sent
        .iter()
        .flatten()
        .filter(|(offset, _)| (offsets.log_start_offset..offsets.log_end_offset).contains(offset))
        .cloned()
        .collect();
    let show = |records: &[(i64, Vec<u8>)]| -> Vec<String> {
        records
            .iter()
            .map(|(offset, value)| format!("{offset}={}", String::from_utf8_lossy(value)))
            .collect()
    };
    assert_eq!(show(&found), show(&expected), "{context}");
    assert_eq!(offsets.log_end_offset % 2, 0, "half a batch; {context}");
    for (offset, _) in &found {
        let found = partition
            .list_offset(WALL_MS + offset, Some(Isolation::default()), -1)
            .unwrap();
        assert!(
            found.offset <= *offset && found.offset >= offset - 1,
            "{found:?} for {offset}; {context}"
        );
    }
    // The producer's last surviving batch is known, and the next one is in sequence.
    if let Some(last) = found.last().map(|(offset, _)| *offset) {
        let producer = Producer {
            id: 5,
            epoch: 0,
            sequence: (last - 1) as i32,
        };
        let again = partition.append_as_leader(batch(&[b"x", b"y"], WALL_MS, Some(producer)), None, WALL_MS);
        assert!(again.unwrap().duplicate, "{context}");
        promises.sequence = (last + 1) as i32;
    } else {
        // Nothing is left of the producer.
        promises.sequence = 0;
    }
    if offsets.log_end_offset == i64::from(promises.sequence) {
        assert!(produce(&dir, &partition, promises, 3), "{context}");
        assert_eq!(
            partition.offsets().high_watermark,
            offsets.log_end_offset + 6,
            "{context}"
        );
    }
    partition.close().unwrap();
    dir.close().unwrap();
    let dir = open_dir(fs).unwrap();
    assert!(dir.was_clean());
    let again = try_open(&dir, "t", config.clone()).unwrap();
    assert_eq!(
        again.offsets().log_end_offset,
        partition.offsets().log_end_offset,
        "{context}"
    );
    assert_eq!(again.recovery_report().scanned_bytes, 0);
}

/// `CRASH_SEEDS` in the environment asks for more than the few that every test run takes.
fn enumerate(crash: Crash, flush_messages: i64, seeds: u64) {
    let seeds = std::env::var("CRASH_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(seeds);
    let config = config(flush_messages);
    let whole = SimFs::new(0);
    workload(&whole, &config, &mut Promises::default()).unwrap();
    let changes = whole.changes();
    assert!(changes > 100, "{changes}");
    for seed in 0..seeds {
        for at in 0..changes {
            let fs = SimFs::new(seed * 1_000_003 + at);
            fs.crash_after(at);
            let mut promises = Promises::default();
            let _ = workload(&fs, &config, &mut promises);
            assert!(fs.is_down());
            fs.restart(crash);
            check(&fs, &config, crash, &mut promises, at);
        }
    }
}

#[test]
fn the_process_dies_in_every_change() {
    enumerate(Crash::ProcessDies, i64::MAX, 2);
}

#[test]
fn the_power_fails_in_every_change() {
    enumerate(Crash::PowerFails, i64::MAX, 6);
}

#[test]
fn the_power_fails_in_every_change_of_a_topic_that_syncs_each_append() {
    enumerate(Crash::PowerFails, 1, 6);
}

#[test]
fn the_process_dies_in_every_change_of_a_topic_that_syncs_each_append() {
    enumerate(Crash::ProcessDies, 1, 2);
}
