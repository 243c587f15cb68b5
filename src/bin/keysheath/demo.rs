//! The life of a key: created, stored, verified, promoted, rolled back, retired and leaked, while requests
//! are sent.
//!
//! It starts the emulator on 127.0.0.1 in place of Kanal, and does what a person does in the app: create keys
//! and delete them. Two services send requests from several threads. One rotates the keys; the other only
//! follows the document that they are kept in, as another process would. A planned rotation fails no request:
//! the program prints the number of failed requests, and ends with an error if it is not 0.

mod load;
mod probe;

use std::collections::HashMap;
use std::error::Error;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keysheath::Cadence;
use keysheath::client::OriginGuard;
use keysheath::emulator::{Emulator, OWN_STORE};
use keysheath::handle::{Generation, KeyHandle};
use keysheath::key::{ApiKey, Fingerprint, Kanal};
use keysheath::keyset::RotationId;
use keysheath::refresh::{RefreshSettings, Refresher};
use keysheath::registry::KeyId;
use keysheath::rotation::{KeyDetails, NextStep, Retirement, Rotation, RotationPolicy, Verification};
use keysheath::store::{DocumentStore, FileStore};

use load::Load;
use probe::OrdersProbe;

type Failure = Box<dyn Error>;

/// The poll interval of the service that does not rotate. A real one polls every half minute.
const POLL: Duration = Duration::from_millis(50);

/// The longest wait for a condition, such as the end of the requests under way.
const PATIENCE: Duration = Duration::from_secs(30);

pub const USAGE: &str = "\
usage: keysheath demo [OPTIONS]

Starts an emulator of Kanal on 127.0.0.1, and two services that send requests to it from four threads.
Creates, verifies, promotes, rolls back and retires keys meanwhile. At last one leaks.

  --seconds NUMBER     how long all planned rotations take together [default: 6]
  --rotations NUMBER   how many there are [default: 6]
  --keychain           keep the keys in an item of this machine's keychain, not in a file of a temporary
                       folder; it is deleted at the end
  -h, --help           print this text";

/// The settings of one run.
pub(crate) struct Demo {
    pub time: Duration,
    pub rotations: u32,
    pub keychain: bool,
}

impl Demo {
    /// Plays it. Fails if a request failed before the key leaked.
    pub fn run(&self) -> Result<(), Failure> {
        let folder = Folder::new()?;
        if self.keychain {
            return in_the_keychain(self, &folder.0);
        }
        let path = folder.0.join("kanal-keys");
        live(self, &folder.0, || FileStore::new(&path))
    }
}

/// A new temporary folder of this user alone. It is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let unguessed = RandomState::new().hash_one(std::process::id());
        let path = std::env::temp_dir().join(format!("keysheath-demo-{unguessed:016x}"));
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        // It fails if something has that name.
        builder.create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system, which clears temporary folders.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(feature = "keychain")]
fn in_the_keychain(demo: &Demo, folder: &Path) -> Result<(), Failure> {
    use keysheath::source::Keychain;
    use keysheath::store::KeychainStore;

    let name = format!("demo-{}", std::process::id());
    let keychain = Keychain::for_service("keysheath-demo");
    let lock = folder.join("lock");
    let outcome = live(demo, folder, || KeychainStore::new(keychain.clone(), name.clone(), &lock));
    keychain.delete(&name)?;
    outcome
}

#[cfg(not(feature = "keychain"))]
fn in_the_keychain(_: &Demo, _: &Path) -> Result<(), Failure> {
    Err("--keychain needs the feature keychain".into())
}

/// The emulator, both services, and what a person sees in the app.
struct Scene {
    emulator: Emulator,
    rotation: Rotation<Kanal>,
    /// The handle of the service that rotates.
    handle: KeyHandle<Kanal>,
    /// The handle of the service that only follows.
    follower: KeyHandle<Kanal>,
    /// The keys in the app, where a person deletes them.
    in_app: HashMap<Fingerprint, KeyId>,
    load: Load,
}

fn live<S: DocumentStore + 'static>(demo: &Demo, folder: &Path, open: impl Fn() -> S) -> Result<(), Failure> {
    println!("Keys in {}", open().provenance());
    let emulator = Emulator::kanal().start()?;
    let guard = OriginGuard::for_loopback(emulator.origin().clone())?;
    println!("The emulator answers for Kanal on {}", emulator.origin());

    let (audit, trail) = (folder.join("audit.jsonl"), Arc::new(Mutex::new(Vec::new())));
    // A person gives other processes a quarter of an hour to take a new key. Here both services are observed.
    let policy = RotationPolicy::new()
        .with_key_name("production-shop")
        .with_grace(Duration::ZERO)
        .with_settle(Duration::ZERO)
        .with_activation(Duration::ZERO);
    let rotation = Rotation::<Kanal>::open(open(), policy)?
        .with_probe(OrdersProbe::new(guard.clone(), OWN_STORE)?)
        .with_audit_file(&audit)
        .on_event({
            let trail = Arc::clone(&trail);
            move |event| trail.lock().unwrap_or_else(PoisonError::into_inner).push(event.to_string())
        })
        .with_operator("anna");
    let handle = rotation.handle();
    let refresher = Refresher::from_store(open(), RefreshSettings::new().with_cadence(Cadence::every(POLL)))?;

    let follower = refresher.handle();
    let handles = [handle.clone(), handle.clone(), follower.clone(), follower.clone()];
    let in_app = HashMap::new();
    let load = Load::start(&guard, OWN_STORE, handles);
    let mut scene = Scene { emulator, rotation, handle, follower, in_app, load };

    scene.first_key()?;
    let start = Instant::now();
    for number in 1..=demo.rotations {
        scene.rotate(number)?;
        // Each rotation has its share of the time.
        let share = demo.time.mul_f64(f64::from(number) / f64::from(demo.rotations));
        std::thread::sleep(share.saturating_sub(start.elapsed()));
    }
    let (answered, failed) = (scene.load.answered(), scene.load.failed());
    scene.leak()?;

    let rotations = demo.rotations;
    println!("\n  requests answered  {answered:>9}  while {rotations} rotations were made");
    println!("  requests failed    {failed:>9}  before the compromise");
    println!("  not sent           {:>9}  while no key was active", scene.load.unsent());
    println!("  answered after it  {:>9}", scene.load.answered() - answered);
    let trail = trail.lock().unwrap_or_else(PoisonError::into_inner);
    let file = std::fs::read_to_string(&audit)?;
    println!("\nThe audit trail has {} lines of JSON. The last say:", file.lines().count());
    trail.iter().skip(trail.len().saturating_sub(6)).for_each(|event| println!("  {event}"));
    match scene.load.first_failure().filter(|_| failed > 0) {
        Some(why) => Err(format!("{failed} requests failed, the first with {why}").into()),
        None => Ok(()),
    }
}

