//! Files and folders that are refused, and left as they were.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use keysheath::FileProblem;
use keysheath::store::{DocumentError, DocumentStore, FileStore, Version};

use super::{MAX_DOCUMENT, content, place, text, there, written};
use crate::support::child::NOBODY;
use crate::support::{
    Child, Folder, MAX_CALLS_PER_PLACE, as_ordinary_user, in_child, set_mode, with_a_file_of_another_user,
};

/// What reading and writing say of a document that is refused, in a store that has not seen it.
#[track_caller]
fn refusal(path: &Path) -> DocumentError {
    let read = FileStore::new(path).read().map(|there| there.is_some()).unwrap_err();
    for unchanged in [None, Some(&Version::new(1, 0))] {
        assert_eq!(FileStore::new(path).write(&content("new"), unchanged).unwrap_err(), read);
    }
    if let Some(name) = path.file_name() {
        assert!(!path.with_file_name([name.to_str().unwrap(), ".keysheath-new"].concat()).exists());
    }
    read
}

#[test]
fn a_document_and_its_lock_are_private_under_any_umask() {
    in_child("files::a_document_and_its_lock_are_private_under_any_umask", &[("NONE", "")], || {
        rustix::process::umask(rustix::fs::Mode::empty());
        let (folder, path) = place();
        set_mode(folder.path(), 0o700);
        let store = FileStore::new(&path);
        let version = store.write(&content("first"), None).unwrap();
        for _ in 0..2 {
            for name in ["document", "document.lock"] {
                assert_eq!(fs::metadata(folder.at(name)).unwrap().mode() & 0o777, 0o600, "{name}");
            }
            let _ = store.write(&content("second"), Some(&version));
        }
    });
}

#[test]
fn a_truncated_or_edited_document_is_corrupt_and_untouched() {
    let (_folder, store) = written();
    let path = store.provenance().to_string().strip_prefix("file ").unwrap().to_owned();
    let path = Path::new(&path);
    let whole = fs::read(path).unwrap();
    let mut edited = whole.clone();
    *edited.last_mut().unwrap() ^= 1;
    let long = [&whole[..], &vec![b'x'; MAX_DOCUMENT]].concat();
    for (what, bytes) in [
        ("empty", vec![]),
        ("a text", b"{\"current\": null}".to_vec()),
        ("cut within the header", whole[..20].to_vec()),
        ("cut within the content", whole[..whole.len() - 1].to_vec()),
        ("the header alone", whole[..whole.len() - 5].to_vec()),
        ("edited", edited),
        ("with a newline", [&whole[..], b"\n"].concat()),
        ("too long", long),
        ("zeros", vec![0; whole.len()]),
    ] {
        fs::write(path, &bytes).unwrap();
        assert_eq!(refusal(path), DocumentError::Corrupt, "{what}");
        assert_eq!(store.read().unwrap_err(), DocumentError::Corrupt, "{what}");
        assert_eq!(fs::read(path).unwrap(), bytes, "{what}");
    }
    let newer = [b"KSHDOC02", &whole[8..]].concat();
    fs::write(path, newer).unwrap();
    assert_eq!(refusal(path), DocumentError::Newer);
    fs::write(path, whole).unwrap();
    assert_eq!(text(&store), "first");
}

#[test]
fn a_huge_file_is_corrupt_and_not_read_to_its_end() {
    let (_folder, path) = place();
    let file = FileStore::new(&path);
    file.write(&content("first"), None).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(refusal(&path), DocumentError::Corrupt);
}

#[test]
fn a_restored_old_copy_is_stale_and_so_is_a_missing_document() {
    let (folder, store) = written();
    let path = folder.at("document");
    let old = fs::read(&path).unwrap();
    let first = *there(&store).version();
    let second = store.write(&content("second"), Some(&first)).unwrap();
    fs::write(&path, &old).unwrap();
    for store in [&store, &store.clone()] {
        assert_eq!(store.read().unwrap_err(), DocumentError::Stale);
        for unchanged in [Some(&first), Some(&second), None] {
            assert_eq!(store.write(&content("third"), unchanged), Err(DocumentError::Stale));
        }
    }
    assert_eq!(fs::read(&path).unwrap(), old);
    fs::remove_file(&path).unwrap();
    assert_eq!(store.read().unwrap_err(), DocumentError::Stale);
    assert_eq!(store.write(&content("third"), None), Err(DocumentError::Stale));
    // A store that has not seen the newer one has nothing to compare with; and a document that is made again
    // is not taken for the one that was there.
    let fresh = FileStore::new(&path);
    fresh.write(&content("first"), None).unwrap();
    assert_eq!(FileStore::new(&path).write(&content("late"), Some(&first)), Err(DocumentError::Conflict));
    assert_eq!(text(&fresh), "first");
}

