//! The audit: its events, the file, and that its failure stops no step.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::Command;

use keysheath::FileProblem;
use keysheath::rotation::{AuditAction, AuditError, KeyDetails, Transition};
use keysheath::store::FileStore;

use super::*;
use crate::support::{Child, Folder, as_ordinary_user, set_mode};

/// A rotation that writes its audit to a file.
fn with_file(path: &Path) -> (Rotation<Kanal>, KeyHandle<Kanal>) {
    let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())
        .unwrap()
        .with_audit_file(path)
        .with_operator("anna");
    let handle = rotation.handle();
    (rotation, handle)
}

/// A step that must be made whatever becomes of the audit.
fn adopt(path: &Path) -> Transition {
    let (rotation, handle) = with_file(path);
    let transition = rotation.adopt(&key(1)).unwrap();
    assert_eq!(sent(&handle), Some(1), "it is persisted and published");
    let status = rotation.status().unwrap();
    let missing = status.audit_error().map(|error| (status.unaudited(), error.clone()));
    assert_eq!(missing, transition.unaudited().map(|error| (1, error.clone())));
    assert_eq!(status.to_string().contains("1 events are not in the audit"), missing.is_some());
    transition
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_event_is_a_json_line_in_a_private_file() {
    let folder = Folder::new();
    let path = folder.at("audit.jsonl");
    let (rotation, _) = with_file(&path);
    rotation.adopt(&key(1)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    rotation.stage(KeyDetails::new(&key(2)).with_note("a \"note\" \\ ü")).unwrap();
    // As logrotate does.
    fs::rename(&path, folder.at("audit.jsonl.1")).unwrap();
    rotation.promote_unverified_now().unwrap();
    rotation.compromise(name(2)).unwrap();
    let old = lines(&folder.at("audit.jsonl.1"));
    let new = lines(&path);
    assert_eq!((old.len(), new.len()), (2, 2));
    let staged = &old[1];
    assert_eq!(staged["action"], "staged");
    assert_eq!(staged["fingerprint"], name(2).to_string());
    assert_eq!((&staged["rotation"], &staged["generation"]), (&2.into(), &1.into()));
    assert_eq!((&staged["by"], &staged["note"]), (&"anna".into(), &"a \"note\" \\ ü".into()));
    assert_eq!((&staged["issuer"], &staged["store"]), (&"kanal".into(), &"memory document".into()));
    assert_eq!((&staged["problem"], &staged["repeat"]), (&false.into(), &false.into()));
    let at = staged["at"].as_str().unwrap();
    assert!(at.len() == 20 && at.ends_with('Z'), "{at}");
    assert_eq!((&new[1]["action"], &new[1]["problem"]), (&"compromised".into(), &true.into()));
    assert_eq!(new[1]["key_from"], serde_json::Value::Null);
}

#[test]
fn a_line_that_was_cut_short_is_ended_before_the_next() {
    let folder = Folder::new();
    let path = folder.write("audit.jsonl", "{\"at\":\"2026-");
    assert!(adopt(&path).unaudited().is_none());
    let text = fs::read_to_string(&path).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("{\"at\":\"2026-"));
    assert!(lines.next().unwrap().contains("\"adopted\"") && lines.next().is_none());
}

#[test]
fn an_untrusted_audit_file_is_left_alone_and_stops_no_step() {
    let folder = Folder::new();
    let target = folder.write("target", "text\n");
    let link = folder.at("link");
    symlink(&target, &link).unwrap();
    let dangling = folder.at("dangling");
    symlink(folder.at("nowhere"), &dangling).unwrap();
    let open = folder.write("open", "text\n");
    set_mode(&open, 0o640);
    let fifo = folder.at("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    set_mode(&fifo, 0o600);
    for path in [&link, &dangling, &open, &fifo, &folder.path().to_owned()] {
        let transition = adopt(path);
        assert_eq!(
            transition.unaudited(),
            Some(&AuditError::File(FileProblem::NotPrivate)),
            "{}",
            path.display()
        );
        assert!(transition.to_string().contains("it is not in the audit: "), "{transition}");
    }
    assert_eq!(adopt(&folder.at("none/audit")).unaudited(), Some(&AuditError::File(FileProblem::NoFolder)));
    assert_eq!(fs::read(&target).unwrap(), b"text\n");
    assert_eq!(fs::read(&open).unwrap(), b"text\n");
    assert!(!folder.at("nowhere").exists());
}

/// An audit at `path` is refused, what is there is left as it is, and the step is made.
#[track_caller]
fn refuses(path: &Path, expected: &AuditError) {
    let before = fs::read(path).ok();
    let transition = adopt(path);
    assert_eq!(transition.unaudited(), Some(expected), "{}", path.display());
    assert_eq!(fs::read(path).ok(), before, "{}", path.display());
}

#[test]
fn no_line_is_added_to_what_is_no_audit() {
    let folder = Folder::new();
    let keys = folder.at("keys");
    Rotation::<Kanal>::open(FileStore::new(&keys), RotationPolicy::new()).unwrap().adopt(&key(1)).unwrap();
    refuses(&keys, &AuditError::NotAnAudit);
    assert!(FileStore::new(&keys).read().unwrap().is_some());
    let database = [&b"SQLite format 3\0"[..], &[0; 84]].concat();
    let texts: [&[u8]; 4] = [b"KANAL_API_KEY=abc\n", b"{\"at\":1}\n", b"\n", &database];
    for text in texts {
        let path = folder.write("other", text);
        set_mode(&path, 0o600);
        refuses(&path, &AuditError::NotAnAudit);
    }
    fs::hard_link(folder.write("audit.jsonl", ""), folder.at("second")).unwrap();
    set_mode(&folder.at("second"), 0o600);
    refuses(&folder.at("second"), &AuditError::File(FileProblem::Linked));
    for name in ["keys.lock", "keys.LOCK", "new.lock", "keys.keysheath-new"] {
        refuses(&folder.at(name), &AuditError::File(FileProblem::ReservedName));
    }
}

#[test]
fn an_audit_is_never_made_a_document() {
    let folder = Folder::new();
    let path = folder.at("audit.jsonl");
    assert!(adopt(&path).unaudited().is_none());
    let before = fs::read(&path).unwrap();
    let error = Rotation::<Kanal>::open(FileStore::new(&path), RotationPolicy::new())
        .and_then(|rotation| rotation.adopt(&key(2)).map(drop))
        .unwrap_err();
    assert!(error.to_string().contains("not keysheath's"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn an_audit_file_in_a_folder_that_is_read_only_stops_no_step() {
    as_ordinary_user("audit::an_audit_file_in_a_folder_that_is_read_only_stops_no_step", || {
        let folder = Folder::new();
        set_mode(folder.path(), 0o500);
        let transition = adopt(&folder.at("audit.jsonl"));
        set_mode(folder.path(), 0o700);
        assert_eq!(transition.unaudited(), Some(&AuditError::File(FileProblem::ReadOnly)));
    });
}

#[test]
fn an_audit_file_on_a_full_disk_stops_no_step() {
    const NAME: &str = "audit::an_audit_file_on_a_full_disk_stops_no_step";
    Child::new(NAME).with_file_limit(2).run(|| {
        let folder = Folder::new();
        // 1,024 bytes may be there: the first event fits in half, the next not at all.
        let path = folder.write("audit.jsonl", "{\"at\":\"".to_owned() + &"x".repeat(893) + "\n");
        assert_eq!(adopt(&path).unaudited(), Some(&AuditError::File(FileProblem::Full)));
        assert_eq!(adopt(&path).unaudited(), Some(&AuditError::File(FileProblem::Full)));
        assert_eq!(fs::metadata(&path).unwrap().len(), 1_024);
    });
}

#[test]
fn a_callback_that_panics_stops_no_step_and_no_other_audit() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())
        .unwrap()
        .on_event(|_| panic!("on purpose"))
        .on_event(move |event| sink.lock().unwrap().push(event.action));
    let handle = rotation.handle();
    let transition = rotation.adopt(&key(1)).unwrap();
    assert_eq!(transition.unaudited(), Some(&AuditError::Panicked));
    assert_eq!(sent(&handle), Some(1));
    assert_eq!(*seen.lock().unwrap(), [AuditAction::Adopted]);
    rotation.stage(&key(2)).unwrap();
    assert_eq!(rotation.status().unwrap().unaudited(), 2);
}

#[test]
fn a_callback_that_hangs_holds_a_step_up_for_a_bounded_time() {
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())
        .unwrap()
        .on_event(move |_| drop(gate.lock().map(|gate| gate.recv())));
    let handle = rotation.handle();
    let start = std::time::Instant::now();
    let transition = rotation.adopt(&key(1)).unwrap();
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(matches!(transition.unaudited(), Some(AuditError::CallbackSlow { .. })), "{transition}");
    assert_eq!(sent(&handle), Some(1));
    drop(open);
}

#[test]
fn a_callback_runs_on_no_thread_of_a_step() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let rotation = Rotation::<Kanal>::open(MemoryStore::new(), RotationPolicy::new())
        .unwrap()
        .on_event(move |_| sink.lock().unwrap().push(std::thread::current().id()));
    rotation.adopt(&key(1)).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 1 && !seen.contains(&std::thread::current().id()));
}

