//! The codecs of record batches.
//!
//! Ids are those of the batch attributes, bits 0 to 2 (Kafka: `CompressionType`). Each codec streams both ways, so that
//! records are checked while they are decompressed and a hostile payload costs no more than one piece of memory. What
//! counts as a whole stream (several of them, bytes behind the end) follows the Java consumer, case by case: a batch
//! that we accept must be readable by it. tests/golden/records holds the broker's answers.

mod gzip;
mod lz4;
mod snappy;
mod zstd;

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
    /// The codec's own scale (gzip 1 to 9, zstd -131072 to 22); None: its default in Kafka (6 and 3). snappy has no
    /// levels, and every level of LZ4 compresses as the fast one does.
    pub level: Option<i32>,
}

/// How far a batch may expand unless configured otherwise: what a client could have sent uncompressed in one request
/// (`socket.request.max.bytes`), in bytes.
pub const EXPANSION_LIMIT_BYTES: usize = 100 << 20;

/// How much a decoder gives at a time, about, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Why compressed bytes could not be expanded, or bytes not be compressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// Not a stream of this codec, or a damaged or cut one.
    #[error("corrupt {codec} data: {what}", codec = codec.name())]
    Corrupt {
        /// The codec.
        codec: Codec,
        /// What is wrong.
        what: String,
    },
    /// The stream expands beyond the limit.
    #[error("the {codec} data expands to more than {limit_bytes} bytes", codec = codec.name())]
    ExpansionLimit {
        /// The codec.
        codec: Codec,
        /// The limit.
        limit_bytes: usize,
    },
    /// The codec has no such level.
    #[error("{codec} has no level {level}", codec = codec.name())]
    InvalidLevel {
        /// The codec.
        codec: Codec,
        /// What was asked for.
        level: i32,
    },
}

/// A codec's streaming decoder.
trait Decode {
    /// Appends some output; false: the stream has ended (and was whole).
    fn next_chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, String>;
}

/// A codec's streaming encoder.
trait Encode {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()>;
    fn finish(self: Box<Self>) -> std::io::Result<Vec<u8>>;
}

/// Expands one compressed payload piece by piece. Memory grows with the output that was really produced, never with
/// what a header announces, and the output never exceeds the limit by more than a piece.
pub struct Decoder<'a> {
    codec: Codec,
    inner: Box<dyn Decode + 'a>,
    limit_bytes: usize,
    produced_bytes: usize,
}

impl<'a> Decoder<'a> {
    /// A decoder of `payload` that fails once the output exceeds `limit_bytes`.
    pub fn new(codec: Codec, payload: &'a [u8], limit_bytes: usize) -> Self {
        let inner: Box<dyn Decode + 'a> = match codec {
            Codec::None => Box::new(Plain(payload)),
            Codec::Gzip => Box::new(gzip::GzipDecoder::new(payload)),
            Codec::Snappy => Box::new(snappy::SnappyDecoder::new(payload)),
            Codec::Lz4 => Box::new(lz4::Lz4Decoder::new(payload)),
            Codec::Zstd => Box::new(zstd::ZstdDecoder::new(payload)),
        };
        Self {
            codec,
            inner,
            limit_bytes,
            produced_bytes: 0,
        }
    }

    /// Appends the next piece of output to `out`; false: the stream has ended.
    ///
    /// # Errors
    /// Corrupt, `ExpansionLimit`.
    pub fn next_chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, CompressionError> {
        let before = out.len();
        let more = self.inner.next_chunk(out).map_err(|what| CompressionError::Corrupt {
            codec: self.codec,
            what,
        })?;
        self.produced_bytes += out.len() - before;
        if self.produced_bytes > self.limit_bytes {
            return Err(CompressionError::ExpansionLimit {
                codec: self.codec,
                limit_bytes: self.limit_bytes,
            });
        }
        Ok(more)
    }
}

/// The whole output of `payload`, at most `limit_bytes` of it.
///
/// # Errors
/// Corrupt, `ExpansionLimit`.
pub fn decompress(codec: Codec, payload: &[u8], limit_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let mut decoder = Decoder::new(codec, payload, limit_bytes);
    let mut out = Vec::new();
    while decoder.next_chunk(&mut out)? {}
    Ok(out)
}

/// Compresses piece by piece into a buffer.
pub struct Encoder {
    codec: Codec,
    inner: Box<dyn Encode>,
}

impl Encoder {
    /// An encoder that appends to `out`.
    ///
    /// # Errors
    /// `InvalidLevel`.
    pub fn new(compression: Compression, out: Vec<u8>) -> Result<Self, CompressionError> {
        let Compression { codec, level } = compression;
        let invalid = || CompressionError::InvalidLevel {
            codec,
            level: level.unwrap_or_default(),
        };
        let inner: Box<dyn Encode> = match codec {
            Codec::None => Box::new(Stored(out)),
            Codec::Gzip => Box::new(gzip::GzipEncoder::new(level, out).ok_or_else(invalid)?),
            Codec::Snappy => Box::new(snappy::SnappyEncoder::new(out)),
            Codec::Lz4 => Box::new(lz4::Lz4Encoder::new(out)),
            Codec::Zstd => Box::new(zstd::ZstdEncoder::new(level, out).ok_or_else(invalid)?),
        };
        Ok(Self { codec, inner })
    }

    /// Takes more input.
    ///
    /// # Errors
    /// Corrupt, if the codec's library fails (it cannot for lack of space: the output grows).
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CompressionError> {
        let codec = self.codec;
        self.inner.write(bytes).map_err(|error| CompressionError::Corrupt {
            codec,
            what: error.to_string(),
        })
    }

