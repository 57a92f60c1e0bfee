//! Segments, indexes, logs, recovery and the writer of a log directory.

pub mod config;
pub mod fs;
pub mod log_dir;
pub mod real_fs;
