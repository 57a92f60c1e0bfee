//! Produce: acknowledgements, refusals, order.

use ottla_core::compression::{Codec, Compression};
use ottla_core::data_plane::Options;
use ottla_core::data_plane::rules::ProduceRules;
use ottla_core::storage::config::LogConfig;

use super::support::{Fetch, World, one_record, owed_request, produce, produce_result, produce_to, records};

#[test]
fn an_append_is_acknowledged_when_it_is_written() {
    for acks in [1, -1] {
        let mut world = World::new();
        let id = world.create("t", 0);
        let client = world.connect();
        world.send(client, &produce_to(7, acks, 1000, &[("t", &[(0, &one_record(b"a"))])]));
        assert_eq!(world.produced(client), None, "not written yet");
        assert_eq!(world.partition(id).offsets().log_end_offset, 1);
        world.settle();
        assert_eq!(world.produced(client), Some((7, 0, 0)));
        assert_eq!(world.plane.next_deadline_ms(), None);
    }
}

#[test]
fn acks_0_has_no_response_and_an_error_closes_the_connection() {
    let mut world = World::new();
    let id = world.create("t", 0);
    let client = world.connect();
    let good = one_record(b"a");
    world.send(client, &produce_to(1, 0, 1000, &[("t", &[(0, &good)])]));
    world.send(client, &owed_request(2));
    assert_eq!(world.owed[&client].len(), 1, "nothing stands before it");
    world.settle();
    assert_eq!(
        (world.take(client), world.partition(id).offsets().high_watermark),
        (Vec::new(), 1)
    );
    let other = world.connect();
    world.send(other, &produce_to(1, 0, 1000, &[("absent", &[(0, &good)])]));
    assert_eq!(
        world.close_reason(other),
        "produce with acks=0 to absent-0 failed: error 3 "
    );
    assert!(world.plane.session(other).expect("open").is_finished());
}

#[test]
fn whole_requests_are_refused_with_kafkas_codes() {
    let mut world = World::new();
    world.create("t", 0);
    world.create("__consumer_offsets", 0);
    let client = world.connect();
    let good = one_record(b"a");
    let mut bad_crc = good.clone();
    bad_crc[17] ^= 1;
    let cases: [(&str, i16, &[u8], i16); 6] = [
        ("t", 2, &good, 21),
        ("t", -2, &good, 21),
        ("absent", -1, &good, 3),
        ("__consumer_offsets", -1, &good, 17),
        ("t", -1, &bad_crc, 2),
        ("t", -1, &[], 87),
    ];
    for (topic, acks, records, code) in cases {
        world.send(client, &produce_to(1, acks, 1000, &[(topic, &[(0, records)])]));
        assert_eq!(world.produced(client), Some((1, code, -1)), "{topic} acks={acks}");
    }
}

#[test]
fn one_partition_refused_does_not_keep_others_out() {
    let mut world = World::new();
    let id = world.create("t", 0);
    let client = world.connect();
    let good = one_record(b"a");
    world.send(
        client,
        &produce_to(
            1,
            -1,
            1000,
            &[("absent", &[(0, &good)]), ("t", &[(0, &good), (9, &good)])],
        ),
    );
    world.settle();
    let (_, body) = world.responses(client).remove(0);
    assert_eq!(produce_result(&body), (3, -1));
    assert_eq!(world.partition(id).offsets().high_watermark, 1);
}

#[test]
fn a_partition_named_twice_takes_the_last_records_once() {
    let mut world = World::new();
    let id = world.create("t", 0);
    let client = world.connect();
    let (one, two) = (one_record(b"a"), records(&[b"b", b"c"], Compression::default()));
    world.send(client, &produce_to(1, -1, 1000, &[("t", &[(0, &one), (0, &two)])]));
    world.settle();
    assert_eq!(world.produced(client), Some((1, 0, 0)));
    assert_eq!(world.partition(id).offsets().high_watermark, 2);
}

