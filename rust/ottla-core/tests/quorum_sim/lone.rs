//! One voter and one workload: a crash at each change of the disk, and a flipped bit in each byte of each file.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ottla_core::quorum::{Event, LogWriter, Quorum, QuorumConfig, QuorumError, RecoveryReport};
use ottla_core::storage::fs::LogFs;
use ottla_core::storage::sim_fs::{Crash, SimFs};

const DIR: &str = "/data/__cluster_metadata-0";
const STEPS: u64 = 12;

struct Lone {
    quorum: Quorum,
    writer: LogWriter,
    records: Vec<Bytes>,
}

impl Lone {
    fn open(disk: &SimFs) -> Result<(Self, RecoveryReport), QuorumError> {
        let config = QuorumConfig {
            segment_bytes: 600,
            ..QuorumConfig::new(1, vec![1])
        };
        let (quorum, writer, report) = Quorum::open(Arc::new(disk.clone()), Path::new(DIR), &config, 0)?;
        let mut lone = Self {
            quorum,
            writer,
            records: Vec::new(),
        };
        lone.settle()?;
        Ok((lone, report))
    }

    /// Does everything that is to be done; what is committed afterwards was acknowledged.
    fn settle(&mut self) -> Result<(), QuorumError> {
        loop {
            let work = self.quorum.take_work()?;
            for event in work.events {
                match event {
                    Event::Snapshot { records, .. } => self.records = records,
                    Event::Committed(batch) => self.records.extend(batch.records),
                    _ => {}
                }
            }
            let Some(job) = work.job else {
                return Ok(());
            };
            let done = self.writer.run(&job)?;
            self.quorum.on_persisted(done)?;
        }
    }

    /// A step: two batches in one job, then perhaps a snapshot.
    fn step(&mut self, step: u64) -> Result<(), QuorumError> {
        for part in 0..2 {
            let record = Bytes::from(format!("{step}.{part} {}", "x".repeat(90)));
            self.quorum.propose(&[record.clone(), record], 0)?;
        }
        self.settle()?;
        if step % 4 == 3 {
            let end_offset = self.quorum.status().high_watermark;
            self.quorum.create_snapshot(end_offset, 0, self.records.clone())?;
            self.settle()?;
        }
        Ok(())
    }
}

fn fresh_disk(seed: u64) -> SimFs {
    let disk = SimFs::new(seed);
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

/// Runs the workload until it is done or the disk dies; returns what was acknowledged.
fn work(disk: &SimFs) -> Vec<Bytes> {
    let Ok((mut lone, _)) = Lone::open(disk) else {
        return Vec::new();
    };
    for step in 0..STEPS {
        let acked = lone.records.clone();
        if lone.step(step).is_err() {
            // a part of the step may have been committed before the disk died
            return if lone.records.len() > acked.len() {
                lone.records
            } else {
                acked
            };
        }
    }
    lone.records
}

pub fn crash_everywhere() -> u64 {
    let disk = fresh_disk(0);
    let before = disk.changes();
    let everything = work(&disk);
    let changes = disk.changes();
    let mut crashes = 0;
    for at in before..changes {
        for (seed, crash) in [
            (at, Crash::ProcessDies),
            (at, Crash::PowerFails),
            (at + 10_000, Crash::PowerFails),
        ] {
            let disk = fresh_disk(seed);
            disk.crash_after(at);
            let acked = work(&disk);
            disk.restart(crash);
            let (mut lone, _) =
                Lone::open(&disk).unwrap_or_else(|error| panic!("{crash:?} at change {at}, seed {seed}: {error}"));
            assert!(
                lone.records.starts_with(&acked),
                "{crash:?} at change {at}, seed {seed}: acknowledged records are lost"
            );
            assert!(
                everything.starts_with(&lone.records),
                "{crash:?} at change {at}, seed {seed}: other records"
            );
            lone.step(100).unwrap();
            lone.step(103).unwrap();
            let known = lone.records.clone();
            drop(lone);
            disk.restart(crash);
            assert_eq!(
                Lone::open(&disk).unwrap().0.records,
                known,
                "{crash:?} at change {at}, seed {seed}, second start"
            );
            crashes += 1;
        }
    }
    crashes
}

pub fn flip_everywhere() -> (u64, u64) {
    let disk = fresh_disk(1);
    let records = work(&disk);
    Lone::open(&disk).unwrap().0.writer.close().unwrap();
    let (mut harmless, mut refused) = (0, 0);
    for path in disk.paths() {
        for position in 0..disk.file_size_bytes(&path).unwrap() as usize {
            let copy = disk.fork(position as u64);
            copy.flip_bit(&path, position, (position % 8) as u8).unwrap();
            match Lone::open(&copy) {
                Ok((lone, _)) => {
                    assert_eq!(lone.records, records, "{} byte {position}", path.display());
                    harmless += 1;
                }
                Err(QuorumError::Damaged { file, reason, .. }) => {
                    // no checksum covers a batch's epoch: only the batch after it shows that it is too high
                    let named = path.file_name().unwrap().to_str() == Some(&*file);
                    assert!(
                        named || reason.contains("epoch"),
                        "{} byte {position}: {file}: {reason}",
                        path.display()
                    );
                    refused += 1;
                }
                Err(error) => panic!("{} byte {position}: {error}", path.display()),
            }
        }
    }
    (harmless, refused)
}
