//! One connection: frames in, replies out in the order of the requests.
//!
//! Each request takes a slot; a reply leaves when every slot before it is ready. Produce requests do not wait for one
//! another: their appends keep the order of the connection, and only their acknowledgements are outstanding. Any other
//! request starts when every earlier one is answered, and while Python owes an answer or a fetch waits for bytes, nothing
//! behind it is decoded: SASL, commits and leaves have effects that later requests must see, and a fetch behind a
//! produce sees its records. Apache Kafka gives the same order by serving one request of a connection at a time.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::BytesMut;

use super::frame::FrameReader;
use super::header::{FETCH, PRODUCE, RequestHeader};
use super::output::{Chunk, Output};
use super::standing::Standing;
use super::standing_write::StandingWrite;
use super::waiting::{ParkedFetch, PendingProduce, PendingWrite, PreparedProduce, VerifyingProduce};
use crate::wire::Reader;

/// Produce requests of one connection that may be unacknowledged at a time.
const IN_FLIGHT_MAX: usize = 256;
/// Bytes of such requests; one request is always let in.
const IN_FLIGHT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Nothing new is decoded while the client has so many bytes of answers to take.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// A request that Python answers.
#[derive(Debug)]
pub struct OwedRequest {
    /// Names the request in `Session::reply`; unique within the connection.
    pub request_id: u64,
    /// Which API.
    pub api_key: i16,
    /// Version of the body.
    pub api_version: i16,
    /// What the response's header must carry.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<String>,
    /// Everything behind the header.
    pub body: BytesMut,
}

/// A request that is answered here.
#[derive(Debug)]
pub struct NativeRequest {
    /// `header::PRODUCE` or `header::FETCH`.
    pub api_key: i16,
    /// Version of the body.
    pub api_version: i16,
    /// What the response's header must carry.
    pub correlation_id: i32,
    /// Whether the client calls itself Kafka's internal admin client.
    pub from_admin_client: bool,
    /// Header and body.
    pub frame: BytesMut,
    /// Where the body starts in `frame`.
    pub body_position: usize,
}

/// The next thing to do for a connection.
#[derive(Debug)]
pub enum Step {
    /// Hand this to Python.
    Owed(OwedRequest),
    /// Serve this.
    Native(NativeRequest),
    /// Carry this out as the standing write says, or hand it to Python: it has its slot.
    Write(OwedRequest),
    /// A request of this API is answered already, by the standing answer.
    Answered {
        /// Which API.
        api_key: i16,
    },
}

/// The client id by which Kafka knows its own tools' writes to internal topics (`KafkaApis.isInternalClient`).
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// A place in the order of replies.
#[derive(Debug)]
pub enum Slot {
    /// To be sent when its turn comes; empty for a request without a response.
    Ready(Vec<Chunk>),
    /// Python answers.
    Owed,
    /// Records are being checked by a worker.
    Validating(Box<PreparedProduce>),
    /// The transaction coordinator is asked whether the records are part of its transaction.
    Verifying(Box<VerifyingProduce>),
    /// Waits for acknowledgements.
    Produce(Box<PendingProduce>),
    /// Waits for bytes.
    Fetch(Box<ParkedFetch>),
    /// Waits for what it appended to be committed.
    Write(Box<PendingWrite>),
}

impl Slot {
    /// Whether nothing behind it may start.
    fn blocks(&self) -> bool {
        matches!(
            self,
            Self::Owed | Self::Validating(_) | Self::Verifying(_) | Self::Fetch(_) | Self::Write(_)
        )
    }
}

#[derive(Debug)]
struct Placed {
    slot: Slot,
    size_bytes: usize,
}

/// A connection's state.
#[derive(Debug)]
pub struct Session {
    frames: FrameReader,
    output: Output,
    slots: VecDeque<Placed>,
    /// Id of the first slot; the others count on from it.
    first_slot_id: u64,
    in_flight_bytes: usize,
    /// A Produce request for a log directory whose tail is full.
    held: Option<NativeRequest>,
    /// The answer that is given without asking anybody.
    standing: Option<Box<Standing>>,
    /// How requests are carried out without asking anybody.
    standing_write: Option<Box<StandingWrite>>,
    /// A request that could not be carried out so after all.
    handed_back: Option<OwedRequest>,
    close_reason: Option<String>,
    end_of_input: bool,
    /// In the data plane's list of sessions that somebody must look at.
    pub(crate) is_touched: bool,
}

impl Session {
    /// A new connection. Frames above `frame_max_bytes` close it.
    pub fn new(frame_max_bytes: usize) -> Self {
        Self {
            frames: FrameReader::new(frame_max_bytes),
            output: Output::default(),
            slots: VecDeque::new(),
            first_slot_id: 1,
            in_flight_bytes: 0,
            held: None,
            standing: None,
            standing_write: None,
            handed_back: None,
            close_reason: None,
            end_of_input: false,
            is_touched: false,
        }
    }

    /// The input side.
    pub fn frames(&mut self) -> &mut FrameReader {
        &mut self.frames
    }

