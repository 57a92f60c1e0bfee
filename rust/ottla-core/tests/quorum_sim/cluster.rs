//! A quorum of voters on simulated disks and a simulated network, on one clock, from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ottla_core::quorum::{CommittedBatch, Event, LogWriter, PersistJob, Quorum, QuorumConfig, QuorumError};
use ottla_core::storage::sim_fs::{Crash, SimFs};

use crate::chance::Chance;

const TICK_MS: u64 = 100;
const DIR: &str = "/__cluster_metadata-0";

/// What may go wrong, in percent.
#[derive(Debug, Clone)]
pub struct Faults {
    pub loss: u64,
    pub duplicate: u64,
    pub delay_ms_min: u64,
    pub delay_ms_max: u64,
    pub write_ms_max: u64,
}

impl Faults {
    /// One delay for all: messages stay in order, as on a connection.
    pub const NONE: Self = Self {
        loss: 0,
        duplicate: 0,
        delay_ms_min: 3,
        delay_ms_max: 3,
        write_ms_max: 5,
    };
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
enum What {
    Tick(usize),
    Message { to: usize, bytes: Bytes },
    Persist(usize),
    Propose,
    Mischief,
}

type Scheduled = Reverse<(u64, u64, u64, What)>;

struct Running {
    quorum: Quorum,
    writer: LogWriter,
    job: Option<PersistJob>,
    claimed: Option<i32>,
    delivered_end: i64,
}

pub struct Node {
    disk: SimFs,
    config: QuorumConfig,
    running: Option<Running>,
    /// Changes with each start, so that events of the past find nobody.
    life: u64,
    /// Data records known, with their offsets.
    pub state: Vec<Bytes>,
    last_timestamp_ms: i64,
}

pub struct Cluster {
    pub seed: u64,
    pub now_ms: u64,
    pub nodes: Vec<Node>,
    pub faults: Faults,
    schedule: BinaryHeap<Scheduled>,
    sequence: u64,
    network: Chance,
    disks: Chance,
    deeds: Chance,
    cut_off: BTreeSet<usize>,
    proposals: u64,
    waiting: Vec<BTreeMap<(i64, i32), Bytes>>,
    pub acked: Vec<Bytes>,
    committed: BTreeMap<i64, CommittedBatch>,
    committed_records: Vec<(i64, Bytes)>,
    leaders: BTreeMap<i32, usize>,
    pub events: u64,
    pub mischief: bool,
    pub installed: u64,
    pub trace: u64,
}

impl Cluster {
    pub fn new(seed: u64, voters: usize) -> Self {
        let mut chance = Chance::new(seed);
        let ids: Vec<i32> = (0..voters as i32).collect();
        let node = |id: &i32, chance: &mut Chance| Node {
            disk: SimFs::new(chance.next()),
            config: QuorumConfig {
                seed,
                segment_bytes: chance.between(100, 4_000),
                cached_bytes: if chance.percent(50) { 0 } else { 2_000 },
                snapshots_kept: chance.between(1, 3) as usize,
                message_bytes: chance.between(100, 3_000),
                ..QuorumConfig::new(*id, ids.clone())
            },
            running: None,
            life: 0,
            state: Vec::new(),
            last_timestamp_ms: 0,
        };
        let nodes = ids.iter().map(|id| node(id, &mut chance)).collect();
        let faults = Faults {
            loss: chance.below(30),
            duplicate: chance.below(20),
            delay_ms_min: 0,
            delay_ms_max: chance.between(1, 150),
            write_ms_max: chance.between(1, 200),
        };
        let mut cluster = Self {
            seed,
            now_ms: 0,
            nodes,
            faults,
            schedule: BinaryHeap::new(),
            sequence: 0,
            network: chance.fork(),
            disks: chance.fork(),
            deeds: chance.fork(),
            cut_off: BTreeSet::new(),
            proposals: 0,
            waiting: vec![BTreeMap::new(); voters],
            acked: Vec::new(),
            committed: BTreeMap::new(),
            committed_records: Vec::new(),
            leaders: BTreeMap::new(),
            events: 0,
            mischief: true,
            installed: 0,
            trace: 0,
        };
        for node in 0..voters {
            cluster.start(node);
        }
        cluster.schedule(30, 0, What::Propose);
        cluster.schedule(500, 0, What::Mischief);
        cluster
    }

