use super::*;
use crate::session::waiting::Call;
use bytes::BytesMut;

fn request(api_key: i16, correlation_id: i32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&api_key.to_be_bytes());
    body.extend_from_slice(&0_i16.to_be_bytes());
    body.extend_from_slice(&correlation_id.to_be_bytes());
    body.extend_from_slice(&[0, 1, b'c']);
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

fn session_with(requests: &[Vec<u8>]) -> Session {
    let mut session = Session::new(1000);
    session.frames().push(BytesMut::from(&requests.concat()[..]));
    session
}

fn owed(session: &mut Session) -> OwedRequest {
    match session.next_step() {
        Some(Step::Owed(request)) => request,
        other => panic!("no owed request: {other:?}"),
    }
}

/// A produce request that waits for its acknowledgement.
fn unacknowledged() -> Slot {
    let call = Call {
        version: 9,
        correlation_id: 1,
        started_us: 0,
        size_bytes: 10,
    };
    Slot::Produce(Box::new(PendingProduce {
        call,
        deadline_ms: 0,
        topics: Vec::new(),
        unacknowledged: Vec::new(),
    }))
}

fn native(session: &mut Session) -> u64 {
    let Some(Step::Native(request)) = session.next_step() else {
        panic!("no native request")
    };
    session.place(unacknowledged(), request.frame.len())
}

/// The replies in the output, four bytes each.
fn output(session: &mut Session) -> Vec<i32> {
    let chunks = session.output().pending().map(|(chunk, _)| match chunk {
        Chunk::Bytes(bytes) => i32::from_be_bytes(bytes[..4].try_into().expect("four bytes")),
        Chunk::File(_) => panic!("a file"),
    });
    chunks.collect()
}

const API_VERSIONS: i16 = 18;

#[test]
fn nothing_behind_an_owed_request_is_decoded_before_its_reply() {
    let mut session = session_with(&[request(API_VERSIONS, 1), request(API_VERSIONS, 2)]);
    let first = owed(&mut session);
    assert_eq!((first.correlation_id, first.client_id.as_deref()), (1, Some("c")));
    assert!(session.next_step().is_none());
    assert!(session.reply(first.request_id, None));
    assert!(!session.reply(first.request_id, None), "answered already");
    assert_eq!(owed(&mut session).correlation_id, 2);
}

#[test]
fn replies_leave_in_the_order_of_the_requests() {
    let mut session = session_with(&[request(PRODUCE, 1), request(PRODUCE, 2), request(PRODUCE, 3)]);
    let slots: Vec<u64> = (1..=3).map(|_| native(&mut session)).collect();
    session.complete(slots[2], vec![Chunk::Bytes(vec![0, 0, 0, 3])]);
    session.complete(slots[1], Vec::new());
    assert_eq!(output(&mut session), Vec::<i32>::new());
    session.complete(slots[0], vec![Chunk::Bytes(vec![0, 0, 0, 1])]);
    assert_eq!(output(&mut session), vec![1, 3]);
}

#[test]
fn other_requests_wait_until_every_produce_before_them_is_answered() {
    let mut session = session_with(&[request(PRODUCE, 1), request(PRODUCE, 2), request(FETCH, 3)]);
    let first = native(&mut session);
    let second = native(&mut session);
    assert!(
        session.next_step().is_none(),
        "a fetch must see the records of the produce before it"
    );
    session.complete(first, Vec::new());
    assert!(session.next_step().is_none());
    session.complete(second, Vec::new());
    assert!(matches!(session.next_step(), Some(Step::Native(_))));
}

#[test]
fn a_client_that_takes_no_answers_is_read_no_further() {
    let mut session = session_with(&[request(API_VERSIONS, 1)]);
    session.output().push(Chunk::Bytes(vec![0; OUTPUT_BYTES_MAX]));
    assert!(session.next_step().is_none());
    session.output().sent(1);
    assert!(session.next_step().is_some());
}

#[test]
fn produce_requests_in_flight_are_bounded() {
    let mut session = session_with(&vec![request(PRODUCE, 1); IN_FLIGHT_MAX + 1]);
    for _ in 0..IN_FLIGHT_MAX {
        assert!(matches!(session.next_step(), Some(Step::Native(_))));
        session.place(unacknowledged(), 10);
    }
    assert!(session.next_step().is_none());
    let mut session = session_with(&vec![request(PRODUCE, 1); 2]);
    session.next_step();
    session.place(unacknowledged(), IN_FLIGHT_BYTES_MAX);
    assert!(session.next_step().is_none());
}

