//! `quorum-state`: the epoch, the vote and the leader that a voter must not forget.
//!
//! The JSON of Kafka's `QuorumStateData` version 0, which is what a quorum of configured voters (kraft.version 0) writes.

use std::path::Path;

use serde_json::{Value, json};

use super::error::QuorumError;
use crate::storage::fs::LogFs;

/// The file's name.
pub const QUORUM_STATE_FILE: &str = "quorum-state";

/// What a voter must not forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VoterState {
    /// The epoch (raft: term); never goes back.
    pub epoch: i32,
    /// Whom this node voted for in that epoch, -1 for nobody.
    pub voted_id: i32,
    /// The leader it knew when the file was written, -1 for none. Informative.
    pub leader_id: i32,
}

impl VoterState {
    /// A voter that has seen nothing.
    pub const INITIAL: Self = Self {
        epoch: 0,
        voted_id: -1,
        leader_id: -1,
    };

    /// Reads the file; None if there is none.
    ///
    /// # Errors
    /// `Damaged` if it does not follow its format; `Storage`.
    pub fn read(fs: &dyn LogFs, dir: &Path) -> Result<Option<Self>, QuorumError> {
        let text = match fs.read(&dir.join(QUORUM_STATE_FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(QuorumError::storage("reading quorum-state")(error)),
        };
        let damaged = |reason: String| QuorumError::Damaged {
            file: QUORUM_STATE_FILE.to_owned(),
            position: 0,
            reason,
        };
        let parsed: Value = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        let field = |name: &str| {
            parsed
                .get(name)
                .and_then(Value::as_i64)
                .and_then(|number| i32::try_from(number).ok())
                .ok_or_else(|| damaged(format!("no 32-bit number {name}")))
        };
        let state = Self {
            epoch: field("leaderEpoch")?,
            voted_id: field("votedId")?,
            leader_id: field("leaderId")?,
        };
        if state.epoch < 0 {
            return Err(damaged(format!("negative leaderEpoch {}", state.epoch)));
        }
        Ok(Some(state))
    }

    /// Replaces the file durably.
    ///
    /// # Errors
    /// `Storage`, `NoSpace`.
    pub fn write(self, fs: &dyn LogFs, dir: &Path, voters: &[i32]) -> Result<(), QuorumError> {
        let voters: Vec<Value> = voters.iter().map(|voter| json!({ "voterId": voter })).collect();
        let text = json!({
            "clusterId": "",
            "leaderId": self.leader_id,
            "leaderEpoch": self.epoch,
            "votedId": self.voted_id,
            "appliedOffset": 0,
            "currentVoters": voters,
            "data_version": 0,
        });
        fs.replace(&dir.join(QUORUM_STATE_FILE), text.to_string().as_bytes(), true)
            .map_err(QuorumError::storage("writing quorum-state"))
    }
}