    fn schedule(&mut self, delay_ms: u64, life: u64, what: What) {
        self.sequence += 1;
        self.schedule
            .push(Reverse((self.now_ms + delay_ms, self.sequence, life, what)));
    }

    fn note(&mut self, number: u64) {
        self.trace = (self.trace ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
    }

    fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let disk = Arc::new(node.disk.clone());
        let wall_ms = self.now_ms as i64;
        let (quorum, writer, _report) = match Quorum::open(disk, Path::new(DIR), &node.config, wall_ms) {
            Ok(opened) => opened,
            Err(_) if node.disk.is_down() => return self.crash(at),
            Err(QuorumError::NoSpace { .. }) => {
                node.disk.set_capacity(None);
                return self.start(at);
            }
            Err(error) => panic!("seed {}: node {at} cannot start: {error}", self.seed),
        };
        node.life += 1;
        node.state.clear();
        node.running = Some(Running {
            quorum,
            writer,
            job: None,
            claimed: None,
            delivered_end: 0,
        });
        let life = node.life;
        let first_tick = self.deeds.below(TICK_MS);
        self.schedule(first_tick, life, What::Tick(at));
        self.drain(at);
    }

    /// The process dies, or the whole machine; it stays down until `start`.
    fn crash(&mut self, at: usize) {
        self.nodes[at].running = None;
        self.nodes[at].life += 1;
        self.waiting[at].clear();
        if self.disks.percent(50) {
            self.nodes[at].disk.restart(Crash::PowerFails);
        } else {
            self.nodes[at].disk.restart(Crash::ProcessDies);
        }
    }

    /// Runs one event. Invariants are checked as things are learnt.
    pub fn step(&mut self) {
        let Some(Reverse((due_ms, _, life, what))) = self.schedule.pop() else {
            panic!("seed {}: nothing left to happen", self.seed);
        };
        self.now_ms = due_ms;
        self.events += 1;
        let wall_ms = self.now_ms as i64;
        match what {
            What::Tick(at) if self.is_life(at, life) => {
                self.with(at, |running| running.quorum.tick(wall_ms));
                self.schedule(TICK_MS, life, What::Tick(at));
                self.drain(at);
            }
            What::Persist(at) if self.is_life(at, life) => self.persist(at),
            What::Message { to, bytes } => {
                if self.nodes[to].running.is_some() && !self.cut_off.contains(&to) {
                    self.with(to, |running| running.quorum.step(&bytes, wall_ms));
                    self.drain(to);
                }
            }
            What::Propose => {
                self.propose();
                let pause_ms = self.deeds.between(1, 80);
                self.schedule(pause_ms, 0, What::Propose);
            }
            What::Mischief => {
                if self.mischief {
                    self.do_mischief();
                }
                let pause_ms = self.deeds.between(100, 2_000);
                self.schedule(pause_ms, 0, What::Mischief);
            }
            What::Tick(_) | What::Persist(_) => {}
        }
    }

    fn is_life(&self, at: usize, life: u64) -> bool {
        self.nodes[at].running.is_some() && self.nodes[at].life == life
    }

    fn with(&mut self, at: usize, call: impl FnOnce(&mut Running) -> Result<(), QuorumError>) {
        let seed = self.seed;
        let running = self.nodes[at].running.as_mut().unwrap();
        if let Err(error) = call(running) {
            panic!("seed {seed}: node {at}: {error}");
        }
    }

    fn persist(&mut self, at: usize) {
        let running = self.nodes[at].running.as_mut().unwrap();
        let job = running.job.take().unwrap();
        match running.writer.run(&job) {
            Ok(done) => {
                self.with(at, |running| running.quorum.on_persisted(done));
                self.drain(at);
            }
            Err(error) if error.is_no_space() => {
                running.job = Some(job);
                let life = self.nodes[at].life;
                self.schedule(200, life, What::Persist(at));
            }
            Err(error) => {
                assert!(self.nodes[at].disk.is_down(), "seed {}: node {at}: {error}", self.seed);
                self.crash(at);
            }
        }
    }

