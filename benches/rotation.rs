//! What following a file and a rotation's steps cost, as ratios to a peer measured in the same run.
//!
//! ```sh
//! cargo bench --all-features --bench rotation
//! ```
//!
//! Medians, because a disk and a scheduler have long tails. Where a target is missed, the program ends with
//! an error.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use keysheath::Cadence;
use keysheath::chain::Chain;
use keysheath::key::{ApiKey, Kanal};
use keysheath::refresh::{RefreshSettings, Refresher};
use keysheath::rotation::{CheckedBy, Rotation, RotationPolicy};
use keysheath::source::SecretFile;
use keysheath::store::{DocumentContent, DocumentStore, FileStore};

/// The poll interval that the watcher is measured against.
const POLL: Duration = Duration::from_secs(1);

/// How often a file is replaced.
const REPLACEMENTS: usize = 200;

/// How many steps of a rotation, and as many writes of its peer in turn with them.
const STEPS: usize = 200;

fn main() -> ExitCode {
    println!("| what | median | peer | peer's median | ratio | target |\n|---|---:|---|---:|---:|---|");
    let met = [watcher(), transition()];
    if met.contains(&false) {
        eprintln!("a target was missed");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// From a file's replacement to the new active key.
fn watcher() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kanal");
    replace(&path, 0);
    let settings = RefreshSettings::new().with_cadence(Cadence::every(POLL)).with_file_watch();
    let chain = Chain::<Kanal>::new().with(SecretFile::new(&path));
    let refresher = Refresher::from_chain(chain, settings).unwrap();
    let mut subscription = refresher.handle().subscribe();
    let times = (1..=REPLACEMENTS)
        .map(|number| {
            let start = Instant::now();
            replace(&path, number);
            let told = subscription.wait(POLL * 10).expect("the new key comes into force").unwrap();
            let time = start.elapsed();
            assert!(told.current().matches(key(number).as_bytes()));
            time
        })
        .collect();
    row("replacing a file, until its key is active", median(times), "a poll interval", POLL, 0.05)
}

/// A step with its audit line, beside writing the same document and one synced line by hand.
fn transition() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let rotation = Rotation::<Kanal>::open(FileStore::new(&path), RotationPolicy::new())
        .unwrap()
        .with_audit_file(folder.path().join("audit.jsonl"));
    rotation.adopt(&ApiKey::parse(&key(0)).unwrap()).unwrap();
    let id = rotation.stage(&ApiKey::parse(&key(1)).unwrap()).unwrap().rotation();

    let content = FileStore::new(&path).read().unwrap().unwrap().content().clone();
    let by_hand = FileStore::new(folder.path().join("by-hand"));
    let mut version = by_hand.write(&content, None).unwrap();
    let mut lines = OpenOptions::new().append(true).create(true).open(folder.path().join("lines")).unwrap();

    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for number in 0..STEPS {
        let start = Instant::now();
        if number % 2 == 0 {
            rotation.promote(CheckedBy::Person(id)).unwrap();
        } else {
            rotation.roll_back(id).unwrap();
        }
        ours.push(start.elapsed());
        let start = Instant::now();
        version = write(&by_hand, &content, version, &mut lines);
        peers.push(start.elapsed());
    }
    let peer = "writing the file and one synced line";
    row("a step of a rotation, with its audit line", median(ours), peer, median(peers), 1.25)
}

fn write(
    store: &FileStore,
    content: &DocumentContent,
    version: keysheath::store::Version,
    lines: &mut File,
) -> keysheath::store::Version {
    let version = store.write(content, Some(&version)).unwrap();
    writeln!(lines, "{:?} {:<300}", SystemTime::now(), "a line as long as that of an audit").unwrap();
    lines.sync_all().unwrap();
    version
}

/// A made-up key for each number.
fn key(number: usize) -> String {
    format!("Qz7Hk2Vx9Rm4Lt8Wb3{number:06}")
}

/// As an editor does: a new file, renamed over the old one.
fn replace(path: &Path, number: usize) {
    let new = path.with_extension("new");
    fs::write(&new, key(number)).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::rename(&new, path).unwrap();
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Prints a row, and says whether the target is met.
fn row(what: &str, ours: Duration, peer: &str, peers: Duration, at_most: f64) -> bool {
    let ratio = ours.as_secs_f64() / peers.as_secs_f64();
    println!("| {what} | {ours:.1?} | {peer} | {peers:.1?} | {ratio:.3} | at most {at_most} |");
    ratio <= at_most
}
