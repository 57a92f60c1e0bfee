//! What storage needs of a topic's configuration, under Kafka's own keys and defaults.

use crate::error::{Error, Result};

/// What happens to old records (Kafka: `cleanup.policy`). Neither: they are kept for ever (since Kafka 4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanupPolicy {
    /// Segments older than `retention.ms` or beyond `retention.bytes` are deleted.
    pub delete: bool,
    /// Only the last record of each key is kept.
    pub compact: bool,
}

/// A topic's settings as far as its log is concerned. Defaults are Kafka's.
#[derive(Clone, PartialEq, Debug)]
pub struct LogConfig {
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`: bound of an offset index file.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u32,
    /// `flush.messages`; 1 makes every append wait for the disk.
    pub flush_messages: i64,
    /// `flush.ms`.
    pub flush_ms: i64,
    /// `retention.ms`; -1 is for ever.
    pub retention_ms: i64,
    /// `retention.bytes`; -1 is without bound.
    pub retention_bytes: i64,
    /// `cleanup.policy`.
    pub cleanup_policy: CleanupPolicy,
    /// `delete.retention.ms`: how long tombstones and markers outlive their first cleaning.
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
    /// `file.delete.delay.ms`.
    pub file_delete_delay_ms: i64,
    /// `min.insync.replicas`.
    pub min_insync_replicas: i32,
    /// The broker's `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
    /// The broker's `producer.id.expiration.check.interval.ms`.
    pub producer_id_expiration_check_interval_ms: i64,
}

impl Default for LogConfig {
    fn default() -> Self {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            cleanup_policy: CleanupPolicy {
                delete: true,
                compact: false,
            },
            delete_retention_ms: DAY_MS,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            min_cleanable_dirty_ratio: 0.5,
            file_delete_delay_ms: 60_000,
            min_insync_replicas: 1,
            producer_id_expiration_ms: DAY_MS,
            producer_id_expiration_check_interval_ms: 10 * 60 * 1000,
        }
    }
}

impl LogConfig {
    /// Set one key to its text as in a topic's configuration. Keys that storage does not use are passed over (`false`).
    ///
    /// # Errors
    /// `InvalidConfig` if the text is not a value of the key. Ranges are the controller's business.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool> {
        fn parse<T: std::str::FromStr>(key: &str, value: &str, what: &str) -> Result<T> {
            value.trim().parse().map_err(|_| Error::InvalidConfig {
                key: key.to_owned(),
                value: value.to_owned(),
                reason: format!("expected {what}"),
            })
        }
        match key {
            "segment.bytes" => self.segment_bytes = parse(key, value, "a number of bytes")?,
            "segment.ms" => self.segment_ms = parse(key, value, "milliseconds")?,
            "segment.jitter.ms" => self.segment_jitter_ms = parse(key, value, "milliseconds")?,
            "segment.index.bytes" => self.segment_index_bytes = parse(key, value, "a number of bytes")?,
            "index.interval.bytes" => self.index_interval_bytes = parse(key, value, "a number of bytes")?,
            "flush.messages" => self.flush_messages = parse(key, value, "a number of messages")?,
            "flush.ms" => self.flush_ms = parse(key, value, "milliseconds")?,
            "retention.ms" => self.retention_ms = parse(key, value, "milliseconds or -1")?,
            "retention.bytes" => self.retention_bytes = parse(key, value, "a number of bytes or -1")?,
            "cleanup.policy" => {
                let mut policy = CleanupPolicy {
                    delete: false,
                    compact: false,
                };
                for word in value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
                    match word {
                        "delete" => policy.delete = true,
                        "compact" => policy.compact = true,
                        _ => return parse::<bool>(key, value, "a list of `delete` and `compact`"),
                    }
                }
                self.cleanup_policy = policy;
            }
            "delete.retention.ms" => self.delete_retention_ms = parse(key, value, "milliseconds")?,
            "min.compaction.lag.ms" => self.min_compaction_lag_ms = parse(key, value, "milliseconds")?,
            "max.compaction.lag.ms" => self.max_compaction_lag_ms = parse(key, value, "milliseconds")?,
            "min.cleanable.dirty.ratio" => self.min_cleanable_dirty_ratio = parse(key, value, "a fraction")?,
            "file.delete.delay.ms" => self.file_delete_delay_ms = parse(key, value, "milliseconds")?,
            "min.insync.replicas" => self.min_insync_replicas = parse(key, value, "a number of replicas")?,
            "producer.id.expiration.ms" => self.producer_id_expiration_ms = parse(key, value, "milliseconds")?,
            "producer.id.expiration.check.interval.ms" => {
                self.producer_id_expiration_check_interval_ms = parse(key, value, "milliseconds")?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