    fn drain(&mut self, at: usize) {
        loop {
            let running = self.nodes[at].running.as_mut().unwrap();
            let work = match running.quorum.take_work() {
                Ok(work) => work,
                Err(error) => panic!("seed {}: node {at}: {error}", self.seed),
            };
            let done = work.messages.is_empty() && work.events.is_empty() && work.job.is_none();
            for message in work.messages {
                self.send(at, message.to as usize, &message.bytes);
            }
            for event in work.events {
                self.learn(at, event);
            }
            if let Some(job) = work.job {
                let life = self.nodes[at].life;
                let running = self.nodes[at].running.as_mut().unwrap();
                assert!(running.job.is_none());
                running.job = Some(job);
                let delay_ms = self.disks.between(0, self.faults.write_ms_max);
                self.schedule(delay_ms, life, What::Persist(at));
            }
            if done {
                return;
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: &Bytes) {
        if self.cut_off.contains(&from) || self.network.percent(self.faults.loss) {
            return;
        }
        let copies = 1 + u64::from(self.network.percent(self.faults.duplicate));
        for _ in 0..copies {
            let delay_ms = self.network.between(self.faults.delay_ms_min, self.faults.delay_ms_max);
            self.schedule(
                delay_ms,
                0,
                What::Message {
                    to,
                    bytes: bytes.clone(),
                },
            );
        }
    }

    fn learn(&mut self, at: usize, event: Event) {
        let seed = self.seed;
        match event {
            Event::Snapshot { meta, records } => {
                let end_offset = meta.id.end_offset;
                self.note(end_offset as u64);
                let running = self.nodes[at].running.as_mut().unwrap();
                assert!(
                    end_offset >= running.delivered_end,
                    "seed {seed}: node {at} went back to {end_offset}"
                );
                self.installed += u64::from(running.delivered_end > 0);
                running.delivered_end = end_offset;
                let below = self
                    .committed_records
                    .iter()
                    .take_while(|(offset, _)| *offset < end_offset);
                let expected: Vec<Bytes> = below.map(|(_, record)| record.clone()).collect();
                assert_eq!(records, expected, "seed {seed}: node {at}: snapshot at {end_offset}");
                self.nodes[at].state = records;
            }
            Event::Committed(batch) => self.learn_batch(at, batch),
            Event::Claimed { epoch } => {
                self.note(epoch as u64);
                let leader = *self.leaders.entry(epoch).or_insert(at);
                assert_eq!(leader, at, "seed {seed}: two leaders of epoch {epoch}");
                self.nodes[at].running.as_mut().unwrap().claimed = Some(epoch);
            }
            Event::Resigned { epoch } => {
                let claimed = self.nodes[at].running.as_mut().unwrap().claimed.take();
                assert_eq!(
                    claimed,
                    Some(epoch),
                    "seed {seed}: node {at} resigned what it had not claimed"
                );
                self.waiting[at].clear();
            }
            Event::LeaderChanged { .. } => {}
        }
    }

    fn learn_batch(&mut self, at: usize, batch: CommittedBatch) {
        let seed = self.seed;
        self.note(batch.base_offset as u64 ^ (at as u64) << 32);
        let running = self.nodes[at].running.as_mut().unwrap();
        assert_eq!(
            batch.base_offset, running.delivered_end,
            "seed {seed}: node {at}: a gap or a step back"
        );
        running.delivered_end = batch.last_offset + 1;
        self.nodes[at].last_timestamp_ms = batch.timestamp_ms;
        self.nodes[at].state.extend(batch.records.iter().cloned());
        if let Some(record) = self.waiting[at].remove(&(batch.base_offset, batch.epoch)) {
            assert_eq!(
                batch.records.first(),
                Some(&record),
                "seed {seed}: another batch took the proposal's place"
            );
            self.acked.push(record);
        }
        if let Some(known) = self.committed.get(&batch.base_offset) {
            assert_eq!(*known, batch, "seed {seed}: node {at} disagrees on a committed batch");
            return;
        }
        assert_eq!(
            batch.base_offset,
            self.committed_end(),
            "seed {seed}: the committed log has a gap"
        );
        for (delta, record) in batch.records.iter().enumerate() {
            self.committed_records
                .push((batch.base_offset + delta as i64, record.clone()));
        }
        self.committed.insert(batch.base_offset, batch);
    }

    fn propose(&mut self) {
        let at = self.deeds.below(self.nodes.len() as u64) as usize;
        let now_ms = self.now_ms as i64;
        let Some(running) = self.nodes[at]
            .running
            .as_mut()
            .filter(|running| running.claimed.is_some())
        else {
            return;
        };
        for _ in 0..self.deeds.between(1, 4) {
            self.proposals += 1;
            let size = self.deeds.below(200) as usize;
            let first = Bytes::from(format!("{}:{}", self.proposals, "x".repeat(size)));
            let mut records = vec![first.clone()];
            for extra in 0..self.deeds.below(4) {
                records.push(Bytes::from(format!("{}.{extra}", self.proposals)));
            }
            match running.quorum.propose(&records, now_ms) {
                Ok(proposed) => {
                    self.waiting[at].insert((proposed.base_offset, proposed.epoch), first);
                }
                Err(error) => panic!("seed {}: an active leader refused: {error}", self.seed),
            }
        }
        self.drain(at);
    }

    fn do_mischief(&mut self) {
        let at = self.deeds.below(self.nodes.len() as u64) as usize;
        match self.deeds.below(8) {
            0 => self.crash(at),
            1 => {
                let disk = &self.nodes[at].disk;
                disk.crash_after(disk.changes() + self.disks.below(12));
            }
            2 => {
                self.cut_off.insert(at);
            }
            3 => self.cut_off.clear(),
            4 => {
                let full = self.disks.percent(40);
                let disk = &self.nodes[at].disk;
                disk.set_capacity(full.then(|| disk.used_bytes()));
            }
            5 => self.snapshot(at),
            _ => {
                self.snapshot(at);
                for node in 0..self.nodes.len() {
                    if self.nodes[node].running.is_none() {
                        self.start(node);
                    }
                }
            }
        }
    }

    fn snapshot(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(running) = node.running.as_mut() else {
            return;
        };
        let end_offset = running.delivered_end;
        match running
            .quorum
            .create_snapshot(end_offset, node.last_timestamp_ms, node.state.clone())
        {
            Ok(_) => self.drain(at),
            Err(QuorumError::SnapshotOffset { .. }) => {}
            Err(error) => panic!("seed {}: node {at}: {error}", self.seed),
        }
    }

    /// No more faults; everything runs.
    pub fn heal(&mut self) {
        self.mischief = false;
        self.faults = Faults::NONE;
        self.cut_off.clear();
        for node in 0..self.nodes.len() {
            self.nodes[node].disk.set_capacity(None);
            self.nodes[node].disk.crash_after(u64::MAX);
            if self.nodes[node].disk.is_down() && self.nodes[node].running.is_some() {
                self.crash(node);
            }
            if self.nodes[node].running.is_none() {
                self.start(node);
            }
        }
    }

    pub fn crash_everything(&mut self) {
        for node in 0..self.nodes.len() {
            self.crash(node);
        }
    }

    fn committed_end(&self) -> i64 {
        self.committed
            .values()
            .next_back()
            .map_or(0, |last| last.last_offset + 1)
    }

    /// Everybody knows everything, and somebody leads.
    pub fn has_converged(&self, since: i64) -> bool {
        let end = self.committed_end();
        let knows = |node: &Node| {
            node.running
                .as_ref()
                .is_some_and(|running| running.delivered_end == end)
        };
        let leads = |node: &Node| node.running.as_ref().is_some_and(|running| running.claimed.is_some());
        end > since && self.nodes.iter().all(knows) && self.nodes.iter().any(leads)
    }

    /// Runs until everybody knows everything, a proposal made after this call included.
    pub fn run_until_converged(&mut self, events_max: u64) {
        let since = self.committed_end();
        for _ in 0..events_max {
            self.step();
            if self.has_converged(since) {
                return;
            }
        }
        let ends: Vec<_> = self
            .nodes
            .iter()
            .map(|node| node.running.as_ref().map(|running| running.quorum.status()))
            .collect();
        panic!(
            "seed {}: no progress after healing, {} committed: {ends:#?}",
            self.seed,
            self.committed_end()
        );
    }

    pub fn check_acked(&self) {
        let committed: BTreeSet<&Bytes> = self.committed_records.iter().map(|(_, record)| record).collect();
        for record in &self.acked {
            assert!(
                committed.contains(record),
                "seed {}: {record:?} was acknowledged and is lost",
                self.seed
            );
        }
        let all: Vec<Bytes> = self
            .committed_records
            .iter()
            .map(|(_, record)| record.clone())
            .collect();
        for (at, node) in self.nodes.iter().enumerate() {
            assert_eq!(node.state, all, "seed {}: node {at} holds other records", self.seed);
        }
    }
}
