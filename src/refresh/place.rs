//! The one place that a refresher reads, and what is published of its answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::{RefreshSettings, ReloadError, ReloadProblem};
use crate::handle::{Generation, NoActiveKey, Published, Publisher};
use crate::internal::calls::{CallError, Caller, DEFAULT_DEADLINE, Seal, Target};
use crate::internal::files::private::ReadState;
use crate::internal::timer::{Begin, call};
use crate::key::{Fingerprint, Issuer, Profile, RawKey};
use crate::keyset::KeySet;
use crate::source::{self, Loaded, Problem, Provenance, Remark, Source, SourceError};
use crate::store::{Document, DocumentError, DocumentStore, Version};

pub(super) enum Place {
    Source {
        source: Arc<dyn Source>,
        /// Where the key was found the last time.
        found: Provenance,
        /// What was remarked on then.
        remarks: Vec<Remark>,
        /// The file in which the active key was found again, and the generation that it is. While that is so,
        /// the file is looked at and not read.
        same: Option<(ReadState, Generation)>,
    },
    Store {
        store: Arc<dyn DocumentStore>,
        /// As it was at the start, so that the store is not asked for it on the thread of all tasks.
        provenance: Provenance,
        /// The last document that was taken.
        taken: Option<(Version, Option<Generation>)>,
    },
}

/// What a place says, not yet looked at.
pub(super) enum Answer {
    Key(Result<Loaded, SourceError>),
    Document(Result<Option<Document>, DocumentError>),
    /// The document is the one that was taken.
    SameDocument,
    /// The file is as it was when the active key was found in it.
    SameFile,
}

/// What an answer did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This key is active now.
    Newer {
        generation: Generation,
        current: Result<Option<Fingerprint>, NoActiveKey>,
        provenance: Provenance,
    },
    Same,
}

impl Place {
    pub(super) fn provenance(&self) -> Provenance {
        match self {
            Self::Source { found, .. } => found.clone(),
            Self::Store { provenance, .. } => provenance.clone(),
        }
    }

    /// Returns what was remarked on when the key was found the last time.
    pub(super) fn remarks(&self) -> &[Remark] {
        match self {
            Self::Source { remarks, .. } => remarks,
            Self::Store { .. } => &[],
        }
    }

    /// Returns whether asking it runs this crate's own code alone.
    fn is_own(&self) -> bool {
        match self {
            Self::Source { source, .. } => source.is_own(Seal::new()),
            Self::Store { store, .. } => store.is_own(Seal::new()),
        }
    }

    /// Returns the file that the place is, if it is one.
    pub(super) fn file(&self) -> Option<std::path::PathBuf> {
        match self.provenance() {
            Provenance::File { path }
            | Provenance::FileVariable { path: Some(path), .. }
            | Provenance::Dotenv { path, .. } => Some(path),
            Provenance::Systemd { name } => source::env::credential_path(&name),
            _ => None,
        }
    }

    /// Returns a holder of what is foreign in it.
    pub(super) fn foreign(&self) -> Box<dyn Send> {
        match self {
            Self::Source { source, .. } => Box::new(Arc::clone(source)),
            Self::Store { store, .. } => Box::new(Arc::clone(store)),
        }
    }

    /// Notes which generation is active before the place is asked: where it is another key, the file is read.
    pub(super) fn expect(&mut self, active: Generation) {
        if let Self::Source { same, .. } = self {
            same.take_if(|(_, generation)| *generation != active);
        }
    }

    /// Returns what asks the place, on whatever thread.
    pub(super) fn question(&self, profile: &'static Profile) -> Box<dyn FnOnce() -> Answer + Send> {
        match self {
            Self::Source { source, same, .. } => {
                let source = Arc::clone(source);
                let state = same.as_ref().map(|(state, _)| state.clone());
                Box::new(move || {
                    if state.is_some_and(|state| state.is_there()) {
                        return Answer::SameFile;
                    }
                    Answer::Key(source::load(&*source, profile))
                })
            }
            Self::Store { store, taken, .. } => {
                let store = Arc::clone(store);
                let taken = taken.map(|(version, _)| version);
                Box::new(move || match taken {
                    None => Answer::Document(store.read()),
                    Some(_) => match store.version() {
                        Ok(there) if there == taken => Answer::SameDocument,
                        // What is there now is not taken for gone or broken by its version alone.
                        Ok(_) => Answer::Document(store.read()),
                        Err(error) => Answer::Document(Err(error)),
                    },
                })
            }
        }
    }

