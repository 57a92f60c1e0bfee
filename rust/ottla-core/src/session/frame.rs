//! Cuts what arrives on a connection into frames: four bytes of size, big endian, then that many bytes.
//!
//! Memory follows the bytes that really arrived, never the size that a frame announces: a client that announces 100 MiB
//! and sends nothing costs nothing.

use bytes::BytesMut;

/// Buffered bytes of a frame under way from which on the rest is received straight into the session's own buffer.
const DIRECT_BYTES_MIN: usize = 16 * 1024;
/// Growth of the own buffer at least, as long as the frame announces more than that.
const GROWTH_BYTES_MIN: usize = 64 * 1024;
/// A smaller rest of a received chunk is copied out of it, so that a partial frame does not pin the whole chunk.
const PIN_FRACTION: usize = 2;

/// Why a frame's size is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The size is negative.
    #[error("a frame announces a negative size ({size})")]
    Negative {
        /// The announced size.
        size: i32,
    },
    /// The size is above `socket.request.max.bytes`.
    #[error("a frame announces {size} bytes; socket.request.max.bytes is {max_bytes}")]
    TooLarge {
        /// The announced size.
        size: i32,
        /// The limit.
        max_bytes: usize,
    },
}

/// The bytes of one connection that belong to no complete frame yet, or to frames nobody took yet.
#[derive(Debug)]
pub struct FrameReader {
    buffered: BytesMut,
    frame_max_bytes: usize,
}

impl FrameReader {
    /// A reader that refuses frames of more than `frame_max_bytes`.
    pub fn new(frame_max_bytes: usize) -> Self {
        Self {
            buffered: BytesMut::new(),
            frame_max_bytes,
        }
    }

