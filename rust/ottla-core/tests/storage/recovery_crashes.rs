//! A crash in every single change of the disk that a recovery makes, after a crash in every single change that a workload
//! made before, in both crash models: recovery is recovered from like anything else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_core::error::{Error, Result};
use ottla_core::partition::Partition;
use ottla_core::record::control::MarkerType;
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::fs::{LogFs, OpenMode};
use ottla_core::storage::log_dir::LogDir;
use ottla_core::storage::sim_fs::{Crash, SimFs};

use super::history::History;
use super::support::{WALL_MS, append, commit, consume, dir_options, open_as_leader, settle, try_open};

const DIR: &str = "/data/log";
/// The producer of what is not part of a transaction.
const PLAIN: i64 = 5;
const INDEX_INTERVAL_BYTES: u32 = 150;

/// What the workload was promised.
#[derive(Clone, Default, Debug)]
struct Promises {
    history: History,
    acknowledged_to: i64,
    synced_to: i64,
    log_start_offset: i64,
    /// A deletion was begun: the log may start anywhere up to it.
    log_start_limit: i64,
}

#[derive(Clone, Copy)]
enum Step {
    Plain,
    Write(i64),
    Abort(i64),
    Commit(i64),
}
use Step::{Abort, Commit, Plain, Write};

/// A running broker, as far as one partition goes.
struct Life {
    dir: Arc<LogDir>,
    partition: Arc<Partition>,
    name: &'static str,
}

impl Life {
    /// Start, which recovers; and let the background do what it finds to do.
    fn begin(fs: &SimFs, config: &LogConfig, name: &'static str, leader_epoch: i32) -> Result<Self> {
        let dir = LogDir::open(&dir_options(Arc::new(fs.clone()), Path::new(DIR)))?;
        let partition = open_as_leader(&dir, "t", config.clone(), leader_epoch)?;
        let life = Self { dir, partition, name };
        life.settle();
        Ok(life)
    }

    fn settle(&self) {
        settle(&self.dir, &[&self.partition]);
        while self.dir.step_background() {}
        settle(&self.dir, &[&self.partition]);
    }

    /// Append batches, which are written together.
    fn write(&self, promises: &mut Promises, steps: &[Step]) -> Result<()> {
        let (history, partition) = (&mut promises.history, &self.partition);
        for step in steps {
            match *step {
                Plain => history.append(partition, PLAIN, false, self.name)?,
                Write(producer_id) => history.append(partition, producer_id, true, self.name)?,
                Abort(producer_id) => history.end_transaction(partition, producer_id, MarkerType::Abort)?,
                Commit(producer_id) => history.end_transaction(partition, producer_id, MarkerType::Commit)?,
            }
        }
        settle(&self.dir, &[partition]);
        promises.acknowledged_to = promises.acknowledged_to.max(partition.offsets().high_watermark);
        Ok(())
    }

    fn flush(&self, promises: &mut Promises) -> Result<()> {
        promises.synced_to = self.partition.flush()?;
        self.dir.write_checkpoints()
    }

    fn close(self, promises: &mut Promises) -> Result<()> {
        self.partition.close()?;
        self.dir.close()?;
        promises.synced_to = promises.history.end();
        Ok(())
    }
}

fn config(flush_messages: i64) -> LogConfig {
    LogConfig {
        segment_bytes: 600,
        index_interval_bytes: INDEX_INTERVAL_BYTES,
        flush_messages,
        ..LogConfig::default()
    }
}

/// Transactions that lie within a segment, across segments and across a clean stop; a deletion. Stops at the first error.
fn workload(fs: &SimFs, config: &LogConfig, promises: &mut Promises) -> Result<()> {
    let life = Life::begin(fs, config, "first", 1)?;
    life.write(promises, &[Plain])?;
    life.write(promises, &[Write(1), Write(1)])?;
    life.write(promises, &[Abort(1)])?;
    life.write(promises, &[Write(2), Plain, Write(1)])?;
    life.settle();
    life.flush(promises)?;
    life.write(promises, &[Commit(2)])?;
    life.write(promises, &[Plain, Abort(1), Write(2)])?;
    life.close(promises)?;

    let life = Life::begin(fs, config, "second", 2)?;
    life.write(promises, &[Abort(2)])?;
    life.write(promises, &[Write(1)])?;
    life.settle();
    life.write(promises, &[Plain, Plain])?;
    life.flush(promises)?;
    promises.log_start_limit = 10;
    life.partition.delete_records(10)?;
    life.settle();
    life.dir.write_checkpoints()?;
    promises.log_start_offset = 10;
    life.write(promises, &[Abort(1), Plain])?;
    life.write(promises, &[Write(2)])?;
    life.settle();
    life.write(promises, &[Abort(2), Plain])
}

