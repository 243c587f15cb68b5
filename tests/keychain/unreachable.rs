//! Keychains that are not there, locked, stopped or restarted.

use super::*;
use keysheath::source::CallError;

// No keychain.

#[track_caller]
fn assert_no_keychain() {
    assert_eq!(every_call(&patient(), LONG), [const { Problem::NoKeychain }; 4]);
    let message = load(&patient(), "kanal").expect_err("there is none").to_string();
    assert!(
        message.contains("a Secret Service (such as gnome-keyring) must run on the session bus"),
        "{message}"
    );
    assert!(message.contains("DBUS_SESSION_BUS_ADDRESS"), "{message}");
}

#[test]
fn a_bus_address_where_nothing_listens_is_no_keychain() {
    in_session("unreachable::a_bus_address_where_nothing_listens_is_no_keychain", assert_no_keychain);
}

#[test]
fn without_a_bus_address_or_a_runtime_bus_there_is_no_keychain() {
    let folder = private_folder();
    let name = "unreachable::without_a_bus_address_or_a_runtime_bus_there_is_no_keychain";
    in_child(name, &[("XDG_RUNTIME_DIR", folder.path().as_os_str())], || {
        assert_eq!(env::var_os("DBUS_SESSION_BUS_ADDRESS"), None, "the child inherited a bus");
        assert_no_keychain();
    });
}

#[test]
fn a_bus_address_that_is_none_is_no_keychain() {
    for address in ["", "nonsense", "unix:path="] {
        let name = "unreachable::a_bus_address_that_is_none_is_no_keychain";
        in_child(name, &[("DBUS_SESSION_BUS_ADDRESS", address)], assert_no_keychain);
    }
}

#[test]
fn a_bus_without_a_secret_service_is_no_keychain() {
    in_session("unreachable::a_bus_without_a_secret_service_is_no_keychain", || {
        let _bus = Bus::start();
        assert_no_keychain();
    });
}

#[test]
fn a_keychain_that_comes_later_is_found_by_the_same_value() {
    in_session("unreachable::a_keychain_that_comes_later_is_found_by_the_same_value", || {
        let keychain = patient();
        assert_eq!(problem(load(&keychain, "kanal")), Problem::NoKeychain);
        let bus = Bus::start();
        assert_eq!(problem(load(&keychain, "kanal")), Problem::NoKeychain);
        let _service = bus.with_daemon();
        save(&keychain, "kanal", KEY).unwrap();
        assert_holds(&keychain, "kanal", KEY);
    });
}

#[test]
fn without_a_default_collection_nothing_is_found_or_saved() {
    in_session("unreachable::without_a_default_collection_nothing_is_found_or_saved", || {
        let _service = Bus::start().with_daemon_without_collection();
        let keychain = patient();
        assert_absent(&keychain, "kanal");
        assert_eq!(keychain.list().unwrap(), Vec::<String>::new());
        assert!(!keychain.delete("kanal").unwrap());
        let outcome = save(&keychain, "kanal", KEY);
        let message = outcome.as_ref().expect_err("no collection").to_string();
        assert!(
            message.contains("one of its collections is locked, or it has no default collection"),
            "{message}"
        );
        assert!(message.contains("unlock or create it"), "{message}");
        assert_eq!(problem(outcome), Problem::NoAccess);
    });
}

/// Opens a keychain that is impatient, on a machine that may be busy.
#[track_caller]
fn open(keychain: &Keychain) {
    eventually(|| matches!(load(keychain, "kanal"), Ok(Loaded::Found(_))));
}

// Locked, stopped, restarted.

#[test]
fn a_locked_keychain_without_a_prompter_refuses_every_call() {
    with_keychain("unreachable::a_locked_keychain_without_a_prompter_refuses_every_call", |service| {
        let keychain = patient();
        save(&keychain, "kanal", KEY).unwrap();
        service.lock();
        assert_eq!(every_call(&keychain, LONG), [const { Problem::NoAccess }; 4]);
        // A name that is not there: what is locked may hide it.
        assert_eq!(problem(load(&keychain, "other")), Problem::NoAccess);
        assert_eq!(problem(keychain.delete("other")), Problem::NoAccess);
        assert_eq!(problem(save(&keychain, "other", KEY)), Problem::NoAccess);
        // What was refused has changed nothing.
        service.restart();
        assert_holds(&keychain, "kanal", KEY);
        assert_eq!(keychain.list().unwrap(), ["kanal"]);
    });
}

