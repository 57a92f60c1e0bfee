//! Telling a torn write from damage.
//!
//! A write that a crash interrupted leaves bad bytes with nothing behind them; after a power failure also sectors of zeros
//! (sectors that never reached the disk, in a file that only grows) with later ones behind them. Anything else was whole
//! once and is not any more.

use std::io;

use super::fs::LogFile;
use crate::record::batch::{BATCH_OVERHEAD, BatchHeader, BatchView, MAGIC};

const SECTOR_BYTES: usize = 512;
/// The byte of a header that is the same in every batch.
const MAGIC_AT: usize = 16;
/// How much of a file is looked at in one go.
const CHUNK_BYTES: usize = 1 << 20;

/// What bad bytes are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// A write that did not end: to be cut off.
    Torn,
    /// Damage; the text says why.
    Damaged(String),
}

/// Judge the bad bytes that begin at `bad_at`, where a batch at or above `next_offset` should begin.
pub(crate) fn judge(
    file: &dyn LogFile,
    bad_at: u64,
    size_bytes: u64,
    next_offset: i64,
    after_power_failure: bool,
) -> io::Result<Verdict> {
    let Some(behind) = find_batch(file, bad_at + 1, size_bytes, next_offset)? else {
        return Ok(Verdict::Torn);
    };
    if after_power_failure && has_lost_sector(file, bad_at, behind)? {
        return Ok(Verdict::Torn);
    }
    Ok(Verdict::Damaged(format!("a whole batch follows at byte {behind}")))
}

/// The first position in `from..end` at which a whole batch with a good checksum and a possible offset begins.
fn find_batch(file: &dyn LogFile, from: u64, end: u64, next_offset: i64) -> io::Result<Option<u64>> {
    let mut buffer = Vec::new();
    let mut from = from;
    while from + (BATCH_OVERHEAD as u64) <= end {
        let len = usize::try_from(end - from).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        buffer.resize(len, 0);
        let read = file.read_at(&mut buffer, from)?;
        buffer.truncate(read);
        if read < BATCH_OVERHEAD {
            return Ok(None);
        }
        for at in 0..=read - BATCH_OVERHEAD {
            if buffer[at + MAGIC_AT] == MAGIC as u8
                && let Ok(header) = BatchHeader::parse(&buffer[at..])
                && is_possible(header, next_offset)
                && from + at as u64 + header.size_bytes() as u64 <= end
            {
                let mut batch = vec![0; header.size_bytes()];
                let position = from + at as u64;
                file.read_exact_at(&mut batch, position)?;
                if BatchView::parse(&batch).is_ok_and(|batch| batch.verify_crc().is_ok()) {
                    return Ok(Some(position));
                }
            }
        }
        // A header may straddle the border.
        from += (read - BATCH_OVERHEAD + 1) as u64;
    }
    Ok(None)
}

fn is_possible(header: BatchHeader<'_>, next_offset: i64) -> bool {
    let base_offset = header.base_offset();
    base_offset >= next_offset
        && base_offset - next_offset <= i64::from(i32::MAX)
        && header.last_offset_delta() >= 0
        && header.record_count() >= 0
}

/// Whether `from..end` holds a sector of zeros, or begins with zeros up to the end of a sector (one that was last written
/// when the file ended at `from`).
fn has_lost_sector(file: &dyn LogFile, from: u64, end: u64) -> io::Result<bool> {
    let sector = SECTOR_BYTES as u64;
    let mut rest = vec![0; (from.next_multiple_of(sector).min(end) - from) as usize];
    file.read_exact_at(&mut rest, from)?;
    // Fewer zeros are nothing unusual: a batch begins with the high bytes of its offset.
    if rest.len() >= size_of::<i64>() && rest.iter().all(|&byte| byte == 0) {
        return Ok(true);
    }
    let mut position = from.next_multiple_of(sector);
    let mut buffer = vec![0; CHUNK_BYTES];
    while position + sector <= end {
        let len = usize::try_from(end - position).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let read = file.read_at(&mut buffer[..len], position)?;
        if buffer[..read]
            .chunks_exact(SECTOR_BYTES)
            .any(|sector| sector.iter().all(|&byte| byte == 0))
        {
            return Ok(true);
        }
        position += (read.max(1) as u64).next_multiple_of(sector);
    }
    Ok(false)
}