#[cfg(feature = "tracing")]
#[test]
fn the_audit_has_an_event_before_tracing_has_it() {
    use tracing::span::{Attributes, Id, Record};

    /// Notes whether the audit had the event already.
    struct Watching(std::path::PathBuf, Arc<Mutex<Vec<bool>>>);
    impl tracing::Subscriber for Watching {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target().starts_with("keysheath::rotation")
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            self.1
                .lock()
                .unwrap()
                .push(fs::read_to_string(&self.0).is_ok_and(|text| text.contains("adopted")));
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }
    let folder = Folder::new();
    let path = folder.at("audit.jsonl");
    let seen = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::with_default(Watching(path.clone(), Arc::clone(&seen)), || {
        with_file(&path).0.adopt(&key(1)).unwrap();
    });
    assert_eq!(*seen.lock().unwrap(), [true]);
}

#[cfg(feature = "tracing")]
#[test]
fn a_step_without_a_subscriber_silences_no_later_one() {
    // In a process of its own: `tracing` decides once for each line in the code whether it is wanted.
    Child::new("audit::a_step_without_a_subscriber_silences_no_later_one").run(|| {
        let collector = crate::support::traced::Collector::default();
        tracing::subscriber::with_default(collector.clone(), || {
            std::thread::spawn(|| drop(adopted())).join().unwrap();
            assert_eq!(collector.lines(), [""; 0], "that thread has no subscriber");
            drop(adopted());
        });
        assert!(collector.lines().iter().any(|line| line.contains("adopted")), "{:?}", collector.lines());
    });
}

