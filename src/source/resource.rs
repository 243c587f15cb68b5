//! What an operating system can run out of.

use std::io;

/// What the operating system has none left of, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Resource {
    /// Files, sockets and pipes that one process, or the whole machine, may have open.
    #[error(
        "file descriptors left: find what leaves files or connections open, or raise the limit (`ulimit -n`, systemd's \
         LimitNOFILE=)"
    )]
    Descriptors,
    /// Threads.
    #[error(
        "threads left: start fewer, or raise the limit (`ulimit -u`, systemd's TasksMax=, a container's pids limit)"
    )]
    Threads,
    /// Processes.
    #[error(
        "processes left: start fewer, or raise the limit (`ulimit -u`, systemd's TasksMax=, a container's pids limit)"
    )]
    Processes,
    /// Memory.
    #[error("memory left: give this process or machine more")]
    Memory,
}

impl Resource {
    /// What an error of opening or connecting says is exhausted.
    #[cfg(unix)]
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        use rustix::io::Errno;

        match Errno::from_io_error(error)? {
            Errno::MFILE | Errno::NFILE => Some(Self::Descriptors),
            Errno::NOMEM => Some(Self::Memory),
            _ => None,
        }
    }

    /// What an error of opening or connecting says is exhausted.
    #[cfg(not(unix))]
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        (error.kind() == io::ErrorKind::OutOfMemory).then_some(Self::Memory)
    }
}
