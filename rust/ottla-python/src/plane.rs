//! What `DataPlane` and `Partition` share: the core, the sockets, and the descriptor that wakes the event loop.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ottla_core::data_plane::{DataPlane as Core, Now, SessionId};
use ottla_core::session::pipeline::OwedRequest;
use ottla_core::storage::log_dir::PartitionId;

use crate::socket::{self, Attempt, Sent};
use crate::warmer::Warmer;

pub const MORE: u8 = 1;
pub const WANT_WRITE: u8 = 2;
pub const CLOSED: u8 = 4;
pub const STALLED: u8 = 8;

/// What one call may take in before others get their turn.
const QUANTUM_BYTES: usize = 1024 * 1024;
const QUANTUM: Duration = Duration::from_micros(200);
/// Requests that are handled between two looks at the clock.
const REQUESTS_A_STEP: usize = 8;
/// Size of the buffer that all sessions receive into.
const SCRATCH_BYTES: usize = 256 * 1024;
/// Bytes behind a request that must wait which are still taken in, so that a client that leaves is noticed.
const BUFFERED_BYTES_MAX: usize = 64 * 1024;

/// An eventfd: what other threads wake the event loop with.
#[derive(Debug)]
pub struct Wakeup(OwnedFd);

impl Wakeup {
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the descriptor is checked and owned from here on.
        unsafe {
            let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
            if fd < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(Self(OwnedFd::from_raw_fd(fd)))
            }
        }
    }

    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Make the descriptor readable.
    pub fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: writes eight bytes from an array of eight. It fails only if the counter is full: awake already.
        unsafe { libc::write(self.fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Make it unreadable again.
    pub fn clear(&self) {
        let mut counter = [0_u8; 8];
        // SAFETY: reads at most eight bytes into an array of eight; nothing to read (EAGAIN) is as good.
        unsafe { libc::read(self.fd(), counter.as_mut_ptr().cast(), counter.len()) };
    }
}

/// A socket and what the caller was told of it.
#[derive(Debug)]
struct Socket {
    fd: RawFd,
    flags: u8,
    /// A range of its output is being read ahead.
    is_warming: bool,
}

/// The core with its sockets. Everything under one lock that only the event loop's thread takes for long.
#[derive(Debug)]
pub struct Inner {
    pub core: Core,
    sockets: HashMap<SessionId, Socket>,
    receive_scratch: BytesMut,
    send_scratch: Vec<u8>,
    warmer: Warmer,
    started: Instant,
}

/// What a call came to for a session: flags, and requests that Python owes.
pub type Pumped = (u8, Vec<OwedRequest>);

#[derive(Debug)]
pub struct Plane {
    inner: Mutex<Inner>,
    pub wakeup: Arc<Wakeup>,
}

impl Plane {
    pub fn new(core: Core, warmer: Warmer, wakeup: Arc<Wakeup>) -> Self {
        let inner = Inner {
            core,
            sockets: HashMap::new(),
            receive_scratch: BytesMut::new(),
            send_scratch: Vec::new(),
            warmer,
            started: Instant::now(),
        };
        Self {
            inner: Mutex::new(inner),
            wakeup,
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while a session is served is caught and ends that session; elsewhere the lock guards no half-done work.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    pub fn now(&self, now_ms: i64, wall_ms: i64) -> Now {
        Now {
            now_ms,
            wall_ms,
            stopwatch_us: self.started.elapsed().as_micros() as u64,
        }
    }

    /// Topic and index of a partition that is served.
    pub fn name(&self, id: PartitionId) -> Option<(String, i32)> {
        let named = &self.core.entry(id)?.topic_partition;
        Some((named.topic.to_string(), named.partition))
    }

    pub fn open_session(&mut self, fd: RawFd) -> SessionId {
        let session_id = self.core.open_session();
        self.sockets.insert(
            session_id,
            Socket {
                fd,
                flags: 0,
                is_warming: false,
            },
        );
        session_id
    }

    pub fn close_session(&mut self, session_id: SessionId) {
        self.sockets.remove(&session_id);
        self.core.close_session(session_id);
    }

    /// Receive, handle and send. None: no such session.
    pub fn pump(&mut self, session_id: SessionId, now: Now) -> Option<Pumped> {
        self.guarded(session_id, |inner, owed| inner.pump_some(session_id, now, owed))
    }

    /// Handle what is buffered, and send. None: no such session.
    pub fn resume(&mut self, session_id: SessionId, now: Now) -> Option<Pumped> {
        self.guarded(session_id, |inner, owed| {
            let started = Instant::now();
            inner.serve(session_id, now, started, owed)
        })
    }

    /// Take in completions and deadlines; returns what changed for sessions, as the caller must know it.
    pub fn poll(&mut self, now: Now) -> Vec<(SessionId, u8, Vec<OwedRequest>)> {
        let mut touched = self.core.poll(now);
        for (session_id, result) in self.warmer.drain() {
            let Some(socket) = self.sockets.get_mut(&session_id) else {
                continue;
            };
            socket.is_warming = false;
            if let (Err(error), Some(session)) = (result, self.core.session(session_id)) {
                session.abort(format!("reading a segment failed: {error}"));
            }
            touched.push(session_id);
        }
        let mut changed = Vec::new();
        for session_id in touched {
            let before = self.sockets.get(&session_id).map_or(0, |socket| socket.flags);
            if let Some((flags, owed)) = self.resume(session_id, now)
                && (flags != before || !owed.is_empty())
            {
                changed.push((session_id, flags, owed));
            }
        }
        changed
    }

    /// Run `serve` for a session. A bug that foreign bytes can reach must end one connection, not the broker.
    fn guarded(
        &mut self,
        session_id: SessionId,
        serve: impl FnOnce(&mut Self, &mut Vec<OwedRequest>) -> u8,
    ) -> Option<Pumped> {
        self.sockets.get(&session_id)?;
        let mut owed = Vec::new();
        let flags = catch_unwind(AssertUnwindSafe(|| serve(self, &mut owed))).unwrap_or_else(|_| {
            if let Some(session) = self.core.session(session_id) {
                session.abort("internal error while serving a request".to_owned());
            }
            CLOSED
        });
        if let Some(socket) = self.sockets.get_mut(&session_id) {
            socket.flags = flags;
        }
        Some((flags, owed))
    }

    fn pump_some(&mut self, session_id: SessionId, now: Now, owed: &mut Vec<OwedRequest>) -> u8 {
        let started = Instant::now();
        let mut received_bytes = 0;
        // What was left over from the last call comes first: it may have been all that kept input out.
        let mut flags = self.serve(session_id, now, started, owed);
        while flags & (CLOSED | MORE) == 0 && self.wants_input(session_id) {
            let is_drained = match self.receive(session_id) {
                Ok((Attempt::Bytes(bytes), is_full)) => {
                    received_bytes += bytes;
                    !is_full
                }
                Ok((Attempt::WouldBlock, _)) => return flags,
                Ok((Attempt::EndOfInput, _)) => {
                    self.core.on_end_of_input(session_id);
                    false
                }
                Err(error) => {
                    self.abort(session_id, format!("receiving failed: {error}"));
                    return CLOSED;
                }
            };
            flags = self.serve(session_id, now, started, owed);
            if is_drained {
                return flags;
            }
            if received_bytes >= QUANTUM_BYTES || started.elapsed() >= QUANTUM {
                return if flags & (CLOSED | STALLED) == 0 {
                    flags | MORE
                } else {
                    flags
                };
            }
        }
        flags
    }

    /// Handle what is buffered, a few requests at a time, and send.
    fn serve(&mut self, session_id: SessionId, now: Now, started: Instant, owed: &mut Vec<OwedRequest>) -> u8 {
        loop {
            let is_done = self.core.advance(session_id, REQUESTS_A_STEP, now, owed);
            let flags = self.send(session_id);
            let can_step = self.core.session(session_id).is_some_and(|session| session.can_step());
            if flags & (CLOSED | WANT_WRITE) != 0 || (is_done && !can_step) {
                return flags;
            }
            if started.elapsed() >= QUANTUM {
                return if flags & STALLED == 0 { flags | MORE } else { flags };
            }
        }
    }

    fn abort(&mut self, session_id: SessionId, reason: String) {
        if let Some(session) = self.core.session(session_id) {
            session.abort(reason);
        }
    }

    /// Receive once; says also whether all the room there was got filled, so that more may be waiting.
    fn receive(&mut self, session_id: SessionId) -> io::Result<(Attempt, bool)> {
        let (Some(socket), Some(session)) = (self.sockets.get(&session_id), self.core.session(session_id)) else {
            return Ok((Attempt::WouldBlock, false));
        };
        let frames = session.frames();
        let missing_bytes = frames.missing_bytes();
        if let Some(spare) = frames.spare(QUANTUM_BYTES) {
            let room = missing_bytes.min(spare.capacity() - spare.len());
            let attempt = socket::receive(socket.fd, spare, room)?;
            return Ok((attempt, attempt == Attempt::Bytes(room)));
        }
        self.receive_scratch.reserve(SCRATCH_BYTES);
        let attempt = socket::receive(socket.fd, &mut self.receive_scratch, SCRATCH_BYTES)?;
        if let Attempt::Bytes(bytes) = attempt {
            let chunk = self.receive_scratch.split_to(bytes);
            self.core.on_received(session_id, chunk);
        }
        Ok((attempt, attempt == Attempt::Bytes(SCRATCH_BYTES)))
    }

    /// Send what can be sent; returns the flags for the caller.
    fn send(&mut self, session_id: SessionId) -> u8 {
        let (Some(socket), Some(session)) = (self.sockets.get_mut(&session_id), self.core.session(session_id)) else {
            return CLOSED;
        };
        let mut flags = 0;
        if !session.output().is_empty() && !socket.is_warming {
            match socket::send(socket.fd, session.output(), &mut self.send_scratch) {
                Ok(Sent::All) => {}
                Ok(Sent::WouldBlock) => flags |= WANT_WRITE,
                Ok(Sent::Cold(slice)) => {
                    socket.is_warming = true;
                    self.warmer.submit(session_id, slice);
                }
                Err(error) => {
                    session.abort(format!("sending failed: {error}"));
                    return CLOSED;
                }
            }
        }
        if session.is_finished() {
            return CLOSED;
        }
        if flags == 0 && !session.wants_input(BUFFERED_BYTES_MAX) {
            flags |= STALLED;
        }
        flags
    }

    fn wants_input(&mut self, session_id: SessionId) -> bool {
        let session = self.core.session(session_id);
        session.is_some_and(|session| session.wants_input(BUFFERED_BYTES_MAX))
    }
}
