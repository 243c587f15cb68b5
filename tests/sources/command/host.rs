//! Programs of a host that is unlike others: it ignores its children, collects all of them, has a terminal,
//! dies, or has run out of something.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use keysheath::source::CallError;
use keysheath::source::Resource;
use rustix::process::{Pid, Signal, WaitOptions, kill_process};

use super::*;

// Who collects a program.

#[test]
fn a_host_that_ignores_its_children_is_told_so() {
    let name = "host::a_host_that_ignores_its_children_is_told_so";
    // What the host's own parent ignores, it ignores as well.
    Child::new(name).through_shell("exec env --ignore-signal=CHLD \"$@\"").run(|| {
        let folder = Folder::new();
        let pid = folder.at("pid");
        let print = |end: &str| script(&format!("echo $$ > \"$1\"; printf {KEY}; {end}"), &[&pid]);
        for end in ["true", "exit 3", "kill -9 $$"] {
            let error = quick(|| error(&print(end)));
            assert_eq!(error.problem(), &Problem::ExitUnknown, "{end}");
            assert!(error.to_string().contains("ignores SIGCHLD"), "{error}");
        }
        // While it runs it is this process's own, and is ended at the deadline.
        let after = Duration::from_millis(300);
        let hangs = print(&format!("exec {HANGS}")).with_deadline(after);
        assert_eq!(quick(|| problem(&hangs)), Problem::Call(CallError::Deadline { after }));
        assert_dead(&ids(&pid));
    });
}

#[test]
fn a_host_that_collects_every_child_is_told_so() {
    Child::new("host::a_host_that_collects_every_child_is_told_so").run(|| {
        static IS_OVER: AtomicBool = AtomicBool::new(false);
        let collector = thread::spawn(|| {
            while !IS_OVER.load(Ordering::Relaxed) {
                if !matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {
                    thread::sleep(Duration::from_micros(200));
                }
            }
        });
        let mut unknown = 0;
        for _ in 0..20 {
            match source::load(&script(&format!("printf {KEY}"), &[]), Kanal::PROFILE) {
                // This process came first.
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.problem(), &Problem::ExitUnknown);
                    assert!(error.to_string().contains("collects every child"), "{error}");
                    unknown += 1;
                }
            }
        }
        assert!(unknown > 0, "the collector never came first");
        IS_OVER.store(true, Ordering::Relaxed);
        collector.join().unwrap();
    });
}

#[test]
fn what_another_has_collected_is_not_signalled() {
    let name = "host::what_another_has_collected_is_not_signalled";
    Child::new(name).through_shell("exec env --ignore-signal=CHLD \"$@\"").run(|| {
        let folder = Folder::new();
        let (leader, member) = (folder.at("leader"), folder.at("member"));
        // The leader ends at once and has no parent; its number is that of a group which it left behind.
        let leaves = script(
            &format!("echo $$ > \"$1\"; sleep 2 & echo $! > \"$2\"; printf {KEY}; exec >&-"),
            &[&leader, &member],
        );
        assert_eq!(quick(|| problem(&leaves)), Problem::ExitUnknown);
        assert!(Path::new(&format!("/proc/{}", ids(&member)[0])).exists(), "a group by number was killed");
        assert!(!Path::new(&format!("/proc/{}", ids(&leader)[0])).exists());
    });
}

// The terminal.

#[test]
fn a_program_that_prompts_on_the_terminal_is_ended_at_once() {
    let name = "host::a_program_that_prompts_on_the_terminal_is_ended_at_once";
    Child::new(name).on_a_terminal().run(|| {
        assert!(File::open("/dev/tty").is_ok(), "there is no terminal");
        let folder = Folder::new();
        let pid = folder.at("pid");
        for prompt in [
            "read passphrase </dev/tty",
            "stty -echo </dev/tty",
            // What the program has started prompts.
            "sh -c 'read passphrase </dev/tty'; true",
        ] {
            let asks = script(&format!("echo $$ > \"$1\"; {prompt}; printf {KEY}"), &[&pid]);
            let start = Instant::now();
            let error = error(&asks);
            assert_eq!(error.problem(), &Problem::WantsTerminal, "{prompt}");
            assert!(start.elapsed() < Duration::from_secs(3), "{prompt}: it took {:?}", start.elapsed());
            assert!(error.to_string().contains("unlock it beforehand"), "{error}");
            assert_dead(&ids(&pid));
        }
        assert_gives_the_key(&prints(KEY));
    });
}

