//! Requests that are carried out by an append, and what whoever let them stand hears of it.

use ottla_core::data_plane::{SessionId, Written};
use ottla_core::record::batch::Batches;
use ottla_core::record::builder::{BatchOptions, NewRecord, build_batch};
use ottla_core::session::standing::StandingId;
use ottla_core::session::standing_write::{Example, Hole, StandingWrite};
use ottla_core::storage::log_dir::PartitionId;
use ottla_core::storage::sim_fs::{Effect, Operation};
use ottla_core::types::Isolation;
use ottla_core::wire::Writer;

use super::support::{WALL_MS, World, framed, one_record, produce};

const EIO: i32 = 5;
const OFFSET_COMMIT: i16 = 8;
const ANSWER: [u8; 2] = [0xaa, 0xbb];
const TIMEOUT_MS: i64 = 5_000;

fn body(number: u64) -> Writer {
    let mut body = Writer::default();
    body.string(false, "say");
    body.raw(&number.to_be_bytes());
    body
}

/// A request that says a number.
fn say(correlation_id: i32, number: u64) -> Vec<u8> {
    framed(OFFSET_COMMIT, 7, correlation_id, body(number))
}

fn batch(number: u64, wall_ms: i64) -> Vec<u8> {
    let value = [&number.to_be_bytes()[..], &wall_ms.to_be_bytes()].concat();
    let record = NewRecord {
        timestamp_ms: wall_ms,
        key: Some(b"key"),
        value: Some(&value),
        ..NewRecord::default()
    };
    build_batch(BatchOptions::default(), [record]).expect("small")
}

fn let_stand(world: &mut World, session_id: SessionId, standing_id: StandingId, partition: PartitionId) {
    let (number, clock): (u64, i64) = (0x0101_0101_0101_0101, 0x0202_0202_0202_0202);
    let batch = batch(number, clock);
    let positions = |bytes: [u8; 8]| -> Vec<usize> {
        let windows = batch.windows(8).enumerate();
        windows
            .filter(|(_, window)| *window == bytes)
            .map(|(at, _)| at)
            .collect()
    };
    let example = Example {
        api_key: OFFSET_COMMIT,
        api_version: 7,
        client_id: Some("test".to_owned()),
        body: body(number).into_bytes(),
        response: ANSWER.to_vec(),
        holes: vec![Hole {
            request_at: 5,
            batch_at: positions(number.to_be_bytes())[0],
            size_bytes: 8,
        }],
        clocks: positions(clock.to_be_bytes()),
        batch: batch.clone(),
    };
    let write = StandingWrite::new(standing_id, partition, 0, TIMEOUT_MS, example).expect("a good example");
    world.plane.let_write_stand(session_id, write);
}

/// A world with a watched partition, and clients whose numbers are written to it.
fn world_with(clients: usize) -> (World, PartitionId, Vec<SessionId>) {
    let mut world = World::new();
    let partition = world.create("said", 0);
    world.plane.watch(partition, true);
    let clients: Vec<_> = (0..clients).map(|_| world.connect()).collect();
    for (i, client) in clients.iter().enumerate() {
        let_stand(&mut world, *client, i as StandingId, partition);
    }
    (world, partition, clients)
}

fn taken(world: &mut World, partition: PartitionId) -> (i64, Vec<(StandingId, i64, u64)>) {
    let (high_watermark, written) = world.plane.take_written(partition).expect("served");
    let number = |written: &Written| u64::from_be_bytes(written.said[..].try_into().expect("a number"));
    let numbers = written.iter().map(|w| (w.id, w.base_offset, number(w)));
    (high_watermark, numbers.collect())
}

fn answers(world: &mut World, client: SessionId) -> Vec<i32> {
    let responses = world.responses(client);
    assert!(responses.iter().all(|(_, body)| body[..] == ANSWER));
    responses.iter().map(|(id, _)| *id).collect()
}

fn owed(world: &mut World, client: SessionId) -> Vec<i32> {
    let owed = world.owed.remove(&client).unwrap_or_default();
    owed.iter().map(|request| request.correlation_id).collect()
}

