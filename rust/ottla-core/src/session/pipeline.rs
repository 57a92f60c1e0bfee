//! One connection: frames in, replies out in the order of the requests.
//!
//! A request that Python owes is handed out only when every earlier request of the connection was answered, and
//! nothing behind it is decoded before its own answer came: SASL, commits and leaves have effects that later requests
//! must see. Apache Kafka has the same order, one request of a connection at a time.

use bytes::BytesMut;

use super::frame::FrameReader;
use super::header::RequestHeader;
use super::output::{Chunk, Output};
use crate::wire::Reader;

/// A request that Python answers.
#[derive(Debug)]
pub struct OwedRequest {
    /// Names the request in `Session::reply`; never 0, unique within the connection.
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

/// A connection's state.
#[derive(Debug)]
pub struct Session {
    frames: FrameReader,
    output: Output,
    owed_request_id: Option<u64>,
    next_request_id: u64,
    close_reason: Option<String>,
    end_of_input: bool,
}

impl Session {
    /// A new connection. Frames above `frame_max_bytes` close it.
    pub fn new(frame_max_bytes: usize) -> Self {
        Self {
            frames: FrameReader::new(frame_max_bytes),
            output: Output::default(),
            owed_request_id: None,
            next_request_id: 1,
            close_reason: None,
            end_of_input: false,
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

    /// Stop reading and answering; what was already answered may still leave.
    pub fn close(&mut self, reason: String) {
        self.close_reason.get_or_insert(reason);
        self.frames.clear();
    }

    /// Whether the connection may be closed now: it was refused, or the peer left, and nothing is left to send.
    pub fn is_finished(&self) -> bool {
        (self.close_reason.is_some() && self.output.is_empty())
            || (self.end_of_input && !(self.frames.has_frame() && self.close_reason.is_none()))
    }

    /// The peer sent its last byte. Requests that are already here are still applied.
    pub fn end_of_input(&mut self) {
        self.end_of_input = true;
    }

    /// Whether the peer sent its last byte.
    pub fn input_ended(&self) -> bool {
        self.end_of_input
    }

    /// The next request, if one is here and its turn has come.
    pub fn next_request(&mut self) -> Option<OwedRequest> {
        if self.owed_request_id.is_some() || self.close_reason.is_some() {
            return None;
        }
        let frame = match self.frames.next_frame() {
            Ok(frame) => frame?,
            Err(error) => {
                self.close(error.to_string());
                return None;
            }
        };
        let mut reader = Reader::new(&frame);
        let header = match RequestHeader::read(&mut reader) {
            Ok(header) => header,
            Err(error) => {
                self.close(error.to_string());
                return None;
            }
        };
        let body_position = reader.position();
        let request_id = self.next_request_id;
        self.next_request_id += 1;
        self.owed_request_id = Some(request_id);
        let (api_key, api_version, correlation_id) = (header.api_key, header.api_version, header.correlation_id);
        let client_id = header.client_id.map(str::to_owned);
        let mut body = frame;
        let _header = body.split_to(body_position);
        Some(OwedRequest {
            request_id,
            api_key,
            api_version,
            correlation_id,
            client_id,
            body,
        })
    }

    /// Whether Python owes an answer.
    pub fn owes(&self) -> bool {
        self.owed_request_id.is_some()
    }

    /// Answer a request: header and body without the size, or None where the request has no response. Returns false if
    /// the request is not the one owed (any more).
    pub fn reply(&mut self, request_id: u64, response: Option<&[u8]>) -> bool {
        if self.owed_request_id != Some(request_id) {
            return false;
        }
        self.owed_request_id = None;
        if let Some(response) = response.filter(|_| self.close_reason.is_none()) {
            let mut frame = Vec::with_capacity(4 + response.len());
            frame.extend_from_slice(&(response.len() as u32).to_be_bytes());
            frame.extend_from_slice(response);
            self.output.push(Chunk::Bytes(frame));
        }
        true
    }
}
