//! P7: a rotation survives the death of its process at any instant. The active key and every key whose
//! `stage` has returned are never lost, and the rotation goes on by doing the last step again.
//!
//! Power cuts at every instant of a rotation are in `src/rotation/commit.rs`.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::steps::Now as _;
use crate::support::stores::pass_on;
use crate::support::{Child, Folder};
use keysheath::failure::{Answer, Meaning};
use keysheath::key::{ApiKey, Issuer, Kanal, RawKey};
use keysheath::keyset::{KeySet, KeyState};
use keysheath::probe::{Finding, Probe, Report};
use keysheath::rotation::{KeyDetails, Retirement, Rotation, RotationPolicy, Verification};
use keysheath::store::{Document, DocumentContent, DocumentError, DocumentStore, FileStore, Version};

fn key(number: u64) -> ApiKey<Kanal> {
    ApiKey::<Kanal>::parse_bytes(format!("Key{number:021}").as_bytes()).unwrap()
}

fn number_of(key: &RawKey) -> u64 {
    key.expose_secret().trim_start_matches("Key").parse().unwrap()
}

/// An issuer at which a person deletes every key but the newest and the one that is asked about as pending:
/// it accepts what is active or pending in the document, and refuses what is previous.
struct Issued(PathBuf);

impl Probe for Issued {
    fn probe(&self, key: &RawKey) -> Report {
        let there = read(&FileStore::new(&self.0));
        let meaning = match there.state_of(key.fingerprint().unwrap()) {
            Some(KeyState::Pending | KeyState::Current) => Meaning::Accepted,
            _ => Meaning::KeyRefused,
        };
        Report::new(Finding::new(Ok(Answer::new(200, meaning))))
    }
}

fn read(store: &dyn DocumentStore) -> KeySet {
    let there = store.read().expect("it can be read").expect("it is there");
    KeySet::from_document(Kanal::PROFILE, there.content().expose_secret()).expect("it is a whole key set")
}

