//! Whatever arrives, and in whatever pieces.

use ottla_core::data_plane::Options;
use proptest::collection::vec;
use proptest::prelude::*;

use super::support::{Fetch, World, one_record, owed_request, produce, produce_to};

/// A request of a client, well-formed or not quite.
#[derive(Clone, Debug)]
enum Asked {
    Produce {
        topic: usize,
        acks: i16,
        size_bytes: usize,
    },
    Fetch {
        topic: usize,
        offset: i64,
        max_wait_ms: i32,
    },
    Owed,
}

const TOPICS: [&str; 3] = ["a", "b", "absent"];

impl Asked {
    fn request(&self, correlation_id: i32) -> Vec<u8> {
        match self {
            Self::Produce {
                topic,
                acks,
                size_bytes,
            } => {
                let records = one_record(&vec![7; *size_bytes]);
                produce_to(correlation_id, *acks, 5000, &[(TOPICS[*topic], &[(0, &records)])])
            }
            Self::Fetch {
                topic,
                offset,
                max_wait_ms,
            } => {
                let fetch = Fetch {
                    topics: &[(TOPICS[*topic], *offset)],
                    max_wait_ms: *max_wait_ms,
                    ..Fetch::default()
                };
                fetch.request(correlation_id)
            }
            Self::Owed => owed_request(correlation_id),
        }
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    prop_oneof![
        (
            0..3_usize,
            prop_oneof![Just(1), Just(-1), Just(3)],
            prop_oneof![0..100_usize, Just(40_000)]
        )
            .prop_map(|(topic, acks, size_bytes)| Asked::Produce {
                topic,
                acks,
                size_bytes
            }),
        (0..3_usize, -1..4_i64, prop_oneof![Just(0), Just(300)]).prop_map(|(topic, offset, max_wait_ms)| {
            Asked::Fetch {
                topic,
                offset,
                max_wait_ms,
            }
        }),
        Just(Asked::Owed),
    ]
}

/// Send `bytes` in pieces to a fresh broker, answer what Python owes, and let all waits end. Returns what came back.
fn conversation(bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut world = World::new();
    world.create("a", 0);
    world.create("b", 0);
    let client = world.connect();
    let mut received = Vec::new();
    let mut rest = bytes;
    let mut cuts = cuts.iter().copied().cycle();
    loop {
        let cut = cuts.next().unwrap_or(1).clamp(1, rest.len().max(1)).min(rest.len());
        world.send(client, &rest[..cut]);
        rest = &rest[cut..];
        // Everything that time and the disk can do happens between two pieces.
        loop {
            world.settle();
            let owed = world.owed.remove(&client).unwrap_or_default();
            let waits = world.plane.next_deadline_ms();
            if owed.is_empty() && waits.is_none() {
                break;
            }
            for request in owed {
                let response = request.correlation_id.to_be_bytes();
                assert!(
                    world
                        .plane
                        .session(client)
                        .expect("open")
                        .reply(request.request_id, Some(&response))
                );
                world.advance(client);
            }
            if let Some(deadline_ms) = waits {
                world.now_ms = world.now_ms.max(deadline_ms);
                world.poll();
            }
        }
        received.extend(world.take(client));
        if rest.is_empty() {
            assert_eq!(world.plane.close_reason(client), None);
            return received;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_the_input_gives_the_same_output(
        script in vec(asked(), 1..12),
        cuts in vec(prop_oneof![1..40_usize, 1000..60_000_usize], 1..6),
    ) {
        let bytes: Vec<u8> = (0..).zip(&script).flat_map(|(id, asked)| asked.request(id)).collect();
        let whole = conversation(&bytes, &[bytes.len()]);
        prop_assert_eq!(&conversation(&bytes, &cuts), &whole);
        let mut ids = Vec::new();
        let mut rest = &whole[..];
        while let Some((size, tail)) = rest.split_first_chunk::<4>() {
            let (frame, tail) = tail.split_at(u32::from_be_bytes(*size) as usize);
            ids.push(i32::from_be_bytes(frame[..4].try_into().expect("four bytes")));
            rest = tail;
        }
        prop_assert_eq!(ids, (0..script.len() as i32).collect::<Vec<_>>(), "one answer each, in order");
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_cost_no_more_memory_than_they_are(
        start in vec(asked(), 0..3),
        noise in vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        tail in vec(any::<u8>(), 0..64),
        cuts in vec(1..5000_usize, 1..4),
    ) {
        let mut bytes: Vec<u8> = (0..).zip(&start).flat_map(|(id, asked)| asked.request(id)).collect();
        for (index, byte) in noise {
            if !bytes.is_empty() {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes.extend(tail);
        let mut world = World::with(1, Options { request_max_bytes: 1 << 20, ..Options::default() });
        world.create("a", 0);
        world.create("b", 0);
        let client = world.connect();
        let mut sent = 0;
        let mut cuts = cuts.iter().copied().cycle();
        while sent < bytes.len() {
            let cut = cuts.next().unwrap_or(1).min(bytes.len() - sent);
            world.send(client, &bytes[sent..sent + cut]);
            sent += cut;
            world.settle();
            for request in world.owed.remove(&client).unwrap_or_default() {
                world.plane.session(client).expect("open").reply(request.request_id, None);
                world.advance(client);
            }
            let session = world.plane.session(client).expect("open");
            prop_assert!(session.frames().buffered_bytes() <= sent);
        }
        world.now_ms += 1 << 40;
        world.settle();
        world.plane.close_session(client);
        prop_assert_eq!(world.plane.next_deadline_ms(), None);
    }
}

#[test]
fn a_frame_that_announces_more_than_it_sends_costs_what_it_sends() {
    let mut world = World::new();
    let client = world.connect();
    world.send(client, &(100_u32 << 20).to_be_bytes());
    world.send(client, &vec![0; 50_000]);
    let session = world.plane.session(client).expect("open");
    let room = session
        .frames()
        .spare(1 << 20)
        .expect("a large frame is under way")
        .capacity();
    assert!(room < 200_000, "{room}");
}

#[test]
fn a_malformed_request_ends_the_connection_after_the_answers_before_it() {
    let mut world = World::new();
    world.create("a", 0);
    let client = world.connect();
    let mut cut = produce(2, "a", &one_record(b"x"));
    cut.truncate(40);
    cut[..4].copy_from_slice(&36_u32.to_be_bytes());
    world.send(client, &[produce(1, "a", &one_record(b"x")), cut].concat());
    assert!(
        world
            .close_reason(client)
            .contains("malformed Produce request of version 8")
    );
    assert!(!world.plane.session(client).expect("open").is_finished());
    world.settle();
    assert_eq!(world.produced(client), Some((1, 0, 0)));
    assert!(world.plane.session(client).expect("open").is_finished());
}

#[test]
fn versions_that_do_not_exist_end_the_connection() {
    for (key, version) in [(0, 2), (0, 14), (1, 3), (1, 19)] {
        let mut world = World::new();
        let client = world.connect();
        let mut request = owed_request(1);
        request[4..6].copy_from_slice(&i16::to_be_bytes(key));
        request[6..8].copy_from_slice(&i16::to_be_bytes(version));
        let flexible = version > 12;
        if flexible {
            request.push(0);
            request[3] += 1;
        }
        world.send(client, &request);
        assert!(
            world.close_reason(client).contains("is not supported"),
            "{}",
            world.close_reason(client)
        );
    }
}
