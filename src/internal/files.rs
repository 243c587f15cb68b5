//! Files: what can be wrong with one, paths that stay the same, and files whose writer decides something.

pub(crate) mod private;

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What is wrong with a file, and what to do next. The error that contains it names the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// A directory, a socket or a device; or a pipe where none can be used.
    #[error("it is neither a regular file nor a pipe that can be used here: name the file itself")]
    NotAFile,
    /// A symbolic link points to nothing.
    #[error("it is a symbolic link to a file that does not exist: correct or remove the link")]
    DanglingLink,
    /// The operating system did not let it be read.
    #[error(
        "it cannot be read ({0}): check the path and the disk, and that this user may read it and search \
         each directory above it"
    )]
    Unreadable(ErrorKind),
    /// Another user owns it and could change it.
    #[error(
        "it belongs to another user (uid {uid}), who could put something else there: chown it to root or to \
         yourself"
    )]
    ForeignOwner {
        /// The owner.
        uid: u32,
    },
    /// Others may write it and could change it.
    #[error("others can write it (mode {mode:03o}), and could put something else there: chmod go-w it")]
    WritableByOthers {
        /// The permission bits.
        mode: u32,
    },
    /// Its group may write it and could change it.
    #[error(
        "its group (gid {gid}) can write it (mode {mode:03o}), and could put something else there: chmod g-w \
         it"
    )]
    WritableByGroup {
        /// The permission bits.
        mode: u32,
        /// The group.
        gid: u32,
    },
    /// Strict permissions are required, and others may read it.
    #[error("others can read it (mode {mode:03o}) and strict permissions are required: chmod 400 or 600 it")]
    ReadableByOthers {
        /// The permission bits.
        mode: u32,
    },
    /// It is larger than any file of its kind.
    #[error(
        "it is larger than {limit} bytes, more than any such file needs: name the right file, or remove what \
         does not belong in it"
    )]
    TooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
    /// It must be private, or a file beside it must, such as its lock: one is a link or no regular file, or
    /// is another user's, or open to others.
    #[error(
        "it and the files of keysheath beside it, such as its .lock, must be regular files of this user that \
         no other user can read or write: name another path where one is a link, a folder or no name at all; \
         where one is another user's, chown it to this user; and chmod 600 it"
    )]
    NotPrivate,
    /// It or a file beside it has a second name (a hard link), through which it could be changed.
    #[error(
        "it, or a file beside it such as its .lock, has another name too (a hard link): remove the other \
         name, or put a copy in the place of the file"
    )]
    Linked,
    /// The name is like those of this crate's own files beside another.
    #[error(
        "names that end in .lock and .keysheath-new are those of keysheath's own files beside another: give \
         it another name"
    )]
    ReservedName,
    /// Something else is where its new content is written before it takes the place of the old.
    #[error(
        "the file beside it whose name ends in .keysheath-new is not what an interrupted write leaves: move \
         that away; it was left as it is"
    )]
    InTheWay,
    /// There is no such folder.
    #[error("its folder is not there: make it first, with mode 700")]
    NoFolder,
    /// Others can replace files in its folder.
    #[error(
        "others can replace files in its folder: the folder must belong to root or to this user, and be \
         writable by no other user (or be sticky, as /tmp is): chmod go-w it"
    )]
    OpenFolder,
    /// Its folder is on a network file system.
    #[error(
        "its folder is on a network or FUSE file system, where neither locks nor fsync can be relied upon: \
         name a folder on a local disk"
    )]
    NetworkFileSystem,
    /// It, or its folder, may not be written.
    #[error(
        "it cannot be written (the file, its folder or the disk is read-only): let this user write there"
    )]
    ReadOnly,
    /// The disk is full.
    #[error("it cannot be written (the disk, or what this user may use of it, is full): make room")]
    Full,
    /// The operating system did not let it be written.
    #[error("it cannot be written ({0}): check the path, this user's rights and the disk")]
    Unwritable(ErrorKind),
}

