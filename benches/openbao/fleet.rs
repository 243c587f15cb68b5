//! A promotion's way to every handle of a fleet, and what the server is asked meanwhile.
//!
//! The program starts itself once for each process. Each has a token of its own, so that the server's audit
//! log tells them apart.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, SystemTime};

use keysheath::Cadence;
use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Kanal};
use keysheath::openbao::OpenBao;
use keysheath::refresh::{RefreshSettings, Refresher};
use keysheath::rotation::{CheckedBy, Rotation, RotationPolicy};
use keysheath::store::OpenBaoStore;
use serde_json::{Value, json};

use crate::plot::{Axis, BLUE, GRAY, Plot};
use crate::support::openbao::{PATIENCE, Server};

/// The variable that says that this process is one of the fleet.
pub(crate) const PROCESS: &str = "KEYSHEATH_BENCH_PROCESS";

const PROCESSES: u32 = 8;

/// In each process.
const HANDLES: u32 = 25;

const PROMOTIONS: u32 = 20;

const INTERVAL: Duration = Duration::from_secs(1);

/// The shortest interval that the jitter, 20 % unless set, leaves.
const SHORTEST: Duration = Duration::from_millis(800);

/// What a handle may take beyond the interval: the requests themselves, and having its turn on a busy
/// machine.
const BEYOND: Duration = Duration::from_millis(250);

/// How long nothing is changed before the first promotion.
const QUIET: Duration = Duration::from_secs(5);

const PLACE: &str = "secret/shop/keys";

/// A made-up key for each number.
fn key(number: u32) -> String {
    format!("Qz7Hk2Vx9Rm4Lt8Wb3{number:06}")
}

/// One process of the fleet: it says when each of its handles has each key, until its input ends.
pub(crate) fn follow() {
    let store = OpenBaoStore::new(OpenBao::from_env().expect("a client"), PLACE);
    let settings = RefreshSettings::new().with_cadence(Cadence::every(INTERVAL));
    let refresher = Refresher::<Kanal>::from_store(store, settings).expect("the key set is read");
    for _ in 0..HANDLES {
        let handle = refresher.handle();
        thread::spawn(move || tell_of_each_key(&handle));
    }
    say("ready");
    let _ = io::stdin().read_to_end(&mut Vec::new());
    assert!(refresher.status().health().problem().is_none(), "{}", refresher.status());
}

