//! Refreshers: what they take up, what they never take, how they fail, how they are asked, and how they end.

mod asked;
mod ending;
mod faults;
mod forked;
mod handles;
#[cfg(feature = "keychain")]
mod keychain;
mod lagging;
mod many;
mod stores;
#[cfg(feature = "tracing")]
mod tracing;
#[cfg(unix)]
mod unchanged;

use std::time::Duration;

use keysheath::chain::Chain;
use keysheath::handle::Reload;
use keysheath::key::Kanal;
use keysheath::refresh::{RefreshError, RefreshEvent, RefreshSettings, Refresher, ReloadProblem};
use keysheath::source::{Provenance, SecretFile, Variable};

use crate::support::refreshing::{
    Events, PATIENCE, SECOND, Scripted, THIRD, eventually, has, of, only_asked, quick, text,
};
use crate::support::{Folder, KEY, in_child};

fn of_file(folder: &Folder, settings: RefreshSettings) -> Refresher<Kanal> {
    let chain = Chain::<Kanal>::new().with(SecretFile::new(folder.at("key")));
    Refresher::from_chain(chain, settings).unwrap()
}

#[test]
fn polling_activates_a_replaced_key_and_the_old_keeps_its_grace() {
    let folder = Folder::new();
    folder.write("key", KEY);
    let events = Events::default();
    let refresher = of_file(&folder, events.record(quick()));
    let handle = refresher.handle();
    let first = handle.load().unwrap();
    let mut subscription = handle.subscribe();
    for (key, before) in [(SECOND, KEY), (THIRD, SECOND), (KEY, THIRD)] {
        folder.write("new", key);
        std::fs::rename(folder.at("new"), folder.at("key")).unwrap();
        let now = subscription.wait(PATIENCE).expect("it is polled").unwrap();
        assert!(now.current().matches(key.as_bytes()));
        assert!(now.previous().unwrap().key().matches(before.as_bytes()));
    }
    assert!(first.current().matches(KEY.as_bytes()), "a snapshot stays as it is");
    let is_new = |event: &RefreshEvent| matches!(event, RefreshEvent::Refreshed { .. });
    eventually("each is reported", || events.count(is_new) == 4);
    assert_eq!(events.all().len(), 4, "{:?}", events.all());
    let line = events.all()[0].to_string();
    assert!(
        line.starts_with("generation 1 is active, fingerprint urdz-nrsd-3rmw-jtz2, from file "),
        "{line}"
    );
}

#[test]
fn a_grace_of_nothing_leaves_no_previous_key() {
    let folder = Folder::new();
    folder.write("key", KEY);
    let refresher = of_file(&folder, only_asked().with_grace(Duration::ZERO));
    folder.write("key", SECOND);
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
    assert!(refresher.handle().load().unwrap().previous().is_none());
}

#[test]
fn a_chain_without_a_key_is_an_error_at_the_start() {
    let folder = Folder::new();
    let chain = || Chain::<Kanal>::new().with(SecretFile::new(folder.at("key")));
    let error = Refresher::from_chain(chain(), quick()).unwrap_err();
    assert!(matches!(error, RefreshError::Chain(_)), "{error}");
    assert!(error.to_string().contains("no Kanal key was found"), "{error}");
    folder.write("key", KEY);
    let refresher = Refresher::from_chain(chain(), quick()).unwrap();
    assert!(has(&refresher.handle(), KEY));
}

#[test]
fn a_variable_is_reported_as_fixed_and_is_not_polled() {
    let name = "a_variable_is_reported_as_fixed_and_is_not_polled";
    in_child(name, &[("KANAL_API_KEY", KEY)], || {
        let events = Events::default();
        let chain = Chain::<Kanal>::new().with(Variable::new("KANAL_API_KEY"));
        let refresher = Refresher::from_chain(chain, events.record(quick())).unwrap();
        let cannot = |event: &RefreshEvent| matches!(event, RefreshEvent::CannotChange { .. });
        eventually("it is reported", || events.count(cannot) == 1);
        let status = refresher.status();
        assert!(!status.can_change());
        assert!(status.to_string().contains("cannot change while the process runs"), "{status}");
        let since = status.health().last_success();
        // Many polls would fit in.
        std::thread::sleep(Duration::from_millis(10) * 20);
        assert_eq!(refresher.status().health().last_success(), since, "it was polled");
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
        assert!(refresher.status().health().last_success() > since);
        assert!(has(&refresher.handle(), KEY));
    });
}

