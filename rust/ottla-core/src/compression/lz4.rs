//! The LZ4 frame format as Kafka uses it: independent blocks, header checksum over the descriptor (KIP-57).
//!
//! Layout (little-endian): magic; descriptor (flags, block size, optional content size); one byte of its xxHash32;
//! blocks (length with the top bit set if stored, bytes, optional xxHash32); a length of 0; optional content checksum.
//! What the Java consumer cannot read is refused here too: dependent blocks, dictionaries. What it does not look at is
//! not looked at: content size, content checksum, bytes behind the frame.

use twox_hash::XxHash32;

use super::{Decode, Encode};

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
const VERSION: u8 = 0x40;
const VERSION_MASK: u8 = 0xc0;
const INDEPENDENT_BLOCKS: u8 = 0x20;
const BLOCK_CHECKSUMS: u8 = 0x10;
const CONTENT_SIZE: u8 = 0x08;
const RESERVED_FLAGS: u8 = 0x03;
const RESERVED_BLOCK_BITS: u8 = 0x8f;
const STORED: u32 = 0x8000_0000;
/// Block size id 4, what Kafka's clients write: 64 KiB.
const BLOCK_64_KIB: u8 = 0x40;
const BLOCK_BYTES: usize = 64 << 10;
/// One byte of input gives at most 255 of output.
const EXPANSION_MAX: usize = 255;

fn checksum(bytes: &[u8]) -> u32 {
    XxHash32::oneshot(0, bytes)
}

pub(super) struct Lz4Decoder<'a> {
    rest: &'a [u8],
    frame: Option<Frame>,
}

#[derive(Clone, Copy)]
struct Frame {
    block_bytes_max: usize,
    block_checksums: bool,
}

impl<'a> Lz4Decoder<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self {
            rest: payload,
            frame: None,
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let cut = || format!("cut: {count} bytes wanted, {} are left", self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_u32(&mut self) -> Result<u32, String> {
        let mut field = [0; 4];
        field.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(field))
    }

    fn read_header(&mut self) -> Result<Frame, String> {
        if self.take(MAGIC.len())? != MAGIC {
            return Err("no frame magic".to_owned());
        }
        let descriptor_start = self.rest;
        let fixed = self.take(2)?;
        let (flags, block) = (fixed[0], fixed[1]);
        if flags & VERSION_MASK != VERSION || flags & RESERVED_FLAGS != 0 || block & RESERVED_BLOCK_BITS != 0 {
            return Err(format!(
                "frame version, flags or dictionary not supported ({flags:#04x} {block:#04x})"
            ));
        }
        if flags & INDEPENDENT_BLOCKS == 0 {
            return Err("blocks that depend on each other are not supported".to_owned());
        }
        let block_bytes_max = match block >> 4 {
            4 => 64 << 10,
            5 => 256 << 10,
            6 => 1 << 20,
            7 => 4 << 20,
            id => return Err(format!("block size id {id}")),
        };
        if flags & CONTENT_SIZE != 0 {
            self.take(8)?;
        }
        let descriptor = &descriptor_start[..descriptor_start.len() - self.rest.len()];
        if self.take(1)?[0] != (checksum(descriptor) >> 8) as u8 {
            return Err("wrong header checksum".to_owned());
        }
        Ok(Frame {
            block_bytes_max,
            block_checksums: flags & BLOCK_CHECKSUMS != 0,
        })
    }
}

impl Decode for Lz4Decoder<'_> {
    fn next_chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, String> {
        let frame = if let Some(frame) = self.frame {
            frame
        } else {
            self.read_header()?
        };
        self.frame = Some(frame);
        let length = self.take_u32()?;
        if length == 0 {
            return Ok(false);
        }
        let stored = length & STORED != 0;
        let length = (length & !STORED) as usize;
        if length > frame.block_bytes_max {
            return Err(format!(
                "a block of {length} bytes, at most {} announced",
                frame.block_bytes_max
            ));
        }
        let block = self.take(length)?;
        if frame.block_checksums && self.take_u32()? != checksum(block) {
            return Err("wrong block checksum".to_owned());
        }
        if stored {
            out.extend_from_slice(block);
        } else {
            let start = out.len();
            out.resize(start + frame.block_bytes_max.min(length * EXPANSION_MAX), 0);
            let written =
                lz4_flex::block::decompress_into(block, &mut out[start..]).map_err(|error| error.to_string())?;
            out.truncate(start + written);
        }
        Ok(true)
    }
}

pub(super) struct Lz4Encoder {
    block: Vec<u8>,
    out: Vec<u8>,
}

impl Lz4Encoder {
    pub(super) fn new(mut out: Vec<u8>) -> Self {
        let descriptor = [VERSION | INDEPENDENT_BLOCKS, BLOCK_64_KIB];
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&descriptor);
        out.push((checksum(&descriptor) >> 8) as u8);
        Self { block: Vec::new(), out }
    }

    fn end_block(&mut self) -> std::io::Result<()> {
        let start = self.out.len();
        self.out.resize(
            start + 4 + lz4_flex::block::get_maximum_output_size(self.block.len()),
            0,
        );
        let written =
            lz4_flex::block::compress_into(&self.block, &mut self.out[start + 4..]).map_err(std::io::Error::other)?;
        let field = if written < self.block.len() {
            self.out.truncate(start + 4 + written);
            written as u32
        } else {
            self.out.truncate(start + 4);
            self.out.extend_from_slice(&self.block);
            self.block.len() as u32 | STORED
        };
        self.out[start..start + 4].copy_from_slice(&field.to_le_bytes());
        self.block.clear();
        Ok(())
    }
}

impl Encode for Lz4Encoder {
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
        self.out.extend_from_slice(&[0; 4]);
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Codec, Compression, compress, decompress};

    #[test]
    fn other_libraries_read_our_frames() {
        use std::io::Read;
        let payload = b"a payload that repeats itself, ".repeat(9000);
        let packed = compress(
            Compression {
                codec: Codec::Lz4,
                level: None,
            },
            &payload,
            Vec::new(),
        )
        .unwrap();
        let mut out = Vec::new();
        lz4_flex::frame::FrameDecoder::new(&packed[..])
            .read_to_end(&mut out)
            .unwrap();
        assert!(out == payload);
    }

    #[test]
    fn frames_of_other_libraries_are_read() {
        use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
        use std::io::Write;
        let payload = b"a payload that repeats itself, ".repeat(90_000);
        for size in [
            BlockSize::Max64KB,
            BlockSize::Max256KB,
            BlockSize::Max1MB,
            BlockSize::Max4MB,
        ] {
            let info = FrameInfo::new()
                .block_size(size)
                .block_mode(BlockMode::Independent)
                .block_checksums(true)
                .content_checksum(true)
                .content_size(Some(payload.len() as u64));
            let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(&payload).unwrap();
            let packed = encoder.finish().unwrap();
            assert!(decompress(Codec::Lz4, &packed, usize::MAX).unwrap() == payload);
            let mut damaged = packed.clone();
            let middle = packed.len() / 2;
            damaged[middle] ^= 1;
            assert!(decompress(Codec::Lz4, &damaged, usize::MAX).is_err());
        }
    }
}
