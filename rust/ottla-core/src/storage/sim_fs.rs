//! A simulated disk: deterministic from a seed, faulty on demand, and able to crash in two ways.
//!
//! *The process dies*: every completed write is there afterwards, the one that was under way may be there in part. *The power
//! fails*: only what was synced is sure. Of each file, any of the sectors written since its last sync may be missing (zeros,
//! or what was there before), and the file may be any length between its synced and its last one; of each directory, the
//! names changed since its last `sync_dir` survive up to any point.

mod fault;
mod state;

use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

pub use fault::{Crash, Effect, Fault, Operation};
use state::{Inode, NameChange, Node, SECTOR_BYTES, State, find_file};

use super::cache::lock;
use super::fs::{DirEntry, LogFile, LogFs, OpenMode};

/// The simulated disk. Clones share it.
#[derive(Clone, Debug)]
pub struct SimFs {
    disk: Arc<Disk>,
}

#[derive(Debug)]
struct Disk {
    state: Mutex<State>,
    released: Condvar,
}

impl SimFs {
    /// An empty disk. The seed decides what survives crashes and how much of a failing write is made.
    pub fn new(seed: u64) -> Self {
        let state = State {
            rng: seed,
            ..State::default()
        };
        Self {
            disk: Arc::new(Disk {
                state: Mutex::new(state),
                released: Condvar::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.disk.state)
    }

    /// An independent copy, as a starting point for several endings.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        let state = self.state();
        let copy = State {
            rng: seed,
            boot: state.boot,
            run: state.run,
            inodes: state.inodes.clone(),
            next_inode: state.next_inode,
            names: state.names.clone(),
            synced_names: state.synced_names.clone(),
            unsynced_names: state.unsynced_names.clone(),
            changes: state.changes,
            is_down: state.is_down,
            ..State::default()
        };
        Self {
            disk: Arc::new(Disk {
                state: Mutex::new(copy),
                released: Condvar::new(),
            }),
        }
    }

    /// Changes of the disk so far: each write, truncation, name change and sync is one.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Crash in the middle of the change that comes after `changes`; everything fails from then on.
    pub fn crash_after(&self, changes: u64) {
        self.state().crash_at = Some(changes);
    }

    /// Whether the machine is down.
    pub fn is_down(&self) -> bool {
        self.state().is_down
    }

    /// Crash, if that has not happened yet, and come up again. Files opened before are dead.
    pub fn restart(&self, crash: Crash) {
        let mut state = self.state();
        if crash == Crash::PowerFails {
            state.fail_power();
            state.boot += 1;
        }
        state.run += 1;
        state.is_down = false;
        state.crash_at = None;
        state.locked.clear();
        state.faults.clear();
    }

    /// Let some calls fail.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// All injected faults are over.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Nothing of any file is in memory any more.
    pub fn chill(&self) {
        let mut state = self.state();
        state.cold = state.inodes.keys().copied().collect();
    }

    /// How often somebody had to wait for the disk: opened a file, or read one that was not in memory.
    pub fn visits(&self) -> u64 {
        self.state().visits
    }

    /// How many calls wait for `release_stalled`.
    pub fn stalled(&self) -> u32 {
        self.state().stalled
    }

    /// Stalled calls go on, and later ones are not stalled.
    pub fn release_stalled(&self) {
        self.state().faults.retain(|fault| fault.effect != Effect::Stalls);
        self.disk.released.notify_all();
    }

    /// Bound the bytes in all files; `None`: no bound.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.state().capacity_bytes = capacity_bytes;
    }

    /// Bytes in all files.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Paths of all files, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        let state = self.state();
        state
            .names
            .iter()
            .filter(|(_, node)| **node != Node::Dir)
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Flip a bit of a file, as a failing disk does.
    ///
    /// # Errors
    /// `NotFound` if there is no such byte.
    pub fn flip_bit(&self, path: &Path, position: usize, bit: u8) -> io::Result<()> {
        let mut state = self.state();
        let number = find_file(&state, path)?;
        let inode = state.inodes.get_mut(&number).ok_or(io::ErrorKind::NotFound)?;
        *inode.data.get_mut(position).ok_or(io::ErrorKind::NotFound)? ^= 1 << bit;
        if let Some(byte) = inode.synced.get_mut(position) {
            *byte ^= 1 << bit;
        }
        Ok(())
    }

