//! Fetch: limits, waiting, waking.

use ottla_core::data_plane::SessionId;
use ottla_core::session::pipeline::Slot;

use super::support::{Fetch, World, one_record, owed_request, produce};

fn filled(batches: usize) -> (World, SessionId) {
    let mut world = World::new();
    world.create("t", 0);
    let client = world.connect();
    for n in 0..batches {
        world.send(client, &produce(n as i32, "t", &one_record(b"a")));
    }
    world.settle();
    assert_eq!(world.responses(client).len(), batches);
    (world, client)
}

fn is_parked(world: &mut World, session_id: SessionId) -> bool {
    let session = world.plane.session(session_id).expect("open");
    session.slots().any(|(_, slot)| matches!(slot, Slot::Fetch(_)))
}

#[test]
fn records_are_returned_from_the_batch_that_holds_the_offset() {
    let (mut world, client) = filled(3);
    world.send(
        client,
        &Fetch {
            topics: &[("t", 1)],
            ..Fetch::default()
        }
        .request(1),
    );
    assert_eq!(world.fetched(client).expect("at once").batches(), [1, 2]);
}

#[test]
fn the_first_batch_comes_whole_and_later_partitions_keep_to_the_rest() {
    let (mut world, client) = filled(3);
    world.create("u", 0);
    for n in 0..2 {
        world.send(client, &produce(n, "u", &one_record(b"a")));
    }
    world.settle();
    world.take(client);
    let batch_bytes = one_record(b"a").len() as i32;
    let mut batches = |fetch: Fetch<'_>| {
        world.send(
            client,
            &Fetch {
                topics: &[("t", 0), ("u", 0)],
                ..fetch
            }
            .request(1),
        );
        let fetched = world.fetched(client).expect("at once");
        fetched.partitions.iter().map(|p| p.batches.len()).collect::<Vec<_>>()
    };
    assert_eq!(
        batches(Fetch {
            max_bytes: 1,
            ..Fetch::default()
        }),
        [1, 0]
    );
    assert_eq!(
        batches(Fetch {
            partition_max_bytes: 1,
            ..Fetch::default()
        }),
        [1, 0]
    );
    assert_eq!(
        batches(Fetch {
            max_bytes: 4 * batch_bytes,
            ..Fetch::default()
        }),
        [3, 1]
    );
    assert_eq!(
        batches(Fetch {
            partition_max_bytes: 2 * batch_bytes,
            ..Fetch::default()
        }),
        [2, 2]
    );
}

#[test]
fn a_fetch_waits_for_min_bytes() {
    let (mut world, consumer) = filled(0);
    let producer = world.connect();
    let batch_bytes = one_record(b"a").len() as i32;
    world.send(
        consumer,
        &Fetch {
            topics: &[("t", 0)],
            min_bytes: 2 * batch_bytes,
            ..Fetch::default()
        }
        .request(1),
    );
    world.send(producer, &produce(1, "t", &one_record(b"a")));
    world.settle();
    assert!(is_parked(&mut world, consumer));
    world.send(producer, &produce(2, "t", &one_record(b"a")));
    world.settle();
    assert_eq!(world.fetched(consumer).expect("enough").batches(), [0, 1]);
    assert_eq!(world.plane.next_deadline_ms(), None);
}

#[test]
fn a_fetch_sees_nothing_that_is_not_written() {
    let (mut world, consumer) = filled(0);
    let producer = world.connect();
    world.send(producer, &produce(1, "t", &one_record(b"a")));
    world.send(
        consumer,
        &Fetch {
            topics: &[("t", 0)],
            ..Fetch::default()
        }
        .request(1),
    );
    assert!(is_parked(&mut world, consumer));
    world.settle();
    assert_eq!(world.fetched(consumer).expect("written").batches(), [0]);
}

#[test]
fn at_its_deadline_a_fetch_returns_what_there_is() {
    let (mut world, client) = filled(1);
    world.send(
        client,
        &Fetch {
            topics: &[("t", 0)],
            min_bytes: 1000,
            ..Fetch::default()
        }
        .request(1),
    );
    assert_eq!(world.plane.next_deadline_ms(), Some(world.now_ms + 500));
    world.wait(499);
    assert_eq!(world.fetched(client), None);
    world.wait(1);
    assert_eq!(world.fetched(client).expect("time is over").batches(), [0]);
    world.send(
        client,
        &Fetch {
            topics: &[("t", 1)],
            max_wait_ms: 0,
            ..Fetch::default()
        }
        .request(2),
    );
    assert!(world.fetched(client).expect("no wait").batches().is_empty());
}

#[test]
fn an_error_ends_the_wait_at_once() {
    let (mut world, client) = filled(1);
    for (topic, offset, error_code) in [("t", 5, 1), ("t", -1, 1), ("absent", 0, 3)] {
        world.send(
            client,
            &Fetch {
                topics: &[(topic, offset)],
                ..Fetch::default()
            }
            .request(1),
        );
        assert_eq!(world.fetched(client).expect("at once").error(), error_code);
    }
}

