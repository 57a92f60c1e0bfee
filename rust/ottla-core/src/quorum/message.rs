//! The wire form of messages between voters: bounded, checked before the consensus sees them.
//!
//! The consensus library's messages are protobuf structs; foreign bytes never meet a protobuf parser. A frame is
//!
//! ```text
//! version u8 (1) | type u8 | reject u8 | to i32 | from i32 | term u64 | log_term u64 | index u64 | commit u64
//! | commit_term u64 | request_snapshot u64 | reject_hint u64 | priority i64 | context u32 + bytes
//! | snapshot u8, if 1: end_offset i64 | epoch i32 | size u32 + bytes
//! | entries u32, each a whole record batch
//! ```
//!
//! big-endian. An entry is exactly the batch that every voter's log holds: its term is the batch's leader epoch, its index
//! follows from the message's. Memory is taken for what the frame holds, never for what a length announces.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::eraftpb::{ConfState, Entry, Message, MessageType, Snapshot};

use super::entry;
use super::error::QuorumError;
use super::snapshot::{self, SnapshotId};
use crate::record::batch::BatchView;

const VERSION: u8 = 1;
const FIXED_BYTES: usize = 3 + 8 + 8 * 8 + 4;
/// Most bytes of a read's context; nothing sends any today.
const CONTEXT_BYTES_MAX: usize = 64;

/// Raft's ids start at 1, Kafka's node ids at 0.
pub fn raft_id(node_id: i32) -> u64 {
    // node ids are not negative: checked when the quorum is configured and when a message is decoded
    node_id as u64 + 1
}

/// The node id of raft's id; -1 for raft's 0, "nobody".
pub fn node_id(raft_id: u64) -> i32 {
    raft_id as i32 - 1
}

fn type_code(kind: MessageType) -> Option<u8> {
    Some(match kind {
        MessageType::MsgAppend => 1,
        MessageType::MsgAppendResponse => 2,
        MessageType::MsgRequestVote => 3,
        MessageType::MsgRequestVoteResponse => 4,
        MessageType::MsgSnapshot => 5,
        MessageType::MsgHeartbeat => 6,
        MessageType::MsgHeartbeatResponse => 7,
        MessageType::MsgTimeoutNow => 8,
        MessageType::MsgRequestPreVote => 9,
        MessageType::MsgRequestPreVoteResponse => 10,
        _ => return None,
    })
}

fn type_of(code: u8) -> Option<MessageType> {
    Some(match code {
        1 => MessageType::MsgAppend,
        2 => MessageType::MsgAppendResponse,
        3 => MessageType::MsgRequestVote,
        4 => MessageType::MsgRequestVoteResponse,
        5 => MessageType::MsgSnapshot,
        6 => MessageType::MsgHeartbeat,
        7 => MessageType::MsgHeartbeatResponse,
        8 => MessageType::MsgTimeoutNow,
        9 => MessageType::MsgRequestPreVote,
        10 => MessageType::MsgRequestPreVoteResponse,
        _ => return None,
    })
}

/// Encodes a message; None for the kinds that never leave a node. Every entry must hold its batch.
///
/// A snapshot's file is carried in `Snapshot::data`, after its id (see [`snapshot_data`]).
pub fn encode(message: &Message) -> Option<Bytes> {
    let code = type_code(message.get_msg_type())?;
    let snapshot = message.get_snapshot();
    let entries: usize = message.entries.iter().map(|entry| entry.data.len()).sum();
    let mut out = BytesMut::with_capacity(FIXED_BYTES + 32 + message.context.len() + snapshot.data.len() + entries);
    out.put_u8(VERSION);
    out.put_u8(code);
    out.put_u8(u8::from(message.reject));
    out.put_i32(node_id(message.to));
    out.put_i32(node_id(message.from));
    for number in [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.request_snapshot,
        message.reject_hint,
    ] {
        out.put_u64(number);
    }
    out.put_i64(message.priority);
    out.put_u32(message.context.len() as u32);
    out.put_slice(&message.context);
    if snapshot.data.is_empty() {
        out.put_u8(0);
    } else {
        out.put_u8(1);
        let data = &snapshot.data;
        out.put_slice(&data[..ID_BYTES]);
        out.put_u32((data.len() - ID_BYTES) as u32);
        out.put_slice(&data[ID_BYTES..]);
    }
    out.put_u32(message.entries.len() as u32);
    for entry in &message.entries {
        debug_assert!(!entry.data.is_empty());
        out.put_slice(&entry.data);
    }
    Some(out.freeze())
}

const ID_BYTES: usize = 12;

