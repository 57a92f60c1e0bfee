//! The sockets of all sessions, a wake-up descriptor and a timer in one set that the kernel watches (epoll).
//!
//! It is waited for as for one descriptor: a connection costs no task switch and no system call of its own, however often
//! it becomes ready, and an idle connection costs nothing at all.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use ottla_core::data_plane::SessionId;

/// Events taken at a time; the others stay, and come with the next call.
const EVENTS_MAX: usize = 64;
/// Stands for the wake-up descriptor. Session ids start at 1.
const WAKEUP: SessionId = 0;
/// Stands for the timer.
const TIMER: SessionId = SessionId::MAX;
/// Stands for the set of somebody else.
const BESIDE: SessionId = SessionId::MAX - 1;

pub const READABLE: u32 = libc::EPOLLIN as u32;
pub const WRITABLE: u32 = libc::EPOLLOUT as u32;
/// Reported whether or not anybody waits for it.
pub const BROKEN: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;

/// An eventfd: what other threads wake the event loop with.
#[derive(Debug)]
pub struct Wakeup(OwnedFd);

impl Wakeup {
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call.
        owned(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) }).map(Self)
    }

    /// Have the event loop call `poll`.
    pub fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: writes eight bytes from an array of eight. It fails only if the counter is full: awake already.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

/// Read the counter of an eventfd or timerfd, which makes it unreadable.
fn clear(fd: &OwnedFd) {
    let mut counter = [0_u8; 8];
    // SAFETY: reads at most eight bytes into an array of eight; nothing to read (EAGAIN) is as good.
    unsafe { libc::read(fd.as_raw_fd(), counter.as_mut_ptr().cast(), counter.len()) };
}

/// What became ready. As long as nothing is done about it, it stays ready.
#[derive(Debug)]
pub struct Events {
    events: [libc::epoll_event; EVENTS_MAX],
    count: usize,
}

impl Events {
    /// Wait for events of a set, at most for `wait_max` (in whole milliseconds). An interrupted wait ends early.
    pub fn take(epoll: RawFd, wait_max: Duration) -> Self {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        let wait_ms = i32::try_from(wait_max.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        // SAFETY: the kernel fills at most `EVENTS_MAX` events of the array.
        let count = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), EVENTS_MAX as i32, wait_ms) };
        Self {
            events,
            count: usize::try_from(count).unwrap_or(0),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Sessions whose sockets are ready, each with what it is ready for.
    pub fn of_sessions(&self) -> impl Iterator<Item = (SessionId, u32)> {
        let all = self.all().map(|event| (event.u64, event.events));
        all.filter(|(session_id, _)| ![WAKEUP, TIMER, BESIDE].contains(session_id))
    }

    fn has(&self, wanted: SessionId) -> bool {
        self.all().any(|event| event.u64 == wanted)
    }

    fn all(&self) -> impl Iterator<Item = libc::epoll_event> {
        self.events[..self.count].iter().copied()
    }
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor has just been made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn control(epoll: RawFd, operation: i32, fd: RawFd, session_id: SessionId, interest: u32) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: interest,
        u64: session_id,
    };
    // SAFETY: the event outlives the call; the kernel checks the descriptors.
    let result = unsafe { libc::epoll_ctl(epoll, operation, fd, &raw mut event) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The epoll set of this process that watches a descriptor: its owner tells it to nobody, but the kernel changes only what
/// is watched. What is asked for is what the owner, who waits once for it to be readable, asked for.
fn epoll_that_watches(watched: RawFd) -> io::Result<RawFd> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills the structure.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let end = RawFd::try_from(limit.rlim_cur).unwrap_or(RawFd::MAX);
    let interest = READABLE | libc::EPOLLONESHOT as u32;
    let is_watcher = |fd: &RawFd| control(*fd, libc::EPOLL_CTL_MOD, watched, watched as u64, interest).is_ok();
    (0..end)
        .find(is_watcher)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no epoll set watches the descriptor"))
}