#[test]
fn a_second_collection_that_stays_locked_may_hide_an_item() {
    with_keychain("unreachable::a_second_collection_that_stays_locked_may_hide_an_item", |service| {
        service.restart_with_a_second_collection();
        let keychain = patient();
        assert_eq!(every_call(&keychain, LONG), [const { Problem::NoAccess }; 4]);
        let of_default = patient().with_default_collection_only();
        assert_absent(&of_default, "kanal");
        assert!(!of_default.delete("kanal").unwrap());
        save(&of_default, "kanal", KEY).unwrap();
        assert_eq!(of_default.list().unwrap(), ["kanal"]);
        // What is found needs no other collection.
        assert_holds(&keychain, "kanal", KEY);
        assert_holds(&of_default, "kanal", KEY);
        assert!(keychain.delete("kanal").unwrap());
        assert_absent(&of_default, "kanal");
    });
}

#[test]
fn a_same_named_item_in_a_locked_collection_is_not_skipped() {
    with_keychain("unreachable::a_same_named_item_in_a_locked_collection_is_not_skipped", |service| {
        save(&patient(), "kanal", KEY).unwrap();
        service.restart_with_a_second_collection();
        assert_eq!(problem(load(&patient(), "kanal")), Problem::NoAccess);
        assert_eq!(problem(patient().delete("kanal")), Problem::NoAccess);
        assert_holds(&patient().with_default_collection_only(), "kanal", KEY);
    });
}

#[test]
fn running_out_of_descriptors_is_not_a_missing_keychain() {
    with_keychain("unreachable::running_out_of_descriptors_is_not_a_missing_keychain", |_| {
        save(&patient(), "kanal", KEY).unwrap();
        let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        limit.current = Some(128);
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("a lower limit");
        let mut held = Vec::new();
        // What was opened before is closed beside, so there may be some again.
        let start = Instant::now();
        let outcome = loop {
            while let Ok(file) = std::fs::File::open("/dev/null") {
                held.push(file);
            }
            match load(&patient(), "kanal") {
                Ok(_) if start.elapsed() < LONG => {}
                outcome => break outcome,
            }
        };
        drop(held);
        assert_eq!(problem(outcome), Problem::Exhausted(Resource::Descriptors));
        assert_holds(&patient(), "kanal", KEY);
    });
}

#[test]
fn an_unanswered_unlock_prompt_ends_at_the_deadline() {
    in_session("unreachable::an_unanswered_unlock_prompt_ends_at_the_deadline", || {
        let service = Bus::start_with_silent_prompter().with_daemon();
        save(&patient(), "kanal", KEY).unwrap();
        service.lock();
        let keychain = impatient();
        let start = Instant::now();
        let outcome = every_call(&keychain, SHORT);
        assert_eq!(outcome, [const { Problem::Call(CallError::Deadline { after: SHORT }) }; 4]);
        assert!(start.elapsed() >= SHORT * 4, "it did not wait for an answer");
        service.wait_for_prompt();
    });
}

#[test]
fn a_hanging_prompt_does_not_block_the_same_value_later() {
    in_session("unreachable::a_hanging_prompt_does_not_block_the_same_value_later", || {
        let mut service = Bus::start_with_silent_prompter().with_daemon();
        let keychain = impatient();
        save(&patient(), "kanal", KEY).unwrap();
        open(&keychain);
        service.lock();
        assert_eq!(problem(load(&keychain, "kanal")), Problem::Call(CallError::Deadline { after: SHORT }));
        // The call still waits, with the store that it was given, for a prompt that is gone.
        service.restart();
        assert_holds(&keychain.with_deadline(LONG), "kanal", KEY);
    });
}

#[test]
fn a_prompt_dismissed_before_the_deadline_denies_access() {
    in_session("unreachable::a_prompt_dismissed_before_the_deadline_denies_access", || {
        let service = Bus::start_with_silent_prompter().with_daemon();
        let keychain = patient();
        save(&keychain, "kanal", KEY).unwrap();
        service.lock();
        std::thread::scope(|scope| {
            let loading = scope.spawn(|| load(&keychain, "kanal"));
            service.dismiss_prompt();
            assert_eq!(problem(loading.join().expect("no panic")), Problem::NoAccess);
        });
    });
}