fn tell(line: &str) {
    let mut out = std::io::stdout();
    out.write_all(format!("= {line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// What a step does: the next process does it again after a death.
#[derive(Clone, Copy, Debug)]
enum Do {
    Stage,
    Verify,
    Promote,
    RollBack,
    VerifyAgain,
    PromoteAgain,
    Retire,
    StageAnother,
    Abort,
}

/// One round. Its keys are those with the round's number and the number after it.
const ROUND: [Do; 9] = [
    Do::Stage,
    Do::Verify,
    Do::Promote,
    Do::RollBack,
    Do::VerifyAgain,
    Do::PromoteAgain,
    Do::Retire,
    Do::StageAnother,
    Do::Abort,
];

fn make(rotation: &Rotation<Kanal>, step: Do, number: u64) {
    match step {
        Do::Stage => drop(rotation.stage(KeyDetails::new(&key(number)).with_note("round")).unwrap()),
        Do::StageAnother => drop(rotation.stage(&key(number + 1)).unwrap()),
        Do::Verify | Do::VerifyAgain => {
            assert!(matches!(rotation.verify_now().unwrap(), Verification::Verified { .. }));
        }
        Do::Promote | Do::PromoteAgain => drop(rotation.promote_now().unwrap()),
        Do::RollBack => drop(rotation.roll_back_now().unwrap()),
        Do::Retire => assert!(matches!(rotation.retire_now().unwrap(), Retirement::Retired { .. })),
        Do::Abort => drop(rotation.abort_now().unwrap()),
    }
}

fn open(store: impl DocumentStore + 'static, path: &Path) -> Rotation<Kanal> {
    Rotation::<Kanal>::open(store, RotationPolicy::new())
        .unwrap()
        .with_probe(Issued(path.to_owned()))
        .with_audit_file(path.with_extension("audit"))
        .with_operator("child")
}

/// Where a round had come to, by what was reported: the step that is to be done next, or again.
#[derive(Clone, Copy, Debug)]
struct At {
    number: u64,
    step: usize,
}

impl At {
    fn after(self) -> Self {
        if self.step + 1 == ROUND.len() {
            Self { number: self.number + 2, step: 0 }
        } else {
            Self { step: self.step + 1, ..self }
        }
    }
}

/// Rotates until it is killed. It begins with the step that was not reported as done.
fn rotate_for_ever(rotation: &Rotation<Kanal>, mut at: At) -> ! {
    tell("opened");
    loop {
        tell(&format!("begin {} {}", at.number, at.step));
        make(rotation, ROUND[at.step], at.number);
        tell(&format!("done {} {}", at.number, at.step));
        at = at.after();
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap()
}

/// The keys of rounds, and where each was when it was last reported.
struct Ledger {
    at: At,
    /// Keys whose staging has returned.
    staged: Vec<u64>,
    /// Keys whose end has returned: retired or given up.
    gone: HashMap<u64, &'static str>,
    in_force: u64,
}

impl Ledger {
    fn new() -> Self {
        Self { at: At { number: 10, step: 0 }, staged: Vec::new(), gone: HashMap::new(), in_force: 1 }
    }

    fn note_done(&mut self, at: At) {
        let At { number, step } = at;
        match ROUND[step] {
            Do::Stage => self.staged.push(number),
            Do::StageAnother => self.staged.push(number + 1),
            Do::Promote | Do::PromoteAgain => self.in_force = number,
            // The key of the round before, or the one that was adopted.
            Do::RollBack => self.in_force = before(number),
            Do::Retire => drop(self.gone.insert(before(number), "retired")),
            Do::Abort => drop(self.gone.insert(number + 1, "given up")),
            Do::Verify | Do::VerifyAgain => {}
        }
        self.at = at.after();
    }

    /// Asserts that what was reported is there: nothing is lost.
    fn check(&self, keys: &KeySet) {
        let current = keys.current().expect("a key is active");
        let number = self.at.number;
        let may_be = match ROUND[self.at.step] {
            // The step that was not reported as done may have been done.
            Do::Promote | Do::PromoteAgain => [self.in_force, number],
            Do::RollBack => [self.in_force, before(number)],
            _ => [self.in_force, self.in_force],
        };
        assert!(may_be.contains(&number_of(current.key())), "{may_be:?} and {current:?} at {:?}", self.at);
        let held = [keys.current(), keys.pending(), keys.previous()];
        for &staged in self.staged.iter().rev().take(12).filter(|number| !self.gone.contains_key(number)) {
            let is_held = held.into_iter().flatten().any(|held| number_of(held.key()) == staged);
            let ends_now = match ROUND[self.at.step] {
                Do::Retire => staged == before(number),
                Do::Abort => staged == number + 1,
                _ => false,
            };
            assert!(is_held || ends_now, "key {staged} is lost at {:?}", self.at);
        }
    }
}

/// The number of the key that a round replaces.
fn before(number: u64) -> u64 {
    if number == 10 { 1 } else { number - 2 }
}

/// Starts a child, kills it after a time or leaves that to itself, and notes what it reported.
fn kill_one(child: Child, ledger: &mut Ledger, after: Option<Duration>) {
    let status = child.run_until_killed(after, |line| {
        if let Some(done) = line.strip_prefix("= done ") {
            let (number, step) = done.split_once(' ').unwrap();
            ledger.note_done(At { number: number.parse().unwrap(), step: step.parse().unwrap() });
        } else {
            assert!(line.starts_with("= begin "), "{line}");
        }
    });
    assert!(!status.success());
    assert_eq!(status.code(), None, "it ended by a signal, and by no error of its own");
}

fn begin(path: &Path) {
    let _ = open(FileStore::new(path), path).adopt(&key(1)).unwrap();
}

#[test]
fn a_rotation_killed_at_any_instant_loses_no_key_and_resumes() {
    const NAME: &str = "a_rotation_killed_at_any_instant_loses_no_key_and_resumes";
    const KILLS: u64 = 300;
    if Child::new(NAME).is_here() {
        let path = PathBuf::from(variable("DOCUMENT"));
        let at = At { number: variable("NUMBER").parse().unwrap(), step: variable("STEP").parse().unwrap() };
        rotate_for_ever(&open(FileStore::new(&path), &path), at);
    }
    let folder = Folder::new();
    let path = folder.at("keys");
    begin(&path);
    let (mut ledger, random) = (Ledger::new(), RandomState::new());
    let mut steps_at_kill = HashMap::new();
    for kill in 0..KILLS {
        let child = Child::new(NAME)
            .var("DOCUMENT", &path)
            .var("NUMBER", ledger.at.number.to_string())
            .var("STEP", ledger.at.step.to_string());
        let pause = Duration::from_micros(random.hash_one(kill) % 30_000);
        kill_one(child, &mut ledger, Some(pause));
        ledger.check(&read(&FileStore::new(&path)));
        *steps_at_kill.entry(ledger.at.step).or_insert(0) += 1;
    }
    println!("{KILLS} kills, {} keys staged, at the steps {steps_at_kill:?}", ledger.staged.len());
    assert!(ledger.staged.len() > 10, "they hardly rotated");
    assert!(steps_at_kill.len() > 3, "the kills came at the same steps: {steps_at_kill:?}");
    // Every event is a whole line, whatever was killed.
    let audit = std::fs::read_to_string(path.with_extension("audit")).unwrap();
    for line in audit.lines() {
        serde_json_line(line);
    }
}

fn serde_json_line(line: &str) {
    assert!(line.starts_with("{\"at\":\"") && line.ends_with('}'), "{line}");
}

/// A store that kills its process before or after the `n`-th call to it.
struct Deadly {
    inner: FileStore,
    calls: AtomicU64,
    dies_at: u64,
}

impl Deadly {
    /// An instant between two things that are done.
    fn instant(&self) {
        if self.calls.fetch_add(1, Ordering::SeqCst) == self.dies_at {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
            loop {
                thread::park();
            }
        }
    }
}

impl DocumentStore for Deadly {
    pass_on!(inner: provenance, limit);

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        self.instant();
        let there = self.inner.read();
        self.instant();
        there
    }

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        self.instant();
        let written = self.inner.write(content, unchanged);
        self.instant();
        written
    }
}

#[test]
fn a_rotation_that_dies_between_steps_loses_no_key_and_resumes() {
    const NAME: &str = "a_rotation_that_dies_between_steps_loses_no_key_and_resumes";
    if Child::new(NAME).is_here() {
        let path = PathBuf::from(variable("DOCUMENT"));
        // Opening reads once; that is before any step.
        let dies_at = variable("DIES_AT").parse::<u64>().unwrap() + 2;
        let store = Deadly { inner: FileStore::new(&path), calls: AtomicU64::new(0), dies_at };
        let rotation = open(store, &path);
        rotate_for_ever(&rotation, At { number: 10, step: 0 });
    }
    // Each step reads and writes: that is four instants, and two more where it looks before it asks the
    // issuer, and where it looks which rotation is under way.
    let mut ends = HashMap::new();
    for dies_at in 0..56 {
        let folder = Folder::new();
        let path = folder.at("keys");
        begin(&path);
        let mut ledger = Ledger::new();
        let child = Child::new(NAME).var("DOCUMENT", &path).var("DIES_AT", dies_at.to_string());
        kill_one(child, &mut ledger, None);
        ledger.check(&read(&FileStore::new(&path)));
        *ends.entry(ledger.at.step + 100 * usize::from(ledger.at.number > 10)).or_insert(0) += 1;
        // The next process repeats the step that was not reported as done, and ends the round.
        let rotation = open(FileStore::new(&path), &path);
        let first = ledger.at.number;
        while ledger.at.number == first {
            make(&rotation, ROUND[ledger.at.step], ledger.at.number);
            ledger.note_done(ledger.at);
            ledger.check(&read(&FileStore::new(&path)));
        }
        let keys = read(&FileStore::new(&path));
        assert_eq!(number_of(keys.current().unwrap().key()), first);
        assert!(keys.pending().is_none() && keys.previous().is_none());
    }
    assert!((0..ROUND.len()).all(|step| ends.contains_key(&step)), "not every step was met: {ends:?}");
}
