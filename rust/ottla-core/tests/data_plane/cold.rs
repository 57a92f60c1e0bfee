//! Fetches of what is not in memory: whoever serves the connections never waits for a disk.

use ottla_core::data_plane::SessionId;
use ottla_core::data_plane::rules::ProduceRules;
use ottla_core::record::builder::{BatchOptions, NewRecord, build_batch};
use ottla_core::record::control::{MarkerType, TransactionMarker};
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::sim_fs::{Effect, Operation};

use super::support::{Fetch, WALL_MS, World, one_record, produce, produce_in};

/// Of a fetch that has nothing else.
const LOOKUP_WAIT_MS: i64 = 5000;
/// Of one that has.
const REST_WAIT_MS: i64 = 50;

/// Two directories with a topic of three batches in each, `a` and `b`, and nothing of them in memory.
fn chilled() -> (World, SessionId) {
    let mut world = World::with(2, ottla_core::data_plane::Options::default());
    let config = LogConfig {
        segment_bytes: 150, // two batches
        ..LogConfig::default()
    };
    world.create_with("a", 0, config.clone(), ProduceRules::default());
    world.create_with("b", 1, config, ProduceRules::default());
    let client = world.connect();
    for topic in ["a", "b"] {
        for n in 0..3 {
            world.send(client, &produce(n, topic, &one_record(b"v")));
            world.settle();
        }
    }
    world.take(client);
    world.fs.chill();
    (world, client)
}

fn fetch(topics: &[(&str, i64)]) -> Vec<u8> {
    let fetch = Fetch {
        topics,
        ..Fetch::default()
    };
    fetch.request(1)
}

/// The base offsets of what came of each topic.
fn fetched(world: &mut World, client: SessionId) -> Option<Vec<(String, Vec<i64>)>> {
    let fetched = world.fetched(client)?;
    let partitions = fetched.partitions.into_iter();
    let named = partitions.map(|partition| {
        assert_eq!(partition.error_code, 0, "{partition:?}");
        (partition.topic, partition.batches)
    });
    Some(named.collect())
}

fn of(topics: &[(&str, &[i64])]) -> Vec<(String, Vec<i64>)> {
    let owned = topics
        .iter()
        .map(|(topic, batches)| ((*topic).to_owned(), batches.to_vec()));
    owned.collect()
}

#[test]
fn what_is_not_in_memory_is_looked_up_by_the_readers_of_its_directory() {
    for max_wait_ms in [0, 500] {
        let (mut world, client) = chilled();
        let request = Fetch {
            topics: &[("a", 0), ("b", 0)],
            max_wait_ms,
            ..Fetch::default()
        };
        let before = world.fs.visits();
        world.send(client, &request.request(1));
        world.poll();
        assert_eq!(fetched(&mut world, client), None);
        assert_eq!(world.fs.visits(), before, "who serves the connections was at the disk");
        assert!(world.dirs[0].readers().step());
        world.poll();
        assert!(world.fs.visits() > before);
        // What comes first is not held up by the other disk for long.
        assert_eq!(fetched(&mut world, client), None);
        world.wait(REST_WAIT_MS);
        assert_eq!(fetched(&mut world, client), Some(of(&[("a", &[0, 1]), ("b", &[])])));
        world.send(client, &request.request(2));
        world.settle();
        assert_eq!(fetched(&mut world, client), Some(of(&[("a", &[0, 1]), ("b", &[0, 1])])));
        let before = world.fs.visits();
        world.send(client, &request.request(3));
        assert_eq!(fetched(&mut world, client), Some(of(&[("a", &[0, 1]), ("b", &[0, 1])])));
        assert_eq!(world.fs.visits(), before);
    }
}

#[test]
fn what_is_in_memory_hardly_waits_for_a_disk() {
    let (mut world, client) = chilled();
    world.send(client, &fetch(&[("b", 0)]));
    world.settle();
    assert_eq!(fetched(&mut world, client), Some(of(&[("b", &[0, 1])])));
    for _ in 0..100 {
        world.send(client, &fetch(&[("a", 0), ("b", 0)]));
        world.wait(REST_WAIT_MS - 1);
        assert_eq!(fetched(&mut world, client), None);
        world.wait(1);
        assert_eq!(fetched(&mut world, client), Some(of(&[("a", &[]), ("b", &[0, 1])])));
    }
    // One lookup for all of these, after which the records come, too.
    assert!(world.dirs[0].readers().step());
    assert!(!world.dirs[0].readers().step());
    world.poll();
    world.send(client, &fetch(&[("a", 0), ("b", 0)]));
    assert_eq!(fetched(&mut world, client), Some(of(&[("a", &[0, 1]), ("b", &[0, 1])])));
}

