//! `DataPlane`: sockets on one side, `ottla_core::data_plane` on the other.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ottla_core::data_plane::{DataPlane as Core, Options, SessionId};
use ottla_core::session::pipeline::OwedRequest;
use pyo3::exceptions::{PyKeyError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::socket::{self, Attempt};

pub const MORE: u8 = 1;
pub const WANT_WRITE: u8 = 2;
pub const CLOSED: u8 = 4;
pub const STALLED: u8 = 8;

/// What one call may take in before others get their turn.
const QUANTUM_BYTES: usize = 1024 * 1024;
const QUANTUM: Duration = Duration::from_micros(200);
/// Size of the buffer that all sessions receive into.
const SCRATCH_BYTES: usize = 256 * 1024;
/// Bytes behind a request that Python owes which are still taken in, so that a client that leaves is noticed.
const BUFFERED_BYTES_MAX: usize = 64 * 1024;

type RequestTuple = (u64, i16, i16, i32, Option<String>, Py<PyBytes>);
type Pumped = (u8, Vec<RequestTuple>);

#[derive(Debug)]
struct Inner {
    core: Core,
    fds: HashMap<SessionId, RawFd>,
    scratch: BytesMut,
}

#[pyclass(frozen, module = "ottla._native")]
#[derive(Debug)]
pub struct DataPlane {
    inner: Mutex<Inner>,
    wakeup: OwnedFd,
}

#[pymethods]
impl DataPlane {
    #[new]
    #[pyo3(signature = (*, broker_id, log_dirs, options))]
    fn new(broker_id: i32, log_dirs: Vec<String>, options: HashMap<String, String>) -> PyResult<Self> {
        let _ = (broker_id, log_dirs);
        // SAFETY: plain system call; the descriptor is checked and owned from here on.
        let wakeup = unsafe {
            let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
            if fd < 0 {
                return Err(PyOSError::new_err(std::io::Error::last_os_error()));
            }
            OwnedFd::from_raw_fd(fd)
        };
        let core = Core::new(parse_options(&options)?);
        Ok(Self {
            inner: Mutex::new(Inner {
                core,
                fds: HashMap::new(),
                scratch: BytesMut::new(),
            }),
            wakeup,
        })
    }

    fn wakeup_fileno(&self) -> RawFd {
        self.wakeup.as_raw_fd()
    }

    fn open_session(&self, fd: RawFd, listener: &str) -> SessionId {
        let _ = listener;
        let mut inner = self.lock();
        let session_id = inner.core.open_session();
        inner.fds.insert(session_id, fd);
        session_id
    }

    fn close_session(&self, session_id: SessionId) {
        let mut inner = self.lock();
        inner.fds.remove(&session_id);
        inner.core.close_session(session_id);
    }

    fn close_reason(&self, session_id: SessionId) -> Option<String> {
        self.lock().core.close_reason(session_id).map(str::to_owned)
    }

    fn pump(&self, py: Python<'_>, session_id: SessionId, now_ms: i64, wall_ms: i64) -> PyResult<Pumped> {
        let _ = (now_ms, wall_ms);
        let mut inner = self.lock();
        inner.known(session_id)?;
        let (flags, owed) = inner.pump(session_id);
        Ok((flags, to_python(py, owed)))
    }

    fn reply(
        &self,
        py: Python<'_>,
        session_id: SessionId,
        request_id: u64,
        response: Option<&[u8]>,
        now_ms: i64,
        wall_ms: i64,
    ) -> PyResult<Pumped> {
        let _ = (now_ms, wall_ms);
        let mut inner = self.lock();
        inner.known(session_id)?;
        let session = inner.core.session(session_id).expect("known");
        if !session.reply(request_id, response) {
            return Err(PyKeyError::new_err(format!(
                "session {session_id} owes no request {request_id}"
            )));
        }
        let (flags, owed) = inner.advance(session_id);
        Ok((flags, to_python(py, owed)))
    }

    fn refuse(&self, session_id: SessionId, reason: String) -> PyResult<u8> {
        let mut inner = self.lock();
        inner.known(session_id)?;
        inner.core.session(session_id).expect("known").close(reason);
        Ok(inner.send(session_id))
    }

    fn poll(&self, now_ms: i64, wall_ms: i64) -> (Vec<(SessionId, u8, Vec<RequestTuple>)>, Vec<(String, i32)>) {
        let _ = (now_ms, wall_ms);
        let mut counter = [0_u8; 8];
        // SAFETY: reads at most eight bytes into an array of eight; nothing to read (EAGAIN) is as good.
        unsafe { libc::read(self.wakeup.as_raw_fd(), counter.as_mut_ptr().cast(), counter.len()) };
        (Vec::new(), Vec::new())
    }

    fn next_deadline_ms(&self) -> Option<i64> {
        None
    }
}

impl DataPlane {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("a panic left the data plane in an unknown state")
    }
}