#[test]
fn bad_frames_and_headers_close_the_connection_with_a_reason() {
    let cases: [(&[u8], &str); 5] = [
        (&(-1_i32).to_be_bytes(), "negative size (-1)"),
        (&1001_i32.to_be_bytes(), "socket.request.max.bytes is 1000"),
        (&[0, 0, 0, 0], "the message ends inside i16"),
        (&request(4, 1), "unknown API 4"),
        (
            &[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0, 9],
            "client id claims 9 with 0 bytes left",
        ),
    ];
    for (bytes, reason) in cases {
        let mut session = session_with(&[bytes.to_vec()]);
        assert!(session.next_step().is_none());
        let given = session.close_reason().expect("closed");
        assert!(given.contains(reason), "{given}");
        assert!(session.is_finished());
    }
}

#[test]
fn answers_that_were_made_before_a_refusal_still_leave() {
    let mut session = session_with(&[request(API_VERSIONS, 1), request(API_VERSIONS, 2)]);
    let first = owed(&mut session);
    session.reply(first.request_id, Some(&[0, 0, 0, 1]));
    owed(&mut session);
    session.refuse("not allowed".to_owned());
    assert!(!session.is_finished());
    let left_bytes = session.output().left_bytes();
    session.output().sent(left_bytes);
    assert!(session.is_finished());
}

#[test]
fn what_was_sent_before_the_end_of_input_is_still_served() {
    let mut session = session_with(&[request(PRODUCE, 1), request(PRODUCE, 2)]);
    session.end_of_input();
    assert!(!session.is_finished());
    native(&mut session);
    native(&mut session);
    assert!(session.is_finished(), "the answers have no reader");
    let mut session = session_with(&[request(API_VERSIONS, 1)]);
    owed(&mut session);
    session.end_of_input();
    assert!(session.is_finished(), "whoever waits for this answer is gone");
}

fn standing(correlation_free: &[u8]) -> Standing {
    Standing {
        id: 1,
        api_key: API_VERSIONS,
        api_version: 0,
        client_id: Some("c".to_owned()),
        body: Vec::new(),
        response: correlation_free.to_vec(),
        given_ms: None,
    }
}

#[test]
fn a_standing_answer_is_given_with_the_correlation_id_of_each_request() {
    let mut session = session_with(&[request(API_VERSIONS, 7), request(API_VERSIONS, 8)]);
    session.let_stand(Some(Box::new(standing(&[0xaa, 0xbb]))));
    for _ in 0..2 {
        assert!(matches!(
            session.next_step(),
            Some(Step::Answered { api_key: API_VERSIONS })
        ));
    }
    let frames: Vec<_> = session.output().pending().collect();
    let expected = [
        [0, 0, 0, 6, 0, 0, 0, 7, 0xaa, 0xbb],
        [0, 0, 0, 6, 0, 0, 0, 8, 0xaa, 0xbb],
    ];
    for ((chunk, _), expected) in frames.iter().zip(expected) {
        assert!(matches!(chunk, Chunk::Bytes(bytes) if bytes[..] == expected));
    }
    assert_eq!(frames.len(), 2);
}

#[test]
fn a_standing_answer_is_for_the_same_request_only() {
    let mut other_body = request(API_VERSIONS, 1);
    other_body.push(0);
    other_body[3] += 1;
    let mut other_version = request(API_VERSIONS, 1);
    other_version[7] = 1;
    let mut other_client = request(API_VERSIONS, 1);
    *other_client.last_mut().expect("the client id") = b'd';
    for other in [request(19, 1), other_body, other_version, other_client] {
        let mut session = session_with(&[other]);
        session.let_stand(Some(Box::new(standing(&[]))));
        owed(&mut session);
    }
    let mut session = session_with(&[request(API_VERSIONS, 1)]);
    session.let_stand(Some(Box::new(standing(&[]))));
    session.let_stand(None);
    owed(&mut session);
}

#[test]
fn a_standing_answer_waits_for_the_answers_before_it() {
    let mut session = session_with(&[request(PRODUCE, 1), request(API_VERSIONS, 2)]);
    session.let_stand(Some(Box::new(standing(&[]))));
    let produce = native(&mut session);
    assert!(session.next_step().is_none());
    session.complete(produce, vec![Chunk::Bytes(vec![0, 0, 0, 1])]);
    assert!(matches!(session.next_step(), Some(Step::Answered { .. })));
    assert_eq!(output(&mut session), vec![1, 4], "the second begins with its size");
}
