//! Limits of the data plane, under Kafka's configuration keys.

use crate::error::{Error, Result};

/// Limits of the data plane. Defaults are Kafka's where the key is Kafka's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `node.id`: the leader that hints name.
    pub broker_id: i32,
    /// `socket.request.max.bytes`: larger frames close the connection.
    pub request_max_bytes: usize,
    /// `fetch.max.bytes`: bound of a fetch response's records.
    pub fetch_max_bytes: usize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_session_slots: usize,
    /// `ottla.log.dir.tail.max.bytes`: appends taken and not yet written, a log directory; beyond, producers wait.
    pub tail_max_bytes: u64,
    /// Where the ids of fetch sessions start.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            broker_id: -1,
            request_max_bytes: 100 * 1024 * 1024,
            fetch_max_bytes: 55 * 1024 * 1024,
            fetch_session_slots: 1000,
            tail_max_bytes: 64 * 1024 * 1024,
            seed: 0,
        }
    }
}

impl Options {
    /// Set one key to its text as in a broker's configuration; other keys are passed over (`false`).
    ///
    /// # Errors
    /// `InvalidConfig`.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool> {
        let number = |min: i64| {
            let parsed = value.trim().parse::<i64>().ok().filter(|number| *number >= min);
            parsed
                .and_then(|number| usize::try_from(number).ok())
                .ok_or_else(|| Error::InvalidConfig {
                    key: key.to_owned(),
                    value: value.to_owned(),
                    reason: format!("expected a number from {min} on"),
                })
        };
        match key {
            "socket.request.max.bytes" => self.request_max_bytes = number(1)?,
            "fetch.max.bytes" => self.fetch_max_bytes = number(1024)?,
            "max.incremental.fetch.session.cache.slots" => self.fetch_session_slots = number(0)?,
            "ottla.log.dir.tail.max.bytes" => self.tail_max_bytes = number(1)? as u64,
            _ => return Ok(false),
        }
        Ok(true)
    }
}
