//! The folder of a document and the lock in it: what must be true of both, and waiting for the lock.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::DocumentError;
use crate::internal::calls::{CallError, Turn};
use crate::internal::files::FileProblem;
use crate::internal::files::private::{FileLock, resolve};

/// How long to wait between two attempts to take a lock: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(10));

/// How much longer than its deadline a call is given: the lock may have come at the last moment.
pub(super) const EXTRA: Duration = Duration::from_secs(1);

/// The path with its folder resolved, in a folder where a document can be kept.
pub(super) fn settle(path: &Path) -> Result<PathBuf, FileProblem> {
    let path = resolve(path)?;
    if let Some(folder) = path.parent() {
        check_folder(folder)?;
    }
    Ok(path)
}

/// Waits for a lock, as long as the call's deadline leaves. What was reported as late must not be done
/// afterwards.
pub(super) fn lock(path: &Path, turn: &Turn) -> Result<FileLock, DocumentError> {
    let mut pause = PAUSES.0;
    loop {
        if let Some(lock) = FileLock::try_take(path)? {
            return Ok(lock);
        }
        let rest = turn.rest();
        if rest.is_zero() {
            return Err(match turn.too_late() {
                CallError::Deadline { after } => DocumentError::Locked { after },
                late => late.into(),
            });
        }
        thread::sleep(pause.min(rest));
        pause = (pause * 2).min(PAUSES.1);
    }
}

#[cfg(unix)]
fn check_folder(folder: &Path) -> Result<(), FileProblem> {
    use std::os::unix::fs::MetadataExt as _;

    let metadata = folder.metadata().map_err(FileProblem::of_reading)?;
    let is_ours = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    // In a sticky folder others can make files, and neither remove nor rename ours.
    if !is_ours || metadata.mode() & 0o022 != 0 && metadata.mode() & 0o1000 == 0 {
        return Err(FileProblem::OpenFolder);
    }
    check_file_system(folder)
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "the signature is the one that Unix needs")]
fn check_folder(_: &Path) -> Result<(), FileProblem> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn check_file_system(folder: &Path) -> Result<(), FileProblem> {
    let stat = rustix::fs::statfs(folder).map_err(FileProblem::of_reading)?;
    if is_elsewhere(i128::from(stat.f_type)) { Err(FileProblem::NetworkFileSystem) } else { Ok(()) }
}

#[cfg(target_os = "macos")]
fn check_file_system(folder: &Path) -> Result<(), FileProblem> {
    const MNT_LOCAL: u32 = 0x1000;
    let stat = rustix::fs::statfs(folder).map_err(FileProblem::of_reading)?;
    if stat.f_flags & MNT_LOCAL == 0 { Err(FileProblem::NetworkFileSystem) } else { Ok(()) }
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "macos"))))]
#[allow(clippy::unnecessary_wraps, reason = "the signature is the one that Linux needs")]
fn check_file_system(_: &Path) -> Result<(), FileProblem> {
    Ok(())
}

/// File systems whose files others use from elsewhere, by the kernel's numbers (`linux/magic.h`, statfs(2),
/// and for those outside the kernel their own sources). FUSE is among them: whether sshfs or a local disk is
/// behind it cannot be determined, and its locks and its `fsync` are what a program makes of them.
#[cfg(target_os = "linux")]
const ELSEWHERE: [u32; 17] = [
    0x0000_6969, // NFS
    0x0000_517b, // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB 2
    0x0000_564c, // NCP
    0x7375_7245, // Coda
    0x5346_414f, // AFS
    0x6b41_4653, // AFS, of OpenAFS's kin
    0x00c3_6400, // Ceph
    0x0bd0_0bd0, // Lustre
    0x0116_1970, // GFS2
    0x7461_636f, // OCFS2
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0x0102_1997, // 9P, also of a virtual machine's host
    0x786f_4256, // VirtualBox's shared folders
    0x6573_5546, // FUSE and virtiofs
];

#[cfg(target_os = "linux")]
fn is_elsewhere(number: i128) -> bool {
    // The kernel's type is signed on some processors, and as wide as a long.
    ELSEWHERE.iter().any(|&elsewhere| i128::from(elsewhere) == number & 0xffff_ffff)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_signed_and_unsigned_ids() {
        for number in [0x6969, 0xff53_4d42, 0xff53_4d42 - (1 << 32), 0xfe53_4d42, 0x6573_5546, 0x0102_1997] {
            assert!(is_elsewhere(number), "{number:x}");
        }
        // ext4, XFS, btrfs, tmpfs, overlayfs, ZFS, F2FS
        for number in
            [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0x2fc1_2fc1, 0xf2f5_2010_u32.into()]
        {
            assert!(!is_elsewhere(number), "{number:x}");
        }
    }

    #[test]
    fn a_folder_of_another_file_system_is_looked_at_there() {
        // proc is local, and cannot hold a document; its number is not among those that are refused.
        assert_eq!(check_file_system(Path::new("/proc")), Ok(()));
        assert_eq!(
            check_file_system(Path::new("/proc/no-such-folder")),
            Err(FileProblem::Unreadable(std::io::ErrorKind::NotFound))
        );
    }
}
