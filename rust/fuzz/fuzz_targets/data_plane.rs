//! A live data plane on a disk that may fail, and clients that send anything: nothing panics, answers leave in order, what
//! was acknowledged is there, and when all connections are gone nothing is kept for them.
//!
//! The input is a list of steps: a byte that names one, a byte for it, and what that step takes of the rest.
#![no_main]

#[path = "../../ottla-core/tests/data_plane/support.rs"]
#[allow(dead_code, reason = "its tests use the rest")]
mod support;

use libfuzzer_sys::fuzz_target;
use ottla_core::data_plane::rules::ProduceRules;
use ottla_core::data_plane::{Options, SessionId};
use ottla_core::record::batch::{BATCH_OVERHEAD, Batches, stamp_crc};
use ottla_core::storage::config::LogConfig;
use ottla_core::storage::log_dir::PartitionId;
use ottla_core::storage::sim_fs::{Effect, Operation};
use ottla_core::types::Isolation;

use support::{Fetch, World, produce_to};

const TOPICS: [&str; 3] = ["a", "b", "absent"];
const CLIENTS: usize = 3;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> &'a [u8] {
        let size = usize::from(u16::from_be_bytes([self.byte() & 0x0f, self.byte()])).min(self.0.len());
        let (taken, rest) = self.0.split_at(size);
        self.0 = rest;
        taken
    }
}

fn sealed(content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    if content.len() >= BATCH_OVERHEAD {
        let length = i32::try_from(content.len() - 12).expect("libFuzzer's inputs are small");
        content[8..12].copy_from_slice(&length.to_be_bytes());
        content[16] = 2;
        stamp_crc(&mut content);
    }
    content
}

fn framed(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let head = [&key.to_be_bytes()[..], &version.to_be_bytes(), &[0; 4], &[0, 1, b'c'], body].concat();
    [&(head.len() as u32).to_be_bytes()[..], &head].concat()
}

fn world() -> (World, Vec<PartitionId>) {
    let options = Options {
        request_max_bytes: 1 << 16,
        tail_max_bytes: 8192,
        fetch_session_slots: 2,
        ..Options::default()
    };
    let mut world = World::with(2, options);
    let mut rules = ProduceRules::default();
    rules.set("compression.type", "lz4").expect("a codec");
    rules.set("cleanup.policy", "compact").expect("a policy");
    let ids = vec![
        world.create("a", 0),
        world.create_with("b", 1, LogConfig::default(), rules),
    ];
    (world, ids)
}

/// Answer what Python owes.
fn answer(world: &mut World, client: SessionId) {
    for request in world.owed.remove(&client).unwrap_or_default() {
        let correlation_id = request.correlation_id.to_be_bytes();
        if let Some(session) = world.plane.session(client) {
            session.reply(request.request_id, Some(&correlation_id));
        }
        world.advance(client);
    }
}

/// Whole frames leave; returns what is left of one.
fn check_frames(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((size, tail)) = rest.split_first_chunk::<4>() {
        let size = usize::try_from(i32::from_be_bytes(*size)).expect("a size");
        assert!((4..=tail.len()).contains(&size), "a response of {size} bytes");
        rest = &tail[size..];
    }
    assert!(rest.is_empty(), "half a response");
}

fn recover(world: &mut World) {
    for id in world.plane.take_offline() {
        let _ = world.partition(id).reopen(support::WALL_MS);
    }
}

fn step(world: &mut World, clients: &mut [SessionId], input: &mut Input<'_>) {
    let (name, detail) = (input.byte(), input.byte());
    let at = usize::from(detail) % clients.len();
    let client = clients[at];
    let topic = TOPICS[usize::from(detail >> 2) % TOPICS.len()];
    match name % 12 {
        0 => world.send(client, input.bytes()),
        1 => {
            let key = [0, 1, 18][usize::from(detail >> 2) % 3];
            let version = i16::from(input.byte() % 20);
            world.send(client, &framed(key, version, input.bytes()));
        }
        2 | 3 => {
            let acks = [-1, 1, 0, 2][usize::from(detail >> 4) % 4];
            let records = sealed(input.bytes());
            world.send(client, &produce_to(1, acks, 1000, &[(topic, &[(0, &records)])]));
        }
        4 => {
            let [offset, wait, min, size, session, epoch] = [(); 6].map(|()| input.byte());
            let fetch = Fetch {
                topics: &[(topic, i64::from(offset)), ("a", i64::from(offset >> 4))],
                max_wait_ms: i32::from(wait) * 10,
                min_bytes: i32::from(min),
                max_bytes: i32::from(size) * 16,
                partition_max_bytes: i32::from(size) * 8,
                session: (i32::from(session), i32::from(epoch as i8)),
                committed: detail & 0x80 != 0,
            };
            world.send(client, &fetch.request(2));
        }
        5 => world.settle(),
        6 => world.wait(i64::from(detail) * 10),
        7 => world.plane.on_end_of_input(client),
        8 => {
            world.plane.close_session(client);
            clients[at] = world.connect();
        }
        9 => {
            let operation = [Operation::Write, Operation::Sync, Operation::Truncate, Operation::Create];
            let suffix = [".log", "index", "", ".snapshot"][usize::from(detail >> 2) % 4];
            let errno = if detail & 0x80 == 0 { EIO } else { ENOSPC };
            world.inject(suffix, operation[usize::from(detail) % 4], Effect::Fails(errno), u32::from(detail >> 4 & 3));
        }
        10 => {
            answer(world, client);
            let now = world.now();
            world.plane.hurry(client, now);
        }
        _ => {
            recover(world);
            check_frames(&world.take(client));
        }
    }
    world.advance(client);
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (mut world, ids) = world();
    let mut clients: Vec<SessionId> = (0..CLIENTS).map(|_| world.connect()).collect();
    while !input.0.is_empty() {
        step(&mut world, &mut clients, &mut input);
    }
    world.fs.heal();
    for _ in 0..4 {
        world.settle();
        recover(&mut world);
        for client in &clients {
            answer(&mut world, *client);
            let _ = world.take(*client);
            world.advance(*client);
        }
        world.now_ms += 1 << 40;
        world.poll();
    }
    world.settle();
    for id in &ids {
        let partition = world.partition(*id);
        let offsets = partition.offsets();
        assert!(offsets.log_start_offset <= offsets.high_watermark, "{offsets:?}");
        assert!(offsets.high_watermark <= offsets.log_end_offset, "{offsets:?}");
        let Ok(read) = partition.read(0, 1 << 30, Isolation::ReadUncommitted, true, -1, -1) else {
            continue;
        };
        let mut expected = 0;
        for slice in read.slices {
            let mut bytes = vec![0; slice.len];
            slice.file.read_exact_at(&mut bytes, slice.position).expect("a range that exists");
            for batch in Batches::new(&bytes) {
                let batch = batch.expect("what was appended is a batch");
                batch.verify_crc().expect("with its checksum");
                assert_eq!(batch.base_offset(), expected, "no gap and no overlap");
                expected = batch.last_offset() + 1;
            }
        }
        assert!(expected <= offsets.high_watermark);
    }
    for client in clients {
        world.plane.close_session(client);
    }
    assert_eq!(world.plane.next_deadline_ms(), None, "something is kept for connections that are gone");
    assert_eq!(world.plane.session_count(), 0);
});
