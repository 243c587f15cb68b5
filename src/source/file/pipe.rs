//! Reading a FIFO or a pipe to its end, until a deadline.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::thread;
use std::time::{Duration, Instant};

use crate::internal::lock::Lock;

/// How long to wait before a pipe that has nothing is looked at again.
const LOOK: Duration = Duration::from_millis(5);

/// The right to read a pipe, from before it is opened: two readers at once would divide what is written to it, and each would
/// take its part for the whole. Other processes are not kept off.
pub(super) struct Alone {
    id: Id,
}

/// The device and the number of a pipe.
type Id = (u64, u64);

/// The pipes that are being read in this process.
static READ: Lock<Vec<Id>> = Lock::new(Vec::new());

impl Alone {
    /// Waits until no other thread reads the pipe. [`ErrorKind::TimedOut`] at the deadline.
    pub(super) fn with(metadata: &Metadata, rest: Duration) -> io::Result<Self> {
        let (id, until) = (id(metadata), Instant::now().checked_add(rest));
        loop {
            let mut read = READ.lock();
            if !read.contains(&id) {
                read.push(id);
                return Ok(Self { id });
            }
            drop(read);
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(ErrorKind::TimedOut.into());
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        READ.lock().retain(|id| *id != self.id);
    }
}

#[cfg(unix)]
fn id(metadata: &Metadata) -> Id {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
const fn id(_: &Metadata) -> Id {
    (0, 0)
}

/// A pipe that was opened without waiting for who writes to it. Its reads wait for that, and fail with
/// [`ErrorKind::TimedOut`] at the deadline, so no thread is left in one.
pub(super) struct Pipe {
    file: File,
    /// `None` beyond the clock.
    until: Option<Instant>,
    /// Whether something has written to it, or may have before it was opened.
    is_begun: bool,
}

impl Pipe {
    pub(super) fn new(file: File, rest: Duration) -> Self {
        let is_begun = has_no_name(&file);
        Self { file, until: Instant::now().checked_add(rest), is_begun }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(buffer) {
                // Before anything has opened a FIFO to write to it, a read is at its end.
                Ok(0) if !self.is_begun => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_begun = true,
                read => {
                    self.is_begun = true;
                    return read;
                }
            }
            if self.until.is_some_and(|until| Instant::now() >= until) {
                return Err(ErrorKind::TimedOut.into());
            }
            thread::sleep(LOOK);
        }
    }
}

/// Whether it is a pipe between processes, such as a shell's `<(…)`. What writes to it was there before us.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn has_no_name(file: &File) -> bool {
    const PIPEFS: u64 = 0x5049_5045;
    rustix::fs::fstatfs(file).is_ok_and(|system| u64::try_from(system.f_type) == Ok(PIPEFS))
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn has_no_name(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
}

#[cfg(not(unix))]
const fn has_no_name(_: &File) -> bool {
    true
}
