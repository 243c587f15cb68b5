//! Many processes that follow one key set, and servers behind a relay.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use keysheath::Cadence;
use keysheath::handle::KeyHandle;
use keysheath::key::{ApiKey, Origin};
use keysheath::keyset::KeySet;
use keysheath::refresh::{RefreshSettings, Refresher};
use keysheath::rotation::{Rotation, RotationPolicy};
use keysheath::store::Document;

use super::*;
use crate::support::passing::Passing;
use crate::support::steps::Now as _;
use crate::support::{Child, Folder};

/// Passes bytes on to a port of this machine, or not.
#[derive(Clone)]
pub(crate) struct Relay {
    port: u16,
    is_away: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    pub(crate) fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self {
            port: listener.local_addr().unwrap().port(),
            is_away: Arc::default(),
            open: Arc::default(),
        };
        let own = relay.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !own.is_away.load(Ordering::SeqCst) {
                    let _ = own.join(&stream, target);
                }
            }
        });
        relay
    }

    fn join(&self, stream: &TcpStream, target: u16) -> io::Result<()> {
        let other = TcpStream::connect(("127.0.0.1", target))?;
        for (mut from, mut to) in [(stream.try_clone()?, other.try_clone()?), (other, stream.try_clone()?)] {
            self.open.lock().unwrap().push(from.try_clone()?);
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn stop(&self) {
        self.is_away.store(true, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn start(&self) {
        self.is_away.store(false, Ordering::SeqCst);
    }
}

fn passing(server: &Server) -> Passing {
    Passing::to(format!("https://127.0.0.1:{}", server.port), &server.pem, None)
}

/// How often the metadata or the data of a secret was asked for.
fn asked(passing: &Passing, what: &str) -> usize {
    passing.count(|passed| passed.path.contains(&format!("/{what}/")))
}

fn key(text: &str) -> ApiKey<Kanal> {
    ApiKey::<Kanal>::parse_bytes(text.as_bytes()).unwrap()
}

fn has(handle: &KeyHandle<Kanal>, text: &str) -> bool {
    handle.load().is_ok_and(|snapshot| snapshot.current().matches(text.as_bytes()))
}

#[test]
fn two_hundred_handles_have_the_new_key_at_their_next_poll() {
    const NAME: &str = "fleet::two_hundred_handles_have_the_new_key_at_their_next_poll";
    const PROCESSES: usize = 8;
    const INTERVAL: Duration = Duration::from_secs(1);
    if Child::new(NAME).is_here() {
        let variable = |name: &str| std::env::var(name).unwrap();
        let (folder, number) = (variable("FOLDER"), variable("NUMBER"));
        let mark = |what: &str| std::path::Path::new(&folder).join(format!("{what}-{number}"));
        let client =
            OpenBao::at(Origin::parse(&variable("ORIGIN")).unwrap(), Login::token(ROOT.into())).unwrap();
        let store = OpenBaoStore::new(client, "secret/keys");
        let settings = RefreshSettings::new().with_cadence(Cadence::every(INTERVAL).with_jitter(20));
        let refresher = Refresher::<Kanal>::from_store(store, settings).unwrap();
        let handles = [(); 25].map(|()| refresher.handle());
        assert!(handles.iter().all(|handle| has(handle, KEY)));
        std::fs::write(mark("ready"), "").unwrap();
        thread::scope(|scope| {
            for handle in &handles {
                scope.spawn(move || {
                    let now = handle.subscribe().wait(PATIENCE).expect("the promotion is seen").unwrap();
                    assert!(now.current().matches(OTHER_KEY.as_bytes()));
                });
            }
        });
        std::fs::write(mark("seen"), "").unwrap();
        eventually("the end", || mark("end").exists());
        assert!(refresher.status().health().problem().is_none(), "{}", refresher.status());
        return;
    }
    let server = Server::start();
    let store = OpenBaoStore::new(server.root(), "secret/keys");
    let rotation = Rotation::<Kanal>::open(store, RotationPolicy::new()).unwrap();
    rotation.adopt(&key(KEY)).unwrap();
    let folder = Folder::new();
    let all_passing = [(); PROCESSES].map(|()| passing(&server));
    let started = Instant::now();
    let children: Vec<_> = (0..PROCESSES)
        .map(|number| {
            let child = Child::new(NAME).var("FOLDER", folder.path()).var("NUMBER", number.to_string());
            child.var("ORIGIN", all_passing[number].origin.to_string()).spawn()
        })
        .collect();
    let all = |what: &str| (0..PROCESSES).all(|number| folder.at(&format!("{what}-{number}")).exists());
    eventually("the children", || all("ready"));
    // Some quiet polls first: they read no secret.
    eventually("quiet polls", || all_passing.iter().all(|passing| asked(passing, "metadata") >= 2));
    assert!(
        all_passing.iter().all(|passing| asked(passing, "data") == 1),
        "an unchanged document was read again"
    );
    rotation.stage(&key(OTHER_KEY)).unwrap();
    rotation.promote_unverified_now().unwrap();
    // From here on, who polls sees it.
    let before: Vec<_> = all_passing.iter().map(|passing| asked(passing, "metadata")).collect();
    let mut polls = [0; PROCESSES];
    eventually("all handles", || {
        for (number, polls) in polls.iter_mut().enumerate() {
            if !folder.at(&format!("seen-{number}")).exists() {
                *polls = asked(&all_passing[number], "metadata") - before[number];
            }
        }
        all("seen")
    });
    println!("polls until the new key: {polls:?}");
    let elapsed = started.elapsed();
    for passing in &all_passing {
        // The jitter takes up to a fifth off each interval.
        let most = elapsed.as_secs_f64() / INTERVAL.mul_f64(0.8).as_secs_f64() + 2.0;
        let count = asked(passing, "metadata");
        assert!(u32::try_from(count).is_ok_and(|count| f64::from(count) < most), "{count} in {elapsed:?}");
        // Once at the start, and once for each of the two steps or for both.
        assert!((2..=3).contains(&asked(passing, "data")), "{} reads", asked(passing, "data"));
    }
    // What was under way when the key was promoted is one, and the one that saw it is another.
    assert!(polls.iter().all(|polls| *polls <= 2), "{polls:?}");
    (0..PROCESSES).for_each(|number| drop(folder.write(&format!("end-{number}"), "")));
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn a_missing_or_broken_document_is_reported_and_the_key_stays() {
    let mut server = Server::start();
    let store = || OpenBaoStore::new(server.root().with_deadline(SHORT), "secret/keys");
    let rotation = Rotation::<Kanal>::open(store(), RotationPolicy::new()).unwrap();
    rotation.adopt(&key(KEY)).unwrap();
    let settings = RefreshSettings::new().with_cadence(Cadence::every(Duration::from_secs(3600)));
    let refresher = Refresher::<Kanal>::from_store(store(), settings).unwrap();
    let fails = |refresher: &Refresher<Kanal>, words: &str| {
        assert_eq!(refresher.refresh_now(PATIENCE), Some(keysheath::handle::Reload::Failed));
        let shown = refresher.status().to_string();
        assert!(shown.contains(words), "{shown}");
        assert!(has(&refresher.handle(), KEY));
    };
    server.put("secret/keys", &json!({ "keysheath": "other" }));
    fails(&refresher, "damaged");
    server.admin("DELETE", "secret/data/keys", &Value::Null);
    fails(&refresher, "was deleted");
    server.admin("DELETE", "secret/metadata/keys", &Value::Null);
    fails(&refresher, "older document");
    server.admin("POST", "sys/seal", &Value::Null);
    fails(&refresher, "sealed");
    server.stop();
    fails(&refresher, "gave no answer");
}

#[test]
fn a_key_set_is_kept_whole() {
    let server = Server::start();
    let store = OpenBaoStore::new(server.root(), "secret/keys");
    let rotation = Rotation::<Kanal>::open(store.clone(), RotationPolicy::new()).unwrap();
    rotation.adopt(&key(KEY)).unwrap();
    let there: Document = store.read().unwrap().unwrap();
    let keys = KeySet::from_document(Kanal::PROFILE, there.content().expose_secret()).unwrap();
    assert!(keys.current().is_some());
}