fn tell_of_each_key(handle: &KeyHandle<Kanal>) {
    let mut subscription = handle.subscribe();
    for number in 1..=PROMOTIONS {
        while !handle.load().is_ok_and(|now| now.current().matches(key(number).as_bytes())) {
            let _ = subscription.wait(PATIENCE).expect("another key comes");
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        say(&format!("{number} {}", now.as_nanos()));
    }
}

/// As one piece, so that the lines of many threads do not mix.
fn say(line: &str) {
    let _ = io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// What the audit log says of one process.
#[derive(Default)]
struct Asked {
    /// When the metadata were asked for, in seconds of the day.
    metadata: Vec<f64>,
    /// How often the document itself was.
    data: usize,
}

/// Prints the figures, and says whether the aims are met.
pub(crate) fn report(server: &Server) -> bool {
    let log = server.at("audit.log");
    let options = json!({ "file_path": log.display().to_string() });
    server.admin("PUT", "sys/audit/file", &json!({ "type": "file", "options": options }));
    let mut times = promotions(server, &log);
    server.admin("DELETE", "sys/audit/file", &Value::Null);
    for times in &mut times {
        times.sort_unstable();
    }
    let asked = asked(&log);

    let mut all = times.concat();
    all.sort_unstable();
    let (median, slowest) = (all[all.len() / 2], all[all.len() - 1]);
    let gaps: Vec<Vec<f64>> = asked.iter().map(|asked| gaps(&asked.metadata)).collect();
    let shortest = gaps.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let metadata: usize = asked.iter().map(|asked| asked.metadata.len()).sum();
    let data: usize = asked.iter().map(|asked| asked.data).sum();
    let most_data = asked.iter().map(|asked| asked.data).max().unwrap_or(0);
    let handles = PROCESSES * HANDLES;
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let lines = [
        format!(
            "{PROMOTIONS} promotions, one after another; poll interval 1 s, of which jitter takes off up to \
             20 %."
        ),
        format!(
            "With the new key: half of the {handles} handles within {}, the last of all within {}.",
            seconds(median),
            seconds(slowest)
        ),
        format!(
            "The server was asked {metadata} times for metadata: once by a process in an interval, never \
             within {shortest:.2} s."
        ),
        format!("It was asked {data} times for the document: not once in {} quiet seconds.", QUIET.as_secs()),
    ];
    println!("\n{}", lines.join("\n"));
    if let Some(path) = crate::plot_at("openbao-fleet.svg") {
        draw(&lines, &times, &all, &gaps).write(&path);
    }
    slowest <= INTERVAL + BEYOND
        && shortest >= SHORTEST.as_secs_f64()
        && most_data <= 1 + PROMOTIONS as usize * 3
}

/// Starts the fleet, promotes one key after another, and gives for each how long after the promotion had
/// returned each handle had it.
fn promotions(server: &Server, log: &Path) -> Vec<Vec<Duration>> {
    let store = OpenBaoStore::new(server.root(), PLACE);
    let rotation = Rotation::<Kanal>::open(store, RotationPolicy::new()).unwrap();
    let raw = |number| ApiKey::<Kanal>::parse_bytes(key(number).as_bytes()).unwrap();
    rotation.adopt(&raw(0)).unwrap();
    let (mut fleet, said) = start(server);
    for _ in 0..PROCESSES {
        assert_eq!(said.recv_timeout(PATIENCE).expect("a process is ready"), "ready");
    }
    thread::sleep(QUIET);
    for asked in asked(log) {
        assert!(asked.metadata.len() as u64 >= QUIET.as_secs() - 1, "the fleet polls");
        assert_eq!(asked.data, 1, "what has not changed is not read again");
    }
    let times = (1..=PROMOTIONS)
        .map(|number| {
            // Anywhere in the intervals: waiting for the last handle would else begin each time where a poll
            // has just been.
            thread::sleep(Duration::from_millis(u64::from(200 + number * 379 % 1000)));
            let id = rotation.stage(&raw(number)).unwrap().rotation();
            rotation.promote(CheckedBy::Person(id)).unwrap();
            let promoted = SystemTime::now();
            let times = (0..PROCESSES * HANDLES).map(|_| after(promoted, &next(&said), number)).collect();
            drop(rotation.retire(CheckedBy::Person(id)).unwrap());
            times
        })
        .collect();
    for process in &mut fleet {
        drop(process.stdin.take());
        assert!(process.wait().expect("a process").success(), "a process of the fleet failed");
    }
    times
}

fn next(said: &Receiver<String>) -> String {
    said.recv_timeout(PATIENCE).expect("each handle has the new key")
}

/// How long after the promotion a line says that the key of that number came; nothing where it came before
/// the call returned.
fn after(promoted: SystemTime, line: &str, number: u32) -> Duration {
    let (of, nanos) = line.split_once(' ').expect("two words");
    assert_eq!(of, number.to_string());
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos.parse().expect("a time"));
    at.duration_since(promoted).unwrap_or_default()
}

/// The processes, and the lines that they say. They end with their input, and so with this process.
fn start(server: &Server) -> (Vec<Child>, Receiver<String>) {
    let authority = server.at("vault-ca.pem");
    let rules = ["data", "metadata"]
        .map(|part| PLACE.replacen('/', &format!("/{part}/"), 1))
        .map(|path| format!("path \"{path}\" {{ capabilities = [\"read\"] }}\n"));
    server.admin("POST", "sys/policies/acl/fleet", &json!({ "policy": rules.concat() }));
    let (sender, said) = mpsc::channel();
    let start = |number: u32| {
        let request =
            json!({ "policies": ["fleet"], "ttl": "1h", "display_name": format!("fleet-{number}") });
        let token = server.admin("POST", "auth/token/create", &request);
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        for name in ["ADDR", "TOKEN", "CACERT", "NAMESPACE"] {
            command.env_remove(format!("VAULT_{name}")).env_remove(format!("BAO_{name}"));
        }
        let mut process = command
            .env(PROCESS, number.to_string())
            .env("BAO_ADDR", server.address().to_string())
            .env("BAO_CACERT", &authority)
            .env("BAO_TOKEN", token["auth"]["client_token"].as_str().expect("a token"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process of the fleet");
        let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let sender = sender.clone();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        process
    };
    ((0..PROCESSES).map(start).collect(), said)
}

/// What each process of the fleet asked for, by the server's audit log.
fn asked(log: &Path) -> Vec<Asked> {
    let log = std::fs::read_to_string(log).expect("the audit log");
    let mut asked = HashMap::<String, Asked>::new();
    // The last line may not be whole yet.
    let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    for entry in lines.map(|line| serde_json::from_str::<Value>(line).expect("an entry")) {
        let who = entry["auth"]["display_name"].as_str().unwrap_or_default();
        let path = entry["request"]["path"].as_str().unwrap_or_default();
        if entry["type"] != "request" || !who.starts_with("token-fleet-") {
            continue;
        }
        let asked = asked.entry(who.to_owned()).or_default();
        if path.contains("/metadata/") {
            asked.metadata.push(second_of_day(entry["time"].as_str().expect("a time")));
        } else if path.contains("/data/") {
            asked.data += 1;
        }
    }
    assert_eq!(asked.len(), PROCESSES as usize, "processes in the audit log");
    asked.into_values().collect()
}

/// Of a time such as `2026-01-31T12:34:56.789Z`.
fn second_of_day(time: &str) -> f64 {
    let (_, clock) = time.trim_end_matches('Z').split_once('T').expect("a date and a time");
    clock.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().expect("a number"))
}

/// The times between each and the next one, over midnight as well.
fn gaps(seconds: &[f64]) -> Vec<f64> {
    seconds.windows(2).map(|pair| (pair[1] - pair[0]).rem_euclid(24.0 * 60.0 * 60.0)).collect()
}

fn draw(lines: &[String], times: &[Vec<Duration>], all: &[Duration], gaps: &[Vec<f64>]) -> Plot {
    let mut plot = Plot::new("A promotion's way to 200 handles in 8 processes that poll OpenBao", lines);
    let last = all.last().map_or(0.0, Duration::as_secs_f64).max(1.1);
    let x = |label| Axis { step: 0.1, ..Axis::up_to(last, label) };
    let y = Axis { label: "handles with the new key, %", end: 100.0, step: 20.0 };
    let mut panel = plot.panel(280.0, &x("time since the promotion returned, s"), &y);
    for times in times {
        panel.steps(&shares(times), GRAY, "stroke-width=\"0.8\" stroke-opacity=\"0.5\"");
    }
    panel.steps(&shares(all), BLUE, "stroke-width=\"2.5\"");
    panel.mark(INTERVAL.as_secs_f64(), "poll interval");
    panel.legend(&[(GRAY, "one promotion".to_owned()), (BLUE, "all of them".to_owned())]);
    let y = Axis { label: "process", end: f64::from(PROCESSES) + 1.0, step: 1.0 };
    let x = x("time from one metadata request of a process to its next one, s");
    let mut panel = plot.panel(150.0, &x, &y);
    for (process, gaps) in (1_u32..).zip(gaps) {
        panel.dots(&gaps.iter().map(|gap| (*gap, f64::from(process))).collect::<Vec<_>>(), BLUE);
    }
    panel.mark(INTERVAL.as_secs_f64(), "");
    plot
}

/// Seconds, and how many percent took no longer; a point for each half of a percent.
fn shares(sorted: &[Duration]) -> Vec<(f64, f64)> {
    let at = |half: u8| sorted[(sorted.len() * usize::from(half)).div_ceil(200).max(1) - 1].as_secs_f64();
    (1..=200).map(|half| (at(half), f64::from(half) / 2.0)).collect()
}
