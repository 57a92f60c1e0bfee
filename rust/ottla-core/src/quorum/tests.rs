//! A lone voter over a real directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::storage::fs::{LogFs, OpenMode};
use crate::storage::real_fs::RealFs;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ottla-quorum-{}-{name}", std::process::id()));
        let _ = RealFs.remove_dir_all(&path);
        RealFs.create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = RealFs.remove_dir_all(&self.0);
    }
}

struct Lone {
    quorum: Quorum,
    writer: LogWriter,
    report: RecoveryReport,
    events: Vec<Event>,
}

impl Lone {
    fn try_open(dir: &Path, config: &QuorumConfig) -> Result<Self, QuorumError> {
        let (quorum, writer, report) = Quorum::open(Arc::new(RealFs), dir, config, 1_000)?;
        let mut lone = Self {
            quorum,
            writer,
            report,
            events: Vec::new(),
        };
        lone.settle();
        Ok(lone)
    }

    fn open(dir: &Path) -> Self {
        Self::try_open(dir, &QuorumConfig::new(1, vec![1])).unwrap()
    }

    fn settle(&mut self) {
        loop {
            let work = self.quorum.take_work().unwrap();
            assert_eq!(work.messages, []);
            self.events.extend(work.events);
            let Some(job) = work.job else { break };
            let done = self.writer.run(&job).unwrap();
            self.quorum.on_persisted(done).unwrap();
        }
    }

    fn propose(&mut self, records: &[&str]) -> Proposed {
        let records: Vec<Bytes> = records
            .iter()
            .map(|text| Bytes::copy_from_slice(text.as_bytes()))
            .collect();
        let proposed = self.quorum.propose(&records, 2_000).unwrap();
        self.settle();
        proposed
    }

    /// The records known, a snapshot first.
    fn records(&self) -> Vec<String> {
        let text = |record: &Bytes| String::from_utf8(record.to_vec()).unwrap();
        let mut all = Vec::new();
        for event in &self.events {
            match event {
                Event::Snapshot { records, .. } => all = records.iter().map(text).collect(),
                Event::Committed(batch) => all.extend(batch.records.iter().map(text)),
                _ => {}
            }
        }
        all
    }
}

fn file(dir: &Path, name: &str) -> Arc<dyn crate::storage::fs::LogFile> {
    RealFs.open(&dir.join(name), OpenMode::ReadWrite).unwrap()
}

#[test]
fn a_lone_voter_leads_at_once_and_commits_what_it_wrote() {
    let dir = Dir::new("lone");
    let mut lone = Lone::open(&dir.0);
    assert!(lone.events.contains(&Event::Claimed { epoch: 1 }));
    let proposed = lone.propose(&["a", "b"]);
    assert_eq!(
        proposed,
        Proposed {
            base_offset: 1,
            last_offset: 2,
            epoch: 1
        }
    );
    assert_eq!(lone.records(), ["a", "b"]);
    let status = lone.quorum.status();
    assert_eq!(
        (status.leader_id, status.epoch, status.is_active, status.high_watermark),
        (1, 1, true, 3)
    );
}

#[test]
fn nothing_is_committed_before_the_job_is_done() {
    let dir = Dir::new("wait");
    let mut lone = Lone::open(&dir.0);
    lone.quorum.propose(&[Bytes::from_static(b"a")], 0).unwrap();
    let job = lone.quorum.take_work().unwrap().job.unwrap();
    lone.quorum.propose(&[Bytes::from_static(b"b")], 0).unwrap();
    lone.quorum.propose(&[Bytes::from_static(b"c")], 0).unwrap();
    let work = lone.quorum.take_work().unwrap();
    assert!(work.job.is_none() && work.events.is_empty());
    let done = lone.writer.run(&job).unwrap();
    lone.quorum.on_persisted(done).unwrap();
    let work = lone.quorum.take_work().unwrap();
    assert_eq!(work.events.len(), 1);
    assert!(work.job.is_some(), "b and c share the next job");
}

#[test]
fn a_restart_replays_in_a_higher_epoch() {
    let dir = Dir::new("restart");
    let mut lone = Lone::open(&dir.0);
    lone.propose(&["a", "b"]);
    lone.propose(&["c"]);
    drop(lone);
    let mut lone = Lone::open(&dir.0);
    assert_eq!(lone.records(), ["a", "b", "c"]);
    assert!(lone.events.contains(&Event::Claimed { epoch: 2 }));
    assert_eq!(
        lone.propose(&["d"]),
        Proposed {
            base_offset: 5,
            last_offset: 5,
            epoch: 2
        }
    );
}