    /// The output side.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Why the connection is to be closed, once it is.
    pub fn close_reason(&self) -> Option<&str> {
        self.close_reason.as_deref()
    }

    /// Take nothing more in; replies to what was taken in may still leave.
    pub fn close(&mut self, reason: String) {
        self.close_reason.get_or_insert(reason);
        self.frames.clear();
        self.held = None;
    }

    /// Python refuses the request that it owes: the connection ends once the replies before it have left.
    pub fn refuse(&mut self, reason: String) {
        self.close(reason);
        let owed = self
            .slots()
            .find(|(_, slot)| matches!(slot, Slot::Owed))
            .map(|(slot_id, _)| slot_id);
        if let Some(slot_id) = owed {
            self.complete(slot_id, Vec::new());
        }
    }

    /// The connection is broken: nothing more can be received or sent.
    pub fn abort(&mut self, reason: String) {
        self.close(reason);
        self.end_of_input = true;
        self.output = Output::default();
    }

    /// The peer sent its last byte. Records that are already here are still appended (a producer with acks=0 sends and
    /// leaves); a fetch that waits is given up by the caller.
    pub fn end_of_input(&mut self) {
        self.end_of_input = true;
    }

    /// Whether the peer sent its last byte.
    pub fn input_ended(&self) -> bool {
        self.end_of_input
    }

    /// Whether the connection may be closed now.
    pub fn is_finished(&self) -> bool {
        if self.end_of_input {
            let is_to_be_appended = self
                .slots
                .iter()
                .any(|placed| matches!(placed.slot, Slot::Validating(_) | Slot::Verifying(_)));
            return !is_to_be_appended && self.held.is_none() && !self.frames.has_frame();
        }
        self.close_reason.is_some() && self.slots.is_empty() && self.output.is_empty()
    }