#[test]
fn pipelined_requests_keep_their_order_and_do_not_wait_for_one_another() {
    let mut world = World::new();
    let id = world.create("t", 0);
    let client = world.connect();
    let requests: Vec<u8> = (0..5).flat_map(|n| produce(n, "t", &one_record(b"a"))).collect();
    world.send(client, &requests);
    assert_eq!(world.partition(id).offsets().log_end_offset, 5, "all are in the tail");
    world.settle();
    let answers = world
        .responses(client)
        .into_iter()
        .map(|(id, body)| (id, produce_result(&body)));
    assert_eq!(
        answers.collect::<Vec<_>>(),
        (0..5).map(|n| (n, (0, i64::from(n)))).collect::<Vec<_>>()
    );
}

#[test]
fn what_stands_behind_a_produce_sees_it() {
    let mut world = World::new();
    world.create("t", 0);
    let client = world.connect();
    let fetch = Fetch {
        topics: &[("t", 0)],
        max_wait_ms: 0,
        ..Fetch::default()
    };
    world.send(
        client,
        &[produce(1, "t", &one_record(b"a")), fetch.request(2), owed_request(3)].concat(),
    );
    assert!(world.owed[&client].is_empty());
    world.settle();
    let responses = world.responses(client);
    assert_eq!(responses.len(), 2);
    assert_eq!(super::support::fetch_result(&responses[1].1).batches(), [0]);
    assert_eq!(world.owed[&client].len(), 1);
}

#[test]
fn the_timeout_ends_the_wait_but_not_before_a_second() {
    for (timeout_ms, wait_ms) in [(30_000, 30_000), (0, 1000), (-5, 1000)] {
        let mut world = World::new();
        let id = world.create("t", 0);
        let client = world.connect();
        world.send(
            client,
            &produce_to(1, -1, timeout_ms, &[("t", &[(0, &one_record(b"a"))])]),
        );
        assert_eq!(world.plane.next_deadline_ms(), Some(world.now_ms + wait_ms));
        world.wait(wait_ms - 1);
        assert_eq!(world.produced(client), None);
        world.wait(1);
        assert_eq!(
            world.produced(client),
            Some((1, 7, 0)),
            "REQUEST_TIMED_OUT; the records may still be written"
        );
        world.settle();
        assert_eq!(
            (world.produced(client), world.partition(id).offsets().high_watermark),
            (None, 1)
        );
    }
}

#[test]
fn a_full_tail_makes_producers_wait_and_nobody_else() {
    let mut world = World::with(
        2,
        Options {
            tail_max_bytes: 1000,
            ..Options::default()
        },
    );
    world.create("full", 0);
    world.create("free", 1);
    let (client, other) = (world.connect(), world.connect());
    let large = one_record(&[7; 1200]);
    world.send(
        client,
        &[produce(1, "full", &large), produce(2, "full", &large), owed_request(3)].concat(),
    );
    let session = world.plane.session(client).expect("open");
    assert!(session.is_held() && !session.wants_input(1 << 20));
    assert_eq!(world.plane.metrics().stalls, 1);
    world.send(other, &[produce(1, "free", &large), owed_request(2)].concat());
    world.dirs[1].step_writer();
    world.poll();
    assert_eq!(world.produced(other), Some((1, 0, 0)), "another directory");
    assert_eq!(world.owed[&other].len(), 1);
    world.settle();
    assert_eq!(world.responses(client).len(), 2);
    assert_eq!(world.owed[&client].len(), 1);
    assert!(world.plane.session(client).expect("open").wants_input(1 << 20));
}