    /// Wait out a stall, or fail, as an injected fault says. `Ok(true)`: the call is to do nothing and succeed.
    fn meet_fault<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        path: &Path,
        operation: Operation,
    ) -> (MutexGuard<'a, State>, io::Result<bool>) {
        loop {
            match state.fault(path, operation) {
                None => return (state, Ok(false)),
                Some(Effect::Fails(errno)) => return (state, Err(io::Error::from_raw_os_error(errno))),
                Some(Effect::IsLost) => return (state, Ok(true)),
                Some(Effect::Stalls) => {
                    state.stalled += 1;
                    while state.faults.iter().any(|fault| fault.effect == Effect::Stalls) {
                        state = self
                            .disk
                            .released
                            .wait(state)
                            .unwrap_or_else(std::sync::PoisonError::into_inner);
                    }
                    state.stalled -= 1;
                }
            }
        }
    }

    /// Change names after the checks that all such calls share; in a crash any change either happens or not.
    fn rename_or_remove(&self, path: &Path, operation: Operation, change: NameChange) -> io::Result<()> {
        let state = self.state();
        let run = state.run;
        state.check_up(run)?;
        let (mut state, met) = self.meet_fault(state, path, operation);
        met?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let crashes = state.change();
        if !crashes || state.random(2) == 0 {
            state.change_name(change);
        }
        state.check_up(run)
    }
}

#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    path: PathBuf,
    inode: u64,
    run: u64,
}

