//! Snapshot files: `<20-digit end offset>-<10-digit epoch>.checkpoint`, in Kafka's format.
//!
//! A snapshot is a log of its own, offsets from 0: a control batch with a `SnapshotHeader` record, data batches, a control
//! batch with a `SnapshotFooter` record. It stands for every record below its end offset; its epoch is that of the last
//! of them (Kafka: `RecordsSnapshotWriter`, `Snapshots`).
//!
//! Raft counts entries where Kafka counts records, and after the log before a snapshot is gone nobody can count them
//! again. So the header, whose format has room for tagged fields that other readers skip, carries raft's index and the
//! voters under one tag of our own. Every other index follows by counting batches from there.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};

use super::entry::{self, RECORD_OVERHEAD_MAX};
use super::error::QuorumError;
use crate::record::batch::Batches;
use crate::record::control::ControlType;
use crate::storage::fs::{LogFs, OpenMode};
use crate::wire::{Reader, WireError, Writer};

/// Tag of the field in `SnapshotHeader` that holds raft's index and the voters; Kafka's own tags are counted from 0.
const RAFT_TAG: u32 = 10_000;
const BATCH_TARGET_BYTES: usize = 512 * 1024;
const SUFFIX: &str = ".checkpoint";

/// Which snapshot: end offset (exclusive) and the epoch of the last record in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SnapshotId {
    /// The offset after the last record that the snapshot stands for.
    pub end_offset: i64,
    /// The leader epoch of that last record.
    pub epoch: i32,
}

impl SnapshotId {
    /// The file's name.
    pub fn file_name(self) -> String {
        format!("{:020}-{:010}{SUFFIX}", self.end_offset, self.epoch)
    }

    /// The id in a file's name, if it is a snapshot's.
    pub fn from_file_name(name: &str) -> Option<Self> {
        let (offset, epoch) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        if offset.len() != 20 || epoch.len() != 10 {
            return None;
        }
        Some(Self {
            end_offset: offset.parse().ok()?,
            epoch: epoch.parse().ok()?,
        })
    }
}

/// What a snapshot says about itself, besides its records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotMeta {
    /// End offset and epoch.
    pub id: SnapshotId,
    /// Raft's index of the last batch in it.
    pub index: u64,
    /// The voters at that point.
    pub voters: Vec<i32>,
    /// Timestamp of the last record that it stands for, in Unix ms.
    pub last_contained_log_timestamp_ms: i64,
}

/// The bytes of a snapshot file.
pub fn encode(meta: &SnapshotMeta, records: &[Bytes]) -> Bytes {
    let mut out = BytesMut::new();
    let mut offset = 0;
    let timestamp_ms = meta.last_contained_log_timestamp_ms;
    let mut field = Writer::default();
    field.i64(meta.index as i64);
    field.i32(meta.voters.len() as i32);
    for voter in &meta.voters {
        field.i32(*voter);
    }
    let field = field.into_bytes();
    let mut header = Writer::default();
    header.i16(0);
    header.i64(timestamp_ms);
    header.uvarint(1);
    header.uvarint(RAFT_TAG);
    header.uvarint(field.len() as u32);
    header.raw(&field);
    let header = header.into_bytes();
    let mut put = |batch: Bytes, count: usize| {
        out.put_slice(&batch);
        offset += count as i64;
        offset
    };
    let epoch = meta.id.epoch;
    let mut next = put(
        entry::control_batch(0, epoch, timestamp_ms, ControlType::SnapshotHeader, &header),
        1,
    );
    let mut rest = records;
    while !rest.is_empty() {
        let mut size = 0;
        let count = rest
            .iter()
            .position(|record| {
                size += record.len() + RECORD_OVERHEAD_MAX;
                size > BATCH_TARGET_BYTES
            })
            .unwrap_or(rest.len())
            .max(1);
        let (now, later) = rest.split_at(count);
        next = put(entry::data_batch(next, epoch, timestamp_ms, now), count);
        rest = later;
    }
    // Kafka: `SnapshotFooterRecord`: version 0, no tagged fields
    put(
        entry::control_batch(next, epoch, timestamp_ms, ControlType::SnapshotFooter, &[0, 0, 0]),
        1,
    );
    out.freeze()
}

