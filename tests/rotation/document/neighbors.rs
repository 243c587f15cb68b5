//! What lies beside a document: neighbors are left alone, and names that look like the store's own are
//! refused.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

use keysheath::FileProblem;
use keysheath::store::{DocumentError, DocumentStore, FileStore};

use super::{MAX_DOCUMENT, content, place, text, there, written};
use crate::support::{Folder, as_ordinary_user, in_child, set_mode};

/// The temporary name of the document at `path`.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    path.with_file_name(format!("{name}.keysheath-new"))
}

fn write_again(store: &FileStore) -> Result<(), DocumentError> {
    let version = *there(store).version();
    store.write(&content("again"), Some(&version)).map(drop)
}

#[test]
fn a_neighbor_is_left_alone_whatever_it_is_called() {
    let (folder, store) = written();
    let names = ["document.new", "document.new2", "document2.new", ".document.new", "new", "document.old"];
    for name in names {
        folder.write(name, "another's");
    }
    let neighbor = FileStore::new(folder.at("document.tmp"));
    neighbor.write(&content("a document too"), None).unwrap();
    write_again(&store).unwrap();
    for name in names {
        assert_eq!(fs::read(folder.at(name)).unwrap(), b"another's", "{name}");
    }
    assert_eq!((text(&store), text(&neighbor)), ("again".to_owned(), "a document too".to_owned()));
}

#[test]
fn what_a_killed_writer_has_left_is_removed() {
    let (folder, store) = written();
    let whole = fs::read(folder.at("document")).unwrap();
    let left = temporary(&folder.at("document"));
    let zeros = vec![0; whole.len()];
    for bytes in [&b""[..], b"KSH", &whole[..30], &whole, &zeros] {
        fs::write(&left, bytes).unwrap();
        set_mode(&left, 0o600);
        write_again(&store).unwrap();
        assert!(!left.exists(), "{bytes:?}");
    }
    assert_eq!(text(&store), "again");
}

#[test]
fn a_file_in_the_way_is_never_removed_and_is_named() {
    let (folder, store) = written();
    let left = temporary(&folder.at("document"));
    let large = vec![0; MAX_DOCUMENT + 1000];
    for (bytes, mode) in [(&b"a person's text"[..], 0o600), (b"", 0o644), (&large, 0o600)] {
        fs::write(&left, bytes).unwrap();
        set_mode(&left, mode);
        let error = write_again(&store).unwrap_err();
        assert_eq!(error, DocumentError::File(FileProblem::InTheWay));
        assert!(error.to_string().contains(".keysheath-new"), "{error}");
        assert_eq!(fs::read(&left).unwrap(), bytes);
        fs::remove_file(&left).unwrap();
    }
    std::os::unix::fs::symlink(folder.write("target", "a target"), &left).unwrap();
    assert_eq!(write_again(&store), Err(DocumentError::File(FileProblem::InTheWay)));
    assert_eq!(fs::read(folder.at("target")).unwrap(), b"a target");
    fs::remove_file(&left).unwrap();
    write_again(&store).unwrap();
}

