//! Batches that Kafka's and librdkafka's producers built and Apache Kafka stored (`tests/golden/records/README.md`).
#![allow(missing_docs)]

use ottla_core::compression::{Codec, Compression, EXPANSION_LIMIT_BYTES};
use ottla_core::record::batch::{BatchView, Batches, HeaderFields};
use ottla_core::record::builder::{BatchBuilder, BatchOptions, NewRecord};
use ottla_core::record::control::{MarkerType, TransactionMarker};
use ottla_core::record::records::Records;
use ottla_core::record::scan::Scanner;

macro_rules! segment {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!("../../../tests/golden/records/segments/", $name, ".log")) as &[u8],
        )
    };
}

const SEGMENTS: [(&str, &[u8]); 10] = [
    segment!("java-none"),
    segment!("java-gzip"),
    segment!("java-snappy"),
    segment!("java-lz4"),
    segment!("java-zstd"),
    segment!("kcat-none"),
    segment!("kcat-gzip"),
    segment!("kcat-snappy"),
    segment!("kcat-lz4"),
    segment!("kcat-zstd"),
];
const TRANSACTIONS: (&str, &[u8]) = segment!("java-txn");

fn batches(bytes: &[u8]) -> impl Iterator<Item = BatchView<'_>> {
    Batches::new(bytes).map(|batch| {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        batch
    })
}

#[test]
fn every_record_is_read() {
    for (name, bytes) in SEGMENTS {
        let (client, codec) = name.split_once('-').unwrap();
        let codec = Codec::from_name(codec).unwrap();
        let mut index = 0;
        for batch in batches(bytes) {
            // librdkafka does not compress what compression makes larger
            assert!(
                batch.codec() == Ok(codec) || client == "kcat" && batch.record_count() == 1,
                "{name}"
            );
            let payload = batch.decompressed(EXPANSION_LIMIT_BYTES).unwrap();
            let mut scanner = Scanner::new(batch.base_timestamp(), batch.record_count());
            assert_eq!(scanner.feed(&payload, true), Ok(payload.len()), "{name}");
            let scan = scanner.finish().unwrap();
            assert_eq!(
                (scan.max_timestamp, scan.null_key, scan.offsets_in_order),
                (batch.max_timestamp(), false, true)
            );
            for record in Records::new(&payload, batch.record_count()) {
                let record = record.unwrap();
                let key = format!("key-{}", index % 4);
                let value = format!("value number {index} of the golden records, repeated words words words words");
                let first_header = if client == "java" {
                    format!("a{index}")
                } else {
                    "x".to_owned()
                };
                assert_eq!(record.offset(&batch), index, "{name}");
                assert_eq!(record.key, Some(key.as_bytes()), "{name}");
                assert_eq!(record.value, Some(value.as_bytes()), "{name}");
                assert_eq!(
                    record.headers.iter().next(),
                    Some((&b"h1"[..], Some(first_header.as_bytes()))),
                    "{name}"
                );
                assert!(record.timestamp(&batch) <= batch.max_timestamp(), "{name}");
                index += 1;
            }
        }
        assert_eq!(index, 12, "{name}");
    }
}

/// Builds a batch with the content of `batch`, in another codec if asked.
fn rebuilt(batch: &BatchView<'_>, codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset: batch.base_offset(),
        partition_leader_epoch: batch.partition_leader_epoch(),
        compression: Compression { codec, level: None },
        timestamp_type: batch.timestamp_type(),
        producer_id: batch.producer_id(),
        producer_epoch: batch.producer_epoch(),
        base_sequence: batch.base_sequence(),
        transactional: batch.is_transactional(),
        control: batch.is_control(),
        delete_horizon_ms: batch.delete_horizon_ms(),
    })
    .unwrap();
    let payload = batch.decompressed(EXPANSION_LIMIT_BYTES).unwrap();
    for record in Records::new(&payload, batch.record_count()) {
        let record = record.unwrap();
        let headers: Vec<_> = record.headers.iter().collect();
        let timestamp_ms = record.timestamp(batch);
        builder
            .append(&NewRecord {
                timestamp_ms,
                key: record.key,
                value: record.value,
                headers: &headers,
            })
            .unwrap();
    }
    builder.finish().unwrap()
}

#[test]
fn uncompressed_batches_are_built_byte_for_byte() {
    let transactions = [TRANSACTIONS];
    for (name, bytes) in SEGMENTS
        .iter()
        .filter(|(name, _)| name.ends_with("none"))
        .chain(&transactions)
    {
        for batch in batches(bytes) {
            assert!(rebuilt(&batch, Codec::None) == batch.bytes(), "{name} {batch:?}");
        }
    }
}

#[test]
fn batches_keep_their_content_through_every_codec() {
    for (name, bytes) in SEGMENTS {
        for (batch, codec) in batches(bytes).flat_map(|batch| Codec::ALL.map(|codec| (batch, codec))) {
            let again = rebuilt(&batch, codec);
            let again = BatchView::parse(&again).unwrap();
            again.verify_crc().unwrap();
            let payload = |batch: &BatchView<'_>| batch.decompressed(EXPANSION_LIMIT_BYTES).unwrap().into_owned();
            assert!(payload(&again) == payload(&batch), "{name} in {codec:?}");
            assert_eq!(
                HeaderFields {
                    codec,
                    ..HeaderFields::of(&batch).unwrap()
                },
                HeaderFields::of(&again).unwrap()
            );
        }
    }
}

#[test]
fn transaction_markers_are_built_byte_for_byte() {
    let mut markers = 0;
    for batch in batches(TRANSACTIONS.1) {
        assert!(batch.is_transactional());
        if !batch.is_control() {
            continue;
        }
        let marker = TransactionMarker::parse(&batch).unwrap().unwrap();
        assert_eq!(marker.marker_type, MarkerType::Commit);
        let ours = marker.to_batch(
            batch.base_offset(),
            batch.partition_leader_epoch(),
            batch.max_timestamp(),
        );
        assert!(ours == batch.bytes(), "{batch:?}");
        markers += 1;
    }
    assert!(markers > 0);
}
