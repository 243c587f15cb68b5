//! The folder of a document.

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
