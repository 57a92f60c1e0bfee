//! Transactional Produce: who is asked when, and what the answer means; what readers of committed records see.

use ottla_core::data_plane::{Refused, SessionId, Unverified};
use ottla_core::record::builder::{BatchOptions, NewRecord, build_batch};
use ottla_core::record::control::{MarkerType, TransactionMarker};
use ottla_core::storage::log_dir::PartitionId;

use super::support::{Fetch, WALL_MS, World, produce_in, produce_results};

const PRODUCER: i64 = 7;
const OLD: i16 = 8;
const ADDS: i16 = 12;

fn batch_of(producer_id: i64, epoch: i16, sequence: i32, transactional: bool) -> Vec<u8> {
    let options = BatchOptions {
        producer_id,
        producer_epoch: epoch,
        base_sequence: sequence,
        transactional,
        ..BatchOptions::default()
    };
    let record = NewRecord {
        timestamp_ms: WALL_MS,
        value: Some(b"v"),
        ..NewRecord::default()
    };
    build_batch(options, [record]).expect("small")
}

fn batch(epoch: i16, sequence: i32) -> Vec<u8> {
    batch_of(PRODUCER, epoch, sequence, true)
}

struct Bench {
    world: World,
    client: SessionId,
    t: PartitionId,
    u: PartitionId,
    correlation_id: i32,
}

impl Bench {
    fn new() -> Self {
        let mut world = World::new();
        let (t, u) = (world.create("t", 0), world.create("u", 0));
        world.plane.verify_transactions(true);
        let client = world.connect();
        Self {
            world,
            client,
            t,
            u,
            correlation_id: 0,
        }
    }

    fn send(&mut self, version: i16, topics: &[(&str, &[u8])]) {
        self.correlation_id += 1;
        let request = produce_in(version, self.correlation_id, Some("tx"), topics);
        self.world.send(self.client, &request);
    }

    fn asked(&mut self) -> Option<Unverified> {
        let mut asked = self.world.plane.take_unverified();
        assert!(asked.len() <= 1, "{asked:?}");
        asked.pop()
    }

    fn answer(&mut self, asked: &Unverified, refused: &[(&str, i16)]) -> bool {
        let refused: Vec<_> = refused
            .iter()
            .map(|(topic, code)| Refused {
                topic: (*topic).to_owned(),
                partition: 0,
                code: *code,
                message: None,
            })
            .collect();
        let now = self.world.now();
        let found = self
            .world
            .plane
            .on_verified(asked.session_id, asked.request_id, &refused, now);
        self.world.settle();
        found
    }

    /// The results of all responses that are there.
    fn results(&mut self, version: i16) -> Vec<Vec<(i16, i64)>> {
        self.world.settle();
        let responses = self.world.responses(self.client);
        responses
            .iter()
            .map(|(_, body)| produce_results(version, body))
            .collect()
    }

    /// Produce what needs no question, or is agreed to.
    fn produced(&mut self, version: i16, records: &[u8]) -> (i16, i64) {
        self.send(version, &[("t", records)]);
        if let Some(asked) = self.asked() {
            assert!(self.answer(&asked, &[]));
        }
        let results = self.results(version);
        assert_eq!(results.len(), 1, "{results:?}");
        results[0][0]
    }

    fn end(&mut self, epoch: i16, marker_type: MarkerType, transaction_version: i16) -> Result<i64, i16> {
        let marker = TransactionMarker {
            producer_id: PRODUCER,
            producer_epoch: epoch,
            marker_type,
            coordinator_epoch: 0,
        };
        let partition = self.world.partition(self.t);
        let appended = partition.append_marker(&marker, transaction_version, None, WALL_MS);
        let result = appended.map(|appended| appended.base_offset);
        self.world.settle();
        result.map_err(|error| error.kafka_code())
    }

    fn end_offset(&self, id: PartitionId) -> i64 {
        self.world.partition(id).offsets().log_end_offset
    }
}

#[test]
fn the_coordinator_is_asked_once_a_transaction_and_partition() {
    let mut bench = Bench::new();
    bench.send(OLD, &[("t", &batch(0, 0)), ("u", &batch(0, 0))]);
    let asked = bench.asked().expect("both partitions are new to it");
    assert_eq!(
        (
            asked.api_version,
            asked.transactional_id.as_str(),
            asked.producer_id,
            asked.producer_epoch
        ),
        (OLD, "tx", PRODUCER, 0)
    );
    assert_eq!(asked.partitions, [("t".into(), 0), ("u".into(), 0)]);
    assert_eq!(bench.results(OLD), Vec::<Vec<_>>::new());
    assert_eq!(bench.end_offset(bench.t), 0, "nothing is appended before the answer");
    assert!(bench.answer(&asked, &[]));
    assert_eq!(bench.results(OLD), [[(0, 0), (0, 0)]]);
    // Open now: nobody is asked again.
    bench.send(OLD, &[("t", &batch(0, 1))]);
    assert_eq!(bench.asked(), None);
    assert_eq!(bench.results(OLD), [[(0, 1)]]);
    // Over: the next transaction asks anew.
    assert_eq!(bench.end(0, MarkerType::Commit, 0), Ok(2));
    bench.send(OLD, &[("t", &batch(0, 2))]);
    assert!(bench.asked().is_some());
}

