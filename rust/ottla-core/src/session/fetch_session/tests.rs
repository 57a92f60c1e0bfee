use super::*;
use crate::types::TopicId;

fn want(partition: i32, fetch_offset: i64) -> (TopicKey, FetchPartition) {
    let partition = FetchPartition {
        partition,
        current_leader_epoch: -1,
        fetch_offset,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        max_bytes: 1000,
    };
    (TopicKey::Id(TopicId([1; 16])), partition)
}

fn at(high_watermark: i64) -> impl Fn(i32) -> PartitionResponse {
    move |partition| PartitionResponse {
        error_code: 0,
        high_watermark,
        log_start_offset: 0,
        ..PartitionResponse::error(partition, 0)
    }
}

/// A cache and a client that keeps its session's id and epoch.
struct Client {
    cache: FetchSessionCache,
    now_ms: i64,
}

impl Client {
    fn with_slots(slots_max: usize) -> Self {
        Self {
            cache: FetchSessionCache::new(slots_max, 7),
            now_ms: 0,
        }
    }

    fn fetch(
        &mut self,
        session: (i32, i32),
        wanted: Vec<(TopicKey, FetchPartition)>,
        forgotten: &[i32],
        read: impl Fn(i32) -> PartitionResponse,
    ) -> FetchResponse {
        let request = SessionRequest {
            session_id: session.0,
            epoch: session.1,
            uses_topic_ids: true,
        };
        let forgotten: Vec<_> = forgotten.iter().map(|p| (TopicKey::Id(TopicId([1; 16])), *p)).collect();
        match self.cache.begin(request, wanted, &forgotten, self.now_ms) {
            Err(response) => response,
            Ok(fetch) => {
                let read = fetch.wanted.iter().map(|(_, wanted)| read(wanted.partition)).collect();
                self.cache.finish(fetch, read, self.now_ms)
            }
        }
    }

    fn open(&mut self, partitions: i32) -> i32 {
        self.fetch((0, 0), (0..partitions).map(|p| want(p, 0)).collect(), &[], at(5))
            .session_id
    }
}

fn partitions(response: &FetchResponse) -> Vec<i32> {
    response
        .partitions
        .iter()
        .map(|(_, partition)| partition.partition)
        .collect()
}

#[test]
fn a_sessionless_fetch_gets_everything_and_no_session() {
    let mut client = Client::with_slots(10);
    let response = client.fetch((0, -1), vec![want(0, 0), want(1, 0)], &[], at(5));
    assert_eq!(
        (response.session_id, response.error_code, partitions(&response)),
        (0, 0, vec![0, 1])
    );
    assert!(client.cache.is_empty());
}

#[test]
fn an_incremental_response_carries_only_what_changed() {
    let mut client = Client::with_slots(10);
    let id = client.open(3);
    assert!(id > 0);
    let unchanged = client.fetch((id, 1), vec![], &[], at(5));
    assert_eq!((unchanged.session_id, partitions(&unchanged)), (id, vec![]));
    let moved = client.fetch((id, 2), vec![], &[], |p| at(if p == 1 { 6 } else { 5 })(p));
    assert_eq!(partitions(&moved), vec![1]);
    let truncated = client.fetch((id, 3), vec![], &[], |p| PartitionResponse {
        log_start_offset: p.into(),
        ..at(if p == 1 { 6 } else { 5 })(p)
    });
    assert_eq!(partitions(&truncated), vec![1, 2]);
}

#[test]
fn the_last_stable_offset_alone_is_no_change() {
    let mut client = Client::with_slots(10);
    let id = client.open(1);
    let response = client.fetch((id, 1), vec![], &[], |p| PartitionResponse {
        last_stable_offset: 4,
        ..at(5)(p)
    });
    assert_eq!(partitions(&response), Vec::<i32>::new());
}

#[test]
fn after_an_error_the_partition_is_sent_once_more() {
    let mut client = Client::with_slots(10);
    let id = client.open(1);
    let failed = client.fetch((id, 1), vec![], &[], |p| PartitionResponse::error(p, 6));
    assert_eq!(partitions(&failed), vec![0]);
    assert_eq!(
        partitions(&client.fetch((id, 2), vec![], &[], at(5))),
        vec![0],
        "recovered"
    );
    assert_eq!(
        partitions(&client.fetch((id, 3), vec![], &[], at(5))),
        Vec::<i32>::new()
    );
}

#[test]
fn partitions_are_added_changed_and_forgotten() {
    let mut client = Client::with_slots(10);
    let id = client.open(2);
    let response = client.fetch((id, 1), vec![want(7, 0), want(1, 9)], &[0], at(5));
    assert_eq!(
        partitions(&response),
        vec![7],
        "new to the client; 1 only moved its offset"
    );
    let request = SessionRequest {
        session_id: id,
        epoch: 2,
        uses_topic_ids: true,
    };
    let fetch = client.cache.begin(request, vec![], &[], 0).expect("a good epoch");
    let wanted: Vec<_> = fetch
        .wanted
        .iter()
        .map(|(_, w)| (w.partition, w.fetch_offset))
        .collect();
    assert_eq!(wanted, vec![(1, 9), (7, 0)]);
}