/// Something that is no document, and how it is made at a path.
type Other<'a> = (&'a str, &'a dyn Fn(&Path));

#[test]
fn only_regular_files_are_accepted_as_document_and_lock() {
    let (folder, store) = written();
    let path = folder.at("document");
    fs::rename(&path, folder.at("moved")).unwrap();
    let moved = fs::read(folder.at("moved")).unwrap();
    let others: [Other; 5] = [
        ("a link to a document", &|at| symlink(folder.at("moved"), at).unwrap()),
        ("a link to nowhere", &|at| symlink("nowhere", at).unwrap()),
        ("a folder", &|at| fs::create_dir(at).unwrap()),
        ("a FIFO", &|at| assert!(Command::new("mkfifo").arg(at).status().unwrap().success())),
        ("a socket", &|at| drop(std::os::unix::net::UnixListener::bind(at).unwrap())),
    ];
    for (what, make) in others {
        make(&path);
        assert_eq!(refusal(&path), DocumentError::File(FileProblem::NotPrivate), "{what}");
        assert_eq!(store.read().unwrap_err(), DocumentError::File(FileProblem::NotPrivate), "{what}");
        if path.symlink_metadata().unwrap().file_type().is_dir() {
            fs::remove_dir(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
    }
    fs::rename(folder.at("moved"), &path).unwrap();
    let version = *there(&store).version();
    let lock = folder.at("document.lock");
    for (what, make) in others {
        let _ = fs::remove_file(&lock).or_else(|_| fs::remove_dir(&lock));
        make(&lock);
        let refused = store.write(&content("second"), Some(&version));
        assert_eq!(refused, Err(DocumentError::File(FileProblem::NotPrivate)), "{what}");
        assert_eq!(fs::read(&path).unwrap(), moved, "{what}");
    }
    assert!(lock.symlink_metadata().unwrap().file_type().is_socket());
    assert!(!folder.at("nowhere").exists());
    fs::remove_file(&lock).unwrap();
    store.write(&content("second"), Some(&version)).unwrap();
}

#[test]
fn a_document_or_lock_that_others_can_access_is_refused() {
    let (folder, store) = written();
    let version = *there(&store).version();
    for name in ["document", "document.lock"] {
        for mode in [0o644, 0o640, 0o620, 0o602, 0o610, 0o666] {
            set_mode(&folder.at(name), mode);
            let refused = store.write(&content("second"), Some(&version));
            assert_eq!(refused, Err(DocumentError::File(FileProblem::NotPrivate)), "{name} {mode:o}");
        }
        set_mode(&folder.at(name), 0o600);
    }
    set_mode(&folder.at("document"), 0o644);
    assert_eq!(refusal(&folder.at("document")), DocumentError::File(FileProblem::NotPrivate));
    set_mode(&folder.at("document"), 0o400);
    store.write(&content("second"), Some(&version)).unwrap();
    assert_eq!(fs::metadata(folder.at("document")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_document_of_another_user_is_refused() {
    with_a_file_of_another_user("files::a_document_of_another_user_is_refused", |path| {
        if path.starts_with(std::env::temp_dir()) {
            set_mode(path, 0o600);
        }
        let refused = FileStore::new(path).read().unwrap_err();
        assert!(
            [DocumentError::File(FileProblem::NotPrivate), DocumentError::File(FileProblem::OpenFolder)]
                .contains(&refused),
            "{refused}"
        );
    });
}

#[test]
fn a_folder_writable_by_others_is_refused_unless_sticky() {
    let (folder, store) = written();
    let version = *there(&store).version();
    for mode in [0o770, 0o720, 0o707, 0o702, 0o777] {
        set_mode(folder.path(), mode);
        assert_eq!(store.read().unwrap_err(), DocumentError::File(FileProblem::OpenFolder), "{mode:o}");
        let refused = store.write(&content("second"), Some(&version));
        assert_eq!(refused, Err(DocumentError::File(FileProblem::OpenFolder)), "{mode:o}");
    }
    let mut version = version;
    for mode in [0o1777, 0o755, 0o750, 0o700] {
        set_mode(folder.path(), mode);
        version = store.write(&content("second"), Some(&version)).unwrap();
    }
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        assert_eq!(store.read().unwrap_err(), DocumentError::File(FileProblem::OpenFolder));
    }
}

#[test]
fn a_folder_that_is_not_there_is_not_made() {
    let folder = Folder::new();
    folder.write("file", "");
    for path in ["no/document", "file/document"] {
        assert_eq!(refusal(&folder.at(path)), DocumentError::File(FileProblem::NoFolder), "{path}");
    }
    for path in ["", "/", ".."] {
        assert_eq!(refusal(Path::new(path)), DocumentError::File(FileProblem::NotPrivate), "{path:?}");
        let message = DocumentError::File(FileProblem::NotPrivate).to_string();
        assert!(message.contains("another path") && message.contains("chown"), "{message}");
    }
    assert_eq!(
        refusal(&folder.at("a\0b")),
        DocumentError::File(FileProblem::Unreadable(ErrorKind::InvalidInput))
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_read_only_folder_is_reported_and_its_document_readable() {
    as_ordinary_user("files::a_read_only_folder_is_reported_and_its_document_readable", || {
        let (folder, store) = written();
        let version = *there(&store).version();
        set_mode(folder.path(), 0o500);
        let refused = store.write(&content("second"), Some(&version));
        let new = FileStore::new(folder.at("other")).write(&content("second"), None);
        let read = text(&store);
        set_mode(folder.path(), 0o700);
        assert_eq!(
            (refused, new),
            (
                Err(DocumentError::File(FileProblem::ReadOnly)),
                Err(DocumentError::File(FileProblem::ReadOnly))
            )
        );
        assert_eq!(read, "first");
        set_mode(&folder.at("document"), 0o000);
        assert_eq!(
            store.read().unwrap_err(),
            DocumentError::File(FileProblem::Unreadable(ErrorKind::PermissionDenied))
        );
        set_mode(&folder.at("document"), 0o600);
        store.write(&content("second"), Some(&version)).unwrap();
    });
}

#[test]
fn a_disk_that_is_full_keeps_the_old_document_and_nothing_else() {
    const NAME: &str = "files::a_disk_that_is_full_keeps_the_old_document_and_nothing_else";
    // Files of at most eight kilobytes.
    Child::new(NAME).with_file_limit(16).run(|| {
        let (folder, store) = written();
        let version = *there(&store).version();
        let refused = store.write(&content(vec![b'x'; 10_000]), Some(&version));
        assert_eq!(refused, Err(DocumentError::File(FileProblem::Full)));
        assert_eq!(text(&store), "first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the document and its lock");
        store.write(&content(vec![b'x'; 5_000]), Some(&version)).unwrap();
    });
}

#[test]
fn a_deadline_without_end_or_of_no_time_is_no_panic() {
    let (folder, store) = written();
    let version = *there(&store).version();
    let patient = store.clone().with_deadline(Duration::MAX);
    let second = patient.write(&content("second"), Some(&version)).unwrap();
    assert_eq!((text(&patient), patient.version()), ("second".to_owned(), Ok(Some(second))));
    assert!(patient.is_current(&there(&patient)).unwrap());
    let hurried = store.with_deadline(Duration::ZERO);
    let _ = (hurried.read().is_ok(), hurried.write(&content("third"), Some(&second)));
    assert!(folder.at("document").exists());
}

#[test]
fn a_held_lock_is_awaited_until_the_deadline_and_reads_go_on() {
    let (folder, store) = written();
    let version = *there(&store).version();
    let file = fs::File::options().write(true).open(folder.at("document.lock")).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let after = Duration::from_millis(200);
    let hurried = store.clone().with_deadline(after);
    assert_eq!(hurried.write(&content("second"), Some(&version)), Err(DocumentError::Locked { after }));
    assert_eq!(text(&hurried), "first");
    // More of them than may call one place at once.
    let waiting = [(); MAX_CALLS_PER_PLACE + 1].map(|()| {
        let store = store.clone();
        thread::spawn(move || store.write(&content("second"), Some(&version)))
    });
    thread::sleep(Duration::from_millis(100));
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    assert_eq!(text(&hurried), "first");
    drop(file);
    let outcomes = waiting.map(|waiting| waiting.join().unwrap());
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(DocumentError::Conflict))));
    assert_eq!(text(&store), "second");
}
