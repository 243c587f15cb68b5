//! Files whose content decides something: a key, a token, whom to trust. Its writer decides it.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

/// Whom a file may belong to, beside root and this user, and which group may write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(unix), allow(dead_code, reason = "owner and group are Unix's"))]
pub(crate) struct Trust {
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
}

/// What kind of file can be relied upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    /// A FIFO, or a pipe of this process. What was read of it is gone.
    #[cfg_attr(not(unix), allow(dead_code, reason = "pipes are Unix's"))]
    Pipe,
}

/// Why a file is not relied upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untrusted {
    /// A folder, a socket or a device.
    NotAFile,
    #[cfg_attr(not(unix), allow(dead_code, reason = "owner and mode are Unix's"))]
    ForeignOwner { uid: u32 },
    /// Every user can.
    #[cfg_attr(not(unix), allow(dead_code, reason = "owner and mode are Unix's"))]
    WritableByOthers { mode: u32 },
    /// Its group can, and no other user.
    #[cfg_attr(not(unix), allow(dead_code, reason = "owner and mode are Unix's"))]
    WritableByGroup { mode: u32, gid: u32 },
}

/// Opens a file for reading, following links; the opened file is checked afterwards, so it cannot be swapped
/// in between.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // A FIFO without a writer must not hang the open, and a terminal must not become ours.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        options.custom_flags(flags.bits().cast_signed());
    }
    options.open(path)
}

/// Returns the kind of a regular file or pipe that belongs to root, this user or a trusted owner, and that no
/// others can write, except for a trusted group.
pub(crate) fn check(metadata: &Metadata, trust: Trust) -> Result<Kind, Untrusted> {
    let kind = kind(metadata).ok_or(Untrusted::NotAFile)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;

        let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.mode() & 0o777);
        if ![0, rustix::process::geteuid().as_raw()].contains(&uid) && trust.owner != Some(uid) {
            return Err(Untrusted::ForeignOwner { uid });
        }
        if mode & 0o002 != 0 {
            return Err(Untrusted::WritableByOthers { mode });
        }
        // The user's own group too: whether others are in it, now or later, cannot be told from here.
        if mode & 0o020 != 0 && trust.group != Some(gid) {
            return Err(Untrusted::WritableByGroup { mode, gid });
        }
    }
    #[cfg(not(unix))]
    let _ = trust;
    Ok(kind)
}

fn kind(metadata: &Metadata) -> Option<Kind> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        if metadata.file_type().is_fifo() {
            return Some(Kind::Pipe);
        }
    }
    metadata.is_file().then_some(Kind::Regular)
}