#[test]
fn epochs_must_follow_one_another_and_wrap_to_1() {
    let mut client = Client::with_slots(10);
    let id = client.open(1);
    assert_eq!(client.fetch((id, 2), vec![], &[], at(5)).error_code, INVALID_EPOCH);
    assert_eq!(client.fetch((id, 1), vec![], &[], at(5)).error_code, 0);
    assert_eq!(
        client.fetch((id, 1), vec![], &[], at(5)).error_code,
        INVALID_EPOCH,
        "a repetition"
    );
    client.cache.sessions.get_mut(&id).expect("open").epoch = i32::MAX;
    assert_eq!(client.fetch((id, i32::MAX), vec![], &[], at(5)).error_code, 0);
    assert_eq!(client.fetch((id, 1), vec![], &[], at(5)).error_code, 0);
}

#[test]
fn unknown_ids_and_mixed_ways_of_naming_are_refused() {
    let mut client = Client::with_slots(10);
    let id = client.open(1);
    assert_eq!(client.fetch((id ^ 1, 1), vec![], &[], at(5)).error_code, ID_NOT_FOUND);
    let request = SessionRequest {
        session_id: id,
        epoch: 1,
        uses_topic_ids: false,
    };
    let refused = client
        .cache
        .begin(request, vec![], &[], 0)
        .expect_err("names in a session of ids");
    assert_eq!((refused.error_code, refused.session_id), (TOPIC_ID_ERROR, 0));
    assert_eq!(
        client.fetch((id, 1), vec![], &[], at(5)).error_code,
        0,
        "the epoch was not used up"
    );
}

#[test]
fn epochs_0_and_minus_1_close_the_session_that_they_name() {
    for (epoch, sessions) in [(0, 1), (-1, 0)] {
        let mut client = Client::with_slots(10);
        let id = client.open(1);
        let response = client.fetch((id, epoch), vec![want(0, 0)], &[], at(5));
        assert_ne!(response.session_id, id);
        assert_eq!(client.cache.len(), sessions);
        assert_eq!(client.fetch((id, 1), vec![], &[], at(5)).error_code, ID_NOT_FOUND);
    }
}

#[test]
fn a_session_that_forgets_everything_is_gone() {
    let mut client = Client::with_slots(10);
    let id = client.open(1);
    let response = client.fetch((id, 1), vec![], &[0], at(5));
    assert_eq!((response.session_id, response.error_code), (0, 0));
    assert!(client.cache.is_empty());
}

#[test]
fn a_partition_named_twice_counts_once_with_its_last_entry() {
    let mut client = Client::with_slots(10);
    let request = SessionRequest {
        session_id: 0,
        epoch: -1,
        uses_topic_ids: true,
    };
    let fetch = client
        .cache
        .begin(request, vec![want(0, 1), want(1, 2), want(0, 3)], &[], 0)
        .expect("sessionless");
    let wanted: Vec<_> = fetch
        .wanted
        .iter()
        .map(|(_, w)| (w.partition, w.fetch_offset))
        .collect();
    assert_eq!(wanted, vec![(0, 3), (1, 2)]);
}

#[test]
fn a_full_cache_answers_without_a_session_until_one_is_idle_for_two_minutes() {
    let mut client = Client::with_slots(1);
    let old = client.open(1);
    client.now_ms = EVICTION_MS;
    assert_eq!(client.open(5), 0, "neither idle long enough nor older than two minutes");
    client.now_ms = EVICTION_MS + 1;
    let new = client.open(1);
    assert!(new != 0 && new != old);
    assert_eq!((client.cache.len(), client.cache.evictions()), (1, 1));
}

#[test]
fn an_old_session_gives_way_only_to_one_of_at_least_its_size() {
    let mut client = Client::with_slots(1);
    let old = client.open(3);
    client.now_ms = EVICTION_MS + 1;
    assert_eq!(client.fetch((old, 1), vec![], &[], at(5)).error_code, 0, "in use");
    assert_eq!(client.open(2), 0);
    assert_ne!(client.open(3), 0);
}

#[test]
fn sessions_hold_so_many_partitions_together_and_no_more() {
    let mut client = Client::with_slots(1000);
    let size = SESSION_PARTITIONS_MAX as i32;
    for _ in 0..CACHED_PARTITIONS_MAX / SESSION_PARTITIONS_MAX {
        assert_ne!(client.open(size), 0);
    }
    assert_eq!(client.cache.partition_count(), CACHED_PARTITIONS_MAX);
    assert_eq!(client.open(1), 0, "served without a session");
    client.now_ms = EVICTION_MS + 1;
    assert_ne!(client.open(1), 0, "an idle one gave way");
    assert_eq!(
        client.cache.partition_count(),
        CACHED_PARTITIONS_MAX - SESSION_PARTITIONS_MAX + 1
    );
}