/// Start after crashes and compare with what was promised; the history ends where the log does from then on.
fn check(
    fs: &SimFs,
    config: &LogConfig,
    promises: &mut Promises,
    crashes: &[Crash],
    leader_epoch: i32,
    context: &dyn Fn() -> String,
) -> Life {
    let life = Life::begin(fs, config, "third", leader_epoch)
        .unwrap_or_else(|error| panic!("{error}; {}; files {:?}", context(), fs.paths()));
    let offsets = life.partition.offsets();
    let context = || format!("{}: {offsets:?}, {:?}", context(), life.partition.recovery_report());
    let owed = if crashes.contains(&Crash::PowerFails) && config.flush_messages > 1 {
        promises.synced_to
    } else {
        promises.acknowledged_to
    };
    assert!(
        offsets.log_end_offset >= owed,
        "records below {owed} are lost; {}",
        context()
    );
    let log_starts = promises.log_start_offset..=promises.log_start_limit;
    assert!(
        log_starts.contains(&offsets.log_start_offset),
        "{log_starts:?}; {}",
        context()
    );
    promises.history.cut(offsets.log_end_offset);
    promises.acknowledged_to = offsets.log_end_offset;
    promises.history.check_served(&life.partition, &context);
    life
}

/// The log is written again and once more crashes or stops, which must leave nothing of what was cut before, also where
/// nothing was flushed meanwhile.
fn go_on(
    fs: &SimFs,
    config: &LogConfig,
    promises: &mut Promises,
    life: Life,
    ending: Option<Crash>,
    is_flushed: bool,
    context: &dyn Fn() -> String,
) {
    life.write(promises, &[Write(3), Plain]).unwrap();
    if is_flushed {
        life.flush(promises).unwrap();
    }
    life.write(promises, &[Abort(3), Plain, Write(1)]).unwrap();
    let life = match ending {
        None => life,
        Some(crash) => {
            fs.restart(crash);
            check(fs, config, promises, &[crash], 5, context)
        }
    };
    life.close(promises).unwrap();
    promises
        .history
        .check_files(fs, &Path::new(DIR).join("t-0"), INDEX_INTERVAL_BYTES as usize, context);
    let life = Life::begin(fs, config, "last", 6).unwrap();
    assert!(life.dir.was_clean());
    assert_eq!(life.partition.recovery_report().scanned_bytes, 0);
    promises.history.check_served(&life.partition, context);
}

const CRASHES: [Crash; 2] = [Crash::ProcessDies, Crash::PowerFails];