#[test]
fn a_program_that_another_has_stopped_may_go_on() {
    let waits = script(&format!("(sleep 0.3; kill -CONT $$) & kill -STOP $$; wait; printf {KEY}"), &[]);
    quick(|| assert_gives_the_key(&waits));
}

// The end of the host.

#[test]
fn a_program_does_not_outlive_its_host() {
    const NAME: &str = "host::a_program_does_not_outlive_its_host";
    if let Some(pids) = std::env::var_os("PIDS") {
        let family = format!("{HANGS} & echo $! >> \"$1\"; echo $$ >> \"$1\"; mv \"$1\" \"$1.whole\"; wait");
        error(&script(&family, &[Path::new(&pids)]));
        unreachable!("the host was to be killed");
    }
    for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
        let folder = Folder::new();
        let mut host = Child::new(NAME).var("PIDS", folder.at("pids")).spawn();
        let whole = folder.at("pids.whole");
        let start = Instant::now();
        while !whole.exists() {
            assert!(start.elapsed() < PATIENCE, "the program did not come");
            thread::sleep(Duration::from_millis(5));
        }
        kill_process(Pid::from_child(&host), signal).unwrap();
        host.wait().unwrap();
        let ids = ids(&whole);
        assert_eq!(ids.len(), 2, "{signal:?}");
        assert_dead(&ids);
    }
}

#[test]
fn nothing_is_left_beside_a_program_that_was_read() {
    Child::new("host::nothing_is_left_beside_a_program_that_was_read").run(|| {
        for end in ["true", "exit 3"] {
            let program = script(&format!("printf {KEY}; {end}"), &[]);
            let _ = source::load(&program, Kanal::PROFILE);
        }
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
        assert_eq!(children, "");
        let all = std::fs::read_dir("/proc/self/task").unwrap();
        for task in all {
            let children = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
            assert_eq!(children, "");
        }
    });
}

// Its environment.

#[test]
fn no_secret_of_the_host_reaches_a_program_but_what_is_passed() {
    let secrets =
        ["KEYSHEATH_PEPPER", "KEYSHEATH_CONTROL_TOKEN", "BAO_TOKEN", "VAULT_TOKEN", "KANAL_API_KEY"];
    let child = Child::new("host::no_secret_of_the_host_reaches_a_program_but_what_is_passed");
    let child = secrets.iter().fold(child, |child, name| child.var(name, OTHER_KEY));
    let child =
        child.var("KANAL_API_KEY_FILE", "/run/secrets/kanal").var("VAULT_ADDR", "https://bao.example");
    child.run(|| {
        let folder = Folder::new();
        let output = folder.at("environment");
        let prints = script(&format!("env > \"$1\"; printf {KEY}"), &[&output]);
        let environment = |command: &Command| {
            assert_gives_the_key(command);
            std::fs::read_to_string(&output).unwrap()
        };
        let of_all = environment(&prints);
        assert_nothing_of_in(OTHER_KEY, &of_all);
        for name in ["KANAL_API_KEY_FILE=/run/secrets/kanal", "VAULT_ADDR=https://bao.example"] {
            assert!(of_all.contains(name), "{of_all}");
        }
        let passed = environment(&prints.clone().with_variable("VAULT_TOKEN"));
        assert!(passed.contains(&format!("VAULT_TOKEN={OTHER_KEY}")), "it was not passed");
        assert_eq!(passed.matches(OTHER_KEY).count(), 1);
    });
}

#[test]
fn every_variable_of_this_crate_that_holds_a_secret_is_kept() {
    // A name in the sources that sounds like a secret is one that a program must not see.
    let mut names = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                for word in code.flat_map(|line| line.split('"').skip(1).step_by(2)).map(str::to_owned) {
                    let is_name =
                        word.contains('_') && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
                    if is_name
                        && ["_KEY", "_TOKEN", "_PEPPER", "_SECRET"].iter().any(|end| word.ends_with(end))
                    {
                        names.push(word);
                    }
                }
            }
        }
    }
    names.sort();
    names.dedup();
    for known in ["BAO_TOKEN", "KANAL_API_KEY", "KEYSHEATH_PEPPER"] {
        assert!(names.iter().any(|name| name == known), "{names:?}");
    }
    let names: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| *name != "YOUR_API_KEY" && !name.starts_with('_'))
        .collect();
    let child = Child::new("host::every_variable_of_this_crate_that_holds_a_secret_is_kept");
    let child = names.iter().fold(child, |child, name| child.var(name, OTHER_KEY));
    child.run(|| {
        let folder = Folder::new();
        let output = folder.at("environment");
        assert_gives_the_key(&script(&format!("env > \"$1\"; printf {KEY}"), &[&output]));
        let environment = std::fs::read_to_string(&output).unwrap();
        let shown: Vec<_> = environment.lines().filter(|line| line.contains(OTHER_KEY)).collect();
        assert!(shown.is_empty(), "{shown:?}");
    });
}

