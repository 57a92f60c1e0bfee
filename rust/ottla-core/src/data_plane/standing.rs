//! Answers that stand, of all sessions: who takes one back or asks when it was given need not know the session.

use super::{DataPlane, Now, SessionId};
use crate::session::standing::{Standing, StandingId};

impl DataPlane {
    /// Give an answer again to all requests of its session that are the same, in place of the one that stood there
    /// before, until it is withdrawn or the session ends. Nothing happens if there is no such session.
    pub fn let_stand(&mut self, session_id: SessionId, standing: Standing) {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        self.standing.insert(standing.id, session_id);
        if let Some(before) = session.let_stand(Some(Box::new(standing))) {
            self.standing.remove(&before.id);
        }
    }

    /// Give an answer no more. Returns when it was last given since that was asked for; None: not at all, or it does not
    /// stand.
    pub fn withdraw(&mut self, id: StandingId) -> Option<i64> {
        let session_id = self.standing.remove(&id)?;
        let withdrawn = self.sessions.get_mut(&session_id)?.let_stand(None)?;
        withdrawn.given_ms
    }

    /// When an answer was last given since that was asked for; None: not at all, or it does not stand.
    pub fn take_given(&mut self, id: StandingId) -> Option<i64> {
        let session_id = self.standing.get(&id)?;
        self.sessions.get_mut(session_id)?.standing()?.given_ms.take()
    }

    /// A session has answered a request by the answer that stands.
    pub(super) fn on_answered(&mut self, session_id: SessionId, api_key: i16, now: Now) {
        if let Some(standing) = self
            .sessions
            .get_mut(&session_id)
            .and_then(|session| session.standing())
        {
            standing.given_ms = Some(now.now_ms);
        }
        *self.metrics.answered.entry(api_key).or_default() += 1;
    }
}
