//! What `DataPlane` and `Partition` share: the core and the sockets.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ottla_core::data_plane::{DataPlane as Core, Now, SessionId, Unverified};
use ottla_core::session::pipeline::OwedRequest;
use ottla_core::storage::log_dir::PartitionId;

use crate::readiness::{BROKEN, Events, READABLE, Readiness, WRITABLE, Wakeup};
use crate::socket::{self, Attempt, Sent};
use crate::warmer::Warmer;

/// What one session may take in before others get their turn.
const TURN_BYTES_MAX: usize = 1024 * 1024;
const TURN_MAX: Duration = Duration::from_micros(200);
/// What one `poll` may take before the event loop's other tasks get theirs: so much for the sessions for which something
/// happened elsewhere, and as much for those whose sockets are ready.
const POLL_MAX: Duration = Duration::from_millis(1);
/// So old may the caller's clocks become in `Plane::poll`: it is called again with new ones before anything is done. The
/// wall clock may jump meanwhile.
const CLOCK_AGE_MAX: Duration = Duration::from_millis(50);
/// Requests that are handled between two looks at the clock.
const REQUESTS_A_STEP: usize = 8;
/// Size of the buffer that all sessions receive into.
const SCRATCH_BYTES: usize = 256 * 1024;
/// Bytes behind a request that must wait which are still taken in, so that a client that leaves is noticed. A fetch does
/// not wait in front of more.
const BUFFERED_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug)]
struct Socket {
    fd: RawFd,
    /// What is waited for on it; None: not even its end.
    interest: Option<u32>,
    /// A range of its output is being read; for whoever reads, until nobody wants it any more.
    warming: Option<Arc<()>>,
    /// The first range of its output was read: it is sent even if the page cache has it no longer, or keeps nothing.
    is_warm: bool,
    /// It is in `Inner::again`.
    is_again: bool,
    last_active_ms: i64,
}

/// Where a session's turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing is left to do before something happens.
    Done,
    /// The turn's time was used up.
    Again,
    /// The kernel takes no more output for now.
    WaitsToSend,
    /// The connection is over.
    Over,
}

/// What the caller must know of a session.
#[derive(Debug)]
pub struct News {
    /// The connection is over: to be closed.
    pub is_over: bool,
    /// Requests that Python owes.
    pub owed: Vec<OwedRequest>,
}

/// What the caller of `poll` must know.
#[derive(Debug)]
pub struct Polled {
    pub news: Vec<(SessionId, News)>,
    /// Watched partitions whose high watermark moved.
    pub moved: Vec<PartitionId>,
    /// Requests that wait for the transaction coordinator.
    pub unverified: Vec<Unverified>,
    /// The set of `wait_beside` is ready.
    pub is_due: bool,
}

impl Polled {
    fn is_empty(&self) -> bool {
        self.news.is_empty() && self.moved.is_empty() && self.unverified.is_empty() && !self.is_due
    }
}

/// The core with its sockets, under one lock that is never held across a wait.
#[derive(Debug)]
pub struct Inner {
    pub core: Core,
    sockets: HashMap<SessionId, Socket>,
    receive_scratch: BytesMut,
    send_scratch: Vec<u8>,
    warmer: Warmer,
    started: Instant,
    readiness: Readiness,
    wakeup: Arc<Wakeup>,
    /// Sessions whose last turn ended before they did.
    again: Vec<SessionId>,
    /// How many times `cork` has come without its `uncork`.
    corks: usize,
    /// Sessions that Python has answered since the first of these.
    answered: Vec<SessionId>,
}

#[derive(Debug)]
pub struct Plane {
    inner: Mutex<Inner>,
    pub wakeup: Arc<Wakeup>,
}

