use super::*;
use crate::record::batch::BatchView;
use crate::record::builder::{BatchOptions, NewRecord, build_batch};
use crate::record::records::Records;
use crate::wire::Reader;

const PARTITION: u64 = 3;

/// A batch of two records, each with a number and the time in its value, at a moment.
fn batch(numbers: [i64; 2], wall_ms: i64) -> Vec<u8> {
    let values = numbers.map(|number| {
        [
            b"v".as_slice(),
            &number.to_be_bytes(),
            b"text",
            &wall_ms.to_be_bytes(),
            b"!",
        ]
        .concat()
    });
    let records = values.iter().map(|value| NewRecord {
        timestamp_ms: wall_ms,
        key: Some(b"key"),
        value: Some(value),
        ..NewRecord::default()
    });
    build_batch(BatchOptions::default(), records).expect("small")
}

fn position(batch: &[u8], number: i64) -> usize {
    let bytes = number.to_be_bytes();
    let found = batch.windows(8).position(|window| window == bytes);
    found.expect("the number")
}

/// A request: text, a number, text, a number.
fn body(numbers: [i64; 2]) -> Vec<u8> {
    [
        b"head".as_slice(),
        &numbers[0].to_be_bytes(),
        b"middle",
        &numbers[1].to_be_bytes(),
    ]
    .concat()
}

fn example() -> Example {
    let (first, second, clock) = (0x1111_1111_1111_1111, 0x2222_2222_2222_2222, 0x0333_3333_3333_3333);
    let batch = batch([first, second], clock);
    let clocks = (0..batch.len() - 7).filter(|at| batch[*at..*at + 8] == clock.to_be_bytes());
    Example {
        api_key: 8,
        api_version: 7,
        client_id: Some("c".to_owned()),
        body: body([first, second]),
        response: vec![0xaa, 0xbb],
        holes: vec![
            Hole {
                request_at: 4,
                batch_at: position(&batch, first),
                size_bytes: 8,
            },
            Hole {
                request_at: 18,
                batch_at: position(&batch, second),
                size_bytes: 8,
            },
        ],
        clocks: clocks.collect(),
        batch,
    }
}

fn of(example: Example) -> Result<StandingWrite, BadExample> {
    StandingWrite::new(9, PartitionId(PARTITION), 0, 5_000, example)
}

fn standing() -> StandingWrite {
    of(example()).expect("a good example")
}

fn is_for(write: &StandingWrite, header: &[u8], body: &[u8]) -> bool {
    let header = RequestHeader::read(&mut Reader::new(header)).expect("a header");
    write.is_for(&header, body)
}

const HEADER: [u8; 11] = [0, 8, 0, 7, 0, 0, 0, 1, 0, 1, b'c'];

#[test]
fn what_differs_in_the_holes_alone_is_the_same() {
    let write = standing();
    for numbers in [[0, 0], [i64::MIN, -1], [i64::MAX, 77]] {
        assert!(is_for(&write, &HEADER, &body(numbers)), "{numbers:?}");
    }
}

#[test]
fn what_differs_elsewhere_is_not() {
    let write = standing();
    let good = body([1, 2]);
    for at in (0..good.len()).filter(|at| !(4..12).contains(at) && *at < 18) {
        let mut other = good.clone();
        other[at] ^= 1;
        assert!(!is_for(&write, &HEADER, &other), "byte {at}");
    }
    assert!(!is_for(&write, &HEADER, &good[..good.len() - 1]));
    assert!(!is_for(&write, &HEADER, &[&good[..], b"x"].concat()));
    assert!(!is_for(&write, &HEADER, b""));
    for (at, other) in [(1, 17), (3, 6), (10, b'd')] {
        let mut header = HEADER;
        header[at] = other;
        assert!(!is_for(&write, &header, &good), "byte {at} of the header");
    }
}

#[test]
fn the_batch_is_the_one_that_would_have_been_built() {
    let write = standing();
    for (numbers, wall_ms) in [
        ([1, 2], 1_750_000_000_000),
        ([-1, i64::MIN], 1),
        ([i64::MAX, 0], i64::MAX),
    ] {
        let made = write.batch(&write.said(&body(numbers)), wall_ms);
        assert_eq!(made, batch(numbers, wall_ms));
        let view = BatchView::parse(&made).expect("a batch");
        view.verify_crc().expect("its own checksum");
        assert_eq!((view.base_timestamp(), view.max_timestamp()), (wall_ms, wall_ms));
        let values: Vec<_> = Records::new(view.payload(), view.record_count())
            .map(|record| record.expect("a record").value.expect("a value").to_vec())
            .collect();
        assert_eq!(values[0][1..9], numbers[0].to_be_bytes());
        assert_eq!(values[1][1..9], numbers[1].to_be_bytes());
    }
}

#[test]
fn the_answer_has_the_correlation_id_of_each_request() {
    assert_eq!(standing().frame(7), [0, 0, 0, 6, 0, 0, 0, 7, 0xaa, 0xbb]);
}

#[test]
fn an_example_that_says_nothing_is_refused() {
    let with = |change: &dyn Fn(&mut Example)| {
        let mut example = example();
        change(&mut example);
        of(example).expect_err("refused")
    };
    assert_eq!(with(&|e| e.batch.truncate(60)), BadExample::Batch);
    assert_eq!(with(&|e| e.batch.push(0)), BadExample::Batch);
    assert_eq!(with(&|e| e.batch.clear()), BadExample::Batch);
    assert_eq!(with(&|e| e.holes[1].request_at = 11), BadExample::RequestHoles);
    assert_eq!(with(&|e| e.holes[1].request_at = 19), BadExample::RequestHoles);
    assert_eq!(with(&|e| e.holes[1].request_at = usize::MAX), BadExample::RequestHoles);
    assert_eq!(with(&|e| e.holes[0].size_bytes = usize::MAX), BadExample::RequestHoles);
    assert_eq!(with(&|e| e.holes.swap(0, 1)), BadExample::RequestHoles);
    assert_eq!(
        with(&|e| e.holes[0].batch_at = e.batch.len() - 7),
        BadExample::BatchHoles
    );
    assert_eq!(with(&|e| e.holes[0].batch_at = usize::MAX), BadExample::BatchHoles);
    assert_eq!(with(&|e| e.holes[0].batch_at = 0), BadExample::BatchHoles);
    assert_eq!(with(&|e| e.clocks.push(e.batch.len() - 7)), BadExample::BatchHoles);
    assert_eq!(with(&|e| e.clocks.push(17)), BadExample::BatchHoles);
}
