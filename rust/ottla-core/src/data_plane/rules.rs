//! What a topic's configuration says about produced records, under Kafka's own keys and defaults.

use crate::compression::{Codec, Compression};
use crate::error::{Error, Result};
use crate::record::batch::TimestampType;
use crate::record::validate::{Origin, TopicCompression, ValidateContext};

/// Records may expand to this many bytes at least when decompressed, however small `max.message.bytes` is.
const EXPANSION_BYTES_MIN: usize = 64 * 1024 * 1024;
/// Records may expand to so many times `max.message.bytes`.
const EXPANSION_FACTOR: usize = 64;

/// A topic's settings as far as the check of produced batches is concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProduceRules {
    /// `compression.type`; None keeps what the producer chose.
    codec: Option<Codec>,
    gzip_level: i32,
    lz4_level: i32,
    zstd_level: i32,
    timestamp_type: TimestampType,
    timestamp_before_max_ms: i64,
    timestamp_after_max_ms: i64,
    max_message_bytes: usize,
    compacted: bool,
}

impl Default for ProduceRules {
    fn default() -> Self {
        Self {
            codec: None,
            gzip_level: -1,
            lz4_level: 9,
            zstd_level: 3,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 60 * 60 * 1000,
            max_message_bytes: 1_048_588,
            compacted: false,
        }
    }
}

impl ProduceRules {
    /// Set one key to its text as in a topic's configuration; other keys are passed over (`false`).
    ///
    /// # Errors
    /// `InvalidConfig` if the text is not a value of the key. Ranges are the controller's business.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool> {
        let value = value.trim();
        let refuse = |expected: &str| Error::InvalidConfig {
            key: key.to_owned(),
            value: value.to_owned(),
            reason: format!("expected {expected}"),
        };
        let number = || value.parse::<i64>().map_err(|_| refuse("a number"));
        let level = || value.parse::<i32>().map_err(|_| refuse("a compression level"));
        match key {
            "compression.type" => {
                self.codec = match value {
                    "producer" => None,
                    "uncompressed" => Some(Codec::None),
                    name => {
                        Some(Codec::from_name(name).ok_or_else(|| refuse("a codec, `uncompressed` or `producer`"))?)
                    }
                }
            }
            "compression.gzip.level" => self.gzip_level = level()?,
            "compression.lz4.level" => self.lz4_level = level()?,
            "compression.zstd.level" => self.zstd_level = level()?,
            "message.timestamp.type" => {
                self.timestamp_type = match value {
                    "CreateTime" => TimestampType::CreateTime,
                    "LogAppendTime" => TimestampType::LogAppendTime,
                    _ => return Err(refuse("`CreateTime` or `LogAppendTime`")),
                }
            }
            "message.timestamp.before.max.ms" => self.timestamp_before_max_ms = number()?,
            "message.timestamp.after.max.ms" => self.timestamp_after_max_ms = number()?,
            "max.message.bytes" => {
                self.max_message_bytes = usize::try_from(number()?).map_err(|_| refuse("a number of bytes"))?;
            }
            "cleanup.policy" => self.compacted = value.split(',').any(|word| word.trim() == "compact"),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn compression(&self) -> TopicCompression {
        let Some(codec) = self.codec else {
            return TopicCompression::Producer;
        };
        let level = match codec {
            Codec::Gzip => Some(self.gzip_level),
            Codec::Lz4 => Some(self.lz4_level),
            Codec::Zstd => Some(self.zstd_level),
            Codec::None | Codec::Snappy => None,
        };
        TopicCompression::Fixed(Compression { codec, level })
    }

    /// Whether a batch in this codec must be compressed anew.
    pub fn recompresses(&self, codec: Codec) -> bool {
        self.codec.is_some_and(|wanted| wanted != codec)
    }

    /// The context of one check.
    pub fn context(&self, origin: Origin, produce_version: i16, wall_ms: i64) -> ValidateContext {
        ValidateContext {
            origin,
            produce_version,
            wall_ms,
            compacted: self.compacted,
            compression: self.compression(),
            timestamp_type: self.timestamp_type,
            timestamp_before_max_ms: self.timestamp_before_max_ms,
            timestamp_after_max_ms: self.timestamp_after_max_ms,
            max_message_bytes: self.max_message_bytes,
            expansion_limit_bytes: self
                .max_message_bytes
                .saturating_mul(EXPANSION_FACTOR)
                .max(EXPANSION_BYTES_MIN),
        }
    }
}
