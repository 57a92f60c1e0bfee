//! Control records: transaction markers and the note of a new leader in the metadata log.
//!
//! Key: version i16 (0), type i16. Value of a marker: version i16 (0), coordinator epoch i32 (Kafka:
//! `ControlRecordType`, `EndTransactionMarker`, `LeaderChangeMessage`).

use super::batch::BatchView;
use super::builder::{BatchOptions, NewRecord, build_batch};
use super::records::{Records, RecordsError};
use crate::compression::Compression;

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum MarkerType {
    /// Its records are dropped by consumers that read committed data.
    Abort,
    /// Its records count.
    Commit,
}

/// The type in a control record's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ControlType {
    /// The end of a transaction.
    Marker(MarkerType),
    /// A new leader of the metadata log.
    LeaderChange,
    /// The first record of a metadata snapshot.
    SnapshotHeader,
    /// The last record of a metadata snapshot.
    SnapshotFooter,
    /// The quorum's version.
    KraftVersion,
    /// The quorum's voters.
    KraftVoters,
    /// A type of a later version; readers pass over it.
    Unknown(i16),
}

impl ControlType {
    /// The type in the key of a control record; None: not such a key.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let [v0, v1, t0, t1, ..] = *key else { return None };
        if i16::from_be_bytes([v0, v1]) < 0 {
            return None;
        }
        Some(match i16::from_be_bytes([t0, t1]) {
            0 => Self::Marker(MarkerType::Abort),
            1 => Self::Marker(MarkerType::Commit),
            2 => Self::LeaderChange,
            3 => Self::SnapshotHeader,
            4 => Self::SnapshotFooter,
            5 => Self::KraftVersion,
            6 => Self::KraftVoters,
            other => Self::Unknown(other),
        })
    }

    const fn id(self) -> i16 {
        match self {
            Self::Marker(MarkerType::Abort) => 0,
            Self::Marker(MarkerType::Commit) => 1,
            Self::LeaderChange => 2,
            Self::SnapshotHeader => 3,
            Self::SnapshotFooter => 4,
            Self::KraftVersion => 5,
            Self::KraftVoters => 6,
            Self::Unknown(id) => id,
        }
    }

    /// The key of a control record of this type.
    pub fn key(self) -> [u8; 4] {
        let [t0, t1] = self.id().to_be_bytes();
        [0, 0, t0, t1]
    }
}

/// The end of a transaction, as a partition's log holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransactionMarker {
    /// Whose transaction.
    pub producer_id: i64,
    /// With transaction.version 2 already the bumped epoch.
    pub producer_epoch: i16,
    /// Abort or commit.
    pub marker_type: MarkerType,
    /// Epoch of the coordinator that wrote it; guards against late coordinators.
    pub coordinator_epoch: i32,
}

impl TransactionMarker {
    /// The marker as a control batch of one record.
    ///
    /// # Panics
    /// Never: an uncompressed batch of one small record can always be built.
    pub fn to_batch(&self, base_offset: i64, leader_epoch: i32, timestamp_ms: i64) -> Vec<u8> {
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        let options = BatchOptions {
            base_offset,
            partition_leader_epoch: leader_epoch,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            transactional: true,
            control: true,
            ..BatchOptions::default()
        };
        build_control(options, ControlType::Marker(self.marker_type), &value, timestamp_ms)
    }

    /// The marker that a control batch holds; None if it holds another kind of control record.
    ///
    /// # Errors
    /// Malformed.
    pub fn parse(batch: &BatchView<'_>) -> Result<Option<Self>, RecordsError> {
        let malformed = |what| RecordsError::Malformed { index: 0, what };
        let payload = batch.decompressed(CONTROL_BYTES_MAX)?;
        let Some(record) = Records::new(&payload, batch.record_count()).next().transpose()? else {
            return Ok(None);
        };
        let key = record.key.ok_or_else(|| malformed("control record without a key"))?;
        let control_type = ControlType::parse(key).ok_or_else(|| malformed("control record key"))?;
        let ControlType::Marker(marker_type) = control_type else {
            return Ok(None);
        };
        let Some(&[v0, v1, e0, e1, e2, e3, ..]) = record.value else {
            return Err(malformed("transaction marker value"));
        };
        if i16::from_be_bytes([v0, v1]) < 0 {
            return Err(malformed("transaction marker version"));
        }
        Ok(Some(Self {
            producer_id: batch.producer_id(),
            producer_epoch: batch.producer_epoch(),
            marker_type,
            coordinator_epoch: i32::from_be_bytes([e0, e1, e2, e3]),
        }))
    }
}