/// `CRASH_SEEDS` in the environment asks for more than the few that every test run takes.
fn enumerate(first: Crash, flush_messages: i64) {
    let seeds = std::env::var("CRASH_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(1);
    let config = config(flush_messages);
    let whole = SimFs::new(0);
    workload(&whole, &config, &mut Promises::default()).unwrap();
    let (mut recoveries, mut interrupted) = (0, 0);
    for (seed, at) in (0..seeds).flat_map(|seed| (0..whole.changes()).map(move |at| (seed, at))) {
        let crashed = SimFs::new(seed * 1_000_003 + at);
        crashed.crash_after(at);
        let mut promises = Promises::default();
        let _ = workload(&crashed, &config, &mut promises);
        assert!(crashed.is_down());
        crashed.restart(first);
        let before = crashed.changes();
        let dry = crashed.fork(at);
        let (changes, end) = {
            let context = || format!("seed {seed}: {first:?} in change {at}");
            let mut promises = promises.clone();
            let life = check(&dry, &config, &mut promises, &[first], 3, &context);
            let changes = dry.changes() - before;
            let end = promises.history.end();
            go_on(
                &dry,
                &config,
                &mut promises,
                life,
                CRASHES.get(at as usize % 3).copied(),
                at % 2 == 0,
                &context,
            );
            (changes, end)
        };
        recoveries += 1;
        for within in 0..changes {
            for second in CRASHES {
                let fs = crashed.fork(seed * 1_000_003 + at * 1_009 + within * 2 + u64::from(second == first));
                fs.crash_after(before + within);
                let _ = Life::begin(&fs, &config, "interrupted", 3);
                assert!(fs.is_down());
                fs.restart(second);
                let context =
                    || format!("seed {seed}: {first:?} in change {at}, {second:?} in change {within} of the recovery");
                let mut promises = promises.clone();
                let life = check(&fs, &config, &mut promises, &[first, second], 4, &context);
                if second == Crash::ProcessDies {
                    assert_eq!(promises.history.end(), end, "{}", context());
                }
                let ending = CRASHES.get((at + within) as usize % 3).copied();
                let is_flushed = (at / 3 + within) % 2 == 0;
                go_on(&fs, &config, &mut promises, life, ending, is_flushed, &context);
                interrupted += 1;
            }
        }
    }
    assert!(
        recoveries > 100 && interrupted > 1000,
        "{recoveries} recoveries, {interrupted} interrupted"
    );
    println!("{first:?}: {recoveries} recoveries, {interrupted} interrupted ones");
}

#[test]
fn a_crash_in_the_recovery_from_a_dead_process() {
    enumerate(Crash::ProcessDies, i64::MAX);
}

#[test]
fn a_crash_in_the_recovery_from_a_power_failure() {
    enumerate(Crash::PowerFails, i64::MAX);
}

#[test]
fn a_crash_in_the_recovery_from_a_dead_process_of_a_topic_that_syncs_each_append() {
    enumerate(Crash::ProcessDies, 1);
}

#[test]
fn a_crash_in_the_recovery_from_a_power_failure_of_a_topic_that_syncs_each_append() {
    enumerate(Crash::PowerFails, 1);
}

/// A torn batch may lack only its last bytes, and they may be zeros, by which a file grows in a power failure.
#[test]
fn a_torn_write_that_was_cut_never_becomes_whole() {
    let open_all = |fs: &SimFs| {
        let dir = LogDir::open(&dir_options(Arc::new(fs.clone()), Path::new(DIR)))?;
        let partition = try_open(&dir, "t", LogConfig::default())?;
        Ok::<_, Error>((dir, partition))
    };
    for first in CRASHES {
        let torn = SimFs::new(1);
        let (dir, partition) = open_all(&torn).unwrap();
        commit(&dir, &partition, &append(&partition, &[b"kept".as_slice()], WALL_MS));
        commit(&dir, &partition, &append(&partition, &[b"cut".as_slice()], WALL_MS));
        let is_log = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "log");
        let path = torn.paths().into_iter().find(is_log).unwrap();
        let file = torn.open(&path, OpenMode::ReadWrite).unwrap();
        // The last byte says how many headers there are.
        file.truncate(file.size_bytes().unwrap() - 1).unwrap();
        file.sync_data().unwrap();
        torn.sync_all(Path::new(DIR)).unwrap();
        torn.restart(first);
        let before = torn.changes();
        let dry = torn.fork(0);
        let (dir, partition) = open_all(&dry).unwrap();
        assert_eq!(partition.recovery_report().cut.len(), 1);
        let told = dir.drain_complaints();
        assert!(
            told.iter()
                .any(|line| line.contains("t-0") && line.contains("were cut off")),
            "{told:?}"
        );
        drop((dir, partition));
        for (within, seed) in (0..=dry.changes() - before).flat_map(|within| (0..50).map(move |seed| (within, seed))) {
            let fs = torn.fork(seed);
            fs.crash_after(before + within);
            let _ = open_all(&fs);
            fs.restart(Crash::ProcessDies);
            let (dir, partition) = open_all(&fs).unwrap();
            commit(&dir, &partition, &append(&partition, &[b"new".as_slice()], WALL_MS));
            fs.restart(Crash::PowerFails);
            let (_dir, partition) = open_all(&fs).unwrap();
            let found: Vec<_> = consume(&partition, 0, 1000)
                .into_iter()
                .map(|(_, value)| value)
                .collect();
            let expected = [b"kept".to_vec(), b"new".to_vec()];
            assert!(
                (1..=2).contains(&found.len()) && expected.starts_with(&found),
                "{first:?}, {within}, {seed}: {found:?}"
            );
        }
    }
}