/// The `Snapshot::data` of a snapshot file: its id, then the file's bytes.
pub fn snapshot_data(id: SnapshotId, file: &[u8]) -> Bytes {
    let mut data = BytesMut::with_capacity(ID_BYTES + file.len());
    data.put_i64(id.end_offset);
    data.put_i32(id.epoch);
    data.put_slice(file);
    data.freeze()
}

/// The id and the file in `Snapshot::data`; None if it is too short.
pub fn split_snapshot_data(data: &Bytes) -> Option<(SnapshotId, Bytes)> {
    let mut data = data.clone();
    if data.len() < ID_BYTES {
        return None;
    }
    let id = SnapshotId {
        end_offset: data.get_i64(),
        epoch: data.get_i32(),
    };
    Some((id, data))
}

/// The `ConfState` of a set of voters.
pub fn conf_state(voters: &[i32]) -> ConfState {
    ConfState {
        voters: voters.iter().map(|voter| raft_id(*voter)).collect(),
        ..ConfState::default()
    }
}

/// Decodes and checks a message of another voter.
///
/// # Errors
/// `MalformedMessage`: cut short, unknown, trailing bytes, or entries that are not contiguous intact batches.
pub fn decode(bytes: &Bytes) -> Result<Message, QuorumError> {
    let mut rest = bytes.clone();
    let cut = || QuorumError::malformed("cut short");
    if rest.len() < FIXED_BYTES {
        return Err(cut());
    }
    let version = rest.get_u8();
    if version != VERSION {
        return Err(QuorumError::malformed(format!("version {version}, expected {VERSION}")));
    }
    let code = rest.get_u8();
    let kind = type_of(code).ok_or_else(|| QuorumError::malformed(format!("unknown type {code}")))?;
    let mut message = Message::default();
    message.set_msg_type(kind);
    message.reject = rest.get_u8() != 0;
    let (to, from) = (rest.get_i32(), rest.get_i32());
    if to < 0 || from < 0 {
        return Err(QuorumError::malformed(format!("from node {from} to node {to}")));
    }
    message.to = raft_id(to);
    message.from = raft_id(from);
    message.term = rest.get_u64();
    message.log_term = rest.get_u64();
    message.index = rest.get_u64();
    message.commit = rest.get_u64();
    message.commit_term = rest.get_u64();
    message.request_snapshot = rest.get_u64();
    message.reject_hint = rest.get_u64();
    message.priority = rest.get_i64();
    for number in [message.term, message.log_term, message.commit_term] {
        if i32::try_from(number).is_err() {
            return Err(QuorumError::malformed(format!("epoch {number} exceeds 31 bits")));
        }
    }
    for number in [
        message.index,
        message.commit,
        message.request_snapshot,
        message.reject_hint,
    ] {
        if i64::try_from(number).is_err() {
            return Err(QuorumError::malformed(format!("index {number} exceeds 63 bits")));
        }
    }
    let context = rest.get_u32() as usize;
    if context > CONTEXT_BYTES_MAX || context > rest.len() {
        return Err(QuorumError::malformed(format!("context of {context} bytes")));
    }
    message.context = rest.split_to(context);
    read_snapshot(&mut message, &mut rest)?;
    read_entries(&mut message, &mut rest)?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(QuorumError::malformed(format!("{} bytes after the end", rest.len())))
    }
}

fn read_snapshot(message: &mut Message, rest: &mut Bytes) -> Result<(), QuorumError> {
    let present = rest.try_get_u8().map_err(|_| QuorumError::malformed("cut short"))?;
    let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
    if (present == 1) != is_snapshot || present > 1 {
        return Err(QuorumError::malformed(
            "a snapshot belongs into an install-snapshot message, and only there",
        ));
    }
    if !is_snapshot {
        return Ok(());
    }
    if rest.len() < ID_BYTES + 4 {
        return Err(QuorumError::malformed("cut short"));
    }
    let id = SnapshotId {
        end_offset: rest.get_i64(),
        epoch: rest.get_i32(),
    };
    let size = rest.get_u32() as usize;
    if size > rest.len() {
        return Err(QuorumError::malformed("snapshot cut short"));
    }
    let file = rest.split_to(size);
    let (meta, _) = snapshot::decode(id, &file).map_err(|error| QuorumError::malformed(error.to_string()))?;
    let valid = id.end_offset > 0 && id.epoch > 0 && meta.index > 0 && i64::try_from(meta.index).is_ok();
    if !valid || meta.voters.iter().any(|voter| *voter < 0) {
        return Err(QuorumError::malformed("impossible snapshot id, index or voters"));
    }
    let mut snapshot = Snapshot {
        data: snapshot_data(id, &file),
        ..Snapshot::default()
    };
    let metadata = snapshot.mut_metadata();
    metadata.index = meta.index;
    metadata.term = id.epoch as u64;
    metadata.set_conf_state(conf_state(&meta.voters));
    message.set_snapshot(snapshot);
    Ok(())
}

