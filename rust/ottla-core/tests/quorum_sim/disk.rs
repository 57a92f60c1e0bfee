//! A disk in memory that forgets what was not synced when the power fails.
//!
//! After a power failure each unsynced write survives or not, independently of the others, the surviving ones possibly
//! torn at a sector; each unsynced change of a name survives or not. That is more than a file system does, and less than
//! the quorum's log may rely on.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use ottla_core::storage::fs::{DirEntry, LogFile, LogFs, OpenMode};

use crate::chance::Chance;

const SECTOR: usize = 512;

#[derive(Debug, Clone)]
enum Write {
    Data { position: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl Write {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Truncate(size) => content.resize(*size, 0),
            Self::Data { position, bytes } => {
                if content.len() < position + bytes.len() {
                    content.resize(position + bytes.len(), 0);
                }
                content[*position..position + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Inode {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Write>,
}

#[derive(Debug, Clone)]
enum NameOp {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    name_ops: Vec<NameOp>,
    /// Operations that still succeed before the process dies in the middle of its work.
    dies_after: Option<u64>,
    full: bool,
}

impl State {
    fn apply(names: &mut BTreeMap<PathBuf, usize>, op: &NameOp) {
        match op {
            NameOp::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameOp::Unlink(path) => {
                names.remove(path);
            }
            NameOp::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }

    fn change(&mut self, op: NameOp) {
        Self::apply(&mut self.names, &op);
        self.name_ops.push(op);
    }

    /// Counts down to the death of the process. Only what changes the disk counts.
    fn step(&mut self) -> io::Result<()> {
        match &mut self.dies_after {
            Some(0) => Err(io::Error::other("the process died")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct File {
    disk: Disk,
    inode: usize,
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// From now on so many changes succeed, and then none until `process_died` or `power_failed`.
    pub fn die_after(&self, operations: u64) {
        self.state().dies_after = Some(operations);
    }

    pub fn is_dead(&self) -> bool {
        self.state().dies_after == Some(0)
    }

    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// The process is gone; every completed write survives.
    pub fn process_died(&self) {
        self.state().dies_after = None;
    }

    /// The machine is gone; what was synced survives, of the rest anything may.
    pub fn power_failed(&self, chance: &mut Chance) {
        let mut state = self.state();
        let state = &mut *state;
        state.dies_after = None;
        let mut names = std::mem::take(&mut state.synced_names);
        for op in state.name_ops.drain(..) {
            if chance.percent(50) {
                State::apply(&mut names, &op);
            }
        }
        state.names = names.clone();
        state.synced_names = names;
        for inode in &mut state.inodes {
            let mut content = std::mem::take(&mut inode.synced);
            for write in inode.unsynced.drain(..) {
                if !chance.percent(50) {
                    continue;
                }
                let write = match write {
                    Write::Data { position, bytes } if chance.percent(50) => {
                        let sectors = bytes.len().div_ceil(SECTOR) as u64;
                        let kept = (chance.below(sectors + 1) as usize * SECTOR).min(bytes.len());
                        let from_start = chance.percent(70);
                        if from_start {
                            Write::Data {
                                position,
                                bytes: bytes[..kept].to_vec(),
                            }
                        } else {
                            let skipped = bytes.len() - kept;
                            Write::Data {
                                position: position + skipped,
                                bytes: bytes[skipped..].to_vec(),
                            }
                        }
                    }
                    other => other,
                };
                write.apply(&mut content);
            }
            inode.now = content.clone();
            inode.synced = content;
        }
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.state()
            .names
            .get(path)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl LogFile for File {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].now.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let content = &state.inodes[self.inode].now;
        let from = content.get(position as usize..).unwrap_or_default();
        let size = from.len().min(buffer.len());
        buffer[..size].copy_from_slice(&from[..size]);
        Ok(size)
    }

    fn write_all_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.step()?;
        let mut bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
        let inode = self.inode;
        let extends = position as usize + bytes.len() > state.inodes[inode].now.len();
        let dies = state.dies_after == Some(0);
        let full = state.full && extends;
        if dies || full {
            bytes.truncate(bytes.len() / 2);
        }
        let write = Write::Data {
            position: position as usize,
            bytes,
        };
        write.apply(&mut state.inodes[inode].now);
        state.inodes[inode].unsynced.push(write);
        if full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if dies {
            Err(io::Error::other("the process died"))
        } else {
            Ok(())
        }
    }

    fn truncate(&self, size_bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.step()?;
        let write = Write::Truncate(size_bytes as usize);
        write.apply(&mut state.inodes[self.inode].now);
        state.inodes[self.inode].unsynced.push(write);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.step()?;
        let inode = &mut state.inodes[self.inode];
        inode.synced = inode.now.clone();
        inode.unsynced.clear();
        Ok(())
    }

    fn raw_fd(&self) -> Option<RawFd> {
        None
    }
}

impl LogFs for Disk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn LogFile>> {
        let inode = match self.inode(path) {
            Ok(inode) => inode,
            Err(error) if mode != OpenMode::Create => return Err(error),
            Err(_) => {
                let mut state = self.state();
                state.step()?;
                if state.full {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.change(NameOp::Link(path.to_path_buf(), inode));
                inode
            }
        };
        Ok(Arc::new(File {
            disk: self.clone(),
            inode,
        }))
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let in_dir = |name: &&PathBuf| name.parent() == Some(path);
        let entry = |name: &PathBuf| {
            let name = name.file_name().unwrap().to_str().unwrap().to_owned();
            DirEntry { name, is_dir: false }
        };
        Ok(self.state().names.keys().filter(in_dir).map(entry).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.inode(from)?;
        let mut state = self.state();
        state.step()?;
        state.change(NameOp::Rename(from.to_path_buf(), to.to_path_buf(), inode));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inode(path)?;
        let mut state = self.state();
        state.step()?;
        state.change(NameOp::Unlink(path.to_path_buf()));
        Ok(())
    }

    fn remove_dir_all(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.synced_names = state.names.clone();
        state.name_ops.clear();
        Ok(())
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        for inode in &mut self.state().inodes {
            inode.synced = inode.now.clone();
            inode.unsynced.clear();
        }
        self.sync_dir(path)
    }

    fn file_size_bytes(&self, path: &Path) -> io::Result<u64> {
        let inode = self.inode(path)?;
        Ok(self.state().inodes[inode].now.len() as u64)
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }

    fn available_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok("simulated".to_owned())
    }
}