#[test]
fn a_partition_that_is_not_part_of_the_transaction_is_refused_alone() {
    let mut bench = Bench::new();
    bench.send(OLD, &[("t", &batch(0, 0)), ("u", &batch(0, 0))]);
    let asked = bench.asked().expect("asked");
    bench.answer(&asked, &[("t", 48)]);
    assert_eq!(bench.results(OLD), [[(48, -1), (0, 0)]]);
    assert_eq!((bench.end_offset(bench.t), bench.end_offset(bench.u)), (0, 1));
    assert!(!bench.answer(&asked, &[]), "an answer counts once");
}

#[test]
fn an_answer_about_a_transaction_that_ended_meanwhile_counts_no_more() {
    let mut bench = Bench::new();
    bench.send(OLD, &[("t", &batch(0, 0))]);
    let asked = bench.asked().expect("asked");
    // The coordinator aborts after it agreed and before its answer is here; then another transaction may have begun.
    bench.end(0, MarkerType::Abort, 0).expect("appended");
    bench.answer(&asked, &[]);
    assert_eq!(bench.results(OLD), [[(48, -1)]], "INVALID_TXN_STATE");
    assert_eq!(bench.end_offset(bench.t), 1, "only the marker");
}

#[test]
fn the_marker_of_one_transaction_takes_nothing_from_the_question_about_the_next() {
    for (marker_epoch, transaction_version, expected) in [(1, 2, (0, 2)), (0, 0, (48, -1)), (2, 2, (48, -1))] {
        let mut bench = Bench::new();
        assert_eq!(bench.produced(ADDS, &batch(0, 0)), (0, 0));
        // The next transaction comes before the marker of the one before it.
        bench.send(ADDS, &[("t", &batch(1, 0))]);
        let asked = bench.asked().expect("asked");
        assert_eq!(bench.end(marker_epoch, MarkerType::Commit, transaction_version), Ok(1));
        assert!(bench.answer(&asked, &[]));
        assert_eq!(bench.results(ADDS), [[expected]], "marker of epoch {marker_epoch}");
    }
}

#[test]
fn a_repeated_batch_leaves_its_question_to_the_next_one() {
    // As in Kafka 4.3.1.
    let mut bench = Bench::new();
    assert_eq!(bench.produced(ADDS, &batch(0, 0)), (0, 0));
    assert_eq!(bench.end(0, MarkerType::Abort, 0), Ok(1));
    assert_eq!(bench.produced(ADDS, &batch(0, 0)), (0, 0), "a repeated one");
    assert_eq!(bench.end(0, MarkerType::Commit, 0), Ok(2));
    assert_eq!(bench.produced(ADDS, &batch(0, 1)), (45, -1));
}

#[test]
fn requests_behind_one_that_is_asked_about_keep_their_order() {
    let mut bench = Bench::new();
    bench.send(ADDS, &[("t", &batch(0, 0))]);
    bench.send(ADDS, &[("t", &batch(0, 1))]);
    let asked = bench.asked().expect("about the first alone");
    assert_eq!(bench.asked(), None);
    bench.answer(&asked, &[]);
    assert_eq!(bench.asked(), None, "the second finds the transaction open");
    assert_eq!(bench.results(ADDS), [[(0, 0)], [(0, 1)]]);
}

#[test]
fn a_second_request_does_not_jump_over_a_refused_first() {
    for version in [OLD, ADDS] {
        let mut bench = Bench::new();
        bench.send(version, &[("t", &batch(0, 0))]);
        bench.send(version, &[("t", &batch(0, 1))]);
        let first = bench.asked().expect("asked");
        bench.answer(&first, &[("t", 19)]);
        let second = bench.asked().expect("still no transaction is open");
        bench.answer(&second, &[]);
        assert_eq!(
            bench.results(version),
            [[(19, -1)], [(45, -1)]],
            "OUT_OF_ORDER_SEQUENCE_NUMBER"
        );
    }
}

#[test]
fn only_producers_whose_epoch_rises_must_start_at_zero() {
    assert_eq!(Bench::new().produced(OLD, &batch(0, 5)), (0, 0));
    assert_eq!(Bench::new().produced(ADDS, &batch(0, 5)), (45, -1));
}

#[test]
fn markers_of_version_two_bear_a_higher_epoch() {
    let mut bench = Bench::new();
    assert_eq!(bench.produced(ADDS, &batch(3, 0)), (0, 0));
    assert_eq!(
        bench.end(3, MarkerType::Commit, 2),
        Err(47),
        "the records' own epoch: of an earlier transaction"
    );
    assert_eq!(bench.end(4, MarkerType::Commit, 2), Ok(1));
    assert_eq!(bench.end(4, MarkerType::Commit, 2), Ok(2), "the very same again");
    assert_eq!(bench.end(3, MarkerType::Commit, 2), Err(47));
    // A late retry of the first record's epoch is fenced without asking anybody.
    bench.send(ADDS, &[("t", &batch(3, 1))]);
    assert_eq!(bench.asked(), None);
    assert_eq!(bench.results(ADDS), [[(47, -1)]]);
    assert_eq!(bench.produced(ADDS, &batch(4, 0)), (0, 3));
}

