//! Files whose content decides something: a key, a token, whom to trust. Whoever can write one decides it.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

/// Why a file is not relied upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untrusted {
    NotAFile,
    #[cfg_attr(not(unix), allow(dead_code, reason = "owner and mode are Unix's"))]
    ForeignOwner {
        uid: u32,
    },
    #[cfg_attr(not(unix), allow(dead_code, reason = "owner and mode are Unix's"))]
    WritableByOthers {
        mode: u32,
    },
}

/// Opens a file for reading, following links; what was opened is then checked, so nobody can swap it in between.
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

/// A regular file that belongs to root or to this user, and that nobody else can write.
pub(crate) fn check(metadata: &Metadata) -> Result<(), Untrusted> {
    if !metadata.is_file() {
        return Err(Untrusted::NotAFile);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;

        let (uid, mode) = (metadata.uid(), metadata.mode() & 0o777);
        if ![0, rustix::process::geteuid().as_raw()].contains(&uid) {
            return Err(Untrusted::ForeignOwner { uid });
        }
        // The user's own group too: whether others are in it, now or later, cannot be told from here.
        if mode & 0o022 != 0 {
            return Err(Untrusted::WritableByOthers { mode });
        }
    }
    Ok(())
}