// What is not there, or has run out.

#[test]
fn what_cannot_be_run_says_what_it_is() {
    let folder = Folder::new();
    let file = |name: &str, text: &str| {
        let path = folder.write(name, text);
        set_mode(&path, 0o700);
        Command::new(path)
    };
    assert_cannot_be_run(&file("plain", &format!("echo {KEY}\n")), "no `#!` line");
    assert_cannot_be_run(&file("empty", ""), "no `#!` line");
    let gone = format!("#!/no/such/interpreter\necho {KEY}\n");
    assert_cannot_be_run(&file("gone", &gone), "the interpreter of its `#!` line");
    assert_cannot_be_run(&file("dos", &format!("#!/bin/sh\r\necho {KEY}\r\n")), "CR and LF");
    assert_cannot_be_run(&Command::new(folder.path()), "it is a directory");
    let closed = folder.write("closed", "#!/bin/sh\n");
    assert_cannot_be_run(&Command::new(&closed), "chmod +x");
    let through = format!("#!{}\necho {KEY}\n", closed.display());
    assert_cannot_be_run(&file("through", &through), "the interpreter of its `#!` line");
    let long = "x".repeat(1 << 18);
    assert_cannot_be_run(&Command::new("printf").args([long]), "too long");
}

#[test]
fn running_out_of_descriptors_is_not_a_missing_program() {
    Child::new("host::running_out_of_descriptors_is_not_a_missing_program")
        .through_shell("ulimit -n 64; exec \"$@\"")
        .run(|| {
            let mut held = Vec::new();
            while let Ok(file) = File::open("/dev/null") {
                held.push(file);
            }
            for error in [error(&prints(KEY)), error(&source::SecretFile::new("/etc/passwd"))] {
                assert_eq!(error.problem(), &Problem::Exhausted(Resource::Descriptors));
                let message = error.to_string();
                assert!(
                    message.contains("file descriptors left") && message.contains("ulimit -n"),
                    "{message}"
                );
                assert!(!message.contains("PATH") && !message.contains("this user"), "{message}");
            }
            drop(held);
            assert_gives_the_key(&prints(KEY));
        });
}

#[test]
fn running_out_of_threads_is_not_an_unreadable_file() {
    // No thread of this size can be started.
    Child::new("host::running_out_of_threads_is_not_an_unreadable_file")
        .var("RUST_MIN_STACK", (1_u64 << 50).to_string())
        .run(|| {
            let folder = Folder::new();
            let file = source::SecretFile::new(folder.write("key", KEY));
            for error in [error(&prints(KEY)), error(&file)] {
                assert_eq!(error.problem(), &Problem::Exhausted(Resource::Threads));
                let message = error.to_string();
                assert!(message.contains("threads left") && !message.contains("this user"), "{message}");
            }
        });
}

// Many at once.

#[test]
fn calls_that_wait_for_their_turn_do_not_mention_a_prompt() {
    let slow = script(&format!("sleep 0.5; printf {KEY}"), &[]).with_deadline(Duration::from_millis(1800));
    let outcomes: Vec<_> = thread::scope(|scope| {
        let calls: Vec<_> =
            (0..64).map(|_| scope.spawn(|| source::load(&slow, Kanal::PROFILE).map(drop))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let good = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let mut queued = 0;
    for error in outcomes.into_iter().filter_map(Result::err) {
        match error.problem() {
            Problem::Call(CallError::Queued { under_way, .. }) => {
                assert!(*under_way <= MAX_CALLS_PER_PLACE);
                queued += 1;
            }
            Problem::Call(CallError::LateTurn { .. }) => {}
            other => panic!("{other}"),
        }
        let message = error.to_string();
        assert!(message.contains("waited") && !message.contains("prompt"), "{message}");
    }
    assert!(good >= MAX_CALLS_PER_PLACE && queued > 0, "{good} were good, {queued} queued");
    // None of them hangs now.
    assert_gives_the_key(&slow);
}