#[test]
fn a_connection_that_closes_while_it_waits_for_room_is_forgotten() {
    let mut world = World::with(
        1,
        Options {
            tail_max_bytes: 10,
            ..Options::default()
        },
    );
    let id = world.create("t", 0);
    let (first, second) = (world.connect(), world.connect());
    world.send(first, &produce(1, "t", &one_record(b"a")));
    world.send(second, &produce(1, "t", &one_record(b"b")));
    world.plane.close_session(second);
    world.plane.close_session(first);
    assert_eq!(world.plane.next_deadline_ms(), None);
    world.settle();
    assert_eq!(
        world.partition(id).offsets().high_watermark,
        1,
        "what was in the tail is written"
    );
}

/// A batch large enough for the worker, of bytes that do not compress.
fn deep() -> Vec<u8> {
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(40_000)
    .collect();
    records(
        &[&noise],
        Compression {
            codec: Codec::Gzip,
            level: None,
        },
    )
}

#[test]
fn large_compressed_batches_are_checked_by_a_worker_in_the_order_of_the_connection() {
    let mut world = World::new();
    let id = world.create("t", 0);
    let (client, other) = (world.connect(), world.connect());
    let deep = deep();
    world.send(
        client,
        &[produce(1, "t", &deep), produce(2, "t", &one_record(b"b"))].concat(),
    );
    assert_eq!(
        world.partition(id).offsets().log_end_offset,
        0,
        "the second waits for the check of the first"
    );
    world.send(other, &produce(1, "t", &one_record(b"c")));
    assert_eq!(
        world.partition(id).offsets().log_end_offset,
        1,
        "other connections go on"
    );
    world.settle();
    let answers: Vec<_> = world
        .responses(client)
        .iter()
        .map(|(_, body)| produce_result(body))
        .collect();
    assert_eq!(answers, [(0, 1), (0, 2)]);
}

#[test]
fn records_sent_with_acks_0_before_the_client_left_are_kept() {
    let mut world = World::new();
    let id = world.create("t", 0);
    let client = world.connect();
    let deep = deep();
    let requests = [deep, one_record(b"b")].map(|records| produce_to(1, 0, 1000, &[("t", &[(0, &records)])]));
    world.send(client, &requests.concat());
    world.plane.on_end_of_input(client);
    assert!(!world.plane.session(client).expect("open").is_finished());
    world.settle();
    assert!(world.plane.session(client).expect("open").is_finished());
    assert_eq!(world.partition(id).offsets().high_watermark, 2);
}

#[test]
fn transactional_records_need_a_transactional_id() {
    let mut world = World::new();
    world.create("t", 0);
    let client = world.connect();
    let mut transactional = one_record(b"a");
    transactional[22] |= 0x10;
    transactional[43..51].copy_from_slice(&5_i64.to_be_bytes());
    transactional[51..53].copy_from_slice(&0_i16.to_be_bytes());
    transactional[53..57].copy_from_slice(&0_i32.to_be_bytes());
    ottla_core::record::batch::stamp_crc(&mut transactional);
    world.send(client, &produce(1, "t", &transactional));
    assert_eq!(
        world.produced(client),
        Some((1, 53, -1)),
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"
    );
}

#[test]
fn a_topics_rules_hold_for_its_records() {
    let mut world = World::new();
    let mut rules = ProduceRules::default();
    for (key, value) in [
        ("max.message.bytes", "100"),
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
    ] {
        rules.set(key, value).expect("a good value");
    }
    let id = world.create_with("t", 0, LogConfig::default(), rules);
    let client = world.connect();
    world.send(client, &produce(1, "t", &one_record(&[1; 100])));
    assert_eq!(world.produced(client), Some((1, 10, -1)), "MESSAGE_TOO_LARGE");
    world.send(client, &produce(2, "t", &one_record(b"a")));
    assert_eq!(world.produced(client), Some((2, 87, -1)), "INVALID_RECORD: no key");
    world.plane.configure(id, LogConfig::default(), ProduceRules::default());
    world.send(client, &produce(3, "t", &one_record(&[1; 100])));
    world.settle();
    assert_eq!(world.produced(client), Some((3, 0, 0)));
}