/// Control records are small; more than this in one batch is damage.
const CONTROL_BYTES_MAX: usize = 1 << 20;

/// A leader of the metadata log and who made it leader (Kafka: `LeaderChangeMessage`, version 0).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaderChange {
    /// The new leader.
    pub leader_id: i32,
    /// All voters of the epoch.
    pub voters: Vec<i32>,
    /// Those that voted for the leader.
    pub granting_voters: Vec<i32>,
}

impl LeaderChange {
    /// The note as a control batch of one record.
    ///
    /// # Panics
    /// With 2^32 or more voters.
    pub fn to_batch(&self, base_offset: i64, leader_epoch: i32, timestamp_ms: i64) -> Vec<u8> {
        let mut value = vec![0, 0];
        value.extend_from_slice(&self.leader_id.to_be_bytes());
        for voters in [&self.voters, &self.granting_voters] {
            write_uvarint(u32::try_from(voters.len() + 1).expect("few voters"), &mut value);
            for voter in voters {
                value.extend_from_slice(&voter.to_be_bytes());
                value.push(0); // no tagged fields
            }
        }
        value.push(0);
        let options = BatchOptions {
            base_offset,
            partition_leader_epoch: leader_epoch,
            control: true,
            ..BatchOptions::default()
        };
        build_control(options, ControlType::LeaderChange, &value, timestamp_ms)
    }
}

fn write_uvarint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn build_control(options: BatchOptions, control_type: ControlType, value: &[u8], timestamp_ms: i64) -> Vec<u8> {
    debug_assert_eq!(options.compression, Compression::default());
    let record = NewRecord {
        timestamp_ms,
        key: Some(&control_type.key()),
        value: Some(value),
        headers: &[],
    };
    build_batch(options, [record]).expect("nothing is compressed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_round_trip() {
        for marker_type in [MarkerType::Abort, MarkerType::Commit] {
            let marker = TransactionMarker {
                producer_id: 4000,
                producer_epoch: 3,
                marker_type,
                coordinator_epoch: 12,
            };
            let bytes = marker.to_batch(70, 5, 1_700_000_000_000);
            let batch = BatchView::parse(&bytes).unwrap();
            assert!(batch.is_control() && batch.is_transactional());
            assert_eq!((batch.base_offset(), batch.partition_leader_epoch()), (70, 5));
            assert_eq!((batch.base_sequence(), batch.record_count()), (-1, 1));
            assert_eq!(TransactionMarker::parse(&batch), Ok(Some(marker)));
        }
    }

    #[test]
    fn a_leader_change_is_no_marker() {
        let change = LeaderChange {
            leader_id: 1,
            voters: vec![1, 2],
            granting_voters: vec![2],
        };
        let bytes = change.to_batch(0, 1, 5);
        let batch = BatchView::parse(&bytes).unwrap();
        assert!(batch.is_control() && !batch.is_transactional());
        assert_eq!(TransactionMarker::parse(&batch), Ok(None));
        let record = Records::new(batch.payload(), 1).next().unwrap().unwrap();
        assert_eq!(ControlType::parse(record.key.unwrap()), Some(ControlType::LeaderChange));
        let value = record.value.unwrap();
        assert_eq!(
            value,
            [0, 0, 0, 0, 0, 1, 3, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 2, 0, 0, 0, 2, 0, 0]
        );
    }

    #[test]
    fn short_markers_are_damage() {
        let options = BatchOptions {
            control: true,
            transactional: true,
            ..BatchOptions::default()
        };
        let bytes = build_control(options, ControlType::Marker(MarkerType::Commit), &[0, 0, 0], 5);
        assert!(TransactionMarker::parse(&BatchView::parse(&bytes).unwrap()).is_err());
    }
}