#[test]
fn a_document_called_like_a_lock_is_refused() {
    let folder = Folder::new();
    for name in ["kanal.lock", "kanal.LOCK", ".lock", "kanal.keysheath-new", "kanal.Keysheath-New"] {
        let store = FileStore::new(folder.at(name));
        assert_eq!(store.read().unwrap_err(), DocumentError::File(FileProblem::ReservedName), "{name}");
        assert_eq!(store.version().unwrap_err(), DocumentError::File(FileProblem::ReservedName), "{name}");
        assert_eq!(
            store.write(&content("text"), None),
            Err(DocumentError::File(FileProblem::ReservedName)),
            "{name}"
        );
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    for name in ["lock", "kanal.lock2", "kanal-lock", "keysheath-new"] {
        FileStore::new(folder.at(name)).write(&content("text"), None).unwrap();
    }
}

#[test]
fn hard_links_of_a_document_and_its_lock_are_refused() {
    let (folder, store) = written();
    let version = *there(&store).version();
    for name in ["document", "document.lock"] {
        fs::hard_link(folder.at(name), folder.at("second name")).unwrap();
        let error = store.write(&content("second"), Some(&version)).unwrap_err();
        assert_eq!(error, DocumentError::File(FileProblem::Linked), "{name}");
        assert!(error.to_string().contains("another name"), "{error}");
        assert_eq!(fs::metadata(folder.at("document")).unwrap().ino(), {
            let one = folder.at(if name == "document" { "second name" } else { "document" });
            fs::metadata(one).unwrap().ino()
        });
        if name == "document" {
            assert_eq!(store.read().unwrap_err(), DocumentError::File(FileProblem::Linked));
            assert_eq!(
                FileStore::new(folder.at("second name")).read().unwrap_err(),
                DocumentError::File(FileProblem::Linked)
            );
        }
        fs::remove_file(folder.at("second name")).unwrap();
    }
    store.write(&content("second"), Some(&version)).unwrap();
}

/// How often the other threads of this process have begun to wait.
fn switches_of_others() -> u64 {
    let own = fs::read_link("/proc/thread-self").unwrap();
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let others = tasks.filter(|task| task.file_name() != own.file_name());
    let count = |task: std::path::PathBuf| -> Option<u64> {
        let status = fs::read_to_string(task.join("status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok())
    };
    others.filter_map(count).sum()
}

#[test]
fn the_version_of_a_file_needs_no_thread() {
    as_ordinary_user("neighbors::the_version_of_a_file_needs_no_thread", || {
        let (_folder, store) = written();
        let version = *there(&store).version();
        let none = Rlimit { current: Some(1), maximum: Some(1) };
        setrlimit(Resource::Nproc, none).unwrap();
        std::thread::Builder::new().spawn(|| ()).expect_err("a thread can be started");
        // Nor is one that is kept woken.
        let before = switches_of_others();
        for _ in 0..3 {
            assert_eq!(store.version(), Ok(Some(version)));
        }
        assert_eq!(switches_of_others(), before);
        assert!(store.read().is_err() || switches_of_others() > before, "reading takes a thread");
    });
}

#[test]
fn the_version_says_what_reading_says_of_a_broken_file() {
    let (folder, store) = written();
    let path = folder.at("document");
    let whole = fs::read(&path).unwrap();
    let mut edited = whole.clone();
    *edited.last_mut().unwrap() ^= 1;
    let version = *there(&store).version();
    // The same length, and for most file systems' clocks the same instant.
    fs::write(&path, &edited).unwrap();
    assert_eq!(store.version(), Err(DocumentError::Corrupt));
    fs::write(&path, &whole[..10]).unwrap();
    assert_eq!(store.version(), Err(DocumentError::Corrupt));
    fs::write(&path, &whole).unwrap();
    assert_eq!(store.version(), Ok(Some(version)));
    set_mode(&path, 0o644);
    assert_eq!(store.version(), Err(DocumentError::File(FileProblem::NotPrivate)));
    set_mode(&path, 0o600);
    let second = store.write(&content("second"), Some(&version)).unwrap();
    assert_eq!(store.version(), Ok(Some(second)));
    fs::write(&path, &whole).unwrap();
    assert_eq!(store.version(), Err(DocumentError::Stale));
    fs::remove_file(&path).unwrap();
    assert_eq!(store.version(), Err(DocumentError::Stale));
}

#[test]
fn a_file_that_rests_is_looked_at_and_not_read() {
    in_child("neighbors::a_file_that_rests_is_looked_at_and_not_read", &[("NONE", "")], || {
        let bytes_read = || -> u64 {
            let text = fs::read_to_string("/proc/self/io").unwrap();
            text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
        };
        let (folder, path) = place();
        set_mode(folder.path(), 0o700);
        let (store, other) = (FileStore::new(&path), FileStore::new(&path));
        let large = vec![b'x'; MAX_DOCUMENT];
        let version = store.write(&content(&large), None).unwrap();
        // Longer than the clocks of file systems are coarse.
        std::thread::sleep(Duration::from_millis(4_200));
        assert_eq!(store.version(), Ok(Some(version)));
        let before = bytes_read();
        for _ in 0..20 {
            assert_eq!(store.version(), Ok(Some(version)));
        }
        let read = bytes_read() - before;
        assert!(read < 20_000, "{read} bytes were read");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..whole.len() - 1], b"y"].concat()).unwrap();
        assert_eq!(store.version(), Err(DocumentError::Corrupt));
        fs::write(&path, whole).unwrap();
        let second = other.write(&content(&large), Some(&version)).unwrap();
        assert_eq!(store.version(), Ok(Some(second)));
    });
}

#[test]
fn the_version_follows_every_write_of_another_process() {
    let (_folder, path) = place();
    let (writer, reader) = (FileStore::new(&path), FileStore::new(&path));
    let mut last = None;
    // The same length each time, and the same i-numbers in turn.
    for number in 100..400 {
        last = Some(writer.write(&content(number.to_string()), last.as_ref()).unwrap());
        assert_eq!(reader.version(), Ok(last), "{number}");
    }
}

#[test]
fn a_relative_path_is_resolved_once() {
    in_child("neighbors::a_relative_path_is_resolved_once", &[("NONE", "")], || {
        let (here, elsewhere) = (Folder::new(), Folder::new());
        for folder in [&here, &elsewhere] {
            set_mode(folder.path(), 0o700);
        }
        std::env::set_current_dir(here.path()).unwrap();
        let store = FileStore::new("document");
        let printed = store.provenance().to_string();
        assert!(printed.ends_with(&here.at("document").display().to_string()), "{printed}");
        std::env::set_current_dir(elsewhere.path()).unwrap();
        store.write(&content("text"), None).unwrap();
        assert!(here.at("document").exists() && !elsewhere.at("document").exists());
    });
}
