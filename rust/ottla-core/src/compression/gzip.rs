//! gzip, RFC 1952.

use std::io::{Read, Write};

use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use super::{CHUNK_BYTES, Decode, Encode};

const MEMBER_START: [u8; 3] = [0x1f, 0x8b, 0x08];

/// Members follow each other; anything else behind a member is ignored, as `java.util.zip.GZIPInputStream` does.
pub(super) struct GzipDecoder<'a> {
    member: GzDecoder<&'a [u8]>,
}

impl<'a> GzipDecoder<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self {
            member: GzDecoder::new(payload),
        }
    }
}

impl Decode for GzipDecoder<'_> {
    fn next_chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, String> {
        loop {
            let read = self.member.by_ref().take(CHUNK_BYTES as u64).read_to_end(out);
            if read.map_err(|error| error.to_string())? > 0 {
                return Ok(true);
            }
            let rest = *self.member.get_ref();
            if !rest.starts_with(&MEMBER_START) {
                return Ok(false);
            }
            self.member = GzDecoder::new(rest);
        }
    }
}

pub(super) struct GzipEncoder(GzEncoder<Vec<u8>>);

impl GzipEncoder {
    /// None: no such level.
    pub(super) fn new(level: Option<i32>, out: Vec<u8>) -> Option<Self> {
        let level = match level {
            None | Some(-1) => flate2::Compression::default(), // -1: Kafka's name for the default
            Some(level @ 1..=9) => flate2::Compression::new(level as u32),
            Some(_) => return None,
        };
        Some(Self(GzEncoder::new(out, level)))
    }
}

impl Encode for GzipEncoder {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    fn finish(self: Box<Self>) -> std::io::Result<Vec<u8>> {
        self.0.finish()
    }
}
