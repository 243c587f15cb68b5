//! The example `lifecycle`, which the README names, as a process.

use std::path::PathBuf;
use std::process::{Command, Output};

fn lifecycle(arguments: &[&str]) -> Output {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(2).unwrap();
    let name = format!("lifecycle{}", std::env::consts::EXE_SUFFIX);
    let example: PathBuf = target.join("examples").join(name);
    assert!(example.is_file(), "not built: cargo build --example lifecycle --all-features");
    Command::new(example).args(arguments).output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// Returns the number in the line of the summary that begins with these words.
fn number(shown: &str, words: &str) -> u64 {
    let line = shown.lines().find_map(|line| line.trim_start().strip_prefix(words));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("{words}: {shown}"))
}

fn ends_without_a_failed_request(output: &Output, rotations: usize) {
    let (shown, errors) = texts(output);
    assert!(output.status.success(), "{errors}\n{shown}");
    assert_eq!(number(&shown, "requests failed"), 0);
    assert!(number(&shown, "requests answered") > 0 && number(&shown, "answered after it") > 0);
    assert!(number(&shown, "not sent") > 0, "the leak closed the handle: {shown}");
    let retired =
        shown.lines().filter(|line| line.starts_with("rotation") && line.contains("retired")).count();
    assert_eq!(retired, rotations);
    assert!(shown.contains("compromised") && shown.contains("The audit trail has"));
    assert!(errors.is_empty(), "{errors}");
}

#[test]
fn it_plays_the_life_of_a_key_without_a_failed_request() {
    ends_without_a_failed_request(&lifecycle(&["--seconds", "1", "--rotations", "4"]), 4);
}

#[cfg(all(feature = "keychain", target_os = "linux"))]
#[test]
fn it_stores_the_keys_in_a_keychain_and_removes_them() {
    crate::support::secret_service::with_keychain(
        "it_stores_the_keys_in_a_keychain_and_removes_them",
        |_| {
            let output = lifecycle(&["--seconds", "1", "--rotations", "2", "--keychain"]);
            ends_without_a_failed_request(&output, 2);
            let keychain = keysheath::source::Keychain::for_service("keysheath-example");
            assert_eq!(keychain.list().unwrap(), Vec::<String>::new());
        },
    );
}

#[test]
fn a_wrong_argument_is_refused_and_not_echoed() {
    for arguments in [
        &["8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"][..],
        &["--seconds"],
        &["--seconds", "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"],
        &["--rotations", "0"],
        &["--rotations", "-1"],
    ] {
        let output = lifecycle(arguments);
        let (shown, errors) = texts(&output);
        assert!(!output.status.success() && shown.is_empty(), "{shown}");
        assert!(errors.contains("usage: lifecycle") && !errors.contains("8fK2"), "{errors}");
    }
}
