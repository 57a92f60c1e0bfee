//! Frames, request headers, and the bodies that are read natively: Produce and Fetch.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use ottla_core::session::fetch::FetchRequest;
use ottla_core::session::header::{FETCH, PRODUCE, RequestHeader};
use ottla_core::session::pipeline::{Session, Step};
use ottla_core::session::produce::ProduceRequest;
use ottla_core::wire::Reader;

const FRAME_MAX_BYTES: usize = 1 << 20;

fn read(frame: &[u8]) {
    let mut reader = Reader::new(frame);
    let Ok(header) = RequestHeader::read(&mut reader) else {
        return;
    };
    let at = reader.position();
    for version in [header.api_version, 3, 9, 13] {
        if header.api_key == PRODUCE
            && let Ok(request) = ProduceRequest::read(&mut Reader::at(frame, at), version)
        {
            let ranges = request.topics.iter().flat_map(|topic| &topic.partitions);
            for records in ranges.filter_map(|partition| partition.records.clone()) {
                assert!(frame.get(records).is_some(), "records lie outside of their frame");
            }
        }
        if header.api_key == FETCH {
            let _ = FetchRequest::read(&mut Reader::at(frame, at), version);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    read(data);
    let Some((&piece_bytes, stream)) = data.split_first() else {
        return;
    };
    let mut session = Session::new(FRAME_MAX_BYTES);
    for piece in stream.chunks(usize::from(piece_bytes).max(1)) {
        session.frames().push(BytesMut::from(piece));
        while let Some(step) = session.next_step() {
            match step {
                Step::Owed(owed) | Step::Write(owed) => {
                    session.reply(owed.request_id, Some(b"answer"));
                }
                Step::Native(native) => read(&native.frame),
                Step::Answered { .. } => {}
            }
        }
        assert!(session.frames().buffered_bytes() <= stream.len());
    }
});