#[test]
fn events_are_sent_after_the_step_is_persisted_and_published() {
    let folder = Folder::new();
    let store = FileStore::new(folder.at("keys"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let rotation = Rotation::<Kanal>::open(store.clone(), RotationPolicy::new()).unwrap();
    let (sink, there, view) = (Arc::clone(&seen), store, rotation.handle());
    let rotation = rotation.on_event(move |_| sink.lock().unwrap().push((slots(&there), sent(&view))));
    rotation.adopt(&key(1)).unwrap();
    rotation.stage(&key(2)).unwrap();
    rotation.promote_unverified_now().unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        [
            ([Some(1), None, None], Some(1)),
            ([Some(1), Some(2), None], Some(1)),
            ([Some(2), None, Some(1)], Some(2)),
        ]
    );
}

#[cfg(feature = "tracing")]
#[test]
fn tracing_is_told_as_well_and_of_a_problem_as_a_warning() {
    let collector = crate::support::traced::Collector::default();
    tracing::subscriber::with_default(collector.clone(), || {
        let setup = adopted();
        setup.rotation.compromise(name(1)).unwrap();
    });
    let lines = collector.lines();
    let is_logged = |level: &str, action: &str| {
        lines.iter().any(|line| {
            line.starts_with(level) && line.contains(action) && line.contains("keysheath::rotation")
        })
    };
    assert!(is_logged("INFO", "adopted") && is_logged("WARN", "compromised"), "{lines:?}");
}
