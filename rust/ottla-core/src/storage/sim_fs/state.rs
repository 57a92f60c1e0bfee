//! What a simulated disk holds, what of it is durable, and what a power failure leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::fault::{Effect, Fault, Operation};

/// What a disk writes or loses as a whole.
pub(super) const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub data: Vec<u8>,
    pub synced: Vec<u8>,
    pub dirty_sectors: BTreeSet<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Node {
    Dir,
    File(u64),
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Link(PathBuf, Node),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

pub(super) type Names = BTreeMap<PathBuf, Node>;

#[derive(Debug, Default)]
pub(super) struct State {
    pub rng: u64,
    pub boot: u64,
    /// Handles and locks of earlier runs are dead.
    pub run: u64,
    pub inodes: BTreeMap<u64, Inode>,
    pub next_inode: u64,
    pub names: Names,
    pub synced_names: Names,
    /// By directory, since its last sync.
    pub unsynced_names: Vec<(PathBuf, NameChange)>,
    pub locked: BTreeSet<PathBuf>,
    pub changes: u64,
    pub crash_at: Option<u64>,
    pub is_down: bool,
    pub capacity_bytes: Option<u64>,
    pub faults: Vec<Fault>,
    pub stalled: u32,
    /// Files that are not in memory.
    pub cold: BTreeSet<u64>,
    /// How often somebody had to wait for the disk: opened a file, or read one that was not in memory.
    pub visits: u64,
}

impl State {
    pub fn random(&mut self, below: u64) -> u64 {
        // splitmix64
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    pub fn check_up(&self, run: u64) -> io::Result<()> {
        if self.is_down || run != self.run {
            return Err(io::Error::other("the simulated machine has crashed"));
        }
        Ok(())
    }

    /// Count a change of the disk; `true` if the machine crashes in it.
    pub fn change(&mut self) -> bool {
        self.changes += 1;
        if self.crash_at.is_some_and(|at| self.changes > at) {
            self.is_down = true;
        }
        self.is_down
    }

    pub fn fault(&mut self, path: &Path, operation: Operation) -> Option<Effect> {
        let name = path.to_string_lossy();
        let fault = self
            .faults
            .iter_mut()
            .find(|fault| fault.times > 0 && fault.operation == operation && name.ends_with(&fault.path_suffix))?;
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        fault.times -= 1;
        Some(fault.effect)
    }

    pub fn rename_in(names: &mut Names, from: &Path, to: &Path) {
        let moved: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            if let (Some(node), Ok(rest)) = (names.remove(&path), path.strip_prefix(from)) {
                // Joining an empty rest would add a slash.
                let target = if rest.as_os_str().is_empty() {
                    to.to_path_buf()
                } else {
                    to.join(rest)
                };
                names.insert(target, node);
            }
        }
    }

    pub fn apply(names: &mut Names, change: &NameChange) {
        match change {
            NameChange::Link(path, node) => {
                names.insert(path.clone(), *node);
            }
            NameChange::Unlink(path) => names.retain(|name, _| !name.starts_with(path)),
            NameChange::Rename(from, to) => Self::rename_in(names, from, to),
        }
    }

    pub fn change_name(&mut self, change: NameChange) {
        Self::apply(&mut self.names, &change);
        let (NameChange::Link(path, _) | NameChange::Unlink(path) | NameChange::Rename(path, _)) = &change;
        let dir = path.parent().unwrap_or(Path::new("")).to_path_buf();
        self.unsynced_names.push((dir, change));
    }

    pub fn used_bytes(&self) -> u64 {
        let files = self.names.values().filter_map(|node| match node {
            Node::File(inode) => self.inodes.get(inode),
            Node::Dir => None,
        });
        files.map(|inode| inode.data.len() as u64).sum()
    }

    pub fn sync_inode(&mut self, inode: u64) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.synced.clone_from(&inode.data);
            inode.dirty_sectors.clear();
        }
    }

    pub fn fail_power(&mut self) {
        let mut names = std::mem::take(&mut self.synced_names);
        let mut cut: BTreeMap<PathBuf, u64> = BTreeMap::new();
        let changes = std::mem::take(&mut self.unsynced_names);
        for (dir, change) in &changes {
            let survive = if let Some(&left) = cut.get(dir) {
                left
            } else {
                let in_dir = changes.iter().filter(|(other, _)| other == dir).count() as u64;
                self.random(in_dir + 1)
            };
            cut.insert(dir.clone(), survive.saturating_sub(1));
            if survive > 0 {
                Self::apply(&mut names, change);
            }
        }
        // What lies in a directory that did not survive did not either.
        let orphans: Vec<PathBuf> = names
            .keys()
            .filter(|path| {
                let mut parents = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
                parents.any(|parent| names.get(parent) != Some(&Node::Dir) && parent != Path::new("/"))
            })
            .cloned()
            .collect();
        names.retain(|path, _| !orphans.contains(path));
        self.names.clone_from(&names);
        self.synced_names = names;
        let inodes: Vec<u64> = self.inodes.keys().copied().collect();
        for number in inodes {
            if let Some(mut inode) = self.inodes.remove(&number) {
                self.tear(&mut inode);
                self.inodes.insert(number, inode);
            }
        }
    }

    pub fn tear(&mut self, inode: &mut Inode) {
        let (synced_len, len) = (inode.synced.len(), inode.data.len());
        let mode = self.random(4);
        let mut survivor = inode.synced.clone();
        if mode > 0 && !(inode.dirty_sectors.is_empty() && synced_len == len) {
            let final_len = match mode {
                1 => len,
                _ => synced_len.min(len) + self.random(synced_len.abs_diff(len) as u64 + 1) as usize,
            };
            survivor.resize(final_len, 0);
            let dirty: Vec<usize> = inode.dirty_sectors.iter().copied().collect();
            let prefix = self.random(dirty.len() as u64 + 1) as usize;
            for (number, sector) in dirty.into_iter().enumerate() {
                let survives = match mode {
                    1 => true,
                    2 => number < prefix,
                    _ => self.random(2) == 0,
                };
                let (start, end) = (
                    sector * SECTOR_BYTES,
                    ((sector + 1) * SECTOR_BYTES).min(len).min(final_len),
                );
                if survives && start < end {
                    survivor[start..end].copy_from_slice(&inode.data[start..end]);
                }
            }
        }
        inode.data.clone_from(&survivor);
        inode.synced = survivor;
        inode.dirty_sectors.clear();
    }
}

pub(super) fn find_file(state: &State, path: &Path) -> io::Result<u64> {
    match state.names.get(path) {
        Some(Node::File(inode)) => Ok(*inode),
        Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}