#[test]
fn nothing_behind_a_waiting_fetch_is_started() {
    let (mut world, client) = filled(0);
    let fetch = Fetch {
        topics: &[("t", 0)],
        ..Fetch::default()
    };
    world.send(client, &[fetch.request(1), owed_request(2)].concat());
    assert!(world.owed[&client].is_empty());
    world.wait(500);
    assert_eq!(world.owed[&client].len(), 1);
}

#[test]
fn a_fetch_of_a_partition_that_goes_away_is_answered() {
    let (mut world, client) = filled(1);
    let id = world.plane.find("t", 0).expect("served").0;
    world.send(
        client,
        &Fetch {
            topics: &[("t", 1)],
            ..Fetch::default()
        }
        .request(1),
    );
    let now = world.now();
    assert!(world.plane.stop_serving(id, now).is_some());
    assert!(world.plane.has_touched());
    assert_eq!(world.poll(), [client]);
    assert_eq!(world.fetched(client).expect("at once").error(), 3);
}

#[test]
fn a_new_leader_epoch_answers_waiting_fetches() {
    let (mut world, client) = filled(1);
    let id = world.plane.find("t", 0).expect("served").0;
    world.send(
        client,
        &Fetch {
            topics: &[("t", 1)],
            ..Fetch::default()
        }
        .request(1),
    );
    let now = world.now();
    world.plane.set_leadership(id, 1, now).expect("a newer epoch");
    world.poll();
    assert!(world.fetched(client).expect("at once").batches().is_empty());
}

#[test]
fn a_client_that_leaves_takes_its_fetch_along() {
    let (mut world, client) = filled(0);
    let fetch = Fetch {
        topics: &[("t", 0)],
        ..Fetch::default()
    };
    world.send(client, &fetch.request(1));
    world.plane.on_end_of_input(client);
    assert!(world.plane.session(client).expect("open").is_finished());
    assert_eq!(world.plane.next_deadline_ms(), None);
    let other = world.connect();
    world.send(other, &fetch.request(1));
    world.plane.close_session(other);
    assert_eq!(world.plane.next_deadline_ms(), None);
    let producer = world.connect();
    world.send(producer, &produce(1, "t", &one_record(b"a")));
    world.settle();
    assert_eq!(world.take(other), Vec::<u8>::new());
}

#[test]
fn one_append_answers_all_who_wait_for_it_in_one_poll() {
    let (mut world, producer) = filled(0);
    let consumers: Vec<_> = (0..50).map(|_| world.connect()).collect();
    for consumer in &consumers {
        world.send(
            *consumer,
            &Fetch {
                topics: &[("t", 0)],
                ..Fetch::default()
            }
            .request(1),
        );
    }
    world.send(producer, &produce(1, "t", &one_record(b"a")));
    world.dirs[0].step_writer();
    let mut woken = world.poll();
    woken.sort_unstable();
    assert_eq!(woken, [&[producer][..], &consumers].concat());
    for consumer in consumers {
        assert_eq!(world.fetched(consumer).expect("woken").batches(), [0]);
    }
}

#[test]
fn an_incremental_fetch_that_waits_answers_only_what_changed() {
    let (mut world, client) = filled(1);
    world.create("u", 0);
    let producer = world.connect();
    let both = Fetch {
        topics: &[("t", 1), ("u", 0)],
        session: (0, 0),
        max_wait_ms: 0,
        ..Fetch::default()
    };
    world.send(client, &both.request(1));
    let opened = world.fetched(client).expect("at once");
    assert_eq!(opened.partitions.len(), 2);
    world.send(
        client,
        &Fetch {
            session: (opened.session_id, 1),
            ..Fetch::default()
        }
        .request(2),
    );
    assert!(is_parked(&mut world, client));
    world.send(producer, &produce(1, "u", &one_record(b"a")));
    world.settle();
    let woken = world.fetched(client).expect("woken");
    assert_eq!(woken.session_id, opened.session_id);
    assert_eq!(woken.partitions[0].topic, "u");
    assert_eq!(woken.batches(), [0]);
    world.send(
        client,
        &Fetch {
            topics: &[("u", 1)],
            session: (opened.session_id, 2),
            ..Fetch::default()
        }
        .request(3),
    );
    world.wait(500);
    assert!(world.fetched(client).expect("time is over").partitions.is_empty());
}

#[test]
fn an_isolation_level_that_does_not_exist_is_refused() {
    let (mut world, client) = filled(1);
    let mut request = Fetch {
        topics: &[("t", 0)],
        ..Fetch::default()
    }
    .request(1);
    let isolation_at = 4 + 14 + 16;
    assert_eq!(request[isolation_at], 0);
    request[isolation_at] = 2;
    world.send(client, &request);
    let fetched = world.fetched(client).expect("at once");
    assert_eq!((fetched.error_code, fetched.error()), (-1, -1));
}
