//! [`Quorum`]: the consensus as a sans-I/O machine.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState, Message, MessageType};
use raft::{RaftState, RawNode, SnapshotStatus};

use super::entry::{self, MAX_BATCH_BYTES, RECORD_OVERHEAD_MAX};
use super::error::QuorumError;
use super::log::{JobDone, LogWriter, Op, PersistJob};
use super::message::{self, node_id, raft_id};
use super::recovery::{RecoveryReport, recover};
use super::snapshot::{SnapshotId, SnapshotMeta};
use super::state::VoterState;
use super::store::{Store, StoreLimits};
use super::types::{Event, Outgoing, Proposed, QuorumConfig, QuorumStatus, VoterProgress, Work};
use crate::record::batch::BATCH_OVERHEAD;
use crate::storage::fs::LogFs;

#[derive(Default)]
pub(super) struct Batch {
    pub(super) ops: Vec<Op>,
    pub(super) messages: Vec<Outgoing>,
    pub(super) number: u64,
    pub(super) last_index: u64,
    pub(super) installed: Option<SnapshotMeta>,
    pub(super) written: Option<SnapshotMeta>,
    pub(super) fresh: bool,
}

/// How long a snapshot to one follower has been under way.
#[derive(Default)]
pub(super) struct SnapshotPatience {
    pub(super) waited_ticks: usize,
    pub(super) failures: u32,
}

/// One voter. Owns no file handle that writes, no clock and no task: the shell ticks it, feeds it messages and
/// proposals, runs the jobs that it hands out and sends what it says.
pub struct Quorum {
    pub(super) raft: RawNode<Store>,
    pub(super) own_id: i32,
    pub(super) wall_ms: i64,
    pub(super) out: Work,
    pub(super) next: Batch,
    pub(super) in_flight: Option<Batch>,
    pub(super) leads: Option<i32>,
    pub(super) claimed: bool,
    pub(super) noop: Option<(u64, Bytes)>,
    pub(super) next_offset: i64,
    pub(super) known_leader: (i32, i32),
    pub(super) high_watermark: i64,
    pub(super) vote: (u64, u64),
    pub(super) snapshot_records: VecDeque<(SnapshotId, Vec<Bytes>)>,
    pub(super) writing_snapshot: bool,
    pub(super) election_ticks: usize,
    pub(super) snapshot_patience: BTreeMap<u64, SnapshotPatience>,
    pub(super) failed: Option<String>,
}

