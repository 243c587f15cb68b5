//! A disk that is full: a small tmpfs, in a mount namespace of its own.

use keysheath::FileProblem;
use keysheath::rotation::{KeyDetails, RotationError};
use std::fs;
use std::path::Path;

use keysheath::store::{DocumentError, FileStore};

use super::*;
use crate::support::{Child, set_mode};

/// Takes all the room that is left, to the last byte.
fn fill(path: &Path) {
    use std::io::Write as _;

    let mut file = fs::File::create(path).unwrap();
    for size in [4096, 1] {
        let block = vec![b'x'; size];
        loop {
            match file.write(&block) {
                Ok(written) => assert!(written > 0),
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
                    break;
                }
            }
        }
    }
}

/// The steps of a life, and what is in the places after each.
type Do = fn(&Setup<FileStore>) -> Result<(), RotationError>;
const STEPS: [(Do, [Option<u64>; 3]); 8] = [
    (|setup| setup.rotation.adopt(&key(1)).map(drop), [Some(1), None, None]),
    (
        |setup| setup.rotation.stage(KeyDetails::new(&key(2)).with_note("spring")).map(drop),
        [Some(1), Some(2), None],
    ),
    (|setup| setup.rotation.verify_now().map(drop), [Some(1), Some(2), None]),
    (|setup| setup.rotation.promote_now().map(drop), [Some(2), None, Some(1)]),
    (|setup| setup.rotation.roll_back_now().map(drop), [Some(1), Some(2), None]),
    (|setup| setup.rotation.abort_now().map(drop), [Some(1), None, None]),
    (|setup| setup.rotation.stage(&key(3)).map(drop), [Some(1), Some(3), None]),
    (|setup| setup.rotation.compromise(name(1)).map(drop), [None, Some(3), None]),
];

#[test]
fn a_full_disk_stops_steps_and_keeps_the_key_until_it_has_room() {
    const NAME: &str = "full_disk::a_full_disk_stops_steps_and_keeps_the_key_until_it_has_room";
    Child::new(NAME).with_a_small_disk("256k").run(|| {
        let disk = Child::small_disk();
        set_mode(&disk, 0o700);
        let (path, ballast) = (disk.join("keys"), disk.join("ballast"));
        let setup = Setup::over(FileStore::new(&path));
        setup.answers.accept(2);
        let mut before = ([None; 3], None);
        for (at, (step, after)) in STEPS.into_iter().enumerate() {
            let bytes = fs::read(&path).ok();
            fill(&ballast);
            let error = step(&setup).unwrap_err();
            let (is_leak, cause) = match &error {
                RotationError::LeakNotPersisted { cause, .. } => (true, &**cause),
                other => (false, other),
            };
            let is_full = matches!(
                cause,
                RotationError::Document { problem: DocumentError::File(FileProblem::Full), .. }
            );
            assert!(is_full, "step {at}: {error}");
            assert_eq!(fs::read(&path).ok(), bytes, "step {at}");
            let sends = before.1.filter(|_| !is_leak);
            assert_eq!((setup.slots(), sent(&setup.handle)), (before.0, sends), "step {at}");
            // What is there can be read, and is sent by the next process.
            let next = Rotation::<Kanal>::open(FileStore::new(&path), RotationPolicy::new()).unwrap();
            assert_eq!(sent(&next.handle()), before.1, "step {at}");
            fs::remove_file(&ballast).unwrap();
            let left: Vec<_> = fs::read_dir(&disk).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert!(left.len() <= 2, "step {at}: {left:?} beside the document and its lock");
            step(&setup).unwrap_or_else(|error| panic!("step {at}, with room: {error}"));
            assert_eq!((setup.slots(), sent(&setup.handle)), (after, after[0]), "step {at}");
            before = (after, after[0]);
        }
    });
}
