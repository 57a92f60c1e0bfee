//! Space that a log directory keeps in a file, to be given away when a start finds none.
//!
//! A running broker stops taking records while there is still room for all else (`reserved_bytes`). Others may fill the
//! disk to its last byte, though, and a start must write a little before it can serve what it has: the quorum's state,
//! the leader epochs that it raises, checkpoints.

use std::io::{self, IoSlice};
use std::path::Path;

use super::fs::{LogFs, OpenMode};

pub(crate) const BALLAST_FILE: &str = ".ballast";
pub(crate) const BALLAST_BYTES: usize = 4 << 20;
const PIECE_BYTES: usize = 64 << 10;

/// Give the space away if there is none left. True: so it was.
pub(crate) fn release_if_full(fs: &dyn LogFs, dir: &Path) -> io::Result<bool> {
    if fs.available_bytes(dir)? >= BALLAST_BYTES as u64 {
        return Ok(false);
    }
    match fs.remove_file(&dir.join(BALLAST_FILE)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Take the space, if it is not taken and there is so much beside `reserved_bytes`. False: there is not.
pub(crate) fn take(fs: &dyn LogFs, dir: &Path, reserved_bytes: u64) -> io::Result<bool> {
    let path = dir.join(BALLAST_FILE);
    let is_taken = fs.file_size_bytes(&path).is_ok_and(|size| size == BALLAST_BYTES as u64);
    if is_taken {
        return Ok(true);
    }
    if fs.available_bytes(dir)? < reserved_bytes + BALLAST_BYTES as u64 {
        return Ok(false);
    }
    let file = fs.open(&path, OpenMode::Create)?;
    let mut state = 1_u64;
    let mut piece = vec![0; PIECE_BYTES];
    for position in (0..BALLAST_BYTES).step_by(PIECE_BYTES) {
        // Of bytes that could be compressed a file system may keep little.
        for byte in piece.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            byte.copy_from_slice(&state.to_le_bytes());
        }
        if let Err(error) = file.write_all_at(&[IoSlice::new(&piece)], position as u64) {
            fs.remove_file(&path)?;
            return Err(error);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sim_fs::SimFs;

    const RESERVED_BYTES: u64 = 1 << 20;

    fn disk(capacity_bytes: u64) -> SimFs {
        let fs = SimFs::new(1);
        fs.create_dir_all(Path::new("/d")).expect("a good disk");
        fs.set_capacity(Some(capacity_bytes));
        fs
    }

    #[test]
    fn it_is_taken_once_and_given_away_when_the_disk_is_full() {
        let dir = Path::new("/d");
        let fs = disk(16 << 20);
        for _ in 0..2 {
            assert!(take(&fs, dir, RESERVED_BYTES).expect("room"));
            assert_eq!(fs.used_bytes(), BALLAST_BYTES as u64);
        }
        assert!(!release_if_full(&fs, dir).expect("works"), "there is room");
        fs.set_capacity(Some(BALLAST_BYTES as u64));
        assert!(release_if_full(&fs, dir).expect("works"));
        assert_eq!(fs.used_bytes(), 0);
        assert!(!release_if_full(&fs, dir).expect("works"), "it is gone");
    }

    #[test]
    fn it_leaves_what_is_reserved_and_nothing_of_itself_where_it_does_not_fit() {
        let dir = Path::new("/d");
        let fs = disk(BALLAST_BYTES as u64 + RESERVED_BYTES - 1);
        assert!(!take(&fs, dir, RESERVED_BYTES).expect("nothing to do"));
        assert!(fs.paths().is_empty());
    }
}
