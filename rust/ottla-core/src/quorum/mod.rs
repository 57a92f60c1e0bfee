//! The metadata quorum: raft over a log in the format of Kafka.
//!
//! One raft entry is one record batch of `__cluster_metadata-0`; raft's term is the batch's leader epoch, the empty entry
//! of a new leader is Kafka's `LeaderChange` control batch, snapshots are Kafka's checkpoint files. Kafka's own tools read
//! the directory. A quorum of one voter runs the same code as any other: it elects itself at once, and what it commits
//! waits for its disk only.
//!
//! ```text
//!  messages, ticks, proposals ──► Quorum ──► messages that may leave now
//!                                  │  ▲  └─► events: committed batches, leadership
//!                           PersistJob │ JobDone
//!                                  ▼  │
//!                                LogWriter (a thread): write, sync ── then the messages that rest on it
//! ```
//!
//! Everything that arrives while a job is being written becomes the next job, so proposals share syncs. [`Quorum`] does no
//! I/O except to read back old batches of its own log; [`LogWriter`] decides nothing.
//!
//! Files: [`entry`] batches, [`message`] the wire between voters, [`snapshot`] and [`state`] the files beside the log,
//! `store` and `table` what raft sees of the log, [`log`] the writer, [`recovery`] opening, [`node`] the machine,
//! `ready` what it makes of raft's wishes.

pub mod entry;
pub mod error;
pub mod log;
pub mod message;
pub mod node;
mod ready;
pub mod recovery;
pub mod snapshot;
pub mod state;
mod store;
mod table;
pub mod types;

#[cfg(test)]
mod tests;

pub use error::QuorumError;
pub use log::{JobDone, LogWriter, PersistJob};
pub use node::Quorum;
pub use recovery::RecoveryReport;
pub use snapshot::{SnapshotId, SnapshotMeta};
pub use types::{CommittedBatch, Event, Outgoing, Proposed, QuorumConfig, QuorumStatus, VoterProgress, Work};