    /// Publishes what an answer holds. `before` is the handle's generation from before the place was asked:
    /// what is older than that has gone back, and what is only older than the handle is now was overtaken.
    pub(super) fn take<I: Issuer>(
        &mut self,
        answer: Result<Answer, Problem>,
        publisher: &Publisher<I>,
        before: Generation,
        grace: Duration,
    ) -> Result<Outcome, ReloadError> {
        let provenance = self.provenance();
        match (self, answer) {
            (Self::Source { .. }, Ok(Answer::SameFile)) => not_stopped(publisher)
                .map(|()| Outcome::Same)
                .map_err(|problem| ReloadError::new(provenance, problem)),
            (Self::Source { source, found, remarks, same }, Ok(Answer::Key(Ok(Loaded::Found(now))))) => {
                if is_another_file(found, now.provenance()) {
                    return Err(ReloadError::new(provenance, ReloadProblem::OtherFile));
                }
                // The line in a `.env`, and what a source of the user's own says, may be others now.
                (*found, *remarks) = (now.provenance().clone(), now.remarks().to_vec());
                let outcome = publish_key(now.key(), found, publisher, grace);
                // Another publisher may have had its turn before or since.
                let is_active = matches!(outcome, Ok(Outcome::Same)) && publisher.generation() == before;
                // What an application's own source makes of a file is not known.
                let state = now.state().filter(|_| is_active && source.is_own(Seal::new()));
                *same = state.map(|state| (state.clone(), before));
                outcome
            }
            (Self::Source { .. }, Ok(Answer::Key(Ok(Loaded::Absent(absence))))) => {
                Err(ReloadError::new(provenance, ReloadProblem::Absent(absence)))
            }
            (Self::Source { .. }, Ok(Answer::Key(Err(error)))) => {
                if let Problem::Missing { absence } = error.problem() {
                    return Err(ReloadError::new(provenance, ReloadProblem::Absent(*absence)));
                }
                let problem = ReloadProblem::Source(error.problem().clone());
                Err(ReloadError::new(error.provenance().clone(), problem))
            }
            (Self::Store { taken, .. }, Ok(Answer::Document(Ok(there)))) => {
                publish_document(taken, there.as_ref(), publisher, before, grace)
                    .and_then(|current| not_stopped(publisher).map(|()| current))
                    .map(|current| current.map_or(Outcome::Same, |current| current.newer(&provenance)))
                    .map_err(|problem| ReloadError::new(provenance, problem))
            }
            (Self::Store { taken, .. }, Ok(Answer::SameDocument)) => {
                not_older(taken.as_ref().and_then(|(_, generation)| *generation), before)
                    .and_then(|()| not_stopped(publisher))
                    .map(|()| Outcome::Same)
                    .map_err(|problem| ReloadError::new(provenance, problem))
            }
            (Self::Store { .. }, Ok(Answer::Document(Err(error)))) => {
                Err(ReloadError::new(provenance, ReloadProblem::Document(error)))
            }
            (Self::Store { .. }, Err(problem)) => {
                let problem = ReloadProblem::Document(DocumentError::Unavailable(problem));
                Err(ReloadError::new(provenance, problem))
            }
            (Self::Source { .. }, Err(problem)) => {
                Err(ReloadError::new(provenance, ReloadProblem::Source(problem)))
            }
            (Self::Source { .. }, Ok(Answer::Document(_) | Answer::SameDocument))
            | (Self::Store { .. }, Ok(Answer::Key(_) | Answer::SameFile)) => {
                unreachable!("a place answers its own question")
            }
        }
    }
}

/// Returns whether a variable that names a file names another one than before. The environment of a process
/// can be changed from within.
fn is_another_file(before: &Provenance, now: &Provenance) -> bool {
    match (before, now) {
        (Provenance::FileVariable { path: before, .. }, Provenance::FileVariable { path: now, .. }) => {
            before != now
        }
        _ => false,
    }
}

/// Publishes a source's key, if it is not the active one.
pub(super) fn publish_key<I: Issuer>(
    key: &RawKey,
    provenance: &Provenance,
    publisher: &Publisher<I>,
    grace: Duration,
) -> Result<Outcome, ReloadError> {
    match publisher.publish_next(key, grace) {
        Published::Newer => Ok(Outcome::Newer {
            generation: publisher.generation(),
            current: Ok(key.fingerprint()),
            provenance: provenance.clone(),
        }),
        // Another issuer's key was not loaded.
        Published::Refused => Err(ReloadError::new(provenance.clone(), ReloadProblem::Stopped)),
        Published::Same | Published::OtherLineage => Ok(Outcome::Same),
    }
}

