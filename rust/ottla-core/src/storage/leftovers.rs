//! Files that an interrupted operation left in a partition's directory, dealt with as Kafka does (`LogLoader`).
//!
//! The cleaner writes `.cleaned` files; when they are complete they become `.swap`, the segments that they replace go, and
//! they get their real names. `.cleaned` is therefore worthless after a crash, and `.swap` is to be taken to its end.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::segment::{Files, parse_file_name};
use super::walk::Walk;

const CLEANED: &str = ".cleaned";
const SWAP: &str = ".swap";
/// Suffix of files that are to be removed.
pub(crate) const DELETED: &str = ".deleted";
const TEMPORARY: &str = ".tmp";

/// Clear up and return the names that remain.
pub(crate) fn clear(files: &Files, dir: &Arc<Path>, notes: &mut Vec<String>) -> io::Result<Vec<String>> {
    let mut names: BTreeSet<String> = files.fs.read_dir(dir)?.into_iter().map(|entry| entry.name).collect();
    let remove = |name: &str| files.fs.remove_file(&dir.join(name));
    let first_cleaned = names.iter().filter_map(|name| base_of(name, CLEANED)).min();
    let mut swaps = Vec::new();
    for name in names.clone() {
        let is_leftover = [CLEANED, DELETED, TEMPORARY]
            .iter()
            .any(|suffix| name.ends_with(suffix));
        // A split of one segment into several was interrupted: none of its parts counts (KAFKA-6264).
        let is_partial = base_of(&name, SWAP)
            .zip(first_cleaned)
            .is_some_and(|(base, first)| base >= first);
        if is_leftover || is_partial {
            remove(&name)?;
            names.remove(&name);
            notes.push(format!("{name} was left over and removed"));
        } else if name.ends_with(SWAP) {
            swaps.push(name);
        }
    }
    if swaps.is_empty() {
        return Ok(names.into_iter().collect());
    }
    // What the swapped-in segments cover was to be removed before they get their names.
    let (mut first, mut end) = (i64::MAX, i64::MIN);
    for name in &swaps {
        if let Some((base_offset, "log")) = name.strip_suffix(SWAP).and_then(parse_file_name) {
            first = first.min(base_offset);
            end = end.max(end_offset(files, dir, name, base_offset)?);
        }
    }
    for name in names.clone() {
        if !name.ends_with(SWAP)
            && parse_file_name(&name)
                .is_some_and(|(offset, suffix)| suffix != "snapshot" && offset >= first && offset < end)
        {
            remove(&name)?;
            names.remove(&name);
        }
    }
    for name in swaps {
        names.remove(&name);
        if let Some(final_name) = name.strip_suffix(SWAP) {
            files.fs.rename(&dir.join(&name), &dir.join(final_name))?;
            notes.push(format!("{final_name} was swapped in"));
            names.insert(final_name.to_owned());
        }
    }
    Ok(names.into_iter().collect())
}

fn base_of(name: &str, suffix: &str) -> Option<i64> {
    name.strip_suffix(suffix)
        .and_then(parse_file_name)
        .map(|(base_offset, _)| base_offset)
}

/// The offset after the last record of a segment under another name.
fn end_offset(files: &Files, dir: &Path, name: &str, base_offset: i64) -> io::Result<i64> {
    let file = files.fs.open(&dir.join(name), super::fs::OpenMode::Read)?;
    let mut end_offset = base_offset;
    let mut walk = Walk::new(&*file, 0, file.size_bytes()?);
    while let Some((_, header)) = walk.next_header()? {
        end_offset = header.next_offset();
    }
    Ok(end_offset)
}
