//! Requests that are cheap to send and dear to serve.

use ottla_core::compression::{Codec, Compression};
use ottla_core::data_plane::rules::ProduceRules;
use ottla_core::storage::config::LogConfig;

use super::support::{Fetch, World, one_record, owed_request, produce, produce_results, produce_to, records};

/// A payload of a few KiB at most that expands to 8 MiB.
fn bomb() -> Vec<u8> {
    let compression = Compression {
        codec: Codec::Zstd,
        level: None,
    };
    let batch = records(&[&vec![0; 8 << 20]], compression);
    assert!(batch.len() < 4096, "{}", batch.len());
    batch
}

fn compressed(value: &[u8]) -> Vec<u8> {
    let compression = Compression {
        codec: Codec::Zstd,
        level: None,
    };
    records(&[value], compression)
}

#[test]
fn a_small_payload_that_expands_far_is_checked_by_a_worker() {
    let mut world = World::new();
    let id = world.create("t", 0);
    let client = world.connect();
    world.send(client, &produce(1, "t", &compressed(b"expands to little")));
    assert_eq!(world.partition(id).offsets().log_end_offset, 1, "at once");
    world.send(
        client,
        &[produce(2, "t", &bomb()), produce(3, "t", &one_record(b"b"))].concat(),
    );
    assert_eq!(
        world.partition(id).offsets().log_end_offset,
        1,
        "neither the bomb nor what is behind it"
    );
    world.settle();
    assert_eq!(world.responses(client).len(), 3);
    assert_eq!(world.partition(id).offsets().log_end_offset, 3);
}

#[test]
fn what_expands_beyond_the_topics_limit_is_refused_by_the_worker() {
    let mut world = World::new();
    let mut rules = ProduceRules::default();
    assert_eq!(rules.set("max.message.bytes", "4096").ok(), Some(true));
    world.create_with("t", 0, LogConfig::default(), rules);
    let client = world.connect();
    let compression = Compression {
        codec: Codec::Zstd,
        level: None,
    };
    let batch = records(&[&vec![0; 65 << 20]], compression);
    world.send(client, &produce(1, "t", &batch[..]));
    world.settle();
    assert_eq!(world.produced(client), Some((1, 10, -1)));
}

#[test]
fn workers_take_turns_between_requests() {
    let mut world = World::new();
    let topics: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
    for topic in &topics {
        world.create(topic, 0);
    }
    let (attacker, other) = (world.connect(), world.connect());
    let bomb = bomb();
    let partitions = [(0, &bomb[..])];
    let bombs: Vec<_> = topics.iter().map(|topic| (topic.as_str(), &partitions[..])).collect();
    world.send(attacker, &produce_to(1, 1, 1000, &bombs));
    world.send(other, &produce(1, "t0", &bomb));
    for _ in 0..2 {
        assert!(world.plane.validator().step());
    }
    world.poll();
    world.dirs[0].step_writer();
    world.poll();
    assert_eq!(
        world.produced(other).map(|(_, code, _)| code),
        Some(0),
        "after one batch of the attacker's, not after twenty"
    );
    assert_eq!(world.produced(attacker), None);
    world.settle();
    let answers = world.responses(attacker);
    let results = produce_results(8, &answers[0].1);
    assert_eq!(results.len(), 20);
    assert!(results.iter().all(|(code, _)| *code == 0), "{results:?}");
}

#[test]
fn many_small_compressed_batches_of_one_request_belong_to_a_worker() {
    let mut world = World::new();
    let topics: Vec<String> = (0..9).map(|n| format!("t{n}")).collect();
    let ids: Vec<_> = topics.iter().map(|topic| world.create(topic, 0)).collect();
    let client = world.connect();
    let batch = compressed(b"small");
    let partitions = [(0, &batch[..])];
    let wanted: Vec<_> = topics.iter().map(|topic| (topic.as_str(), &partitions[..])).collect();
    world.send(client, &produce_to(1, 1, 1000, &wanted[..8]));
    assert_eq!(
        world.partition(ids[0]).offsets().log_end_offset,
        1,
        "eight are checked at once"
    );
    world.send(client, &produce_to(2, 1, 1000, &wanted));
    assert_eq!(world.partition(ids[0]).offsets().log_end_offset, 1, "nine are not");
    world.settle();
    assert!(ids.iter().all(|id| world.partition(*id).offsets().log_end_offset >= 1));
    assert_eq!(world.responses(client).len(), 2);
}

#[test]
fn requests_for_too_many_partitions_end_the_connection() {
    let empty: Vec<(i32, &[u8])> = vec![(0, &[]); 100_000];
    let topics = vec![("t", 0); 50_001]; // each with one partition
    let fetch = Fetch {
        topics: &topics,
        ..Fetch::default()
    };
    for request in [produce_to(1, 1, 1000, &[("t", &empty)]), fetch.request(1)] {
        let mut world = World::new();
        world.create("t", 0);
        let client = world.connect();
        world.send(client, &request);
        assert!(
            world.close_reason(client).contains("above 100000"),
            "{}",
            world.close_reason(client)
        );
    }
}

#[test]
fn a_fetch_with_much_behind_it_does_not_wait() {
    let mut world = World::new();
    world.create("t", 0);
    let client = world.connect();
    let fetch = Fetch {
        topics: &[("t", 0)],
        max_wait_ms: i32::MAX,
        ..Fetch::default()
    };
    world.send(client, &[fetch.request(1), fetch.request(2)].concat());
    let now = world.now();
    world.plane.hurry(client, now);
    assert_eq!(world.fetched(client).map(|fetched| fetched.batches().len()), Some(0));
    world.advance(client);
    assert!(world.plane.next_deadline_ms().is_some(), "the second waits in its turn");
    assert!(world.take(client).is_empty());
}

#[test]
fn a_client_that_takes_no_answers_is_idle_and_one_that_waits_for_them_is_not() {
    let mut world = World::new();
    world.create("t", 0);
    let client = world.connect();
    world.send(client, &owed_request(1));
    assert!(!world.plane.session(client).expect("open").is_idle(), "it waits for us");
    for request in world.owed.remove(&client).unwrap_or_default() {
        let session = world.plane.session(client).expect("open");
        assert!(session.reply(request.request_id, Some(&[0; 100])));
    }
    assert!(world.plane.session(client).expect("open").is_idle(), "we wait for it");
}
