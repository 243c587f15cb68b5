//! Documents that are broken, and stores that fail at each call.

use keysheath::FileProblem;
use keysheath::rotation::{KeyDetails, RotationError};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::AtomicBool;

use keysheath::key::Katana;
use keysheath::keyset::KeySetError;
use keysheath::source::{Problem, Provenance};
use keysheath::store::{Document, DocumentContent, DocumentError, FileStore, Version};

use super::*;
use crate::support::keys::{EMPTY, Keys};
use crate::support::stores::pass_on;
use crate::support::{Child, Folder, as_ordinary_user, set_mode};

/// As the crate has it.
const MAX_CONFLICTS: u32 = 32;

/// What is done to a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Reading fails.
    Read(bool),
    /// Writing says that it failed, and had done nothing.
    Lost(bool),
    /// Writing says that it failed, and was done.
    Done(bool),
    /// As `Done`, and then another process makes a step.
    DoneThenOther,
    /// As `Lost`, and then the place cannot be read either.
    LostThenSilent,
    /// Somebody else writes each time before.
    AlwaysLate,
    /// The place gives an older document.
    Stale,
}

/// A store that fails on demand.
#[derive(Clone, Default)]
struct Faulty {
    inner: MemoryStore,
    fault: Arc<Mutex<Option<Fault>>>,
    is_silent: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
}

fn unavailable(is_io: bool) -> DocumentError {
    if is_io {
        DocumentError::File(FileProblem::Unwritable(std::io::ErrorKind::TimedOut))
    } else {
        DocumentError::Unavailable(Problem::Unreachable)
    }
}

impl Faulty {
    fn set(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
        self.is_silent.store(false, Ordering::SeqCst);
    }

    /// Writes the document again, as another process might.
    fn touch(&self) {
        let there = self.inner.read().unwrap();
        let empty = || DocumentContent::from(EMPTY.as_bytes().to_vec());
        let content = there.as_ref().map_or_else(empty, |there| there.content().clone());
        self.inner.write(&content, there.as_ref().map(Document::version)).unwrap();
    }
}

impl DocumentStore for Faulty {
    pass_on!(inner: limit);

    fn provenance(&self) -> Provenance {
        Provenance::other("faulty", "store")
    }

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        if self.is_silent.load(Ordering::SeqCst) {
            return Err(unavailable(false));
        }
        match *self.fault.lock().unwrap() {
            Some(Fault::Read(is_io)) => Err(unavailable(is_io)),
            Some(Fault::Stale) => Err(DocumentError::Stale),
            _ => self.inner.read(),
        }
    }

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        let mut fault = self.fault.lock().unwrap();
        match *fault {
            Some(Fault::Lost(is_io)) => Err(unavailable(is_io)),
            Some(Fault::Done(is_io)) => {
                self.inner.write(content, unchanged)?;
                Err(unavailable(is_io))
            }
            Some(Fault::DoneThenOther) => {
                self.inner.write(content, unchanged)?;
                let leaked = name(500 + self.writes.load(Ordering::SeqCst));
                let other = Rotation::<Kanal>::open(self.inner.clone(), RotationPolicy::new());
                assert!(other.unwrap().compromise(leaked).unwrap().transition().is_change());
                *fault = None;
                Err(unavailable(false))
            }
            Some(Fault::LostThenSilent) => {
                self.is_silent.store(true, Ordering::SeqCst);
                Err(unavailable(false))
            }
            Some(Fault::AlwaysLate) => {
                self.touch();
                self.inner.write(content, unchanged)
            }
            _ => self.inner.write(content, unchanged),
        }
    }
}

/// The steps of a rotation, and what is in the places after each.
type Do = fn(&Setup<Faulty>) -> Result<(), RotationError>;
const STEPS: [(Do, [Option<u64>; 3]); 8] = [
    (|setup| setup.rotation.adopt(&key(1)).map(drop), [Some(1), None, None]),
    (|setup| setup.rotation.stage(&key(2)).map(drop), [Some(1), Some(2), None]),
    (|setup| setup.rotation.verify_now().map(drop), [Some(1), Some(2), None]),
    (|setup| setup.rotation.promote_now().map(drop), [Some(2), None, Some(1)]),
    (|setup| setup.rotation.retire_now().map(drop), [Some(2), None, None]),
    (|setup| setup.rotation.stage(&key(3)).map(drop), [Some(2), Some(3), None]),
    (|setup| setup.rotation.abort_now().map(drop), [Some(2), None, None]),
    (|setup| setup.rotation.compromise(name(2)).map(drop), [None; 3]),
];

