//! Produce-time validation over arbitrary bytes, and what the table of Kafka's answers (`produce_checks.rs`) cannot show.
#![allow(missing_docs)]

use bytes::BytesMut;
use ottla_core::compression::{Codec, Compression, EXPANSION_LIMIT_BYTES};
use ottla_core::record::batch::{TimestampType, stamp_crc};
use ottla_core::record::builder::{BatchOptions, NewRecord, build_batch};
use ottla_core::record::control::{MarkerType, TransactionMarker};
use ottla_core::record::records::Records;
use ottla_core::record::validate::{Origin, TopicCompression, ValidateContext, validate_produce};
use proptest::prelude::*;

const MESSAGE_TOO_LARGE: i16 = 10;
const INVALID_RECORD: i16 = 87;

const NOW_MS: i64 = 1_700_000_000_000;

fn context() -> ValidateContext {
    ValidateContext {
        origin: Origin::Client,
        produce_version: 13,
        wall_ms: NOW_MS,
        compacted: false,
        compression: TopicCompression::Producer,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        max_message_bytes: 1 << 20,
        expansion_limit_bytes: 1 << 20,
    }
}

fn batch(codec: Codec, records: i64) -> Vec<u8> {
    let options = BatchOptions {
        compression: Compression { codec, level: None },
        ..BatchOptions::default()
    };
    let value = b"a value that is worth compressing, worth compressing".repeat(3);
    let record = |index| NewRecord {
        timestamp_ms: NOW_MS + index,
        key: Some(b"key"),
        value: Some(&value),
        headers: &[(b"header", Some(b"value"))],
    };
    build_batch(options, (0..records).map(record)).unwrap()
}

fn fixed(codec: Codec) -> TopicCompression {
    TopicCompression::Fixed(Compression { codec, level: None })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_what_passes_is_readable(
        codec in proptest::sample::select(&Codec::ALL[..]),
        topic_codec in proptest::option::of(proptest::sample::select(&Codec::ALL[..])),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        crc_right in any::<bool>(),
    ) {
        let mut bytes = batch(codec, 5);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if crc_right {
            stamp_crc(&mut bytes);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        let compression = topic_codec.map_or(TopicCompression::Producer, fixed);
        let result = validate_produce(BytesMut::from(&bytes[..]), &ValidateContext { compression, ..context() });
        if let Ok(valid) = result {
            let view = valid.view();
            prop_assert_eq!(view.verify_crc(), Ok(()));
            let payload = view.decompressed(EXPANSION_LIMIT_BYTES).unwrap();
            for (index, record) in (0..).zip(Records::new(&payload, view.record_count())) {
                prop_assert_eq!(record.unwrap().offset_delta, index);
            }
        }
    }
}

#[test]
fn bytes_are_kept_where_the_codec_is() {
    for codec in Codec::ALL {
        let sent = batch(codec, 3);
        let bytes = BytesMut::from(&sent[..]);
        let address = bytes.as_ptr();
        let mut valid = validate_produce(bytes, &context()).unwrap();
        valid.stamp(77, 5);
        assert_eq!(
            (valid.view().base_offset(), valid.view().partition_leader_epoch()),
            (77, 5)
        );
        let kept = valid.into_bytes();
        assert_eq!(kept.as_ptr(), address);
        assert_eq!(kept[16..], sent[16..]);
    }
}

#[test]
fn a_thousand_bad_records_are_named_and_all_are_counted() {
    let records = (0..5000).map(|_| NewRecord {
        timestamp_ms: NOW_MS + 7_200_000,
        ..NewRecord::default()
    });
    let batch = build_batch(BatchOptions::default(), records).unwrap();
    let rejection = validate_produce(BytesMut::from(&batch[..]), &context()).unwrap_err();
    assert_eq!(
        rejection.message,
        "5000 of 5000 records rejected: timestamps out of range"
    );
    let named: Vec<_> = rejection.record_errors.iter().map(|(index, _)| *index).collect();
    assert_eq!(named, (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_bomb_is_too_large() {
    let zeros = vec![0; 2 << 20];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let options = BatchOptions {
            compression: Compression { codec, level: None },
            ..BatchOptions::default()
        };
        let bomb = build_batch(
            options,
            [NewRecord {
                timestamp_ms: NOW_MS,
                value: Some(&zeros),
                ..NewRecord::default()
            }],
        );
        let rejection = validate_produce(BytesMut::from(&bomb.unwrap()[..]), &context()).unwrap_err();
        assert_eq!(rejection.code, MESSAGE_TOO_LARGE, "{rejection:?}");
    }
}

#[test]
fn coordinators_may_write_control_batches_and_any_base_offset() {
    let marker = TransactionMarker {
        producer_id: 1,
        producer_epoch: 0,
        marker_type: MarkerType::Abort,
        coordinator_epoch: 4,
    };
    let bytes = marker.to_batch(9, -1, NOW_MS);
    let compacting = ValidateContext {
        compacted: true,
        compression: fixed(Codec::Gzip),
        origin: Origin::Coordinator,
        ..context()
    };
    let valid = validate_produce(BytesMut::from(&bytes[..]), &compacting).unwrap();
    assert_eq!(TransactionMarker::parse(&valid.view()), Ok(Some(marker)));
    let as_client = ValidateContext {
        origin: Origin::Client,
        ..compacting
    };
    assert_eq!(
        validate_produce(BytesMut::from(&bytes[..]), &as_client)
            .unwrap_err()
            .code,
        INVALID_RECORD
    );
}

#[test]
fn the_level_of_the_topic_is_used() {
    let sent = batch(Codec::None, 200);
    let stored_bytes = |level| {
        let compression = TopicCompression::Fixed(Compression {
            codec: Codec::Zstd,
            level: Some(level),
        });
        let context = ValidateContext {
            compression,
            ..context()
        };
        validate_produce(BytesMut::from(&sent[..]), &context)
            .unwrap()
            .size_bytes()
    };
    assert!(stored_bytes(19) < stored_bytes(-50));
}