#[test]
fn the_log_behind_snapshots_goes_and_indexes_stay_right() {
    let dir = Dir::new("snapshot");
    let config = QuorumConfig {
        cached_bytes: 0,
        ..QuorumConfig::new(1, vec![1])
    };
    for round in 0..6 {
        let mut lone = Lone::try_open(&dir.0, &config).unwrap();
        for step in 0..3 {
            lone.propose(&[&format!("{round}.{step}"), "x"]);
            let records = lone.records();
            let end_offset = lone.quorum.status().high_watermark;
            let bytes: Vec<Bytes> = records
                .iter()
                .map(|text| Bytes::copy_from_slice(text.as_bytes()))
                .collect();
            assert!(lone.quorum.create_snapshot(end_offset, 0, bytes).unwrap());
            lone.settle();
            lone.propose(&["after"]);
            lone.propose(&["after"]);
        }
        let names = RealFs.read_dir(&dir.0).unwrap();
        let count = |extension| {
            names
                .iter()
                .filter(|name| name.name.rsplit('.').next() == Some(extension))
                .count()
        };
        assert_eq!(count("checkpoint"), 2);
        assert!(count("log") <= 4, "{names:?}");
        assert_eq!(lone.records().len(), (round * 3 + 3) * 4);
    }
}

#[test]
fn a_damaged_newest_snapshot_is_replaced_by_the_one_before_and_the_log() {
    let dir = Dir::new("snapshot-damage");
    let mut lone = Lone::open(&dir.0);
    let mut ends = Vec::new();
    for round in 0..2 {
        lone.propose(&[&format!("{round}")]);
        let end = lone.quorum.status().high_watermark;
        ends.push(end);
        let records: Vec<Bytes> = lone.records().into_iter().map(Bytes::from).collect();
        lone.quorum.create_snapshot(end, 0, records).unwrap();
        lone.settle();
    }
    drop(lone);
    let name = SnapshotId {
        end_offset: ends[1],
        epoch: 1,
    }
    .file_name();
    file(&dir.0, &name).truncate(100).unwrap();
    let lone = Lone::open(&dir.0);
    assert_eq!(lone.records(), ["0", "1"]);
    assert_eq!(lone.report.damaged_snapshots.len(), 1);
}

#[test]
fn a_torn_tail_is_cut_but_synced_data_must_be_there() {
    let dir = Dir::new("torn");
    let mut lone = Lone::open(&dir.0);
    lone.propose(&["a"]);
    drop(lone);
    let log = file(&dir.0, "00000000000000000000.log");
    let size = log.size_bytes().unwrap();
    log.write_all_at(&[std::io::IoSlice::new(b"half a batch")], size)
        .unwrap();
    let lone = Lone::open(&dir.0);
    assert_eq!((lone.report.torn_bytes, lone.records().len()), (12, 1));
    drop(lone);
    let size = log.size_bytes().unwrap();
    log.truncate(size - 1).unwrap();
    let error = Lone::try_open(&dir.0, &QuorumConfig::new(1, vec![1]))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("00000000000000000000.log is damaged at byte"), "{error}");
}

#[test]
fn damage_in_the_middle_is_refused_and_named() {
    let dir = Dir::new("damage");
    let mut lone = Lone::open(&dir.0);
    lone.propose(&["a"]);
    lone.propose(&["b"]);
    drop(lone);
    let log = file(&dir.0, "00000000000000000000.log");
    log.write_all_at(&[std::io::IoSlice::new(&[0xff])], 91 + 61 + 4)
        .unwrap();
    let error = Lone::try_open(&dir.0, &QuorumConfig::new(1, vec![1]))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("damaged at byte 91") && error.contains("crc"), "{error}");
}

#[test]
fn only_an_active_leader_takes_proposals() {
    let dir = Dir::new("follower");
    let config = QuorumConfig::new(1, vec![1, 2, 3]);
    let (mut quorum, _writer, _) = Quorum::open(Arc::new(RealFs), &dir.0, &config, 0).unwrap();
    let refused = quorum.propose(&[Bytes::from_static(b"a")], 0);
    assert!(matches!(refused, Err(QuorumError::NotLeader { leader_id: -1, .. })));
    let mut lone = Lone::open(&Dir::new("sizes").0);
    assert!(matches!(
        lone.quorum.propose(&[], 0),
        Err(QuorumError::ProposalSize { .. })
    ));
    let huge = Bytes::from(vec![0; entry::MAX_BATCH_BYTES]);
    assert!(matches!(
        lone.quorum.propose(&[huge], 0),
        Err(QuorumError::ProposalSize { .. })
    ));
}
