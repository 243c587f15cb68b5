//! Wall clocks that move, and processes that live for a short while.

use std::time::{Duration, Instant};

use keysheath::Cadence;
use keysheath::key::KatanaApp;
use keysheath::oauth::{KeeperSettings, OAuthApp, TokenKeeper};
use keysheath::store::FileStore;

use crate::answers::{JSON, app, exchange, good};
use crate::support::faketime::{set, with_clock};
use crate::support::oidc::{Oidc, eventually};
use crate::support::recorder::{Recorder, write_answer};
use crate::support::{Child, Folder};
use crate::{Late, child, lines, own, print_second_token, quick, variable};

const LEASE: Duration = Duration::from_secs(12);

/// In a child: its app, its store, and settings with a lease of [`LEASE`].
fn own_leasing() -> (OAuthApp<KatanaApp>, FileStore, KeeperSettings) {
    let (app, store) = own();
    (app.with_deadline(LEASE / 2), store, quick().with_lease(LEASE))
}

#[test]
fn a_token_that_ended_in_a_suspend_is_refreshed_at_once() {
    const TEST: &str = "clocks::a_token_that_ended_in_a_suspend_is_refreshed_at_once";
    if Child::new(TEST).is_here() {
        let (app, store) = own();
        // The defaults, so that nothing but the clocks wakes it.
        let settings = KeeperSettings::new().with_cadence(Cadence::every(Duration::from_secs(3600)));
        let keeper = TokenKeeper::start(app, store, settings).unwrap();
        println!("started with {}", keeper.status());
        return print_second_token(&keeper, Duration::from_secs(20));
    }
    let folder = Folder::new();
    let server = Recorder::raw(|_, stream| write_answer(stream, JSON, &good(1)));
    let store = FileStore::new(folder.at("grant"));
    exchange(&app(server.address, &folder)).unwrap().save(&store).unwrap();
    let mut child = with_clock(child(TEST, server.address.port(), &folder), &folder).spawn();
    let mut shown = lines(&mut child);
    assert!(shown.any(|line| line.contains("started with")));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(server.requests().len(), 1, "the exchange alone: the token lives for an hour");
    // As after two hours of suspend, in which the monotonic clock stood still.
    set(&folder, "+2h");
    let shown = shown.find(|line| line.contains("came to")).unwrap_or_default();
    assert!(child.wait().unwrap().success());
    assert!(shown.contains("access token 2"), "{shown}");
    assert_eq!(server.requests().len(), 2);
}

/// Starts a process that takes the lease at once and goes on after `pause`; returns when it has the lease.
fn holder(test: &'static str, oidc: &Oidc, folder: &Folder, pause: &str) -> std::process::Child {
    let mut child = child(test, oidc.port, folder).var("OIDC_PAUSE", pause).spawn();
    let mut lines = lines(&mut child);
    assert!(lines.any(|line| line.contains("has written")));
    std::thread::spawn(move || lines.for_each(drop));
    child
}

/// In a child: the holder where it is to pause, and otherwise a process that lives for a short while.
fn hold_or_pass() {
    let (app, store, settings) = own_leasing();
    if let Ok(pause) = std::env::var("OIDC_PAUSE") {
        let store = Late(store, Duration::from_millis(pause.parse().unwrap()));
        let keeper = TokenKeeper::start(app, store, settings).unwrap();
        eventually("its refresh", || keeper.handle().load().unwrap().generation().to_string() == "2");
        return;
    }
    let keeper = TokenKeeper::start(app, store, settings).unwrap();
    std::thread::sleep(Duration::from_millis(variable("OIDC_LIVES").parse().unwrap()));
    println!("{}", keeper.status());
}

#[test]
fn short_lived_processes_refresh_after_a_lease() {
    const TEST: &str = "clocks::short_lived_processes_refresh_after_a_lease";
    if Child::new(TEST).is_here() {
        return hold_or_pass();
    }
    let (oidc, folder) = (Oidc::start("\"accessTtl\": 3"), Folder::new());
    oidc.grant_in(&FileStore::new(folder.at("grant")));
    // It is killed with the lease, and before it has sent anything.
    let mut holder = holder(TEST, &oidc, &folder, "60000");
    holder.kill().unwrap();
    holder.wait().unwrap();
    let taken = Instant::now();
    for _ in 0..7 {
        let child = child(TEST, oidc.port, &folder).var("OIDC_LIVES", "4000");
        assert!(child.spawn().wait().unwrap().success());
        let refreshed = oidc.count("refreshed");
        assert!(refreshed == 0 || taken.elapsed() >= LEASE, "a lease is not cut short");
        if refreshed > 0 {
            break;
        }
    }
    assert!(oidc.count("refreshed") > 0, "none of seven processes has refreshed");
    assert_eq!((oidc.count("refused"), oidc.count("revoked")), (0, 0));
    assert!(taken.elapsed() < LEASE * 2, "{:?}", taken.elapsed());
}

#[test]
fn a_wrong_wall_clock_ends_no_lease_of_a_running_process() {
    const TEST: &str = "clocks::a_wrong_wall_clock_ends_no_lease_of_a_running_process";
    if Child::new(TEST).is_here() {
        return hold_or_pass();
    }
    let (oidc, folder) = (Oidc::start("\"accessTtl\": 3"), Folder::new());
    oidc.grant_in(&FileStore::new(folder.at("grant")));
    let mut holder = holder(TEST, &oidc, &folder, "6000");
    // Processes whose clock is hours ahead or behind look meanwhile, and the token is over for each of them.
    for offset in ["+2h", "-2h", "+48h"] {
        let child = child(TEST, oidc.port, &folder).var("OIDC_LIVES", "700");
        let child = with_clock(child, &folder);
        set(&folder, offset);
        assert!(child.spawn().wait().unwrap().success());
    }
    assert_eq!(oidc.count("refreshed"), 0, "the holder has not sent anything yet");
    assert!(holder.wait().unwrap().success());
    assert_eq!((oidc.count("refreshed"), oidc.count("refused"), oidc.count("revoked")), (1, 0, 0));
}