#[test]
fn a_request_is_appended_and_answered_once_it_is_committed() {
    let (mut world, partition, clients) = world_with(1);
    world.send(clients[0], &say(1, 77));
    world.poll();
    assert_eq!(answers(&mut world, clients[0]), [0; 0], "it is not written yet");
    world.settle();
    assert_eq!(answers(&mut world, clients[0]), [1]);
    let read = world
        .partition(partition)
        .read(0, 1000, Isolation::ReadUncommitted, true, -1, -1);
    let bytes = read.expect("readable").to_bytes().expect("readable");
    let found: Vec<_> = Batches::new(&bytes).map(|batch| batch.expect("a batch")).collect();
    assert_eq!(found.len(), 1);
    found[0].verify_crc().expect("whole");
    assert_eq!(found[0].payload(), &batch(77, WALL_MS)[61..]);
    assert_eq!(world.plane.metrics().answered.get(&OFFSET_COMMIT), Some(&1));
    assert_eq!(world.plane.next_deadline_ms(), None);
}

#[test]
fn requests_that_come_together_are_answered_in_their_order() {
    let (mut world, partition, clients) = world_with(1);
    world.send(
        clients[0],
        &[
            say(1, 10),
            say(2, 11),
            produce(3, "said", &one_record(b"x")),
            say(4, 12),
        ]
        .concat(),
    );
    world.settle();
    let order: Vec<_> = world.responses(clients[0]).iter().map(|(id, _)| *id).collect();
    assert_eq!(order, [1, 2, 3, 4]);
    assert_eq!(taken(&mut world, partition), (4, vec![(0, 3, 12)]));
}

#[test]
fn others_are_owed_and_end_nothing() {
    let (mut world, _, clients) = world_with(1);
    let mut other = body(1);
    other.raw(b"more");
    world.send(clients[0], &framed(OFFSET_COMMIT, 7, 1, other));
    assert_eq!(owed(&mut world, clients[0]), [1]);
    let session = world.plane.session(clients[0]).expect("open");
    session.reply(1, Some(&[0; 4]));
    world.take(clients[0]);
    world.send(clients[0], &say(2, 1));
    world.settle();
    assert_eq!(answers(&mut world, clients[0]), [2]);
}

#[test]
fn of_each_the_last_is_taken_in_once_and_in_order() {
    let (mut world, partition, clients) = world_with(2);
    for (client, correlation_id) in [(0, 1), (1, 1), (0, 2), (0, 3)] {
        world.send(clients[client], &say(correlation_id, 10 + correlation_id as u64));
        world.settle();
    }
    assert_eq!(taken(&mut world, partition), (4, vec![(1, 1, 11), (0, 3, 13)]));
    assert_eq!(taken(&mut world, partition), (4, vec![]));
}

#[test]
fn what_is_committed_stays_beside_what_is_not_yet() {
    let (mut world, partition, clients) = world_with(1);
    world.send(clients[0], &say(1, 10));
    world.settle();
    world.send(clients[0], &say(2, 11));
    assert_eq!(taken(&mut world, partition), (1, vec![(0, 0, 10), (0, 1, 11)]));
    world.settle();
    assert_eq!(taken(&mut world, partition), (2, vec![]));
}

#[test]
fn nobody_is_told_of_what_nobody_has_taken_in() {
    let (mut world, partition, clients) = world_with(2);
    for round in 1..4 {
        for client in &clients {
            world.send(*client, &say(round, 1));
        }
        world.settle();
    }
    assert_eq!(world.plane.take_moved(), []);
    // What is taken in before it is committed is waited for.
    world.send(clients[0], &say(4, 1));
    taken(&mut world, partition);
    world.settle();
    assert_eq!(world.plane.take_moved(), [partition]);
    world.send(clients[0], &say(5, 1));
    world.settle();
    assert_eq!(world.plane.take_moved(), []);
}

#[test]
fn whoever_appended_something_else_is_told_of_it() {
    let (mut world, partition, clients) = world_with(1);
    let producer = world.connect();
    for (correlation_id, is_first) in [(1, true), (2, false)] {
        if is_first {
            world.send(producer, &produce(correlation_id, "said", &one_record(b"x")));
        }
        world.send(clients[0], &say(correlation_id, 1));
        if !is_first {
            world.send(producer, &produce(correlation_id, "said", &one_record(b"x")));
        }
        world.settle();
        assert_eq!(world.plane.take_moved(), [partition]);
    }
    world.send(clients[0], &say(3, 1));
    world.settle();
    assert_eq!(world.plane.take_moved(), []);
}

