//! Zstandard, RFC 8878. Frames follow each other, skippable ones among them.

use std::io::{Read, Write};

use super::{CHUNK_BYTES, Decode, Encode};

/// The largest window that the Java consumer's library allows, as a power of two. The library asks the allocator for
/// the window that a frame announces; pages of it are taken only as output fills them.
const WINDOW_LOG_MAX: u32 = 27;

pub(super) struct ZstdDecoder<'a> {
    stream: Result<zstd::stream::read::Decoder<'static, &'a [u8]>, String>,
}

impl<'a> ZstdDecoder<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        let stream = zstd::stream::read::Decoder::with_buffer(payload).and_then(|mut stream| {
            stream.window_log_max(WINDOW_LOG_MAX)?;
            Ok(stream)
        });
        Self {
            stream: stream.map_err(|error| error.to_string()),
        }
    }
}

impl Decode for ZstdDecoder<'_> {
    fn next_chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, String> {
        let stream = self.stream.as_mut().map_err(|error| error.clone())?;
        let read = stream.by_ref().take(CHUNK_BYTES as u64).read_to_end(out);
        Ok(read.map_err(|error| error.to_string())? > 0)
    }
}

pub(super) struct ZstdEncoder(zstd::stream::write::Encoder<'static, Vec<u8>>);

impl ZstdEncoder {
    /// None: no such level.
    pub(super) fn new(level: Option<i32>, out: Vec<u8>) -> Option<Self> {
        let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
        if !zstd::compression_level_range().contains(&level) {
            return None;
        }
        zstd::stream::write::Encoder::new(out, level).ok().map(Self)
    }
}

impl Encode for ZstdEncoder {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    fn finish(self: Box<Self>) -> std::io::Result<Vec<u8>> {
        self.0.finish()
    }
}
