//! `.txnindex`: the aborted transactions whose abort marker lies in the segment (Kafka: `TransactionIndex`, `AbortedTxn`).

use super::index::{IndexEntries, IndexEntry};

const VERSION: i16 = 0;

/// A row: `version i16, producer_id i64, first_offset i64, last_offset i64, last_stable_offset i64`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbortedTxnRow {
    /// The producer.
    pub producer_id: i64,
    /// First offset of the transaction.
    pub first_offset: i64,
    /// Offset of the abort marker.
    pub last_offset: i64,
    /// The last stable offset once this transaction was over.
    pub last_stable_offset: i64,
}

impl IndexEntry for AbortedTxnRow {
    const SIZE_BYTES: usize = 34;
    const SUFFIX: &'static str = "txnindex";

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&VERSION.to_be_bytes());
        for field in [
            self.producer_id,
            self.first_offset,
            self.last_offset,
            self.last_stable_offset,
        ] {
            out.extend_from_slice(&field.to_be_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Self {
        let field = |number: usize| {
            let start = 2 + number * 8;
            i64::from_be_bytes(bytes[start..start + 8].try_into().expect("eight bytes"))
        };
        Self {
            producer_id: field(0),
            first_offset: field(1),
            last_offset: field(2),
            last_stable_offset: field(3),
        }
    }
}

impl IndexEntries<AbortedTxnRow> {
    /// Whether each row is a transaction that can have ended in a segment that begins at `base_offset`, in this order. A row
    /// of zeros, as a power failure leaves it, is none: a transaction has a record before its marker.
    pub fn is_sane(&self, base_offset: i64) -> bool {
        let mut before = base_offset - 1;
        self.bytes_from(0)
            .chunks_exact(AbortedTxnRow::SIZE_BYTES)
            .all(|row| row[..2] == VERSION.to_be_bytes())
            && self.iter().all(|row| {
                let ascends = row.last_offset > before;
                before = row.last_offset;
                // The last stable offset may be that of an older transaction, still open when this one ended.
                ascends
                    && (0..row.last_offset).contains(&row.first_offset)
                    && (0..=row.last_offset.saturating_add(1)).contains(&row.last_stable_offset)
            })
    }
}
