//! What a log directory tells of the jobs it was given.

/// The name under which a partition's completions come back; chosen by whoever opens the partition, unique in a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PartitionId(pub u64);

/// What became of write jobs; to be handed to `Partition::on_completion` of the partition named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Completion {
    /// Whose jobs.
    pub partition: PartitionId,
    /// What became of them.
    pub outcome: Outcome,
}

/// What became of write jobs. A generation is one life of a log's tail: each failure ends one.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Everything below the offset is in the file (readable by all, survives the process).
    Written {
        /// The offset after the last record written.
        next_offset: i64,
        /// Which life of the log's tail this belongs to.
        generation: u32,
    },
    /// Everything below the offset survives a power failure.
    Synced {
        /// The offset after the last record synced.
        next_offset: i64,
        /// Which life of the log's tail this belongs to.
        generation: u32,
    },
    /// A write or sync failed. Jobs of this generation that were not reported written are gone.
    Failed {
        /// Which life of the log's tail ended.
        generation: u32,
        /// No room or no file descriptor: the log goes on where its last complete write ended. Otherwise it goes offline.
        no_space: bool,
        /// The system's word.
        reason: String,
    },
}

impl Completion {
    /// Whether `next` says all that this one says.
    pub(crate) fn is_followed_by(&self, next: &Self) -> bool {
        self.partition == next.partition
            && match (&self.outcome, &next.outcome) {
                (Outcome::Written { generation, .. }, Outcome::Written { generation: next, .. })
                | (Outcome::Synced { generation, .. }, Outcome::Synced { generation: next, .. }) => generation == next,
                _ => false,
            }
    }
}
