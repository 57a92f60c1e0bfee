//! Segments, indexes, logs, recovery and the writer of a log directory.

pub(crate) mod cache;
pub mod checkpoint;
pub mod cleaner;
pub mod config;
pub(crate) mod damage;
pub mod epoch_cache;
pub mod fs;
pub mod index;
pub(crate) mod leftovers;
pub(crate) mod log;
pub mod log_dir;
pub mod meta;
pub mod offset_index;
pub mod producer_state;
pub mod real_fs;
pub mod recovery;
pub(crate) mod relief;
pub(crate) mod repair;
pub mod retention;
pub mod segment;
pub mod sim_fs;
pub mod time_index;
pub mod txn_index;
pub mod verification;
pub mod walk;
pub(crate) mod writer;