impl std::fmt::Debug for Quorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quorum")
            .field("status", &self.status())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Quorum {
    /// SLOW. Opens (or creates) `dir`, recovers it, and starts. A lone voter campaigns at once, so that its first
    /// [`Quorum::take_work`] already carries the job that makes it leader.
    ///
    /// # Errors
    /// `InvalidConfig`; `Damaged` if synced data is missing or changed; `Storage`, `NoSpace`.
    pub fn open(
        fs: Arc<dyn LogFs>,
        dir: &Path,
        config: &QuorumConfig,
        wall_ms: i64,
    ) -> Result<(Self, LogWriter, RecoveryReport), QuorumError> {
        config.validate()?;
        let found = recover(&*fs, dir, config.cached_bytes)?;
        let lone = config.voters.len() == 1;
        let end_offset = found.table.end_offset();
        let last_epoch = found.table.epoch(found.table.last_index()).unwrap_or(0);
        let state = match found.state {
            Some(state) => state,
            // a lone voter has nobody to vote for but itself; any other might vote twice in one epoch
            None if end_offset == 0 || lone => VoterState {
                epoch: last_epoch,
                ..VoterState::INITIAL
            },
            None => {
                return Err(QuorumError::Damaged {
                    file: super::state::QUORUM_STATE_FILE.to_owned(),
                    position: 0,
                    reason: "it is missing beside a log".to_owned(),
                });
            }
        };
        let writer = LogWriter::new(
            Arc::clone(&fs),
            dir,
            config.voters.clone(),
            end_offset,
            found.recovery_point,
            found.table.segments.back().map(|segment| segment.base_offset),
        )?;
        let (newest, records) = found
            .newest
            .map_or((None, Vec::new()), |(meta, records)| (Some(meta), records));
        let applied = newest.as_ref().map_or(found.table.base.index, |meta| meta.index);
        let hard_state = HardState {
            term: state.epoch.max(last_epoch) as u64,
            vote: if state.epoch < last_epoch {
                0
            } else {
                raft_or_nobody(state.voted_id)
            },
            commit: applied,
            ..HardState::default()
        };
        let limits = StoreLimits {
            segment_bytes: config.segment_bytes,
            cached_bytes: config.cached_bytes,
            snapshots_kept: config.snapshots_kept,
        };
        let high_watermark = found.table.end_offset_of(applied).unwrap_or(0);
        let raft_state = RaftState {
            hard_state: hard_state.clone(),
            conf_state: message::conf_state(&config.voters),
        };
        let mut store = Store::new(fs, dir, limits, found.table, raft_state);
        store.set_snapshots(found.snapshots, newest.clone());
        let ticks = config.own_election_ticks();
        let raft_config = raft::Config {
            id: raft_id(config.node_id),
            election_tick: ticks,
            min_election_tick: ticks,
            max_election_tick: ticks + 1,
            heartbeat_tick: config.heartbeat_ticks,
            applied,
            max_size_per_msg: config.message_bytes,
            max_inflight_msgs: 64,
            check_quorum: true,
            pre_vote: true,
            max_committed_size_per_ready: 4 << 20,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let failed = |error: raft::Error| QuorumError::Failed {
            reason: error.to_string(),
        };
        let raft = RawNode::new(&raft_config, store, &logger).map_err(failed)?;
        let mut quorum = Self {
            raft,
            own_id: config.node_id,
            wall_ms,
            out: Work::default(),
            next: Batch::default(),
            in_flight: None,
            leads: None,
            claimed: false,
            noop: None,
            next_offset: end_offset,
            known_leader: (-1, state.epoch),
            high_watermark,
            vote: (hard_state.term, hard_state.vote),
            snapshot_records: VecDeque::new(),
            writing_snapshot: false,
            election_ticks: config.election_ticks,
            snapshot_patience: BTreeMap::new(),
            failed: None,
        };
        if let Some(meta) = newest {
            quorum.out.events.push(Event::Snapshot { meta, records });
        }
        if lone {
            quorum.drive(RawNode::campaign)?;
        }
        Ok((quorum, writer, found.report))
    }

    /// QUICK. One tick of the logical clock.
    ///
    /// # Errors
    /// `Failed`.
    pub fn tick(&mut self, wall_ms: i64) -> Result<(), QuorumError> {
        self.wall_ms = wall_ms;
        if self.is_installing() {
            // raft would look for the entries that the snapshot replaces if it campaigned now
            return Ok(());
        }
        self.give_up_lost_snapshots()?;
        self.drive(|raft| {
            raft.tick();
            Ok(())
        })
    }

    /// QUICK. A message of another voter, with the whole of its bytes. One that is stale or not expected is ignored.
    ///
    /// # Errors
    /// `MalformedMessage`; `Failed`.
    pub fn step(&mut self, bytes: &Bytes, wall_ms: i64) -> Result<(), QuorumError> {
        self.wall_ms = wall_ms;
        let message = message::decode(bytes)?;
        self.check_sender(&message)?;
        if self.is_installing() && message.get_msg_type() == MessageType::MsgTimeoutNow {
            return Ok(());
        }
        self.drive(|raft| match raft.step(message) {
            Err(raft::Error::StepPeerNotFound | raft::Error::StepLocalMsg) => Ok(()),
            other => other,
        })
    }

    /// What raft takes on trust and would answer with a panic.
    fn check_sender(&self, message: &Message) -> Result<(), QuorumError> {
        let voters = self.raft.store().voters();
        if message.to != raft_id(self.own_id) || message.from == message.to || !voters.contains(&node_id(message.from))
        {
            return Err(QuorumError::malformed(format!(
                "from node {} to node {}, this is node {}",
                node_id(message.from),
                node_id(message.to),
                self.own_id
            )));
        }
        let log = &self.raft.raft.raft_log;
        let known = message.term >= self.raft.raft.term;
        if known && message.get_msg_type() == MessageType::MsgHeartbeat && message.commit > log.last_index() {
            // the leader knows that this node acknowledged more than it has: its disk lost synced data
            return Err(QuorumError::malformed(format!(
                "heartbeat commits entry {}, the log ends at {}",
                message.commit,
                log.last_index()
            )));
        }
        Ok(())
    }

    /// QUICK. Proposes one batch: all of its records are committed, or none is.
    ///
    /// # Errors
    /// `NotLeader` unless this node has claimed leadership ([`Event::Claimed`]); `ProposalSize`; `Failed`.
    pub fn propose(&mut self, records: &[Bytes], wall_ms: i64) -> Result<Proposed, QuorumError> {
        self.wall_ms = wall_ms;
        self.check_failed()?;
        let Some(epoch) = self.leads.filter(|_| self.claimed) else {
            let (leader_id, epoch) = self.known_leader;
            return Err(QuorumError::NotLeader {
                node_id: self.own_id,
                leader_id,
                epoch,
            });
        };
        let size_bytes = BATCH_OVERHEAD
            + records
                .iter()
                .map(|record| record.len() + RECORD_OVERHEAD_MAX)
                .sum::<usize>();
        if records.is_empty() || size_bytes > MAX_BATCH_BYTES {
            return Err(QuorumError::ProposalSize {
                records: records.len(),
                size_bytes,
                limit_bytes: MAX_BATCH_BYTES,
            });
        }
        let base_offset = self.next_offset;
        let mut proposal = Message::default();
        proposal.set_msg_type(MessageType::MsgPropose);
        proposal.from = raft_id(self.own_id);
        let entry = Entry {
            data: entry::data_batch(base_offset, epoch, wall_ms, records),
            ..Entry::default()
        };
        proposal.mut_entries().push(entry);
        self.next_offset += records.len() as i64;
        self.drive(|raft| raft.step(proposal))?;
        Ok(Proposed {
            base_offset,
            last_offset: base_offset + records.len() as i64 - 1,
            epoch,
        })
    }

    /// QUICK. Asks for a snapshot of everything below `end_offset`, written by the next job. The log before the oldest
    /// snapshot kept is deleted after that. Answers false if one is still being written.
    ///
    /// # Errors
    /// `SnapshotOffset` if no committed batch ends there, or a snapshot as new exists; `Failed`.
    pub fn create_snapshot(
        &mut self,
        end_offset: i64,
        last_contained_log_timestamp_ms: i64,
        records: Vec<Bytes>,
    ) -> Result<bool, QuorumError> {
        self.check_failed()?;
        if self.writing_snapshot {
            return Ok(false);
        }
        let refuse = |reason| Err(QuorumError::SnapshotOffset { end_offset, reason });
        let store = self.raft.store();
        if end_offset > self.high_watermark {
            return refuse("that is beyond what was delivered");
        }
        if store
            .newest_snapshot()
            .is_some_and(|newest| newest.id.end_offset >= end_offset)
        {
            return refuse("a snapshot as new exists");
        }
        let Some(index) = store.table().index_ending_at(end_offset).filter(|index| *index > 0) else {
            return refuse("no batch ends there");
        };
        let Some(epoch) = store.table().epoch(index) else {
            return refuse("no batch ends there");
        };
        let meta = SnapshotMeta {
            id: SnapshotId { end_offset, epoch },
            index,
            voters: store.voters().to_vec(),
            last_contained_log_timestamp_ms,
        };
        self.raft.mut_store().roll_before_next();
        self.next.ops.push(Op::WriteSnapshot {
            meta: meta.clone(),
            records,
        });
        self.next.written = Some(meta);
        self.writing_snapshot = true;
        Ok(true)
    }

    /// QUICK. What is to be done. Call after every other call until it brings nothing; hands out a job only while none
    /// is being run.
    ///
    /// # Errors
    /// `Failed`.
    pub fn take_work(&mut self) -> Result<Work, QuorumError> {
        self.check_failed()?;
        let result = catch_unwind(AssertUnwindSafe(|| self.collect()));
        self.judge(result)?;
        if self.in_flight.is_none() && !self.next.ops.is_empty() {
            let batch = std::mem::take(&mut self.next);
            self.out.job = Some(PersistJob { ops: batch.ops.clone() });
            self.in_flight = Some(Batch {
                ops: Vec::new(),
                ..batch
            });
        }
        Ok(std::mem::take(&mut self.out))
    }

    /// QUICK. The job handed out last is durable.
    ///
    /// # Errors
    /// `Failed`.
    pub fn on_persisted(&mut self, done: JobDone) -> Result<(), QuorumError> {
        self.check_failed()?;
        let Some(batch) = self.in_flight.take() else {
            return Err(self.fail("a job was reported done that was never handed out".to_owned()));
        };
        if let Some((id, file)) = done.loaded {
            self.raft.mut_store().snapshot_loaded(id, file);
        }
        self.finish(batch)
    }

    /// QUICK. A message could not be delivered: the consensus need not wait for its answer.
    ///
    /// # Errors
    /// `Failed`.
    pub fn on_unreachable(&mut self, voter: i32, was_snapshot: bool) -> Result<(), QuorumError> {
        self.drive(|raft| {
            raft.report_unreachable(raft_id(voter));
            if was_snapshot {
                raft.report_snapshot(raft_id(voter), SnapshotStatus::Failure);
            }
            Ok(())
        })
    }

    /// QUICK. What this node knows of the quorum.
    pub fn status(&self) -> QuorumStatus {
        let store = self.raft.store();
        let progress = |voter: &i32| {
            let matched = self
                .leads
                .and_then(|_| self.raft.raft.prs().get(raft_id(*voter)))
                .map(|peer| peer.matched);
            let known = matched.and_then(|index| store.table().end_offset_of(index));
            VoterProgress {
                node_id: *voter,
                log_end_offset: known.unwrap_or(-1),
            }
        };
        QuorumStatus {
            leader_id: self.known_leader.0,
            epoch: self.known_leader.1,
            is_active: self.claimed,
            high_watermark: self.high_watermark,
            log_end_offset: if self.leads.is_some() {
                self.next_offset
            } else {
                store.table().end_offset()
            },
            snapshot_end_offset: store.newest_snapshot().map_or(0, |meta| meta.id.end_offset),
            voters: store.voters().iter().map(progress).collect(),
        }
    }
}

fn raft_or_nobody(node_id: i32) -> u64 {
    if node_id < 0 { 0 } else { raft_id(node_id) }
}