#[test]
fn a_stopped_daemon_times_out_and_works_once_it_continues() {
    with_keychain("unreachable::a_stopped_daemon_times_out_and_works_once_it_continues", |service| {
        let opened = impatient();
        save(&patient(), "kanal", KEY).unwrap();
        open(&opened);
        service.stop();
        // Both a store that was open before and one that is to be opened.
        for keychain in [&opened, &impatient()] {
            let outcome = load(keychain, "kanal");
            let message = outcome.as_ref().expect_err("it is stopped").to_string();
            assert!(message.contains("there was no answer within 600 ms"), "{message}");
            assert_eq!(problem(outcome), Problem::Call(CallError::Deadline { after: SHORT }));
        }
        service.resume();
        assert_holds(&opened.with_deadline(LONG), "kanal", KEY);
    });
}

#[test]
fn calls_that_hang_are_bounded_and_counted_off_when_they_return() {
    with_keychain("unreachable::calls_that_hang_are_bounded_and_counted_off_when_they_return", |service| {
        let keychain = impatient();
        save(&patient(), "kanal", KEY).unwrap();
        open(&keychain);
        service.stop();
        for _ in 0..MAX_CALLS_PER_PLACE {
            assert_eq!(
                problem(load(&keychain, "kanal")),
                Problem::Call(CallError::Deadline { after: SHORT })
            );
        }
        // At once, whatever is called, and for clones as well.
        let start = Instant::now();
        let stuck = [const { Problem::Call(CallError::Stuck { count: MAX_CALLS_PER_PLACE }) }; 4];
        assert_eq!(every_call(&keychain, SHORT), stuck);
        assert_eq!(every_call(&keychain.clone(), SHORT), stuck);
        assert!(start.elapsed() < SHORT, "it waited");
        service.resume();
        let patience = Instant::now() + LONG;
        while load(&keychain, "kanal").is_err() {
            assert!(Instant::now() < patience, "the calls were not counted off");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_holds(&keychain.with_deadline(LONG), "kanal", KEY);
    });
}

#[test]
fn a_save_that_passed_its_deadline_may_still_happen() {
    with_keychain("unreachable::a_save_that_passed_its_deadline_may_still_happen", |service| {
        let keychain = impatient();
        save(&patient(), "kanal", KEY).unwrap();
        open(&keychain);
        service.stop();
        assert_eq!(
            problem(save(&keychain, "kanal", OTHER_KEY)),
            Problem::Call(CallError::Deadline { after: SHORT })
        );
        service.resume();
        let patience = Instant::now() + LONG;
        let second = patient();
        loop {
            let Ok(Loaded::Found(found)) = load(&second, "kanal") else { panic!("no key") };
            if found.key().expose_secret() == OTHER_KEY {
                break;
            }
            assert!(Instant::now() < patience, "the documentation says that it may, and it never does");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn the_same_value_works_after_a_restart_of_the_daemon() {
    with_keychain("unreachable::the_same_value_works_after_a_restart_of_the_daemon", |service| {
        let keychain = patient();
        save(&keychain, "kanal", KEY).unwrap();
        service.restart();
        assert_holds(&keychain, "kanal", KEY);
        service.restart();
        save(&keychain, "kanal", OTHER_KEY).unwrap();
        service.restart();
        assert_eq!(keychain.list().unwrap(), ["kanal"]);
        assert_holds(&keychain, "kanal", OTHER_KEY);
        service.restart();
        assert!(keychain.delete("kanal").unwrap());
        service.restart();
        assert_absent(&keychain, "kanal");
        save(&keychain, "kanal", KEY).unwrap();
    });
}

#[test]
fn a_daemon_or_a_bus_that_ends_is_no_keychain() {
    with_keychain("unreachable::a_daemon_or_a_bus_that_ends_is_no_keychain", |service| {
        let keychain = patient();
        save(&keychain, "kanal", KEY).unwrap();
        service.end_daemon();
        assert_eq!(every_call(&keychain, LONG), [const { Problem::NoKeychain }; 4]);
        service.restart();
        assert_holds(&keychain, "kanal", KEY);
        service.end_bus();
        assert_eq!(every_call(&keychain, LONG), [const { Problem::NoKeychain }; 4]);
    });
}

#[test]
fn a_daemon_that_exits_mid_call_is_an_error_before_the_deadline() {
    with_keychain("unreachable::a_daemon_that_exits_mid_call_is_an_error_before_the_deadline", |service| {
        let keychain = patient();
        save(&keychain, "kanal", KEY).unwrap();
        service.stop();
        std::thread::scope(|scope| {
            let loading = scope.spawn(|| load(&keychain, "kanal"));
            std::thread::sleep(Duration::from_millis(300));
            service.end_daemon();
            assert_eq!(problem(loading.join().expect("no panic")), Problem::NoKeychain);
        });
    });
}