fn read_entries(message: &mut Message, rest: &mut Bytes) -> Result<(), QuorumError> {
    let count = rest.try_get_u32().map_err(|_| QuorumError::malformed("cut short"))?;
    if count > 0 && message.get_msg_type() != MessageType::MsgAppend {
        return Err(QuorumError::malformed("entries belong into append messages"));
    }
    let mut previous: Option<(i64, i32)> = None;
    for nth in 1..=u64::from(count) {
        let view = BatchView::parse(rest).map_err(|error| QuorumError::malformed(error.to_string()))?;
        entry::check(&view).map_err(|error| QuorumError::malformed(error.to_string()))?;
        let (base_offset, epoch) = (view.base_offset(), view.partition_leader_epoch());
        let follows = previous.is_none_or(|(offset, before)| offset == base_offset && before <= epoch);
        if !follows || epoch as u64 > message.term || (epoch as u64) < message.log_term {
            return Err(QuorumError::malformed("entries do not follow one another"));
        }
        previous = Some((view.next_offset(), epoch));
        let size = view.size_bytes();
        let data = rest.split_to(size);
        message.entries.push(Entry {
            index: message.index + nth,
            term: epoch as u64,
            data,
            ..Entry::default()
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::snapshot::SnapshotMeta;
    use proptest::prelude::*;

    fn entries(index: u64, terms: &[u8], base_offset: i64) -> Vec<Entry> {
        let mut terms: Vec<i32> = terms.iter().map(|term| i32::from(*term) + 1).collect();
        terms.sort_unstable();
        let mut offset = base_offset;
        let make = |(at, term): (usize, i32)| {
            let values = vec![Bytes::from(vec![at as u8; at % 7]); at % 3 + 1];
            let data = entry::data_batch(offset, term, 5, &values);
            let entry = Entry {
                index: index + 1 + at as u64,
                term: term as u64,
                data,
                ..Entry::default()
            };
            offset += values.len() as i64;
            entry
        };
        terms.into_iter().enumerate().map(make).collect()
    }

    prop_compose! {
        fn messages()(code in 1_u8..=10, to in 0..i32::MAX, from in 0..i32::MAX, term in 256_u64..1000, log_term in 0_u64..2,
                      numbers in prop::array::uniform4(0..i64::MAX as u64 / 2), reject: bool, priority: i64,
                      context in prop::collection::vec(any::<u8>(), 0..64), terms in prop::collection::vec(1_u8..255, 0..6),
                      base_offset in 0_i64..1 << 50) -> Message {
            let mut message = Message::default();
            let kind = type_of(code).unwrap();
            message.set_msg_type(kind);
            message.to = raft_id(to);
            message.from = raft_id(from);
            message.term = term;
            message.log_term = log_term;
            [message.index, message.commit, message.request_snapshot, message.reject_hint] = numbers;
            message.commit_term = term / 2;
            message.reject = reject;
            message.priority = priority;
            message.context = Bytes::from(context);
            if kind == MessageType::MsgAppend {
                message.entries = entries(message.index, &terms, base_offset).into();
            }
            if kind == MessageType::MsgSnapshot {
                let meta = SnapshotMeta {
                    id: SnapshotId { end_offset: base_offset + 1, epoch: 3 },
                    index: 7,
                    voters: vec![0, 4],
                    last_contained_log_timestamp_ms: 0,
                };
                let file = snapshot::encode(&meta, &[Bytes::from_static(b"x")]);
                let mut whole = Snapshot { data: snapshot_data(meta.id, &file), ..Snapshot::default() };
                whole.mut_metadata().index = meta.index;
                whole.mut_metadata().term = 3;
                whole.mut_metadata().set_conf_state(conf_state(&meta.voters));
                message.set_snapshot(whole);
            }
            message
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(message in messages()) {
            let bytes = encode(&message).unwrap();
            prop_assert_eq!(decode(&bytes).unwrap(), message);
        }

        #[test]
        fn every_cut_is_refused(message in messages(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&message).unwrap();
            let cut = cut.index(bytes.len());
            prop_assert!(decode(&bytes.slice(..cut)).is_err());
        }

        #[test]
        fn changed_bytes_never_panic(message in messages(), at in any::<prop::sample::Index>(), value: u8) {
            let mut bytes = encode(&message).unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = value;
            let _ = decode(&Bytes::from(bytes));
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&Bytes::from(bytes));
        }
    }
}
