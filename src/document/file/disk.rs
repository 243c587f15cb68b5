//! The steps that put a file in another's place, whole or not at all.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use crate::document::DocumentError;
use crate::private_file::{self, with_end};

/// What is done to files. A test puts a disk that records in its place, and then cuts the power anywhere.
pub(super) trait Disk {
    type File;

    /// A new file that nobody else can read; it must not be there yet.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    fn write(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes what was renamed in a folder last.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// Puts a file with these bytes at a path. The lock must be held.
pub(super) fn put<D: Disk>(disk: &D, path: &Path, parts: &[&[u8]]) -> Result<(), DocumentError> {
    let new = with_end(path, ".new");
    // What a writer that was killed has left; nobody else is here.
    let made =
        remove(disk, &new).and_then(|()| fill(disk, &new, parts)).and_then(|()| disk.rename(&new, path));
    if let Err(error) = made {
        // It is in nobody's way if it stays: the next writer removes it.
        let _ = disk.remove(&new);
        return Err(DocumentError::of_writing(error.kind()));
    }
    make_last(disk, path)
}

/// Makes what a path leads to last. Where this fails, the document is in its place all the same, so the error is never one
/// that says that nothing has changed.
pub(super) fn make_last<D: Disk>(disk: &D, path: &Path) -> Result<(), DocumentError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    disk.sync_folder(folder).map_err(|error| DocumentError::Io(error.kind()))
}

fn remove<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn fill<D: Disk>(disk: &D, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = disk.create(path)?;
    for part in parts {
        disk.write(&mut file, part)?;
    }
    disk.sync(&file)
}

/// The disk that there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn create(&self, path: &Path) -> io::Result<File> {
        private_file::options().create_new(true).open(path)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    #[cfg(unix)]
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    /// A folder cannot be opened there, and a rename is in the journal.
    #[cfg(not(unix))]
    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}
