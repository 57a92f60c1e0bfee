//! What can go wrong with a simulated disk.

/// How the machine stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process dies; the system goes on.
    ProcessDies,
    /// The power fails.
    PowerFails,
}

/// What an injected fault hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// `write_all_at`.
    Write,
    /// `sync_data`.
    Sync,
    /// `truncate`.
    Truncate,
    /// `rename`.
    Rename,
    /// `open` that would make the file.
    Create,
    /// `read_at`.
    Read,
    /// `remove_file`, `remove_dir_all`.
    Remove,
}

/// What an injected fault does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The call fails with this `errno`; of a write, any prefix may have been made.
    Fails(i32),
    /// A sync says that it succeeded and did nothing.
    IsLost,
    /// The call does not return until `release_stalled`.
    Stalls,
}

/// A fault that hits calls on paths that end with `path_suffix`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Which files.
    pub path_suffix: String,
    /// Which calls.
    pub operation: Operation,
    /// What happens to them.
    pub effect: Effect,
    /// How many such calls still go well before.
    pub after: u32,
    /// How many calls are hit.
    pub times: u32,
}