fn setup() -> Setup<Faulty> {
    let setup = Setup::over(Faulty::default());
    setup.answers.accept(2);
    setup
}

/// What is persisted, and what is sent of it.
fn state(setup: &Setup<Faulty>) -> (Option<Vec<u8>>, Option<u64>) {
    let there = setup.store.inner.read().unwrap();
    (there.map(|there| there.content().expose_secret().to_vec()), sent(&setup.handle))
}

#[test]
fn a_store_failure_at_any_call_changes_nothing_and_can_retry() {
    let setup = setup();
    for (step, after) in STEPS {
        for fault in [
            Fault::Read(true),
            Fault::Read(false),
            Fault::Stale,
            Fault::Lost(true),
            Fault::Lost(false),
            Fault::LostThenSilent,
        ] {
            let before = state(&setup);
            setup.store.set(Some(fault));
            let error = step(&setup).unwrap_err();
            setup.store.set(None);
            // A leaked key that was sent is stopped all the same, and the cause stands within.
            let (is_leak, cause) = match &error {
                RotationError::LeakNotPersisted { cause, .. } => (true, &**cause),
                other => (false, other),
            };
            let is_unsure = matches!(cause, RotationError::Unsure { .. });
            assert_eq!(
                is_unsure,
                matches!(fault, Fault::Lost(_) | Fault::LostThenSilent),
                "{fault:?}: {error}"
            );
            assert!(error.to_string().starts_with("faulty store: "), "{error}");
            let after = state(&setup);
            assert_eq!(after.0, before.0, "{fault:?}");
            assert_eq!(after.1, before.1.filter(|_| !is_leak), "{fault:?}");
        }
        step(&setup).unwrap();
        assert_eq!(slots(&setup.store.inner), after);
        assert_eq!(sent(&setup.handle), after[0], "what is persisted is published");
    }
}

#[test]
fn a_write_that_reported_failure_but_happened_is_published() {
    for fault in [Fault::Done(true), Fault::Done(false), Fault::DoneThenOther] {
        let setup = setup();
        for (step, after) in STEPS {
            setup.store.set(Some(fault));
            step(&setup).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            setup.store.set(None);
            assert_eq!((slots(&setup.store.inner), sent(&setup.handle)), (after, after[0]), "{fault:?}");
        }
        assert_eq!(setup.actions().len(), STEPS.len());
        assert!(setup.events.lock().unwrap().iter().all(|event| !event.is_repeat), "{fault:?}");
    }
}

#[test]
fn a_step_that_always_loses_the_race_gives_up_in_bounded_tries() {
    let setup = setup();
    for (step, _) in STEPS {
        let before = state(&setup);
        setup.store.set(Some(Fault::AlwaysLate));
        let writes = setup.store.writes.load(Ordering::SeqCst);
        let mut error = step(&setup).unwrap_err();
        let is_leak = matches!(error, RotationError::LeakNotPersisted { .. });
        if let RotationError::LeakNotPersisted { cause, .. } = error {
            error = *cause;
        }
        assert!(matches!(error, RotationError::Contended { attempts: MAX_CONFLICTS, .. }), "{error}");
        assert_eq!(setup.store.writes.load(Ordering::SeqCst) - writes, u64::from(MAX_CONFLICTS));
        setup.store.set(None);
        // Others wrote the same again; from nothing, an empty key set.
        assert!(before.0.is_none() || is_leak || state(&setup) == before);
        step(&setup).unwrap();
    }
}

/// Whether it is the refusal that is expected.
type Is = fn(&KeySetError) -> bool;

/// What is said of a file that is no document for this rotation; it is left as it was.
#[track_caller]
fn refused(path: &std::path::Path) -> RotationError {
    let bytes = fs::read(path).unwrap();
    let error = Rotation::<Kanal>::open(FileStore::new(path), RotationPolicy::new()).map(drop).unwrap_err();
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert!(error.to_string().starts_with(&format!("file {}: ", path.display())), "{error}");
    error
}

