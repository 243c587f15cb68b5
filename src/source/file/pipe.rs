//! Reading a FIFO or a pipe to its end, until a deadline.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait before a pipe that has nothing is looked at again.
const LOOK: Duration = Duration::from_millis(5);

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
