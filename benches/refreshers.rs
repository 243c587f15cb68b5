//! What a thousand refreshers cost a process: one for each key of a hundred shops, say.
//!
//! ```sh
//! cargo bench --all-features --bench refreshers
//! ```
//!
//! It opens a thousand refreshers of as many files, polled every 30 s, and looks at its own process for a
//! minute. Where a target is missed, it ends with an error. It reads `/proc`, so it runs on Linux.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use keysheath::Cadence;
use keysheath::chain::Chain;
use keysheath::key::Kanal;
use keysheath::refresh::{RefreshSettings, Refresher};
use keysheath::source::SecretFile;

const REFRESHERS: u32 = 1000;

/// The poll interval.
const POLL: Duration = Duration::from_secs(30);

/// For how long the process is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// What this process has of the machine.
struct Usage {
    threads: u32,
    /// In KiB, both: in memory, and reserved.
    resident: u32,
    size: u32,
    processor: Duration,
}

fn main() -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..REFRESHERS {
        write(&folder.path().join(number.to_string()), number);
    }
    // What the first one needs is needed once.
    let first = open(&folder.path().join("0"));
    let before = usage();
    let start = Instant::now();
    let refreshers: Vec<_> =
        (1..REFRESHERS).map(|number| open(&folder.path().join(number.to_string()))).collect();
    let opened = start.elapsed();
    let begin = (usage(), Instant::now());
    let mut most = begin.0.threads;
    while begin.1.elapsed() < LOOK {
        thread::sleep(Duration::from_millis(100));
        most = most.max(usage().threads);
    }
    let (after, time) = (usage(), begin.1.elapsed());
    let polled = |refresher: &Refresher<Kanal>| refresher.status().health().consecutive_failures() == 0;
    assert!(refreshers.iter().chain([&first]).all(polled), "each could be read");

    println!("| of {REFRESHERS} refreshers, polled every {POLL:?} | measured | target |\n|---|---:|---|");
    let mega = |kibi: u32| f64::from(kibi) * 1024.0 / 1e6;
    let busy = after.processor.saturating_sub(begin.0.processor).as_secs_f64() / time.as_secs_f64();
    let resident = mega(after.resident.saturating_sub(before.resident));
    let met = [
        row("threads, beside the program's own", f64::from(most - 1), "", 4.0),
        row("more memory", resident, " MB", 20.0),
        row("share of a core", busy * 100.0, " %", 1.0),
    ];
    println!("| more address space | {:.1} MB | |", mega(after.size.saturating_sub(before.size)));
    println!("| opening them | {opened:.1?} | |");
    let start = Instant::now();
    drop((refreshers, first));
    println!("| dropping them | {:.1?} | |", start.elapsed());
    if met.contains(&false) {
        eprintln!("a target was missed");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn open(path: &Path) -> Refresher<Kanal> {
    let settings = RefreshSettings::new().with_cadence(Cadence::every(POLL));
    Refresher::from_chain(Chain::<Kanal>::new().with(SecretFile::new(path)), settings).unwrap()
}

/// A file with a made-up key.
fn write(path: &Path, number: u32) {
    fs::write(path, format!("Qz7Hk2Vx9Rm4Lt8Wb3{number:06}")).unwrap();
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn usage() -> Usage {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| -> u32 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
    };
    // The 14th and 15th field, in hundredths of a second; the name before them may have spaces in it.
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Usage {
        threads: field("Threads"),
        resident: field("VmRSS"),
        size: field("VmSize"),
        processor: Duration::from_millis(ticks * 10),
    }
}

/// Prints a row, and says whether the target is met.
fn row(what: &str, measured: f64, unit: &str, at_most: f64) -> bool {
    println!("| {what} | {measured:.1}{unit} | at most {at_most}{unit} |");
    measured <= at_most
}
