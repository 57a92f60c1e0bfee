//! snappy, alone or in the framing of xerial's snappy-java, which all Kafka clients write.
//!
//! Framing: 8 bytes of magic, version and compatible version (i32 each, big-endian), then blocks: length (i32) and that
//! many bytes of plain snappy. Streams may be concatenated. Without the magic the payload is one block of plain snappy.

use super::{Decode, Encode};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\x00";
const HEADER_BYTES: usize = 16;
/// What snappy-java cuts its input into, in bytes.
const BLOCK_BYTES: usize = 32 << 10;
/// No element of the format turns its bytes into more than this many times as many (a copy of 3 bytes gives 64), so
/// a length that claims more is refused before memory is taken for it.
const EXPANSION_MAX: usize = 32;

pub(super) struct SnappyDecoder<'a> {
    rest: &'a [u8],
    framed: bool,
}

impl<'a> SnappyDecoder<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self {
            rest: payload,
            framed: payload.starts_with(&MAGIC),
        }
    }

    fn next_block(&mut self) -> Result<&'a [u8], String> {
        while self.rest.starts_with(&MAGIC) {
            self.rest = self.rest.get(HEADER_BYTES..).ok_or("cut in a stream header")?;
        }
        let (length, rest) = match self.rest.split_first_chunk::<4>() {
            Some((length, rest)) => (i32::from_be_bytes(*length), rest),
            None if self.rest.is_empty() => return Ok(&[]),
            None => return Err("cut in a block length".to_owned()),
        };
        let (block, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .ok_or_else(|| format!("a block of {length} bytes, {} are left", rest.len()))?;
        if block.is_empty() {
            return Err("a block of no bytes".to_owned());
        }
        self.rest = rest;
        Ok(block)
    }
}

impl Decode for SnappyDecoder<'_> {
    fn next_chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, String> {
        if self.framed {
            let block = self.next_block()?;
            if !block.is_empty() {
                append_block(block, out)?;
            }
        } else {
            append_block(self.rest, out)?;
            self.rest = &[];
        }
        Ok(!self.rest.is_empty())
    }
}

fn append_block(block: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let length = snap::raw::decompress_len(block).map_err(|error| error.to_string())?;
    if length > block.len().saturating_mul(EXPANSION_MAX) {
        return Err(format!("{} bytes claim to expand to {length}", block.len()));
    }
    let start = out.len();
    out.resize(start + length, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(|error| error.to_string())?;
    out.truncate(start + written);
    Ok(())
}

pub(super) struct SnappyEncoder {
    snappy: snap::raw::Encoder,
    block: Vec<u8>,
    out: Vec<u8>,
}

impl SnappyEncoder {
    pub(super) fn new(mut out: Vec<u8>) -> Self {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&1i32.to_be_bytes()); // version
        out.extend_from_slice(&1i32.to_be_bytes()); // compatible with readers from version
        Self {
            snappy: snap::raw::Encoder::new(),
            block: Vec::new(),
            out,
        }
    }

    fn end_block(&mut self) -> std::io::Result<()> {
        let start = self.out.len();
        self.out
            .resize(start + 4 + snap::raw::max_compress_len(self.block.len()), 0);
        let written = self
            .snappy
            .compress(&self.block, &mut self.out[start + 4..])
            .map_err(std::io::Error::other)?;
        self.out[start..start + 4].copy_from_slice(&(written as i32).to_be_bytes());
        self.out.truncate(start + 4 + written);
        self.block.clear();
        Ok(())
    }
}

impl Encode for SnappyEncoder {
    fn write(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK_BYTES {
                self.end_block()?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> std::io::Result<Vec<u8>> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Codec, decompress};
    use super::MAGIC;

    #[test]
    fn a_block_that_claims_a_gigabyte_takes_no_memory() {
        let claim = [&MAGIC[..], &[0; 8], &8i32.to_be_bytes(), b"\x80\x80\x80\x80\x04\0\0\0"].concat();
        let error = decompress(Codec::Snappy, &claim, usize::MAX).unwrap_err();
        assert!(error.to_string().contains("claim to expand"), "{error}");
    }

    #[test]
    fn unframed_blocks_are_read() {
        let packed = snap::raw::Encoder::new().compress_vec(&[9; 5000]).unwrap();
        assert_eq!(decompress(Codec::Snappy, &packed, usize::MAX).unwrap(), [9; 5000]);
    }
}