#[test]
fn an_invalid_or_foreign_document_is_refused_and_untouched() {
    let folder = Folder::new();
    let path = folder.at("keys");
    let rotation = Rotation::<Kanal>::open(FileStore::new(&path), RotationPolicy::new());
    let rotation = rotation.unwrap();
    rotation.adopt(&key(1)).unwrap();
    let whole = fs::read(&path).unwrap();
    let corrupt = |error: &RotationError| {
        matches!(error, RotationError::Document { problem: DocumentError::Corrupt, .. })
    };
    for cut in [0, 30, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(corrupt(&refused(&path)), "cut at {cut}");
    }
    let edited = String::from_utf8_lossy(&whole[56..]).replace("\"generation\": 1", "\"generation\": 9");
    fs::write(&path, [&whole[..56], edited.as_bytes()].concat()).unwrap();
    assert!(corrupt(&refused(&path)), "by hand");
    fs::write(&path, [b"KSHDOC02", &whole[8..]].concat()).unwrap();
    assert!(matches!(refused(&path), RotationError::Document { problem: DocumentError::Newer, .. }));
    // Whole, as documents; but not key sets of ours.
    let foreign = Keys::<Katana>::of_issuer();
    let katana = ApiKey::parse("0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071").unwrap();
    foreign.adopt(&katana).unwrap();
    let newer = String::from_utf8(foreign.to_document().expose_secret().to_vec()).unwrap();
    let newer = newer.replace("\"form\": 1", "\"form\": 2").replace("katana", "kanal");
    let cases: [(DocumentContent, Is); 3] = [
        (foreign.to_document(), |error| *error == KeySetError::OtherIssuer),
        (newer.into_bytes().into(), |error| matches!(error, KeySetError::Newer { found: 2, .. })),
        (b"{}".to_vec().into(), |error| matches!(error, KeySetError::Corrupt { .. })),
    ];
    for (content, is) in cases {
        fs::remove_file(&path).unwrap();
        FileStore::new(&path).write(&content, None).unwrap();
        let error = refused(&path);
        assert!(matches!(&error, RotationError::Unreadable { problem, .. } if is(problem)), "{error}");
    }
    // A rotation that has seen the document makes no step on one that was put in its place, and sends what it
    // had.
    assert!(rotation.stage(&key(2)).is_err());
}

#[test]
fn a_document_that_is_swapped_for_a_link_is_refused() {
    let folder = Folder::new();
    let path = folder.at("keys");
    let rotation = Rotation::<Kanal>::open(FileStore::new(&path), RotationPolicy::new()).unwrap();
    let handle = rotation.handle();
    rotation.adopt(&key(1)).unwrap();
    fs::rename(&path, folder.at("elsewhere")).unwrap();
    symlink(folder.at("elsewhere"), &path).unwrap();
    let not_private = RotationError::Document {
        place: Provenance::File { path: path.clone() },
        problem: DocumentError::File(FileProblem::NotPrivate),
    };
    assert_eq!(rotation.stage(&key(2)), Err(not_private.clone()));
    assert_eq!(rotation.status().map(drop), Err(not_private.clone()));
    assert_eq!(refused(&path), not_private);
    assert_eq!(sent(&handle), Some(1), "the last good key stays active");
}

#[test]
fn on_a_full_disk_no_step_is_made_and_the_last_good_key_stays() {
    const NAME: &str = "broken::on_a_full_disk_no_step_is_made_and_the_last_good_key_stays";
    Child::new(NAME).with_file_limit(1).run(|| {
        let folder = Folder::new();
        let path = folder.at("keys");
        let rotation = Rotation::<Kanal>::open(FileStore::new(&path), RotationPolicy::new()).unwrap();
        let handle = rotation.handle();
        // 512 bytes: one key fits, two do not.
        rotation.adopt(&key(1)).unwrap();
        let before = fs::read(&path).unwrap();
        let error = rotation.stage(KeyDetails::new(&key(2)).with_note("x".repeat(100))).unwrap_err();
        assert!(
            matches!(error, RotationError::Document { problem: DocumentError::File(FileProblem::Full), .. }),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(sent(&handle), Some(1));
    });
}

#[test]
fn a_read_only_folder_allows_no_step_and_its_key_is_sent() {
    const NAME: &str = "broken::a_read_only_folder_allows_no_step_and_its_key_is_sent";
    as_ordinary_user(NAME, || {
        let folder = Folder::new();
        let path = folder.at("keys");
        let rotation = Rotation::<Kanal>::open(FileStore::new(&path), RotationPolicy::new()).unwrap();
        rotation.adopt(&key(1)).unwrap();
        set_mode(folder.path(), 0o500);
        let rotation = Rotation::<Kanal>::open(FileStore::new(&path), RotationPolicy::new()).unwrap();
        let handle = rotation.handle();
        assert_eq!(sent(&handle), Some(1));
        let error = rotation.stage(&key(2)).unwrap_err();
        set_mode(folder.path(), 0o700);
        assert!(
            matches!(
                error,
                RotationError::Document { problem: DocumentError::File(FileProblem::ReadOnly), .. }
            ),
            "{error}"
        );
        assert_eq!(sent(&handle), Some(1));
    });
}
