//! One key read, beside `curl` asking the same server the same thing over a kept-alive connection.
//!
//! Both take turns, each round with a client and a connection of its own, and the whole time of a round is
//! divided by its reads: what signing in, finding the mount and the handshake cost is in ours, and what
//! starting a process costs is in `curl`'s. Beside them `ureq` alone, which ours is made on, without a
//! deadline, on this thread: what is between the two is mostly the way to another thread and back, so that a
//! load keeps its deadline whatever hangs.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use keysheath::key::{Issuer as _, Kanal};
use keysheath::openbao::Login;
use keysheath::source::{self, Loaded, OpenBaoField};
use serde_json::json;

use crate::plot::{Axis, BLUE, GRAY, ORANGE, Plot};
use crate::support::KEY;
use crate::support::openbao::{ROOT, Server};

/// How many reads one round has.
const READS: u32 = 500;

/// How many rounds each takes. Odd, so that a median is one of them.
const ROUNDS: usize = 21;

/// How much longer than `curl` a read may take.
const AIM: f64 = 1.1;

const PLACE: &str = "secret/shop/kanal";
const PATH: &str = "secret/data/shop/kanal";

/// Beside the token: what ours sends.
const HEADERS: [(&str, &str); 4] = [
    ("accept", "application/json"),
    ("user-agent", concat!("keysheath/", env!("CARGO_PKG_VERSION"))),
    ("x-vault-request", "true"),
    ("x-vault-inconsistent", "forward-active-node"),
];

/// The rounds of one of the three.
#[derive(Default)]
struct Rounds {
    /// For one read.
    means: Vec<Duration>,
    /// Of all reads of all rounds.
    reads: Vec<Duration>,
}

/// Prints the figures, and says whether the aim is met.
pub(crate) fn report(server: &Server) -> bool {
    server.put(PLACE, &json!({ "key": KEY }));
    let token = server.token(&format!("path \"{PATH}\" {{ capabilities = [\"read\"] }}"), "1h");
    let (mut ours, mut curls, mut ureqs) = (Rounds::default(), Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        ours.take(server, || by_keysheath(server, &token));
        curls.take(server, || by_curl(server, &token));
        ureqs.take(server, || by_ureq(server, &token));
    }
    let (ours_mean, curls_mean, ureqs_mean) = (ours.median(), curls.median(), ureqs.median());
    let ratio = ours_mean.as_secs_f64() / curls_mean.as_secs_f64();
    println!("| what | median | peer | peer's median | ratio | aim |\n|---|---:|---|---:|---:|---|");
    println!(
        "| reading a key from OpenBao | {ours_mean:.1?} | curl, kept alive | {curls_mean:.1?} | {ratio:.2} | \
         at most {AIM} |"
    );
    let beside = ours_mean.as_secs_f64() / ureqs_mean.as_secs_f64();
    println!(
        "| the same | {ours_mean:.1?} | ureq alone, without a deadline | {ureqs_mean:.1?} | {beside:.2} | – |"
    );
    if let Some(path) = crate::plot_at("openbao-read.svg") {
        let caption = [
            format!(
                "{ratio:.2}× as long as curl (aim: at most {AIM}×), by the whole time of {READS} reads in a \
                 row:"
            ),
            format!(
                "medians of {ROUNDS} rounds. OpenBao on the same machine, TLS, a connection that is kept \
                 alive."
            ),
        ];
        let mut plot = Plot::new("Reading one key from OpenBao", &caption);
        let last = ours.percentile(99).max(curls.percentile(99)).as_secs_f64() * 1000.0;
        let y = Axis { label: "share of the reads, %", end: 100.0, step: 20.0 };
        let mut panel = plot.panel(300.0, &Axis::up_to(last, "time of one read, ms"), &y);
        panel.steps(&ureqs.shares(), GRAY, "");
        panel.steps(&curls.shares(), ORANGE, "stroke-width=\"2\"");
        panel.steps(&ours.shares(), BLUE, "stroke-width=\"2\"");
        let half = |rounds: &Rounds| rounds.percentile(50).as_secs_f64() * 1000.0;
        let words = |name: &str, rounds: &Rounds| format!("{name}: half within {:.2} ms", half(rounds));
        panel.legend(&[
            (GRAY, words("ureq alone, no deadline", &ureqs)),
            (ORANGE, words("curl, by its own count", &curls)),
            (BLUE, words("a load of the source", &ours)),
        ]);
        plot.write(&path);
    }
    ratio <= AIM
}