    /// Bytes held.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered.len()
    }

    /// Take bytes that were received elsewhere. Costs no copy while nothing else is buffered.
    pub fn push(&mut self, chunk: BytesMut) {
        if self.buffered.is_empty() {
            self.buffered = chunk;
        } else {
            self.buffered.extend_from_slice(&chunk);
        }
    }

    /// Where the rest of a large frame under way should be received, or None: receive into a buffer shared by all
    /// sessions. At most `bytes_max` bytes long; `filled` says how many were used.
    pub fn spare(&mut self, bytes_max: usize) -> Option<&mut BytesMut> {
        let size = usize::try_from(self.announced()?).ok()?;
        let missing = (4 + size).checked_sub(self.buffered.len())?;
        if self.buffered.len() < DIRECT_BYTES_MIN || missing == 0 || size > self.frame_max_bytes {
            return None;
        }
        let growth = missing.min(self.buffered.len().max(GROWTH_BYTES_MIN)).min(bytes_max);
        self.buffered.reserve(growth);
        Some(&mut self.buffered)
    }

    /// Bytes that the frame under way still lacks; 0 when none is under way.
    pub fn missing_bytes(&self) -> usize {
        let size = self.announced().and_then(|size| usize::try_from(size).ok());
        size.map_or(0, |size| (4 + size).saturating_sub(self.buffered.len()))
    }

    fn announced(&self) -> Option<i32> {
        self.buffered.first_chunk::<4>().map(|size| i32::from_be_bytes(*size))
    }

    /// Whether a whole frame is here.
    pub fn has_frame(&self) -> bool {
        self.announced()
            .and_then(|size| usize::try_from(size).ok())
            .is_some_and(|size| self.buffered.len() >= 4 + size)
    }

    /// Whether the frame under way has a size that `next_frame` refuses.
    pub fn is_refused(&self) -> bool {
        self.announced()
            .is_some_and(|size| usize::try_from(size).map_or(true, |size| size > self.frame_max_bytes))
    }

    /// The two bytes at `position` of the next frame (after its size), if they are here.
    pub fn peek_i16(&self, position: usize) -> Option<i16> {
        let bytes = self.buffered.get(4 + position..)?.first_chunk::<2>()?;
        Some(i16::from_be_bytes(*bytes))
    }

    /// The next whole frame without its size, or None when more bytes are needed.
    pub fn next_frame(&mut self) -> Result<Option<BytesMut>, FrameError> {
        let Some(size) = self.announced() else {
            self.release();
            return Ok(None);
        };
        let Ok(len) = usize::try_from(size) else {
            return Err(FrameError::Negative { size });
        };
        if len > self.frame_max_bytes {
            return Err(FrameError::TooLarge {
                size,
                max_bytes: self.frame_max_bytes,
            });
        }
        if self.buffered.len() < 4 + len {
            self.release();
            return Ok(None);
        }
        let mut frame = self.buffered.split_to(4 + len);
        let _size = frame.split_to(4);
        Ok(Some(frame))
    }

    /// Give the chunk that a small rest lies in back to its owner.
    fn release(&mut self) {
        if self.buffered.len() < DIRECT_BYTES_MIN && self.buffered.capacity() > PIN_FRACTION * self.buffered.len() {
            self.buffered = BytesMut::from(&self.buffered[..]);
        }
    }

    /// Drop everything held.
    pub fn clear(&mut self) {
        self.buffered = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Feed `bytes` as the binding does: in chunks of the given sizes, into the own buffer where there is one.
    fn feed(reader: &mut FrameReader, mut bytes: &[u8], cuts: &[usize]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut frames = Vec::new();
        let mut cuts = cuts.iter().copied().cycle();
        while !bytes.is_empty() {
            let cut = cuts.next().unwrap_or(1).clamp(1, bytes.len());
            let missing = reader.missing_bytes();
            let taken = if let Some(spare) = reader.spare(1 << 20) {
                let taken = cut.min(missing).min(spare.capacity() - spare.len());
                spare.extend_from_slice(&bytes[..taken]);
                taken
            } else {
                reader.push(BytesMut::from(&bytes[..cut]));
                cut
            };
            bytes = &bytes[taken..];
            while let Some(frame) = reader.next_frame()? {
                frames.push(frame.to_vec());
            }
        }
        Ok(frames)
    }

    fn framed(bodies: &[Vec<u8>]) -> Vec<u8> {
        bodies
            .iter()
            .flat_map(|body| [&(body.len() as u32).to_be_bytes()[..], body].concat())
            .collect()
    }

    #[test]
    fn memory_follows_what_arrives_and_not_what_is_announced() {
        let mut reader = FrameReader::new(100 << 20);
        let mut announced = vec![0_u8; 20_000];
        announced[..4].copy_from_slice(&(100_u32 << 20).to_be_bytes());
        reader.push(BytesMut::from(&announced[..]));
        assert_eq!(reader.next_frame(), Ok(None));
        let spare = reader.spare(1 << 20).expect("a large frame is under way");
        assert!(
            spare.capacity() <= 20_000 + GROWTH_BYTES_MIN + 1,
            "{}",
            spare.capacity()
        );
    }

    #[test]
    fn a_small_rest_does_not_hold_the_chunk_it_came_in() {
        let mut reader = FrameReader::new(1000);
        let mut chunk = BytesMut::with_capacity(256 * 1024);
        chunk.extend_from_slice(&[0, 0, 0, 9, 1]);
        reader.push(chunk);
        assert_eq!(reader.next_frame(), Ok(None));
        assert!(reader.buffered.capacity() < 64, "{}", reader.buffered.capacity());
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        let refused = |size: i32| feed(&mut FrameReader::new(1000), &size.to_be_bytes(), &[4]);
        assert_eq!(refused(-1), Err(FrameError::Negative { size: -1 }));
        assert_eq!(
            refused(1001),
            Err(FrameError::TooLarge {
                size: 1001,
                max_bytes: 1000
            })
        );
        assert_eq!(refused(1000), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            bodies in vec(prop_oneof![vec(any::<u8>(), 0..50), vec(any::<u8>(), 30_000..200_000)], 0..6),
            cuts in vec(prop_oneof![1..10_usize, 1000..100_000_usize], 1..8),
        ) {
            let mut reader = FrameReader::new(1 << 20);
            prop_assert_eq!(feed(&mut reader, &framed(&bodies), &cuts), Ok(bodies));
            prop_assert_eq!(reader.buffered_bytes(), 0);
        }
    }
}
