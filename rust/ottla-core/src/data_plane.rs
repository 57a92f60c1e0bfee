//! All connections of a broker, its partitions, and the replies that wait for them. Sans-I/O: who owns the sockets feeds
//! bytes in and sends `Output`.

use std::collections::{HashMap, VecDeque};

use bytes::BytesMut;

use crate::session::output::Output;
use crate::session::pipeline::{OwedRequest, Session};

/// Names a connection; never reused.
pub type SessionId = u64;

/// Limits, by Kafka's configuration keys.
#[derive(Debug, Clone)]
pub struct Options {
    /// `socket.request.max.bytes`.
    pub request_max_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            request_max_bytes: 100 * 1024 * 1024,
        }
    }
}

/// Sessions, partitions and waiters.
#[derive(Debug)]
pub struct DataPlane {
    options: Options,
    sessions: HashMap<SessionId, Session>,
    next_session_id: SessionId,
    closed_reasons: VecDeque<(SessionId, String)>,
}

/// How many reasons of closed sessions are kept for the log.
const CLOSED_REASONS_MAX: usize = 1024;

impl DataPlane {
    /// No sessions, no partitions.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            sessions: HashMap::new(),
            next_session_id: 1,
            closed_reasons: VecDeque::new(),
        }
    }

    /// A connection was accepted.
    pub fn open_session(&mut self) -> SessionId {
        let session_id = self.next_session_id;
        self.next_session_id += 1;
        self.sessions
            .insert(session_id, Session::new(self.options.request_max_bytes));
        session_id
    }

    /// A connection is gone: everything it held is released.
    pub fn close_session(&mut self, session_id: SessionId) {
        if let Some(session) = self.sessions.remove(&session_id)
            && let Some(reason) = session.close_reason()
        {
            if self.closed_reasons.len() == CLOSED_REASONS_MAX {
                self.closed_reasons.pop_front();
            }
            self.closed_reasons.push_back((session_id, reason.to_owned()));
        }
    }

    /// Why a session was closed from this side, if it was.
    pub fn close_reason(&self, session_id: SessionId) -> Option<&str> {
        self.sessions.get(&session_id).map_or_else(
            || {
                self.closed_reasons
                    .iter()
                    .find(|(id, _)| *id == session_id)
                    .map(|(_, reason)| reason.as_str())
            },
            Session::close_reason,
        )
    }

    /// A session by its id.
    pub fn session(&mut self, session_id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&session_id)
    }

    /// Bytes arrived; `advance` handles them.
    pub fn on_received(&mut self, session_id: SessionId, chunk: BytesMut) {
        if let Some(session) = self.sessions.get_mut(&session_id) {
            session.frames().push(chunk);
        }
    }

    /// Handle what is buffered of a session as far as possible; requests that Python owes are appended to `owed`.
    pub fn advance(&mut self, session_id: SessionId, owed: &mut Vec<OwedRequest>) {
        if let Some(session) = self.sessions.get_mut(&session_id) {
            owed.extend(session.next_request());
        }
    }

    /// The output of a session.
    pub fn output(&mut self, session_id: SessionId) -> Option<&mut Output> {
        self.sessions.get_mut(&session_id).map(Session::output)
    }
}