/// That the key there is not one that was stopped.
fn not_stopped<I: Issuer>(publisher: &Publisher<I>) -> Result<(), ReloadProblem> {
    if publisher.is_stopped() { Err(ReloadProblem::Stopped) } else { Ok(()) }
}

/// What a document has made active.
struct Current {
    generation: Generation,
    current: Result<Option<Fingerprint>, NoActiveKey>,
}

impl Current {
    fn newer(self, provenance: &Provenance) -> Outcome {
        let Self { generation, current } = self;
        Outcome::Newer { generation, current, provenance: provenance.clone() }
    }
}

/// A key set of this generation must not be older than the active one.
fn not_older(generation: Option<Generation>, before: Generation) -> Result<(), ReloadProblem> {
    let has_key = Some(before) >= Generation::numbered(1);
    let is_older = has_key && generation < Some(before);
    if is_older { Err(ReloadProblem::WentBack { active: before }) } else { Ok(()) }
}

fn publish_document<I: Issuer>(
    taken: &mut Option<(Version, Option<Generation>)>,
    there: Option<&Document>,
    publisher: &Publisher<I>,
    before: Generation,
    grace: Duration,
) -> Result<Option<Current>, ReloadProblem> {
    let first = Generation::numbered(1);
    let has_key = Some(before) >= first;
    let Some(document) = there else {
        let was_there = taken.is_some() || has_key;
        return if was_there { Err(ReloadProblem::Gone) } else { Ok(None) };
    };
    if let Some((_, generation)) = taken.filter(|(version, _)| version == document.version()) {
        return not_older(generation, before).map(|()| None);
    }
    let keys = KeySet::from_document(I::PROFILE, document.content().expose_secret())
        .map_err(ReloadProblem::KeySet)?;
    let generation = keys.generation();
    not_older(generation, before)?;
    let publication = keys.publication(grace, SystemTime::now());
    let current = publication.current.map(RawKey::fingerprint);
    match publisher.publish(&publication) {
        Published::Refused => {
            let active = publisher.generation();
            if generation < Some(active) {
                // A rotation in this process has published a newer one meanwhile; the next attempt reads it.
                return Ok(None);
            }
            Err(ReloadProblem::OtherKey { active })
        }
        Published::OtherLineage => Err(ReloadProblem::OtherKeySet),
        Published::Same => {
            *taken = Some((*document.version(), generation));
            Ok(None)
        }
        Published::Newer => {
            *taken = Some((*document.version(), generation));
            Ok(generation.map(|generation| Current { generation, current }))
        }
    }
}

/// How long a call that was left behind is given to come back before the place is called again. The crate's
/// own sources keep a deadline of their own, and until then another call would hang where the first one does.
const RETURN: Duration = DEFAULT_DEADLINE.saturating_mul(2);

/// Asks a place within a deadline.
pub(super) struct Asker {
    caller: Caller,
    target: Target,
    last: Option<Call>,
}

struct Call {
    begun: Instant,
    /// Held for as long as the call is under way.
    under_way: Weak<()>,
}

impl Asker {
    pub(super) fn new(settings: &RefreshSettings) -> Self {
        // Of its own: two refreshers of one place do not wait for each other.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let target = Target::of("refresher", &NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { caller: Caller::around_others().with_deadline(settings.deadline), target, last: None }
    }

    /// Does something within the deadline; past it, it is left behind.
    pub(super) fn within_deadline(&self, work: impl FnOnce() + Send + 'static) {
        // The call reports its own failure.
        let _ = self.caller.run(self.target, work);
    }

    /// Asks the place, and blocks until it answers; past the deadline it is left behind.
    pub(super) fn ask_blocking(
        &mut self,
        place: &Place,
        profile: &'static Profile,
    ) -> Result<Answer, Problem> {
        let question = self.question(place, profile)?;
        Ok(self.caller_of(place).run(self.target, question)?)
    }

    /// In a task: asks the place; past the deadline it is left behind. `prepare` is done before, within the
    /// same deadline.
    pub(super) async fn ask(
        &mut self,
        begin: Begin,
        place: &Place,
        profile: &'static Profile,
        prepare: impl FnOnce() + Send + 'static,
    ) -> Result<Answer, Problem> {
        let question = self.question(place, profile)?;
        let work = move || {
            prepare();
            question()
        };
        Ok(call(begin, &self.caller_of(place), self.target, work).await?)
    }

    /// Asks on a kept thread where nothing of an application's own leaves its traces on the stack.
    fn caller_of(&self, place: &Place) -> Caller {
        let caller = self.caller.clone();
        if place.is_own() { caller.on_kept_threads() } else { caller }
    }

