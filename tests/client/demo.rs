//! The command `demo` of the program keysheath, which the README names, as a process.

use std::process::{Command, Output};

fn keysheath(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keysheath")).args(arguments).output().unwrap()
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
    ends_without_a_failed_request(&keysheath(&["demo", "--seconds", "1", "--rotations", "4"]), 4);
}

#[cfg(all(feature = "keychain", target_os = "linux"))]
#[test]
fn it_stores_the_keys_in_a_keychain_and_removes_them() {
    crate::support::secret_service::with_keychain(
        "it_stores_the_keys_in_a_keychain_and_removes_them",
        |_| {
            let output = keysheath(&["demo", "--seconds", "1", "--rotations", "2", "--keychain"]);
            ends_without_a_failed_request(&output, 2);
            let keychain = keysheath::source::Keychain::for_service("keysheath-demo");
            assert_eq!(keychain.list().unwrap(), Vec::<String>::new());
        },
    );
}

#[test]
fn its_folder_is_removed_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keysheath"));
    command.env("TMPDIR", folder.path()).env("TMP", folder.path());
    let output = command.args(["demo", "--seconds", "1", "--rotations", "1"]).output().unwrap();
    let keys = folder.path().join("keysheath-demo-");
    assert!(texts(&output).0.contains(&format!("Keys in file {}", keys.display())));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_wrong_argument_is_refused_and_not_echoed() {
    for (arguments, usage) in [
        (&[][..], "usage: keysheath COMMAND"),
        (&["8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"], "usage: keysheath COMMAND"),
        (&["--8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"], "usage: keysheath COMMAND"),
        (&["demo", "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"], "usage: keysheath demo"),
        (&["demo", "--keychain=8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"], "usage: keysheath demo"),
        (&["demo", "--seconds"], "usage: keysheath demo"),
        (&["demo", "--seconds", "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z"], "usage: keysheath demo"),
        (&["demo", "--rotations", "0"], "usage: keysheath demo"),
        (&["demo", "--rotations", "-1"], "usage: keysheath demo"),
    ] {
        let output = keysheath(arguments);
        let (shown, errors) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(shown.is_empty(), "{shown}");
        assert!(errors.contains(usage) && !errors.contains("8fK2"), "{errors}");
    }
}

#[test]
fn its_help_and_version_are_printed() {
    for (arguments, expected) in [
        (&["--help"][..], "usage: keysheath COMMAND"),
        (&["demo", "-h"], "usage: keysheath demo"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let output = keysheath(arguments);
        let (shown, errors) = texts(&output);
        assert!(output.status.success() && errors.is_empty(), "{errors}");
        assert!(shown.contains(expected), "{shown}");
    }
}