#[test]
fn the_file_that_a_variable_names_is_followed_and_shown() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    let name = "the_file_that_a_variable_names_is_followed_and_shown";
    in_child(name, &[("KANAL_API_KEY_FILE", &path)], || {
        let path = std::path::PathBuf::from(std::env::var_os("KANAL_API_KEY_FILE").unwrap());
        let chain = Chain::<Kanal>::new().with(SecretFile::named_by_variable("KANAL_API_KEY"));
        let refresher = Refresher::from_chain(chain, quick()).unwrap();
        assert!(refresher.status().can_change());
        let place = format!("file {} (named by KANAL_API_KEY_FILE)", path.display());
        assert_eq!(refresher.status().provenance().to_string(), place);
        std::fs::write(&path, SECOND).unwrap();
        eventually("the file is followed", || has(&refresher.handle(), SECOND));
    });
}

#[test]
fn a_variable_changed_to_another_file_is_a_failed_reload() {
    // As a file that a variable names answers in a process that changes its own environment.
    let named = |path: &str| Provenance::FileVariable { name: "SHOP_FILE".into(), path: Some(path.into()) };
    let source = Scripted::new(KEY);
    let (one, two) = (named("/run/secrets/one"), named("/run/secrets/two"));
    let first = one.clone();
    source.does(move |_| Ok(text(KEY).with_provenance(first.clone())));
    let refresher = of(&source, only_asked());
    source.does(move |_| Ok(text(SECOND).with_provenance(two.clone())));
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Failed));
    assert_eq!(refresher.status().health().problem().unwrap().problem(), &ReloadProblem::OtherFile);
    assert!(has(&refresher.handle(), KEY));
    source.does(move |_| Ok(text(SECOND).with_provenance(one.clone())));
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
}

#[test]
fn where_a_key_was_found_is_shown_as_it_is_now() {
    let source = Scripted::new(KEY);
    source.does(|_| Ok(text(KEY).with_provenance(Provenance::other("vault", "kanal, version 1"))));
    let refresher = of(&source, only_asked());
    source.does(|_| Ok(text(SECOND).with_provenance(Provenance::other("vault", "kanal, version 2"))));
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Newer));
    assert_eq!(refresher.status().provenance().to_string(), "vault kanal, version 2");
}

#[test]
fn a_callback_that_panics_does_not_end_the_refresher() {
    let folder = Folder::new();
    folder.write("key", KEY);
    let settings = quick().on_event(|_| std::panic::resume_unwind(Box::new(())));
    let refresher = of_file(&folder, settings);
    for key in [SECOND, THIRD, KEY] {
        folder.write("key", key);
        eventually("the key is taken", || has(&refresher.handle(), key));
    }
}

#[test]
fn what_is_remarked_on_is_told_once_and_stays_in_the_status() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    crate::support::set_mode(&path, 0o644);
    let events = Events::default();
    let refresher = of_file(&folder, events.record(only_asked()));
    let remarks = || events.count(|event| matches!(event, RefreshEvent::Remarked { .. }));
    for _ in 0..3 {
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
    }
    eventually("it is reported", || remarks() == 1);
    let status = refresher.status();
    assert!(status.to_string().contains("every user of this machine can read it"), "{status}");
    crate::support::set_mode(&path, 0o600);
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
    assert!(refresher.status().remarks().is_empty());
    crate::support::set_mode(&path, 0o644);
    assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
    eventually("it is reported again", || remarks() == 2);
}

#[test]
fn a_file_mounted_alone_is_unhealthy_once_it_was_replaced() {
    let name = "a_file_mounted_alone_is_unhealthy_once_it_was_replaced";
    crate::support::Child::new(name).with_a_small_disk("1m").run(|| {
        let disk = crate::support::Child::small_disk();
        let (secret, mounted) = (disk.join("secret"), disk.join("mounted"));
        for (path, text) in [(&secret, KEY), (&mounted, "")] {
            std::fs::write(path, text).unwrap();
            crate::support::set_mode(path, 0o600);
        }
        let mount = std::process::Command::new("mount").arg("--bind").args([&secret, &mounted]).status();
        assert!(mount.expect("mount runs (Debian: mount)").success());
        let events = Events::default();
        let chain = Chain::<Kanal>::new().with(SecretFile::new(&mounted));
        let refresher = Refresher::from_chain(chain, events.record(only_asked())).unwrap();
        assert!(refresher.status().can_change());
        std::fs::write(disk.join("new"), SECOND).unwrap();
        crate::support::set_mode(&disk.join("new"), 0o600);
        std::fs::rename(disk.join("new"), &secret).unwrap();
        assert_eq!(refresher.refresh_now(PATIENCE), Some(Reload::Unchanged));
        let status = refresher.status();
        assert!(!status.can_change() && status.to_string().contains("mount its folder"), "{status}");
        assert!(!status.to_string().contains("healthy"), "{status}");
        eventually("it is reported", || {
            events.count(|event| event.to_string().contains("mount its folder")) == 1
        });
    });
}