#[test]
fn new_records_come_beside_a_disk_that_does_not_answer() {
    let (mut world, consumer) = chilled();
    let producer = world.connect();
    world.send(consumer, &fetch(&[("a", 0), ("b", 3)]));
    world.send(producer, &produce(1, "a", &one_record(b"v")));
    world.dirs[0].step_writer();
    world.poll();
    // More of what must be looked up is no news of it.
    assert_eq!(fetched(&mut world, consumer), None);
    world.send(producer, &produce(2, "b", &one_record(b"v")));
    world.dirs[1].step_writer();
    world.poll();
    world.wait(REST_WAIT_MS - 1);
    assert_eq!(fetched(&mut world, consumer), None);
    world.wait(1);
    assert_eq!(fetched(&mut world, consumer), Some(of(&[("a", &[]), ("b", &[3])])));
}

#[test]
fn a_fetch_waits_for_its_disk_for_some_seconds_and_the_next_one_goes_on_with_it() {
    let (mut world, client) = chilled();
    world.send(client, &fetch(&[("a", 0)]));
    world.wait(LOOKUP_WAIT_MS - 1);
    assert_eq!(fetched(&mut world, client), None);
    world.wait(1);
    assert_eq!(fetched(&mut world, client), Some(of(&[("a", &[])])));
    world.send(client, &fetch(&[("a", 0)]));
    assert!(world.dirs[0].readers().step());
    assert!(!world.dirs[0].readers().step());
    world.poll();
    assert_eq!(fetched(&mut world, client), Some(of(&[("a", &[0, 1])])));
}

#[test]
fn a_fetch_gets_what_was_looked_up_for_it_even_if_it_is_forgotten_again() {
    let (mut world, client) = chilled();
    world.send(client, &fetch(&[("a", 0)]));
    assert!(world.dirs[0].readers().step());
    world.fs.chill();
    let before = world.fs.visits();
    world.poll();
    assert_eq!(world.fs.visits(), before);
    assert_eq!(fetched(&mut world, client), Some(of(&[("a", &[0, 1])])));
}

#[test]
fn a_lookup_that_fails_is_an_error_and_the_next_fetch_tries_again() {
    let (mut world, client) = chilled();
    world.inject(".log", Operation::Read, Effect::Fails(5), 1);
    world.send(client, &fetch(&[("a", 0)]));
    world.settle();
    assert_eq!(world.fetched(client).expect("an answer").error(), 56);
    world.send(client, &fetch(&[("a", 0)]));
    world.settle();
    assert_eq!(fetched(&mut world, client), Some(of(&[("a", &[0, 1])])));
}

#[test]
fn who_leaves_while_it_is_looked_up_is_forgotten() {
    let (mut world, client) = chilled();
    world.send(client, &fetch(&[("a", 0)]));
    world.plane.close_session(client);
    world.settle();
    assert_eq!(world.plane.next_deadline_ms(), None);
    let client = world.connect();
    world.send(client, &fetch(&[("a", 0)]));
    assert_eq!(fetched(&mut world, client), Some(of(&[("a", &[0, 1])])));
}

#[test]
fn a_partition_that_goes_away_meanwhile_is_answered_for() {
    let (mut world, client) = chilled();
    let (id, now) = (world.plane.find("a", 0).expect("served").0, world.now());
    world.send(client, &fetch(&[("a", 0)]));
    world.plane.stop_serving(id, now);
    assert_ne!(world.fetched(client).expect("at once").error(), 0);
    world.settle();
    assert_eq!(fetched(&mut world, client), None);
}

#[test]
fn min_bytes_are_waited_for_beyond_what_was_looked_up() {
    let (mut world, consumer) = chilled();
    let producer = world.connect();
    let batch_bytes = one_record(b"v").len() as i32;
    let request = Fetch {
        topics: &[("a", 2)],
        min_bytes: 2 * batch_bytes,
        ..Fetch::default()
    };
    world.send(consumer, &request.request(1));
    world.settle();
    assert_eq!(fetched(&mut world, consumer), None);
    world.send(producer, &produce(1, "a", &one_record(b"v")));
    world.settle();
    assert_eq!(fetched(&mut world, consumer), Some(of(&[("a", &[2, 3])])));
}