    /// Returns what asks the place, on whatever thread, unless the last call still hangs.
    fn question(
        &mut self,
        place: &Place,
        profile: &'static Profile,
    ) -> Result<impl FnOnce() -> Answer + Send + use<>, Problem> {
        if self.last.as_ref().is_some_and(Call::still_hangs) {
            return Err(CallError::Stuck { count: 1 }.into());
        }
        let under_way = Arc::new(());
        self.last = Some(Call { begun: Instant::now(), under_way: Arc::downgrade(&under_way) });
        let question = place.question(profile);
        Ok(move || {
            let answer = question();
            drop(under_way);
            answer
        })
    }
}

impl Call {
    fn still_hangs(&self) -> bool {
        self.under_way.strong_count() > 0 && self.begun.elapsed() < RETURN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_names_another_file_is_another_place() {
        let place =
            |path: &str| Provenance::FileVariable { name: "SHOP_FILE".into(), path: Some(path.into()) };
        assert!(is_another_file(&place("/run/secrets/one"), &place("/run/secrets/two")));
        assert!(!is_another_file(&place("/run/secrets/one"), &place("/run/secrets/one")));
        assert!(!is_another_file(&Provenance::other("vault", "1"), &Provenance::other("vault", "2")));
    }

    /// A file whose key is active, polled for as long as it takes until it is known.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_as_it_was_is_looked_at_and_not_read() {
        use std::fs::{self, File};
        use std::thread::sleep;

        use crate::internal::files::private::Stamp;
        use crate::key::Kanal;
        use crate::source::SecretFile;

        const KEYS: [&str; 2] = ["8fK2pX9mWq4Ld7Vb3Nc6Ts1Z", "Zs1T6cN3bV7dL4qW9Xp2Kf8A"];

        // A file system on which stamps are relied upon.
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = folder.path().join("key");
        fs::write(&path, KEYS[0]).unwrap();
        let publisher = Publisher::<Kanal>::new();
        let source: Arc<dyn Source> = Arc::new(SecretFile::new(&path));
        let found = source.provenance();
        let mut place = Place::Source { source, found, remarks: Vec::new(), same: None };
        let poll = |place: &mut Place| {
            let before = publisher.generation();
            place.expect(before);
            let answer = place.question(Kanal::PROFILE)();
            let is_same = matches!(answer, Answer::SameFile);
            (is_same, place.take(Ok(answer), &publisher, before, Duration::ZERO).unwrap())
        };
        assert!(matches!(poll(&mut place), (false, Outcome::Newer { .. })));
        assert_eq!(poll(&mut place), (false, Outcome::Same), "a file that was written just now is read");
        sleep(Duration::from_millis(4100));
        assert!(Stamp::lasting(&File::open(&path).unwrap(), &path.metadata().unwrap()).is_some());
        assert_eq!(poll(&mut place), (false, Outcome::Same));
        assert_eq!(poll(&mut place), (true, Outcome::Same));
        // In place, as long as before, and with the time of before.
        let modified = path.metadata().unwrap().modified().unwrap();
        fs::write(&path, KEYS[1]).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert!(matches!(poll(&mut place), (false, Outcome::Newer { .. })));
        sleep(Duration::from_millis(4100));
        assert_eq!(poll(&mut place), (false, Outcome::Same));
        assert_eq!(poll(&mut place), (true, Outcome::Same));
        // Where another key is active, the file is read.
        publisher.publish_next(&RawKey::parse(Kanal::PROFILE, KEYS[0].as_bytes()).unwrap(), Duration::ZERO);
        assert!(matches!(poll(&mut place), (false, Outcome::Newer { .. })));
        let active = publisher.handle().load().map(|now| now.current().matches(KEYS[1].as_bytes()));
        assert!(active.unwrap());
        poll(&mut place);
        assert_eq!(poll(&mut place), (true, Outcome::Same));
        fs::remove_file(&path).unwrap();
        let answer = place.question(Kanal::PROFILE)();
        assert!(matches!(answer, Answer::Key(Ok(Loaded::Absent(_)))));
    }

    #[test]
    fn only_a_call_that_still_hangs_keeps_others_away_for_a_time() {
        let call = Arc::new(());
        let begun = Instant::now();
        let mut last = Call { begun, under_way: Arc::downgrade(&call) };
        assert!(last.still_hangs());
        // Where the clock of a machine that has just started does not reach back, there is nothing to see.
        if let Some(begun) = begun.checked_sub(RETURN) {
            last.begun = begun;
            assert!(!last.still_hangs());
        }
        last.begun = begun;
        drop(call);
        assert!(!last.still_hangs());
    }
}
