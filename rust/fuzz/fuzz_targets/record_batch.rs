//! What a client produces: a batch that is accepted can be read back whole, with as many records as it says.
//! The checksum is put right, or nothing behind it would ever be reached.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use ottla_core::compression::{Codec, Compression};
use ottla_core::record::batch::{BATCH_OVERHEAD, Batches, TimestampType, stamp_crc};
use ottla_core::record::control::TransactionMarker;
use ottla_core::record::records::Records;
use ottla_core::record::validate::{Origin, TopicCompression, ValidateContext, validate_produce};

const EXPANSION_LIMIT_BYTES: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, batch)) = data.split_first() else {
        return;
    };
    let mut batch = batch.to_vec();
    if batch.len() >= BATCH_OVERHEAD && choice & 0x80 == 0 {
        let length = i32::try_from(batch.len() - 12).expect("libFuzzer's inputs are small");
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[16] = 2;
        stamp_crc(&mut batch);
    }
    for found in Batches::new(&batch).flatten() {
        let _ = found.verify_crc();
        let _ = TransactionMarker::parse(&found);
    }
    let codec = Codec::from_id(choice & 7);
    let context = ValidateContext {
        origin: if choice & 8 == 0 {
            Origin::Client
        } else {
            Origin::Coordinator
        },
        produce_version: if choice & 16 == 0 { 9 } else { 3 },
        wall_ms: 1_700_000_000_000,
        compacted: choice & 32 != 0,
        compression: codec.map_or(TopicCompression::Producer, |codec| {
            TopicCompression::Fixed(Compression { codec, level: None })
        }),
        timestamp_type: if choice & 64 == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        },
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        max_message_bytes: 1 << 20,
        expansion_limit_bytes: EXPANSION_LIMIT_BYTES,
    };
    let Ok(mut accepted) = validate_produce(BytesMut::from(&batch[..]), &context) else {
        return;
    };
    accepted.stamp(7, 3);
    let view = accepted.view();
    view.verify_crc().expect("an accepted batch has its checksum");
    let payload = view
        .decompressed(EXPANSION_LIMIT_BYTES)
        .expect("an accepted batch expands");
    let read = Records::new(&payload, view.record_count()).collect::<Result<Vec<_>, _>>();
    assert_eq!(
        read.expect("accepted records are readable").len(),
        view.record_count() as usize
    );
});
