//! What goes into and comes out of a [`super::Quorum`].

use bytes::Bytes;

use super::entry::MAX_BATCH_BYTES;
use super::error::QuorumError;
use super::log::PersistJob;
use super::snapshot::SnapshotMeta;

/// How a voter behaves. Ticks are what the shell's timer makes them.
#[derive(Clone, Debug)]
pub struct QuorumConfig {
    /// This node (Kafka: `node.id`), one of the voters.
    pub node_id: i32,
    /// All voters (Kafka: `controller.quorum.voters`).
    pub voters: Vec<i32>,
    /// Decides which voter campaigns first; the same on every voter.
    pub seed: u64,
    /// A follower that hears nothing for this many ticks (and up to twice that, by its rank) campaigns.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats; less than a third of `election_ticks`.
    pub heartbeat_ticks: usize,
    /// A segment larger than this is rolled (Kafka: `metadata.log.segment.bytes`).
    pub segment_bytes: u64,
    /// The newest batches kept in memory, in bytes.
    pub cached_bytes: usize,
    /// The log is kept back to the oldest of this many snapshots, at least 1.
    pub snapshots_kept: usize,
    /// Bytes of entries in one append message (Kafka: `MAX_FETCH_SIZE_BYTES` of its raft client).
    pub message_bytes: u64,
}

impl QuorumConfig {
    /// Kafka's defaults for a node of a set of voters.
    pub fn new(node_id: i32, voters: Vec<i32>) -> Self {
        Self {
            node_id,
            voters,
            seed: 0,
            election_ticks: 10,
            heartbeat_ticks: 2,
            segment_bytes: 1 << 30,
            cached_bytes: 4 << 20,
            snapshots_kept: 2,
            message_bytes: MAX_BATCH_BYTES as u64,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), QuorumError> {
        let invalid = |reason: &str| {
            Err(QuorumError::InvalidConfig {
                reason: reason.to_owned(),
            })
        };
        if !self.voters.contains(&self.node_id) {
            return invalid("the node is not one of the voters");
        }
        let mut voters = self.voters.clone();
        voters.sort_unstable();
        voters.dedup();
        if voters.len() != self.voters.len() || voters.iter().any(|voter| *voter < 0 || *voter == i32::MAX) {
            return invalid("voters must be distinct and not negative");
        }
        if self.heartbeat_ticks == 0 || self.election_ticks < 3 * self.heartbeat_ticks {
            return invalid("election_ticks must be at least three times heartbeat_ticks, and those at least 1");
        }
        Ok(())
    }

    /// Distinct for every voter, so that two never campaign in step: the consensus library draws its timeout from
    /// `min..max`, which is one number here, and the simulation owns chance.
    pub(crate) fn own_election_ticks(&self) -> usize {
        let mix = |voter: i32| {
            let mixed =
                (self.seed ^ (voter as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ (mixed >> 29), voter)
        };
        let own = mix(self.node_id);
        let rank = self.voters.iter().filter(|voter| mix(**voter) < own).count();
        self.election_ticks + (rank * self.election_ticks).div_ceil(self.voters.len().max(1))
    }
}

/// A message for another voter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// The voter.
    pub to: i32,
    /// The encoded message.
    pub bytes: Bytes,
}

/// A committed batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedBatch {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Epoch of the leader that wrote it.
    pub epoch: i32,
    /// When it was written, in Unix ms.
    pub timestamp_ms: i64,
    /// The records; none in a control batch.
    pub records: Vec<Bytes>,
}

/// What the application learns, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Start from these records: they stand for everything below the snapshot's end offset.
    Snapshot {
        /// What it stands for.
        meta: SnapshotMeta,
        /// Its records.
        records: Vec<Bytes>,
    },
    /// A batch is committed.
    Committed(CommittedBatch),
    /// Who leads has changed. -1: nobody is known to lead.
    LeaderChanged {
        /// The leader.
        leader_id: i32,
        /// Its epoch.
        epoch: i32,
    },
    /// This node leads, and every batch of earlier epochs has been delivered: it may propose from now on.
    Claimed {
        /// The epoch that it leads.
        epoch: i32,
    },
    /// This node, which had claimed, leads no more: what it proposed and did not see committed may or may not be.
    Resigned {
        /// The epoch that it led.
        epoch: i32,
    },
}

/// What is to be done now; see [`Quorum::take_work`].
#[derive(Debug, Default)]
pub struct Work {
    /// To be sent, in any order, lost or not.
    pub messages: Vec<Outgoing>,
    /// For the application, in order.
    pub events: Vec<Event>,
    /// For [`LogWriter::run`], one at a time; then [`Quorum::on_persisted`].
    pub job: Option<PersistJob>,
}

/// Where a proposal stands in the log if it is committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proposed {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// The epoch; a committed batch of another epoch at these offsets is not this proposal.
    pub epoch: i32,
}

/// A voter as the leader sees it (Kafka: `DescribeQuorum`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VoterProgress {
    /// The voter.
    pub node_id: i32,
    /// How far it has acknowledged the log; -1 if that is not known.
    pub log_end_offset: i64,
}

/// A picture of the quorum as this node knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuorumStatus {
    /// The leader, -1 if unknown.
    pub leader_id: i32,
    /// The current epoch.
    pub epoch: i32,
    /// Whether this node may propose.
    pub is_active: bool,
    /// Offset after the last committed record that was delivered.
    pub high_watermark: i64,
    /// Offset after the last record.
    pub log_end_offset: i64,
    /// End offset of the newest snapshot, 0 if none.
    pub snapshot_end_offset: i64,
    /// The voters; their progress only on the leader.
    pub voters: Vec<VoterProgress>,
}
