//! What can go wrong in the quorum.

/// An error of the metadata quorum.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuorumError {
    /// Only the active leader takes proposals. Kafka: `NOT_CONTROLLER` (41).
    #[error("node {node_id} is not the active leader of the quorum (leader {leader_id}, epoch {epoch})")]
    NotLeader {
        /// This node.
        node_id: i32,
        /// The leader it knows, -1 if none.
        leader_id: i32,
        /// Its epoch.
        epoch: i32,
    },
    /// A proposal does not fit a batch, or is empty.
    #[error(
        "a proposal of {records} records in {size_bytes} bytes: 1 or more records in at most {limit_bytes} bytes fit a batch"
    )]
    ProposalSize {
        /// Records proposed.
        records: usize,
        /// Bytes that their batch would take.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// A message of another voter is not one of ours, or contradicts itself.
    #[error("malformed quorum message: {reason}")]
    MalformedMessage {
        /// What was found against what was expected.
        reason: String,
    },
    /// A snapshot was asked for at an offset that is not the committed end of a batch, or not newer than the last.
    #[error("no snapshot can end at offset {end_offset}: {reason}")]
    SnapshotOffset {
        /// The offset after the last record of the snapshot.
        end_offset: i64,
        /// What is expected.
        reason: &'static str,
    },
    /// Synced data is gone or changed. The node must not start: what it acknowledged may be lost.
    #[error("the quorum's {file} is damaged at byte {position}: {reason}")]
    Damaged {
        /// The file's name.
        file: String,
        /// The first bad byte.
        position: u64,
        /// What was found against what was expected.
        reason: String,
    },
    /// A write found no space; the same job may be run again.
    #[error("no space left for the quorum's log while {doing}")]
    NoSpace {
        /// What was being done.
        doing: &'static str,
    },
    /// An operation on files failed. The log must be reopened: what a failed sync left behind is unknown.
    #[error("storage of the quorum failed while {doing}: {source}")]
    Storage {
        /// What was being done.
        doing: &'static str,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// An invariant of the consensus was violated earlier; this instance does nothing any more.
    #[error("the quorum has failed and must be reopened: {reason}")]
    Failed {
        /// The first failure.
        reason: String,
    },
    /// The configuration cannot work.
    #[error("invalid quorum configuration: {reason}")]
    InvalidConfig {
        /// What is wrong.
        reason: String,
    },
}

impl QuorumError {
    /// A function that names what was being done when the system refused.
    pub(crate) fn storage(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::NoSpace { doing },
            _ => Self::Storage { doing, source },
        }
    }

    pub(crate) fn malformed(reason: impl Into<String>) -> Self {
        Self::MalformedMessage { reason: reason.into() }
    }

    /// Whether the same job may be run again: nothing is lost, room is wanted.
    pub const fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }
}