fn is_readable(fd: RawFd) -> bool {
    let mut wanted = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one structure that outlives the call, which does not wait.
    unsafe { libc::poll(&raw mut wanted, 1, 0) == 1 }
}

/// What is watched.
#[derive(Debug)]
pub struct Readiness {
    epoll: OwnedFd,
    wakeup: Arc<Wakeup>,
    timer: OwnedFd,
    /// When the timer rings. It may ring early, never late: a deadline that went away does not stop it.
    armed_ms: Option<i64>,
    beside: Option<RawFd>,
}

impl Readiness {
    pub fn new(wakeup: Arc<Wakeup>) -> io::Result<Self> {
        // SAFETY: plain system calls.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: plain system call.
        let timer = owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
        let readiness = Self {
            epoll,
            wakeup,
            timer,
            armed_ms: None,
            beside: None,
        };
        readiness.control(libc::EPOLL_CTL_ADD, readiness.wakeup.0.as_raw_fd(), WAKEUP, READABLE)?;
        readiness.control(libc::EPOLL_CTL_ADD, readiness.timer.as_raw_fd(), TIMER, READABLE)?;
        Ok(readiness)
    }

    /// Ring at `deadline_ms` or before.
    pub fn arm(&mut self, deadline_ms: Option<i64>, now_ms: i64) {
        let Some(deadline_ms) = deadline_ms else { return };
        if self.armed_ms.is_some_and(|armed_ms| armed_ms <= deadline_ms) {
            return;
        }
        self.armed_ms = Some(deadline_ms);
        let wait_ms = deadline_ms.saturating_sub(now_ms).max(0);
        // A time of nothing would disarm the timer.
        let it_value = libc::timespec {
            tv_sec: wait_ms / 1000,
            tv_nsec: (wait_ms % 1000) * 1_000_000 + 1,
        };
        let it_interval = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = libc::itimerspec { it_interval, it_value };
        // SAFETY: the setting outlives the call.
        unsafe { libc::timerfd_settime(self.timer.as_raw_fd(), 0, &raw const setting, std::ptr::null_mut()) };
    }

    /// Readable when something is ready; for `Events::take`.
    pub fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    fn control(&self, operation: i32, fd: RawFd, session_id: SessionId, interest: u32) -> io::Result<()> {
        control(self.epoll.as_raw_fd(), operation, fd, session_id, interest)
    }

    /// Change what is waited for on a socket. None: nothing, not even its end.
    pub fn set(&self, fd: RawFd, session_id: SessionId, before: Option<u32>, interest: Option<u32>) -> io::Result<()> {
        match (before, interest) {
            (None, None) => Ok(()),
            (None, Some(interest)) => self.control(libc::EPOLL_CTL_ADD, fd, session_id, interest),
            (Some(_), Some(interest)) => self.control(libc::EPOLL_CTL_MOD, fd, session_id, interest),
            (Some(_), None) => self.control(libc::EPOLL_CTL_DEL, fd, session_id, 0),
        }
    }

    /// Have this set be ready when another set is, which stays the caller's: the one that watches `watched`.
    pub fn wait_beside(&mut self, watched: RawFd) -> io::Result<()> {
        let fd = epoll_that_watches(watched)?;
        self.control(libc::EPOLL_CTL_ADD, fd, BESIDE, READABLE)?;
        self.beside = Some(fd);
        Ok(())
    }

    /// Whether the set of `wait_beside` is ready.
    pub fn is_beside_ready(&self, events: &Events) -> bool {
        // So many other events may have left no room for that one.
        events.has(BESIDE) || (events.count == EVENTS_MAX && self.beside.is_some_and(is_readable))
    }

    /// Let wake-up and timer rest if events tell of them.
    pub fn clear(&mut self, events: &Events) {
        if events.has(WAKEUP) {
            clear(&self.wakeup.0);
        }
        if events.has(TIMER) {
            clear(&self.timer);
            self.armed_ms = None;
        }
    }
}
