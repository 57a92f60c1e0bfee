//! One compacted partition with its cleaner.

use std::sync::Arc;

use ottla_core::log_cleaner::{DEDUPE_BUFFER_BYTES, LogCleaner};
use ottla_core::partition::Partition;
use ottla_core::record::batch::BatchView;
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::log_dir::LogDir;
use ottla_core::storage::real_fs::RealFs;
use ottla_core::types::Isolation;

use super::reader::{Entry, all_records, batches_from, clean, entry, plain, put};
use super::support::{Scratch, dir_options, open};

/// A log directory with one compacted partition and its cleaner.
pub struct Bench {
    pub dir: Arc<LogDir>,
    pub partition: Arc<Partition>,
    pub cleaner: LogCleaner,
    _scratch: Scratch,
}

impl Bench {
    pub fn new(name: &str, config: LogConfig) -> Self {
        let scratch = Scratch::new(name);
        let dir = LogDir::open(&dir_options(Arc::new(RealFs), &scratch.0)).unwrap();
        let partition = open(&dir, "t", config);
        let cleaner = LogCleaner::open(&dir, DEDUPE_BUFFER_BYTES);
        Self {
            dir,
            partition,
            cleaner,
            _scratch: scratch,
        }
    }

    pub fn put(&self, entries: &[(&str, Option<&str>)]) -> i64 {
        let entries: Vec<Entry> = entries.iter().map(|(key, value)| entry(key, *value)).collect();
        put(&self.dir, &self.partition, plain(), &entries)
    }

    /// Fill the active segment, so that what was put before is in closed ones.
    pub fn fill(&self) {
        self.put(&[("filler", Some(&"x".repeat(400)))]);
    }

    pub fn clean(&mut self, wall_ms: i64) {
        clean(&mut self.cleaner, &self.partition, wall_ms).expect("something is dirty");
    }

    pub fn keys(&self) -> Vec<(i64, String)> {
        let records = all_records(&self.partition).into_iter();
        records
            .map(|(offset, entry)| (offset, String::from_utf8(entry.key).unwrap()))
            .filter(|(_, key)| key != "filler")
            .collect()
    }

    pub fn batch_at(&self, offset: i64) -> Option<Vec<u8>> {
        let (batches, _) = batches_from(&self.partition, offset, Isolation::ReadUncommitted);
        batches.into_iter().find(|bytes| {
            let batch = BatchView::parse(bytes).unwrap();
            (batch.base_offset()..=batch.last_offset()).contains(&offset)
        })
    }
}

pub fn key(offset: i64, key: &str) -> (i64, String) {
    (offset, key.to_owned())
}
