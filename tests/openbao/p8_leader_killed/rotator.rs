//! The process that rotates: it does one step after another, as its standard input says, and reports when
//! each is done. It may be killed at any instant; the next one that is started is sent the same step again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child as Process, ChildStdin};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::steps::Now as _;
use keysheath::emulator::OWN_STORE;
use keysheath::key::{ApiKey, Kanal, Origin, Roots};
use keysheath::openbao::{Login, OpenBao};
use keysheath::probe::HttpProbe;
use keysheath::rotation::{NextStep, Retirement, Rotation, RotationError, RotationPolicy, Verification};
use keysheath::store::DocumentError;

use super::{PATIENCE, State, eventually, guard, store};
use crate::support::Child;
use crate::support::openbao::Cluster;

/// In the test: the other process. Dropped, it ends.
pub(super) struct Rotator {
    process: Process,
    input: ChildStdin,
    output: Receiver<String>,
}

impl Rotator {
    /// Starts one that asks this node first, and begins once it sees one of these states there. A standby may
    /// be behind, one that was killed before by whole rotations, and what a rotation sees then is older: its
    /// steps would be refused.
    pub(super) fn start(
        child: Child,
        cluster: &Cluster,
        node: usize,
        issuer: &Origin,
        states: [State; 2],
    ) -> Self {
        let members: Vec<_> = (0..3).map(|at| cluster.origin((node + at) % 3).to_string()).collect();
        let child = child.var("MEMBERS", members.join(" ")).var("TOKEN", &cluster.token);
        let child = child.var("ROOTS", &cluster.pem).var("ISSUER", issuer.to_string());
        let child = child.var("STATES", states.map(|state| format!("{state:?}")).join("\n"));
        let mut process = child.spawn_listening();
        let (input, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test harness writes into the same pipe.
                if let Some(line) = line.strip_prefix("= ") {
                    let _ = sender.send(line.to_owned());
                }
            }
        });
        Self { process, input, output }
    }

    pub(super) fn send(&mut self, command: &str) {
        writeln!(self.input, "{command}").expect("the rotator listens");
    }

    /// The next line that it writes; `None` once it has ended.
    pub(super) fn next_line(&self) -> Option<String> {
        match self.output.recv_timeout(PATIENCE * 2) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the rotator writes nothing"),
        }
    }

    pub(super) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Rotator {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn tell(what: &str) {
    let mut out = std::io::stdout();
    out.write_all(format!("\n= {what}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Does a step again for as long as the store is away. A step that was done without saying so is done.
fn again<T>(step: impl Fn() -> Result<T, RotationError>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match step() {
            Ok(done) => return done,
            Err(
                RotationError::Unsure { problem: problem @ DocumentError::Unavailable(_), .. }
                | RotationError::Document { problem: problem @ DocumentError::Unavailable(_), .. },
            ) => eprintln!("again: {problem}"),
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < end, "the store did not come back");
    }
}

/// In the child: does what its standard input says, until that ends.
pub(super) fn work() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let members: Vec<_> = variable("MEMBERS").split(' ').map(|text| Origin::parse(text).unwrap()).collect();
    let client = OpenBao::at(members[0].clone(), Login::token(variable("TOKEN"))).unwrap();
    let client = client.with_roots(Roots::from_pem(variable("ROOTS").as_bytes()).unwrap());
    let store = store(client.with_members(members).unwrap());
    let issuer = Origin::parse(&variable("ISSUER")).unwrap();
    // The old key is deleted as soon as that is asked for, and nothing is sent with it any more from then on.
    let policy = RotationPolicy::new()
        .with_grace(Duration::ZERO)
        .with_settle(Duration::ZERO)
        .with_activation(Duration::ZERO);
    let states = variable("STATES");
    eventually("what is there is seen", || {
        let seen = format!("{:?}", State::in_store(&store));
        states.lines().any(|state| state == seen)
    });
    let rotation = again(|| Rotation::<Kanal>::open(store.clone(), policy.clone()))
        .with_probe(HttpProbe::by_invalid_customer(OWN_STORE, []).with_guard(guard(&issuer)));
    tell("open");
    for command in std::io::stdin().lines().map_while(Result::ok) {
        let (word, key) = command.split_once(' ').unwrap_or((&command, ""));
        let key = || ApiKey::<Kanal>::parse_bytes(key.as_bytes()).unwrap();
        match word {
            "adopt" => drop(again(|| rotation.adopt(&key()))),
            "stage" => drop(again(|| rotation.stage(&key()))),
            "promote" => drop(again(|| rotation.promote_now())),
            "roll-back" => drop(again(|| rotation.roll_back_now())),
            "verify" => {
                let verification = again(|| rotation.verify_now());
                assert!(matches!(verification, Verification::Verified { .. }), "{verification}");
            }
            "retire" => {
                let retirement = again(|| rotation.retire_now());
                assert!(matches!(retirement, Retirement::Retired { .. }), "{retirement}");
            }
            "ask" => {
                tell(&deletion(&rotation));
                continue;
            }
            _ => panic!("{command}"),
        }
        tell("done");
    }
}

/// Waits until a deletion is asked for, and gives the fingerprint of the key to delete.
fn deletion(rotation: &Rotation<Kanal>) -> String {
    loop {
        match again(|| rotation.next_step()) {
            NextStep::Wait { .. } => thread::sleep(Duration::from_millis(1)),
            NextStep::Verify { key, .. } => drop(again(|| rotation.verify(key.rotation()))),
            NextStep::Delete { key, .. } => return key.fingerprint().to_string(),
            step => panic!("a deletion was to be asked for: {step}"),
        }
    }
}