    /// Whether it waits for its client alone: to send a request or the rest of one, or to take the answers.
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty() && self.held.is_none()
    }

    /// Whether bytes should be received now. While the next request must wait, a little is still taken in, so that a
    /// client that leaves is noticed.
    pub fn wants_input(&self, buffered_bytes_max: usize) -> bool {
        self.close_reason.is_none()
            && !self.end_of_input
            && self.held.is_none()
            && !(self.frames.has_frame() && self.frames.buffered_bytes() >= buffered_bytes_max)
    }

    /// Whether `next_step` would return something.
    pub fn can_step(&self) -> bool {
        self.handed_back.is_some() || (self.close_reason.is_none() && self.may_start())
    }

    fn may_start(&self) -> bool {
        if self.held.is_some() || self.output.left_bytes() >= OUTPUT_BYTES_MAX || !self.frames.has_frame() {
            return false;
        }
        let Some(last) = self.slots.back() else { return true };
        !last.slot.blocks()
            && self.frames.peek_i16(0) == Some(PRODUCE)
            && self.slots.len() < IN_FLIGHT_MAX
            && self.in_flight_bytes < IN_FLIGHT_BYTES_MAX
    }

    /// The next request, if one is here and its turn has come. An owed request has its slot already.
    pub fn next_step(&mut self) -> Option<Step> {
        if let Some(request) = self.handed_back.take() {
            return Some(Step::Owed(request));
        }
        if self.close_reason.is_some() || !(self.may_start() || self.frames.is_refused()) {
            return None;
        }
        match self.read_frame() {
            Ok(step) => step,
            Err(reason) => {
                self.close(reason);
                None
            }
        }
    }

    fn read_frame(&mut self) -> Result<Option<Step>, String> {
        let Some(frame) = self.frames.next_frame().map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let mut reader = Reader::new(&frame);
        let header = RequestHeader::read(&mut reader).map_err(|error| error.to_string())?;
        let body_position = reader.position();
        let RequestHeader {
            api_key,
            api_version,
            correlation_id,
            ..
        } = header;
        if api_key == PRODUCE || api_key == FETCH {
            let from_admin_client = header.client_id.as_deref() == Some(ADMIN_CLIENT_ID);
            return Ok(Some(Step::Native(NativeRequest {
                api_key,
                api_version,
                correlation_id,
                from_admin_client,
                frame,
                body_position,
            })));
        }
        let standing = self.standing.as_ref();
        if let Some(standing) = standing.filter(|standing| standing.is_for(&header, &frame[body_position..])) {
            let answer = Chunk::Bytes(standing.frame(header.correlation_id));
            let slot_id = self.place(Slot::Owed, frame.len());
            self.complete(slot_id, vec![answer]);
            return Ok(Some(Step::Answered { api_key }));
        }
        let write = self.standing_write.as_ref();
        let is_to_be_written = write.is_some_and(|write| write.is_for(&header, &frame[body_position..]));
        let client_id = header.client_id.map(Cow::into_owned);
        let request_id = self.place(Slot::Owed, frame.len());
        let mut body = frame;
        let _header = body.split_to(body_position);
        let request = OwedRequest {
            request_id,
            api_key,
            api_version,
            correlation_id,
            client_id,
            body,
        };
        Ok(Some(if is_to_be_written {
            Step::Write(request)
        } else {
            Step::Owed(request)
        }))
    }

    /// Give an answer again to all requests that are the same, until another one or None takes its place; returns the
    /// one before.
    pub fn let_stand(&mut self, standing: Option<Box<Standing>>) -> Option<Box<Standing>> {
        std::mem::replace(&mut self.standing, standing)
    }

    /// The answer that stands.
    pub fn standing(&mut self) -> Option<&mut Standing> {
        self.standing.as_deref_mut()
    }

    /// Carry out requests so, until something else or None takes its place; returns what was there before.
    pub fn let_write_stand(&mut self, write: Option<Box<StandingWrite>>) -> Option<Box<StandingWrite>> {
        std::mem::replace(&mut self.standing_write, write)
    }

    /// How requests are carried out.
    pub fn standing_write(&self) -> Option<&StandingWrite> {
        self.standing_write.as_deref()
    }

    /// What was appended for a request will not be answered for: Python owes the answer, as if nothing had been done.
    /// Returns when its wait would have ended; None: nothing waits there.
    pub fn hand_back(&mut self, slot_id: u64) -> Option<i64> {
        let slot = self.slot(slot_id)?;
        if !matches!(slot, Slot::Write(_)) {
            return None;
        }
        let Slot::Write(pending) = std::mem::replace(slot, Slot::Owed) else {
            return None;
        };
        self.handed_back = Some(pending.request);
        Some(pending.deadline_ms)
    }

    /// Keep a Produce request until there is room for its records.
    pub fn hold(&mut self, request: NativeRequest) {
        self.held = Some(request);
    }

    /// Take the request back that `hold` kept.
    pub fn take_held(&mut self) -> Option<NativeRequest> {
        self.held.take()
    }

    /// Whether a request waits for room.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Give a request the next place in the order of replies; returns the slot's id.
    pub fn place(&mut self, slot: Slot, size_bytes: usize) -> u64 {
        self.slots.push_back(Placed { slot, size_bytes });
        self.in_flight_bytes += size_bytes;
        self.first_slot_id + self.slots.len() as u64 - 1
    }

    /// Put a request into the slot that it has already, or into the next place; returns the slot's id.
    pub fn put(&mut self, slot_id: Option<u64>, slot: Slot, size_bytes: usize) -> u64 {
        let Some(slot_id) = slot_id else {
            return self.place(slot, size_bytes);
        };
        if let Some(place) = self.slot(slot_id) {
            *place = slot;
        }
        slot_id
    }

    /// A slot that was not sent yet.
    pub fn slot(&mut self, slot_id: u64) -> Option<&mut Slot> {
        let index = slot_id.checked_sub(self.first_slot_id)?;
        self.slots
            .get_mut(usize::try_from(index).ok()?)
            .map(|placed| &mut placed.slot)
    }

    /// The fetch that waits for bytes, with its slot's id. There is at most one: nothing behind it is started.
    pub fn parked(&mut self) -> Option<(u64, &mut ParkedFetch)> {
        let slot_id = (self.first_slot_id + self.slots.len() as u64).checked_sub(1)?;
        match &mut self.slots.back_mut()?.slot {
            Slot::Fetch(parked) => Some((slot_id, parked)),
            _ => None,
        }
    }

    /// The slots that were not sent yet, with their ids.
    pub fn slots(&self) -> impl Iterator<Item = (u64, &Slot)> {
        self.slots
            .iter()
            .enumerate()
            .map(|(i, placed)| (self.first_slot_id + i as u64, &placed.slot))
    }

    /// Make a slot ready, and move every reply whose turn has come to the output.
    pub fn complete(&mut self, slot_id: u64, reply: Vec<Chunk>) {
        if let Some(slot) = self.slot(slot_id) {
            *slot = Slot::Ready(reply);
        }
        while let Some(Placed {
            slot: Slot::Ready(reply),
            size_bytes,
        }) = self.slots.front_mut()
        {
            for chunk in reply.drain(..) {
                self.output.push(chunk);
            }
            self.in_flight_bytes -= *size_bytes;
            self.first_slot_id += 1;
            self.slots.pop_front();
        }
    }

    /// Whether Python owes the answer to this request.
    pub fn owes(&mut self, request_id: u64) -> bool {
        matches!(self.slot(request_id), Some(Slot::Owed))
    }

    /// Answer an owed request: header and body without the size, or None where the request has no response. Returns
    /// false if it is not owed (any more).
    pub fn reply(&mut self, request_id: u64, response: Option<&[u8]>) -> bool {
        if !self.owes(request_id) {
            return false;
        }
        let mut reply = Vec::new();
        if let Some(response) = response {
            let mut frame = Vec::with_capacity(4 + response.len());
            frame.extend_from_slice(&(response.len() as u32).to_be_bytes());
            frame.extend_from_slice(response);
            reply.push(Chunk::Bytes(frame));
        }
        self.complete(request_id, reply);
        true
    }
}

#[cfg(test)]
mod tests;