impl Scene {
    /// Creates a key as a person does in the app, which shows it once.
    fn create(&mut self) -> Result<ApiKey<Kanal>, Failure> {
        let new = self.emulator.create_key("production-shop")?;
        let fingerprint = new.key().fingerprint().ok_or("the key has no fingerprint")?;
        self.in_app.insert(fingerprint, new.record().id());
        Ok(new.into_key().try_into_typed()?)
    }

    fn delete(&mut self, fingerprint: Fingerprint) -> Result<(), Failure> {
        let id = self.in_app.remove(&fingerprint).ok_or("the app has no such key")?;
        Ok(self.emulator.delete_key(id)?)
    }

    fn first_key(&mut self) -> Result<(), Failure> {
        println!("\n{}", self.rotation.next_step()?);
        let key = self.create()?;
        println!("  the app shows it once: {key:?}");
        println!("  {}", self.rotation.adopt(&key)?);
        self.wait_until("the other service has the key", |scene| scene.follower.load().is_ok())?;
        println!("  two services send with it, from four threads\n");
        Ok(())
    }

    /// Makes one planned rotation. Every third is rolled back once on the way.
    fn rotate(&mut self, number: u32) -> Result<(), Failure> {
        print!("rotation {number:>3}  ");
        let key = self.create()?;
        let id = self.rotation.stage(KeyDetails::new(&key).with_note("a planned rotation"))?.rotation();
        mark("staged");
        let mut old = self.verify_and_promote(id)?;
        if number.is_multiple_of(3) {
            self.rotation.roll_back(id)?;
            mark("rolled back");
            old = self.verify_and_promote(id)?;
        }
        self.drain(old)?;
        // Before the old key is deleted, the new one is verified once more.
        self.verify(id)?;
        match self.rotation.next_step()? {
            NextStep::Delete { key, .. } => self.delete(key.fingerprint())?,
            step => return Err(format!("expected the deletion of the old key, not: {step}").into()),
        }
        mark("old one deleted");
        match self.rotation.retire(id)? {
            Retirement::Retired { .. } => mark("retired"),
            other => return Err(other.to_string().into()),
        }
        println!("{:>9} answered, {} failed", self.load.answered(), self.load.failed());
        Ok(())
    }

    /// Returns the last generation of the old key.
    fn verify_and_promote(&self, id: RotationId) -> Result<Option<Generation>, Failure> {
        self.verify(id)?;
        let old = self.handle.load().ok().map(|now| now.generation());
        self.rotation.promote(id)?;
        mark("promoted");
        Ok(old)
    }

    fn verify(&self, id: RotationId) -> Result<(), Failure> {
        match self.rotation.verify(id)? {
            Verification::Verified { .. } => mark("verified"),
            other => return Err(other.to_string().into()),
        }
        Ok(())
    }

    /// Waits until neither service holds the old key. Separate processes would show which generation they
    /// use.
    fn drain(&self, old: Option<Generation>) -> Result<(), Failure> {
        let old = old.ok_or("there was no key before")?;
        self.wait_until("the other service follows", |scene| {
            scene.follower.load().is_ok_and(|now| now.generation() > old)
        })?;
        for handle in [&self.handle, &self.follower] {
            if !handle.wait_drained(old, PATIENCE) {
                return Err("requests with the old key are still under way".into());
            }
        }
        mark("drained");
        Ok(())
    }

    /// Acts on a key that was found in a log: it is never sent again, and without another key no request is
    /// sent.
    fn leak(&mut self) -> Result<(), Failure> {
        let leaked = self.handle.load()?.current().fingerprint().ok_or("the key has no fingerprint")?;
        println!("\nThe key {leaked} was found in a log.");
        println!("  {}", self.rotation.compromise_with_note(leaked, "it was found in a log")?);
        self.wait_until("the other service has stopped", |scene| scene.follower.load().is_err())?;
        println!("{}", self.rotation.next_step()?);
        self.delete(leaked)?;
        println!("  {}", self.rotation.confirm_deleted(leaked)?);
        let key = self.create()?;
        let id = self.rotation.stage(KeyDetails::new(&key).with_note("after the leak"))?.rotation();
        self.verify_and_promote(id)?;
        println!();
        let before = self.load.answered();
        self.wait_until("requests are answered again", |scene| scene.load.answered() > before)
    }

    fn wait_until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) -> Result<(), Failure> {
        let start = Instant::now();
        while !is_so(self) {
            if start.elapsed() > PATIENCE {
                return Err(format!("not within {} s: {what}", PATIENCE.as_secs()).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn mark(what: &str) {
    print!("{what} · ");
    // A closed standard output does not end the rotation.
    let _ = std::io::stdout().flush();
}
