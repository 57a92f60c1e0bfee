//! The core's error: what, where, found against expected, and its code on the wire.

/// An error of storage, validation or lookup. `kafka_code` is what a client is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation on files failed; the log concerned is offline until it is recovered.
    #[error("storage failed while {doing}; the log is offline until it is recovered: {source}")]
    Storage {
        /// What was being done.
        doing: &'static str,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// The code on the wire (Kafka: `Errors`).
    pub const fn kafka_code(&self) -> i16 {
        match self {
            Self::Storage { .. } => 56,
        }
    }
}