impl FileProblem {
    /// Returns what else helps where the file's reader has settings of trust.
    pub(crate) const fn other_way(self) -> OtherWay {
        OtherWay(self)
    }

    pub(crate) fn of_reading(error: impl Into<io::Error>) -> Self {
        Self::Unreadable(error.into().kind())
    }

    pub(crate) fn of_writing(error: impl Into<io::Error>) -> Self {
        match error.into().kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Self::Full,
            kind => Self::Unwritable(kind),
        }
    }
}

/// The end of a message about a file whose reader has `with_trusted_owner` and `with_trusted_group`.
pub(crate) struct OtherWay(FileProblem);

impl fmt::Display for OtherWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            FileProblem::ForeignOwner { uid } => {
                write!(f, ", or trust that user with with_trusted_owner({uid})")
            }
            FileProblem::WritableByGroup { gid, .. } => {
                write!(f, ", or trust that group with with_trusted_group({gid})")
            }
            _ => Ok(()),
        }
    }
}

/// The path from the root. A relative one is taken from the working folder of this moment, so that it names
/// the same file after that has changed. Links and, but on Windows, `..` stay as they are. An empty path, and
/// any relative one where the working folder is not known, stays relative.
pub(crate) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Why a path that went through [`absolute`] names no file.
pub(crate) fn rule_broken_by(path: &Path) -> Option<&'static str> {
    if path.as_os_str().is_empty() {
        Some("it is empty: name the file")
    } else if path.is_relative() {
        Some("it is relative, and the working folder is not known: write it from the root")
    } else {
        None
    }
}

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

/// Returns the kind of a regular file or pipe whose content decides something (a key, a token, whom to
/// trust): its writer decides it. It belongs to root, this user or a trusted owner, and no others can write
/// it, except for a trusted group.
pub(crate) fn check_trusted(metadata: &Metadata, trust: Trust) -> Result<Kind, FileProblem> {
    let kind = kind(metadata).ok_or(FileProblem::NotAFile)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;

        let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.mode() & 0o777);
        if ![0, rustix::process::geteuid().as_raw()].contains(&uid) && trust.owner != Some(uid) {
            return Err(FileProblem::ForeignOwner { uid });
        }
        if mode & 0o002 != 0 {
            return Err(FileProblem::WritableByOthers { mode });
        }
        // The user's own group too: whether others are in it, now or later, cannot be determined here.
        if mode & 0o020 != 0 && trust.group != Some(gid) {
            return Err(FileProblem::WritableByGroup { mode, gid });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_advised_only_by_what_has_a_setting_for_it() {
        let (owner, group) =
            (FileProblem::ForeignOwner { uid: 7 }, FileProblem::WritableByGroup { mode: 0o660, gid: 8 });
        for problem in [owner, group] {
            assert!(!problem.to_string().contains("trust"), "{problem}");
        }
        assert!(owner.other_way().to_string().ends_with("with_trusted_owner(7)"));
        assert!(group.other_way().to_string().ends_with("with_trusted_group(8)"));
        assert_eq!(FileProblem::NotAFile.other_way().to_string(), "");
    }

    #[test]
    fn a_relative_path_is_taken_from_the_working_folder() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute("keys/kanal".into()), here.join("keys/kanal"));
        // Windows takes the folder before it away, links or not, and so does std.
        let above = if cfg!(windows) { here.parent().unwrap().join("kanal") } else { here.join("../kanal") };
        assert_eq!(absolute("../kanal".into()), above);
        assert_eq!(rule_broken_by(&absolute("kanal".into())), None);
        assert_eq!(absolute(here.join("kanal")), here.join("kanal"));
        assert_eq!(absolute(PathBuf::new()), PathBuf::new());
        assert!(rule_broken_by(&PathBuf::new()).is_some());
    }
}