impl Plane {
    pub fn new(core: Core, warmer: Warmer, wakeup: Arc<Wakeup>) -> io::Result<Self> {
        let readiness = Readiness::new(Arc::clone(&wakeup))?;
        let inner = Inner {
            core,
            sockets: HashMap::new(),
            receive_scratch: BytesMut::new(),
            send_scratch: Vec::new(),
            warmer,
            started: Instant::now(),
            readiness,
            wakeup: Arc::clone(&wakeup),
            again: Vec::new(),
            corks: 0,
            answered: Vec::new(),
        };
        Ok(Self {
            inner: Mutex::new(inner),
            wakeup,
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while a session is served is caught and ends that session; elsewhere the lock guards no half-done work.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `Inner::poll`, again and again until there is something that the caller must know (also watched partitions that
    /// moved), the set of `wait_beside` is ready, or `wait_max` is over. So the caller, whose turn costs more
    /// than all of a small request, has none for what is the data plane's alone.
    ///
    /// `take_aside` is `Events::take` while other threads of the interpreter have their turn.
    pub fn poll(
        &self,
        now_ms: i64,
        wall_ms: i64,
        wait_max: Duration,
        take_aside: impl Fn(RawFd, Duration) -> Events,
    ) -> Polled {
        let started = Instant::now();
        let epoll = self.lock().wakeup_fd();
        let mut events = Events::take(epoll, Duration::ZERO);
        loop {
            let elapsed = started.elapsed();
            let mut inner = self.lock();
            let elapsed_ms = elapsed.as_millis() as i64;
            let now = inner.now(now_ms + elapsed_ms, wall_ms + elapsed_ms);
            let polled = Polled {
                news: inner.poll(now, &events),
                moved: inner.core.take_moved(),
                unverified: inner.core.take_unverified(),
                is_due: inner.readiness.is_beside_ready(&events),
            };
            let has_more = !inner.again.is_empty();
            let left = wait_max.saturating_sub(started.elapsed());
            if !polled.is_empty() || left.is_zero() {
                inner.ask_for_another_poll();
                return polled;
            }
            drop(inner);
            let wait = if has_more { Duration::ZERO } else { left };
            // Also where there is nothing to wait for: others are to have the interpreter now and then.
            events = take_aside(epoll, wait);
            let is_over = events.is_empty() && !has_more;
            if is_over || started.elapsed() > CLOCK_AGE_MAX {
                // What is ready stays so.
                return polled;
            }
        }
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

    /// The descriptor that is readable when `poll` has something to do.
    pub fn wakeup_fd(&self) -> RawFd {
        self.readiness.fd()
    }

    /// Have `poll` return when the epoll set is ready that watches this descriptor.
    pub fn wait_beside(&mut self, watched: RawFd) -> io::Result<()> {
        self.readiness.wait_beside(watched)
    }

    pub fn open_session(&mut self, fd: RawFd, now_ms: i64) -> io::Result<SessionId> {
        let session_id = self.core.open_session();
        if let Err(error) = self.readiness.set(fd, session_id, None, Some(READABLE)) {
            self.core.close_session(session_id);
            return Err(error);
        }
        let socket = Socket {
            fd,
            interest: Some(READABLE),
            warming: None,
            is_warm: false,
            is_again: false,
            last_active_ms: now_ms,
        };
        self.sockets.insert(session_id, socket);
        Ok(session_id)
    }

    pub fn close_session(&mut self, session_id: SessionId) {
        if let Some(socket) = self.sockets.remove(&session_id) {
            // It fails only for a socket that the caller has closed already, which left the set by that.
            let _ = self.readiness.set(socket.fd, session_id, socket.interest, None);
        }
        self.core.close_session(session_id);
    }

    /// Sessions without traffic since `before_ms` that wait for nothing but their clients.
    pub fn idle_sessions(&mut self, before_ms: i64) -> Vec<SessionId> {
        let quiet = self
            .sockets
            .iter()
            .filter(|(_, socket)| socket.last_active_ms < before_ms && socket.warming.is_none());
        let quiet: Vec<SessionId> = quiet.map(|(session_id, _)| *session_id).collect();
        let core = &mut self.core;
        let is_idle = |id: &SessionId| core.session(*id).is_some_and(|session| session.is_idle());
        quiet.into_iter().filter(is_idle).collect()
    }

    /// Do everything that there is to do; returns what the caller must know of which sessions.
    pub fn poll(&mut self, now: Now, events: &Events) -> Vec<(SessionId, News)> {
        let mut ready = self.take_ready(events);
        let mut touched = self.take_touched(now).into_iter();
        let mut news = Vec::new();
        let started = Instant::now();
        for session_id in touched.by_ref() {
            self.turn(session_id, now, false, &mut news);
            if started.elapsed() >= POLL_MAX {
                break;
            }
        }
        let started = Instant::now();
        while let Some(session_id) = ready.pop() {
            self.turn(session_id, now, true, &mut news);
            if started.elapsed() >= POLL_MAX {
                break;
            }
        }
        for session_id in touched.chain(ready) {
            self.come_again(session_id);
        }
        self.arm(now);
        news
    }

    /// Let what follows come together until `uncork`, which must follow soon: appends, so that a writer is woken once
    /// for all of them, and answers. Waking a client that sleeps on another CPU costs several times as much as sending to
    /// one that is awake: where answers leave one after the other, it is awake for all but the first.
    pub fn cork(&mut self) {
        self.corks += 1;
        self.core.cork(true);
    }

    /// Where it is the last one, send all answers since the first `cork`, and let the writers know of the appends. `poll`
    /// goes on with the sessions.
    pub fn uncork(&mut self, now: Now) {
        self.corks = self.corks.saturating_sub(1);
        if self.corks > 0 {
            return;
        }
        for session_id in std::mem::take(&mut self.answered) {
            self.send(session_id, now);
        }
        self.core.cork(false);
    }

    /// Put off what is to be done for a session that was answered until `uncork`; false: nothing is corked.
    pub fn put_off(&mut self, session_id: SessionId) -> bool {
        let is_corked = self.corks > 0;
        if is_corked {
            self.answered.push(session_id);
            self.core.touch(session_id);
        }
        is_corked
    }

    /// Go on with a session that Python answered. None: no such session.
    pub fn resume(&mut self, session_id: SessionId, now: Now) -> Option<News> {
        if let Some(socket) = self.sockets.get_mut(&session_id) {
            socket.last_active_ms = now.now_ms;
        }
        let mut owed = Vec::new();
        let turn = self.guarded_turn(session_id, now, false, &mut owed)?;
        self.ask_for_another_poll();
        self.arm(now);
        Some(News {
            is_over: turn == Turn::Over,
            owed,
        })
    }

    /// Sessions whose turn it is: those that did not finish the last one, and those whose sockets are ready.
    fn take_ready(&mut self, events: &Events) -> Vec<SessionId> {
        let mut ready = Vec::new();
        self.readiness.clear(events);
        for (session_id, events) in events.of_sessions() {
            let Some(socket) = self.sockets.get_mut(&session_id) else {
                continue;
            };
            let is_deaf = socket
                .interest
                .is_some_and(|interest| interest & (READABLE | WRITABLE) == 0);
            if events & BROKEN != 0 && is_deaf {
                // The peer is gone while nothing is taken in: it would be reported again and again.
                let _ = self.readiness.set(socket.fd, session_id, socket.interest, None);
                socket.interest = None;
            } else if !socket.is_again {
                ready.push(session_id);
            }
        }
        for session_id in std::mem::take(&mut self.again) {
            if let Some(socket) = self.sockets.get_mut(&session_id) {
                socket.is_again = false;
                ready.push(session_id);
            }
        }
        ready
    }

    /// Sessions for which something happened elsewhere.
    fn take_touched(&mut self, now: Now) -> Vec<SessionId> {
        let mut touched = self.core.poll(now);
        for (session_id, result) in self.warmer.drain() {
            let Some(socket) = self.sockets.get_mut(&session_id) else {
                continue;
            };
            socket.warming = None;
            socket.is_warm = result.is_ok();
            if let Err(error) = result {
                self.abort(session_id, format!("reading a segment failed: {error}"));
            }
            touched.push(session_id);
        }
        touched
    }

    fn turn(&mut self, session_id: SessionId, now: Now, receives: bool, news: &mut Vec<(SessionId, News)>) {
        let mut owed = Vec::new();
        let Some(turn) = self.guarded_turn(session_id, now, receives, &mut owed) else {
            return;
        };
        let is_over = turn == Turn::Over;
        if is_over || !owed.is_empty() {
            news.push((session_id, News { is_over, owed }));
        }
    }

    fn come_again(&mut self, session_id: SessionId) {
        if let Some(socket) = self.sockets.get_mut(&session_id)
            && !socket.is_again
        {
            socket.is_again = true;
            self.again.push(session_id);
        }
    }

    /// Have the event loop call `poll` for the sessions that were not finished, and for the transaction coordinator.
    fn ask_for_another_poll(&self) {
        if !self.again.is_empty() || self.core.has_unverified() {
            self.wakeup.wake();
        }
    }

    /// See to it that `poll` is called in time.
    fn arm(&mut self, now: Now) {
        self.readiness.arm(self.core.next_deadline_ms(), now.now_ms);
    }

    /// One turn of a session, after which it waits for what it needs. A bug that foreign bytes can reach must end one
    /// connection, not the broker.
    fn guarded_turn(
        &mut self,
        session_id: SessionId,
        now: Now,
        receives: bool,
        owed: &mut Vec<OwedRequest>,
    ) -> Option<Turn> {
        self.sockets.get(&session_id)?;
        let started = Instant::now();
        let take_turn = AssertUnwindSafe(|| {
            if receives {
                self.receive_and_serve(session_id, now, started, owed)
            } else {
                self.serve(session_id, now, started, owed)
            }
        });
        let turn = catch_unwind(take_turn).unwrap_or_else(|_| {
            self.core.cork(false);
            self.abort(session_id, "internal error while serving a request".to_owned());
            Turn::Over
        });
        if turn == Turn::Again {
            self.come_again(session_id);
        }
        self.set_interest(session_id, turn);
        Some(turn)
    }

    fn set_interest(&mut self, session_id: SessionId, turn: Turn) {
        let wants_input = self.wants_input(session_id);
        let Some(socket) = self.sockets.get_mut(&session_id) else {
            return;
        };
        let interest = match turn {
            Turn::Over => None,
            // A client that takes no answers is not listened to either.
            Turn::WaitsToSend => Some(WRITABLE),
            Turn::Done | Turn::Again if wants_input => Some(READABLE),
            Turn::Done | Turn::Again => Some(0),
        };
        if interest != socket.interest {
            // The set refuses only what has left it: a socket that was closed, of which the session will soon hear.
            let _ = self.readiness.set(socket.fd, session_id, socket.interest, interest);
            socket.interest = interest;
        }
    }

    fn receive_and_serve(
        &mut self,
        session_id: SessionId,
        now: Now,
        started: Instant,
        owed: &mut Vec<OwedRequest>,
    ) -> Turn {
        // What was left over from the last turn comes first: it may have been all that kept input out.
        let mut turn = self.serve(session_id, now, started, owed);
        let mut received_bytes = 0;
        while turn == Turn::Done && self.wants_input(session_id) {
            let is_drained = match self.receive(session_id, now) {
                Ok((Attempt::Bytes(bytes), is_full)) => {
                    received_bytes += bytes;
                    !is_full
                }
                Ok((Attempt::WouldBlock, _)) => return turn,
                Ok((Attempt::EndOfInput, _)) => {
                    self.core.on_end_of_input(session_id);
                    true
                }
                Err(error) => {
                    self.abort(session_id, format!("receiving failed: {error}"));
                    return Turn::Over;
                }
            };
            turn = self.serve(session_id, now, started, owed);
            if is_drained {
                return turn;
            }
            let is_used_up = received_bytes >= TURN_BYTES_MAX || started.elapsed() >= TURN_MAX;
            if is_used_up && turn == Turn::Done {
                return Turn::Again;
            }
        }
        turn
    }

    /// Handle what is buffered, a few requests at a time, and send.
    fn serve(&mut self, session_id: SessionId, now: Now, started: Instant, owed: &mut Vec<OwedRequest>) -> Turn {
        loop {
            self.core.advance(session_id, REQUESTS_A_STEP, now, owed);
            if !self.wants_input(session_id) {
                self.core.hurry(session_id, now);
            }
            let turn = self.send(session_id, now);
            let can_step = self.core.session(session_id).is_some_and(|session| session.can_step());
            if turn != Turn::Done || !can_step {
                return turn;
            }
            if started.elapsed() >= TURN_MAX {
                return Turn::Again;
            }
        }
    }

    fn abort(&mut self, session_id: SessionId, reason: String) {
        if let Some(session) = self.core.session(session_id) {
            session.abort(reason);
        }
    }

    /// Receive once; says also whether all the room there was got filled, so that more may be waiting.
    fn receive(&mut self, session_id: SessionId, now: Now) -> io::Result<(Attempt, bool)> {
        let (Some(socket), Some(session)) = (self.sockets.get_mut(&session_id), self.core.session(session_id)) else {
            return Ok((Attempt::WouldBlock, false));
        };
        socket.last_active_ms = now.now_ms;
        let frames = session.frames();
        let missing_bytes = frames.missing_bytes();
        if let Some(spare) = frames.spare(TURN_BYTES_MAX) {
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

    /// Send what can be sent.
    fn send(&mut self, session_id: SessionId, now: Now) -> Turn {
        let (Some(socket), Some(session)) = (self.sockets.get_mut(&session_id), self.core.session(session_id)) else {
            return Turn::Over;
        };
        let mut turn = Turn::Done;
        if !session.output().is_empty() && socket.warming.is_none() {
            let before_bytes = session.output().left_bytes();
            let is_warm = std::mem::take(&mut socket.is_warm);
            let sent = socket::send(socket.fd, session.output(), is_warm, &mut self.send_scratch);
            if session.output().left_bytes() < before_bytes {
                socket.last_active_ms = now.now_ms;
            }
            match sent {
                Ok(Sent::All) => {}
                Ok(Sent::WouldBlock) => turn = Turn::WaitsToSend,
                Ok(Sent::Cold(slice)) => {
                    socket.warming = Some(self.warmer.submit(session_id, slice));
                }
                Err(error) => {
                    session.abort(format!("sending failed: {error}"));
                    return Turn::Over;
                }
            }
        }
        if session.is_finished() { Turn::Over } else { turn }
    }

    fn wants_input(&mut self, session_id: SessionId) -> bool {
        let session = self.core.session(session_id);
        session.is_some_and(|session| session.wants_input(BUFFERED_BYTES_MAX))
    }
}
