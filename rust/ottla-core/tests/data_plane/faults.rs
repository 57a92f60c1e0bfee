//! A disk that stalls, is full or fails while clients wait.

use ottla_core::data_plane::Options;
use ottla_core::storage::sim_fs::{Effect, Operation};

use super::support::{Fetch, World, one_record, produce, produce_result};

const EIO: i32 = 5;
const KAFKA_STORAGE_ERROR: i16 = 56;

#[test]
fn a_full_disk_refuses_what_waits_and_heals_by_itself() {
    let mut world = World::new();
    world.create("t", 0);
    let (client, consumer) = (world.connect(), world.connect());
    world.send(client, &produce(1, "t", &one_record(b"kept")));
    world.settle();
    assert_eq!(world.produced(client), Some((1, 0, 0)));
    world.send(
        consumer,
        &Fetch {
            topics: &[("t", 1)],
            ..Fetch::default()
        }
        .request(1),
    );
    world.fs.set_capacity(Some(world.fs.used_bytes() + 10));
    world.send(
        client,
        &[
            produce(2, "t", &one_record(b"lost")),
            produce(3, "t", &one_record(b"lost")),
        ]
        .concat(),
    );
    world.settle();
    let refused: Vec<_> = world
        .responses(client)
        .iter()
        .map(|(id, body)| (*id, produce_result(body).0))
        .collect();
    assert_eq!(refused, [(2, KAFKA_STORAGE_ERROR), (3, KAFKA_STORAGE_ERROR)]);
    world.send(
        client,
        &Fetch {
            topics: &[("t", 0)],
            ..Fetch::default()
        }
        .request(4),
    );
    assert_eq!(world.fetched(client).expect("reads go on").batches(), [0]);
    world.fs.set_capacity(None);
    let mut error_code = KAFKA_STORAGE_ERROR;
    for attempt in 5..15 {
        if error_code == KAFKA_STORAGE_ERROR {
            world.send(client, &produce(attempt, "t", &one_record(b"again")));
            world.settle();
            error_code = world.produced(client).expect("answered").1;
        }
    }
    assert_eq!(error_code, 0);
    let read_again = Fetch {
        topics: &[("t", 1)],
        ..Fetch::default()
    }
    .request(2);
    if world
        .fetched(consumer)
        .is_none_or(|fetched| fetched.batches().is_empty())
    {
        world.send(consumer, &read_again);
        assert_eq!(world.fetched(consumer).expect("at once").batches(), [1]);
    }
}

#[test]
fn an_io_error_answers_everything_that_waits_for_the_partition_and_only_that() {
    let mut world = World::with(2, Options::default());
    let id = world.create("bad", 0);
    world.create("good", 1);
    let (client, consumer, other) = (world.connect(), world.connect(), world.connect());
    world.send(
        consumer,
        &Fetch {
            topics: &[("bad", 0)],
            ..Fetch::default()
        }
        .request(1),
    );
    world.inject(".log", Operation::Write, Effect::Fails(EIO), 1);
    world.send(
        client,
        &[
            produce(1, "bad", &one_record(b"a")),
            produce(2, "bad", &one_record(b"b")),
        ]
        .concat(),
    );
    world.settle();
    let refused: Vec<_> = world
        .responses(client)
        .iter()
        .map(|(id, body)| (*id, produce_result(body).0))
        .collect();
    assert_eq!(refused, [(1, KAFKA_STORAGE_ERROR), (2, KAFKA_STORAGE_ERROR)]);
    assert_eq!(world.fetched(consumer).expect("at once").error(), KAFKA_STORAGE_ERROR);
    assert_eq!(world.plane.take_offline(), [id]);
    world.send(other, &produce(1, "good", &one_record(b"a")));
    world.settle();
    assert_eq!(world.produced(other), Some((1, 0, 0)));
    world.send(client, &produce(3, "bad", &one_record(b"c")));
    assert_eq!(world.produced(client).expect("at once").1, KAFKA_STORAGE_ERROR);
    world.fs.heal();
    world
        .partition(id)
        .reopen(super::support::WALL_MS)
        .expect("the disk is well again");
    world.send(client, &produce(4, "bad", &one_record(b"d")));
    world.settle();
    assert_eq!(world.produced(client).expect("served again").1, 0);
}

#[test]
fn a_stalled_disk_holds_up_its_own_replies_in_their_order() {
    let mut world = World::with(2, Options::default());
    world.create("slow", 0);
    world.create("fast", 1);
    let (client, other) = (world.connect(), world.connect());
    world.send(
        client,
        &[
            produce(1, "slow", &one_record(b"a")),
            produce(2, "fast", &one_record(b"a")),
        ]
        .concat(),
    );
    world.send(other, &produce(1, "fast", &one_record(b"b")));
    world.dirs[1].step_writer();
    world.poll();
    assert_eq!(world.produced(other), Some((1, 0, 1)));
    assert_eq!(
        world.responses(client),
        [],
        "the reply to the first request comes first"
    );
    world.settle();
    let order: Vec<_> = world.responses(client).iter().map(|(id, _)| *id).collect();
    assert_eq!(order, [1, 2]);
}

#[test]
fn a_partition_removed_while_appends_wait_answers_them() {
    let mut world = World::new();
    let id = world.create("t", 0);
    let client = world.connect();
    world.send(client, &produce(1, "t", &one_record(b"a")));
    let now = world.now();
    world.plane.stop_serving(id, now);
    world.poll();
    assert_eq!(world.produced(client).expect("answered").1, 6, "NOT_LEADER_OR_FOLLOWER");
    world.settle();
}
