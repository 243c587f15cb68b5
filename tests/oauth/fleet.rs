//! Many processes that share one grant.

use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use keysheath::document::FileStore;
use keysheath::oauth::TokenKeeper;
use keysheath::origin::Origin;

use crate::oidc::{CLIENT_SECRET, Oidc, PATIENCE, app_at};
use crate::support::{Child, Folder};
use crate::{products, quick};

const PROCESSES: usize = 8;

/// How long each process sends requests: many lifetimes of an access token, which is 3 s.
const TIME: Duration = Duration::from_secs(20);

const TTL: &str = "\"accessTtl\": 3";

/// In a child: keeps the grant, sends requests all the time, and says how many there were and how many failed.
fn work() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let port = variable("OIDC_PORT").parse().unwrap();
    let app = app_at(port, Path::new(&variable("OIDC_SECRET")));
    let keeper = TokenKeeper::start(app, FileStore::new(variable("OIDC_GRANT")), quick()).unwrap();
    let api = Origin::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let (start, mut sent, mut failed) = (Instant::now(), 0_u32, 0_u32);
    while start.elapsed() < TIME {
        let (status, _) = products(&keeper.handle(), &api);
        sent += 1;
        failed += u32::from(status != 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("sent {sent} failed {failed} {}", keeper.status());
}

/// What so many processes have sent, and how much of it failed.
fn fleet(test: &'static str, oidc: &Oidc, folder: &Folder, grant: impl Fn(usize) -> String) -> (u32, u32) {
    let secret = folder.write("client-secret", CLIENT_SECRET);
    let start = |number: usize| {
        Child::new(test)
            .var("OIDC_PORT", oidc.port.to_string())
            .var("OIDC_SECRET", &secret)
            .var("OIDC_GRANT", folder.at(&grant(number)))
            .spawn()
    };
    let children: Vec<_> = (0..PROCESSES).map(start).collect();
    let mut sum = (0, 0);
    for mut child in children {
        let mut shown = String::new();
        child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
        assert!(child.wait().unwrap().success(), "{shown}");
        println!("{shown}");
        let words: Vec<&str> = shown.split_whitespace().skip_while(|word| *word != "sent").collect();
        sum.0 += words[1].parse::<u32>().unwrap();
        sum.1 += words[3].parse::<u32>().unwrap();
    }
    sum
}

#[test]
fn eight_processes_share_one_grant_for_many_lifetimes_and_no_request_fails() {
    const TEST: &str = "fleet::eight_processes_share_one_grant_for_many_lifetimes_and_no_request_fails";
    if Child::new(TEST).is_here() {
        return work();
    }
    let (oidc, folder) = (Oidc::start(TTL), Folder::new());
    oidc.grant_in(&FileStore::new(folder.at("grant")));
    let (sent, failed) = fleet(TEST, &oidc, &folder, |_| "grant".into());
    let refreshed = oidc.count("refreshed");
    println!("{sent} requests, {failed} failed, {refreshed} refreshes");
    assert_eq!((failed, oidc.count("revoked"), oidc.count("refused")), (0, 0, 0));
    assert!(sent > 100, "{sent}");
    // Some seven lifetimes: each is refreshed once, and not once for each process.
    assert!((5..=16).contains(&refreshed), "{refreshed}");
}

#[test]
fn the_control_eight_processes_that_share_no_lease_lose_the_grant() {
    const TEST: &str = "fleet::the_control_eight_processes_that_share_no_lease_lose_the_grant";
    if Child::new(TEST).is_here() {
        return work();
    }
    let (oidc, folder) = (Oidc::start(TTL), Folder::new());
    oidc.grant_in(&FileStore::new(folder.at("grant")));
    // The same grant in a place of its own for each: nobody sees another's lease.
    let document = std::fs::read(folder.at("grant")).unwrap();
    (0..PROCESSES).for_each(|number| drop(folder.write(&format!("grant-{number}"), &document)));
    let start = Instant::now();
    let (_, failed) = fleet(TEST, &oidc, &folder, |number| format!("grant-{number}"));
    assert!(start.elapsed() < PATIENCE);
    assert!(failed > 0 && oidc.count("revoked") > 0, "the grant was to be lost");
}
