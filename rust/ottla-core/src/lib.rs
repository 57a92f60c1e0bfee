//! Everything in Ottla that touches bytes: records, segments, sessions and the metadata quorum.
//!
//! No Python, no async runtime, no clock (`now_ms` is an argument) and one door to files (`storage::fs::LogFs`).

pub mod compression;
pub mod data_plane;
pub mod error;
pub mod log_cleaner;
pub mod partition;
pub mod partition_table;
pub mod quorum;
pub mod record;
pub mod session;
pub mod storage;
pub mod types;
pub mod wire;