    /// Ends the stream and gives the buffer back.
    ///
    /// # Errors
    /// As `write`.
    pub fn finish(self) -> Result<Vec<u8>, CompressionError> {
        let codec = self.codec;
        self.inner.finish().map_err(|error| CompressionError::Corrupt {
            codec,
            what: error.to_string(),
        })
    }
}

/// Appends `payload`, compressed, to `out`.
///
/// # Errors
/// `InvalidLevel`.
pub fn compress(compression: Compression, payload: &[u8], out: Vec<u8>) -> Result<Vec<u8>, CompressionError> {
    let mut encoder = Encoder::new(compression, out)?;
    encoder.write(payload)?;
    encoder.finish()
}

/// "Decodes" what is not compressed.
struct Plain<'a>(&'a [u8]);

impl Decode for Plain<'_> {
    fn next_chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, String> {
        let (chunk, rest) = self.0.split_at(self.0.len().min(CHUNK_BYTES));
        out.extend_from_slice(chunk);
        self.0 = rest;
        Ok(!rest.is_empty())
    }
}

/// "Encodes" without compressing.
struct Stored(Vec<u8>);

impl Encode for Stored {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> std::io::Result<Vec<u8>> {
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(codec: Codec) -> Compression {
        Compression { codec, level: None }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_compressed_is_decompressed(
            seed in proptest::collection::vec(any::<u8>(), 0..300),
            repeats in 0usize..2000,
            codec in proptest::sample::select(&Codec::ALL[..]),
        ) {
            let payload = seed.repeat(repeats);
            let packed = compress(with(codec), &payload, b"before".to_vec()).unwrap();
            prop_assert_eq!(&packed[..6], b"before");
            prop_assert!(decompress(codec, &packed[6..], payload.len()).unwrap() == payload);
        }

        #[test]
        fn pieces_make_the_same_stream_content(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40_000), 0..6),
            codec in proptest::sample::select(&Codec::ALL[..]),
        ) {
            let mut encoder = Encoder::new(with(codec), Vec::new()).unwrap();
            for piece in &pieces {
                encoder.write(piece).unwrap();
            }
            let packed = encoder.finish().unwrap();
            prop_assert!(decompress(codec, &packed, usize::MAX).unwrap() == pieces.concat());
        }

        #[test]
        fn damage_is_an_error_or_other_bytes_but_never_a_panic(
            payload in proptest::collection::vec(0u8..4, 0..5000),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
            codec in proptest::sample::select(&Codec::ALL[..]),
        ) {
            let mut packed = compress(with(codec), &payload, Vec::new()).unwrap();
            for (at, byte) in flips {
                if !packed.is_empty() {
                    let at = at.index(packed.len());
                    packed[at] = byte;
                }
            }
            packed.truncate(cut.index(packed.len() + 1));
            if let Ok(out) = decompress(codec, &packed, 10_000) {
                prop_assert!(out.len() <= 10_000);
            }
        }

        #[test]
        fn noise_never_panics(
            noise in proptest::collection::vec(any::<u8>(), 0..200),
            codec in proptest::sample::select(&Codec::ALL[..]),
        ) {
            for start in [&b""[..], b"\x1f\x8b\x08\x00", b"\x82SNAPPY\x00", b"\x04\x22\x4d\x18\x60\x40\x82", b"\x28\xb5\x2f\xfd"] {
                let _: Result<_, _> = decompress(codec, &[start, &noise].concat(), 100_000);
            }
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let zeros = vec![0; 50 << 20];
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let packed = compress(with(codec), &zeros, Vec::new()).unwrap();
            assert!(packed.len() < zeros.len() / 20);
            let mut decoder = Decoder::new(codec, &packed, 1 << 20);
            let (mut out, mut largest) = (Vec::new(), 0);
            let error = loop {
                out.clear();
                match decoder.next_chunk(&mut out) {
                    Ok(more) => assert!(more),
                    Err(error) => break error,
                }
                largest = largest.max(out.len());
            };
            assert_eq!(
                error,
                CompressionError::ExpansionLimit {
                    codec,
                    limit_bytes: 1 << 20
                }
            );
            assert!(largest <= 4 << 20, "{largest} bytes at once from {codec:?}");
        }
    }

    #[test]
    fn exactly_the_limit_is_allowed() {
        for codec in Codec::ALL {
            let packed = compress(with(codec), &[7; 1000], Vec::new()).unwrap();
            assert_eq!(decompress(codec, &packed, 1000).unwrap().len(), 1000);
            assert_eq!(
                decompress(codec, &packed, 999),
                Err(CompressionError::ExpansionLimit {
                    codec,
                    limit_bytes: 999
                })
            );
        }
    }

    #[test]
    fn levels_are_checked_and_do_something() {
        let text: Vec<u8> = (0..40_000u32)
            .flat_map(|i| (i * i % 977).to_string().into_bytes())
            .collect();
        let packed_bytes = |codec, level| {
            compress(
                Compression {
                    codec,
                    level: Some(level),
                },
                &text,
                Vec::new(),
            )
            .unwrap()
            .len()
        };
        assert!(packed_bytes(Codec::Gzip, 9) < packed_bytes(Codec::Gzip, 1));
        assert!(packed_bytes(Codec::Zstd, 19) < packed_bytes(Codec::Zstd, -5));
        for (codec, level) in [
            (Codec::Gzip, 10),
            (Codec::Gzip, 0),
            (Codec::Zstd, 23),
            (Codec::Zstd, -131_073),
        ] {
            let refused = Encoder::new(
                Compression {
                    codec,
                    level: Some(level),
                },
                Vec::new(),
            )
            .err();
            assert_eq!(refused, Some(CompressionError::InvalidLevel { codec, level }));
        }
    }
}
