//! The steps that put a file in another's place, whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use super::MAX_FILE;
use crate::internal::files::FileProblem;
use crate::internal::files::private::{self, NEW, with_end};
use crate::internal::panics::Lock;
use crate::store::sealed;

/// What is done to files. A test puts a disk that records in its place, and then cuts the power anywhere.
pub(super) trait Disk {
    type File;

    /// A new file that no other user can read. It must not exist yet.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    fn write(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes what an interrupted write has left; false where something else is there.
    fn remove_left_over(&self, path: &Path) -> io::Result<bool>;
    /// Makes what was renamed in a folder last.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// Puts a file with these bytes at a path. The lock must be held.
pub(super) fn put<D: Disk>(disk: &D, path: &Path, parts: &[&[u8]]) -> Result<(), FileProblem> {
    let new = with_end(path, NEW);
    let wrong = |error: io::Error| FileProblem::of_writing(error.kind());
    if !disk.remove_left_over(&new).map_err(wrong)? {
        return Err(FileProblem::InTheWay);
    }
    let mut file = disk.create(&new).map_err(wrong)?;
    let made = fill(disk, &mut file, parts).and_then(|()| disk.rename(&new, path));
    if let Err(error) = made {
        // Harmless if it stays: the next writer removes it.
        let _ = disk.remove(&new);
        return Err(wrong(error));
    }
    sync_parent_dir(disk, path)
}

/// Which name was made last, so that this is done once for each document and not for each look. `K` tells one
/// renaming from the next.
#[derive(Debug)]
pub(super) struct Lasting<K>(Lock<Option<K>>);

impl<K> Default for Lasting<K> {
    fn default() -> Self {
        Self(Lock::new(None))
    }
}

impl<K: PartialEq> Lasting<K> {
    /// Makes what a path leads to last, which is `there`.
    pub(super) fn make<D: Disk>(&self, disk: &D, path: &Path, there: K) -> Result<(), FileProblem> {
        if self.0.lock().as_ref() == Some(&there) {
            return Ok(());
        }
        sync_parent_dir(disk, path)?;
        *self.0.lock() = Some(there);
        Ok(())
    }
}

/// Makes what a path leads to last. Where this fails, the document is in its place all the same, so the error
/// is never one that says that nothing has changed.
fn sync_parent_dir<D: Disk>(disk: &D, path: &Path) -> Result<(), FileProblem> {
    let folder = path.parent().unwrap_or(Path::new("."));
    disk.sync_folder(folder).map_err(|error| FileProblem::Unwritable(error.kind()))
}

fn fill<D: Disk>(disk: &D, file: &mut D::File, parts: &[&[u8]]) -> io::Result<()> {
    for part in parts {
        disk.write(file, part)?;
    }
    disk.sync(file)
}

/// The disk that there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn create(&self, path: &Path) -> io::Result<File> {
        private::options().create_new(true).open(path)
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

    fn remove_left_over(&self, path: &Path) -> io::Result<bool> {
        private::remove_left_over(path, MAX_FILE, sealed::may_begin)
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