#[test]
fn aborted_transactions_in_files_hold_up_nothing_for_good() {
    let (mut world, client) = chilled();
    let id = world.plane.find("a", 0).expect("served").0;
    world.plane.verify_transactions(false);
    for sequence in 0..2 {
        let options = BatchOptions {
            producer_id: 7,
            producer_epoch: 0,
            base_sequence: sequence,
            transactional: true,
            ..BatchOptions::default()
        };
        let record = NewRecord {
            timestamp_ms: WALL_MS,
            value: Some(b"v"),
            ..NewRecord::default()
        };
        let batch = build_batch(options, [record]).expect("small");
        world.send(client, &produce_in(8, sequence, Some("tx"), &[("a", &batch)]));
        world.settle();
        let marker = TransactionMarker {
            producer_id: 7,
            producer_epoch: 0,
            marker_type: MarkerType::Abort,
            coordinator_epoch: 0,
        };
        let partition = world.partition(id);
        partition.append_marker(&marker, 0, None, WALL_MS).expect("a marker");
        world.settle();
    }
    // More than one segment, so that the rows of the first are in a file alone.
    for n in 0..4 {
        world.send(client, &produce(n, "a", &one_record(b"v")));
        world.settle();
    }
    world.take(client);
    let request = Fetch {
        topics: &[("a", 2), ("b", 0)],
        committed: true,
        ..Fetch::default()
    };
    // Each time the rows are read anew, beside another partition that always has something.
    for n in 0..3 {
        world.send(client, &request.request(n));
        world.settle();
        let fetched = world.fetched(client).expect("an answer");
        let rows = |index: usize| fetched.partitions[index].aborted.as_ref().map(Vec::len);
        assert_eq!((rows(0), rows(1)), (Some(1), Some(0)), "of what was read");
        assert!(fetched.partitions.iter().all(|partition| !partition.batches.is_empty()));
    }
}

#[test]
fn once_it_is_looked_up_a_fetch_waits_as_long_as_it_says() {
    for max_wait_ms in [0, 300] {
        let (mut world, client) = chilled();
        let request = Fetch {
            topics: &[("a", 2)],
            min_bytes: 100_000,
            max_wait_ms,
            ..Fetch::default()
        };
        world.send(client, &request.request(1));
        world.wait(200);
        assert_eq!(fetched(&mut world, client), None, "it is not looked up yet");
        world.settle();
        if max_wait_ms > 0 {
            world.wait(99);
            assert_eq!(fetched(&mut world, client), None);
            world.wait(1);
        }
        assert_eq!(fetched(&mut world, client), Some(of(&[("a", &[2])])));
        assert_eq!(world.plane.next_deadline_ms(), None);
    }
}

#[test]
fn what_there_is_comes_when_its_time_is_over_whatever_is_being_looked_up() {
    let (mut world, consumer) = chilled();
    let producer = world.connect();
    let request = Fetch {
        topics: &[("a", 0), ("b", 3)],
        min_bytes: 100_000,
        ..Fetch::default()
    };
    world.send(consumer, &request.request(1));
    world.wait(400);
    world.send(producer, &produce(1, "b", &one_record(b"v")));
    world.dirs[1].step_writer();
    world.poll();
    world.wait(99);
    assert_eq!(fetched(&mut world, consumer), None);
    world.wait(1);
    assert_eq!(fetched(&mut world, consumer), Some(of(&[("a", &[]), ("b", &[3])])));
}

#[test]
fn what_comes_while_it_is_looked_up_counts() {
    let (mut world, consumer) = chilled();
    let producer = world.connect();
    let request = Fetch {
        topics: &[("a", 2)],
        min_bytes: 2 * one_record(b"v").len() as i32,
        ..Fetch::default()
    };
    world.send(consumer, &request.request(1));
    world.send(producer, &produce(1, "a", &one_record(b"v")));
    world.dirs[0].step_writer();
    world.poll();
    assert_eq!(fetched(&mut world, consumer), None);
    world.settle();
    assert_eq!(fetched(&mut world, consumer), Some(of(&[("a", &[2, 3])])));
}

#[test]
fn a_rest_that_needs_an_index_is_looked_up_with_it() {
    let (mut world, client) = chilled();
    let batch_bytes = one_record(b"v").len() as i32;
    let request = Fetch {
        topics: &[("b", 0), ("a", 0)],
        max_bytes: 3 * batch_bytes,
        ..Fetch::default()
    };
    // How much is left for it is known once the first one is there.
    for (n, rest) in [&[][..], &[0], &[0]].into_iter().enumerate() {
        world.send(client, &request.request(n as i32));
        world.settle();
        assert_eq!(fetched(&mut world, client), Some(of(&[("b", &[0, 1]), ("a", rest)])));
    }
}
