//! Text checkpoints of a log directory: version line, count line, one row a partition (Kafka: `CheckpointFile`).
//!
//! `recovery-point-offset-checkpoint`, `log-start-offset-checkpoint`, `replication-offset-checkpoint`,
//! `cleaner-offset-checkpoint`: rows are `topic partition offset`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use crate::types::TopicPartition;

/// Below it, everything survives a power failure.
pub const RECOVERY_POINT: &str = "recovery-point-offset-checkpoint";
/// First offset of each log, where that is not the first segment's base.
pub const LOG_START_OFFSET: &str = "log-start-offset-checkpoint";
/// The high watermarks.
pub const HIGH_WATERMARK: &str = "replication-offset-checkpoint";
/// Up to where the cleaner got.
pub const CLEANER_OFFSET: &str = "cleaner-offset-checkpoint";

const VERSION: &str = "0";

/// The rows of a checkpoint.
pub type OffsetCheckpoint = BTreeMap<TopicPartition, i64>;

/// The text of a checkpoint.
pub fn encode_offsets(rows: &OffsetCheckpoint) -> String {
    let mut text = format!("{VERSION}\n{}\n", rows.len());
    for (topic_partition, offset) in rows {
        writeln!(text, "{} {} {offset}", topic_partition.topic, topic_partition.partition).expect("writes to memory");
    }
    text
}

/// Split a checkpoint into its rows after checking version and count.
///
/// # Errors
/// What is wrong, in words.
pub fn decode_rows<'a>(text: &'a str, version: &str) -> Result<Vec<&'a str>, String> {
    let mut lines = text.lines();
    let found = lines.next().unwrap_or_default();
    if found.trim() != version {
        return Err(format!("version is {found:?}, expected {version}"));
    }
    let count = lines.next().unwrap_or_default();
    let expected: usize = count
        .trim()
        .parse()
        .map_err(|_| format!("count is {count:?}, expected a number"))?;
    if !text.ends_with('\n') {
        return Err("the last line is cut".to_owned());
    }
    let rows: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    if rows.len() != expected {
        return Err(format!("{} rows, the count line says {expected}", rows.len()));
    }
    Ok(rows)
}

/// Read a checkpoint's text.
///
/// # Errors
/// What is wrong, in words.
pub fn decode_offsets(text: &str) -> Result<OffsetCheckpoint, String> {
    decode_rows(text, VERSION)?
        .into_iter()
        .map(|row| {
            let mut fields = row.split_whitespace();
            let parsed = (|| {
                let topic = Arc::from(fields.next()?);
                let partition = fields.next()?.parse().ok()?;
                let offset = fields.next()?.parse().ok()?;
                fields
                    .next()
                    .is_none()
                    .then_some((TopicPartition { topic, partition }, offset))
            })();
            parsed.ok_or_else(|| format!("row {row:?}, expected `topic partition offset`"))
        })
        .collect()
}
