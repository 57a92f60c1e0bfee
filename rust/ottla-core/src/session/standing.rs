//! Answers that stand: what somebody else answered once is given again to every request that is the same, until whoever
//! answered takes it back.
//!
//! Most requests of a group's member say over and over that it is still there, in the same bytes, and are answered so
//! until something happens to its group. Whoever has to know when a member was last heard of asks for it.

use super::header::RequestHeader;

/// Names a standing answer. Whoever gives the answer chooses it, and never uses it for another one.
pub type StandingId = u64;

/// An answer to one request.
#[derive(Debug, PartialEq, Eq)]
pub struct Standing {
    /// Names it.
    pub id: StandingId,
    /// Which API.
    pub api_key: i16,
    /// Version of the request.
    pub api_version: i16,
    /// What the client calls itself.
    pub client_id: Option<String>,
    /// The request behind its header.
    pub body: Vec<u8>,
    /// The response behind its correlation id.
    pub response: Vec<u8>,
    /// When it was last given since that was asked for.
    pub given_ms: Option<i64>,
}

impl Standing {
    /// Whether this is the request that it answers.
    pub fn is_for(&self, header: &RequestHeader<'_>, body: &[u8]) -> bool {
        self.api_key == header.api_key
            && self.api_version == header.api_version
            && self.body == body
            && self.client_id.as_deref() == header.client_id.as_deref()
    }

    /// The answer as a frame, size included.
    pub fn frame(&self, correlation_id: i32) -> Vec<u8> {
        framed(&self.response, correlation_id)
    }
}

/// A response behind its correlation id as a frame, size included.
pub(super) fn framed(response: &[u8], correlation_id: i32) -> Vec<u8> {
    let size = 4 + response.len();
    let mut frame = Vec::with_capacity(4 + size);
    frame.extend_from_slice(&(size as u32).to_be_bytes());
    frame.extend_from_slice(&correlation_id.to_be_bytes());
    frame.extend_from_slice(response);
    frame
}