impl LogFile for SimFile {
    fn size_bytes(&self) -> io::Result<u64> {
        let state = self.fs.state();
        state.check_up(self.run)?;
        Ok(state.inodes.get(&self.inode).map_or(0, |inode| inode.data.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let state = self.fs.state();
        state.check_up(self.run)?;
        let (mut state, met) = self.fs.meet_fault(state, &self.path, Operation::Read);
        met?;
        state.visits += u64::from(state.cold.remove(&self.inode));
        let data = state.inodes.get(&self.inode).map_or(&[][..], |inode| &inode.data);
        let rest = data
            .get(usize::try_from(position).unwrap_or(usize::MAX)..)
            .unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        if self.fs.state().cold.contains(&self.inode) {
            return Ok(None);
        }
        self.read_at(buffer, position).map(Some)
    }

    fn is_cached(&self, _position: u64, _len: usize) -> bool {
        !self.fs.state().cold.contains(&self.inode)
    }

    fn write_all_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let state = self.fs.state();
        state.check_up(self.run)?;
        let (mut state, met) = self.fs.meet_fault(state, &self.path, Operation::Write);
        let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
        let crashes = met.is_ok() && state.change();
        let mut len = bytes.len();
        let mut result = met.map(drop);
        if result.is_err() || crashes {
            len = state.random(len as u64 + 1) as usize;
        } else if let Some(capacity_bytes) = state.capacity_bytes {
            let held = state.inodes.get(&self.inode).map_or(0, |inode| inode.data.len() as u64);
            let grows = (position + len as u64).saturating_sub(held);
            let room = capacity_bytes.saturating_sub(state.used_bytes());
            if grows > room {
                len = len.saturating_sub((grows - room) as usize);
                result = Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
        }
        let start = usize::try_from(position).map_err(io::Error::other)?;
        if let Some(inode) = state.inodes.get_mut(&self.inode).filter(|_| len > 0) {
            if inode.data.len() < start + len {
                inode.data.resize(start + len, 0);
            }
            inode.data[start..start + len].copy_from_slice(&bytes[..len]);
            inode
                .dirty_sectors
                .extend(start / SECTOR_BYTES..(start + len).div_ceil(SECTOR_BYTES));
        }
        state.check_up(self.run)?;
        result
    }

    fn truncate(&self, size_bytes: u64) -> io::Result<()> {
        let state = self.fs.state();
        state.check_up(self.run)?;
        let (mut state, met) = self.fs.meet_fault(state, &self.path, Operation::Truncate);
        met?;
        let crashes = state.change();
        let len = usize::try_from(size_bytes).map_err(io::Error::other)?;
        if (!crashes || state.random(2) == 0)
            && let Some(inode) = state.inodes.get_mut(&self.inode)
        {
            let old_len = inode.data.len();
            inode.data.resize(len, 0);
            // What is cut and grows again comes back as zeros.
            inode
                .dirty_sectors
                .extend(len.min(old_len) / SECTOR_BYTES..old_len.max(len).div_ceil(SECTOR_BYTES));
        }
        state.check_up(self.run)
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = self.fs.state();
        state.check_up(self.run)?;
        let (mut state, met) = self.fs.meet_fault(state, &self.path, Operation::Sync);
        if met? {
            return Ok(());
        }
        let crashes = state.change();
        if !crashes || state.random(2) == 0 {
            state.sync_inode(self.inode);
        }
        state.check_up(self.run)
    }

    fn raw_fd(&self) -> Option<RawFd> {
        None
    }
}

impl LogFs for SimFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn LogFile>> {
        let mut state = self.state();
        let run = state.run;
        state.check_up(run)?;
        let inode = match find_file(&state, path) {
            Ok(inode) => inode,
            Err(error) if error.kind() == io::ErrorKind::NotFound && mode == OpenMode::Create => {
                if path
                    .parent()
                    .is_some_and(|dir| state.names.get(dir) != Some(&Node::Dir))
                {
                    return Err(error);
                }
                let met;
                (state, met) = self.meet_fault(state, path, Operation::Create);
                met?;
                let crashes = state.change();
                if crashes && state.random(2) == 0 {
                    state.check_up(run)?;
                }
                state.next_inode += 1;
                let inode = state.next_inode;
                state.inodes.insert(inode, Inode::default());
                state.change_name(NameChange::Link(path.to_path_buf(), Node::File(inode)));
                state.check_up(run)?;
                inode
            }
            Err(error) => return Err(error),
        };
        state.visits += 1;
        drop(state);
        Ok(Arc::new(SimFile {
            fs: self.clone(),
            path: path.to_path_buf(),
            inode,
            run,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let run = state.run;
        state.check_up(run)?;
        let missing: Vec<PathBuf> = path
            .ancestors()
            .filter(|dir| !dir.as_os_str().is_empty() && !state.names.contains_key(*dir))
            .map(Path::to_path_buf)
            .collect();
        for dir in missing.into_iter().rev() {
            let crashes = state.change();
            if !crashes || state.random(2) == 0 {
                state.change_name(NameChange::Link(dir, Node::Dir));
            }
            state.check_up(run)?;
        }
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state();
        state.check_up(state.run)?;
        if state.names.get(path) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let entries = state.names.iter().filter(|(name, _)| name.parent() == Some(path));
        Ok(entries
            .filter_map(|(name, node)| {
                let name = name.file_name()?.to_str()?.to_owned();
                Some(DirEntry {
                    name,
                    is_dir: *node == Node::Dir,
                })
            })
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let change = NameChange::Rename(from.to_path_buf(), to.to_path_buf());
        self.rename_or_remove(from, Operation::Rename, change)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.rename_or_remove(path, Operation::Remove, NameChange::Unlink(path.to_path_buf()))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.rename_or_remove(path, Operation::Remove, NameChange::Unlink(path.to_path_buf()))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let run = state.run;
        state.check_up(run)?;
        let crashes = state.change();
        if !crashes || state.random(2) == 0 {
            let changes = std::mem::take(&mut state.unsynced_names);
            for (dir, change) in changes {
                if dir == path {
                    State::apply(&mut state.synced_names, &change);
                } else {
                    state.unsynced_names.push((dir, change));
                }
            }
        }
        state.check_up(run)
    }

    fn sync_all(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let run = state.run;
        state.check_up(run)?;
        let crashes = state.change();
        if !crashes || state.random(2) == 0 {
            let inodes: Vec<u64> = state.inodes.keys().copied().collect();
            for inode in inodes {
                state.sync_inode(inode);
            }
            state.synced_names = state.names.clone();
            state.unsynced_names.clear();
        }
        state.check_up(run)
    }

    fn file_size_bytes(&self, path: &Path) -> io::Result<u64> {
        let state = self.state();
        state.check_up(state.run)?;
        let inode = find_file(&state, path)?;
        Ok(state.inodes.get(&inode).map_or(0, |inode| inode.data.len() as u64))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.open(path, OpenMode::Create)?;
        let mut state = self.state();
        if !state.locked.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock {
            fs: self.clone(),
            path: path.to_path_buf(),
            run: state.run,
        }))
    }

    fn available_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.state();
        state.check_up(state.run)?;
        Ok(state
            .capacity_bytes
            .map_or(u64::MAX / 2, |capacity| capacity.saturating_sub(state.used_bytes())))
    }

    fn boot_id(&self) -> io::Result<String> {
        let state = self.state();
        state.check_up(state.run)?;
        Ok(format!("boot-{}", state.boot))
    }
}

struct SimLock {
    fs: SimFs,
    path: PathBuf,
    run: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.fs.state();
        if state.run == self.run {
            state.locked.remove(&self.path);
        }
    }
}
