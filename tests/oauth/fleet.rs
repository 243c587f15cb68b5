//! Many processes that share one grant, in a file or in OpenBao.
//!
//! `KEYSHEATH_OAUTH_SECONDS` is how long each sends requests where nothing is to fail; `scripts/soak-openbao`
//! takes minutes.

use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use keysheath::key::{KatanaApp, Origin};
use keysheath::oauth::TokenKeeper;
use keysheath::store::{DocumentStore, FileStore};

use crate::support::oidc::{CLIENT_SECRET, Oidc, PATIENCE, app_at};
use crate::support::{Child, Folder};
use crate::{products, quick, variable};

const PROCESSES: usize = 8;

/// How long each process sends requests, in seconds: many lifetimes of an access token.
const TIME: u64 = 20;

/// The lifetime of an access token, in seconds.
const LIFETIME: u64 = 3;

const TTL: &str = "\"accessTtl\": 3";

/// In a child: keeps the grant in this store, sends requests all the time, and says how many there were and
/// how many failed.
fn work(store: impl DocumentStore + 'static) {
    let port = variable("OIDC_PORT").parse().unwrap();
    let app = app_at(port, Path::new(&variable("OIDC_SECRET")));
    let keeper = TokenKeeper::<KatanaApp>::start(app, store, quick()).unwrap();
    let api = Origin::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let time = Duration::from_secs(variable("OIDC_SECONDS").parse().unwrap());
    let (start, mut sent, mut failed) = (Instant::now(), 0_u32, 0_u32);
    while start.elapsed() < time {
        let (status, _) = products(&keeper.handle(), &api);
        sent += 1;
        failed += u32::from(status != 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("sent {sent} failed {failed} {}", keeper.status());
}

fn work_with_a_file() {
    work(FileStore::new(variable("OIDC_GRANT")));
}

/// What so many processes have sent, and how much of it failed. `with` gives each what it needs for its
/// store.
fn fleet(
    test: &'static str,
    oidc: &Oidc,
    folder: &Folder,
    seconds: u64,
    with: impl Fn(Child, usize) -> Child,
) -> (u32, u32) {
    let secret = folder.write("client-secret", CLIENT_SECRET);
    let start = |number: usize| {
        let child = Child::new(test)
            .var("OIDC_PORT", oidc.port.to_string())
            .var("OIDC_SECRET", &secret)
            .var("OIDC_SECONDS", seconds.to_string());
        with(child, number).spawn()
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

/// Lets them work for many lifetimes, in which nothing fails and each token is refreshed once.
fn share(test: &'static str, oidc: &Oidc, folder: &Folder, with: impl Fn(Child, usize) -> Child) {
    let seconds = std::env::var("KEYSHEATH_OAUTH_SECONDS").map_or(TIME, |text| text.parse().unwrap());
    let (sent, failed) = fleet(test, oidc, folder, seconds, with);
    let refreshed = oidc.count("refreshed");
    println!("{sent} requests, {failed} failed, {refreshed} refreshes in {seconds} s");
    assert_eq!((failed, oidc.count("revoked"), oidc.count("refused")), (0, 0, 0));
    assert!(u64::from(sent) > 5 * seconds, "{sent}");
    // Each is refreshed once and ahead of its end, and not once for each process.
    let lifetimes = seconds / LIFETIME;
    assert!((lifetimes * 3 / 4..=lifetimes * 5 / 2 + 1).contains(&refreshed), "{refreshed}");
}

#[test]
fn eight_processes_share_a_grant_and_no_request_fails() {
    const TEST: &str = "fleet::eight_processes_share_a_grant_and_no_request_fails";
    if Child::new(TEST).is_here() {
        return work_with_a_file();
    }
    let (oidc, folder) = (Oidc::start(TTL), Folder::new());
    oidc.grant_in(&FileStore::new(folder.at("grant")));
    share(TEST, &oidc, &folder, |child, _| child.var("OIDC_GRANT", folder.at("grant")));
}

/// As processes on eight machines do: each asks a member of its own first, and standbys answer from their own
/// stores.
#[cfg(all(feature = "openbao", target_os = "linux"))]
#[test]
fn eight_processes_share_a_grant_in_an_openbao_cluster() {
    use keysheath::key::Roots;
    use keysheath::openbao::{Login, OpenBao};
    use keysheath::store::OpenBaoStore;

    use crate::support::oidc::eventually;

    const TEST: &str = "fleet::eight_processes_share_a_grant_in_an_openbao_cluster";
    const PLACE: &str = "secret/shop/grant";
    if Child::new(TEST).is_here() {
        let text = variable("OIDC_MEMBERS");
        let members: Vec<_> = text.split(' ').map(|text| Origin::parse(text).unwrap()).collect();
        let client = OpenBao::at(members[0].clone(), Login::token(variable("OIDC_TOKEN"))).unwrap();
        let client = client.with_roots(Roots::from_pem(variable("OIDC_ROOTS").as_bytes()).unwrap());
        return work(OpenBaoStore::new(client.with_members(members).unwrap(), PLACE));
    }
    let (oidc, folder, cluster) =
        (Oidc::start(TTL), Folder::new(), crate::support::openbao::Cluster::start());
    let store = OpenBaoStore::new(cluster.client(0, true), PLACE);
    oidc.grant_in(&store);
    for node in 0..3 {
        let store = OpenBaoStore::new(cluster.client(node, false), PLACE);
        eventually("the grant at each member", || store.version().unwrap().is_some());
    }
    share(TEST, &oidc, &folder, |child, number| {
        let members: Vec<_> = (0..3).map(|at| cluster.origin((number + at) % 3).to_string()).collect();
        let child = child.var("OIDC_MEMBERS", members.join(" ")).var("OIDC_TOKEN", &cluster.token);
        child.var("OIDC_ROOTS", &cluster.pem)
    });
}

#[test]
fn control_eight_processes_without_a_lease_lose_the_grant() {
    const TEST: &str = "fleet::control_eight_processes_without_a_lease_lose_the_grant";
    if Child::new(TEST).is_here() {
        return work_with_a_file();
    }
    let (oidc, folder) = (Oidc::start(TTL), Folder::new());
    oidc.grant_in(&FileStore::new(folder.at("grant")));
    // The same grant in a place of its own for each: none sees the lease of another.
    let document = std::fs::read(folder.at("grant")).unwrap();
    (0..PROCESSES).for_each(|number| drop(folder.write(&format!("grant-{number}"), &document)));
    let start = Instant::now();
    let with = |child: Child, number| child.var("OIDC_GRANT", folder.at(&format!("grant-{number}")));
    let (_, failed) = fleet(TEST, &oidc, &folder, TIME, with);
    assert!(start.elapsed() < PATIENCE);
    assert!(failed > 0 && oidc.count("revoked") > 0, "the grant was to be lost");
}