#[test]
fn records_outside_of_an_open_transaction_are_refused() {
    let mut bench = Bench::new();
    assert_eq!(bench.produced(OLD, &batch(0, 0)), (0, 0));
    assert_eq!(bench.produced(OLD, &batch_of(PRODUCER, 0, 1, false)), (48, -1));
    assert_eq!(bench.produced(OLD, &batch(0, 3)), (45, -1));
    assert_eq!(bench.produced(OLD, &batch(0, 0)), (0, 0), "a repeated batch");
    assert_eq!(bench.end_offset(bench.t), 1);
}

#[test]
fn transactional_records_need_an_id_and_one_producer() {
    let mut bench = Bench::new();
    let request = produce_in(OLD, 1, None, &[("t", &batch(0, 0)), ("u", &batch_of(8, 0, 0, false))]);
    bench.world.send(bench.client, &request);
    assert_eq!(
        bench.results(OLD),
        [[(53, -1), (53, -1)]],
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"
    );
    bench.send(OLD, &[("t", &batch(0, 0)), ("u", &batch_of(8, 0, 0, true))]);
    assert_eq!(
        bench.results(OLD),
        [[(49, -1), (49, -1)]],
        "INVALID_PRODUCER_ID_MAPPING"
    );
    assert_eq!((bench.end_offset(bench.t), bench.end_offset(bench.u)), (0, 0));
}

#[test]
fn older_clients_are_not_asked_about_where_that_is_switched_off() {
    let mut bench = Bench::new();
    bench.world.plane.verify_transactions(false);
    bench.send(OLD, &[("t", &batch(0, 0))]);
    assert_eq!(bench.asked(), None);
    assert_eq!(bench.results(OLD), [[(0, 0)]]);
    bench.end(0, MarkerType::Commit, 0).expect("appended");
    bench.send(ADDS, &[("t", &batch(0, 1))]);
    assert!(bench.asked().is_some(), "others would not have their partition added");
}

#[test]
fn a_connection_may_go_while_the_coordinator_is_asked() {
    let mut bench = Bench::new();
    bench.send(OLD, &[("t", &batch(0, 0))]);
    let asked = bench.asked().expect("asked");
    bench.world.plane.close_session(bench.client);
    assert!(!bench.answer(&asked, &[]));
    assert_eq!(bench.end_offset(bench.t), 0);
}

#[test]
fn what_a_producer_sent_before_it_left_is_still_appended() {
    let mut bench = Bench::new();
    bench.send(OLD, &[("t", &batch(0, 0))]);
    let asked = bench.asked().expect("asked");
    bench.world.plane.on_end_of_input(bench.client);
    assert!(!bench.world.plane.session(bench.client).expect("open").is_finished());
    bench.answer(&asked, &[]);
    assert!(bench.world.plane.session(bench.client).expect("open").is_finished());
    assert_eq!(bench.end_offset(bench.t), 1);
}

#[test]
fn a_partition_may_go_while_the_coordinator_is_asked() {
    let mut bench = Bench::new();
    bench.send(OLD, &[("t", &batch(0, 0)), ("u", &batch(0, 0))]);
    let asked = bench.asked().expect("asked");
    let now = bench.world.now();
    bench.world.plane.stop_serving(bench.t, now);
    bench.answer(&asked, &[]);
    assert_eq!(bench.results(OLD), [[(3, -1), (0, 0)]], "UNKNOWN_TOPIC_OR_PARTITION");
}

#[test]
fn a_marker_wakes_who_waits_for_committed_records() {
    for (marker_type, aborted) in [(MarkerType::Commit, vec![]), (MarkerType::Abort, vec![(PRODUCER, 0)])] {
        let mut bench = Bench::new();
        let (reader, impatient) = (bench.world.connect(), bench.world.connect());
        let fetch = Fetch {
            topics: &[("t", 0)],
            committed: true,
            ..Fetch::default()
        };
        bench.world.send(reader, &fetch.request(1));
        assert_eq!(bench.produced(OLD, &batch(0, 0)), (0, 0));
        assert_eq!(bench.world.fetched(reader), None, "not decided");
        let uncommitted = Fetch {
            topics: &[("t", 0)],
            ..Fetch::default()
        };
        bench.world.send(impatient, &uncommitted.request(1));
        let seen = bench.world.fetched(impatient).expect("at once");
        assert_eq!((seen.batches(), seen.partitions[0].last_stable_offset), (&[0][..], 0));
        assert_eq!(seen.partitions[0].aborted, None, "nobody asked");
        bench.end(0, marker_type, 0).expect("appended");
        let seen = bench.world.fetched(reader).expect("woken");
        assert_eq!(seen.batches(), [0, 1]);
        assert_eq!(seen.partitions[0].last_stable_offset, 2);
        assert_eq!(seen.partitions[0].aborted, Some(aborted));
    }
}
