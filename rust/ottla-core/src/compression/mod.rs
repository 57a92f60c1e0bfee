//! The codecs of record batches.
//!
//! Ids are those of the batch attributes, bits 0 to 2 (Kafka: `CompressionType`).

/// How a batch's records are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Codec {
    /// Not compressed.
    #[default]
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// snappy; Kafka's clients wrap the blocks in the framing of xerial's snappy-java.
    Snappy,
    /// An LZ4 frame.
    Lz4,
    /// Zstandard, RFC 8878; needs Produce 7 and Fetch 10 (KIP-110).
    Zstd,
}

impl Codec {
    /// All codecs, in the order of their ids.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this id; None if no codec has it.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// The id in the batch attributes.
    pub const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The name in `compression.type` of producers and of topics other than `producer` and `uncompressed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec of this name (`none`, `gzip`, `snappy`, `lz4`, `zstd`).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }
}

/// A codec and how hard it tries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Compression {
    /// The codec.
    pub codec: Codec,
    /// The codec's own scale; None: its default in Kafka.
    pub level: Option<i32>,
}