/// Reads and checks the bytes of a snapshot file: every checksum, contiguous offsets, header first, footer last.
///
/// # Errors
/// `Damaged`, naming the byte.
pub fn decode(id: SnapshotId, bytes: &Bytes) -> Result<(SnapshotMeta, Vec<Bytes>), QuorumError> {
    let mut meta = None;
    let mut found = Vec::new();
    let mut footer = false;
    let mut next_offset = 0;
    let mut batches = Batches::new(bytes);
    loop {
        let position = batches.position();
        let damaged = |reason: String| QuorumError::Damaged {
            file: id.file_name(),
            position: position as u64,
            reason,
        };
        let Some(batch) = batches.next() else {
            break;
        };
        let view = batch.map_err(|error| damaged(error.to_string()))?;
        entry::check(&view).map_err(|error| damaged(error.to_string()))?;
        if footer || view.base_offset() != next_offset {
            return Err(damaged(format!(
                "batch at offset {} where {next_offset} was expected",
                view.base_offset()
            )));
        }
        next_offset = view.next_offset();
        let whole = bytes.slice_ref(view.bytes());
        if !view.is_control() {
            found.extend(entry::values(&whole).map_err(|error| damaged(error.to_string()))?);
            continue;
        }
        for (kind, value) in entry::control_records(&whole).map_err(|error| damaged(error.to_string()))? {
            match kind {
                ControlType::SnapshotHeader if meta.is_none() => {
                    meta = Some(header(id, &value).map_err(damaged)?);
                }
                ControlType::SnapshotFooter => footer = true,
                // kraft.version and voters records of other writers
                _ => {}
            }
        }
        if meta.is_none() {
            return Err(damaged("no snapshot header at the start".to_owned()));
        }
    }
    match meta {
        Some(meta) if footer => Ok((meta, found)),
        _ => Err(QuorumError::Damaged {
            file: id.file_name(),
            position: bytes.len() as u64,
            reason: "the snapshot ends without a footer".to_owned(),
        }),
    }
}

fn header(id: SnapshotId, value: &[u8]) -> Result<SnapshotMeta, String> {
    let mut found = None;
    let mut read = || -> Result<i64, WireError> {
        let mut reader = Reader::new(value);
        reader.i16()?;
        let timestamp_ms = reader.i64()?;
        reader.tagged_fields(true, |tag, field| {
            if tag != RAFT_TAG {
                return Ok(false);
            }
            let index = field.i64()?;
            let voters = (0..field.array_len(false, 4, "voters")?).map(|_| field.i32());
            found = Some((index as u64, voters.collect::<Result<Vec<i32>, _>>()?));
            Ok(true)
        })?;
        Ok(timestamp_ms)
    };
    let last_contained_log_timestamp_ms = read().map_err(|error| format!("snapshot header: {error}"))?;
    let (index, voters) = found.ok_or("the snapshot header does not carry raft's index")?;
    Ok(SnapshotMeta {
        id,
        index,
        voters,
        last_contained_log_timestamp_ms,
    })
}

/// Writes a snapshot file durably: complete under its name or not there at all.
///
/// # Errors
/// `Storage`, `NoSpace`.
pub fn write(fs: &dyn LogFs, dir: &Path, id: SnapshotId, bytes: &[u8]) -> Result<(), QuorumError> {
    let path = dir.join(id.file_name());
    let part = part_path(&path);
    let attempt = || {
        let file = fs.open(&part, OpenMode::Create)?;
        file.truncate(0)?;
        file.write_all_at(&[IoSlice::new(bytes)], 0)?;
        file.sync_data()?;
        fs.rename(&part, &path)?;
        fs.sync_dir(dir)
    };
    attempt().map_err(QuorumError::storage("writing a snapshot"))
}

/// Kafka's name of an unfinished snapshot.
fn part_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta {
            id: SnapshotId {
                end_offset: 42,
                epoch: 7,
            },
            index,
            voters: vec![1, 2, 3],
            last_contained_log_timestamp_ms: 1234,
        }
    }

    #[test]
    fn names_are_kafkas() {
        let id = SnapshotId {
            end_offset: 42,
            epoch: 7,
        };
        assert_eq!(id.file_name(), "00000000000000000042-0000000007.checkpoint");
        assert_eq!(SnapshotId::from_file_name(&id.file_name()), Some(id));
        assert_eq!(
            SnapshotId::from_file_name("00000000000000000042-0000000007.checkpoint.part"),
            None
        );
    }

    #[test]
    fn large_snapshots_take_several_batches() {
        let records: Vec<Bytes> = (0..3000_u32).map(|i| Bytes::from(vec![i as u8; 900])).collect();
        let bytes = encode(&meta(9), &records);
        assert!(Batches::new(&bytes).count() > 4);
        assert_eq!(decode(meta(9).id, &bytes).unwrap(), (meta(9), records));
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_noticed() {
        let bytes = encode(&meta(9), &[Bytes::from_static(b"one"), Bytes::from_static(b"two")]);
        for cut in 0..bytes.len() {
            assert!(decode(meta(9).id, &bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 0x40;
            let in_epoch = Batches::new(&bytes).scan(0, |start, batch| {
                let here = *start;
                *start += batch.unwrap().size_bytes();
                Some(here + 12..here + 16)
            });
            let harmless = in_epoch.into_iter().any(|range| range.contains(&at));
            let result = decode(meta(9).id, &Bytes::from(bad));
            assert!(harmless || result.is_err(), "flip at {at}");
        }
    }

    proptest! {
        #[test]
        fn records_survive(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..40), index: u64) {
            let values: Vec<Bytes> = values.into_iter().map(Bytes::from).collect();
            let bytes = encode(&meta(index), &values);
            prop_assert_eq!(decode(meta(index).id, &bytes).unwrap(), (meta(index), values));
        }
    }
}