impl Inner {
    fn known(&self, session_id: SessionId) -> PyResult<()> {
        if self.fds.contains_key(&session_id) {
            return Ok(());
        }
        Err(PyKeyError::new_err(format!("no session {session_id}")))
    }

    fn pump(&mut self, session_id: SessionId) -> (u8, Vec<OwedRequest>) {
        let started = Instant::now();
        let mut owed = Vec::new();
        let mut received_bytes = 0;
        let mut drained = false;
        while !drained && self.wants_input(session_id) {
            match self.receive(session_id) {
                Ok((Attempt::Bytes(bytes), full)) => {
                    received_bytes += bytes;
                    drained = !full;
                    self.core.advance(session_id, &mut owed);
                }
                Ok((Attempt::WouldBlock, _)) => drained = true,
                Ok((Attempt::EndOfInput, _)) => {
                    self.core.session(session_id).expect("known").end_of_input();
                    drained = true;
                }
                Err(error) => {
                    self.core
                        .session(session_id)
                        .expect("known")
                        .close(format!("receiving failed: {error}"));
                    return (CLOSED, owed);
                }
            }
            if received_bytes >= QUANTUM_BYTES || started.elapsed() >= QUANTUM {
                break;
            }
        }
        let mut flags = self.send(session_id);
        if flags & (CLOSED | STALLED) == 0 && !drained {
            flags |= MORE;
        }
        (flags, owed)
    }

    fn advance(&mut self, session_id: SessionId) -> (u8, Vec<OwedRequest>) {
        let mut owed = Vec::new();
        self.core.advance(session_id, &mut owed);
        (self.send(session_id), owed)
    }

    fn wants_input(&mut self, session_id: SessionId) -> bool {
        let Some(session) = self.core.session(session_id) else {
            return false;
        };
        session.close_reason().is_none()
            && !session.input_ended()
            && !(session.owes() && session.frames().buffered_bytes() >= BUFFERED_BYTES_MAX)
    }

    /// Receive once; says also whether all the room there was got filled, so that more may be waiting.
    fn receive(&mut self, session_id: SessionId) -> std::io::Result<(Attempt, bool)> {
        let fd = self.fds[&session_id];
        let frames = self.core.session(session_id).expect("known").frames();
        let missing_bytes = frames.missing_bytes();
        if let Some(spare) = frames.spare(QUANTUM_BYTES) {
            let room = missing_bytes.min(spare.capacity() - spare.len());
            let attempt = socket::receive(fd, spare, room)?;
            return Ok((attempt, attempt == Attempt::Bytes(room)));
        }
        self.scratch.reserve(SCRATCH_BYTES);
        let attempt = socket::receive(fd, &mut self.scratch, SCRATCH_BYTES)?;
        if let Attempt::Bytes(bytes) = attempt {
            let chunk = self.scratch.split_to(bytes);
            self.core.on_received(session_id, chunk);
        }
        Ok((attempt, attempt == Attempt::Bytes(SCRATCH_BYTES)))
    }

    fn send(&mut self, session_id: SessionId) -> u8 {
        let fd = self.fds[&session_id];
        let session = self.core.session(session_id).expect("known");
        if let Err(error) = socket::send(fd, session.output()) {
            session.close(format!("sending failed: {error}"));
            return CLOSED;
        }
        if session.is_finished() {
            return CLOSED;
        }
        let mut flags = 0;
        if !session.output().is_empty() {
            flags |= WANT_WRITE;
        }
        if !self.wants_input(session_id) {
            flags |= STALLED;
        }
        flags
    }
}

fn to_python(py: Python<'_>, owed: Vec<OwedRequest>) -> Vec<RequestTuple> {
    owed.into_iter()
        .map(|r| {
            let body = PyBytes::new(py, &r.body).unbind();
            (
                r.request_id,
                r.api_key,
                r.api_version,
                r.correlation_id,
                r.client_id,
                body,
            )
        })
        .collect()
}

fn parse_options(given: &HashMap<String, String>) -> PyResult<Options> {
    let mut options = Options::default();
    if let Some(value) = given.get("socket.request.max.bytes") {
        options.request_max_bytes = value
            .parse::<i32>()
            .ok()
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| PyValueError::new_err(format!("socket.request.max.bytes: {value:?} is no positive int")))?;
    }
    Ok(options)
}