#[test]
fn what_is_withdrawn_is_owed_and_what_was_written_stays_to_be_taken_in() {
    let (mut world, partition, clients) = world_with(1);
    world.send(clients[0], &say(1, 10));
    world.plane.withdraw_write(0);
    world.settle();
    assert_eq!(answers(&mut world, clients[0]), [1]);
    world.send(clients[0], &say(2, 11));
    assert_eq!(owed(&mut world, clients[0]), [2]);
    assert_eq!(taken(&mut world, partition), (1, vec![(0, 0, 10)]));
}

#[test]
fn what_a_client_that_left_wrote_is_taken_in() {
    let (mut world, partition, clients) = world_with(1);
    world.send(clients[0], &say(1, 10));
    world.plane.close_session(clients[0]);
    world.settle();
    assert_eq!(taken(&mut world, partition), (1, vec![(0, 0, 10)]));
    assert_eq!(world.plane.next_deadline_ms(), None);
}

#[test]
fn a_full_disk_hands_requests_back_and_nothing_stands() {
    let (mut world, partition, clients) = world_with(2);
    world.send(clients[0], &say(1, 10));
    world.settle();
    world.fs.set_capacity(Some(world.fs.used_bytes() + 10));
    world.send(clients[0], &say(2, 11));
    world.settle();
    assert_eq!(answers(&mut world, clients[0]), [1]);
    assert_eq!(owed(&mut world, clients[0]), [2]);
    assert_eq!(world.plane.take_moved(), [partition], "something was lost");
    assert_eq!(taken(&mut world, partition), (1, vec![(0, 0, 10)]));
    world.fs.set_capacity(None);
    world.send(clients[1], &say(1, 12));
    assert_eq!(
        owed(&mut world, clients[1]),
        [1],
        "also not for others, before somebody knows of the loss"
    );
    assert_eq!(world.plane.next_deadline_ms(), None);
}

#[test]
fn a_disk_that_fails_hands_requests_back() {
    let (mut world, partition, clients) = world_with(1);
    world.inject(".log", Operation::Write, Effect::Fails(EIO), 1);
    world.send(clients[0], &[say(1, 10), say(2, 11)].concat());
    world.settle();
    assert_eq!(answers(&mut world, clients[0]), [0; 0]);
    assert_eq!(owed(&mut world, clients[0]), [1], "the next one waits for its answer");
    assert_eq!(taken(&mut world, partition).1, []);
    let_stand(&mut world, clients[0], 7, partition);
    let session = world.plane.session(clients[0]).expect("open");
    session.reply(1, Some(&[0; 4]));
    world.advance(clients[0]);
    assert_eq!(owed(&mut world, clients[0]), [2], "nothing can be appended");
}

#[test]
fn a_disk_that_stalls_hands_requests_back_in_time() {
    let (mut world, partition, clients) = world_with(1);
    world.send(clients[0], &say(1, 10));
    world.wait(TIMEOUT_MS - 1);
    assert_eq!(owed(&mut world, clients[0]), [0; 0]);
    world.wait(1);
    assert_eq!(owed(&mut world, clients[0]), [1]);
    world.settle();
    assert_eq!(
        answers(&mut world, clients[0]),
        [0; 0],
        "whoever owes the answer gives it"
    );
    assert_eq!(taken(&mut world, partition), (1, vec![(0, 0, 10)]));
}

#[test]
fn another_epoch_hands_requests_over() {
    let (mut world, partition, clients) = world_with(1);
    world.send(clients[0], &say(1, 10));
    let now = world.now();
    world.plane.set_leadership(partition, 1, now).expect("open");
    world.settle();
    assert_eq!(answers(&mut world, clients[0]), [1]);
    let_stand(&mut world, clients[0], 7, partition);
    world.send(clients[0], &say(2, 11));
    assert_eq!(owed(&mut world, clients[0]), [2]);
}

#[test]
fn a_partition_that_is_served_no_longer_hands_requests_back() {
    let (mut world, partition, clients) = world_with(1);
    world.send(clients[0], &say(1, 10));
    let now = world.now();
    world.plane.stop_serving(partition, now);
    world.poll();
    assert_eq!(owed(&mut world, clients[0]), [1]);
    assert!(world.plane.take_written(partition).is_none());
}