impl Rounds {
    /// Adds a round: the time of the whole, and of each read. The server must have seen so many reads, and no
    /// more.
    fn take(&mut self, server: &Server, round: impl FnOnce() -> (Duration, Vec<Duration>)) {
        let before = reads_seen(server);
        let (whole, reads) = round();
        assert_eq!(reads_seen(server) - before, u64::from(READS), "reads that the server saw");
        assert_eq!(reads.len(), READS as usize);
        self.means.push(whole / READS);
        self.reads.extend(reads);
        self.reads.sort_unstable();
    }

    fn median(&self) -> Duration {
        let mut means = self.means.clone();
        means.sort_unstable();
        means[means.len() / 2]
    }

    fn percentile(&self, percent: usize) -> Duration {
        self.reads[(self.reads.len() - 1) * percent / 100]
    }

    /// Milliseconds, and how many percent took no longer.
    fn shares(&self) -> Vec<(f64, f64)> {
        let at =
            |half: u8| self.reads[(self.reads.len() - 1) * usize::from(half) / 200].as_secs_f64() * 1000.0;
        (1..=198).map(|half| (at(half), f64::from(half) / 2.0)).collect()
    }
}

/// A load through the source, as a user does it.
fn by_keysheath(server: &Server, token: &str) -> (Duration, Vec<Duration>) {
    let start = Instant::now();
    let source = OpenBaoField::new(server.client(Login::token(token.to_owned())), PLACE, "key");
    let read = |_| {
        let start = Instant::now();
        let loaded = source::load(&source, Kanal::PROFILE).expect("the key is read");
        let time = start.elapsed();
        assert!(matches!(loaded, Loaded::Found(found) if found.key().matches(KEY.as_bytes())));
        time
    };
    let reads = (0..READS).map(read).collect();
    (start.elapsed(), reads)
}

/// One process with many transfers over one connection.
fn by_curl(server: &Server, token: &str) -> (Duration, Vec<Duration>) {
    let folder = crate::support::Folder::new();
    let authority = folder.write("ca.pem", &server.pem);
    let mut config = format!("silent\nhttp1.1\nnoproxy = \"*\"\ncacert = \"{}\"\n", authority.display());
    for (name, value) in HEADERS.into_iter().chain([("x-vault-token", token)]) {
        let _ = writeln!(config, "header = \"{name}: {value}\"");
    }
    config.push_str("write-out = \"%{num_connects} %{http_code} %{time_total}\\n\"\n");
    for _ in 0..READS {
        let _ = writeln!(config, "url = \"{}\"\noutput = \"/dev/null\"", server.url(PATH));
    }
    let config = folder.write("config", config);
    let mut command = Command::new("curl");
    // First of all, so that the user's own configuration is not read.
    command.arg("-q").arg("--config").arg(config);
    let start = Instant::now();
    let output = command.output().expect("curl runs");
    let whole = start.elapsed();
    assert!(output.status.success(), "curl: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut connects = 0;
    let read = |line: &str| {
        let mut words = line.split(' ');
        let mut next = || words.next().expect("three words");
        connects += next().parse::<u32>().unwrap();
        assert_eq!(next(), "200");
        Duration::from_secs_f64(next().parse().unwrap())
    };
    let reads = text.lines().map(read).collect();
    assert_eq!(connects, 1, "curl keeps its connection alive");
    (whole, reads)
}

/// The answer as bytes, thrown away as `curl` does.
fn by_ureq(server: &Server, token: &str) -> (Duration, Vec<Duration>) {
    let start = Instant::now();
    let root = ureq::tls::Certificate::from_pem(server.pem.as_bytes()).unwrap();
    let roots = ureq::tls::RootCerts::new_with_certs(&[root]);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .proxy(None)
        .tls_config(ureq::tls::TlsConfig::builder().root_certs(roots).build())
        .build()
        .into();
    let url = server.url(PATH);
    let read = |_| {
        let start = Instant::now();
        let request =
            HEADERS.iter().fold(agent.get(&url), |request, (name, value)| request.header(*name, *value));
        let mut answer = request.header("x-vault-token", token).call().expect("the server answers");
        answer.body_mut().read_to_vec().unwrap();
        start.elapsed()
    };
    let reads = (0..READS).map(read).collect();
    (start.elapsed(), reads)
}

/// How many reads of secrets the server has counted.
fn reads_seen(server: &Server) -> u64 {
    let agent = crate::support::http::agent(Some(&server.pem));
    let request = ureq::http::Request::get(server.url("sys/metrics?format=prometheus"));
    let request = request.header("x-vault-token", ROOT).body(String::new()).unwrap();
    let body = crate::support::http::send(&agent, request).expect("the server answers").body;
    let count = body.lines().find_map(|line| line.strip_prefix("vault_route_read_secret__count "));
    count.map_or(0, |count| count.parse().expect("a number"))
}
